//! Routes that decide nothing, because an earlier one takes all that they are for.

use super::cover::{hosts_cover, methods_cover, path_covers};
use super::{Entry, Finding};

/// What is wrong with the route at `index`; `meets` are the routes that share a path with it.
pub(super) fn judge(routes: &[Entry<'_>], index: usize, meets: &[usize]) -> Option<Finding> {
    let route = &routes[index];
    let earlier = |other: &&usize| **other < index && covers(&routes[**other], route);
    let earlier = *meets.iter().find(earlier)?;
    Some(if covers(route, &routes[earlier]) {
        Finding::Duplicate { route: index, earlier }
    } else {
        Finding::NeverMatches { route: index, earlier }
    })
}

fn covers(wide: &Entry<'_>, narrow: &Entry<'_>) -> bool {
    path_covers(wide.path, narrow.path)
        && hosts_cover(wide.hosts, narrow.hosts)
        && methods_cover(wide.methods, narrow.methods)
}

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
        assert_eq!(judge(&[(&[], "/**", None), (&[], "/a", None)]), [Finding::NeverMatches { route: 1, earlier: 0 }]);
        assert_eq!(
            judge(&[(&["*.b"], "/a/**", None), (&["c.b"], "/a/b", Some(GET))]),
            [Finding::NeverMatches { route: 1, earlier: 0 }]
        );
        assert_eq!(judge(&[(&[], "/a", None), (&[], "/a", None)]), [Finding::Duplicate { route: 1, earlier: 0 }]);
    }

    #[test]
    fn keeps_quiet_where_something_is_left() {
        assert_eq!(judge(&[(&[], "/a", None), (&[], "/**", None)]), []);
        assert_eq!(judge(&[(&["a.b"], "/**", None), (&[], "/**", None)]), []);
        assert_eq!(judge(&[(&[], "/**", Some(GET)), (&[], "/**", None)]), []);
    }
}
