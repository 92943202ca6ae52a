//! What changes in a head on its way: to the upstream, and back.
//!
//! What a client said of itself is removed before what the gateway knows is set, so that nothing the client
//! sends, a `Connection` field included, can touch it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, EXPECT, HOST, LOCATION, TRAILER, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use crate::config::{self, HeaderEdits, PathChange};
use crate::identity::{Profile, api_key};
use crate::message::added::Added;
use crate::message::cookie;
use crate::message::forwarded::{Origin, Scheme, Trust};
use crate::message::headers::{
    IdentityNames, clean_trailer_field, may_override_method, may_show_key, remove_noted_hop_by_hop, strip_guarded,
    strip_method_overrides, strip_spellings, strip_values,
};
use crate::message::host::Host;
use crate::message::survey::{Fields, Survey};
use crate::observe::trace::Recording;
use crate::pattern::carry_back;

/// What decides how a request's head is rewritten.
#[derive(Clone, Copy, Debug)]
pub struct RewriteFacts<'a> {
    /// Names that only the gateway may send.
    pub guarded: &'a Arc<IdentityNames>,
    /// Names of our cookies, which no application sees or sets.
    pub our_cookies: &'a [&'a str],
    /// Whether `Authorization` is ours.
    pub remove_authorization: bool,
    /// Whether method overrides go.
    pub remove_method_overrides: bool,
    /// What the application is told of who is there.
    pub set: &'a [(HeaderName, HeaderValue)],
    /// The way that the request came; `None`: forwarded headers are in order already.
    pub way: Option<Way<'a>>,
    /// What `Host` becomes where the target has another; `None`: as it came.
    pub host: Option<&'a HeaderValue>,
    /// The spans that the upstream is told of; `None`: what the client says of a trace goes on as it came.
    pub recording: Option<&'a Recording>,
    /// What became of the path.
    pub path: PathChange<'a>,
    /// What the route changes in the fields of the request and of the answer.
    pub edits: Edits<'a>,
    /// Whether the answer was given to a name, or on a protected route.
    pub private: bool,
}

/// What a route changes in the fields of the request and of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Edits<'a> {
    /// Of the request.
    pub request: &'a HeaderEdits,
    /// Of the answer.
    pub answer: &'a HeaderEdits,
}

/// The way that a request came.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Who is believed.
    pub trust: &'a Trust,
    /// What was read from them.
    pub origin: &'a Origin,
    /// How the client speaks to the foremost proxy.
    pub scheme: Scheme,
    /// The host that the request was judged for.
    pub host: &'a Host,
}

/// Rewrites a request's head. Its framing is hyper's to write: `length` is the body's, if that is known.
pub fn request(headers: &mut HeaderMap, facts: &RewriteFacts<'_>, length: Option<u64>) {
    request_beside(headers, facts, length).settle(headers);
}

/// The same with what the gateway adds beside it, as it is sent.
pub fn request_beside(headers: &mut HeaderMap, facts: &RewriteFacts<'_>, length: Option<u64>) -> Added {
    let survey = Survey::of(headers);
    noted_request(headers, &survey, facts, None, length)
}

/// The same for a head with this `survey`, with what is told of a `profile` besides; what the gateway adds goes beside
/// `headers`. All that is asked of the survey is asked before the gateway adds anything of its own.
pub(super) fn noted_request(
    headers: &mut HeaderMap,
    survey: &Survey,
    facts: &RewriteFacts<'_>,
    profile: Option<(&Profile, &config::Identity)>,
    length: Option<u64>,
) -> Added {
    let fields = survey.fields;
    remove_noted_hop_by_hop(headers, fields, false);
    for (name, field) in [(EXPECT, Fields::EXPECT), (TRANSFER_ENCODING, Fields::TRANSFER_ENCODING)] {
        if fields.may_have(field) {
            headers.remove(name);
        }
    }
    if fields.may_have(Fields::TRAILER) {
        // With a length there are no trailers in HTTP/1.1, and HTTP/2 needs no word of them.
        match length {
            Some(_) => drop(headers.remove(TRAILER)),
            None => clean_trailer_field(headers, facts.guarded),
        }
    }
    if fields.may_have(Fields::CONTENT_LENGTH) {
        let written = headers.get(CONTENT_LENGTH).and_then(plain_number);
        if written != length || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
            headers.remove(CONTENT_LENGTH);
        }
    }
    if facts.guarded.may_guard(survey) {
        strip_guarded(headers, facts.guarded);
    }
    if facts.remove_method_overrides && may_override_method(survey) {
        strip_method_overrides(headers);
    }
    remove_noted_credentials(headers, survey, facts.our_cookies, facts.remove_authorization);
    let mut added = Added::with_room();
    if let Some(way) = facts.way {
        way.trust.apply_noted(headers, &mut added, survey, way.origin, way.scheme, way.host);
    }
    if !facts.edits.request.is_empty() {
        added.settle(headers);
        // Of what tells of the way a route may set the fields that were not just written, such as a port.
        edit_request(headers, facts.edits.request);
    }
    if let Some(host) = facts.host {
        headers.insert(HOST, host.clone());
    }
    if let PathChange::Cut(prefix) = facts.path
        && let Ok(prefix) = HeaderValue::from_str(prefix)
    {
        added.set(&FORWARDED_PREFIX, prefix);
    }
    if let Some(recording) = facts.recording {
        recording.announce(headers);
    }
    for (name, value) in profile.into_iter().flat_map(|(profile, names)| profile.headers(names)) {
        added.set(name, value.clone());
    }
    for (name, value) in facts.set {
        added.set(name, value.clone());
    }
    added
}

