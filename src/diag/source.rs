//! The text that findings point into, and where in it an offset lies.

use super::Span;

/// A file's name, as messages show it, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// A place for people: both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Source {
    /// `text`, which messages call `name`.
    pub fn new(name: impl Into<String>, text: String) -> Self {
        let starts = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { name: name.into(), text, lines }
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where `offset` lies; past the end, where the text ends.
    pub fn position(&self, offset: usize) -> Position {
        let offset = floor(&self.text, offset);
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
    }

    /// `span` cut to the text, and widened to whole characters.
    pub fn whole_characters(&self, span: &Span) -> Span {
        let start = floor(&self.text, span.start);
        let mut end = span.end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }

    /// The whole lines that `span` touches: the first one's number, where they begin, and their text.
    pub(super) fn excerpt(&self, span: &Span) -> (usize, usize, &str) {
        let first = self.position(span.start).line;
        let last = self.position(span.end.saturating_sub(1).max(span.start)).line;
        let start = self.lines.get(first - 1).copied().unwrap_or(0);
        let end = self.lines.get(last).copied().unwrap_or(self.text.len());
        (first, start, self.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r']))
    }
}

/// The largest character boundary of `text` that is not behind `offset`.
pub(super) fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let source = Source::new("f", "eins\nzwölf = 1\n".to_owned());
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(5), Position { line: 2, column: 1 });
        assert_eq!(source.position(12), Position { line: 2, column: 7 });
        assert_eq!(source.position(999), Position { line: 3, column: 1 });
    }

    #[test]
    fn cuts_out_the_lines_of_a_span() {
        let source = Source::new("f", "a\nbc\r\nd".to_owned());
        assert_eq!(source.excerpt(&(2..3)), (2, 2, "bc"));
        assert_eq!(source.excerpt(&(0..3)), (1, 0, "a\nbc"));
        assert_eq!(source.excerpt(&(6..7)), (3, 6, "d"));
        assert_eq!(Source::new("f", String::new()).excerpt(&(0..0)), (1, 0, ""));
    }
}
