//! How an application may read a path otherwise than it is written. Each reading is a pure function of text:
//! it is applied to the canonical text of a request and to the literal segments of a pattern alike.

use std::borrow::Cow;

/// One way to read a path otherwise than as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Runs of `/` are one.
    MergedSlashes,
    /// `%2F` is `/`.
    DecodedSlash,
    /// Each segment ends at its first `;`.
    CutParameters,
    /// Decoded once and once more.
    DecodedTwice,
    /// Decoded once, taken for a URL again (so that `?` and `#` end it), and decoded once more.
    Reparsed,
    /// Case makes no difference.
    FoldedCase,
    /// All of these but [`Reparsed`](Self::Reparsed), one after the other: what that cuts off may be what matters to an
    /// application that does not.
    Together,
    /// All of these, one after the other.
    TogetherReparsed,
}

impl Reading {
    /// Every reading, in the order in which they are judged.
    pub const ALL: [Self; 8] = [
        Self::MergedSlashes,
        Self::DecodedSlash,
        Self::CutParameters,
        Self::DecodedTwice,
        Self::Reparsed,
        Self::FoldedCase,
        Self::Together,
        Self::TogetherReparsed,
    ];

    /// Its name in logs and explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MergedSlashes => "merged-slashes",
            Self::DecodedSlash => "decoded-slash",
            Self::CutParameters => "cut-parameters",
            Self::DecodedTwice => "decoded-twice",
            Self::Reparsed => "reparsed",
            Self::FoldedCase => "folded-case",
            Self::Together => "together",
            Self::TogetherReparsed => "together-reparsed",
        }
    }

    /// `canonical` as this reading has it; borrowed where nothing changes.
    pub fn apply(self, canonical: &str) -> Cow<'_, str> {
        match self {
            Self::MergedSlashes => merge_slashes(canonical),
            Self::DecodedSlash => decode_slashes(canonical),
            Self::CutParameters => cut_parameters(canonical),
            Self::DecodedTwice => decode_twice(canonical),
            Self::Reparsed => reparse(canonical),
            Self::FoldedCase => fold_case(canonical),
            Self::Together => together(decode_twice(canonical)),
            Self::TogetherReparsed => together(reparse(canonical)),
        }
    }
}

fn together(decoded: Cow<'_, str>) -> Cow<'_, str> {
    let cut = then(decoded, cut_parameters);
    let merged = then(cut, merge_slashes);
    then(merged, fold_case)
}

/// `step` after what was done so far, without a copy where `step` changes nothing.
fn then<'a>(text: Cow<'a, str>, step: fn(&str) -> Cow<'_, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => step(text),
        Cow::Owned(text) => match step(&text) {
            Cow::Owned(changed) => Cow::Owned(changed),
            Cow::Borrowed(same) if same.len() == text.len() => Cow::Owned(text),
            Cow::Borrowed(part) => Cow::Owned(part.to_owned()),
        },
    }
}

fn merge_slashes(text: &str) -> Cow<'_, str> {
    if !text.contains("//") {
        return Cow::Borrowed(text);
    }
    let mut merged = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    Cow::Owned(merged)
}

fn decode_slashes(text: &str) -> Cow<'_, str> {
    // A literal `%` is `%25` in canonical text, so that `%2F` there is always an escape of its own.
    if text.contains("%2F") { Cow::Owned(text.replace("%2F", "/")) } else { Cow::Borrowed(text) }
}

fn cut_parameters(text: &str) -> Cow<'_, str> {
    if !text.contains(';') {
        return Cow::Borrowed(text);
    }
    let mut cut = String::with_capacity(text.len());
    for (position, segment) in text.split('/').enumerate() {
        if position > 0 {
            cut.push('/');
        }
        cut.push_str(segment.split(';').next().unwrap_or_default());
    }
    Cow::Owned(cut)
}

fn decode_twice(text: &str) -> Cow<'_, str> {
    then(decode(text), decode)
}

