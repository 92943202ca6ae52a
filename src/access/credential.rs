//! What a request shows to be let in, read and not believed. Tokens are read from headers only, never from a URL or a body.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Accept;
use crate::identity::api_key;
use crate::message::certificate::ClientCertificate;
use crate::message::cookie;
use crate::secret::Secret;

/// What a request shows, as the accepting route reads it.
#[derive(PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing of ours.
    None,
    /// `Authorization: Bearer …` on a route that accepts it. The bytes are anything at all: a token that was seen before is
    /// known by them, and only another one is looked at.
    Bearer(&'a [u8]),
    /// `Authorization: Basic …` on a route that accepts it. The text is anything at all.
    Basic(&'a str),
    /// `Authorization: Bearer pck_…` or `X-API-Key: pck_…` on a route that accepts it. The text is anything, and nothing
    /// where what has our prefix is no text.
    ApiKey(&'a str),
    /// Two API keys that differ: nobody can say which one counts.
    TwoApiKeys,
    /// One or several cookies of our name, on a route that accepts them.
    Cookies(Vec<&'a [u8]>),
    /// The certificate of the connection, on a route that accepts it.
    Certificate(&'a ClientCertificate),
}

/// The `Authorization` header of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// None.
    Absent,
    /// One, with the scheme and what follows it.
    One {
        /// As written; compared without regard to case.
        scheme: &'a [u8],
        /// What follows the spaces, untouched.
        rest: &'a [u8],
    },
    /// Several: nobody can say which one counts.
    Several,
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bearer(_) => f.write_str("Bearer"),
            Self::Basic(_) => f.write_str("Basic"),
            Self::ApiKey(_) => f.write_str("ApiKey"),
            Self::TwoApiKeys => f.write_str("TwoApiKeys"),
            Self::Cookies(values) => write!(f, "Cookies({})", values.len()),
            Self::Certificate(_) => f.write_str("Certificate"),
        }
    }
}

impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::One { scheme, .. } => write!(f, "One({})", scheme.escape_ascii()),
            Self::Several => f.write_str("Several"),
        }
    }
}

/// Reads `Authorization` (RFC 9110 section 11.6.2).
pub fn authorization(headers: &HeaderMap) -> Authorization<'_> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Authorization::Absent,
        (Some(_), Some(_)) => Authorization::Several,
        (Some(value), None) => split(value),
    }
}

fn split(value: &HeaderValue) -> Authorization<'_> {
    let bytes = value.as_bytes();
    let end = bytes.iter().position(|&byte| byte == b' ').unwrap_or(bytes.len());
    let (scheme, rest) = bytes.split_at(end);
    Authorization::One { scheme, rest: rest.trim_ascii_start() }
}

/// The text of a credential; nothing where it is none, which is no credential.
pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).unwrap_or_default()
}

/// The credential that counts: `Authorization` if the route accepts its scheme, else `X-API-Key`, else the cookie.
pub fn extract<'a>(
    headers: &'a HeaderMap,
    seen: Authorization<'a>,
    accept: Accept,
    cookie_name: &'a str,
) -> Credential<'a> {
    let in_header = if accept.api_key { shown_api_key(headers) } else { Ok(None) };
    match (seen, in_header) {
        (_, Err(Several)) => Credential::TwoApiKeys,
        (Authorization::One { scheme, rest }, shown) if accept.api_key && is_api_key(scheme, rest) => match shown {
            Ok(Some(other)) if other.as_bytes() != rest => Credential::TwoApiKeys,
            _ => Credential::ApiKey(text(rest)),
        },
        (Authorization::One { scheme, rest }, _) if accept.bearer && is_bearer(scheme) => Credential::Bearer(rest),
        (Authorization::One { scheme, rest }, _) if accept.basic && is_basic(scheme) => Credential::Basic(text(rest)),
        (_, Ok(Some(key))) => Credential::ApiKey(key),
        _ if accept.cookie => {
            let cookies: Vec<&[u8]> = cookie::values(headers, cookie_name).collect();
            if cookies.is_empty() { Credential::None } else { Credential::Cookies(cookies) }
        }
        _ => Credential::None,
    }
}

