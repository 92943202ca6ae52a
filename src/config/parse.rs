//! From text to the file as written, with every mistake at once.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::DeTable;

use super::halves;
use super::raw::Raw;
use super::reader::{Context, Table};
use crate::diag::{Diagnostic, Source};

/// What could be read.
pub(super) struct Parsed {
    /// The file as written.
    pub(super) raw: Raw,
    /// Whether the text is TOML, so that what is missing is really missing.
    pub(super) is_whole: bool,
}

/// Takes from a file what such a file may have.
pub(super) type Read = for<'a> fn(&'a Context<'a>, Table<'a>) -> Raw;

/// Reads `text`, the file of `source` that begins at `base`. What it was read from goes to `discard`: taking a large one apart
/// takes a tenth of the time of it all.
pub(super) fn parse<'t>(
    cx: &Context<'_>,
    (source, base, text): (&Source, usize, &'t str),
    read: Read,
    discard: impl Fn(Vec<Spanned<DeTable<'t>>>),
) -> Parsed {
    if let Some(raw) = halves::read(cx, (base, text), read, &discard) {
        return Parsed { raw, is_whole: true };
    }
    cx.begin(base);
    let (table, errors) = DeTable::parse_recoverable(text);
    let is_whole = errors.is_empty();
    let mut lines = HashSet::new();
    for error in errors.iter().take(MOST_ERRORS) {
        let finding = syntax_error(cx, source, error);
        let line = finding.span.as_ref().map(|span| source.position(span.start).line);
        // What follows in a line that is broken follows from what broke it.
        if finding.code != "syntax" || lines.insert(line) {
            cx.report(finding);
        }
    }
    let raw = read(cx, Table::new(cx, "", table.get_ref(), base..base));
    if !is_whole {
        // What a broken line was meant to say is not known: only findings that do not hang on it are kept.
        let spans = errors.iter().filter_map(toml::de::Error::span);
        let broken: HashSet<usize> = spans.map(|span| source.position(base + span.start).line).collect();
        cx.retain(|finding| {
            let Some(span) = finding.span.as_ref().filter(|span| span.start >= base) else { return base > 0 };
            match finding.code {
                "syntax" | "duplicate-key" => true,
                "missing-key" | "no-routes" | "empty-list" | "empty-allow" => false,
                _ => !broken.contains(&source.position(span.start).line),
            }
        });
    }
    discard(vec![table]);
    Parsed { raw, is_whole }
}

fn syntax_error(cx: &Context<'_>, source: &Source, error: &toml::de::Error) -> Diagnostic {
    let span = source.whole_characters(&cx.place(&error.span().unwrap_or(0..0)));
    let message = error.message();
    if message.starts_with("duplicate key") {
        let finding = Diagnostic::error("duplicate-key", "this key or table is written twice").at(span);
        return finding.label("written before").help("keep one of them");
    }
    let (message, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let finding = Diagnostic::error("syntax", format!("this is not TOML: {message}")).at(span);
    let finding = if expected.is_empty() { finding } else { finding.label(format!("expected {expected}")) };
    finding.help(match message {
        "string values must be quoted" => "put the value in quotes: \"…\"",
        _ if message.contains("unclosed") || message.contains("unterminated") => "close it on the same line",
        _ if message.contains("missing value") || message.contains("key with no value") => "write key = value",
        _ => "look for a missing quote, bracket or comma here or just before",
    })
}

/// After so many broken lines the file is something else.
const MOST_ERRORS: usize = 100;
