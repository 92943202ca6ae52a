//! Finds the routes that a request of a given route could also be for, without looking at all of them.

use std::collections::HashMap;

use super::Entry;
use super::cover::Overlaps;
use crate::pattern::HostPattern;

/// An index of routes by host and path.
pub(super) struct Meets<'a> {
    all: Overlaps<'a>,
    /// By `""` for every host, by a pattern as written, and by `.domain` for all patterns below it.
    by_host: HashMap<String, Overlaps<'a>>,
}

impl<'a> Meets<'a> {
    pub(super) fn new(routes: &[Entry<'a>]) -> Self {
        let mut by_host: HashMap<String, Overlaps<'a>> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            let mut insert = |key: &str| by_host.entry(key.to_owned()).or_default().insert(index, route.path);
            if route.hosts.is_empty() {
                insert("");
            }
            for host in route.hosts.iter().map(HostPattern::as_str) {
                insert(host);
                domains(host).for_each(&mut insert);
            }
        }
        Self { all: Overlaps::new(routes.iter().map(|route| route.path)), by_host }
    }

    /// The routes that share a host and a path with `route`, in order.
    pub(super) fn of(&self, route: &Entry<'_>) -> Vec<usize> {
        if route.hosts.is_empty() {
            return self.on_every_host(route);
        }
        let mut keys = vec![String::new()];
        for host in route.hosts.iter().map(HostPattern::as_str) {
            keys.push(host.to_owned());
            keys.extend(domains(host).map(|domain| format!("*{domain}")));
            keys.extend(host.strip_prefix('*').map(str::to_owned));
        }
        let found = keys.iter().filter_map(|key| self.by_host.get(key));
        ordered(found.flat_map(|overlaps| overlaps.of(route.path)).collect())
    }

    /// The routes that share a path with `route`, whatever their hosts, in order.
    pub(super) fn on_every_host(&self, route: &Entry<'_>) -> Vec<usize> {
        ordered(self.all.of(route.path))
    }
}

/// `.b.c` and `.c` of `a.b.c` and of `*.b.c`.
fn domains(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(dot, _)| &host[dot..])
}

fn ordered(mut routes: Vec<usize>) -> Vec<usize> {
    routes.sort_unstable();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::cover::hosts_are_disjoint;
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
            assert_eq!(meets.of(route), expected, "{:?}", lists[at]);
        }
    }
}
