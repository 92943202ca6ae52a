//! A configuration that is to be shown, as TOML in an order of its own and as JSON. What is in it is decided elsewhere.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A table: its keys in the order in which they are shown.
pub(super) type Entries = Vec<(String, Shown)>;

/// What a key has.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    /// A string, a number or a truth value, or lists and tables of them that stand in one line.
    Plain(Value),
    /// A list in one line.
    List(Vec<Shown>),
    /// A table in one line.
    Inline(Entries),
    /// A section.
    Section(Entries),
    /// Sections of one name.
    Sections(Vec<Entries>),
    /// Nothing: a comment that says what that means, and `null`.
    Nothing(String),
}

/// The whole file.
pub(super) fn toml(file: &Entries) -> String {
    let mut out = String::new();
    sections(&mut out, "", file);
    out
}

/// The whole file as one document.
pub(super) fn json(entries: &Entries) -> Value {
    Value::Object(entries.iter().map(|(key, shown)| (key.clone(), value(shown))).collect())
}

fn value(shown: &Shown) -> Value {
    match shown {
        Shown::Plain(value) => value.clone(),
        Shown::List(items) => items.iter().map(value).collect(),
        Shown::Inline(entries) | Shown::Section(entries) => json(entries),
        Shown::Sections(tables) => tables.iter().map(json).collect(),
        Shown::Nothing(_) => Value::Null,
    }
}

/// The sections among `entries`, each after what it has itself.
fn sections(out: &mut String, within: &str, entries: &Entries) {
    for (name, shown) in entries {
        let path = if within.is_empty() { key(name) } else { format!("{within}.{}", key(name)) };
        match shown {
            Shown::Section(entries) => {
                header(out, &format!("[{path}]"));
                lines(out, entries);
                sections(out, &path, entries);
            }
            Shown::Sections(tables) => {
                for entries in tables {
                    header(out, &format!("[[{path}]]"));
                    lines(out, entries);
                }
            }
            // In a section of its own it has been written as a line; at the top only sections stand.
            Shown::Nothing(why) if within.is_empty() => header(out, &format!("# [{path}]: {why}")),
            Shown::Plain(_) | Shown::List(_) | Shown::Inline(_) | Shown::Nothing(_) => {}
        }
    }
}

fn header(out: &mut String, header: &str) {
    let gap = if out.is_empty() { "" } else { "\n" };
    let _infallible = writeln!(out, "{gap}{header}");
}

/// What of `entries` is written line by line, the signs of equality below each other.
fn lines(out: &mut String, entries: &Entries) {
    let is_line = |shown: &Shown| matches!(shown, Shown::Plain(_) | Shown::List(_) | Shown::Inline(_));
    let keys = entries.iter().filter(|(_, shown)| is_line(shown)).map(|(name, _)| key(name).chars().count());
    let width = keys.max().unwrap_or_default();
    for (name, shown) in entries {
        let name = key(name);
        let _infallible = match shown {
            Shown::Nothing(why) => writeln!(out, "# {name}: {why}"),
            shown if is_line(shown) => writeln!(out, "{name:width$} = {}", inline(shown)),
            _ => Ok(()),
        };
    }
}

/// In one line. Comments have no place in it.
fn inline(shown: &Shown) -> String {
    match shown {
        Shown::Plain(value) => plain(value),
        Shown::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Shown::Inline(entries) | Shown::Section(entries) => table(entries),
        Shown::Sections(tables) => format!("[{}]", tables.iter().map(table).collect::<Vec<_>>().join(", ")),
        Shown::Nothing(_) => String::new(),
    }
}

fn table(entries: &Entries) -> String {
    let is_there = |(_, shown): &&(String, Shown)| !matches!(shown, Shown::Nothing(_));
    let members = entries.iter().filter(is_there).map(|(name, shown)| (name.as_str(), inline(shown)));
    braces(members)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => object(members),
        // What JSON has no number for: only a claim of `[[tests]]` can be one.
        Value::Null => "nan".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn object(members: &Map<String, Value>) -> String {
    braces(members.iter().map(|(name, value)| (name.as_str(), plain(value))))
}

fn braces<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    let members: Vec<String> = members.map(|(name, value)| format!("{} = {value}", key(name))).collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
}

/// A key as TOML writes it.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A basic string of TOML: nothing in it ends it, and nothing is a command to a terminal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            letter if is_unseen(letter) => {
                let _infallible = write!(out, "\\U{:08X}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// Controls, and what turns the direction of text around.
fn is_unseen(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_and_keys_come_back_as_they_were() {
        for text in ["", "a", "a b", "a.b", "\"\\\n\t\r\u{7f}\u{1b}[2J\u{85}", "ä\u{202e}x", "# no comment", "'"] {
            let file = vec![("x".to_owned(), Shown::Section(vec![(text.to_owned(), Shown::Plain(text.into()))]))];
            let written = toml(&file);
            assert!(!written.contains(['\u{1b}', '\u{7f}', '\u{202e}']), "{written:?}");
            let read: toml::Table = written.parse().unwrap_or_else(|error| panic!("{error} in {written}"));
            assert_eq!(read["x"][text].as_str(), Some(text), "{written}");
        }
    }

    #[test]
    fn sections_stand_behind_the_lines_of_the_one_that_they_are_in() {
        let line = |name: &str, value: Value| (name.to_owned(), Shown::Plain(value));
        let inner = Shown::Section(vec![line("n", json!(1.0))]);
        let file = vec![
            ("a".to_owned(), Shown::Section(vec![("in".to_owned(), inner), line("longer", json!([1, { "k": true }]))])),
            ("off".to_owned(), Shown::Nothing("none".to_owned())),
            ("b".to_owned(), Shown::Sections(vec![vec![line("x", json!("y"))], vec![]])),
        ];
        let expected =
            "[a]\nlonger = [1, { k = true }]\n\n[a.in]\nn = 1.0\n\n# [off]: none\n\n[[b]]\nx = \"y\"\n\n[[b]]\n";
        assert_eq!(toml(&file), expected);
        let document =
            json!({ "a": { "in": { "n": 1.0 }, "longer": [1, { "k": true }] }, "off": null, "b": [{ "x": "y" }, {}] });
        assert_eq!(json(&file), document);
    }
}
