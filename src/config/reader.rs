//! How the sections read their keys: typed access to a TOML table that collects every finding.
//!
//! A [`Table`] hands out its keys one by one and reports, at its end, those that nobody asked for.
//! Every typed access gives `None` where it has reported something, so that reading goes on.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::later::{self, Later};
use super::values;
use crate::diag::{Diagnostic, Severity, Span, nearest, quoted};

/// A value and where it is written.
pub(super) type Written<T> = Spanned<T>;

/// The environment: the value of a variable, if it is set.
pub type Env<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// What reading needs besides the text, and what it finds.
pub(super) struct Context<'a> {
    /// The environment.
    pub(super) env: Env<'a>,
    /// What relative paths are relative to.
    pub(super) directory: &'a Path,
    findings: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
    masked: RefCell<Vec<Span>>,
    files: RefCell<Vec<PathBuf>>,
    secret_files: RefCell<Vec<PathBuf>>,
    /// Where the file that is being read begins among all files.
    base: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(super) fn new(env: Env<'a>, directory: &'a Path) -> Self {
        Self {
            env,
            directory,
            findings: RefCell::default(),
            errors: Cell::new(0),
            warnings: Cell::new(0),
            masked: RefCell::default(),
            files: RefCell::default(),
            secret_files: RefCell::default(),
            base: Cell::new(0),
        }
    }

    /// Adds a finding, unless there are more than enough of its severity.
    pub(super) fn report(&self, finding: Diagnostic) {
        let count = match finding.severity {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
        };
        count.set(count.get() + 1);
        if count.get() <= MOST_FINDINGS {
            self.findings.borrow_mut().push(finding);
        }
    }

    /// Drops the findings that `keep` does not want.
    pub(super) fn retain(&self, keep: impl FnMut(&Diagnostic) -> bool) {
        self.findings.borrow_mut().retain(keep);
    }

    /// Marks a place whose text no message may show.
    pub(super) fn mask(&self, span: Span) {
        self.masked.borrow_mut().push(span);
    }

    /// Says that what is read depends on the file `path`.
    pub(super) fn depends_on(&self, path: PathBuf) {
        self.files.borrow_mut().push(path);
    }

    /// Says that what is read depends on the file `path`, which nobody else should read.
    pub(super) fn depends_on_secret(&self, path: PathBuf) {
        self.secret_files.borrow_mut().push(path.clone());
        self.depends_on(path);
    }

    /// Those of the files that nobody else should read.
    pub(super) fn take_secret_files(&self) -> Vec<PathBuf> {
        self.secret_files.take()
    }

    /// The files that it depends on, in the order in which they were named.
    pub(super) fn take_files(&self) -> Vec<PathBuf> {
        self.files.take()
    }

    /// From now on a file is read that begins at `base`.
    pub(super) fn begin(&self, base: usize) {
        self.base.set(base);
    }

    /// Where `span` of the file that is being read lies among all files.
    pub(super) fn place(&self, span: &Span) -> Span {
        self.base.get() + span.start..self.base.get() + span.end
    }

    /// Takes in what `other` has found, as if it had been found here.
    pub(super) fn take_in(&self, other: Self) {
        other.findings.into_inner().into_iter().for_each(|finding| self.report(finding));
        self.masked.borrow_mut().append(&mut other.masked.into_inner());
        self.files.borrow_mut().append(&mut other.files.into_inner());
        self.secret_files.borrow_mut().append(&mut other.secret_files.into_inner());
    }

    /// What was found, and the places that no message may show.
    pub(super) fn into_parts(self) -> (Vec<Diagnostic>, Vec<Span>) {
        (self.findings.into_inner(), self.masked.into_inner())
    }
}

