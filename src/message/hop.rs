//! What ends at this hop, and what may stand in trailers (RFC 9110 sections 6.5.1 and 7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, Entry, HOST, HeaderName, ORIGIN,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use super::forwarded::is_forwarded_name;
use super::headers::{IdentityNames, is_method_override, remove_where};
use super::survey::Fields;

/// Removes what ends at this hop (RFC 9110 section 7.6.1), with what `Connection` names. `TE: trailers` stays, as
/// trailers pass; with `keep_upgrade`, `Upgrade` stays and `Connection` names it alone.
///
/// What decides about a request, or about where it ends, stays even where `Connection` names it: a client must not be
/// able to have it removed after the judgement.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    remove_noted_hop_by_hop(headers, Fields::of(headers), keep_upgrade);
}

/// The same for a head of which it is noted that it has no other `fields` than these.
pub fn remove_noted_hop_by_hop(headers: &mut HeaderMap, fields: Fields, keep_upgrade: bool) {
    let mut found = fields.of_this_hop();
    // Most requests have none of them.
    if found == 0 {
        return;
    }
    if found == 1
        && let Entry::Occupied(connection) = headers.entry(CONNECTION)
        && connection.iter().all(names_nothing)
    {
        connection.remove_entry();
        return;
    }
    for name in named_in_connection(headers) {
        headers.remove(name);
    }
    let trailers =
        headers.get_all(TE).iter().any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("trailers")));
    while let Some(name) = HOP_BY_HOP.get(found.trailing_zeros() as usize) {
        found &= found - 1;
        if *name != UPGRADE {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if keep_upgrade && headers.contains_key(UPGRADE) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Leaves in the trailers of a message only what may stand there (RFC 9110 section 6.5.1): nothing that frames,
/// routes, authenticates or names someone.
pub fn clean_trailers(trailers: &mut HeaderMap, names: &IdentityNames) {
    remove_where(trailers, |name| !may_trail(name, names));
}

/// Leaves in `Trailer` only names that [`clean_trailers`] leaves.
pub fn clean_trailer_field(headers: &mut HeaderMap, names: &IdentityNames) {
    let passes = |token: &str| HeaderName::try_from(token).is_ok_and(|name| may_trail(&name, names));
    if headers.get_all(TRAILER).iter().all(|value| tokens(value).all(passes)) {
        return;
    }
    let kept: Vec<&str> = headers.get_all(TRAILER).iter().flat_map(tokens).filter(|token| passes(token)).collect();
    match HeaderValue::try_from(kept.join(", ")) {
        Ok(value) if !value.is_empty() => drop(headers.insert(TRAILER, value)),
        _ => drop(headers.remove(TRAILER)),
    }
}

fn may_trail(name: &HeaderName, names: &IdentityNames) -> bool {
    let decides = DECIDES.contains(name) || Fields::named(name.as_str()).of_this_hop() != 0;
    !decides
        && !NOT_IN_TRAILERS.contains(&name.as_str())
        && !name.as_str().starts_with("x-forwarded-")
        && !is_forwarded_name(name.as_str())
        && !is_method_override(name.as_str())
        && !names.guards(name.as_str())
}

/// Whether this is what most clients and servers write into `Connection`.
fn names_nothing(connection: &HeaderValue) -> bool {
    connection == "keep-alive" || connection == "close"
}

/// What `Connection` names besides its own options, and may be removed for it.
fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().chain(headers.get_all(&PROXY_CONNECTION).iter());
    let named = values.flat_map(tokens).filter(|token| {
        !["keep-alive", "close", "upgrade", "te"].iter().any(|option| token.eq_ignore_ascii_case(option))
    });
    named
        .filter_map(|token| HeaderName::try_from(token).ok())
        .filter(|name| !DECIDES.contains(name) && !DECIDES_TOO.iter().any(|head| name.as_str().starts_with(head)))
        .collect()
}

/// The members of a list of tokens; a value that is not ASCII has none.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or_default();
    text.split(',').map(str::trim).filter(|token| !token.is_empty())
}

/// Fields that end at this hop, in the order of their [`Fields`].
static HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
];

