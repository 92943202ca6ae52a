//! JSON Schema, as far as the schemas of these tests use it (drafts 7 and 2020-12 agree on that). A keyword that is not
//! known here ends the test: nothing is passed over.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use regex_automata::dfa::regex::Regex;
use serde_json::Value;

/// What is wrong with `instance` by `schema`: places and reasons.
pub(crate) fn faults(schema: &Value, instance: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    Judge { root: schema }.judge(schema, instance, "$", &mut faults);
    faults
}

struct Judge<'a> {
    root: &'a Value,
}

impl Judge<'_> {
    fn judge(&self, schema: &Value, instance: &Value, place: &str, faults: &mut Vec<String>) {
        let Value::Object(keywords) = schema else {
            if *schema == Value::Bool(false) {
                faults.push(format!("{place}: nothing may stand here"));
            }
            return;
        };
        for (keyword, value) in keywords {
            let count = |schemas: &Value| {
                let alternatives = schemas.as_array().unwrap().iter();
                alternatives.filter(|schema| self.takes(schema, instance)).count()
            };
            let holds = match keyword.as_str() {
                "$ref" => {
                    self.judge(self.definition(value.as_str().unwrap()), instance, place, faults);
                    true
                }
                "type" => match value {
                    Value::Array(types) => types.iter().any(|one| is_type(instance, one.as_str().unwrap())),
                    one => is_type(instance, one.as_str().unwrap()),
                },
                "enum" => value.as_array().unwrap().contains(instance),
                "const" => value == instance,
                "anyOf" => count(value) >= 1,
                "oneOf" => count(value) == 1,
                "pattern" => {
                    instance.as_str().is_none_or(|text| Regex::new(value.as_str().unwrap()).unwrap().is_match(text))
                }
                "minimum" => instance.as_f64().is_none_or(|number| number >= value.as_f64().unwrap()),
                "maximum" => instance.as_f64().is_none_or(|number| number <= value.as_f64().unwrap()),
                "properties" | "additionalProperties" | "required" | "minProperties" | "dependentRequired" => {
                    self.judge_members(keyword, keywords, instance, place, faults);
                    true
                }
                "items" | "minItems" | "uniqueItems" => {
                    self.judge_list(keyword, value, instance, place, faults);
                    true
                }
                "$schema" | "$id" | "$defs" | "definitions" | "title" | "description" | "default" | "examples"
                | "format" => true,
                other => panic!("{place}: the keyword {other} is not known here"),
            };
            if !holds {
                faults.push(format!("{place}: {instance} is not {keyword} {value}"));
            }
        }
    }

    fn judge_members(
        &self,
        keyword: &str,
        keywords: &serde_json::Map<String, Value>,
        instance: &Value,
        place: &str,
        faults: &mut Vec<String>,
    ) {
        let (Value::Object(members), value) = (instance, &keywords[keyword]) else { return };
        let require = |names: &Value, faults: &mut Vec<String>| {
            for name in names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
                if !members.contains_key(name) {
                    faults.push(format!("{place}: {name} is missing"));
                }
            }
        };
        match keyword {
            "required" => require(value, faults),
            "dependentRequired" => {
                let asked = value.as_object().unwrap().iter().filter(|(name, _)| members.contains_key(*name));
                asked.for_each(|(_, names)| require(names, faults));
            }
            "minProperties" if (members.len() as u64) < value.as_u64().unwrap() => {
                faults.push(format!("{place}: too little"));
            }
            "minProperties" => {}
            _ => {
                let named = keywords.get("properties").and_then(Value::as_object);
                for (name, member) in members {
                    let own = named.and_then(|named| named.get(name));
                    let schema = if keyword == "properties" { own } else { Some(value).filter(|_| own.is_none()) };
                    if let Some(schema) = schema {
                        self.judge(schema, member, &format!("{place}.{name}"), faults);
                    }
                }
            }
        }
    }

    fn judge_list(&self, keyword: &str, value: &Value, instance: &Value, place: &str, faults: &mut Vec<String>) {
        let Value::Array(list) = instance else { return };
        match keyword {
            "items" => {
                for (at, item) in list.iter().enumerate() {
                    self.judge(value, item, &format!("{place}[{at}]"), faults);
                }
            }
            "minItems" if (list.len() as u64) < value.as_u64().unwrap() => faults.push(format!("{place}: too few")),
            "uniqueItems" if *value == Value::Bool(true) => {
                let is_twice = |(at, item): (usize, &Value)| list[..at].contains(item);
                if list.iter().enumerate().any(is_twice) {
                    faults.push(format!("{place}: one is there twice"));
                }
            }
            _ => {}
        }
    }

    fn takes(&self, schema: &Value, instance: &Value) -> bool {
        let mut faults = Vec::new();
        self.judge(schema, instance, "$", &mut faults);
        faults.is_empty()
    }

    fn definition(&self, reference: &str) -> &Value {
        self.root.pointer(reference.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{reference} is not there"))
    }
}

fn is_type(instance: &Value, name: &str) -> bool {
    match name {
        "object" => instance.is_object(),
        "array" => instance.is_array(),
        "string" => instance.is_string(),
        "boolean" => instance.is_boolean(),
        "null" => instance.is_null(),
        "number" => instance.is_number(),
        "integer" => instance.is_u64() || instance.is_i64(),
        other => panic!("{other} is no type"),
    }
}
