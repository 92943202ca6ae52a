//! From a permit to what goes on: the only way from a decision to an upstream.

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;

use super::forward::{Forwarder, Observed, Onward};
use super::rewrite::{Edits, RewriteFacts, Way};
use crate::access::Permit;
use crate::config::{PathChange, Route};
use crate::identity::Identity;
use crate::message::body::Body;
use crate::message::forwarded::{Origin, Scheme, Trust};
use crate::message::head::Head;
use crate::message::headers::IdentityNames;
use crate::message::rejection::{Reason, Rejection};
use crate::observe::trace::Recording;
use crate::pattern::carry;
use crate::secret::Random;
use crate::token::Assertions;
use crate::upstream::Caller;

/// What is the same for every request of a connection's configuration, and how this one came.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Names that only the gateway may send.
    pub guarded: &'a Arc<IdentityNames>,
    /// Names of our cookies.
    pub our_cookies: &'a [&'a str],
    /// Whose forwarded headers are believed.
    pub trust: &'a Trust,
    /// What was read from them.
    pub origin: &'a Origin,
    /// Bytes that a body may have where the route does not say.
    pub body_bytes: Option<u64>,
    /// What makes assertions, where an application is sent any.
    pub assertions: Option<&'a Assertions>,
    /// Names of the upstreams, in the order of the configuration.
    pub upstream_names: &'a [Arc<str>],
    /// The spans that the upstream is told of, where the request is recorded.
    pub recording: Option<&'a Recording>,
    /// What keys of handshakes are made from.
    pub random: &'a Random,
}

impl Forwarder {
    /// Forwards the request that `permit` was given for. Without a permit nothing goes on.
    ///
    /// # Errors
    /// A [`Rejection`] when there is no answer, or none that can be passed on.
    pub async fn forward(
        &self,
        permit: &Permit,
        surroundings: &Surroundings<'_>,
        request: Box<Request<Incoming>>,
        observed: &Observed,
    ) -> Result<Response<Body>, Rejection> {
        let (route, head) = (&**permit.route(), &**permit.head());
        let Surroundings { assertions, upstream_names, .. } = *surroundings;
        let identity = permit.identity();
        let claimed = |identity| claimed(identity, head, route, assertions, upstream_names);
        let set = identity.map(|identity| claimed(identity)).unwrap_or_default();
        let change = route.path_change();
        let target = match unchanged(request.uri(), head, change) {
            Some(target) => target,
            None => target(head, change).map_err(|error| Rejection::new(Reason::Internal).because(error))?,
        };
        let facts = RewriteFacts {
            guarded: surroundings.guarded,
            our_cookies: surroundings.our_cookies,
            remove_authorization: permit.drops_authorization(),
            remove_method_overrides: route.strips_method_overrides,
            set: &set,
            way: Some(Way {
                trust: surroundings.trust,
                origin: surroundings.origin,
                scheme: if head.https { Scheme::Https } else { Scheme::Http },
                host: &head.host,
            }),
            host: route.set_host.as_ref(),
            recording: surroundings.recording,
            path: change,
            edits: Edits { request: &route.request_headers, answer: &route.response_headers },
            private: !permit.is_public(),
        };
        let body_bytes = route.body_bytes.or(surroundings.body_bytes);
        let upstream = route.to.upstream().ok_or_else(|| Rejection::new(Reason::Internal))?;
        let caller = Caller { user: identity.map(|identity| identity.profile.user.as_str()), client: head.client.0 };
        let (timeouts, retries) = (&route.timeouts, route.retries.as_ref());
        let onward = Onward {
            upstream,
            target,
            facts,
            profile: identity.map(|identity| (&*identity.profile, &*route.identity)),
            websockets: route.websockets,
            body_bytes,
            timeouts,
            retries,
            caller,
            lease: permit.lease(),
            random: surroundings.random,
        };
        self.send_on(&onward, request, observed).await
    }
}

/// What the application behind `route` is told of who is there.
pub fn told(
    identity: &Identity,
    head: &Head,
    route: &Route,
    assertions: Option<&Assertions>,
    upstream_names: &[Arc<str>],
) -> Vec<(HeaderName, HeaderValue)> {
    let profile = identity.profile.headers(&route.identity).map(|(name, value)| (name.clone(), value.clone()));
    profile.chain(claimed(identity, head, route, assertions, upstream_names)).collect()
}

