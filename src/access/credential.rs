//! What a request shows to be let in, read and not believed. Tokens are read from headers only, never from a URL or a body.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::config::Accept;
use crate::message::cookie;

/// What a request shows, as the accepting route reads it.
#[derive(PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing of ours.
    None,
    /// `Authorization: Bearer …` on a route that accepts it. The text is anything at all.
    Bearer(&'a str),
    /// One or several cookies of our name, on a route that accepts them.
    Cookies(Vec<&'a [u8]>),
}

/// The `Authorization` header of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// None.
    Absent,
    /// One, with the scheme and what follows it.
    One {
        /// As written; compared without regard to case.
        scheme: &'a str,
        /// What follows the spaces, untouched; nothing where it is not text.
        rest: &'a str,
    },
    /// Several: nobody can say which one counts.
    Several,
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bearer(_) => f.write_str("Bearer"),
            Self::Cookies(values) => write!(f, "Cookies({})", values.len()),
        }
    }
}

impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::One { scheme, .. } => write!(f, "One({scheme:?})"),
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
    let (scheme, rest) = bytes.split_at(bytes.iter().position(|&byte| byte == b' ').unwrap_or(bytes.len()));
    let text = |bytes| std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).unwrap_or("");
    Authorization::One { scheme: text(scheme), rest: text(rest.trim_ascii_start()) }
}

/// The credential that counts: `Authorization` if the route accepts its scheme, else the cookie.
pub fn extract<'a>(
    headers: &'a HeaderMap,
    seen: Authorization<'a>,
    accept: Accept,
    cookie_name: &'a str,
) -> Credential<'a> {
    match seen {
        Authorization::One { scheme, rest } if accept.bearer && is_bearer(scheme) => Credential::Bearer(rest),
        _ if accept.cookie => {
            let cookies: Vec<&[u8]> = cookie::values(headers, cookie_name).collect();
            if cookies.is_empty() { Credential::None } else { Credential::Cookies(cookies) }
        }
        _ => Credential::None,
    }
}

/// Whether `scheme` is Bearer (RFC 6750), in any case.
pub(super) fn is_bearer(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("bearer")
}

/// Whether an `Authorization` of another scheme holds something for which `is_ours` holds: a token smuggled past under a
/// foreign name, or given as the name or the password of Basic, as many tools do.
pub(super) fn hides(value: &HeaderValue, is_ours: impl Fn(&str) -> bool) -> bool {
    if pieces(value.as_bytes()).any(&is_ours) {
        return true;
    }
    let Authorization::One { scheme, rest } = split(value) else { return false };
    scheme.eq_ignore_ascii_case("basic")
        && BASIC.decode(rest.trim_end()).is_ok_and(|plain| pieces(&plain).any(&is_ours))
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

    const BOTH: Accept = Accept { bearer: true, cookie: true };

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
            Credential::Bearer(token) => format!("bearer {token}"),
            Credential::Cookies(values) => format!("cookies {}", values.join(&b',').escape_ascii()),
        }
    }

    #[test]
    fn authorization_decides_where_the_route_accepts_its_scheme() {
        let both = [("authorization", "bEARER x"), ("cookie", "portcullis=k")];
        assert_eq!(of(&both, BOTH), "bearer x");
        assert_eq!(of(&both, Accept { bearer: false, cookie: true }), "cookies k");
        assert_eq!(of(&both, Accept { bearer: false, cookie: false }), "none");
    }

    #[test]
    fn another_scheme_is_not_ours() {
        assert_eq!(of(&[("authorization", "junk Bearer x"), ("cookie", "portcullis=k")], BOTH), "cookies k");
        assert_eq!(of(&[("authorization", "Basic eDp5")], BOTH), "none");
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
