//! An index of patterns by path: those that share a path with a given one, or could take all of it, without a look at the
//! others.
//!
//! It answers with lists that it has already, each in the order of the table, so that what is asked for by ten thousand
//! routes in turn is not written down ten thousand times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::pattern::{End, PathPattern, Segment};

/// An index of patterns, which are known by their place in the table.
#[derive(Debug, Default)]
pub struct Overlaps<'a> {
    root: Node<'a>,
}

#[derive(Debug, Default)]
struct Node<'a> {
    literal: HashMap<&'a str, Self>,
    any: Option<Box<Self>>,
    exact: Places,
    below: Places,
    /// All that is here and further down.
    all: Places,
}

/// Places in order. Most nodes have one, which needs no memory of its own.
#[derive(Debug, Default)]
enum Places {
    #[default]
    None,
    One(usize),
    Several(Vec<usize>),
}

/// What is looked for beside a pattern. More may be found, never less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Patterns that share a path with it: exactly these.
    Sharing,
    /// Those that take all of its paths.
    Covering,
    /// Those that share a path with it and name all that it names.
    Naming,
}

/// Lists of places, each in order.
pub(super) type Lists<'t> = Vec<&'t [usize]>;

impl<'a> Overlaps<'a> {
    /// An index of `patterns`, each known by its position.
    pub fn new(patterns: impl IntoIterator<Item = &'a PathPattern>) -> Self {
        let mut overlaps = Self::default();
        patterns.into_iter().enumerate().for_each(|(index, pattern)| overlaps.insert(index, pattern));
        overlaps
    }

    /// Adds `pattern`, to be known as `index`, which is not below that of any before.
    pub(super) fn insert(&mut self, index: usize, pattern: &'a PathPattern) {
        let mut node = &mut self.root;
        node.all.push(index);
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literal.entry(text).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
            node.all.push(index);
        }
        match pattern.end() {
            End::Exact => node.exact.push(index),
            End::Below => node.below.push(index),
        }
    }

    /// The places of all patterns that share a path with one of `patterns`, each once and in no order.
    pub fn of_all<'p>(&self, patterns: impl IntoIterator<Item = &'p PathPattern>) -> HashSet<usize> {
        let (mut seen, mut lists) = (HashSet::new(), Vec::new());
        let mut found = HashSet::new();
        for pattern in patterns {
            self.find(pattern, Want::Sharing, &mut lists);
            for list in lists.drain(..) {
                if seen.insert(list.as_ptr()) {
                    found.extend(list);
                }
            }
        }
        found
    }

    /// Adds the lists of the patterns that are wanted beside `pattern`.
    pub(super) fn find<'t>(&'t self, pattern: &PathPattern, want: Want, lists: &mut Lists<'t>) {
        self.root.find(pattern.segments(), pattern.end(), want, lists);
    }
}

impl Node<'_> {
    fn find<'t>(&'t self, segments: &[Segment], end: End, want: Want, lists: &mut Lists<'t>) {
        let mut add = |places: &'t Places| {
            let list = places.list();
            if !list.is_empty() {
                lists.push(list);
            }
        };
        let Some((first, rest)) = segments.split_first() else {
            match end {
                End::Below if want == Want::Covering => add(&self.below),
                End::Below => add(&self.all),
                End::Exact => {
                    add(&self.exact);
                    add(&self.below);
                    // `/a` is also `/a/`.
                    if let Some(slash) = self.literal.get("") {
                        add(&slash.exact);
                        add(&slash.below);
                    }
                }
            }
            return;
        };
        if want != Want::Naming || segments.iter().all(|segment| *segment == Segment::Any) {
            add(&self.below);
        }
        match first {
            Segment::Literal(text) => {
                if text.is_empty() && rest.is_empty() {
                    add(&self.exact);
                }
                let literal = self.literal.get(text.as_ref());
                let any = self.any.as_deref().filter(|_| !text.is_empty() && want != Want::Naming);
                literal.into_iter().chain(any).for_each(|node| node.find(rest, end, want, lists));
            }
            Segment::Any if want == Want::Covering => {
                self.any.iter().for_each(|node| node.find(rest, end, want, lists));
            }
            Segment::Any => {
                let literal = self.literal.iter().filter(|(text, _)| !text.is_empty()).map(|(_, node)| node);
                literal.chain(self.any.as_deref()).for_each(|node| node.find(rest, end, want, lists));
            }
        }
    }
}

