//! Findings in a file: what is wrong, where, and what to do about it.
//!
//! A [`Diagnostic`] is data; [`Diagnostics`] is the list for one file and those that it includes, with their text.
//! `render` shows the list to a person; `json`, `github` and `sarif` to a program. Nothing here knows what the file is
//! about, but [`CODES`] has all kinds of findings that there are.

mod codes;
mod github;
mod json;
mod render;
mod sarif;
mod source;

use std::ops::Range;

pub use codes::{CODES, Code, Severities, page};
pub use source::{Position, Source};

/// Byte offsets in a file.
pub type Span = Range<usize>;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but probably not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of this kind of finding, in kebab case.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; `None`: the file as a whole.
    pub span: Option<Span>,
    /// What is said beside the carets; may be empty.
    pub label: String,
    /// Other places that have to do with it, each with words of its own.
    pub also: Vec<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    /// A warning without a place.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    const fn new(severity: Severity, code: &'static str, message: String) -> Self {
        Self { severity, code, message, span: None, label: String::new(), also: Vec::new(), help: None }
    }

    /// The same finding at a place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// The same finding with words beside the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same finding with one more place that has to do with it.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also.push((span, label.into()));
        self
    }

    /// The same finding with a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All findings in one file, in the order of their places.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    source: Source,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The findings `list` in `source`, put in order.
    pub fn new(source: Source, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|finding| finding.span.as_ref().map_or((0, 0), |span| (span.start + 1, span.end)));
        list.dedup();
        Self { source, list }
    }

    /// The same findings, and one more.
    #[must_use]
    pub fn with(mut self, finding: Diagnostic) -> Self {
        self.list.push(finding);
        Self::new(self.source, self.list)
    }

    /// The file.
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// The findings.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// Line and column where `finding` begins and where it ends; the end is one past its last character.
    pub fn place(&self, finding: &Diagnostic) -> Option<(Position, Position)> {
        let span = finding.span.as_ref()?;
        Some((self.source.position(span.start), self.source.position(span.end)))
    }

    /// What messages call the file that `finding` is in.
    pub fn file(&self, finding: &Diagnostic) -> &str {
        finding.span.as_ref().map_or(self.source.name(), |span| self.source.file(span.start))
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The one of `known` that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written: String = written.chars().take(LONGEST_NAME).flat_map(char::to_lowercase).collect();
    let far = written.chars().count().div_ceil(3).max(2);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= far && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `text` between backticks, without controls and not without end.
pub fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('`');
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST_NAME {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.push('`');
    shown
}

/// `text` with controls and what turns the direction of writing shown as escapes.
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        if c.is_control() || turns(c) {
            plain.extend(c.escape_unicode())
        } else {
            plain.push(c)
        }
        plain
    })
}

/// Longer names are cut in messages, and compared by their beginning.
const LONGEST_NAME: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_name_that_was_meant() {
        let known = ["upstream", "unauthenticated", "path"];
        assert_eq!(nearest("upstraem", known), Some("upstream"));
        assert_eq!(nearest("Path", known), Some("path"));
        assert_eq!(nearest("unauthenticatd", known), Some("unauthenticated"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn shows_no_controls_and_no_endless_names() {
        assert_eq!(quoted("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert!(quoted(&"x".repeat(5000)).chars().count() < 100);
    }

    #[test]
    fn lists_findings_in_the_order_of_the_file_and_each_once() {
        let late = Diagnostic::warning("late", "late").at(5..6);
        let list = vec![late.clone(), Diagnostic::error("early", "early").at(1..2), late];
        let found = Diagnostics::new(Source::new("f", "0123456789".to_owned()), list);
        assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["early", "late"]);
        assert_eq!((found.errors(), found.warnings()), (1, 1));
    }
}