/// Whether `scheme` is Bearer (RFC 6750), in any case.
pub(super) fn is_bearer(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"bearer")
}

/// Whether `scheme` is Basic (RFC 7617), in any case.
pub(super) fn is_basic(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"basic")
}

/// Whether `Authorization` shows what is meant as an API key of ours.
pub(super) fn is_api_key(scheme: &[u8], rest: &[u8]) -> bool {
    is_bearer(scheme) && api_key::is_ours(rest)
}

/// Whether a request shows an API key of ours, good or bad, where one is looked for.
pub fn shows_api_key(headers: &HeaderMap) -> bool {
    !matches!(shown_api_key(headers), Ok(None))
}

/// What `X-API-Key` shows that is meant as a key of ours; others are the application's.
fn shown_api_key(headers: &HeaderMap) -> Result<Option<&str>, Several> {
    let mut keys = headers.get_all(&X_API_KEY).iter().filter(|value| api_key::is_ours(value.as_bytes()));
    let Some(first) = keys.next() else { return Ok(None) };
    // One that is not text is no key, and is judged as a bad one.
    let text = first.to_str().unwrap_or(api_key::PREFIX);
    if keys.all(|other| other == first) { Ok(Some(text)) } else { Err(Several) }
}

/// `X-API-Key` stands several times, and not for the same key.
struct Several;

/// The name and password of Basic (RFC 7617 section 2): UTF-8, without controls, parted at the first colon.
pub(super) fn name_and_password(rest: &str) -> Option<(String, Secret<String>)> {
    let bytes = Secret::new(BASIC.decode(rest.trim_matches(' ')).ok()?);
    let text = std::str::from_utf8(bytes.expose()).ok()?;
    let (name, password) = text.split_once(':')?;
    (!text.chars().any(char::is_control)).then(|| (name.to_owned(), Secret::from(password)))
}

/// Whether an `Authorization` that the route does not accept carries an API key of ours all the same.
pub(super) fn smuggles_api_key(value: &HeaderValue) -> bool {
    if api_key::mentions_ours(value.as_bytes()) {
        return true;
    }
    let Authorization::One { scheme, rest } = split(value) else { return false };
    is_basic(scheme)
        && BASIC
            .decode(text(rest).trim_matches(' '))
            .is_ok_and(|bytes| api_key::mentions_ours(Secret::new(bytes).expose()))
}

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Whether an `Authorization` of another scheme holds something for which `is_ours` holds: a token smuggled past under a
/// foreign name, or given as the name or the password of Basic, as many tools do.
pub(super) fn hides(value: &HeaderValue, is_ours: impl Fn(&str) -> bool) -> bool {
    if pieces(value.as_bytes()).any(&is_ours) {
        return true;
    }
    let Authorization::One { scheme, rest } = split(value) else { return false };
    is_basic(scheme) && BASIC.decode(text(rest).trim_end()).is_ok_and(|plain| pieces(&plain).any(&is_ours))
}

/// What could be a token.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split(|byte| !(byte.is_ascii_alphanumeric() || b"-_.+/=".contains(byte)))
        .filter_map(|piece| std::str::from_utf8(piece).ok())
        .filter(|piece| piece.matches('.').count() >= 2)
}

