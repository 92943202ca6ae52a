//! An explanation for a person at a terminal: aligned, with ticks and crosses, coloured only where that is wanted.

use std::fmt::Write as _;

use super::document::{Alternative, Condition, Explanation, ReadingTried, RouteTried, Sent};
use super::question::words;
use crate::diag::plain;
use crate::policy::Outcome;

/// How an explanation is to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Whether to colour.
    pub color: bool,
}

/// The explanation as text.
pub fn render(explanation: &Explanation, style: Style) -> String {
    let mut text = String::new();
    head(&mut text, explanation, style);
    if !explanation.routes.is_empty() || explanation.routes_left_out > 0 {
        routes(&mut text, explanation, style);
    }
    if !explanation.readings.is_empty() {
        readings(&mut text, explanation, style);
    }
    if let Some(sent) = &explanation.sent {
        sent_on(&mut text, sent, style);
    }
    for note in &explanation.notes {
        line(&mut text, &format!("\nnote: {}", plain(note)));
    }
    text
}

fn head(text: &mut String, explanation: &Explanation, style: Style) {
    let Explanation { method, host, path, who, .. } = explanation;
    line(text, &style.bold(&format!("{} {}{}", plain(method), plain(host), plain(path))));
    if let Some(canonical) = explanation.canonical.as_ref().filter(|canonical| *canonical != path) {
        line(text, &format!("matched as {}", plain(canonical)));
    }
    let mut asked = match &who.user {
        Some(user) => format!("as {}", plain(user)),
        None => "as nobody who is signed in".to_owned(),
    };
    let lists = [("groups", &who.groups), ("scopes", &who.scopes)];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        asked += &format!(", {name} {}", plain(&list.join(" ")));
    }
    if who.credential != "none" {
        asked += &format!(", by {}", plain(&who.credential));
    }
    if let Some(issuer) = &who.issuer {
        asked += &format!(" of {}", plain(issuer));
    }
    line(text, &format!("{asked}, from {}", explanation.client));
    if let Some(refused) = &who.refused {
        line(text, &format!("what was shown does not count: {}", plain(refused)));
    }
    let outcome = Outcome::parse(&explanation.outcome).unwrap_or(Outcome::Error);
    let (sign, words) = (
        style.sign(Some(outcome == Outcome::Allow)),
        words(outcome, explanation.route.as_deref(), &explanation.reason),
    );
    line(text, &format!("\n{sign} {}", style.bold(&plain(&words))));
    line(text, &format!("  answer  {}", plain(&explanation.answer)));
    line(text, &format!("  reason  {}", plain(&explanation.code)));
    if let Some(recorded) = &explanation.recorded {
        line(text, &format!("  time    {}", plain(&recorded.time)));
        line(text, &format!("  id      {}", plain(&recorded.request_id)));
        if let Some(upstream) = &recorded.upstream {
            let server = recorded.server.as_ref().map(|server| format!(", server {}", plain(server)));
            let tries = if recorded.tries > 1 { format!(", after {} tries", recorded.tries) } else { String::new() };
            line(text, &format!("  went to {}{}{tries}", plain(upstream), server.unwrap_or_default()));
        }
    }
}

fn routes(text: &mut String, explanation: &Explanation, style: Style) {
    line(text, &style.heading("routes, in their order"));
    let width = width(explanation.routes.iter().map(|route| route.name.as_str()));
    if explanation.routes_left_out > 0 {
        line(text, &format!("    ({} more whose paths do not match)", explanation.routes_left_out));
    }
    for route in &explanation.routes {
        let name = plain(&route.name);
        let sign = style.sign(Some(route.matches));
        if route.matches {
            line(text, &format!("  {sign} {}", style.bold(&name)));
            let word = one_word(&route.allow);
            let all: Vec<&Condition> = route.conditions.iter().chain(word).collect();
            conditions(text, &all, 6, style);
            if word.is_none() {
                alternatives(text, &route.allow, style);
            }
        } else {
            line(text, &format!("  {sign} {}  {}", padded(&name, width), short(route)));
        }
    }
    if explanation.routes.iter().all(|route| !route.matches) {
        line(text, "    and there is no other");
    }
}

/// Why a route is not for the request, in a line.
fn short(route: &RouteTried) -> String {
    let failed = route.conditions.iter().filter(|condition| condition.holds == Some(false));
    let failed = failed.map(|condition| format!("{} {}", condition.key, plain(&condition.wanted)));
    failed.collect::<Vec<_>>().join(", ")
}

