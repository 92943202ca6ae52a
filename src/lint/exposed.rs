//! What is protected and yet open to everyone: because a public route stands before it, or because its pattern ends too soon.

use super::cover::{host_covers, hosts_are_disjoint, path_covers};
use super::meets::Meets;
use super::{Entry, Finding};
use crate::pattern::{End, PathPattern, Segment};

/// The later routes that protect what the public route at `index` takes.
///
/// A public route that names something of its own (a path further down, hosts, methods) is a hole that someone meant.
pub(super) fn public_over(routes: &[Entry<'_>], index: usize, all: &Meets<'_>) -> Option<Finding> {
    let public = &routes[index];
    if !public.allow.is_public() || !has_wildcard(public.path) {
        return None;
    }
    let later = all.naming(public, index + 1);
    let protected: Vec<usize> = later.filter(|other| is_opened(public, &routes[*other])).collect();
    (!protected.is_empty()).then_some(Finding::PublicOverProtected { route: index, protected })
}

/// Whether `public`, before `protected`, lets everyone in there.
pub(super) fn is_opened(public: &Entry<'_>, protected: &Entry<'_>) -> bool {
    !protected.allow.may_be_anonymous()
        && takes_path(public.path, protected.path)
        && takes_hosts(public, protected)
        && takes_methods(public, protected)
}

/// The public route that takes what lies below the one page that the route at `index` protects.
pub(super) fn open_below(routes: &[Entry<'_>], index: usize, all: &Meets<'_>) -> Option<Finding> {
    let route = &routes[index];
    let is_page =
        matches!(route.path.segments().last(), Some(Segment::Literal(text)) if !text.is_empty() && !text.contains('.'));
    if !is_page || has_wildcard(route.path) || route.methods.is_some() || route.allow.may_be_anonymous() {
        return None;
    }
    // What stands below it, under a name that no other pattern has.
    let below = PathPattern::parse(&format!("{}/~", route.path.as_str())).ok()?;
    let asked = Entry { path: &below, ..*route };
    let takes = |other: &usize| {
        let other = &routes[*other];
        path_covers(other.path, &below) && other.methods.is_none() && !hosts_are_disjoint(other.hosts, route.hosts)
    };
    // Where an earlier one takes it, it takes the page too, and that is another finding.
    let decides = all.with_wider_path(&asked).find(takes).filter(|decides| *decides > index)?;
    let public = &routes[decides];
    let names_it = public.path.segments().len() >= route.path.segments().len();
    (public.allow.is_public() && !names_it).then_some(Finding::OpenBelow { route: index, public: decides })
}

pub(super) fn has_wildcard(path: &PathPattern) -> bool {
    path.end() == End::Below || path.segments().contains(&Segment::Any)
}

/// Whether `public` takes paths of `protected` without naming any part of them that `protected` does not name.
fn takes_path(public: &PathPattern, protected: &PathPattern) -> bool {
    let is_inside = path_covers(protected, public) && !path_covers(public, protected);
    let named = |(at, segment): (usize, &Segment)| match segment {
        Segment::Any => true,
        Segment::Literal(_) => protected.segments().get(at) == Some(segment),
    };
    !is_inside && public.segments().iter().enumerate().all(named)
}

fn takes_hosts(public: &Entry<'_>, protected: &Entry<'_>) -> bool {
    let is_taken = |host| public.hosts.iter().any(|wide| host_covers(wide, host));
    public.hosts.is_empty() || protected.hosts.iter().any(is_taken)
}

fn takes_methods(public: &Entry<'_>, protected: &Entry<'_>) -> bool {
    match (public.methods, protected.methods) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(public), Some(protected)) => {
            protected.iter().any(|method| *method != http::Method::HEAD && public.contains(method))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::lint::findings;
    use crate::pattern::HostPattern;
    use crate::policy::Policy;

    /// Hosts, path, whether only GET, and who may.
    type Written<'a> = (&'a [&'a str], &'a str, bool, &'a Policy);

    const ALL: &Policy = &Policy::Anyone;
    const SOME: &Policy = &Policy::SignedIn;
    const GET: &[Method] = &[Method::GET, Method::HEAD];

    fn judge(routes: &[Written<'_>]) -> Vec<Finding> {
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect::<Vec<_>>();
        let parsed: Vec<_> =
            routes.iter().map(|(names, path, ..)| (hosts(names), PathPattern::parse(path).unwrap())).collect();
        let mut entries = Vec::new();
        for ((hosts, path), (.., only_get, allow)) in parsed.iter().zip(routes) {
            entries.push(Entry { hosts, path, methods: only_get.then_some(GET), allow, fall_through: true });
        }
        let is_ours =
            |finding: &Finding| matches!(finding, Finding::PublicOverProtected { .. } | Finding::OpenBelow { .. });
        findings(&entries).into_iter().filter(is_ours).collect()
    }

    #[test]
    fn finds_public_routes_before_what_they_open() {
        for (public, protected) in [
            ("/**", "/admin/**"),
            ("/**", "/admin"),
            ("/a/**", "/a/b/c"),
            ("/*", "/admin/**"),
            ("/*/*", "/admin/**"),
            ("/*/**", "/admin/**"),
        ] {
            assert_eq!(
                judge(&[(&[], public, false, ALL), (&[], protected, false, SOME)]),
                [Finding::PublicOverProtected { route: 0, protected: vec![1] }],
                "{public} {protected}"
            );
        }
        assert_eq!(
            judge(&[(&["*.b"], "/**", false, ALL), (&["a.b", "c"], "/x", true, SOME), (&["a.b"], "/y", false, SOME)]),
            [Finding::PublicOverProtected { route: 0, protected: vec![1, 2] }]
        );
    }

    #[test]
    fn keeps_quiet_on_holes_that_name_what_they_open() {
        for (public, protected) in [
            ("/static/**", "/**"),
            ("/*", "/**"),
            ("/admin/*", "/admin/**"),
            ("/admin", "/admin/**"),
            ("/*/health", "/admin/**"),
            ("/*/public/**", "/admin/**"),
            ("/", "/**"),
        ] {
            assert_eq!(judge(&[(&[], public, false, ALL), (&[], protected, false, SOME)]), [], "{public} {protected}");
        }
        assert_eq!(judge(&[(&[], "/**", true, ALL), (&[], "/**", false, SOME)]), [], "everyone may read");
        assert_eq!(judge(&[(&["a.b"], "/**", false, ALL), (&[], "/admin/**", false, SOME)]), [], "a public site");
        assert_eq!(judge(&[(&[], "/admin/**", false, SOME), (&[], "/**", false, ALL)]), [], "the narrower one first");
    }

    #[test]
    fn finds_pages_whose_below_is_public() {
        let judge = |page, rest: &[Written<'_>]| judge(&[&[(&[][..], page, false, SOME)], rest].concat());
        let rest: Written<'_> = (&[], "/**", false, ALL);
        assert_eq!(judge("/admin", &[rest]), [Finding::OpenBelow { route: 0, public: 1 }]);
        assert_eq!(judge("/a/b", &[(&[], "/a/**", false, ALL)]), [Finding::OpenBelow { route: 0, public: 1 }]);
        for (page, more) in [("/admin.html", rest), ("/", rest), ("/admin/", rest), ("/admin/*", rest)] {
            assert_eq!(judge(page, &[more]), [], "{page}");
        }
        assert_eq!(judge("/admin", &[(&[], "/**", false, SOME)]), [], "all else is protected");
        assert_eq!(judge("/admin", &[(&[], "/admin/**", false, SOME), rest]), [], "what lies below is protected");
        assert_eq!(judge("/admin", &[(&[], "/admin/**", false, ALL), rest]), [], "it is said to be public");
        assert_eq!(judge("/admin", &[(&[], "/other", false, ALL)]), [], "nothing takes it");
    }
}
