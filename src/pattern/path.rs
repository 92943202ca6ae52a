//! Patterns of paths: literal segments, `*` for one segment that is not empty, `**` at the end for all below.
//!
//! A pattern can be read as a path can be: its literal segments change as the path's own would.

use std::hash::{Hash, Hasher};

use super::PatternError;
use crate::message::path::{PathError, Reading, RequestPath, is_raw, is_unreserved, push_escape};

/// The paths that a route is for. Two patterns are equal when they cover the same paths by the same segments.
#[derive(Clone, Debug)]
pub struct PathPattern {
    text: Box<str>,
    segments: Vec<Segment>,
    end: End,
    /// Whether every reading leaves it as it is, as is told at a glance.
    is_plain: bool,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, in canonical form.
    Literal(Box<str>),
    /// `*`: any one segment that is not empty.
    Any,
}

/// How a pattern ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// With its last segment, which one `/` may follow if the segment is not empty.
    Exact,
    /// With `**`: the path before it, and all below.
    Below,
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.end == other.end && self.segments == other.segments
    }
}

impl Eq for PathPattern {}

impl Hash for PathPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.segments.hash(state);
        self.end.hash(state);
    }
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is no path in normal form, or has a wildcard where none can stand.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_BYTES {
            return Err(PatternError::new("the pattern is too long", format!("at most {MAX_BYTES} bytes")));
        }
        check_wildcards(text)?;
        check_spelling(text)?;
        let path = RequestPath::parse(text).map_err(|error| refused(text, error))?;
        // An escaped asterisk is a literal one: wildcards are told by the text as written, segment by segment; the
        // canonical text has the same segments, as `%2F` stays.
        let mut segments = Vec::new();
        let mut end = End::Exact;
        for (written, canonical) in text.split('/').zip(path.canonical().split('/')).skip(1) {
            match written {
                "**" => end = End::Below,
                "*" => segments.push(Segment::Any),
                _ => segments.push(Segment::Literal(canonical.into())),
            }
        }
        Ok(Self::made(text.into(), segments, end))
    }

    fn made(text: Box<str>, segments: Vec<Segment>, end: End) -> Self {
        let is_plain = segments.iter().all(Segment::is_plain);
        Self { text, segments, end, is_plain }
    }

    /// The pattern as it is written; of a pattern that was read otherwise, its text as read.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its segments, without the `**`.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How it ends.
    pub fn end(&self) -> End {
        self.end
    }

    /// Whether it is seen at a glance that no reading changes it, as with nearly all patterns.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The pattern as `reading` reads it: its literal segments as a path's would be read, wildcards as they are.
    pub fn read_as(&self, reading: Reading) -> Self {
        self.read_otherwise(reading).unwrap_or_else(|| self.clone())
    }

    /// The same; `None` where `reading` changes nothing, as with nearly all patterns.
    pub fn read_otherwise(&self, reading: Reading) -> Option<Self> {
        if self.is_plain {
            return None;
        }
        let changed = match reading {
            Reading::MergedSlashes => self.merged(),
            Reading::DecodedSlash | Reading::CutParameters | Reading::DecodedTwice | Reading::FoldedCase => {
                self.each_literal(reading)
            }
            Reading::Reparsed => self.reparsed(),
            Reading::Together => self.each_literal(Reading::DecodedTwice).together(),
            Reading::TogetherReparsed => self.reparsed().together(),
        };
        (changed != *self).then_some(changed)
    }

    /// Whether it covers `canonical`, a path that begins with `/`.
    pub fn matches(&self, canonical: &str) -> bool {
        let Some(rest) = canonical.strip_prefix('/') else {
            return false;
        };
        let mut path = rest.split('/');
        for segment in &self.segments {
            let Some(written) = path.next() else {
                return false;
            };
            if !segment.matches(written) {
                return false;
            }
        }
        match self.end {
            End::Below => true,
            End::Exact => match path.next() {
                None => true,
                Some(last) => last.is_empty() && path.next().is_none() && self.may_end_with_slash(),
            },
        }
    }

    fn may_end_with_slash(&self) -> bool {
        self.segments.last().is_some_and(|segment| !segment.is_empty())
    }

    /// What comes after the decoding.
    fn together(&self) -> Self {
        self.each_literal(Reading::CutParameters).merged().each_literal(Reading::FoldedCase)
    }

    fn each_literal(&self, reading: Reading) -> Self {
        let mut segments = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            match segment {
                Segment::Any => segments.push(Segment::Any),
                Segment::Literal(text) => {
                    let read = reading.apply(text);
                    segments.extend(read.split('/').map(|part| Segment::Literal(part.into())));
                }
            }
        }
        Self::of(segments, self.end)
    }

    /// As a path is: empty segments go, but one at the very end stays.
    fn merged(&self) -> Self {
        let mut segments = self.segments.clone();
        let ends_with_slash = self.end == End::Exact && segments.last().is_some_and(Segment::is_empty);
        segments.retain(|segment| !segment.is_empty());
        if ends_with_slash {
            segments.push(Segment::Literal("".into()));
        }
        Self::of(segments, self.end)
    }

    /// A `?` or `#` ends the path, and with it the pattern, unless the second decoding brought it.
    fn reparsed(&self) -> Self {
        let mut segments = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let Segment::Literal(text) = segment else {
                segments.push(Segment::Any);
                continue;
            };
            let read = Reading::Reparsed.apply(text);
            segments.extend(read.split('/').map(|part| Segment::Literal(part.into())));
            if text.contains(['?', '#']) {
                return Self::of(segments, End::Exact);
            }
        }
        Self::of(segments, self.end)
    }

    fn of(segments: Vec<Segment>, end: End) -> Self {
        let mut text = String::new();
        for segment in &segments {
            text.push('/');
            text.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Any => "*",
            });
        }
        if end == End::Below {
            text.push_str("/**");
        }
        Self::made(text.into(), segments, end)
    }
}

