//! What is written is true: every configuration in README and `docs/` loads, every key that is read is described, every
//! file that is named is there.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::{Loaded, load_text};

/// A fenced block: the words behind its three backticks, and its lines.
struct Block {
    file: PathBuf,
    line: usize,
    info: String,
    text: String,
}

#[test]
fn every_configuration_loads_without_findings() {
    let (mut whole, mut parts, mut wrong) = (0, 0, 0);
    for block in blocks().iter().filter(|block| block.info.split(' ').next() == Some("toml")) {
        let place = format!("{}:{}", block.file.display(), block.line);
        match block.info.as_str() {
            "toml whole" => {
                let loaded = check(block.text.clone());
                assert!(loaded.diagnostics.is_empty(), "{place}\n{}", loaded.diagnostics.render(false));
                whole += 1;
            }
            "toml wrong" => {
                let loaded = check(completed(&block.text));
                assert!(loaded.diagnostics.errors() > 0, "{place} has no error");
                wrong += 1;
            }
            "toml" => {
                let loaded = check(completed(&block.text));
                // Files that an example includes, of accounts and of certificates, need not be there.
                let files =
                    ["users.htpasswd", "internal-ca.pem", "gateway.pem", "gateway.key", "/etc/portcullis/apps."];
                let is_of_a_file =
                    |message: &str| files.iter().any(|file| message.starts_with(&format!("the file `{file}")));
                let is_clean = loaded
                    .diagnostics
                    .iter()
                    .all(|finding| finding.code == "nothing-included" || is_of_a_file(&finding.message));
                assert!(is_clean, "{place}\n{}", loaded.diagnostics.render(false));
                parts += 1;
            }
            "toml warned" => {
                let loaded = check(completed(&block.text));
                let found = (loaded.diagnostics.errors(), loaded.diagnostics.warnings());
                assert_eq!(found, (0, 1), "{place}\n{}", loaded.diagnostics.render(false));
            }
            // Judged with its section.
            "toml finding" => {}
            other => panic!("{place}: {other} is `toml`, or that with `whole`, `warned`, `wrong` or `finding`"),
        }
    }
    assert!(whole >= 11 && parts >= 16 && wrong >= 1, "only {whole} whole, {parts} parts, {wrong} wrong");
}

#[test]
fn every_key_has_a_row() {
    let described = first_cells("docs/configuration.md");
    let mut keys = BTreeSet::new();
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for call in [".take(\"", ".duration(\"", ".boolean(\"", ".table(\"", "list(&mut table, \""] {
            let names = code.split(call).skip(1).map(|rest| rest.split('"').next().unwrap());
            // Names with a dot are those of whole tables.
            keys.extend(names.filter(|name| !name.contains('.')).map(str::to_owned));
        }
    }
    assert!(keys.len() >= 70, "only {} keys found: is the reader still read rightly?", keys.len());
    // The tables themselves are headings.
    let sections = [
        "server",
        "admin",
        "log",
        "trace",
        "store",
        "tokens",
        "issuers",
        "sessions",
        "login",
        "identity",
        "upstreams",
        "routes",
        "tests",
    ];
    let missing: Vec<_> =
        keys.iter().filter(|key| !described.contains(*key) && !sections.contains(&key.as_str())).collect();
    assert!(missing.is_empty(), "docs/configuration.md has no row for {missing:?}");
    let page = fs::read_to_string("docs/configuration.md").unwrap();
    for section in sections {
        assert!(page.lines().any(|line| line.starts_with("## ") && line.contains(section)), "no heading for {section}");
    }
}

#[test]
fn what_comes_later_is_said_to_come_later() {
    let code = fs::read_to_string("src/config/later.rs").unwrap();
    let page = fs::read_to_string("docs/configuration.md").unwrap();
    let table = page.split("## What comes later").nth(1).unwrap();
    let mut count = 0;
    for line in code.split("later(\"").skip(1) {
        let quoted: Vec<&str> = line.split('"').step_by(2).collect();
        let [_, name, version] = quoted[..3] else { panic!("{line}") };
        let row = table.lines().find(|row| row.contains(&format!("`{name}`")) && row.contains(version));
        assert!(row.is_some(), "docs/configuration.md does not say that `{name}` comes with {version}");
        count += 1;
    }
    assert!(count >= 2, "only {count} later words found");
}

