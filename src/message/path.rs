//! The path of a request: what no application should see is refused, the rest gets a canonical text to be judged by.
//!
//! What goes on stays as it came, but for escapes of unreserved characters and a few raw characters that are no part
//! of a URI (RFC 3986 sections 2.3 and 6.2.2.2). The readings under which it is judged besides are in `reading`.

use std::borrow::Cow;
use std::fmt;

pub use super::reading::Reading;
use super::reading::{before_query, decode, escape};

/// A path that an application may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    forwarded: Box<str>,
    /// `None`: the same text as `forwarded`.
    canonical: Option<Box<str>>,
    traits: Traits,
}

/// What stands in the canonical text, so that a reading that has nothing to do costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Traits {
    double_slash: bool,
    semicolon: bool,
    percent: bool,
    query_mark: bool,
    not_lower: bool,
}

/// Why a path is refused. All of them are answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`.
    NoLeadingSlash,
    /// A raw character that no URI has.
    Character(char),
    /// `%` without two hexadecimal digits.
    InvalidEscape,
    /// Escapes that make no UTF-8.
    NotUtf8,
    /// A control character, in whatever spelling.
    Control,
    /// A backslash, in whatever spelling.
    Backslash,
    /// `.` or `..` as a segment, in whatever spelling.
    DotSegment,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeadingSlash => f.write_str("the path does not begin with /"),
            Self::Character(c) => write!(f, "the path has a raw {c:?}"),
            Self::InvalidEscape => f.write_str("the path has an invalid escape"),
            Self::NotUtf8 => f.write_str("the escapes of the path are not UTF-8"),
            Self::Control => f.write_str("the path has a control character"),
            Self::Backslash => f.write_str("the path has a backslash"),
            Self::DotSegment => f.write_str("the path has a dot segment"),
        }
    }
}

impl std::error::Error for PathError {}

impl RequestPath {
    /// Reads the path of a request target, without its query.
    ///
    /// # Errors
    /// What no application should see; see [`PathError`].
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NoLeadingSlash);
        }
        let scan = Scan::of(raw)?;
        if !scan.changes {
            if scan.dotted {
                refuse_dot_segments(raw)?;
            }
            return Ok(Self { forwarded: raw.into(), canonical: None, traits: scan.traits });
        }
        let (forwarded, canonical) = normalize(raw)?;
        judge(&canonical)?;
        let traits = Traits::of(&canonical);
        let canonical = (canonical != forwarded).then(|| canonical.into_boxed_str());
        Ok(Self { forwarded: forwarded.into_boxed_str(), canonical, traits })
    }

    /// What goes on to the application: as it came, with escapes of unreserved characters decoded, and raw
    /// `|`, `^`, `[`, `]`, `{`, `}` and `` ` `` escaped.
    pub fn forwarded(&self) -> &str {
        &self.forwarded
    }

    /// What is matched as written: every escape decoded once, except `%2F` and `%25`, which stay.
    pub fn canonical(&self) -> &str {
        self.canonical.as_deref().unwrap_or(&self.forwarded)
    }

    /// The path as `reading` has it.
    pub fn reading(&self, reading: Reading) -> Cow<'_, str> {
        if self.changes_under(reading) { reading.apply(self.canonical()) } else { Cow::Borrowed(self.canonical()) }
    }

    /// Whether no reading can differ from the path as written.
    pub fn is_plain(&self) -> bool {
        self.traits == Traits::default()
    }

    /// Whether `reading` can differ from the path as written.
    pub fn changes_under(&self, reading: Reading) -> bool {
        match reading {
            Reading::MergedSlashes => self.traits.double_slash,
            Reading::DecodedSlash => self.traits.percent,
            Reading::CutParameters => self.traits.semicolon,
            Reading::DecodedTwice => self.traits.percent,
            Reading::Reparsed => self.traits.percent || self.traits.query_mark,
            Reading::FoldedCase => self.traits.not_lower,
            Reading::Together | Reading::TogetherReparsed => !self.is_plain(),
        }
    }
}

