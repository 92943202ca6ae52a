//! Which of two patterns of paths or hosts takes all of the other, and whether two lists of hosts have nothing in common.

use http::Method;

use crate::pattern::{End, HostPattern, PathPattern, Segment};

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
    fn tells_which_hosts_take_all_of_others() {
        let hosts = |list: &[&str]| list.iter().map(|host| HostPattern::parse(host).unwrap()).collect::<Vec<_>>();
        let covers = |wide: &[&str], narrow: &[&str]| hosts_cover(&hosts(wide), &hosts(narrow));
        assert!(covers(&[], &["a.b"]) && covers(&["*.b"], &["a.b"]) && covers(&["*.b"], &["*.a.b"]));
        assert!(!covers(&["a.b"], &[]) && !covers(&["*.b"], &["b"]) && !covers(&["a.b"], &["*.b"]));
        assert!(hosts_are_disjoint(&hosts(&["a.b"]), &hosts(&["c.b", "b"])));
        assert!(!hosts_are_disjoint(&hosts(&["a.b"]), &hosts(&["*.b"])) && !hosts_are_disjoint(&[], &hosts(&["b"])));
    }
}
