//! Which paths and hosts two patterns share, and which one takes all of the other.

use std::collections::BTreeMap;

use http::Method;

use crate::pattern::{End, HostPattern, PathPattern, Segment};

/// Finds the patterns that share a path with a given one, without looking at all of them.
#[derive(Debug, Default)]
pub struct Overlaps<'a> {
    root: Node<'a>,
}

#[derive(Debug, Default)]
struct Node<'a> {
    literal: BTreeMap<&'a str, Self>,
    any: Option<Box<Self>>,
    exact: Vec<usize>,
    below: Vec<usize>,
}

impl<'a> Overlaps<'a> {
    /// An index of `patterns`, which are known by their place.
    pub fn new(patterns: impl IntoIterator<Item = &'a PathPattern>) -> Self {
        let mut overlaps = Self::default();
        patterns.into_iter().enumerate().for_each(|(index, pattern)| overlaps.insert(index, pattern));
        overlaps
    }

    /// Adds `pattern`, to be known as `index`.
    pub(super) fn insert(&mut self, index: usize, pattern: &'a PathPattern) {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literal.entry(text).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
        }
        match pattern.end() {
            End::Exact => node.exact.push(index),
            End::Below => node.below.push(index),
        }
    }

    /// The places of all patterns that share a path with `pattern`, in no order.
    pub fn of(&self, pattern: &PathPattern) -> Vec<usize> {
        let mut found = Vec::new();
        self.root.collect(pattern.segments(), pattern.end(), &mut found);
        found
    }
}

impl Node<'_> {
    fn collect(&self, segments: &[Segment], end: End, found: &mut Vec<usize>) {
        let Some((first, rest)) = segments.split_first() else {
            match end {
                End::Below => self.collect_all(found),
                End::Exact => {
                    found.extend(self.exact.iter().chain(&self.below));
                    // `/a` is also `/a/`.
                    if let Some(slash) = self.literal.get("") {
                        found.extend(slash.exact.iter().chain(&slash.below));
                    }
                }
            }
            return;
        };
        found.extend(&self.below);
        match first {
            Segment::Literal(text) => {
                let literal = self.literal.get(text.as_ref());
                let any = self.any.as_deref().filter(|_| !text.is_empty());
                literal.into_iter().chain(any).for_each(|node| node.collect(rest, end, found));
                if text.is_empty() && rest.is_empty() {
                    found.extend(&self.exact);
                }
            }
            Segment::Any => {
                let literal = self.literal.iter().filter(|(text, _)| !text.is_empty()).map(|(_, node)| node);
                literal.chain(self.any.as_deref()).for_each(|node| node.collect(rest, end, found));
            }
        }
    }

    fn collect_all(&self, found: &mut Vec<usize>) {
        found.extend(self.exact.iter().chain(&self.below));
        self.literal.values().chain(self.any.as_deref()).for_each(|node| node.collect_all(found));
    }
}

/// Whether `wide` takes every path of `narrow`.
pub(super) fn path_covers(wide: &PathPattern, narrow: &PathPattern) -> bool {
    let (wide_segments, narrow_segments) = (wide.segments(), narrow.segments());
    let begins_alike = wide_segments.iter().zip(narrow_segments).all(|(wide, narrow)| match (wide, narrow) {
        (Segment::Any, Segment::Literal(text)) => !text.is_empty(),
        (Segment::Any, Segment::Any) => true,
        (Segment::Literal(_), _) => wide == narrow,
    });
    begins_alike
        && match (wide.end(), narrow.end()) {
            (End::Below, _) => wide_segments.len() <= narrow_segments.len(),
            (End::Exact, End::Exact) => match narrow_segments.get(wide_segments.len()..) {
                Some([]) => true,
                Some([Segment::Literal(text)]) => text.is_empty(),
                _ => false,
            },
            (End::Exact, End::Below) => false,
        }
}

/// Whether `wide` takes every host of `narrow`; an empty list is every host.
pub(super) fn hosts_cover(wide: &[HostPattern], narrow: &[HostPattern]) -> bool {
    wide.is_empty()
        || (!narrow.is_empty() && narrow.iter().all(|narrow| wide.iter().any(|wide| host_covers(wide, narrow))))
}

