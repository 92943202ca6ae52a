//! What a request shows to be let in, read and not believed. Tokens are read from headers only, never from a URL or a body.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::config::Accept;
use crate::message::cookie;

/// What a request shows, as the accepting route reads it.
#[derive(Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing of ours.
    None,
    /// `Authorization: Bearer …` on a route that accepts it. The text is anything at all.
    Bearer(&'a str),
    /// One or several cookies of our name, on a route that accepts them.
    Cookies(Vec<&'a [u8]>),
}

/// The `Authorization` header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization<'a> {
    /// None.
    Absent,
    /// One, with the scheme and what follows it.
    One {
        /// As written; compared without regard to case.
        scheme: &'a str,
        /// What follows the space, untouched.
        rest: &'a str,
    },
    /// One that is not text.
    Unreadable,
    /// Several: nobody can say which one counts.
    Several,
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
    let Ok(text) = value.to_str() else { return Authorization::Unreadable };
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    Authorization::One { scheme, rest }
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

/// The pieces of an `Authorization` of another scheme that could be a token of ours, smuggled past under a foreign name.
pub(super) fn token_like(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or("");
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.+/=".contains(c)))
        .filter(|piece| piece.matches('.').count() >= 2)
}

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
        format!("{:?}", extract(&headers, authorization(&headers), accept, "portcullis"))
    }

    #[test]
    fn authorization_decides_where_the_route_accepts_its_scheme() {
        let both = [("authorization", "bEARER x"), ("cookie", "portcullis=k")];
        assert_eq!(of(&both, BOTH), r#"Bearer("x")"#);
        assert_eq!(of(&both, Accept { bearer: false, cookie: true }), "Cookies([[107]])");
        assert_eq!(of(&both, Accept { bearer: false, cookie: false }), "None");
    }

    #[test]
    fn another_scheme_is_not_ours() {
        assert_eq!(of(&[("authorization", "junk Bearer x"), ("cookie", "portcullis=k")], BOTH), "Cookies([[107]])");
        assert_eq!(of(&[("authorization", "Basic eDp5")], BOTH), "None");
    }

    #[test]
    fn tells_several_headers_from_one() {
        let two = headers(&[("authorization", "Bearer x"), ("authorization", "Bearer y")]);
        assert_eq!(authorization(&two), Authorization::Several);
    }

    #[test]
    fn finds_tokens_under_other_schemes() {
        let value = HeaderValue::from_static("junk Bearer a.b.c, token: \"d.e.f\"");
        assert_eq!(token_like(&value).collect::<Vec<_>>(), ["a.b.c", "d.e.f"]);
    }
}