/// Changes what the route says. What it sets or removes is gone in every spelling that an application may read as it.
fn edit_request(headers: &mut HeaderMap, edits: &HeaderEdits) {
    let HeaderEdits { set, add, remove } = edits;
    for name in remove.iter().chain(set.iter().map(|(name, _)| name)) {
        strip_spellings(headers, name);
    }
    for (name, value) in set.iter().chain(add) {
        headers.append(name, value.clone());
    }
}

/// Changes in an answer what the route says.
pub fn edit_answer(headers: &mut HeaderMap, edits: &HeaderEdits) {
    let HeaderEdits { set, add, remove } = edits;
    for name in remove {
        headers.remove(name);
    }
    for (name, value) in set {
        headers.insert(name, value.clone());
    }
    for (name, value) in add {
        headers.append(name, value.clone());
    }
}

/// Removes what is ours among the credentials of a request: our cookies, keys of ours, and `Authorization` where that is ours.
pub fn remove_credentials(headers: &mut HeaderMap, our_cookies: &[&str], remove_authorization: bool) {
    let survey = Survey::of(headers);
    remove_noted_credentials(headers, &survey, our_cookies, remove_authorization);
}

fn remove_noted_credentials(
    headers: &mut HeaderMap,
    survey: &Survey,
    our_cookies: &[&str],
    remove_authorization: bool,
) {
    if survey.fields.may_have(Fields::COOKIE) {
        cookie::remove(headers, our_cookies);
    }
    if may_show_key(survey) {
        strip_values(headers, "x-api-key", |value| api_key::mentions_ours(value.as_bytes()));
    }
    if remove_authorization && survey.fields.may_have(Fields::AUTHORIZATION) {
        headers.remove(AUTHORIZATION);
    }
}

/// A length as we would write it ourselves: one with leading zeros is octal to some applications.
fn plain_number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok().filter(|text| *text == "0" || !text.starts_with('0'))?;
    text.parse().ok()
}

/// The scheme and the place by which an upstream may name itself.
pub type UpstreamOrigin<'a> = (&'static str, &'a Authority);

/// Rewrites an answer's head.
pub fn answer(status: StatusCode, headers: &mut HeaderMap, facts: &RewriteFacts<'_>, upstream: UpstreamOrigin<'_>) {
    noted_answer((status, Fields::of(headers)), headers, facts, upstream);
}

/// The same for a head of which it is noted that it has no other `fields` than these.
pub(super) fn noted_answer(
    (status, fields): (StatusCode, Fields),
    headers: &mut HeaderMap,
    facts: &RewriteFacts<'_>,
    upstream: UpstreamOrigin<'_>,
) {
    remove_noted_hop_by_hop(headers, fields, false);
    if fields.may_have(Fields::TRAILER) {
        clean_trailer_field(headers, facts.guarded);
    }
    // Where no body can be, a length misleads (RFC 9110, section 8.6); of a 304 it says what a 200 would have.
    if status == StatusCode::NO_CONTENT || status == StatusCode::RESET_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    if fields.may_have(Fields::SET_COOKIE) {
        cookie::remove_set_cookie(headers, facts.our_cookies);
    }
    put_path_back(headers, facts.path, upstream);
    edit_answer(headers, facts.edits.answer);
    if facts.private && facts.edits.answer.is_empty() {
        keep_noted_private(headers, fields);
    } else if facts.private {
        keep_private(headers);
    }
}

/// Keeps an answer out of shared caches (RFC 9111, section 5.2.2): without `public` and `s-maxage`, with `private`.
pub fn keep_private(headers: &mut HeaderMap) {
    keep_noted_private(headers, Fields::of(headers));
}

