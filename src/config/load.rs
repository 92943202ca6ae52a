//! From a file to the configuration, or to all that is wrong with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;

use toml::Spanned;
use toml::de::DeTable;

use super::Config;
use super::halves;
use super::include::{self, Included};
use super::modes;
use super::parse::{Parsed, parse};
use super::raw::Raw;
use super::reader::{Context, Env};
use super::resolve::resolve;
use crate::diag::{Diagnostic, Diagnostics, Severity, Source, Span, quoted};

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
pub fn load(path: &Path, env: Env<'_>) -> Loaded {
    match read(path, LARGEST, "the configuration") {
        Ok(text) => {
            let loaded = load_text(path, text, env);
            let diagnostics = modes::of_file(path).into_iter().fold(loaded.diagnostics, Diagnostics::with);
            Loaded { diagnostics, ..loaded }
        }
        Err(finding) => refused(path, *finding),
    }
}

/// Checks `text` as if it stood in the file `path`, which need not exist.
pub fn load_text(path: &Path, text: String, env: Env<'_>) -> Loaded {
    if text.trim().is_empty() {
        let finding = Diagnostic::error("empty-file", "the configuration is empty");
        return refused(path, finding.help("it needs at least [upstreams] and one of [[routes]]"));
    }
    let source = Source::new(path.display().to_string(), text.clone());
    // What a large file was read from is taken apart on a thread beside the checks.
    thread::scope(|beside| {
        let discard = |tables| {
            if halves::is_large(&text) {
                drop(thread::Builder::new().spawn_scoped(beside, move || drop(tables)));
            }
        };
        check(path, source, &text, env, discard)
    })
}

fn check<'t>(
    path: &Path,
    mut source: Source,
    text: &'t str,
    env: Env<'_>,
    discard: impl Fn(Vec<Spanned<DeTable<'t>>>),
) -> Loaded {
    let cx = Context::new(env, path.parent().unwrap_or(Path::new("")));
    let mut bases = vec![0];
    let Parsed { mut raw, mut is_whole } = parse(&cx, (&source, 0, text), Raw::read, discard);
    let included = include::find(&cx, path, &std::mem::take(&mut raw.include));
    let mut left = LARGEST.saturating_sub(source.text().len() as u64);
    let mut parts = Vec::new();
    for Included { path, place } in included {
        cx.depends_on(path.clone());
        let text = match read(&path, left, &quoted(&path.to_string_lossy())) {
            Ok(text) => text,
            Err(finding) => {
                is_whole = false;
                cx.report(if path.exists() {
                    finding.at(place)
                } else {
                    finding.at(place).help("a relative name begins at the directory of this configuration")
                });
                continue;
            }
        };
        modes::of_file(&path).into_iter().for_each(|finding| cx.report(finding.at(place.clone())));
        left -= text.len() as u64;
        let base = source.add(path.display().to_string(), text);
        bases.push(base);
        let part = parse(&cx, (&source, base, source.text_at(base)), Raw::read_included, drop);
        is_whole &= part.is_whole;
        parts.push(part.raw);
    }
    raw.include(parts);
    let mut config = is_whole.then(|| {
        raw.require_routes(&cx);
        resolve(&cx, path, raw)
    });
    let files: Vec<PathBuf> = std::iter::once(path.to_owned()).chain(cx.take_files()).collect();
    if let Some(config) = &mut config {
        config.files.clone_from(&files);
        config.secret_files = cx.take_secret_files();
    }
    let (findings, mut masked) = cx.into_parts();
    if config.is_none() {
        for base in bases {
            let found = suspects(source.text_at(base)).into_iter();
            masked.extend(found.map(|span| base + span.start..base + span.end));
        }
    }
    let failed = findings.iter().any(|finding| finding.severity == Severity::Error);
    let source = source.map(|text, base| mask(text, base, &masked));
    Loaded { config: config.filter(|_| !failed), diagnostics: Diagnostics::new(source, findings), files }
}

