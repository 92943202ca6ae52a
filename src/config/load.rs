//! From a file to the configuration, or to all that is wrong with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::Config;
use super::parse::parse;
use super::reader::Context;
use super::resolve::resolve;
use crate::diag::{Diagnostic, Diagnostics, Severity, Source, Span};

/// What became of a file.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` where there is an error.
    pub config: Option<Config>,
    /// All that was found, with the file's text. Secrets in it are masked.
    pub diagnostics: Diagnostics,
    /// Every file that it was made of, or should have been: when one changes, it may come to something else.
    pub files: Vec<PathBuf>,
}

/// Reads and checks the file `path`. `env` is the environment.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    match read(path) {
        Ok(text) => load_text(path, text, env),
        Err(finding) => refused(path, finding),
    }
}

/// Checks `text` as if it stood in the file `path`, which need not exist.
pub fn load_text(path: &Path, text: String, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    if text.trim().is_empty() {
        let finding = Diagnostic::error("empty-file", "the configuration is empty");
        return refused(path, finding.help("it needs at least [upstreams] and one of [[routes]]"));
    }
    let cx = Context::new(env, path.parent().unwrap_or(Path::new("")));
    let source = Source::new(path.display().to_string(), text);
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let mut config = {
        let parsed = parse(&cx, &source, table.get_ref(), &errors);
        parsed.is_whole.then(|| resolve(&cx, path, parsed.raw))
    };
    drop(table);
    let files: Vec<PathBuf> = std::iter::once(path.to_owned()).chain(cx.take_files()).collect();
    if let Some(config) = &mut config {
        config.files.clone_from(&files);
    }
    let (findings, mut masked) = cx.into_parts();
    if config.is_none() {
        masked.extend(suspects(source.text()));
    }
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    let text = mask(source.text(), &masked);
    let diagnostics = Diagnostics::new(Source::new(source.name(), text), findings);
    Loaded { config: config.filter(|_| !failed), diagnostics, files }
}

/// Where the gateway that runs with the file `path` listens for commands, as far as a file tells that may have errors.
pub fn control_socket(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let source = Source::new(path.display().to_string(), read(path).unwrap_or_default());
    let cx = Context::new(env, path.parent().unwrap_or(Path::new("")));
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let raw = parse(&cx, &source, table.get_ref(), &errors).raw;
    let store = raw.store.resolve(&cx);
    raw.admin.resolve(&cx, &store).control
}

/// The configuration file: the one that is named, else the working directory's, else the machine's.
///
/// # Errors
/// None is named and neither is there; the message says where it was looked for.
pub fn find_config_file(explicit: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    let places = ["gateway.toml", "/etc/portcullis/gateway.toml"].map(Path::new);
    match places.iter().find(|place| place.exists()) {
        Some(place) => Ok(place.to_path_buf()),
        None => {
            Err("there is no gateway.toml here and no /etc/portcullis/gateway.toml; name one with --config FILE"
                .to_owned())
        }
    }
}

fn refused(path: &Path, finding: Diagnostic) -> Loaded {
    let source = Source::new(path.display().to_string(), String::new());
    let diagnostics = Diagnostics::new(source, vec![finding]);
    Loaded { config: None, diagnostics, files: vec![path.to_owned()] }
}

fn read(path: &Path) -> Result<String, Diagnostic> {
    let unreadable = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "name the file with --config FILE",
            io::ErrorKind::PermissionDenied => "let the gateway's user read it",
            _ => "the configuration is one TOML file",
        };
        Diagnostic::error("unreadable-file", format!("the configuration can't be read: {error}")).help(help)
    };
    if path.is_dir() {
        let finding = Diagnostic::error("unreadable-file", "the configuration is a directory, not a file");
        return Err(finding.help(format!("name the file in it: {}", path.join("gateway.toml").display())));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        let finding =
            Diagnostic::error("file-too-large", format!("the configuration is larger than {} MiB", LARGEST >> 20));
        return Err(finding.help("is it the right file?"));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Diagnostic::error("not-utf-8", "the configuration is UTF-16, not UTF-8").help("save it as UTF-8"));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::error("not-utf-8", format!("the configuration is not UTF-8: see line {line}"))
            .help("save it as UTF-8")
    })?;
    // A byte order mark says nothing in UTF-8, and some editors write it.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// `text` with as many bytes and characters, but nothing to be read at `spans`.
fn mask(text: &str, spans: &[Span]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut spans: Vec<&Span> = spans.iter().collect();
    spans.sort_by_key(|span| span.start);
    let mut from = 0;
    for span in spans.into_iter().filter(|span| span.end <= text.len()) {
        let start = span.start.max(from);
        masked.push_str(text.get(from..start).unwrap_or_default());
        for c in text.get(start..span.end).unwrap_or_default().chars() {
            masked.push(match c.len_utf8() {
                _ if matches!(c, '"' | '\'' | '\n' | '\r') => c,
                1 => '*',
                2 => '·',
                3 => '•',
                _ => '\u{1f512}',
            });
        }
        from = from.max(span.end);
    }
    masked.push_str(text.get(from..).unwrap_or_default());
    masked
}

/// Where secrets may stand in a text that is not TOML: behind `secret =` and `key =`.
fn suspects(text: &str) -> Vec<Span> {
    let mut at = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let key = line.split('=').next().unwrap_or_default();
        if matches!(key.trim(), "secret" | "key" | "tokens.secret" | "tokens.key") && key.len() < line.len() {
            found.push(at + key.len() + 1..at + line.trim_end().len());
        }
        at += line.len();
    }
    found.retain(|span| span.start < span.end);
    found
}

/// A larger file is another one.
const LARGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_keeps_bytes_and_characters() {
        let text = "secret = \"hün€🔒ter\" # äh";
        let end = text.find(" #").unwrap();
        let masked = mask(text, std::slice::from_ref(&(9..end)));
        assert_eq!(masked.len(), text.len());
        assert_eq!(masked.chars().count(), text.chars().count());
        assert_eq!(masked, "secret = \"*·*•🔒***\" # äh");
    }

    #[test]
    fn files_of_secrets_are_told_also_where_they_are_missing() {
        let text = "[tokens]\nalgorithm = \"HS256\"\nsecret = { file = \"jwt\" }\n";
        let loaded = load_text(Path::new("/nowhere/gateway.toml"), text.to_owned(), &|_| None);
        assert!(loaded.config.is_none());
        assert_eq!(loaded.files, [Path::new("/nowhere/gateway.toml"), Path::new("/nowhere/jwt")]);
    }

    #[test]
    fn the_control_socket_is_found_in_a_file_with_errors() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        let find = |text: &str| {
            std::fs::write(&path, text).unwrap();
            control_socket(&path, &|_| None)
        };
        let beside = |name: &str| directory.path().join(name);
        assert_eq!(find("[admin]\ncontrol = \"c.sock\"\n[[routes]]\npth = 7\n"), beside("c.sock"));
        assert_eq!(find("[store]\nurl = \"sqlite:/var/p/x.db\"\n[routes\n"), Path::new("/var/p/portcullis.sock"));
        assert_eq!(find(""), beside("portcullis.sock"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(control_socket(&path, &|_| None), beside("portcullis.sock"));
    }

    #[test]
    fn a_named_file_is_not_looked_for() {
        assert_eq!(find_config_file(Some(Path::new("x.toml"))), Ok(PathBuf::from("x.toml")));
    }
}