impl Segment {
    /// Whether `written`, a segment of a canonical path, is one of these.
    pub fn matches(&self, written: &str) -> bool {
        match self {
            Self::Any => !written.is_empty(),
            Self::Literal(text) => **text == *written,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Literal(text) if text.is_empty())
    }

    /// Whether every reading leaves it as it is, as is told at a glance.
    fn is_plain(&self) -> bool {
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~');
        match self {
            Self::Any => true,
            Self::Literal(text) => !text.is_empty() && text.bytes().all(is_plain),
        }
    }
}

fn check_wildcards(text: &str) -> Result<(), PatternError> {
    let mut segments = text.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == "**" && segments.peek().is_some() {
            return Err(PatternError::new(
                format!("`{text}` has `**` before its end"),
                "`**` stands last; `*` is one segment",
            ));
        }
        if segment.contains('*') && segment != "*" && segment != "**" {
            return Err(PatternError::new(
                format!("`{text}` has a `*` beside other characters"),
                "`*` is one whole segment, `**` at the end is all below; an asterisk itself is `%2A`",
            ));
        }
    }
    Ok(())
}

/// There is one way to write a pattern; the message shows it.
fn check_spelling(text: &str) -> Result<(), PatternError> {
    if let Some(end) = text.find(['?', '#']) {
        return Err(PatternError::new(
            format!("`{text}` has a `{}`", &text[end..=end]),
            format!("a pattern covers the path only, the query is never looked at: write `{}`", &text[..end]),
        ));
    }
    let mut right = String::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, more @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default();
                let value = u8::try_from(digit(*high) << 4 | digit(*low)).unwrap_or_default();
                if is_unreserved(value) {
                    right.push(char::from(value));
                } else {
                    push_escape(&mut right, value);
                }
                rest = more;
            }
            // What is refused in a path as well is left for its own message.
            (b'%' | b'\\' | 0..=31 | 127, _) => right.push(char::from(byte)),
            _ if is_raw(byte) => right.push(char::from(byte)),
            _ => push_escape(&mut right, byte),
        }
    }
    if right == text {
        return Ok(());
    }
    Err(PatternError::new(format!("`{text}` is not in normal form"), format!("write `{right}`")))
}

fn refused(text: &str, error: PathError) -> PatternError {
    let help = match error {
        PathError::NoLeadingSlash => format!("write `/{text}`"),
        PathError::DotSegment => "write the path without `.` and `..`".to_owned(),
        PathError::InvalidEscape => "a percent sign itself is `%25`".to_owned(),
        PathError::Character(_) | PathError::NotUtf8 | PathError::Control | PathError::Backslash => {
            "a request with such a path is refused, so that no route can cover it".to_owned()
        }
    };
    PatternError::new(format!("`{}` is no path that a request can have: {error}", text.escape_debug()), help)
}