impl Traits {
    fn of(canonical: &str) -> Self {
        let has = |wanted: u8| memchr::memchr(wanted, canonical.as_bytes()).is_some();
        Self {
            double_slash: canonical.contains("//"),
            semicolon: has(b';'),
            percent: has(b'%'),
            query_mark: has(b'?') || has(b'#'),
            not_lower: canonical.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()),
        }
    }
}

/// What the one pass over a raw path learns; all that a plain path needs.
struct Scan {
    /// Whether the path has escapes, or characters that must be escaped.
    changes: bool,
    /// Whether a segment begins with a dot.
    dotted: bool,
    traits: Traits,
}

impl Scan {
    fn of(raw: &str) -> Result<Self, PathError> {
        let mut scan = Self { changes: false, dotted: false, traits: Traits::default() };
        let mut previous = 0;
        for (at, &byte) in raw.as_bytes().iter().enumerate() {
            match CLASSES[usize::from(byte)] {
                Class::Plain => {}
                Class::Upper => scan.traits.not_lower = true,
                Class::Slash => scan.traits.double_slash |= previous == b'/',
                Class::Dot => scan.dotted |= previous == b'/',
                Class::Semicolon => scan.traits.semicolon = true,
                Class::Escape | Class::Escaped => scan.changes = true,
                Class::Control => return Err(PathError::Control),
                Class::Backslash => return Err(PathError::Backslash),
                Class::Refused => {
                    let c = raw[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(PathError::Character(c));
                }
            }
            previous = byte;
        }
        Ok(scan)
    }
}

/// The text that goes on and the canonical text of a path whose raw characters are known to be good.
fn normalize(raw: &str) -> Result<(String, String), PathError> {
    let bytes = raw.as_bytes();
    let mut forwarded = String::with_capacity(bytes.len() + 16);
    let mut canonical = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            if CLASSES[usize::from(byte)] == Class::Escaped {
                push_escape(&mut forwarded, byte);
            } else {
                forwarded.push(char::from(byte));
            }
            canonical.push(byte);
            at += 1;
            continue;
        }
        let value = escape(bytes, at).ok_or(PathError::InvalidEscape)?;
        if is_unreserved(value) {
            forwarded.push(char::from(value));
        } else {
            forwarded.push_str(&raw[at..at + 3]);
        }
        match value {
            b'/' => canonical.extend_from_slice(b"%2F"),
            b'%' => canonical.extend_from_slice(b"%25"),
            _ => canonical.push(value),
        }
        at += 3;
    }
    let canonical = String::from_utf8(canonical).map_err(|_| PathError::NotUtf8)?;
    Ok((forwarded, canonical))
}

/// Refuses what is dangerous in any reading of `canonical`: decoded once and twice, with every separator.
fn judge(canonical: &str) -> Result<(), PathError> {
    let once = decode(canonical);
    judge_text(&once)?;
    judge_text(&decode(&once))?;
    // Before the second decoding an application may have cut the text as a URL.
    judge_text(&decode(before_query(&once)))
}

fn judge_text(text: &str) -> Result<(), PathError> {
    if text.contains('\\') {
        return Err(PathError::Backslash);
    }
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    refuse_dot_segments(text)
}

/// A segment is also what stands before a parameter, a query or a fragment.
fn refuse_dot_segments(text: &str) -> Result<(), PathError> {
    let dots = |segment: &str| {
        let name = segment.split([';', '?', '#']).next().unwrap_or_default();
        name == "." || name == ".."
    };
    if text.split('/').any(dots) { Err(PathError::DotSegment) } else { Ok(()) }
}