/// The same for a head of which it is noted that it has no other `fields` than these.
fn keep_noted_private(headers: &mut HeaderMap, fields: Fields) {
    for (name, field) in &FOR_SHARED_CACHES {
        if fields.may_have(*field) {
            headers.remove(name);
        }
    }
    let value = if fields.may_have(Fields::CACHE_CONTROL) {
        made_private(headers)
    } else {
        HeaderValue::from_static("private")
    };
    headers.insert(CACHE_CONTROL, value);
}

/// What the `Cache-Control` of `headers` becomes.
fn made_private(headers: &HeaderMap) -> HeaderValue {
    let mut values = headers.get_all(CACHE_CONTROL).iter();
    if let (Some(first), None) = (values.next(), values.next())
        && let Some((_, said)) = COMMON.iter().find(|(common, _)| *common == first)
    {
        return HeaderValue::from_static(said);
    }
    let mut kept: Vec<u8> = Vec::new();
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in directives(value.as_bytes()) {
            let name = directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            // `private="field"` holds for that field only, so that a plain one replaces it.
            if [&b"public"[..], b"s-maxage", b"private"].iter().any(|gone| name.eq_ignore_ascii_case(gone)) {
                continue;
            }
            kept.extend_from_slice(directive);
            kept.extend_from_slice(b", ");
        }
    }
    if kept.is_empty() {
        return HeaderValue::from_static("private");
    }
    kept.extend_from_slice(b"private");
    // Pieces of values and ASCII in between: a value again.
    HeaderValue::from_maybe_shared(Bytes::from(kept)).unwrap_or(HeaderValue::from_static("private, no-store"))
}

/// What most applications say to caches, and what becomes of it.
const COMMON: [(&str, &str); 4] = [
    ("no-cache", "no-cache, private"),
    ("no-store", "no-store, private"),
    ("private", "private"),
    ("no-cache, private", "no-cache, private"),
];

/// What tells shared caches more than `Cache-Control` does.
static FOR_SHARED_CACHES: [(HeaderName, Fields); 2] = [
    (HeaderName::from_static("surrogate-control"), Fields::SURROGATE_CONTROL),
    (HeaderName::from_static("cdn-cache-control"), Fields::CDN_CACHE_CONTROL),
];

/// The members of a list in which quoted strings may hold commas.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        })
        .map(<[u8]>::trim_ascii)
        .filter(|directive| !directive.is_empty())
}

/// Puts back what was changed in the request's path into a `Location` that is a path, or that names the upstream, which a
/// client could not reach. What no path of the route became stays as it is.
fn put_path_back(headers: &mut HeaderMap, change: PathChange<'_>, upstream: UpstreamOrigin<'_>) {
    if matches!(change, PathChange::None) {
        return;
    }
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let path = if location.starts_with('/') {
        (!location.starts_with("//")).then_some(location)
    } else {
        below(location, upstream)
    };
    let Some(path) = path else { return };
    let there = match change {
        PathChange::None => None,
        PathChange::Cut(prefix) => {
            let slash = if path.starts_with('/') { "" } else { "/" };
            Some(format!("{prefix}{slash}{path}"))
        }
        PathChange::Rewritten { from, to } => {
            let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
            let path = if path.is_empty() { "/" } else { path };
            carry_back(from, to, path).map(|path| format!("{path}{rest}"))
        }
    };
    if let Some(location) = there.and_then(|there| HeaderValue::try_from(there).ok()) {
        headers.insert(LOCATION, location);
    }
}

/// What follows the authority in `location` if it names `upstream`.
fn below<'a>(location: &'a str, (scheme, upstream): UpstreamOrigin<'_>) -> Option<&'a str> {
    let uri: Uri = location.parse().ok()?;
    let authority = uri.authority()?;
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let named = uri.scheme_str() == Some(scheme)
        && authority.host().eq_ignore_ascii_case(upstream.host())
        && Some(port) == upstream.port_u16();
    let after = location.get(scheme.len() + "://".len()..)?.strip_prefix(authority.as_str())?;
    named.then_some(after)
}

static FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn with_facts<T>(run: impl FnOnce(&mut RewriteFacts<'_>) -> T) -> T {
        let guarded = Arc::new(IdentityNames::new([]));
        let set = [(HeaderName::from_static("x-forwarded-user"), HeaderValue::from_static("alice"))];
        run(&mut RewriteFacts {
            guarded: &guarded,
            our_cookies: &["portcullis"],
            remove_authorization: true,
            remove_method_overrides: false,
            set: &set,
            way: None,
            host: None,
            recording: None,
            path: PathChange::Cut("/app"),
            edits: Edits { request: &HeaderEdits::default(), answer: &HeaderEdits::default() },
            private: true,
        })
    }

    #[test]
    fn nothing_a_client_says_touches_what_the_gateway_sets() {
        let mut request_headers = headers(&[
            ("host", "example.com"),
            ("connection", "close, x-forwarded-user, x-hop, host"),
            ("x-hop", "1"),
            ("x-forwarded-user", "mallory"),
            ("x_forwarded_user", "mallory"),
            ("authorization", "Bearer x"),
            ("cookie", "a=1; portcullis=secret; b=2"),
            ("x-forwarded-prefix", "/evil"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("te", "trailers, deflate"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        with_facts(|facts| request(&mut request_headers, facts, Some(0)));
        let expected = headers(&[
            ("host", "example.com"),
            ("cookie", "a=1; b=2"),
            ("te", "trailers"),
            ("accept", "*/*"),
            ("x-forwarded-prefix", "/app"),
            ("x-forwarded-user", "alice"),
        ]);
        assert_eq!(request_headers, expected);
    }

    #[test]
    fn a_length_goes_on_only_where_it_is_the_bodys() {
        for (written, length, kept) in
            [(Some("5"), Some(5), true), (Some("5"), None, false), (Some("5"), Some(6), false), (None, Some(5), false)]
        {
            let mut request_headers =
                written.map_or_else(HeaderMap::new, |value| headers(&[("content-length", value)]));
            request_headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            with_facts(|facts| request(&mut request_headers, facts, length));
            assert_eq!(request_headers.contains_key(CONTENT_LENGTH), kept, "{written:?} {length:?}");
            assert!(!request_headers.contains_key(TRANSFER_ENCODING));
        }
    }

    #[test]
    fn an_answer_for_someone_goes_to_no_shared_cache() {
        for (before, after) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "max-age=60, private"),
            (&["Public", "S-MaxAge=10, max-age=5"], "max-age=5, private"),
            (&["no-store"], "no-store, private"),
            (&["private=\"a, public\", max-age=1"], "max-age=1, private"),
            (&["private"], "private"),
            (&["ext=\"s, \\\", public\", immutable"], "ext=\"s, \\\", public\", immutable, private"),
        ] {
            let mut answer_headers = HeaderMap::new();
            for value in before {
                answer_headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            with_facts(|facts| {
                answer(StatusCode::OK, &mut answer_headers, facts, ("http", &"app:80".parse().unwrap()))
            });
            assert_eq!(answer_headers[CACHE_CONTROL], after, "{before:?}");
            assert_eq!(answer_headers.get_all(CACHE_CONTROL).iter().count(), 1);
        }
    }

    #[test]
    fn the_prefix_comes_back_where_a_client_needs_it() {
        for (before, after) in [
            ("/next?x=1#y", "/app/next?x=1#y"),
            ("http://10.0.0.1:9000/next", "/app/next"),
            ("http://10.0.0.1:9000", "/app/"),
            ("http://10.0.0.1:9000?q", "/app/?q"),
            ("http://10.0.0.1/next", "http://10.0.0.1/next"),
            ("https://10.0.0.1:9000/next", "https://10.0.0.1:9000/next"),
            ("//elsewhere/next", "//elsewhere/next"),
            ("https://elsewhere/", "https://elsewhere/"),
            ("relative", "relative"),
        ] {
            let mut answer_headers = headers(&[("location", before)]);
            let upstream: Authority = "10.0.0.1:9000".parse().unwrap();
            with_facts(|facts| answer(StatusCode::FOUND, &mut answer_headers, facts, ("http", &upstream)));
            assert_eq!(answer_headers[LOCATION], after);
            let (before, after) = ([before, after])
                .map(|location| match location.split_once("://10.") {
                    Some(("http", rest)) => format!("https://10.{rest}"),
                    Some((_, rest)) => format!("http://10.{rest}"),
                    None => location.to_owned(),
                })
                .into();
            answer_headers.insert(LOCATION, HeaderValue::try_from(before).unwrap());
            with_facts(|facts| answer(StatusCode::FOUND, &mut answer_headers, facts, ("https", &upstream)));
            assert_eq!(answer_headers[LOCATION], after, "over https");
        }
    }

    #[test]
    fn an_application_can_neither_set_our_cookie_nor_end_this_hop() {
        let mut answer_headers = headers(&[
            ("set-cookie", "portcullis=x; Path=/"),
            ("set-cookie", "theirs=y"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "5"),
        ]);
        with_facts(|facts| {
            facts.private = false;
            answer(StatusCode::NO_CONTENT, &mut answer_headers, facts, ("http", &"app:80".parse().unwrap()));
        });
        assert_eq!(answer_headers, headers(&[("set-cookie", "theirs=y")]));
    }
}
