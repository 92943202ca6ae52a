//! What the index finds against what looking at all pairs does: the definitions, without regard to time.

use std::collections::BTreeSet;

use http::Method;
use proptest::prelude::*;

use super::cover::{hosts_are_disjoint, hosts_cover, methods_cover, path_covers, sample_host, takes_host};
use super::*;
use crate::policy::Rule;

/// A route that owns what an entry borrows.
#[derive(Clone, Debug)]
struct Owned {
    hosts: Vec<HostPattern>,
    path: PathPattern,
    methods: Option<Vec<Method>>,
    allow: Policy,
    fall_through: bool,
}

const HOSTS: [&[&str]; 8] = [&[], &[], &["a.b"], &["*.b"], &["c.a.b", "d"], &["*.a.b"], &["d"], &["*.b", "e.d"]];
const PATHS: [&str; 16] = [
    "/**", "/**", "/a/**", "/a", "/a/", "/a/*", "/*/b", "/A/**", "/a/b/**", "/a/b/c", "/*", "/", "/*/*/**", "/a//b",
    "/b/**", "/b",
];
const METHODS: [&[Method]; 5] =
    [&[], &[], &[Method::GET, Method::HEAD], &[Method::POST], &[Method::GET, Method::HEAD, Method::POST]];

fn policies() -> Vec<Policy> {
    let groups = |names: &[&str]| {
        let groups = Some(names.iter().map(|&name| name.to_owned()).collect());
        Policy::AnyOf(vec![Rule { groups, ..Rule::default() }])
    };
    vec![Policy::Anyone, Policy::SignedIn, Policy::Nobody, groups(&["a"]), groups(&["b"]), groups(&["a", "b"])]
}

fn table() -> impl Strategy<Value = Vec<Owned>> {
    let route = (0..HOSTS.len(), 0..PATHS.len(), 0..METHODS.len(), 0..policies().len(), any::<u8>());
    let owned = |(hosts, path, methods, allow, falls): (usize, usize, usize, usize, u8)| Owned {
        hosts: HOSTS[hosts].iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        path: PathPattern::parse(PATHS[path]).unwrap(),
        methods: (!METHODS[methods].is_empty()).then(|| METHODS[methods].to_vec()),
        allow: policies().swap_remove(allow),
        fall_through: falls < 32,
    };
    prop::collection::vec(route.prop_map(owned), 1..9)
}

fn entries(table: &[Owned]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for Owned { hosts, path, methods, allow, fall_through } in table {
        entries.push(Entry { hosts, path, methods: methods.as_deref(), allow, fall_through: *fall_through });
    }
    entries
}

/// Whether a path is in both, told by paths enough for the patterns above.
fn share_a_path(one: &PathPattern, other: &PathPattern) -> bool {
    let parts = ["", "a", "b", "c", "A", "x"];
    let mut paths = vec![String::new()];
    for _ in 0..4 {
        let longer: Vec<String> =
            paths.iter().flat_map(|path| parts.iter().map(move |part| format!("{path}/{part}"))).collect();
        if longer.iter().any(|path| one.matches(path) && other.matches(path)) {
            return true;
        }
        paths = longer;
    }
    false
}

fn meets(routes: &[Entry<'_>], at: usize, other: usize) -> bool {
    let (route, other) = (&routes[at], &routes[other]);
    share_a_path(route.path, other.path) && !hosts_are_disjoint(route.hosts, other.hosts)
}

/// The first earlier route that takes all of the route at `at`.
fn hiding(routes: &[Entry<'_>], at: usize) -> Option<usize> {
    let narrow = &routes[at];
    (0..at).find(|other| {
        let wide = &routes[*other];
        path_covers(wide.path, narrow.path)
            && hosts_cover(wide.hosts, narrow.hosts)
            && methods_cover(wide.methods, narrow.methods)
    })
}

/// The first later route that decides some request of the path of the route at `at` which that leaves, for more people.
fn falling(routes: &[Entry<'_>], at: usize) -> Option<usize> {
    let route = &routes[at];
    if route.fall_through || (route.hosts.is_empty() && route.methods.is_none()) {
        return None;
    }
    let all_hosts: BTreeSet<String> =
        routes.iter().flat_map(|route| route.hosts).map(|host| sample_host(host.as_str())).collect();
    let hosts: Vec<String> = all_hosts.into_iter().chain([sample_host("*")]).collect();
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::from_bytes(b"ANOTHER").unwrap()];
    (at + 1..routes.len()).filter(|later| meets(routes, at, *later)).find(|later| {
        let into = &routes[*later];
        let takes = |entry: &Entry<'_>, host: &str, method: &Method| {
            takes_host(entry.hosts, host) && entry.methods.is_none_or(|methods| methods.contains(method))
        };
        let closes = |other: &&Entry<'_>| path_covers(other.path, route.path) || path_covers(other.path, into.path);
        let before = || (0..*later).filter(|other| *other != at).map(|other| &routes[other]).filter(closes);
        let mut pairs = hosts.iter().flat_map(|host| methods.iter().map(move |method| (host, method)));
        !falls_through::policy_covers(route.allow, into.allow)
            && pairs.any(|(host, method)| {
                takes(into, host, method)
                    && !takes(route, host, method)
                    && !before().any(|entry| takes(entry, host, method))
            })
    })
}

/// All later routes that are opened by the public one at `at`.
fn opened(routes: &[Entry<'_>], at: usize) -> Vec<usize> {
    if !routes[at].allow.is_public() || !exposed::has_wildcard(routes[at].path) {
        return Vec::new();
    }
    let is_opened = |other: &usize| meets(routes, at, *other) && exposed::is_opened(&routes[at], &routes[*other]);
    (at + 1..routes.len()).filter(is_opened).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_looking_at_all_pairs_does(table in table()) {
        let routes = entries(&table);
        let found = findings(&routes);
        for at in 0..routes.len() {
            let hidden = found.iter().find_map(|finding| match finding {
                Finding::Duplicate { route, earlier } if *route == at => Some(*earlier),
                Finding::NeverMatches { route, earlier } if *route == at && earlier.len() == 1 => Some(earlier[0]),
                _ => None,
            });
            prop_assert_eq!(hidden, hiding(&routes, at), "hidden: {}", at);
            let falls = found.iter().find_map(|finding| match finding {
                Finding::FallsThrough { route, later } if *route == at => Some(*later),
                _ => None,
            });
            prop_assert_eq!(falls, falling(&routes, at), "falls through: {}", at);
            let public = found.iter().find_map(|finding| match finding {
                Finding::PublicOverProtected { route, protected } if *route == at => Some(protected.clone()),
                _ => None,
            });
            prop_assert_eq!(public.unwrap_or_default(), opened(&routes, at), "public over: {}", at);
        }
    }
}
