//! The rewriting of heads in a plain formulation, which looks for every name by itself, and the proof that what is in use
//! makes of any head what this makes of it. Tests only.

use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use proptest::prelude::*;

use super::framing::{self, FramingFault};
use super::rewrite::{self, Edits, RewriteFacts, Way};
use crate::config::{HeaderEdits, PathChange};
use crate::identity::api_key;
use crate::message::cookie;
use crate::message::forwarded::{Scheme, Trust};
use crate::message::framed::Framed;
use crate::message::headers::{IdentityNames, clean_trailer_field};
use crate::message::host::Host;

/// The letters and digits of a name, of which CGI's `HTTP_` is no part.
fn folded(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn without_cgi(mut folded: &str) -> Vec<&str> {
    let mut readings = vec![folded];
    while let Some(rest) = folded.strip_prefix("http") {
        readings.push(rest);
        folded = rest;
    }
    readings
}

fn is_guarded(name: &str) -> bool {
    let (folded, configured) = (folded(name), CONFIGURED.map(folded));
    without_cgi(&folded).iter().any(|name| {
        let is_listed = IDENTITY.iter().any(|listed| folded_eq(listed, name));
        let is_configured = configured.iter().any(|listed| listed == name);
        is_listed || is_configured || FAMILIES.iter().any(|family| name.starts_with(family))
    })
}

fn folded_eq(name: &str, other: &str) -> bool {
    folded(name) == other
}

fn overrides_method(name: &str) -> bool {
    OVERRIDES.iter().any(|prefix| folded(name).starts_with(prefix))
}

fn tells_of_clients(name: &str) -> bool {
    FORWARDED.contains(&folded(name).as_str())
}

fn remove_all(headers: &mut HeaderMap, gone: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| gone(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What ends at this hop, by the list.
fn end_this_hop(headers: &mut HeaderMap) {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let tokens = |headers: &HeaderMap, name: &str| -> Vec<String> {
        let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
        values.iter().flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase()).collect()
    };
    let named = [tokens(headers, "connection"), tokens(headers, "proxy-connection")].concat();
    let has_trailers = tokens(headers, "te").iter().any(|token| token == "trailers");
    for name in named.iter().filter(|name| !["", "keep-alive", "close", "upgrade", "te"].contains(&name.as_str())) {
        let decides = DECIDING.contains(&name.as_str()) || DECIDING_FAMILIES.iter().any(|head| name.starts_with(head));
        if !decides && let Ok(name) = HeaderName::try_from(name.as_str()) {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if has_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn plain_request(headers: &mut HeaderMap, facts: &RewriteFacts<'_>, length: Option<u64>) {
    end_this_hop(headers);
    headers.remove(EXPECT);
    match length {
        Some(_) => drop(headers.remove(TRAILER)),
        None => clean_trailer_field(headers, facts.guarded),
    }
    let lengths: Vec<HeaderValue> = headers.get_all(CONTENT_LENGTH).iter().cloned().collect();
    let text = lengths.first().and_then(|value| value.to_str().ok()).unwrap_or_default();
    // As it would be written here.
    let written = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    if written != length || lengths.len() > 1 {
        headers.remove(CONTENT_LENGTH);
    }
    remove_all(headers, is_guarded);
    if facts.remove_method_overrides {
        remove_all(headers, overrides_method);
    }
    cookie::remove(headers, facts.our_cookies);
    // A shorter spelling is no application's.
    let shows_key = |name: &str| name.len() >= "x-api-key".len() && folded(name) == "xapikey";
    let keys: Vec<HeaderName> = headers.keys().filter(|name| shows_key(name.as_str())).cloned().collect();
    for name in keys {
        let kept: Vec<HeaderValue> =
            headers.get_all(&name).iter().filter(|value| !api_key::mentions_ours(value.as_bytes())).cloned().collect();
        if kept.len() < headers.get_all(&name).iter().count() {
            headers.remove(&name);
            for value in kept {
                headers.append(&name, value);
            }
        }
    }
    if facts.remove_authorization {
        headers.remove(AUTHORIZATION);
    }
    let Some(way) = facts.way else { return };
    // A peer that is trusted says who was before it.
    let mut chain: Vec<String> = Vec::new();
    if way.origin.peer_is_trusted {
        let said: Vec<String> =
            headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        let members = said.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty());
        chain.extend(members.map(str::to_owned));
        if chain.is_empty() && way.origin.client.0 != way.origin.peer {
            chain.push(way.origin.client.to_string());
        }
    }
    chain.push(way.origin.peer.to_string());
    remove_all(headers, tells_of_clients);
    for (name, value) in [
        ("x-forwarded-for", chain.join(", ")),
        ("x-forwarded-proto", way.scheme.as_str().to_owned()),
        ("x-forwarded-host", way.host.to_string()),
    ] {
        headers.insert(name, HeaderValue::try_from(value).unwrap());
    }
    for (name, value) in facts.set {
        headers.insert(name, value.clone());
    }
}

fn plain_answer(status: StatusCode, headers: &mut HeaderMap, facts: &RewriteFacts<'_>) {
    end_this_hop(headers);
    clean_trailer_field(headers, facts.guarded);
    if [204, 205].contains(&status.as_u16()) {
        headers.remove(CONTENT_LENGTH);
    }
    cookie::remove_set_cookie(headers, facts.our_cookies);
    rewrite::edit_answer(headers, facts.edits.answer);
    if !facts.private {
        return;
    }
    headers.remove("surrogate-control");
    headers.remove("cdn-cache-control");
    // The values here have no quoted commas.
    let said: Vec<String> =
        headers.get_all(CACHE_CONTROL).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    let mut directives: Vec<&str> = said.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
    directives.retain(|directive| {
        let name = directive.split('=').next().unwrap().trim().to_ascii_lowercase();
        !["", "public", "private", "s-maxage"].contains(&name.as_str())
    });
    directives.push("private");
    headers.insert(CACHE_CONTROL, HeaderValue::try_from(directives.join(", ")).unwrap());
}

fn plain_check(headers: &HeaderMap, version: Version) -> Result<(), FramingFault> {
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let is_chunked = codings.iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    match codings.len() {
        0 => {}
        1 if is_chunked && version == Version::HTTP_11 => {}
        _ => return Err(FramingFault::Coding),
    }
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let is_number = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    match lengths[..] {
        [] => Ok(()),
        [length] if is_number(length) => Ok(()),
        _ => Err(FramingFault::Length),
    }
}

fn with_facts<T>(edits: &HeaderEdits, (all, trusted): (bool, bool), run: impl FnOnce(&RewriteFacts<'_>) -> T) -> T {
    let configured = CONFIGURED.map(|name| HeaderName::try_from(name).unwrap());
    let guarded = Arc::new(IdentityNames::new(&configured));
    let set = [(HeaderName::from_static("x-forwarded-user"), HeaderValue::from_static("alice"))];
    let trust = Trust {
        proxies: vec!["10.0.0.0/8".parse().unwrap()],
        x_forwarded_for: true,
        x_forwarded_proto: true,
        ..Trust::default()
    };
    let peer = if trusted { "10.0.0.1" } else { "192.0.2.1" };
    let origin = trust.read(peer.parse().unwrap(), &HeaderMap::new()).unwrap();
    let host = Host::parse(b"app.example:8080").unwrap();
    run(&RewriteFacts {
        guarded: &guarded,
        our_cookies: &["gw"],
        remove_authorization: all,
        remove_method_overrides: all,
        set: &set,
        way: Some(Way { trust: &trust, origin: &origin, scheme: Scheme::Https, host: &host }),
        host: None,
        recording: None,
        path: PathChange::None,
        edits: Edits { request: &HeaderEdits::default(), answer: edits },
        private: all,
    })
}

fn edits(is_some: bool) -> HeaderEdits {
    let field = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    match is_some {
        false => HeaderEdits::default(),
        true => HeaderEdits {
            set: vec![field("cache-control", "public, max-age=5")],
            add: vec![field("surrogate-control", "max-age=60"), field("x-added", "1")],
            remove: vec![HeaderName::from_static("server")],
        },
    }
}

/// A field as anyone may spell and fill it.
fn field() -> impl Strategy<Value = (String, String)> {
    let known: Vec<&str> = HOP_BY_HOP
        .into_iter()
        .chain(DECIDING)
        .chain(IDENTITY)
        .chain(CONFIGURED)
        .chain(FORWARDED)
        .chain(FAMILIES)
        .chain(OVERRIDES)
        .chain(OTHERS)
        .collect();
    let spelt = (
        proptest::sample::select(known.clone()),
        "(-|-|-|_|[.]|)",
        any::<bool>(),
        "(|||http_|HTTP-HTTP-|_)",
        "(||||s|-x)",
    )
        .prop_map(|(name, dash, is_upper, before, after)| {
            let name = name.replace('-', &dash);
            let name = if is_upper { name.to_uppercase() } else { name };
            format!("{before}{name}{after}")
        });
    let name = prop_oneof![
        4 => spelt,
        6 => proptest::sample::select(known).prop_map(str::to_owned),
        1 => "[a-z][a-z0-9_.-]{0,70}",
    ];
    let named = prop::collection::vec(proptest::sample::select(&NAMED[..]), 1..4).prop_map(|names| names.join(", "));
    let value = prop_oneof![
        4 => proptest::sample::select(VALUES).prop_map(str::to_owned),
        2 => named,
    ];
    (name, value)
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::try_from(value.as_str()).unwrap());
    }
    headers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_request_is_rewritten_as_by_the_list(
        fields in prop::collection::vec(field(), 0..12),
        length in prop_oneof![Just(Some(0)), Just(Some(5)), Just(None)],
        way in any::<(bool, bool)>(),
    ) {
        let (mut ours, mut plain) = (map(&fields), map(&fields));
        with_facts(&edits(false), way, |facts| {
            rewrite::request(&mut ours, facts, length);
            plain_request(&mut plain, facts, length);
        });
        prop_assert_eq!(ours, plain);
    }

    #[test]
    fn an_answer_is_rewritten_as_by_the_list(
        fields in prop::collection::vec(field(), 0..12),
        status in proptest::sample::select(&[200_u16, 204, 205, 304, 502][..]),
        way in any::<(bool, bool)>(),
        is_edited in any::<bool>(),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let (mut ours, mut plain) = (map(&fields), map(&fields));
        with_facts(&edits(is_edited), way, |facts| {
            rewrite::answer(status, &mut ours, facts, ("http", &"app:80".parse().unwrap()));
            plain_answer(status, &mut plain, facts);
        });
        prop_assert_eq!(ours, plain);
    }

    #[test]
    fn framing_is_judged_as_by_the_list(
        fields in prop::collection::vec(
            (proptest::sample::select(&["content-length", "transfer-encoding", "te", "host"][..]),
             proptest::sample::select(&["5", "05", "", "chunked", "Chunked", "gzip, chunked"][..])), 0..4),
        is_old in any::<bool>(),
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (headers, version) = (map(&fields), if is_old { Version::HTTP_10 } else { Version::HTTP_11 });
        prop_assert_eq!(framing::check(&headers, version), plain_check(&headers, version));
        let both = headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING);
        let answer = plain_check(&headers, version).and(if both { Err(FramingFault::Both) } else { Ok(()) });
        prop_assert_eq!(framing::check_answer(StatusCode::OK, &Framed::of(&headers), version, false), answer);
    }
}

const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
    "keep-alive",
    "proxy-connection",
    "proxy-authentication-info",
    "http2-settings",
];

/// What `Connection` can't remove.
const DECIDING: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
    "set-cookie",
    "content-type",
    "origin",
    "trailer",
    "upgrade",
];
const DECIDING_FAMILIES: [&str; 7] =
    ["x-forwarded-", "forwarded", "sec-", "content-", "cache-control", "access-control-", "expect"];