/// Each table of an `allow`.
fn alternatives(text: &mut String, alternatives: &[Alternative], style: Style) {
    for (at, alternative) in alternatives.iter().enumerate() {
        let sign = style.sign(Some(alternative.outcome == Outcome::Allow.word()));
        line(text, &format!("      {sign} {}", if at == 0 { "allow" } else { "or" }));
        conditions(text, &alternative.conditions.iter().collect::<Vec<_>>(), 10, style);
    }
}

/// The condition of an `allow` that is a word.
fn one_word(alternatives: &[Alternative]) -> Option<&Condition> {
    match alternatives {
        [Alternative { conditions, .. }] => conditions.first().filter(|condition| condition.key == "allow"),
        _ => None,
    }
}

fn conditions(text: &mut String, conditions: &[&Condition], indent: usize, style: Style) {
    let keys = width(conditions.iter().map(|condition| condition.key.as_str()));
    let wanted = width(conditions.iter().map(|condition| condition.wanted.as_str())).min(MOST_WIDTH);
    for condition in conditions {
        let (key, wish) = (padded(&plain(&condition.key), keys), padded(&plain(&condition.wanted), wanted));
        let found = plain(&condition.found);
        let found = if found.is_empty() { found } else { style.faint(&format!("({found})")) };
        line(text, &format!("{:indent$}{} {key}  {wish}  {found}", "", style.sign(condition.holds)));
    }
}

fn readings(text: &mut String, explanation: &Explanation, style: Style) {
    let readings = &explanation.readings;
    line(text, &style.heading("readings of the path"));
    let names = width(readings.iter().map(|reading| reading.reading.as_str()));
    let paths = width(readings.iter().map(|reading| reading.path.as_str())).min(MOST_WIDTH);
    for reading in readings {
        let ReadingTried { reading: name, path, route, outcome, reason, allow } = reading;
        let passes = outcome == Outcome::Allow.word();
        let why = if passes { String::new() } else { format!(": {}", plain(reason)) };
        let route = match route {
            Some(route) => format!("route `{}`{why}", plain(route)),
            None => plain(reason),
        };
        let (name, path) = (padded(name, names), padded(&plain(path), paths));
        line(text, &format!("  {} {name}  {path}  {route}", style.sign(Some(passes))));
        match one_word(allow) {
            _ if passes => {}
            Some(word) => conditions(text, &[word], 6, style),
            None => alternatives(text, allow, style),
        }
    }
    if readings.len() == 1 && explanation.reads_all {
        line(text, "    no reading can differ from it");
    }
}

fn sent_on(text: &mut String, sent: &Sent, style: Style) {
    line(text, &style.heading(&format!("sent to {} ({})", plain(&sent.upstream), plain(&sent.servers.join(", ")))));
    line(text, &format!("  target   {}", plain(&sent.target)));
    if let Some(balance) = &sent.balance {
        line(text, &format!("  server   {}", plain(balance)));
    }
    let names = width(sent.added.iter().map(|header| header.name.as_str()));
    for (at, header) in sent.added.iter().enumerate() {
        let title = if at == 0 { "added" } else { "" };
        line(text, &format!("  {title:<7}  {}  {}", padded(&plain(&header.name), names), plain(&header.value)));
    }
    let mut row = String::new();
    let mut title = "removed";
    for (at, name) in sent.removed.iter().enumerate() {
        let comma = if at + 1 < sent.removed.len() { "," } else { "" };
        if row.chars().count() + name.chars().count() > LINE {
            line(text, &format!("  {title:<7}  {row}"));
            (row, title) = (String::new(), "");
        }
        let _infallible = write!(row, "{}{}{comma}", if row.is_empty() { "" } else { " " }, plain(name));
    }
    line(text, &format!("  {title:<7}  {row}"));
}

impl Style {
    fn sign(self, holds: Option<bool>) -> String {
        match holds {
            Some(true) => self.paint("32", "✓"),
            Some(false) => self.paint("31", "✗"),
            None => self.paint("2", "·"),
        }
    }

    fn heading(self, title: &str) -> String {
        format!("\n{}", self.paint("4", title))
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end_matches(' '));
    text.push('\n');
}

/// The widest of `texts` as they are shown.
fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| plain(text).chars().count()).max().unwrap_or(0)
}

fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

/// Wider columns are not aligned.
const MOST_WIDTH: usize = 44;

/// Characters of a line of header names.
const LINE: usize = 88;
