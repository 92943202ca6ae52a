//! The text that findings point into, and where in it an offset lies.
//!
//! Several files are one long text: each begins where the one before it ends, so that a span says which file it is in.

use super::Span;

/// The files, each with its name, as messages show it, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// At least one, in the order of their offsets.
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    text: String,
    /// The offset of its first byte.
    base: usize,
    /// Where each line begins, from the beginning of the file.
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

/// Whole lines of one file.
pub(super) struct Excerpt<'a> {
    /// What messages call the file.
    pub(super) file: &'a str,
    /// The number of the first line.
    pub(super) line: usize,
    /// The offset at which it begins.
    pub(super) start: usize,
    pub(super) text: &'a str,
}

impl Source {
    /// `text`, which messages call `name`.
    pub fn new(name: impl Into<String>, text: String) -> Self {
        Self { files: vec![File::new(name.into(), text, 0)] }
    }

    /// Adds another file; answers with the offset of its first byte.
    pub fn add(&mut self, name: impl Into<String>, text: String) -> usize {
        // One more than the end, so that the end of a file is not the beginning of the next.
        let base = self.files.last().map_or(0, |file| file.base + file.text.len() + 1);
        self.files.push(File::new(name.into(), text, base));
        base
    }

    /// What messages call the first file.
    pub fn name(&self) -> &str {
        &self.at(0).name
    }

    /// The text of the first file.
    pub fn text(&self) -> &str {
        &self.at(0).text
    }

    /// The text of the file that `offset` lies in.
    pub fn text_at(&self, offset: usize) -> &str {
        &self.at(offset).text
    }

    /// What messages call the file that `offset` lies in.
    pub fn file(&self, offset: usize) -> &str {
        &self.at(offset).name
    }

    /// Where `offset` lies in its file; past the end, where the text ends.
    pub fn position(&self, offset: usize) -> Position {
        let file = self.at(offset);
        file.position(offset - file.base)
    }

    /// `span` cut to its file, and widened to whole characters.
    pub fn whole_characters(&self, span: &Span) -> Span {
        let file = self.at(span.start);
        let start = floor(&file.text, span.start - file.base);
        let mut end = span.end.saturating_sub(file.base).clamp(start, file.text.len());
        while !file.text.is_char_boundary(end) {
            end += 1;
        }
        file.base + start..file.base + end
    }

    /// The same files, each text being what `change` makes of it and of its first offset. Lengths must stay.
    #[must_use]
    pub fn map(self, change: impl Fn(&str, usize) -> String) -> Self {
        let changed = |file: File| File { text: change(&file.text, file.base), ..file };
        Self { files: self.files.into_iter().map(changed).collect() }
    }

    /// The whole lines that `span` touches.
    pub(super) fn excerpt(&self, span: &Span) -> Excerpt<'_> {
        let file = self.at(span.start);
        let (from, to) = (span.start - file.base, span.end.saturating_sub(file.base));
        let first = file.position(from).line;
        let last = file.position(to.saturating_sub(1).max(from)).line;
        let start = file.lines.get(first - 1).copied().unwrap_or(0);
        let end = file.lines.get(last).copied().unwrap_or(file.text.len());
        let text = file.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r']);
        Excerpt { file: &file.name, line: first, start: file.base + start, text }
    }

    /// The file that `offset` lies in.
    fn at(&self, offset: usize) -> &File {
        let after = self.files.partition_point(|file| file.base <= offset);
        &self.files[after.saturating_sub(1)]
    }
}

impl File {
    fn new(name: String, text: String, base: usize) -> Self {
        let starts = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { name, text, base, lines }
    }

    fn position(&self, offset: usize) -> Position {
        let offset = floor(&self.text, offset);
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Position { line, column }
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

    fn excerpt<'a>(source: &'a Source, span: &Span) -> (usize, usize, &'a str) {
        let Excerpt { line, start, text, .. } = source.excerpt(span);
        (line, start, text)
    }

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
        assert_eq!(excerpt(&source, &(2..3)), (2, 2, "bc"));
        assert_eq!(excerpt(&source, &(0..3)), (1, 0, "a\nbc"));
        assert_eq!(excerpt(&source, &(6..7)), (3, 6, "d"));
        assert_eq!(excerpt(&Source::new("f", String::new()), &(0..0)), (1, 0, ""));
    }

    #[test]
    fn an_offset_says_which_file_it_is_in() {
        let mut source = Source::new("one", "a\nb".to_owned());
        assert_eq!(source.add("two", "c\nd\n".to_owned()), 4);
        assert_eq!(source.add("empty", String::new()), 9);
        assert_eq!((source.file(3), source.file(4), source.file(8), source.file(9)), ("one", "two", "two", "empty"));
        assert_eq!(source.position(3), Position { line: 2, column: 2 });
        assert_eq!(source.position(6), Position { line: 2, column: 1 });
        assert_eq!(excerpt(&source, &(6..7)), (2, 6, "d"));
        assert_eq!(source.whole_characters(&(6..700)), 6..8);
        let masked = source.map(|text, base| if base == 4 { "x\ny\n".to_owned() } else { text.to_owned() });
        assert_eq!((masked.text(), excerpt(&masked, &(4..5)).2), ("a\nb", "x"));
    }
}