/// A table that is being read.
pub(super) struct Table<'a> {
    pub(super) cx: &'a Context<'a>,
    /// Which table it is, without names that the user chose: `server.limits`, `upstreams.*`.
    section: &'static str,
    /// Where its header or its braces are.
    pub(super) span: Span,
    unread: Vec<(&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(cx: &'a Context<'a>, section: &'static str, table: &'a DeTable<'a>, span: Span) -> Self {
        let mut unread: Vec<_> = table.iter().collect();
        unread.sort_by_key(|(key, _)| key.span().start);
        Self { cx, section, span, unread, known: Vec::with_capacity(MANY_KEYS) }
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let at = self.unread.iter().position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.unread.remove(at);
        Some(Item { cx: self.cx, name: Cow::Borrowed(key), key: self.cx.place(&name.span()), value })
    }

    /// Everything that is left, where the user chooses the keys: their name and value.
    pub(super) fn take_all(&mut self) -> Vec<(Written<String>, Item<'a>)> {
        let entries = std::mem::take(&mut self.unread).into_iter();
        let item = |(key, value): (&Spanned<Cow<'a, str>>, _)| {
            let name = key.get_ref().to_string();
            let place = self.cx.place(&key.span());
            let item = Item { cx: self.cx, name: Cow::Owned(name.clone()), key: place.clone(), value };
            (Spanned::new(place, name), item)
        };
        entries.map(item).collect()
    }

    /// Whether `key` is there, and not read yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.unread.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Where the name of `key` stands, if it is there and not read yet.
    pub(super) fn place_of(&self, key: &str) -> Option<Span> {
        let (name, _) = self.unread.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(self.cx.place(&name.span()))
    }

    /// Reports that `key` is missing, unless it is there.
    pub(super) fn require(&self, key: &str, way_out: &str) {
        if !self.has(key) {
            let message = format!("`{key}` is missing");
            let finding =
                Diagnostic::error("missing-key", message).at(self.span.clone()).label(format!("has no `{key}`"));
            self.cx.report(finding.help(way_out));
        }
    }

    /// Whether nothing is left to read.
    pub(super) fn is_done(&self) -> bool {
        self.unread.is_empty()
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Written<Duration>> {
        self.take(key)?.duration()
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<Written<bool>> {
        self.take(key)?.boolean()
    }

    /// The table `key`; `section` is its full name.
    pub(super) fn table(&mut self, key: &'static str, section: &'static str) -> Option<Table<'a>> {
        self.take(key)?.table(section)
    }

    /// Reports the keys that nobody has asked for.
    pub(super) fn finish(mut self) {
        for (key, _) in std::mem::take(&mut self.unread) {
            self.cx.report(self.unknown(key));
        }
    }

    fn unknown(&self, key: &Spanned<Cow<'a, str>>) -> Diagnostic {
        let place = match self.section {
            "" => "at the top of the file".to_owned(),
            "routes" | "tests" => format!("in `[[{}]]`", self.section),
            section if section.ends_with('*') => "here".to_owned(),
            "allow" | "identity" => format!("in `{}`", self.section),
            section => match section.split_once('.') {
                Some(("upstreams" | "routes" | "tests", name)) => format!("in `{name}`"),
                _ => format!("in `[{section}]`"),
            },
        };
        let mut known: Vec<&str> = self.known.to_vec();
        known.sort_unstable();
        let finding = Diagnostic::error("unknown-key", format!("unknown key {} {place}", quoted(key.get_ref())))
            .at(self.cx.place(&key.span()))
            .label("not a known key");
        finding.help(match nearest(key.get_ref(), known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match later::elsewhere(key.get_ref(), self.section) {
                Some(section) => format!("`{}` belongs to `[{section}]`", key.get_ref()),
                None => format!("known keys: {}", known.join(", ")),
            },
        })
    }
}

/// One value with its key.
pub(super) struct Item<'a> {
    pub(super) cx: &'a Context<'a>,
    /// The key's name, for messages.
    pub(super) name: Cow<'static, str>,
    /// Where the key is written; for an element of a list, where the element is.
    pub(super) key: Span,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    pub(super) fn span(&self) -> Span {
        self.cx.place(&self.value.span())
    }

    /// A string, written as it is or taken from the environment.
    pub(super) fn string(&self) -> Option<Written<String>> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(self.span(), text.to_string())),
            DeValue::Table(table) => self.environment_string(table),
            _ => self.wrong_type("a string", None),
        }
    }

    /// A string that is not empty.
    pub(super) fn text(&self) -> Option<Written<String>> {
        let text = self.string()?;
        if text.get_ref().is_empty() {
            let message = format!("`{}` is empty", self.name);
            self.cx.report(
                Diagnostic::error("empty-value", message).at(self.span()).help("give it a value or leave it out"),
            );
            return None;
        }
        Some(text)
    }

    pub(super) fn duration(&self) -> Option<Written<Duration>> {
        if !matches!(self.value.get_ref(), DeValue::String(_) | DeValue::Table(_)) {
            return self.wrong_type(
                "a duration",
                Some("durations are strings with a unit, such as \"30s\", \"15m\" or \"1h30m\""),
            );
        }
        self.parsed("bad-duration", values::duration)
    }

    /// A size in bytes; `None` is unlimited.
    pub(super) fn size(&self) -> Option<Written<Option<u64>>> {
        if !matches!(self.value.get_ref(), DeValue::String(_) | DeValue::Table(_)) {
            return self.wrong_type("a size", Some("sizes are strings with a unit, such as \"512KiB\" or \"10MiB\""));
        }
        self.parsed("bad-size", values::size)
    }

    /// What `parse` makes of a string; its error is a message and a way out.
    pub(super) fn parsed<T>(
        &self,
        code: &'static str,
        parse: impl Fn(&str) -> Result<T, values::Fault>,
    ) -> Option<Written<T>> {
        let parsed = match self.value.get_ref() {
            DeValue::String(text) => parse(text),
            _ => parse(self.string()?.get_ref()),
        };
        match parsed {
            Ok(value) => Some(Spanned::new(self.span(), value)),
            Err(fault) => {
                let finding = Diagnostic::error(code, format!("`{}`: {}", self.name, fault.message));
                self.cx.report(finding.at(self.span()).label(fault.label).help(fault.help));
                None
            }
        }
    }

    /// Keeps what stands before the `@` of a URL out of messages.
    pub(super) fn mask_user(&self) {
        let DeValue::String(text) = self.value.get_ref() else { return };
        let from = text.find("://").map_or(0, |at| at + 3);
        if let Some(end) = text.rfind('@').filter(|end| *end > from) {
            let start = self.span().start + 1;
            self.cx.mask(start + from..start + end);
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count(&self, least: u64, most: u64) -> Option<Written<u64>> {
        let DeValue::Integer(number) = self.value.get_ref() else {
            return self.wrong_type("a whole number", None);
        };
        let value = i128::from_str_radix(number.as_str(), number.radix()).ok();
        match value.and_then(|value| u64::try_from(value).ok()).filter(|value| (least..=most).contains(value)) {
            Some(value) => Some(Spanned::new(self.span(), value)),
            None => {
                let message = format!("`{}` must be between {least} and {most}", self.name);
                self.cx.report(
                    Diagnostic::error("out-of-range", message).at(self.span()).help("choose a number in this range"),
                );
                None
            }
        }
    }

    pub(super) fn boolean(&self) -> Option<Written<bool>> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(Spanned::new(self.span(), *value)),
            _ => self.wrong_type("`true` or `false`", None),
        }
    }

    /// The elements of an array.
    pub(super) fn list(&self) -> Option<Written<Vec<Item<'a>>>> {
        match self.value.get_ref() {
            DeValue::Array(array) => {
                let element = |value: &'a Spanned<DeValue<'a>>| Item {
                    cx: self.cx,
                    name: self.name.clone(),
                    key: self.cx.place(&value.span()),
                    value,
                };
                Some(Spanned::new(self.span(), array.iter().map(element).collect()))
            }
            DeValue::String(text) => {
                let help = format!("write `[{text:?}]`");
                self.wrong_type("a list", Some(&help))
            }
            _ => self.wrong_type("a list", None),
        }
    }

    /// A list of strings.
    pub(super) fn strings(&self) -> Option<Written<Vec<Written<String>>>> {
        let list = self.list()?;
        let span = list.span();
        Some(Spanned::new(span, list.into_inner().iter().filter_map(Item::text).collect()))
    }

    /// A table; `section` is its full name.
    pub(super) fn table(&self, section: &'static str) -> Option<Table<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Table::new(self.cx, section, table, self.span())),
            _ => self.wrong_type("a table", None),
        }
    }

    /// One of a few words. `key` is the full name of the key, by which later versions' words are known.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<Written<T>> {
        let text = self.string()?;
        let text = text.get_ref();
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(Spanned::new(self.span(), *value));
        }
        if let Some(later) = later::word(key, text) {
            self.cx.report(not_yet(&quoted(text), later.version, self.span()));
            return None;
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let finding = Diagnostic::error("unknown-value", format!("`{}` can't be {}", self.name, quoted(text)));
        let near = nearest(text, words.iter().map(|(word, _)| *word));
        self.cx.report(finding.at(self.span()).help(match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known values: {}", known.join(", ")),
        }));
        None
    }

    /// Reports that something else was expected.
    pub(super) fn wrong_type<T>(&self, expected: &str, help: Option<&str>) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "`true` or `false`",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let message = format!("`{}` must be {expected}, not {found}", self.name);
        let finding = Diagnostic::error("wrong-type", message).at(self.span()).label(format!("expected {expected}"));
        self.cx.report(match help {
            Some(help) => finding.help(help),
            None => finding.help(example(expected, found)),
        });
        None
    }

    /// `{ env = "NAME", default = "…" }`
    fn environment_string(&self, table: &'a DeTable<'a>) -> Option<Written<String>> {
        if !table.keys().any(|key| matches!(key.get_ref().as_ref(), "env" | "default")) {
            return self
                .wrong_type("a string", Some("write a string, or { env = \"NAME\" } to take it from the environment"));
        }
        let mut table = Table::new(self.cx, "env.*", table, self.span());
        let (variable, default) = (table.take("env"), table.take("default"));
        table.finish();
        let default = default.and_then(|default| default.plain_string());
        let Some(variable) = variable else {
            let finding =
                Diagnostic::error("missing-key", format!("`{}` has a default, but names no variable", self.name));
            self.cx.report(finding.at(self.span()).help("add env = \"NAME\", or write the string alone"));
            return None;
        };
        let variable = variable.plain_string()?;
        match (self.cx.env)(&variable).or(default) {
            Some(value) => Some(Spanned::new(self.span(), value)),
            None => {
                let message = format!("the environment variable {} is not set", quoted(&variable));
                let finding = Diagnostic::error("unset-variable", message).at(self.span());
                self.cx.report(finding.help(format!("set {variable}, or add `default = \"…\"`")));
                None
            }
        }
    }

    /// A string as it is written, without the environment.
    pub(super) fn plain_string(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => self.wrong_type("a string", None),
        }
    }
}

/// What is known and comes with a later version.
pub(super) fn not_yet(what: &str, version: &str, span: Span) -> Diagnostic {
    Diagnostic::error("not-built-yet", format!("{what} is not built yet: it comes with {version}"))
        .at(span)
        .label(format!("comes with {version}"))
        .help("leave it out until then")
}

/// The word or value of a later version that `later` describes, reported at `span`.
pub(super) fn report_later(cx: &Context<'_>, what: &str, later: &Later, span: Span) {
    cx.report(not_yet(&quoted(what), later.version, span));
}

/// No table has more.
const MANY_KEYS: usize = 24;

/// A file of 4 MiB can hold more mistakes than anybody wants to read.
const MOST_FINDINGS: usize = 500;

fn example(expected: &str, found: &str) -> &'static str {
    match expected {
        "a string" if found == "a list" => "write one string, without [ ]",
        "a string" => "put it in quotes: \"…\"",
        "a whole number" => "write a number without quotes, such as 100",
        "`true` or `false`" => "write true or false, without quotes",
        "a list" => "write [ … ]",
        "a table" => "write { key = value }, or a section of its own",
        _ => "write what is expected here, or leave the key out",
    }
}