/// Where the gateway that runs with the file `path` listens for commands, as far as a file tells that may have errors; `None`: nowhere.
pub fn control_socket(path: &Path, env: Env<'_>) -> Option<PathBuf> {
    let text = read(path, LARGEST, "the configuration").unwrap_or_default();
    let source = Source::new(path.display().to_string(), text);
    let cx = Context::new(env, path.parent().unwrap_or(Path::new("")));
    let raw = parse(&cx, (&source, 0, source.text()), Raw::read, drop).raw;
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

/// The text of the file `path`, which messages call `what`.
fn read(path: &Path, most: u64, what: &str) -> Result<String, Box<Diagnostic>> {
    let unreadable = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "name the file with --config FILE",
            io::ErrorKind::PermissionDenied => "let the gateway's user read it",
            _ => "the configuration is one TOML file",
        };
        Box::new(Diagnostic::error("unreadable-file", format!("{what} can't be read: {error}")).help(help))
    };
    if path.is_dir() {
        let finding = Diagnostic::error("unreadable-file", format!("{what} is a directory, not a file"));
        return Err(Box::new(finding.help(format!("name the file in it: {}", path.join("gateway.toml").display()))));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        let finding = Diagnostic::error("file-too-large", format!("{what} is larger than {} MiB", LARGEST >> 20));
        return Err(Box::new(finding.help("is it the right file?")));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let finding = Diagnostic::error("not-utf-8", format!("{what} is UTF-16, not UTF-8"));
        return Err(Box::new(finding.help("save it as UTF-8")));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        let finding = Diagnostic::error("not-utf-8", format!("{what} is not UTF-8: see line {line}"));
        Box::new(finding.help("save it as UTF-8"))
    })?;
    // A byte order mark says nothing in UTF-8, and some editors write it.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// `text`, which begins at `base`, with as many bytes and characters, but nothing to be read at `spans`.
fn mask(text: &str, base: usize, spans: &[Span]) -> String {
    let mut masked = String::with_capacity(text.len());
    let inside = spans.iter().filter(|span| span.start >= base && span.end <= base + text.len());
    let mut spans: Vec<Span> = inside.map(|span| span.start - base..span.end - base).collect();
    spans.sort_by_key(|span| span.start);
    let mut from = 0;
    for span in spans {
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

/// A larger file is another one; with those that it includes it may be as large.
const LARGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_keeps_bytes_and_characters() {
        let text = "secret = \"hün€🔒ter\" # äh";
        let end = text.find(" #").unwrap();
        let masked = mask(text, 0, std::slice::from_ref(&(9..end)));
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
        assert_eq!(find("[admin]\ncontrol = \"c.sock\"\n[[routes]]\npth = 7\n"), Some(beside("c.sock")));
        assert_eq!(find("[store]\nurl = \"sqlite:/var/p/x.db\"\n[routes\n"), Some("/var/p/portcullis.sock".into()));
        assert_eq!(find(""), Some(beside("portcullis.sock")));
        assert_eq!(find("[store]\nurl = \"none\"\n"), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(control_socket(&path, &|_| None), Some(beside("portcullis.sock")));
    }

    #[test]
    fn included_files_stand_before_the_main_one_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("routes.d")).unwrap();
        let route = |path: &str| format!("[[routes]]\npath = \"{path}\"\nallow = \"signed-in\"\nupstream = \"app\"\n");
        for name in ["b.toml", "C.toml", "10.toml", "9.toml", ".hidden.toml", "a.toml~"] {
            std::fs::write(at("routes.d").join(name), route(&format!("/{name}"))).unwrap();
        }
        let main = at("gateway.toml");
        let upstreams = "[upstreams]\napp = \"http://127.0.0.1:3000\"\n";
        let text = format!("include = [\"routes.d/b*\", \"routes.d/*.toml\"]\n{upstreams}{}", route("/**"));
        let loaded = load_text(&main, text, &|_| None);
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics.render(false));
        let config = loaded.config.unwrap();
        let paths: Vec<&str> = config.routes.iter().map(|route| route.path.as_str()).collect();
        assert_eq!(paths, ["/b.toml", "/10.toml", "/9.toml", "/C.toml", "/**"]);
        assert_eq!((&*config.routes[1].name, config.routes[1].index), ("route-2", 1));
        assert_eq!(config.files, loaded.files);
        for file in [&main, &at("routes.d"), &at("routes.d").join("C.toml")] {
            assert!(loaded.files.contains(file), "{} is not watched", file.display());
        }
        std::fs::write(at("routes.d").join("9.toml"), upstreams).unwrap();
        let text = format!("include = [\"routes.d/9.toml\"]\n{upstreams}{}", route("/**"));
        let found = load_text(&main, text, &|_| None).diagnostics.render(false);
        assert!(found.contains("error[duplicate-name]: another upstream is called `app` too"), "{found}");
        assert!(found.contains("routes.d/9.toml:2:1") && found.contains("gateway.toml:3:1"), "{found}");
    }

    #[test]
    fn a_named_file_is_not_looked_for() {
        assert_eq!(find_config_file(Some(Path::new("x.toml"))), Ok(PathBuf::from("x.toml")));
    }
}