const MAX_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap_or_else(|error| panic!("{error}: {}", error.help))
    }

    #[test]
    fn covers_what_the_manual_says() {
        let cases: [(&str, &[&str], &[&str]); 9] = [
            ("/", &["/"], &["//", "/a", "", "a"]),
            ("/health", &["/health", "/health/"], &["/health//", "/healthz", "/health/x", "/Health", "/"]),
            ("/a/", &["/a/"], &["/a", "/a//"]),
            ("/**", &["/", "/a", "//", "/a/b/"], &["", "a"]),
            ("/admin/**", &["/admin", "/admin/", "/admin/x/y", "/admin//x"], &["/adminx", "//admin", "/"]),
            ("/u/*", &["/u/7", "/u/7/", "/u/**"], &["/u", "/u/", "/u//", "/u/7/x"]),
            ("/u/*/edit", &["/u/7/edit"], &["/u//edit", "/u/7/8/edit"]),
            ("/u/*/**", &["/u/7", "/u/7/", "/u/7/x"], &["/u", "/u/"]),
            ("/a%2Fb/%2A", &["/a%2Fb/*"], &["/a/b/*", "/a%2Fb/x"]),
        ];
        for (text, covered, others) in cases {
            for path in covered {
                assert!(pattern(text).matches(path), "{text} covers {path}");
            }
            for path in others {
                assert!(!pattern(text).matches(path), "{text} does not cover {path}");
            }
        }
    }

    #[test]
    fn refuses_other_spellings_and_shows_the_right_one() {
        let cases = [
            ("admin", "write `/admin`"),
            ("/%61dmin", "write `/admin`"),
            ("/a%2fb", "write `/a%2Fb`"),
            ("/café", "write `/caf%C3%A9`"),
            ("/a b|c", "write `/a%20b%7Cc`"),
            ("/a?b=c", "write `/a`"),
            ("/a#b", "write `/a`"),
            ("/100%", "`%25`"),
            ("/a/../b", "without `.`"),
            ("/a/%252e%252e/b", "write `/a/%252e"),
            ("/a\\b", "refused"),
            ("/a%00", "refused"),
            ("/a%5C", "refused"),
            ("/a\u{1}", "refused"),
            ("/a*", "`%2A`"),
            ("/***", "`%2A`"),
            ("/**/a", "stands last"),
            ("/**/", "stands last"),
            ("", "write `/`"),
        ];
        for (text, help) in cases {
            let error = PathPattern::parse(text).unwrap_err();
            let dots = text.contains("%252e") && error.help.contains("without `.`");
            assert!(error.help.contains(help) || dots, "{text}: {error}: {}", error.help);
        }
        assert!(PathPattern::parse(&format!("/{}", "a".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn is_read_as_a_path_is() {
        let cases = [
            (Reading::MergedSlashes, "/a//b//", "/a/b/"),
            (Reading::MergedSlashes, "//", "/"),
            (Reading::MergedSlashes, "/a//**", "/a/**"),
            (Reading::DecodedSlash, "/a%2Fb/**", "/a/b/**"),
            (Reading::CutParameters, "/a;x/*/b", "/a/*/b"),
            (Reading::DecodedTwice, "/a%252Fb%2Fc/**", "/a/b/c/**"),
            (Reading::DecodedTwice, "/a%3Fb%2Fc/**", "/a?b/c/**"),
            (Reading::Reparsed, "/a%3Fb/**", "/a"),
            (Reading::FoldedCase, "/API/*/X", "/api/*/x"),
            (Reading::Together, "//A%2FB%3Bx/**", "/a/b/**"),
            (Reading::Together, "//A/*/B%3Fc/**", "/a/*/b?c/**"),
            (Reading::TogetherReparsed, "//A/*/B%3Fc/**", "/a/*/b"),
        ];
        for (reading, text, expected) in cases {
            assert_eq!(pattern(text).read_as(reading).as_str(), expected, "{} of {text}", reading.name());
        }
        let plain = pattern("/data/*/x/**");
        for reading in Reading::ALL {
            assert_eq!(plain.read_as(reading), plain, "{}", reading.name());
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_wildcards_covers_itself_under_every_reading(text in "(/(a|B|%2F|;x|%25|%3F|%C3%89|\\.x){0,4}){1,5}") {
            if let Ok(pattern) = PathPattern::parse(&text) {
                let path = RequestPath::parse(&text).unwrap();
                prop_assert!(pattern.matches(path.canonical()));
                for reading in Reading::ALL {
                    let read = path.reading(reading);
                    prop_assert!(pattern.read_as(reading).matches(&read), "{} of {}", reading.name(), text);
                }
            }
        }

        #[test]
        fn a_pattern_that_ends_below_covers_all_below_under_every_reading(
            text in "(/(a|B|%2F|;x|%25|%C3%89){1,4}){1,3}",
            below in "/(a|B|%2F|;x|%25|/){0,6}",
        ) {
            let pattern = PathPattern::parse(&format!("{text}/**")).unwrap();
            if let Ok(path) = RequestPath::parse(&format!("{text}{below}")) {
                prop_assert!(pattern.matches(path.canonical()));
                for reading in Reading::ALL {
                    let read = path.reading(reading);
                    prop_assert!(pattern.read_as(reading).matches(&read), "{}: {} in {:?}", reading.name(), read, pattern.read_as(reading));
                }
            }
        }
    }
}
