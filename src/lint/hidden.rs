//! Routes that decide nothing, because earlier ones take all that they are for.

use std::collections::BTreeSet;

use http::Method;

use super::cover::{hosts_cover, methods_cover, path_covers, sample_host, takes_host};
use super::meets::Meets;
use super::{Entry, Finding};

/// What is wrong with the route at `index`.
pub(super) fn judge(routes: &[Entry<'_>], index: usize, all: &Meets<'_>) -> Option<Finding> {
    let route = &routes[index];
    let is_before = |other: &usize| *other < index;
    let Some(earlier) = all.covering(route).take_while(is_before).find(|other| covers(&routes[*other], route)) else {
        let before = all.with_wider_path(route).take_while(is_before);
        let wider = before.filter(|other| path_covers(routes[*other].path, route.path));
        let wider: Vec<usize> = wider.take(MOST_TOGETHER + 1).collect();
        return together(routes, index, &wider);
    };
    Some(if covers(route, &routes[earlier]) {
        Finding::Duplicate { route: index, earlier }
    } else {
        Finding::NeverMatches { route: index, earlier: vec![earlier] }
    })
}

fn covers(wide: &Entry<'_>, narrow: &Entry<'_>) -> bool {
    path_covers(wide.path, narrow.path)
        && hosts_cover(wide.hosts, narrow.hosts)
        && methods_cover(wide.methods, narrow.methods)
}

/// Whether `wider`, each of which takes all paths of the route at `index`, together take all its hosts and methods.
fn together(routes: &[Entry<'_>], index: usize, wider: &[usize]) -> Option<Finding> {
    if !(2..=MOST_TOGETHER).contains(&wider.len()) {
        return None;
    }
    let route = &routes[index];
    let takes = |entry: &Entry<'_>, host: &str, method: &Method| {
        takes_host(entry.hosts, host) && entry.methods.is_none_or(|methods| methods.contains(method))
    };
    // One host for each pattern, and one for all the others: what holds of it holds of all that no pattern tells from it.
    let other = Method::from_bytes(b"ANOTHER").unwrap_or_default();
    let all = || wider.iter().map(|other| &routes[*other]).chain([route]);
    let hosts = all().flat_map(|entry| entry.hosts).map(|host| sample_host(host.as_str()));
    let hosts: Vec<String> =
        std::iter::once(sample_host("*")).chain(hosts).filter(|host| takes_host(route.hosts, host)).collect();
    let methods: BTreeSet<&str> =
        all().flat_map(|entry| entry.methods.unwrap_or_default()).chain([&other]).map(Method::as_str).collect();
    let methods: Vec<Method> =
        methods.into_iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
    let mut earlier = BTreeSet::new();
    for host in &hosts {
        for method in methods.iter().filter(|method| takes(route, host, method)) {
            earlier.insert(*wider.iter().find(|other| takes(&routes[**other], host, method))?);
        }
    }
    Some(Finding::NeverMatches { route: index, earlier: earlier.into_iter().collect() })
}

/// Of more routes nobody wonders which of them take what, and looking at all pairs of hosts and methods takes time.
const MOST_TOGETHER: usize = 50;

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::lint::{Entry, Finding, findings};
    use crate::pattern::{HostPattern, PathPattern};
    use crate::policy::Policy;

    const GET: &[Method] = &[Method::GET];

    /// Hosts, path and methods.
    type Written<'a> = (&'a [&'a str], &'a str, Option<&'a [Method]>);

    fn judge(routes: &[Written<'_>]) -> Vec<Finding> {
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect::<Vec<_>>();
        let parsed: Vec<_> =
            routes.iter().map(|(names, path, _)| (hosts(names), PathPattern::parse(path).unwrap())).collect();
        let mut entries = Vec::new();
        for ((hosts, path), (.., methods)) in parsed.iter().zip(routes) {
            entries.push(Entry { hosts, path, methods: *methods, allow: &Policy::SignedIn, fall_through: false });
        }
        findings(&entries)
    }

    #[test]
    fn finds_routes_that_never_decide() {
        assert_eq!(
            judge(&[(&[], "/**", None), (&[], "/a", None)]),
            [Finding::NeverMatches { route: 1, earlier: vec![0] }]
        );
        assert_eq!(
            judge(&[(&["*.b"], "/a/**", None), (&["c.b"], "/a/b", Some(GET))]),
            [Finding::NeverMatches { route: 1, earlier: vec![0] }]
        );
        assert_eq!(judge(&[(&[], "/a", None), (&[], "/a", None)]), [Finding::Duplicate { route: 1, earlier: 0 }]);
    }

    #[test]
    fn finds_routes_that_several_hide_together() {
        let post: &[Method] = &[Method::POST];
        let hidden = |earlier| [Finding::NeverMatches { route: 2, earlier }];
        let [read, rest]: [Written<'_>; 2] = [(&[], "/a/**", Some(GET)), (&["c.b"], "/**", None)];
        assert_eq!(
            judge(&[read, (&[], "/**", Some(post)), (&[], "/a/b", Some(&[Method::POST, Method::GET]))]),
            hidden(vec![0, 1])
        );
        assert_eq!(judge(&[rest, (&["d.b"], "/**", None), (&["c.b", "d.b"], "/a", None)]), hidden(vec![0, 1]));
        assert_eq!(judge(&[read, (&[], "/**", Some(post)), (&[], "/a/b", None)]), []);
        assert_eq!(judge(&[rest, (&["d.b"], "/**", None), (&["*.b"], "/a", None)]), []);
    }

    #[test]
    fn keeps_quiet_where_something_is_left() {
        assert_eq!(judge(&[(&[], "/a", None), (&[], "/**", None)]), []);
        assert_eq!(judge(&[(&["a.b"], "/**", None), (&[], "/**", None)]), []);
        assert_eq!(judge(&[(&[], "/**", Some(GET)), (&[], "/**", None)]), []);
    }
}
