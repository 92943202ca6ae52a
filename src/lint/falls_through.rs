//! A route limited by methods or hosts does not close its paths to the rest: that goes on to later routes.
//!
//! Found where a later route then decides and lets in someone whom the first excludes. Hosts that a later route
//! names and that have nothing to do with the first one's are another site, not what the first left.

use http::Method;
use ipnet::IpNet;

use super::cover::{path_covers, sample_host, takes_host};
use super::meets::Meets;
use super::{Entry, Finding};
use crate::pattern::HostPattern;
use crate::policy::{Policy, Rule};

/// The first later route that decides what the route at `index` leaves, and lets in someone whom that excludes.
pub(super) fn judge(routes: &[Entry<'_>], index: usize, all: &Meets<'_>, wide: &Wide<'_>) -> Option<Finding> {
    let route = &routes[index];
    if !is_limited(route) || wide.lets_in_all_of_later(index) {
        return None;
    }
    let later = all.sharing(route, index + 1).find(|other| {
        let later = &routes[*other];
        !policy_covers(route.allow, later.allow) && decides(routes, index, *other, all)
    })?;
    Some(Finding::FallsThrough { route: index, later })
}

/// Whether it leaves something by its hosts or methods, and it was not said that this is meant.
const fn is_limited(route: &Entry<'_>) -> bool {
    !route.fall_through && (!route.hosts.is_empty() || route.methods.is_some())
}

/// Up to where a policy lets in all whom later routes let in, for the policies that several routes share: there is nothing
/// to look for behind that.
pub(super) struct Wide<'a> {
    /// Each with the last route that lets in someone whom it excludes.
    policies: Vec<(&'a Policy, Option<usize>)>,
    /// Which of them a route has, if any.
    of: Vec<Option<usize>>,
}

impl<'a> Wide<'a> {
    pub(super) fn new(routes: &[Entry<'a>]) -> Self {
        let (mut policies, mut of): (Vec<(&Policy, _)>, _) = (Vec::new(), Vec::with_capacity(routes.len()));
        for route in routes {
            let known = policies.iter().position(|(policy, _)| *policy == route.allow);
            let place = known.or_else(|| {
                (is_limited(route) && policies.len() < MOST_SHARED).then(|| {
                    let excludes = |other: &Entry<'_>| !policy_covers(route.allow, other.allow);
                    policies.push((route.allow, routes.iter().rposition(excludes)));
                    policies.len() - 1
                })
            });
            of.push(place);
        }
        Self { policies, of }
    }

    fn lets_in_all_of_later(&self, index: usize) -> bool {
        let last = self.of[index].map(|policy| self.policies[policy].1);
        last.is_some_and(|last| last.is_none_or(|last| last <= index))
    }
}

/// Whether `later` decides a request that the route at `index` leaves by host or method and nothing between takes.
///
/// For each of its hosts one sample is enough: whoever takes that takes all the hosts of its pattern.
fn decides(routes: &[Entry<'_>], index: usize, later: usize, all: &Meets<'_>) -> bool {
    let into = &routes[later];
    if into.hosts.is_empty() {
        return decides_on(None, routes, index, later, all);
    }
    into.hosts.iter().any(|host| decides_on(Some(host), routes, index, later, all))
}

/// The same for the hosts of `host`; `None`: for one that no pattern names.
fn decides_on(host: Option<&HostPattern>, routes: &[Entry<'_>], index: usize, later: usize, all: &Meets<'_>) -> bool {
    let (route, into) = (&routes[index], &routes[later]);
    let sample = sample_host(host.map_or("*", HostPattern::as_str));
    let covers = |other: &Entry<'_>| path_covers(other.path, route.path) || path_covers(other.path, into.path);
    let before: Vec<&Entry<'_>> = all
        .covering_host(host, &[route.path, into.path])
        .take_while(|other| *other < later)
        .filter(|other| *other != index)
        .map(|other| &routes[other])
        .filter(|other| covers(other) && takes_host(other.hosts, &sample))
        .collect();
    let other = Method::from_bytes(b"ANOTHER").unwrap_or_default();
    let entries = || before.iter().copied().chain([route, into]);
    let mut methods = entries().flat_map(|entry| entry.methods.unwrap_or_default()).chain([&other]);
    methods.any(|method| {
        let takes = |entry: &Entry<'_>| entry.methods.is_none_or(|methods| methods.contains(method));
        let is_left = !(takes(route) && takes_host(route.hosts, &sample));
        is_left && takes(into) && !before.iter().any(|entry| takes(entry))
    })
}

/// Whether `wide` lets in everyone whom `narrow` lets in. In doubt it does not.
pub(super) fn policy_covers(wide: &Policy, narrow: &Policy) -> bool {
    match (wide, narrow) {
        (Policy::Anyone, _) | (_, Policy::Nobody) => true,
        (Policy::Nobody, _) => false,
        (Policy::SignedIn, Policy::AnyOf(rules)) => rules.iter().all(|rule| !rule.anyone),
        (Policy::SignedIn, Policy::SignedIn) => true,
        (Policy::SignedIn, Policy::Anyone) => false,
        (Policy::AnyOf(wide), Policy::AnyOf(narrow)) => {
            narrow.iter().all(|narrow| wide.iter().any(|wide| rule_covers(wide, narrow)))
        }
        (Policy::AnyOf(wide), Policy::Anyone) => wide.iter().any(|rule| rule.anyone && rule.from.is_none()),
        (Policy::AnyOf(wide), Policy::SignedIn) => wide.iter().any(|rule| rule_covers(rule, &Rule::default())),
    }
}

fn rule_covers(wide: &Rule, narrow: &Rule) -> bool {
    let within = match (wide.signed_in_within, narrow.signed_in_within) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow <= wide,
    };
    let scopes = wide.scopes.iter().flatten().all(|scope| narrow.scopes.iter().flatten().any(|other| other == scope));
    let claims = wide.claims.iter().flatten().all(|(key, values)| {
        let same =
            |(other, narrower): &(String, Vec<_>)| other == key && narrower.iter().all(|value| values.contains(value));
        narrow.claims.iter().flatten().any(same)
    });
    let networks = wide.from.as_ref().is_none_or(|wide| {
        let inside = |net: &IpNet| wide.iter().any(|wide| wide.contains(net));
        narrow.from.as_ref().is_some_and(|narrow| narrow.iter().all(inside))
    });
    (wide.anyone || !narrow.anyone)
        && within
        && scopes
        && claims
        && networks
        && list_covers(wide.users.as_deref(), narrow.users.as_deref())
        && list_covers(wide.groups.as_deref(), narrow.groups.as_deref())
        && list_covers(wide.methods_of_sign_in.as_deref(), narrow.methods_of_sign_in.as_deref())
}

/// Lists of which one match is enough; `None` is not written and asks for nothing.
fn list_covers(wide: Option<&[String]>, narrow: Option<&[String]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|entry| wide.contains(entry)),
    }
}

/// Of more policies each is that of a few routes, and looking for the one that a route has takes time.
const MOST_SHARED: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lint::findings;
    use crate::pattern::{HostPattern, PathPattern};

    struct Written {
        hosts: Vec<HostPattern>,
        path: PathPattern,
        methods: Option<Vec<Method>>,
        allow: Policy,
        fall_through: bool,
    }

    impl Written {
        fn entry(&self) -> Entry<'_> {
            Entry {
                hosts: &self.hosts,
                path: &self.path,
                methods: self.methods.as_deref(),
                allow: &self.allow,
                fall_through: self.fall_through,
            }
        }
    }

    fn route(hosts: &[&str], methods: &[&str], path: &str, allow: Policy) -> Written {
        let method = |name: &&str| Method::from_bytes(name.as_bytes()).unwrap();
        Written {
            hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path: PathPattern::parse(path).unwrap(),
            methods: (!methods.is_empty()).then(|| methods.iter().map(method).collect()),
            allow,
            fall_through: false,
        }
    }

    fn groups(names: &[&str]) -> Policy {
        let groups = Some(names.iter().map(|name| (*name).to_owned()).collect());
        Policy::AnyOf(vec![Rule { groups, ..Rule::default() }])
    }

    fn judge(routes: &[Written]) -> Vec<(usize, usize)> {
        let entries: Vec<Entry<'_>> = routes.iter().map(Written::entry).collect();
        let pair = |finding| {
            let Finding::FallsThrough { route, later } = finding else { return None };
            Some((route, later))
        };
        findings(&entries).into_iter().filter_map(pair).collect()
    }

    const APPS: &[&str] = &["apps.example.com", "*.apps.example.com"];

    #[test]
    fn finds_methods_that_a_weaker_route_takes() {
        let routes = [route(&[], &["GET"], "/admin/**", groups(&["admin"])), route(&[], &[], "/**", Policy::SignedIn)];
        assert_eq!(judge(&routes), [(0, 1)]);
    }

    #[test]
    fn finds_hosts_that_a_weaker_route_takes() {
        let routes = [route(APPS, &[], "/admin/**", groups(&["admin"])), route(&[], &[], "/**", Policy::SignedIn)];
        assert_eq!(judge(&routes), [(0, 1)]);
        let routes = [route(&["a.b"], &[], "/x", groups(&["g"])), route(&["*.b"], &[], "/**", Policy::Anyone)];
        assert_eq!(judge(&routes), [(0, 1)]);
    }

    #[test]
    fn keeps_quiet_where_another_route_takes_the_rest() {
        let mut routes = vec![
            route(&[], &["GET", "HEAD"], "/data/**", groups(&["reader", "writer"])),
            route(&[], &[], "/data/**", groups(&["writer"])),
            route(APPS, &[], "/**", Policy::SignedIn),
        ];
        assert_eq!(judge(&routes), []);
        routes.remove(1);
        assert_eq!(judge(&routes), [(0, 1)]);
    }

    #[test]
    fn keeps_quiet_where_the_rest_is_taken_by_several() {
        let routes = [
            route(&[], &["GET"], "/d/**", groups(&["r"])),
            route(&[], &["POST"], "/d/**", Policy::Nobody),
            route(&[], &["POST"], "/**", Policy::SignedIn),
        ];
        assert_eq!(judge(&routes), []);
        let routes = [
            route(&["a.b"], &[], "/d/**", groups(&["r"])),
            route(&[], &[], "/d/**", Policy::Nobody),
            route(&[], &[], "/**", Policy::SignedIn),
        ];
        assert_eq!(judge(&routes), []);
    }

    #[test]
    fn keeps_quiet_on_what_is_said_or_another_site() {
        let mut said = route(&[], &["GET"], "/admin/**", groups(&["admin"]));
        said.fall_through = true;
        assert_eq!(judge(&[said, route(&[], &[], "/**", Policy::SignedIn)]), []);
        let sites = [route(&["a.b"], &[], "/**", groups(&["a"])), route(&["c.b"], &[], "/**", groups(&["c"]))];
        assert_eq!(judge(&sites), []);
        let closed = [route(&[], &[], "/admin/**", groups(&["admin"])), route(&[], &[], "/**", Policy::Anyone)];
        assert_eq!(judge(&closed), []);
        let elsewhere = [route(&[], &["GET"], "/a/**", groups(&["a"])), route(&[], &[], "/b/**", Policy::Anyone)];
        assert_eq!(judge(&elsewhere), []);
    }

    #[test]
    fn knows_who_is_let_in_by_both() {
        let from = |net: &str| Rule { from: Some(vec![net.parse().unwrap()]), ..Rule::default() };
        let within = |seconds| Rule { signed_in_within: Some(Duration::from_secs(seconds)), ..Rule::default() };
        let any = |rule: Rule| Policy::AnyOf(vec![rule]);
        assert!(policy_covers(&any(from("10.0.0.0/8")), &any(from("10.1.0.0/16"))));
        assert!(!policy_covers(&any(from("10.1.0.0/16")), &any(from("10.0.0.0/8"))));
        assert!(
            policy_covers(&any(within(60)), &any(within(30))) && !policy_covers(&any(within(30)), &any(within(60)))
        );
        assert!(
            policy_covers(&Policy::SignedIn, &groups(&["a"])) && !policy_covers(&groups(&["a"]), &Policy::SignedIn)
        );
        let anyone = any(Rule { anyone: true, ..from("10.0.0.0/8") });
        assert!(!policy_covers(&Policy::SignedIn, &anyone) && policy_covers(&anyone, &any(from("10.0.0.0/8"))));
        assert!(policy_covers(&Policy::Nobody, &Policy::Nobody) && !policy_covers(&Policy::Nobody, &Policy::SignedIn));
        let scopes = |list: &[&str]| {
            any(Rule { scopes: Some(list.iter().map(|s| (*s).to_owned()).collect()), ..Rule::default() })
        };
        assert!(
            policy_covers(&scopes(&["a"]), &scopes(&["a", "b"]))
                && !policy_covers(&scopes(&["a", "b"]), &scopes(&["a"]))
        );
    }
}