fn reparse(text: &str) -> Cow<'_, str> {
    let once = decode(text);
    let path = match once {
        Cow::Borrowed(once) => Cow::Borrowed(before_query(once)),
        Cow::Owned(mut once) => {
            once.truncate(before_query(&once).len());
            Cow::Owned(once)
        }
    };
    then(path, decode)
}

/// What stands before the first `?` or `#`.
pub(super) fn before_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// Every valid escape decoded once; others stay as they are, and what is no UTF-8 then is replaced: lenient, as a
/// second decoder in an application would be. In canonical text, the first decoding meets only `%25` and `%2F`.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'%', text.as_bytes()) else {
        return Cow::Borrowed(text);
    };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        match escape(bytes, at) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    match String::from_utf8(decoded) {
        Ok(decoded) => Cow::Owned(decoded),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The byte that the escape at `at` stands for, if there is one.
pub(super) fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let &[b'%', high, low] = bytes.get(at..at + 3)? else {
        return None;
    };
    Some(hex(high)? << 4 | hex(low)?)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn fold_case(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    // Down, up and down again: once is not enough for letters such as the capital sharp s, whose lower case has an
    // upper case of two letters; whoever compares by either case must be met.
    let lower = text.chars().flat_map(char::to_lowercase);
    let folded: String = lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    if folded == text { Cow::Borrowed(text) } else { Cow::Owned(folded) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_paths_as_applications_do() {
        let cases = [
            (Reading::MergedSlashes, "//a///b/", "/a/b/"),
            (Reading::MergedSlashes, "/a/b", "/a/b"),
            (Reading::DecodedSlash, "/a%2Fb%252F", "/a/b%252F"),
            (Reading::CutParameters, "/a;x=1/b;/;c/d", "/a/b//d"),
            (Reading::DecodedTwice, "/a%252Fb%2Fc%2541", "/a/b/cA"),
            (Reading::DecodedTwice, "/a?b/c%2541", "/a?b/cA"),
            (Reading::Reparsed, "/a%252Fb%2Fc%2541", "/a/b/cA"),
            (Reading::Reparsed, "/a?b/c", "/a"),
            (Reading::Reparsed, "/a%253Fb#c", "/a?b"),
            (Reading::DecodedTwice, "/100%25", "/100%"),
            (Reading::DecodedTwice, "/a%25zz%25", "/a%zz%"),
            (Reading::DecodedTwice, "/%25ff", "/\u{fffd}"),
            (Reading::FoldedCase, "/ADMIN", "/admin"),
            (Reading::FoldedCase, "/STRAẞE", "/strasse"),
            (Reading::FoldedCase, "/straße", "/strasse"),
            (Reading::Together, "//A%252FB%253Bx//C;y?z/D?e", "/a/b/c/d?e"),
            (Reading::TogetherReparsed, "//A%252FB%253Bx//C;y?z/D", "/a/b/c"),
        ];
        for (reading, text, expected) in cases {
            assert_eq!(reading.apply(text), expected, "{} of {text}", reading.name());
        }
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        for reading in Reading::ALL {
            assert!(matches!(reading.apply("/data/items/42"), Cow::Borrowed(_)), "{}", reading.name());
        }
    }

    #[test]
    fn folding_is_done_for_every_letter_at_once() {
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let text = c.to_string();
            let folded = fold_case(&text).into_owned();
            assert_eq!(fold_case(&folded), folded, "{c:?}");
            assert_eq!(fold_case(&text.to_lowercase()), folded, "{c:?} in lower case");
        }
    }

    proptest! {
        #[test]
        fn every_reading_begins_with_a_slash(text in "/\\PC*") {
            for reading in Reading::ALL {
                prop_assert!(reading.apply(&text).starts_with('/'));
            }
        }

        #[test]
        fn readings_that_do_not_decode_are_idempotent(text in "/[aA%25F;/ß?#.]{0,30}") {
            for reading in [Reading::MergedSlashes, Reading::CutParameters, Reading::FoldedCase] {
                let once = reading.apply(&text).into_owned();
                prop_assert_eq!(reading.apply(&once), once.as_str());
            }
        }
    }
}
