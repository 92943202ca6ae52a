//! How findings look to people: in rustc's style.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::{Excerpt, floor};
use super::{Diagnostic, Diagnostics, Severity, Span};

impl Diagnostics {
    /// The findings for a person: each with file, line, column, the line itself and a way out, then
    /// how many there are. Empty when there are none. Coloured only where `color` says so.
    pub fn render(&self, color: bool) -> String {
        self.render_within(color, WIDTH)
    }

    /// The same for a terminal that is `width` columns wide: lines of the file are cut around the carets.
    pub fn render_within(&self, color: bool, width: usize) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(width.clamp(NARROWEST, WIDTH));
        let mut text = String::new();
        for finding in self.iter().take(MOST) {
            text.push_str(renderer.render(&[self.group(finding)]).trim_end());
            text.push_str("\n\n");
        }
        if !self.is_empty() {
            let _ = writeln!(text, "{}: {}", self.source().name(), self.summary());
        }
        text
    }

    /// `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let count = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{count} {what}s")),
        };
        let parts: Vec<String> =
            [count(self.errors(), "error"), count(self.warnings(), "warning")].into_iter().flatten().collect();
        if parts.is_empty() { "no findings".to_owned() } else { parts.join(", ") }
    }

    fn group<'a>(&'a self, finding: &'a Diagnostic) -> Group<'a> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&finding.message).id(finding.code);
        let mut group = match &finding.span {
            Some(span) => title.element(self.snippet(span, &finding.label, AnnotationKind::Primary)),
            None => title.element(Origin::path(self.source().name())),
        };
        for (span, label) in &finding.also {
            group = group.element(self.snippet(span, label, AnnotationKind::Context));
        }
        match &finding.help {
            Some(help) => group.element(Level::HELP.message(help)),
            None => group,
        }
    }

    /// Only the lines in question are handed over: the renderer looks at all of its text each time.
    fn snippet<'a>(&'a self, span: &Span, label: &'a str, kind: AnnotationKind) -> Snippet<'a, Annotation<'a>> {
        let Excerpt { file, line, start, text } = self.source().excerpt(span);
        let from = floor(text, span.start.saturating_sub(start));
        let to = floor(text, span.end.saturating_sub(start)).max(from);
        let annotation = kind.span(from..to).label((!label.is_empty()).then_some(label));
        Snippet::source(text).line_start(line).path(file).annotation(annotation)
    }
}

/// Longer lines are cut around the carets.
const WIDTH: usize = 120;

/// In less there is no room for carets and their label.
const NARROWEST: usize = 40;

/// More findings than this help nobody; the summary still counts them all.
const MOST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Source;

    fn sample() -> Diagnostics {
        let text = "[server]\nwörkers = \"x\"\n".to_owned();
        let finding = Diagnostic::error("wrong-type", "not a number").at(20..23).label("here").help("write 0");
        Diagnostics::new(Source::new("g.toml", text), vec![finding, Diagnostic::warning("odd", "an odd file")])
    }

    #[test]
    fn shows_the_line_and_a_way_out() {
        let expected = "\
warning[odd]: an odd file
--> g.toml

error[wrong-type]: not a number
 --> g.toml:2:11
  |
2 | wörkers = \"x\"
  |           ^^^ here
  |
  = help: write 0

g.toml: 1 error, 1 warning
";
        assert_eq!(sample().render(false), expected);
    }

    #[test]
    fn colours_only_when_asked() {
        assert!(!sample().render(false).contains('\u{1b}'));
        assert!(sample().render(true).contains('\u{1b}'));
    }

    #[test]
    fn no_findings_are_no_text() {
        assert_eq!(Diagnostics::new(Source::new("f", String::new()), Vec::new()).render(true), "");
    }
}
