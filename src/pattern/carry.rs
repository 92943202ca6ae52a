//! From a path under one pattern to the same path under another: what stands for `*` and `**` is carried over, in order.
//!
//! The second pattern is written by the operator, and only whole segments of the path are put into it, as they came. So
//! what comes out begins as it is written, whatever the client sent.

use super::{End, PathPattern, PatternError, Segment};
use crate::message::path::RequestPath;

/// Whether a path of `from` can become one of `to`: every wildcard of `to` has one of `from` to be filled from.
///
/// # Errors
/// Which wildcard of `to` nothing stands for.
pub fn check_carry(from: &PathPattern, to: &PathPattern) -> Result<(), PatternError> {
    let (path, target) = (from.as_str(), to.as_str());
    if to.end() == End::Below && from.end() != End::Below {
        let message = format!("`{target}` ends with `**`, and `{path}` does not");
        return Err(PatternError::new(message, "`**` is what the route's own `**` stands for: add it to `path`"));
    }
    if wildcards(to) > wildcards(from) {
        let message = format!("`{target}` has more `*` than `{path}`");
        return Err(PatternError::new(message, "each `*` is filled by one of `path`, in order: write as many at most"));
    }
    Ok(())
}

/// Whether nothing of a path of `from` is lost in `to`, so that the way leads back.
pub fn leads_back(from: &PathPattern, to: &PathPattern) -> bool {
    from.end() == to.end() && wildcards(from) == wildcards(to)
}

/// `path`, which `from` covers, as one of `to`. One `/` behind the end stays.
pub fn carry(from: &PathPattern, to: &PathPattern, path: &str) -> Option<String> {
    let mut rest = path;
    let mut parts = Vec::new();
    for segment in from.segments() {
        rest = rest.strip_prefix('/')?;
        let (part, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if matches!(segment, Segment::Any) {
            parts.push(part);
        }
        rest = after;
    }
    let mut parts = parts.into_iter();
    let mut carried = String::new();
    // As it is written: a pattern's own segments are decoded.
    for written in to.as_str().split('/').skip(1) {
        match written {
            "**" => carried.push_str(rest),
            "*" => {
                carried.push('/');
                carried.push_str(parts.next()?);
            }
            literal => {
                carried.push('/');
                carried.push_str(literal);
            }
        }
    }
    let is_exact = from.end() == End::Exact && to.end() == End::Exact;
    if carried.is_empty() || (is_exact && rest == "/" && !carried.ends_with('/')) {
        carried.push('/');
    }
    Some(carried)
}

/// `path`, an answer's, as one of `from` again; `None`: `to` does not cover it, or the way does not lead back.
///
/// It never begins with `//`, which would be the name of a host to a browser.
pub fn carry_back(from: &PathPattern, to: &PathPattern, path: &str) -> Option<String> {
    let read = RequestPath::parse(path).ok()?;
    if !leads_back(from, to) || !to.matches(read.canonical()) {
        return None;
    }
    carry(to, from, read.forwarded()).map(|path| one_slash(&path))
}

/// `path` with one `/` at its beginning, however many there are.
pub fn one_slash(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

fn wildcards(pattern: &PathPattern) -> usize {
    pattern.segments().iter().filter(|segment| matches!(segment, Segment::Any)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn wildcards_are_carried_over_in_their_order() {
        for (from, to, path, expected) in [
            ("/old/**", "/new/**", "/old/a/b", "/new/a/b"),
            ("/old/**", "/new/**", "/old", "/new"),
            ("/old/**", "/new/**", "/old/", "/new/"),
            ("/old/**", "/**", "/old", "/"),
            ("/old/**", "/**", "/old//evil.example", "//evil.example"),
            ("/old/**", "/index.html", "/old/a/b", "/index.html"),
            ("/**", "/site/**", "/", "/site/"),
            ("/**", "/site/**", "/a%2Fb;x//c", "/site/a%2Fb;x//c"),
            ("/u/*/p/*", "/pages/*/of/*", "/u/ann/p/7", "/pages/ann/of/7"),
            ("/u/*/p/*/**", "/x/*/**", "/u/ann/p/7/more/", "/x/ann/more/"),
            ("/u/*", "/v/*", "/u/ann/", "/v/ann/"),
            ("/a", "/b", "/a", "/b"),
            ("/a", "/b", "/a/", "/b/"),
            ("/a", "/", "/a/", "/"),
            ("/", "/b", "/", "/b"),
            ("/a%20b/**", "/c%20d/**", "/a%20b/e%20f", "/c%20d/e%20f"),
        ] {
            let (from, to) = (pattern(from), pattern(to));
            check_carry(&from, &to).unwrap();
            assert_eq!(carry(&from, &to, path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_nothing_stands_for_can_not_be_carried() {
        for (from, to) in [("/a", "/b/**"), ("/a/*", "/b/**"), ("/a/**", "/b/*"), ("/a/*", "/*/*")] {
            check_carry(&pattern(from), &pattern(to)).unwrap_err();
        }
    }

    #[test]
    fn the_way_leads_back_where_nothing_was_lost() {
        for (from, to, path, expected) in [
            ("/old/**", "/new/**", "/new/a", Some("/old/a")),
            ("/old/**", "/new/**", "/newer/a", None),
            ("/old/**", "/new/**", "/new/../a", None),
            ("/old/**", "/", "/", None),
            ("/u/*/x", "/v/*", "/v/ann", Some("/u/ann/x")),
            ("/**", "/site/**", "/site//evil.example", Some("/evil.example")),
            ("/**", "/site/**", "/site", Some("/")),
        ] {
            assert_eq!(carry_back(&pattern(from), &pattern(to), path).as_deref(), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(path in "(/[a-z%20;.x]{0,3}){0,4}") {
            let (from, to) = (pattern("/old/**"), pattern("/a/new/**"));
            let path = format!("/old{path}");
            if let Ok(read) = RequestPath::parse(&path) {
                let there = carry(&from, &to, read.forwarded()).unwrap();
                prop_assert!(to.matches(RequestPath::parse(&there).unwrap().canonical()));
                prop_assert_eq!(carry_back(&from, &to, &there).unwrap(), read.forwarded());
            }
        }
    }
}
