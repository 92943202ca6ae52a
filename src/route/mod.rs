//! Which route decides about a request: the first, in the order of the file, whose host, method and path match.
//!
//! Found in an index, not in a loop; for every reading under which some pattern changes there is an index of its own.

mod index;

use std::sync::Arc;

use http::Method;

pub use crate::config::Route;
use crate::message::path::{Reading, RequestPath};

use index::Index;

/// The routing table.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    as_written: Index,
    /// By the position of the reading in [`Reading::ALL`]; `None`: no pattern changes under it.
    read: [Option<Index>; Reading::ALL.len()],
}

impl Router {
    /// A router over `routes`, which are tried in this order.
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let as_written = Index::new(routes.iter().map(|route| (&**route, &route.path)));
        let is_plain = routes.iter().all(|route| route.path.is_plain());
        let read = Reading::ALL.map(|reading| {
            if is_plain {
                return None;
            }
            let changed: Vec<_> = routes.iter().map(|route| route.path.read_otherwise(reading)).collect();
            let read =
                || changed.iter().zip(routes).map(|(read, route)| (&**route, read.as_ref().unwrap_or(&route.path)));
            changed.iter().any(Option::is_some).then(|| Index::new(read()))
        });
        Self { routes: routes.to_vec(), as_written, read }
    }

    /// The route that decides about `canonical`, a path as written.
    pub fn find(&self, host: &str, method: &Method, canonical: &str) -> Option<&Arc<Route>> {
        self.routes.get(self.as_written.find(host, method, canonical)?)
    }

    /// The route that decides about `read`, a path as `reading` has it, the patterns being read likewise.
    pub fn find_read_as(&self, reading: Reading, host: &str, method: &Method, read: &str) -> Option<&Arc<Route>> {
        let index = self.read[reading as usize].as_ref().unwrap_or(&self.as_written);
        self.routes.get(index.find(host, method, read)?)
    }

    /// Whether `reading` can lead to another route than the path as written: not where neither the path nor any
    /// pattern changes under it.
    pub fn needs(&self, reading: Reading, path: &RequestPath) -> bool {
        self.read[reading as usize].is_some() || path.changes_under(reading)
    }

    /// All routes, in the order in which they are tried.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{
        Accept, Cors, Destination, HeaderEdits, Identity, Issuers, Readings, Timeouts, Unauthenticated,
    };
    use crate::pattern::{HostPattern, PathPattern};
    use crate::policy::Policy;

    fn route(index: usize, hosts: &[&str], path: &str, methods: &[Method]) -> Arc<Route> {
        Arc::new(Route {
            name: format!("route-{index}").into(),
            index,
            hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path: PathPattern::parse(path).unwrap(),
            methods: (!methods.is_empty()).then(|| methods.to_vec()),
            allow: Policy::SignedIn,
            to: Destination::Upstream(0),
            strip_prefix: None,
            rewrite: None,
            set_host: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rate_limit: None,
            websockets: true,
            accept: Accept::DEFAULT,
            issuers: Issuers::All,
            unauthenticated: Unauthenticated::Auto,
            forward_token: false,
            identity: Arc::new(Identity {
                user: Some(HeaderName::from_static("x-forwarded-user")),
                groups: None,
                email: None,
                name: None,
                claims: Vec::new(),
                assertion: None,
                strip: Vec::new(),
            }),
            readings: Readings::All,
            origins: Vec::new(),
            cors: Cors::None,
            body_bytes: None,
            retries: None,
            observe: false,
            fall_through: false,
            strips_method_overrides: false,
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                response: Duration::from_secs(60),
                between: None,
                total: None,
                idle: Duration::from_secs(90),
            },
        })
    }

    fn table(rows: &[(&[&str], &str, &[Method])]) -> Router {
        let routes: Vec<_> =
            rows.iter().enumerate().map(|(index, (hosts, path, methods))| route(index, hosts, path, methods)).collect();
        Router::new(&routes)
    }

    fn found(router: &Router, host: &str, method: &Method, path: &str) -> Option<usize> {
        router.find(host, method, path).map(|route| route.index)
    }

    /// What the index must agree with.
    fn first_match(
        routes: &[Arc<Route>],
        reading: Option<Reading>,
        host: &str,
        method: &Method,
        path: &str,
    ) -> Option<usize> {
        let matches = |route: &&Arc<Route>| {
            let pattern = reading.map_or_else(|| route.path.clone(), |reading| route.path.read_as(reading));
            (route.hosts.is_empty() || route.hosts.iter().any(|pattern| pattern.matches(host)))
                && route.methods.as_ref().is_none_or(|methods| methods.contains(method))
                && pattern.matches(path)
        };
        routes.iter().find(matches).map(|route| route.index)
    }

    #[test]
    fn the_first_that_matches_decides() {
        let router = table(&[
            (&["a.example", "*.b.example"], "/admin/**", &[]),
            (&[], "/data/**", &[Method::GET, Method::HEAD]),
            (&[], "/data/*/x", &[]),
            (&[], "/data/**", &[]),
            (&[], "/health", &[]),
            (&["a.example"], "/**", &[]),
        ]);
        for (host, method, path, expected) in [
            ("a.example", Method::GET, "/admin", Some(0)),
            ("x.y.b.example", Method::GET, "/admin/x", Some(0)),
            ("b.example", Method::GET, "/admin/x", None),
            ("c.example", Method::GET, "/data/1/x", Some(1)),
            ("c.example", Method::POST, "/data/1/x", Some(2)),
            ("c.example", Method::POST, "/data/1/y", Some(3)),
            ("a.example", Method::POST, "/data", Some(3)),
            ("a.example", Method::GET, "/health/", Some(4)),
            ("a.example", Method::GET, "/health//", Some(5)),
            ("c.example", Method::GET, "/health/x", None),
            ("c.example", Method::GET, "", None),
            ("c.example", Method::GET, "*", None),
        ] {
            assert_eq!(found(&router, host, &method, path), expected, "{method} {host} {path}");
        }
    }

    #[test]
    fn a_plain_path_is_looked_up_once() {
        let router = table(&[(&[], "/admin/**", &[]), (&[], "/*/x", &[]), (&[], "/**", &[])]);
        let path = RequestPath::parse("/admin/users").unwrap();
        assert!(Reading::ALL.into_iter().all(|reading| !router.needs(reading, &path)));
        let other = RequestPath::parse("//admin").unwrap();
        assert!(router.needs(Reading::MergedSlashes, &other) && router.needs(Reading::Together, &other));
        assert!(!router.needs(Reading::FoldedCase, &other));
        let upper = table(&[(&[], "/API/**", &[])]);
        assert!(upper.needs(Reading::FoldedCase, &path) && !upper.needs(Reading::MergedSlashes, &path));
    }

    #[test]
    fn patterns_are_read_as_the_path_is() {
        let router = table(&[(&[], "/API%2Fx/**", &[]), (&[], "/**", &[])]);
        let found =
            |reading, path: &str| router.find_read_as(reading, "h", &Method::GET, path).map(|route| route.index);
        assert_eq!(found(Reading::DecodedSlash, "/API/x/y"), Some(0));
        assert_eq!(found(Reading::MergedSlashes, "/API/x/y"), Some(1));
        assert_eq!(found(Reading::Together, "/api/x/y"), Some(0));
    }

    /// An application that does not take a decoded `?` or `#` for an end reads on behind it.
    #[test]
    fn an_escaped_question_mark_hides_nothing_behind_it() {
        let router = table(&[(&[], "/admin/**", &[]), (&[], "/u/*/edit", &[]), (&[], "/**", &[])]);
        for (raw, expected) in [
            ("/;%3F/admin/x", 0),
            ("/;x=y%23/admin", 0),
            ("//;%3f/ADMIN", 0),
            ("/u/bo%3Fb/%2565dit", 1),
            ("/u/%3Fbob//EDIT", 1),
            ("/ADMIN%3Fx", 0),
        ] {
            let path = RequestPath::parse(raw).unwrap();
            let found = |reading| router.find_read_as(reading, "h", &Method::GET, &path.reading(reading));
            let met =
                |reading| router.needs(reading, &path) && found(reading).is_some_and(|route| route.index == expected);
            assert!(Reading::ALL.into_iter().any(met), "{raw}");
        }
    }

    #[test]
    fn reaches_every_place_of_the_table_of_readings() {
        for (position, reading) in Reading::ALL.into_iter().enumerate() {
            assert_eq!(position, reading as usize);
        }
    }

    const PATHS: [&str; 16] = [
        "/", "/a", "/a/", "/A", "/a/b", "/a/*", "/*", "/*/b", "/a/*/b", "/**", "/a/**", "/*/**", "/a/*/**", "/a%2Fb",
        "/a;x/b", "/a//b",
    ];

    fn any_route() -> impl Strategy<Value = (Vec<&'static str>, &'static str, Vec<Method>)> {
        let hosts = proptest::sample::subsequence(vec!["h", "x.h", "*.h", "*.x.h", "g"], 0..3);
        let methods = proptest::sample::subsequence(vec![Method::GET, Method::POST, Method::PUT], 0..3);
        (hosts, proptest::sample::select(PATHS.to_vec()), methods)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_index_finds_what_a_loop_would(
            rows in proptest::collection::vec(any_route(), 1..12),
            host in proptest::sample::select(vec!["h", "x.h", "y.x.h", "y.h", "g", "z", "."]),
            method in proptest::sample::select(vec![Method::GET, Method::POST, Method::DELETE]),
            raw in "(/(a|b|A|a;x|a%2Fb|%252F|)){1,5}",
        ) {
            let routes: Vec<_> = rows.iter().enumerate()
                .map(|(index, (hosts, path, methods))| route(index, hosts, path, methods)).collect();
            let router = Router::new(&routes);
            let path = RequestPath::parse(&raw).unwrap();
            let written = path.canonical();
            let as_written = first_match(&routes, None, host, &method, written);
            prop_assert_eq!(found(&router, host, &method, written), as_written);
            for reading in Reading::ALL {
                let read = path.reading(reading);
                let expected = first_match(&routes, Some(reading), host, &method, &read);
                let found = router.find_read_as(reading, host, &method, &read).map(|route| route.index);
                prop_assert_eq!(found, expected, "{} of {}", reading.name(), raw);
                prop_assert!(router.needs(reading, &path) || found == as_written);
            }
        }
    }

    #[test]
    fn ten_thousand_routes_cost_a_few_steps() {
        let all =
            |rows: Vec<Arc<Route>>| Index::new(rows.iter().map(|route| (&**route, &route.path)).collect::<Vec<_>>());
        let paths = all((0..10_000).map(|n| route(n, &[], &format!("/app/{n}/**"), &[])).collect());
        assert_eq!(paths.search("h", &Method::GET, "/app/9999/x/y"), (Some(9999), 3));
        let hosts = all((0..10_000).map(|n| route(n, &[&format!("h{n}.example")], "/x/**", &[])).collect());
        assert_eq!(hosts.search("h9999.example", &Method::GET, "/x/y"), (Some(9999), 2));
        let wild = all((0..10_000).map(|n| route(n, &[&format!("*.h{n}.example")], "/**", &[])).collect());
        assert_eq!(wild.search("a.h9999.example", &Method::GET, "/x/y"), (Some(9999), 1));
        let same = all((0..10_000).map(|n| route(n, &[], "/x", &[Method::POST])).collect());
        assert_eq!(same.candidates(), 1);
    }
}