#[test]
fn every_link_and_every_test_that_is_named_is_there() {
    let mut count = 0;
    for file in pages() {
        let text = fs::read_to_string(&file).unwrap();
        let beside = file.parent().unwrap();
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        let links = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
        for link in links.map(|link| link.split('#').next().unwrap()) {
            assert!(beside.join(link).exists(), "{}: {link} is not there", file.display());
            count += 1;
        }
        let code = text.split('`').skip(1).step_by(2);
        for name in code.filter(|name| name.starts_with("src/") || name.starts_with("tests/")) {
            let is_elsewhere =
                !Path::new("tests/gateway").exists() && DRIVEN_FROM_OUTSIDE.iter().any(|at| name.starts_with(at));
            if is_elsewhere {
                continue;
            }
            assert!(Path::new(name).exists(), "{}: {name} is not there", file.display());
            count += 1;
        }
    }
    assert!(count >= 60, "only {count} links and files found");
}

#[test]
fn every_task_has_a_page_of_one_shape_that_is_found_from_the_index() {
    let index = fs::read_to_string("docs/index.md").unwrap();
    let pages = files(HOWTO, "md");
    assert!(pages.len() >= 7, "only {} pages", pages.len());
    for page in pages {
        let (name, text) = (page.file_name().unwrap().to_str().unwrap(), fs::read_to_string(&page).unwrap());
        assert!(index.contains(&format!("(howto/{name})")), "docs/index.md does not name {name}");
        let headings = ["## When it fits", "## See that it works", "## What goes wrong", "## Back again"];
        let mut rest = text.as_str();
        for heading in headings {
            let found = rest.split_once(&format!("\n{heading}"));
            rest = found.unwrap_or_else(|| panic!("{name} has no {heading}, or not here")).1;
        }
        assert!(text.contains("\n```toml whole\n"), "{name} has no whole configuration");
        assert!(text.lines().count() <= 180, "{name} is too long to be followed");
    }
}

/// Pages for one task each.
const HOWTO: &str = "docs/howto";

/// What stands beside the sources only where the whole gateway is tested, and in no package without it.
const DRIVEN_FROM_OUTSIDE: [&str; 2] = ["tests/gateway/", "tests/layering.rs"];

fn check(text: String) -> Loaded {
    let environment = |name: &str| {
        let key = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n";
        let value = match name {
            "SIGNING_KEY" => key,
            "JWT_SECRET" | "JWT_SECRET_BEFORE" => "kT8!vN2#qR5@wX9$zB4%yC7^uD1&eF6*",
            _ => return None,
        };
        Some(value.to_owned())
    };
    load_text(Path::new("gateway.toml"), text, &environment)
}

/// A part of a configuration with what it needs to be one.
fn completed(part: &str) -> String {
    let mut text = part.to_owned();
    if !part.contains("[upstreams") {
        text.push_str("\n[upstreams]\napp = \"http://127.0.0.1:3000\"\n");
    }
    if !part.contains("[[routes]]") {
        let upstreams = ["api", "app"].into_iter().filter(|name| {
            text.contains(&format!("[upstreams.{name}]"))
                || text.lines().any(|line| line.starts_with(&format!("{name} ")))
        });
        for (upstream, path) in upstreams.collect::<Vec<_>>().into_iter().zip(["/**", "/other/**"]).rev() {
            text.push_str(&format!(
                "\n[[routes]]\npath = \"{path}\"\nallow = \"signed-in\"\nupstream = \"{upstream}\"\n"
            ));
        }
    }
    text
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for file in pages() {
        let text = fs::read_to_string(&file).unwrap();
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(text.lines()) {
            match (line.strip_prefix("```"), open.take()) {
                (Some(info), None) => {
                    let (file, info) = (file.clone(), info.to_owned());
                    open = Some(Block { file, line: number, info, text: String::new() });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", file.display());
    }
    blocks
}

/// The words in backticks in the first cells of all tables of a page.
fn first_cells(page: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).into();
    pages.extend(files("docs", "md"));
    pages.extend(files(HOWTO, "md"));
    for directory in fs::read_dir("examples").unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        pages.extend(files(directory, "md"));
    }
    assert!(pages.len() >= 14, "only {} pages", pages.len());
    pages
}

fn sources() -> Vec<PathBuf> {
    let sources = files("src/config", "rs");
    assert!(sources.len() >= 10);
    sources
}

fn files(directory: impl AsRef<Path>, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == kind)).collect();
    files.sort();
    files
}