/// Appends the escape of `byte`, in upper case.
pub(crate) fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Whether an escape of `byte` means the same as the raw character (RFC 3986 section 2.3).
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether `byte` stands raw in a path in normal form.
pub(crate) fn is_raw(byte: u8) -> bool {
    use Class::{Dot, Plain, Semicolon, Slash, Upper};
    matches!(CLASSES[usize::from(byte)], Plain | Upper | Slash | Dot | Semicolon)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Goes on as it is.
    Plain,
    Upper,
    Slash,
    Dot,
    Semicolon,
    /// `%`
    Escape,
    /// Goes on escaped: no URI has it raw, but browsers send it.
    Escaped,
    Control,
    Backslash,
    Refused,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Refused; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'A'..=b'Z' => Class::Upper,
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b';' => Class::Semicolon,
            b'%' => Class::Escape,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => Class::Plain,
            b'|' | b'^' | b'[' | b']' | b'{' | b'}' | b'`' => Class::Escaped,
            0..=31 | 127 => Class::Control,
            b'\\' => Class::Backslash,
            _ => Class::Refused,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(raw: &str) -> RequestPath {
        RequestPath::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"))
    }

    #[test]
    fn refuses_what_no_application_should_see() {
        use PathError::{Backslash, Character, Control, DotSegment, InvalidEscape, NoLeadingSlash, NotUtf8};
        let cases = [
            ("", NoLeadingSlash),
            ("*", NoLeadingSlash),
            ("admin", NoLeadingSlash),
            ("http://h/", NoLeadingSlash),
            ("/public/../admin", DotSegment),
            ("/./admin", DotSegment),
            ("/admin/.", DotSegment),
            ("/admin/..", DotSegment),
            ("/%2e%2e/admin", DotSegment),
            ("/%252e%252e/admin", DotSegment),
            ("/.%2e/admin", DotSegment),
            ("/.%252E/admin", DotSegment),
            ("/public/..%2fadmin", DotSegment),
            ("/public%2f../admin", DotSegment),
            ("/public%252f..%252fadmin", DotSegment),
            ("/api/..;/admin", DotSegment),
            ("/user/..;x=y/admin", DotSegment),
            ("/user/..%3bx/admin", DotSegment),
            ("/user/..%253bx/admin", DotSegment),
            ("/a/..%3Fx", DotSegment),
            ("/a/%252e%23", DotSegment),
            ("/a%25%32%65/../b", DotSegment),
            ("/a/%25%32%65/b", DotSegment),
            ("/api\\..\\admin", Backslash),
            ("/%5Cadmin", Backslash),
            ("/%255cadmin", Backslash),
            ("/%25%35cadmin", Backslash),
            ("/admin%00", Control),
            ("/admin%2500", Control),
            ("/admin%0d%0a", Control),
            ("/admin%7f", Control),
            ("/admin%c2%85", Control),
            ("/admin%09", Control),
            ("/a\tb", Control),
            ("/%", InvalidEscape),
            ("/%f", InvalidEscape),
            ("/%zz", InvalidEscape),
            ("/%u002e", InvalidEscape),
            ("/%+1", InvalidEscape),
            ("/%c0%ae%c0%af", NotUtf8),
            ("/%ff", NotUtf8),
            ("/%e2%82", NotUtf8),
            ("/public#/admin", Character('#')),
            ("/a b", Character(' ')),
            ("/a\"b", Character('"')),
            ("/a<b", Character('<')),
            ("/a>b", Character('>')),
            ("/a?b", Character('?')),
            ("/é", Character('é')),
        ];
        for (raw, error) in cases {
            assert_eq!(RequestPath::parse(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn knows_what_goes_on_and_what_is_judged() {
        let cases = [
            ("/", "/", "/"),
            ("/admin/", "/admin/", "/admin/"),
            ("/%61dmin%2D", "/admin-", "/admin-"),
            ("/a%2fb", "/a%2fb", "/a%2Fb"),
            ("/a%252fb", "/a%252fb", "/a%252fb"),
            ("/a%3bx;y", "/a%3bx;y", "/a;x;y"),
            ("/a|b^c[d]{e}`", "/a%7Cb%5Ec%5Bd%5D%7Be%7D%60", "/a|b^c[d]{e}`"),
            ("/a%20b%23c%3Fd", "/a%20b%23c%3Fd", "/a b#c?d"),
            ("/caf%c3%a9", "/caf%c3%a9", "/café"),
            ("/.well-known/..x/...", "/.well-known/..x/...", "/.well-known/..x/..."),
            ("/a!$&'()*+,;=:@", "/a!$&'()*+,;=:@", "/a!$&'()*+,;=:@"),
        ];
        for (raw, forwarded, canonical) in cases {
            let path = parse(raw);
            assert_eq!((path.forwarded(), path.canonical()), (forwarded, canonical), "{raw}");
        }
    }

    #[test]
    fn a_plain_path_keeps_one_text() {
        for raw in ["/", "/data/items/42", "/a.b/.c", "/%61"] {
            let path = parse(raw);
            assert!(path.is_plain() && path.canonical.is_none(), "{raw}");
        }
        for raw in ["//a", "/a;b", "/A", "/%C3%A9", "/a%2Fb", "/a%25", "/a%3Fb", "/a%23b", "/a%3Bb"] {
            assert!(!parse(raw).is_plain(), "{raw}");
        }
    }

    /// One character of a protected path in one of the spellings that some application takes for it.
    fn spelling(c: char) -> BoxedStrategy<String> {
        let code = u32::from(c);
        let case = if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c };
        let mut ways = vec![
            c.to_string(),
            case.to_string(),
            format!("%{code:02x}"),
            format!("%{code:02X}"),
            format!("%25{code:02x}"),
            format!("%{:02X}", u32::from(case)),
        ];
        if c == '/' {
            let more = ["//", "/%2F", "/;/", ";x=1/", ";/", "/./", "/x/../", "\\", "%5c", "%252f/", "/%3b/"];
            ways.extend(more.map(str::to_owned));
        }
        proptest::sample::select(ways).boxed()
    }

    fn spellings(path: &'static str) -> impl Strategy<Value = String> {
        let inner: Vec<_> = path.chars().skip(1).map(spelling).collect();
        let lead = proptest::sample::select(vec!["/", "//", "/;/", "/%2F", "/%252F", "/.;/", "/%5C", "/x/..;/"]);
        let tail = proptest::sample::select(vec!["", ";", ";a=b", "%3Bx", "%253b", "%3Fq", "%23f"]);
        (lead, inner, tail).prop_map(|(lead, inner, tail)| format!("{lead}{}{tail}", inner.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_spelling_of_a_protected_path_escapes_every_reading(raw in spellings("/admin/users")) {
            if let Ok(path) = RequestPath::parse(&raw) {
                let meets = |reading: Reading| path.reading(reading) == reading.apply("/admin/users");
                let found = path.canonical() == "/admin/users" || Reading::ALL.into_iter().any(meets);
                prop_assert!(found, "{} is {:?}", raw, path.canonical());
            }
        }

        #[test]
        fn never_panics_and_forwards_only_what_a_uri_may_have(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let text = format!("/{}", String::from_utf8_lossy(&bytes));
            if let Ok(path) = RequestPath::parse(&text) {
                prop_assert!(path.forwarded().bytes().all(|byte| is_raw(byte) || byte == b'%'));
            }
        }

        #[test]
        fn what_goes_on_reads_as_what_was_judged(raw in "/[a-zA-Z0-9%/;.|^{}\\[\\]`~ é?#=-]{0,40}|/(%[0-9a-fA-F]{2}|[a-z/;.]){0,20}") {
            if let Ok(path) = RequestPath::parse(&raw) {
                let again = parse(path.forwarded());
                prop_assert_eq!(again.forwarded(), path.forwarded());
                prop_assert_eq!(again.canonical(), path.canonical());
                prop_assert!(!path.forwarded().contains([' ', '#', '?', '\\']));
                for reading in Reading::ALL {
                    prop_assert_eq!(path.reading(reading), reading.apply(path.canonical()));
                }
            }
        }
    }
}
