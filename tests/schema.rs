//! `gateway.schema.json` says what the reader reads and what the documentation says; the SARIF of `check` is SARIF.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod json_schema;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use json_schema::faults;
use portcullis::cli::check::{Format, Options, check};
use portcullis::cli::schema::SCHEMA;
use serde_json::{Value, json};

#[test]
fn good_configurations_are_of_the_form_that_the_schema_says() {
    let schema = schema();
    let mut files = files("tests/diagnostics/good", "toml");
    files.extend(self::files("tests/diagnostics/good/routes.d", "toml"));
    files.push("gateway.toml".into());
    assert!(files.len() >= 10);
    let mut texts: Vec<(String, String)> =
        files.iter().map(|file| (file.display().to_string(), fs::read_to_string(file).unwrap())).collect();
    let mut blocks = 0;
    for page in [files_of_docs(), vec!["README.md".into()]].concat() {
        let text = fs::read_to_string(&page).unwrap();
        for kind in ["```toml whole\n", "```toml\n"] {
            for block in text.split(kind).skip(1).map(|rest| rest.split("```").next().unwrap()) {
                texts.push((page.display().to_string(), block.to_owned()));
                blocks += 1;
            }
        }
    }
    assert!(blocks >= 25, "only {blocks} blocks in the documentation");
    for (name, text) in texts {
        let found = faults(&schema, &document(&text).unwrap());
        assert!(found.is_empty(), "{name}\n{text}\n{found:#?}");
    }
}

#[test]
fn bad_forms_are_refused() {
    let schema = schema();
    let mut refused = 0;
    for file in files("tests/diagnostics", "toml") {
        let Some(document) = document(&fs::read_to_string(&file).unwrap()) else { continue };
        let is_refused = !faults(&schema, &document).is_empty();
        let stored = fs::read_to_string(file.with_extension("txt")).unwrap();
        // What is wrong in another file, this one's form does not tell.
        let is_here = |code: &str| {
            let mut findings = stored.split("\n\n").filter(|finding| finding.starts_with(&format!("error[{code}]")));
            findings.any(|finding| finding.contains(&format!("--> {}:", file.display())))
        };
        for code in ["unknown-key", "wrong-type", "missing-key", "bad-duration", "bad-size"] {
            assert!(is_refused || !is_here(code), "{}: {code}", file.display());
        }
        refused += usize::from(is_refused);
    }
    assert!(refused >= 40, "only {refused} files are refused");
}

#[test]
fn every_key_that_is_read_is_in_the_schema_with_the_words_of_the_documentation() {
    let (mut described, mut names) = (Vec::new(), BTreeSet::new());
    let schema = schema();
    collect(&schema, true, &mut |name, property, is_section| {
        names.insert(name.to_owned());
        let text = property["description"].as_str().unwrap_or_default().to_owned();
        assert!(!text.is_empty(), "{name} has no description");
        if !is_section && !text.starts_with("Comes with ") {
            described.push((name.to_owned(), text));
        }
    });
    let rows = rows("docs/configuration.md");
    assert!(described.len() >= 100 && rows.len() >= 100, "{} {}", described.len(), rows.len());
    for (name, text) in &described {
        let said: Vec<&str> = rows.iter().filter(|(key, _)| key == name).map(|(_, text)| text.as_str()).collect();
        assert!(said.contains(&text.as_str()), "{name}: the schema says {text:?}, docs/configuration.md {said:?}");
    }
    let mut keys = 0;
    for file in files("src/config", "rs") {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for call in
            [".take(\"", ".duration(\"", ".boolean(\"", ".table(\"", "list(&mut table, \"", "noted(&mut table, \""]
        {
            for name in code.split(call).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(name.contains('.') || names.contains(name), "{}: {name} is not in the schema", file.display());
                keys += 1;
            }
        }
    }
    assert!(keys >= 100, "only {keys} keys found: is the reader still read rightly?");
}

#[test]
fn defaults_are_of_the_form_themselves() {
    let schema = schema();
    let mut count = 0;
    collect(&schema, true, &mut |name, property, _| {
        if let Some(default) = property.get("default") {
            let mut judged = property.clone();
            judged["$defs"] = schema["$defs"].clone();
            assert_eq!(faults(&judged, default), [""; 0], "{name}");
            count += 1;
        }
    });
    assert!(count >= 50, "only {count} defaults");
}

#[test]
fn findings_as_sarif_are_of_the_form_that_oasis_says() {
    let sarif: Value = serde_json::from_str(&fs::read_to_string("tests/sarif-schema-2.1.0.json").unwrap()).unwrap();
    assert!(!faults(&sarif, &json!({ "version": "2.1.0", "runs": [{}] })).is_empty(), "the schema refuses something");
    let mut results = 0;
    let options = Options { format: Format::Sarif, ..Options::default() };
    for file in files("tests/diagnostics", "toml").iter().chain(&files("tests/diagnostics/good", "toml")) {
        let log: Value = serde_json::from_str(&check(Some(file), options, &|_| None).stdout).unwrap();
        assert_eq!(faults(&sarif, &log), [""; 0], "{}", file.display());
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        for result in run["results"].as_array().unwrap() {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            results += 1;
        }
    }
    assert!(results >= 200, "only {results} findings");
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Calls `see` with every property of `schema`, and whether it is one of the file itself.
fn collect(schema: &Value, is_top: bool, see: &mut dyn FnMut(&str, &Value, bool)) {
    let Value::Object(keywords) = schema else { return };
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    see(name, property, is_top && name != "include");
                    collect(property, false, see);
                }
            }
            ("$defs", Value::Object(definitions)) => {
                definitions.values().for_each(|definition| collect(definition, false, see));
            }
            ("anyOf", Value::Array(list)) => list.iter().for_each(|one| collect(one, false, see)),
            ("items" | "additionalProperties", one) => collect(one, false, see),
            _ => {}
        }
    }
}

/// Keys and their meanings from the tables of a page.
fn rows(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(page).unwrap();
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let meaning = without_links(cells[cells.len() - 1].trim_matches(['|', ' ']));
        rows.extend(cells[0].split('`').skip(1).step_by(2).map(|key| (key.to_owned(), meaning.clone())));
    }
    rows
}

/// `[text](place)` as `text`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let open = before.rfind('[').unwrap();
        plain.push_str(&before[..open]);
        plain.push_str(&before[open + 1..]);
        rest = after.split_once(')').unwrap().1;
    }
    plain + rest
}

/// A text as the document that a schema judges; `None`: it is not TOML.
fn document(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(text).ok()?;
    Some(serde_json::to_value(table).unwrap())
}

fn files_of_docs() -> Vec<PathBuf> {
    files("docs", "md")
}

fn files(directory: impl AsRef<Path>, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == kind)).collect();
    files.sort();
    files
}