static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields by which a message is framed, routed or judged.
static DECIDES: [HeaderName; 10] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    AUTHORIZATION,
    COOKIE,
    SET_COOKIE,
    CONTENT_TYPE,
    ORIGIN,
    TRAILER,
    UPGRADE,
];

/// How the names of more of them begin.
const DECIDES_TOO: [&str; 7] =
    ["x-forwarded-", "forwarded", "sec-", "content-", "cache-control", "access-control-", "expect"];

/// What else RFC 9110 keeps out of trailers: controls and what must be known before the body.
const NOT_IN_TRAILERS: [&str; 18] = [
    "forwarded",
    "x-real-ip",
    "content-encoding",
    "content-range",
    "cache-control",
    "expect",
    "max-forwards",
    "pragma",
    "range",
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
    "www-authenticate",
    "strict-transport-security",
    "access-control-allow-origin",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn guarded() -> IdentityNames {
        IdentityNames::new(&[HeaderName::from_static("x-tenant")])
    }

    #[test]
    fn every_field_of_this_hop_has_its_place() {
        let places: Vec<_> = HOP_BY_HOP.iter().map(|name| Fields::named(name.as_str()).of_this_hop()).collect();
        assert_eq!(places, (0..HOP_BY_HOP.len()).map(|place| 1 << place).collect::<Vec<_>>());
        assert_eq!(Fields::named("host").of_this_hop(), 0);
    }

    #[test]
    fn a_second_connection_field_is_read_behind_one_that_names_nothing() {
        let mut headers = map(&[("connection", "close"), ("connection", "x-hop"), ("x-hop", "1"), ("accept", "*/*")]);
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(names(&headers), ["accept"]);
    }

    #[test]
    fn what_ends_at_this_hop_goes_with_what_connection_names() {
        let mut headers = map(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-other,, ,b@d"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x-third"),
            ("x-third", "1"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("http2-settings", "x"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(names(&headers), ["accept", "te"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn connection_cannot_remove_what_decides() {
        let fields = [
            "authorization",
            "cookie",
            "host",
            "content-length",
            "content-type",
            "origin",
            "sec-fetch-site",
            "x-forwarded-for",
            "x-forwarded-proto",
            "forwarded",
        ];
        let mut headers: HeaderMap =
            fields.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        headers.insert(CONNECTION, HeaderValue::try_from(fields.join(", ")).unwrap());
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(headers.len(), fields.len());
    }

    #[test]
    fn an_upgrade_is_kept_alone() {
        let mut headers =
            map(&[("connection", "keep-alive, Upgrade, x-hop"), ("upgrade", "websocket"), ("x-hop", "1")]);
        remove_hop_by_hop(&mut headers, true);
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
        let mut without = map(&[("connection", "upgrade")]);
        remove_hop_by_hop(&mut without, true);
        assert!(without.is_empty());
    }

    #[test]
    fn trailers_name_nobody_and_decide_nothing() {
        let mut trailers = map(&[
            ("x-forwarded-user", "admin"),
            ("x_tenant", "a"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("content-length", "3"),
            ("host", "h"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x_real.ip", "1.2.3.4"),
            ("true-client-ip", "1.2.3.4"),
            ("cf-connecting-ip", "1.2.3.4"),
            ("x-http-method", "PUT"),
            ("grpc-status", "0"),
            ("x-checksum", "1"),
            ("connection", "close"),
            ("set-cookie", "a=b"),
        ]);
        clean_trailers(&mut trailers, &guarded());
        assert_eq!(names(&trailers), ["grpc-status", "x-checksum"]);

        let mut headers = map(&[("trailer", "X-Checksum, X-Forwarded-User"), ("trailer", "Grpc-Status")]);
        clean_trailer_field(&mut headers, &guarded());
        assert_eq!(headers, map(&[("trailer", "X-Checksum, Grpc-Status")]));
        let mut headers = map(&[("trailer", "x-forwarded-user")]);
        clean_trailer_field(&mut headers, &guarded());
        assert!(headers.is_empty());
    }
}
