//! The index behind the router: hosts first, then a tree over the segments of paths.
//!
//! A node knows the lowest route below it, so that a branch that cannot win is not entered. Literal segments and `*`
//! may both match; both branches are tried, as the route that stands first in the file wins, not the closer pattern.

use std::collections::HashMap;

use http::Method;

use crate::config::Route;
use crate::pattern::{End, PathPattern, Segment};

/// Routes by host, path and method.
#[derive(Debug, Default)]
pub(super) struct Index {
    named: HashMap<Box<str>, Tree>,
    /// By the name after `*.`.
    below: HashMap<Box<str>, Tree>,
    every_host: Tree,
}

/// Routes of one host by path; the first node is the root.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    any: Option<usize>,
    /// Whether a `/` at the end is covered here: not after an empty segment.
    takes_slash: bool,
    exact: Vec<Candidate>,
    below: Vec<Candidate>,
    /// The lowest route here or further down.
    lowest: usize,
}

/// A route that matches where the methods do.
#[derive(Debug)]
struct Candidate {
    route: usize,
    methods: Option<Vec<Method>>,
}

impl Index {
    /// An index over `routes`, each with its pattern as it is to be read.
    pub(super) fn new<'a>(routes: impl IntoIterator<Item = (&'a Route, &'a PathPattern)>) -> Self {
        let mut index = Self::default();
        for (number, (route, pattern)) in routes.into_iter().enumerate() {
            if route.hosts.is_empty() {
                index.every_host.insert(number, pattern, route.methods.as_deref());
            }
            for host in &route.hosts {
                let tree = match host.suffix() {
                    Some(suffix) => index.below.entry(suffix.into()).or_default(),
                    None => index.named.entry(host.as_str().into()).or_default(),
                };
                tree.insert(number, pattern, route.methods.as_deref());
            }
        }
        index
    }

    /// The place of the first route that matches.
    pub(super) fn find(&self, host: &str, method: &Method, path: &str) -> Option<usize> {
        self.search(host, method, path).0
    }

    /// The place of the first route that matches, and how many nodes were looked at.
    pub(super) fn search(&self, host: &str, method: &Method, path: &str) -> (Option<usize>, usize) {
        let mut search = Search { method, best: NONE, visits: 0 };
        let Some(path) = path.strip_prefix('/') else {
            return (None, 0);
        };
        if let Some(tree) = self.named.get(host) {
            search.tree(tree, path);
        }
        if !self.below.is_empty() {
            // A name of n labels is below n-1 others; the first label must not be empty.
            for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                if let Some(tree) = self.below.get(&host[dot + 1..]) {
                    search.tree(tree, path);
                }
            }
        }
        search.tree(&self.every_host, path);
        ((search.best != NONE).then_some(search.best), search.visits)
    }

    #[cfg(test)]
    pub(super) fn candidates(&self) -> usize {
        let trees = self.named.values().chain(self.below.values()).chain([&self.every_host]);
        trees.flat_map(|tree| &tree.nodes).map(|node| node.exact.len() + node.below.len()).sum()
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::new(false)] }
    }
}

impl Tree {
    fn insert(&mut self, route: usize, pattern: &PathPattern, methods: Option<&[Method]>) {
        let mut at = 0;
        self.nodes[at].lowest = self.nodes[at].lowest.min(route);
        for segment in pattern.segments() {
            let new = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(new),
                Segment::Any => *node.any.get_or_insert(new),
            };
            if at == new {
                let empty = matches!(segment, Segment::Literal(text) if text.is_empty());
                self.nodes.push(Node::new(!empty));
            }
            self.nodes[at].lowest = self.nodes[at].lowest.min(route);
        }
        let node = &mut self.nodes[at];
        let list = match pattern.end() {
            End::Exact => &mut node.exact,
            End::Below => &mut node.below,
        };
        add(list, route, methods);
    }
}

impl Node {
    fn new(takes_slash: bool) -> Self {
        Self { literals: HashMap::new(), any: None, takes_slash, exact: Vec::new(), below: Vec::new(), lowest: NONE }
    }
}

/// Routes come in their order; one that can never be the first of its list is not kept, so that a list is at most as
/// long as there are methods named.
fn add(list: &mut Vec<Candidate>, route: usize, methods: Option<&[Method]>) {
    let taken = |method: &Method| list.iter().any(|before| before.takes(method));
    let every = list.iter().any(|before| before.methods.is_none());
    if every || methods.is_some_and(|methods| methods.iter().all(taken)) {
        return;
    }
    list.push(Candidate { route, methods: methods.map(<[Method]>::to_vec) });
}

impl Candidate {
    fn takes(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }
}

struct Search<'a> {
    method: &'a Method,
    /// The lowest route found so far.
    best: usize,
    visits: usize,
}

impl Search<'_> {
    fn tree(&mut self, tree: &Tree, path: &str) {
        self.node(tree, 0, Some(path));
    }

    /// `rest` is what follows the segment of this node, `None` where nothing does. As deep as patterns are, which are
    /// limited in length.
    fn node(&mut self, tree: &Tree, at: usize, rest: Option<&str>) {
        let node = &tree.nodes[at];
        if node.lowest >= self.best {
            return;
        }
        self.visits += 1;
        self.consider(&node.below);
        let Some(rest) = rest else {
            self.consider(&node.exact);
            return;
        };
        if rest.is_empty() && node.takes_slash {
            self.consider(&node.exact);
        }
        let (segment, rest) = match memchr::memchr(b'/', rest.as_bytes()) {
            Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
            None => (rest, None),
        };
        if let Some(&child) = node.literals.get(segment) {
            self.node(tree, child, rest);
        }
        if let Some(child) = node.any
            && !segment.is_empty()
        {
            self.node(tree, child, rest);
        }
    }

    fn consider(&mut self, list: &[Candidate]) {
        if let Some(candidate) = list.iter().find(|candidate| candidate.takes(self.method)) {
            self.best = self.best.min(candidate.route);
        }
    }
}

/// No route.
const NONE: usize = usize::MAX;
