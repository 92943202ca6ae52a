//! The rooms of `src/` stand in one order, and a room uses only those before it.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Floors, lowest first; rooms on the same floor do not use each other unless they stand later in the list.
const ORDER: &[&str] = &[
    "clock", "secret", "diag", "metrics", "message", "pattern", "policy", "lint", "config", "upstream", "identity",
    "token", "store", "throttle", "route", "session", "access", "observe", "proxy", "state", "endpoint", "pipeline",
    "explain", "listen", "gateway", "cli",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `text` without line comments, and without the unit tests at the end of a file.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let without_comments = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    without_comments.collect::<Vec<_>>().join("\n")
}

/// The first names after each `crate::`, groups in braces taken apart.
fn rooms_used(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let (mut depth, mut start) = (0, true);
            let mut name = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    letter if depth == 0 && start && (letter.is_alphanumeric() || letter == '_') => name.push(letter),
                    letter if depth == 0 && start && !letter.is_whitespace() => start = false,
                    _ => {}
                }
                if !start || letter == ',' {
                    rooms.extend((!name.is_empty()).then(|| std::mem::take(&mut name)));
                }
            }
            rooms.extend((!name.is_empty()).then_some(name));
        } else {
            rooms.push(after.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect());
        }
    }
    rooms
}

fn floor_of(room: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == room)
}

#[test]
fn a_room_uses_only_those_before_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "only {} files were looked at", files.len());
    let (mut upward, mut seen) = (Vec::new(), BTreeMap::new());
    for file in &files {
        let inside = file.strip_prefix(&root).expect("under src");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let Some(floor) = floor_of(&room) else {
            upward.push(format!("{} is in no room of the order", inside.display()));
            continue;
        };
        *seen.entry(room.clone()).or_insert(0) += 1;
        let code = code_of(&std::fs::read_to_string(file).expect("a source file"));
        for used in rooms_used(&code) {
            let higher = floor_of(&used).is_some_and(|other| other > floor);
            if higher {
                upward.push(format!("{} ({room}) uses {used}", inside.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
    assert!(seen.len() > 15, "only these rooms were seen: {seen:?}");
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let code = "use crate::store::Store;\nuse crate::{clock, token::{Claims, Verified}, access::check as c};\nlet x: crate::proxy::Forwarder;\n\
                pub(crate) fn f(_: &crate::config::Config) {}\n// use crate::cli;\nuse crate::{\n    route,\n    session::Session,\n};";
    let rooms = rooms_used(&code_of(code));
    assert_eq!(rooms, ["store", "clock", "token", "access", "proxy", "config", "route", "session"]);
    assert!(rooms_used("pub(crate) struct A;").is_empty());
}

#[test]
fn the_entry_is_short() {
    let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
    let lines = std::fs::read_to_string(main).expect("main.rs").lines().count();
    assert!(lines < 60, "{lines} lines");
}