/// Names that the configuration adds: also one that every client sends, and one that is ordinary.
const CONFIGURED: [&str; 5] = ["x-tenant", "who", "X-App-User1", "referer", "from"];
const IDENTITY: [&str; 12] = [
    "x-forwarded-user",
    "x-forwarded-groups",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-prefix",
    "x-envoy-original-path",
    "x-portcullis-assertion",
];
const FAMILIES: [&str; 6] = ["remote", "xremote", "xauthrequest", "xwebauth", "xauthenticated", "xsslclient"];
const OVERRIDES: [&str; 5] = ["xhttpmethod", "xmethodoverride", "httpmethod", "httpxhttpmethod", "methodoverride"];
const FORWARDED: [&str; 25] = [
    "forwarded",
    "forwardedfor",
    "forwardedproto",
    "forwardedhost",
    "xforwarded",
    "xforwardedfor",
    "xforwardedproto",
    "xforwardedprotocol",
    "xforwardedscheme",
    "xforwardedssl",
    "xforwardedhttps",
    "xforwardedhost",
    "xforwardedport",
    "xforwardedserver",
    "xforwardedby",
    "xforwardedclientcert",
    "xoriginalhost",
    "xoriginalforwardedfor",
    "xrealip",
    "xclientip",
    "xclusterclientip",
    "xurlscheme",
    "trueclientip",
    "clientip",
    "cfconnectingip",
];
const OTHERS: [&str; 17] = [
    "accept",
    "user-agent",
    "expect",
    "x-api-key",
    "cache-control",
    "surrogate-control",
    "cdn-cache-control",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "x-http-method-override",
    "true-client-ip",
    "sec-fetch-mode",
    "x-requested-with",
    "x-hop",
    "server",
    "location",
];
const NAMED: [&str; 9] =
    ["close", "keep-alive", "x-hop", "Cookie", "x-forwarded-for", "X-Tenant", "cache-control", "accept", "Expect"];
const VALUES: &[&str] = &[
    "1",
    "0",
    "5",
    "close",
    "keep-alive",
    "trailers",
    "gzip, trailers",
    "chunked",
    "gw=x; a=b",
    "a=b",
    "gw=",
    "pck_x",
    "Bearer pck_x",
    "10.1.1.1, 1.2.3.4",
    "no-store",
    "no-cache",
    "private",
    "Private",
    "no-cache, private",
    "public, max-age=5",
    "S-MaxAge=1,immutable",
    "",
];

#[test]
fn the_lists_name_what_they_are_made_for() {
    let all = [HOP_BY_HOP.as_slice(), &DECIDING, &IDENTITY, &FORWARDED, &OTHERS].concat();
    for name in [CONNECTION, COOKIE, SET_COOKIE, HOST, UPGRADE, TE, EXPECT, AUTHORIZATION, CACHE_CONTROL] {
        assert!(all.contains(&name.as_str()), "{name}");
    }
}
