//! Finds the routes that a request of a given route could also be for, without looking at all of them.

use std::collections::HashMap;

use super::Entry;
use super::overlaps::{Lists, Overlaps, Want, in_order};
use crate::pattern::{HostPattern, PathPattern};

/// An index of routes by host and path. What it finds are places of the table, in order.
pub(super) struct Meets<'a> {
    all: Overlaps<'a>,
    /// Those without hosts; `None`: all of them.
    every_host: Option<Overlaps<'a>>,
    named: HashMap<&'a str, Overlaps<'a>>,
    /// By `.domain`: the patterns `*.domain`.
    wildcard: HashMap<&'a str, Overlaps<'a>>,
    /// By `.domain`: all names and patterns below it.
    below: HashMap<&'a str, Overlaps<'a>>,
}

impl<'a> Meets<'a> {
    pub(super) fn new(routes: &[Entry<'a>]) -> Self {
        let mut meets = Self {
            all: Overlaps::new(routes.iter().map(|route| route.path)),
            every_host: routes.iter().any(|route| !route.hosts.is_empty()).then(Overlaps::default),
            named: HashMap::new(),
            wildcard: HashMap::new(),
            below: HashMap::new(),
        };
        for (index, route) in routes.iter().enumerate() {
            if let Some(every_host) = meets.every_host.as_mut().filter(|_| route.hosts.is_empty()) {
                every_host.insert(index, route.path);
            }
            for host in route.hosts.iter().map(HostPattern::as_str) {
                match host.strip_prefix('*') {
                    Some(domain) => meets.wildcard.entry(domain).or_default().insert(index, route.path),
                    None => meets.named.entry(host).or_default().insert(index, route.path),
                }
                domains(host).for_each(|domain| meets.below.entry(domain).or_default().insert(index, route.path));
            }
        }
        meets
    }

    /// The routes from `from` on that share a host and a path with `route`.
    pub(super) fn sharing(&self, route: &Entry<'_>, from: usize) -> impl Iterator<Item = usize> {
        in_order(self.on_its_hosts(route, Want::Sharing, true), from)
    }

    /// Among them all whose paths take all of its own.
    pub(super) fn with_wider_path(&self, route: &Entry<'_>) -> impl Iterator<Item = usize> {
        in_order(self.on_its_hosts(route, Want::Covering, true), 0)
    }

    /// The routes from `from` on that share a host that both name, if `route` names any, and a path of which they name all
    /// that `route` does.
    pub(super) fn naming(&self, route: &Entry<'_>, from: usize) -> impl Iterator<Item = usize> {
        in_order(self.on_its_hosts(route, Want::Naming, route.hosts.is_empty()), from)
    }

    /// The routes whose hosts and paths could take all of those of `route`.
    pub(super) fn covering(&self, route: &Entry<'_>) -> impl Iterator<Item = usize> {
        in_order(self.on_all_of(route.hosts.first(), &[route.path]), 0)
    }

    /// The routes that take all hosts of `host` (`None`: every one) and could take all paths of one of `paths`.
    pub(super) fn covering_host(
        &self,
        host: Option<&HostPattern>,
        paths: &[&PathPattern],
    ) -> impl Iterator<Item = usize> {
        in_order(self.on_all_of(host, paths), 0)
    }

    fn on_every_host(&self) -> &Overlaps<'a> {
        self.every_host.as_ref().unwrap_or(&self.all)
    }

    fn on_its_hosts(&self, route: &Entry<'_>, want: Want, with_every_host: bool) -> Lists<'_> {
        let mut lists = Vec::new();
        if route.hosts.is_empty() {
            self.all.find(route.path, want, &mut lists);
            return lists;
        }
        if with_every_host {
            self.on_every_host().find(route.path, want, &mut lists);
        }
        for host in route.hosts.iter().map(HostPattern::as_str) {
            let domain = host.strip_prefix('*');
            let named = self.named.get(host).filter(|_| domain.is_none());
            let wider = domains(host).filter_map(|domain| self.wildcard.get(domain));
            let below = domain.and_then(|domain| self.below.get(domain));
            let found = named.into_iter().chain(wider).chain(below);
            found.for_each(|overlaps| overlaps.find(route.path, want, &mut lists));
        }
        lists
    }

    fn on_all_of(&self, host: Option<&HostPattern>, paths: &[&PathPattern]) -> Lists<'_> {
        let mut lists = Vec::new();
        for path in paths {
            self.on_every_host().find(path, Want::Covering, &mut lists);
            let Some(host) = host.map(HostPattern::as_str) else { continue };
            let wider = domains(host).filter_map(|domain| self.wildcard.get(domain));
            let found = self.named.get(host).into_iter().chain(wider);
            found.for_each(|overlaps| overlaps.find(path, Want::Covering, &mut lists));
        }
        lists
    }
}

/// `.b.c` and `.c` of `a.b.c` and of `*.b.c`.
fn domains(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(dot, _)| &host[dot..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::cover::{hosts_are_disjoint, hosts_cover};
    use crate::pattern::PathPattern;
    use crate::policy::Policy;

    #[test]
    fn finds_exactly_the_routes_whose_hosts_meet() {
        let lists: [&[&str]; 9] = [
            &[],
            &["b.c"],
            &["a.b.c"],
            &["*.b.c"],
            &["*.a.b.c"],
            &["x.a.b.c", "d.c"],
            &["*.c"],
            &["ab.c"],
            &["e.d", "*.d"],
        ];
        let hosts = lists.map(|list| list.iter().map(|host| HostPattern::parse(host).unwrap()).collect::<Vec<_>>());
        let path = PathPattern::parse("/**").unwrap();
        let entry = |hosts| Entry { hosts, path: &path, methods: None, allow: &Policy::Nobody, fall_through: false };
        let routes: Vec<Entry<'_>> = hosts.iter().map(|hosts| entry(hosts)).collect();
        let meets = Meets::new(&routes);
        for (at, route) in routes.iter().enumerate() {
            let all = 0..routes.len();
            let expected: Vec<usize> =
                all.filter(|other| !hosts_are_disjoint(route.hosts, routes[*other].hosts)).collect();
            assert_eq!(meets.sharing(route, 0).collect::<Vec<_>>(), expected, "{:?}", lists[at]);
            let covering: Vec<usize> = meets.covering(route).collect();
            for (other, wide) in routes.iter().enumerate().filter(|(_, wide)| hosts_cover(wide.hosts, route.hosts)) {
                assert!(covering.contains(&other), "{:?} {:?}", wide.hosts, route.hosts);
            }
        }
    }
}