/// Whether both name hosts, and none is in both.
pub(super) fn hosts_are_disjoint(one: &[HostPattern], other: &[HostPattern]) -> bool {
    let meets = |one: &HostPattern, other: &HostPattern| host_covers(one, other) || host_covers(other, one);
    !one.is_empty() && !other.is_empty() && !one.iter().any(|one| other.iter().any(|other| meets(one, other)))
}

/// Whether `wide` takes every host of `narrow`.
pub(super) fn host_covers(wide: &HostPattern, narrow: &HostPattern) -> bool {
    let (wide, narrow) = (wide.as_str(), narrow.as_str());
    wide == narrow
        || wide.strip_prefix('*').is_some_and(|domain| narrow.ends_with(domain) && narrow.len() > domain.len())
}

/// Whether `hosts` take `host`; an empty list is every host.
pub(super) fn takes_host(hosts: &[HostPattern], host: &str) -> bool {
    let takes = |pattern: &HostPattern| match pattern.as_str().strip_prefix('*') {
        Some(domain) => host.ends_with(domain) && host.len() > domain.len(),
        None => pattern.as_str() == host,
    };
    hosts.is_empty() || hosts.iter().any(takes)
}

/// A host that `pattern` takes and no narrower pattern does.
pub(super) fn sample_host(pattern: &str) -> String {
    pattern.replacen('*', "~", 1)
}

/// Whether `wide` takes every method of `narrow`; `None` is every method.
pub(super) fn methods_cover(wide: Option<&[Method]>, narrow: Option<&[Method]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|method| wide.contains(method)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn tells_which_paths_take_all_of_others() {
        for (wide, narrow) in [
            ("/**", "/"),
            ("/**", "/a/b"),
            ("/a/**", "/a"),
            ("/a/**", "/a/**"),
            ("/a/**", "/a/b/**"),
            ("/a", "/a"),
            ("/a", "/a/"),
            ("/*/b", "/a/b"),
            ("/a/*", "/a/*"),
        ] {
            assert!(path_covers(&path(wide), &path(narrow)), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("/a", "/a/**"),
            ("/a/**", "/**"),
            ("/a/**", "/ab"),
            ("/a/", "/a"),
            ("/a/b", "/*/b"),
            ("/a/*", "/a/"),
            ("/a/*", "/a/b/c"),
            ("/a/b/**", "/a/**"),
        ] {
            assert!(!path_covers(&path(wide), &path(narrow)), "{wide} {narrow}");
        }
    }

    #[test]
    fn finds_the_patterns_that_share_a_path() {
        let patterns = ["/**", "/a", "/a/", "/a/**", "/a/*", "/*/b", "/c/**", "/a/b/c", "/"].map(path);
        let overlaps = Overlaps::new(&patterns);
        let of = |text: &str| {
            let mut found: Vec<&str> = overlaps.of(&path(text)).into_iter().map(|at| patterns[at].as_str()).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(of("/a"), ["/**", "/a", "/a/", "/a/**"]);
        assert_eq!(of("/a/"), ["/**", "/a", "/a/", "/a/**"]);
        assert_eq!(of("/a/b"), ["/**", "/*/b", "/a/*", "/a/**"]);
        assert_eq!(of("/a/b/**"), ["/**", "/*/b", "/a/*", "/a/**", "/a/b/c"]);
        assert_eq!(of("/*"), ["/**", "/a", "/a/", "/a/**", "/c/**"]);
        assert_eq!(of("/"), ["/", "/**"]);
        assert_eq!(of("/**").len(), patterns.len());
    }

    #[test]
    fn tells_which_hosts_take_all_of_others() {
        let hosts = |list: &[&str]| list.iter().map(|host| HostPattern::parse(host).unwrap()).collect::<Vec<_>>();
        let covers = |wide: &[&str], narrow: &[&str]| hosts_cover(&hosts(wide), &hosts(narrow));
        assert!(covers(&[], &["a.b"]) && covers(&["*.b"], &["a.b"]) && covers(&["*.b"], &["*.a.b"]));
        assert!(!covers(&["a.b"], &[]) && !covers(&["*.b"], &["b"]) && !covers(&["a.b"], &["*.b"]));
        assert!(hosts_are_disjoint(&hosts(&["a.b"]), &hosts(&["c.b", "b"])));
        assert!(!hosts_are_disjoint(&hosts(&["a.b"]), &hosts(&["*.b"])) && !hosts_are_disjoint(&[], &hosts(&["b"])));
    }
}