/// What of that is not the same for everything that someone asks for: most applications are told no such thing.
fn claimed(
    identity: &Identity,
    head: &Head,
    route: &Route,
    assertions: Option<&Assertions>,
    upstream_names: &[Arc<str>],
) -> Vec<(HeaderName, HeaderValue)> {
    let mut claimed: Vec<_> = identity.claim_headers(&route.identity).collect();
    let upstream = route.to.upstream().and_then(|upstream| upstream_names.get(upstream));
    let asked = route.identity.assertion.as_ref().zip(assertions).zip(upstream);
    if let Some(((name, assertions), upstream)) = asked {
        match assertions.header(identity, upstream, head.now) {
            Ok(assertion) => claimed.push((name.clone(), assertion)),
            // An application that asks for one refuses a request without.
            Err(error) => tracing::error!(%error, upstream = %upstream, "an assertion can't be signed, left out"),
        }
    }
    claimed
}

/// The path as it goes on, changed as the route says, and the query byte for byte.
///
/// # Errors
/// Never for a path that was judged.
pub fn target(head: &Head, change: PathChange<'_>) -> Result<PathAndQuery, http::uri::InvalidUri> {
    let path = head.path.forwarded();
    let path: Cow<'_, str> = match change {
        PathChange::None => path.into(),
        PathChange::Cut(prefix) => match path.strip_prefix(prefix) {
            Some("") => "/".into(),
            // Cut at the end of a whole segment only.
            Some(rest) if rest.starts_with('/') => rest.into(),
            _ => path.into(),
        },
        PathChange::Rewritten { from, to } => carry(from, to, path).map_or(path.into(), Cow::Owned),
    };
    match &head.query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(&*path),
    }
}

/// The target of `uri` itself, where it goes on byte for byte: that of most requests, which costs nothing to share.
fn unchanged(uri: &Uri, head: &Head, change: PathChange<'_>) -> Option<PathAndQuery> {
    let target = uri.path_and_query().filter(|_| matches!(change, PathChange::None))?;
    let rest = target.as_str().strip_prefix(head.path.forwarded())?;
    let goes_on = match &head.query {
        Some(query) => rest.strip_prefix('?') == Some(query),
        None => rest.is_empty(),
    };
    goes_on.then(|| target.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::PathPattern;

    fn head(path: &str, query: Option<&str>) -> Head {
        Head {
            method: http::Method::GET,
            host: crate::message::host::Host::parse(b"apps.example.com").unwrap(),
            path: crate::message::path::RequestPath::parse(path).unwrap(),
            query: query.map(str::to_owned),
            client: crate::message::forwarded::ClientAddr([127, 0, 0, 1].into()),
            https: false,
            certificate: None,
            now: crate::clock::Timestamp::default(),
            started: std::time::Instant::now(),
        }
    }

    #[test]
    fn a_prefix_is_cut_by_whole_segments_and_the_query_stays() {
        let cut = |path, query| target(&head(path, query), PathChange::Cut("/api")).unwrap().to_string();
        assert_eq!(cut("/api/users", Some("a=%2F&b=//")), "/users?a=%2F&b=//");
        assert_eq!(cut("/api", None), "/");
        assert_eq!(cut("/api", Some("x")), "/?x");
        assert_eq!(cut("/api/", None), "/");
        assert_eq!(cut("/apix/y", None), "/apix/y");
        assert_eq!(cut("/%61pi/y", None), "/y");
    }

    #[test]
    fn a_target_goes_on_as_it_came_only_where_it_would_be_put_together_the_same() {
        let mut shared = 0;
        for text in [
            "/",
            "/?",
            "/?q",
            "/a/b?x=1?y",
            "/a//b",
            "/%61?a",
            "/a|b",
            "http://h",
            "http://h/",
            "http://h?q",
            "http://h/a?b",
        ] {
            let uri: Uri = text.parse().unwrap();
            let head = head(uri.path(), uri.query());
            let made = target(&head, PathChange::None).unwrap();
            if let Some(same) = unchanged(&uri, &head, PathChange::None) {
                shared += 1;
                assert_eq!(
                    (same.as_str(), same.path(), same.query()),
                    (made.as_str(), made.path(), made.query()),
                    "{text}"
                );
            }
            assert!(unchanged(&uri, &head, PathChange::Cut("/a")).is_none(), "{text}");
        }
        assert_eq!(shared, 8, "all but those whose path changes, or is left out");
    }

    #[test]
    fn a_path_is_rewritten_as_it_goes_on_and_the_query_stays() {
        let (from, to) = (PathPattern::parse("/old/*/**").unwrap(), PathPattern::parse("/new/*/**").unwrap());
        let change = PathChange::Rewritten { from: &from, to: &to };
        let rewritten = |path, query| target(&head(path, query), change).unwrap().to_string();
        assert_eq!(rewritten("/old/a%20b//c;d%2Fe", Some("x=/old/%2e%2e")), "/new/a%20b//c;d%2Fe?x=/old/%2e%2e");
        assert_eq!(rewritten("/%6fld/x", None), "/new/x");
        assert_eq!(rewritten("/old/%C3%A4X:y/z", None), "/new/%C3%A4X:y/z");
    }
}