impl Places {
    /// Adds `index`. Two hosts of one route may bring it here twice.
    fn push(&mut self, index: usize) {
        match self {
            Self::None => *self = Self::One(index),
            Self::One(one) if *one == index => {}
            Self::One(one) => *self = Self::Several(vec![*one, index]),
            Self::Several(several) if several.last() == Some(&index) => {}
            Self::Several(several) => several.push(index),
        }
    }

    fn list(&self) -> &[usize] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// The places in `lists`, from `from` on, each once and in order. Takes as long as is looked at.
pub(super) fn in_order(lists: Lists<'_>, from: usize) -> impl Iterator<Item = usize> {
    let rest = lists.into_iter().map(|list| &list[list.partition_point(|place| *place < from)..]);
    let heads = rest.filter_map(|list| list.split_first());
    let mut heads: BinaryHeap<_> = heads.map(|(first, rest)| Reverse((*first, rest))).collect();
    let mut last = None;
    std::iter::from_fn(move || {
        loop {
            let mut head = heads.peek_mut()?;
            let Reverse((place, rest)) = *head;
            match rest.split_first() {
                Some((next, rest)) => *head = Reverse((*next, rest)),
                None => drop(std::collections::binary_heap::PeekMut::pop(head)),
            }
            if last != Some(place) {
                last = Some(place);
                return last;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::cover::path_covers;
    use super::*;

    const PATTERNS: [&str; 12] =
        ["/**", "/a", "/a/", "/a/**", "/a/*", "/*/b", "/c/**", "/a/b/c", "/", "/*/**", "/*", "/a/*/**"];

    fn path(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    fn found(overlaps: &Overlaps<'_>, pattern: &PathPattern, want: Want) -> Vec<usize> {
        let mut lists = Vec::new();
        overlaps.find(pattern, want, &mut lists);
        in_order(lists, 0).collect()
    }

    #[test]
    fn finds_the_patterns_that_share_a_path() {
        let patterns = ["/**", "/a", "/a/", "/a/**", "/a/*", "/*/b", "/c/**", "/a/b/c", "/"].map(path);
        let overlaps = Overlaps::new(&patterns);
        let of = |text: &str| {
            let mut found: Vec<&str> =
                found(&overlaps, &path(text), Want::Sharing).into_iter().map(|at| patterns[at].as_str()).collect();
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
    fn misses_none_that_covers_a_pattern_or_names_what_it_names() {
        let patterns = PATTERNS.map(path);
        let overlaps = Overlaps::new(&patterns);
        for pattern in &patterns {
            let sharing = found(&overlaps, pattern, Want::Sharing);
            let covering = found(&overlaps, pattern, Want::Covering);
            let naming = found(&overlaps, pattern, Want::Naming);
            let names = |other: &PathPattern| {
                let named = |(at, segment): (usize, &Segment)| {
                    *segment == Segment::Any || other.segments().get(at) == Some(segment)
                };
                pattern.segments().iter().enumerate().all(named)
            };
            for (at, other) in patterns.iter().enumerate() {
                let pair = format!("{} {}", other.as_str(), pattern.as_str());
                assert!(!path_covers(other, pattern) || covering.contains(&at), "{pair}");
                assert!(!(sharing.contains(&at) && names(other)) || naming.contains(&at), "{pair}");
            }
        }
    }

    #[test]
    fn lists_are_one_in_order_and_each_place_stands_there_once() {
        let lists: Lists<'_> = vec![&[1, 4, 9], &[], &[2, 4], &[0, 9, 10]];
        assert_eq!(in_order(lists.clone(), 0).collect::<Vec<_>>(), [0, 1, 2, 4, 9, 10]);
        assert_eq!(in_order(lists, 3).collect::<Vec<_>>(), [4, 9, 10]);
    }

    #[test]
    fn of_several_patterns_each_is_told_once() {
        let patterns = PATTERNS.map(path);
        let overlaps = Overlaps::new(&patterns);
        let mut found: Vec<usize> = overlaps.of_all([&path("/c/x"), &path("/c/**")]).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found.iter().map(|at| PATTERNS[*at]).collect::<Vec<_>>(), ["/**", "/*/b", "/c/**", "/*/**", "/*"]);
    }
}