/// Base64 as lenient readers take it.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Accept = Accept::DEFAULT;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn of(fields: &[(&'static str, &'static str)], accept: Accept) -> String {
        let headers = headers(fields);
        match extract(&headers, authorization(&headers), accept, "portcullis") {
            Credential::None => "none".to_owned(),
            Credential::Bearer(token) => format!("bearer {}", token.escape_ascii()),
            Credential::Basic(rest) => format!("basic {rest}"),
            Credential::ApiKey(key) => format!("key {key}"),
            Credential::TwoApiKeys => "two keys".to_owned(),
            Credential::Certificate(certificate) => format!("certificate {:?}", certificate.name),
            Credential::Cookies(values) => format!("cookies {}", values.join(&b',').escape_ascii()),
        }
    }

    #[test]
    fn authorization_decides_where_the_route_accepts_its_scheme() {
        let both = [("authorization", "bEARER x"), ("cookie", "portcullis=k")];
        assert_eq!(of(&both, BOTH), "bearer x");
        assert_eq!(of(&both, Accept { cookie: true, ..Accept::NOTHING }), "cookies k");
        assert_eq!(of(&both, Accept::NOTHING), "none");
    }

    #[test]
    fn another_scheme_is_not_ours() {
        assert_eq!(of(&[("authorization", "junk Bearer x"), ("cookie", "portcullis=k")], BOTH), "cookies k");
        assert_eq!(of(&[("authorization", "Basic eDp5")], BOTH), "none");
    }

    #[test]
    fn an_api_key_counts_only_where_it_is_accepted() {
        let keys = Accept { api_key: true, ..Accept::DEFAULT };
        let (bearer, header) = (("authorization", "Bearer pck_a"), ("x-api-key", "pck_a"));
        for fields in
            [&[bearer][..], &[header], &[bearer, header], &[header, header], &[header, ("cookie", "portcullis=k")]]
        {
            assert_eq!(of(fields, keys), "key pck_a", "{fields:?}");
        }
        for fields in [&[bearer, ("x-api-key", "pck_b")][..], &[header, ("x-api-key", "pck_b")]] {
            assert_eq!(of(fields, keys), "two keys", "{fields:?}");
        }
        assert_eq!(of(&[header], BOTH), "none");
        assert_eq!(of(&[bearer], BOTH), "bearer pck_a", "a bad token");
        assert_eq!(of(&[("x-api-key", "sk_theirs"), ("x-api-key", "pck_a")], keys), "key pck_a");
        assert_eq!(of(&[("x-api-key", "sk_theirs")], keys), "none");
        assert_eq!(of(&[("authorization", "Bearer x"), header], keys), "bearer x", "Authorization decides");
        let only = Accept { api_key: true, ..Accept::NOTHING };
        assert_eq!(of(&[("authorization", "Bearer x"), header], only), "key pck_a", "theirs beside ours");
    }

    #[test]
    fn basic_is_read_as_rfc_7617_has_it() {
        let basic = Accept { basic: true, ..Accept::DEFAULT };
        assert_eq!(of(&[("authorization", "bASIC eDp5"), ("cookie", "portcullis=k")], basic), "basic eDp5");
        let read = |rest| name_and_password(rest).map(|(name, password)| format!("{name}|{}", password.expose()));
        for (rest, expected) in [
            ("eDp5", Some("x|y")),
            ("QWxhZGRpbjpvcGVuOnNlc2FtZQ==", Some("Aladdin|open:sesame")),
            ("QWxhZGRpbjpvcGVuOnNlc2FtZQ", Some("Aladdin|open:sesame")),
            ("dGVzdDoxMjPCow==", Some("test|123£")),
            ("Og==", Some("|")),
            ("dGVzdDoxMjOj", None),
            ("eA==", None),
            ("eDoK", None),
            ("!", None),
            ("", None),
        ] {
            assert_eq!(read(rest).as_deref(), expected, "{rest}");
        }
    }

    #[test]
    fn finds_api_keys_under_other_schemes() {
        for value in ["Token pck_x", "Bearer  pck_x", "pck_x", "Basic eDpwY2tfeQ==", "Basic  cGNrX3k6"] {
            assert!(smuggles_api_key(&HeaderValue::from_static(value)), "{value}");
        }
        for value in ["Basic eDp5", "Bearer sk_x", "Basic !", "Digest username=\"x\""] {
            assert!(!smuggles_api_key(&HeaderValue::from_static(value)), "{value}");
        }
    }

    #[test]
    fn tells_several_headers_from_one() {
        let two = headers(&[("authorization", "Bearer x"), ("authorization", "Bearer y")]);
        assert_eq!(authorization(&two), Authorization::Several);
    }

    #[test]
    fn finds_tokens_under_other_schemes() {
        let value = HeaderValue::from_static("junk Bearer a.b.c, token: \"d.e.f\"");
        assert_eq!(pieces(value.as_bytes()).collect::<Vec<_>>(), ["a.b.c", "d.e.f"]);
    }
}
