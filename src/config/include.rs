//! `include`: which other files a configuration takes routes, tests and upstreams from.
//!
//! A name may have `*` and `?`, which stand for what is within one directory or file name. Nothing is read here.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::reader::{Context, Item, Written};
use crate::diag::{Diagnostic, Span, quoted};

/// The names as written.
pub(super) fn read(item: &Item<'_>) -> Vec<Written<String>> {
    item.strings().map(toml::Spanned::into_inner).unwrap_or_default()
}

/// A file to be read, and where it is named.
pub(super) struct Included {
    pub(super) path: PathBuf,
    pub(super) place: Span,
}

/// The files that `names` stand for: in the order of the names, those of one name in the byte order of their own, each once.
pub(super) fn find(cx: &Context<'_>, main: &Path, names: &[Written<String>]) -> Vec<Included> {
    let mut seen: HashSet<PathBuf> = HashSet::new();
    let mut found = Vec::new();
    for name in names {
        let pattern = cx.directory.join(name.get_ref());
        let paths = if is_pattern(name.get_ref()) { expand(cx, &pattern) } else { vec![pattern] };
        if paths.is_empty() {
            let message = format!("no file is called {}", quoted(name.get_ref()));
            let finding = Diagnostic::warning("nothing-included", message).at(name.span()).label("nothing is included");
            cx.report(finding.help("a relative name begins at the directory of this configuration"));
        }
        for path in paths {
            if is_same(&path, main) {
                let message = format!("{} includes itself", quoted(&main.to_string_lossy()));
                let finding = Diagnostic::error("includes-itself", message).at(name.span());
                cx.report(finding.help("give included files a directory of their own, such as \"routes.d/*.toml\""));
            } else if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                found.push(Included { path, place: name.span() });
            }
        }
    }
    if let Some(one) = found.get(MOST_FILES) {
        let message = format!("more than {MOST_FILES} files are included");
        let finding = Diagnostic::error("file-too-large", message).at(one.place.clone());
        cx.report(finding.help("put the routes into fewer files"));
        found.truncate(MOST_FILES);
    }
    found
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The files that `pattern` matches, in byte order. A name that begins with a dot is matched only by one that does too.
fn expand(cx: &Context<'_>, pattern: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    for component in pattern.components() {
        paths = match component {
            Component::Normal(name) if is_pattern(&name.to_string_lossy()) => {
                paths.iter().flat_map(|directory| matching(cx, directory, name)).collect()
            }
            other => paths.into_iter().map(|path| path.join(other)).collect(),
        };
    }
    let mut files: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_file()).collect();
    files.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    files
}

fn matching(cx: &Context<'_>, directory: &Path, pattern: &OsStr) -> Vec<PathBuf> {
    let place = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    // A file that is added later changes what is matched, and with it the directory.
    cx.depends_on(place.to_owned());
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter(|name| matches(pattern.as_bytes(), name.as_bytes())).map(|name| directory.join(name)).collect()
}

/// Whether `name` is what `pattern` says: `*` is any bytes, `?` one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    // After a mismatch the last `*` takes one byte more: no other needs to be tried again.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[from] => (at, from) = (at + 1, from + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, from) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// More files than this are no configuration.
const MOST_FILES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_within_one_name_and_no_dot_at_its_beginning() {
        for (pattern, name) in
            [("*.toml", "a.toml"), ("*", "x"), ("a*b*c", "aXbYbZc"), ("?.toml", "a.toml"), (".*", ".a"), ("a*", "a")]
        {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("*.toml", "a.toml~"), ("*.toml", ".a.toml"), ("?.toml", "ab.toml"), ("a*b", "ac")] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
