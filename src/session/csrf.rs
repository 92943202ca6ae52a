//! Requests that another site made a browser send.
//!
//! No CSRF cookie: browsers say themselves where a request comes from (Fetch Metadata, W3C; `Origin`, RFC 6454).

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};

/// Which origins may send a request on a cookie.
#[derive(Clone, Copy, Debug)]
pub struct Origins<'a> {
    /// The request's own.
    pub own: &'a str,
    /// `public_url`'s.
    pub public: &'a str,
    /// The route's `origins`: other sites that the operator trusts by name.
    pub listed: &'a [String],
}

/// Whether the browser says that the request was made by a page that may, or by nobody's page.
///
/// `Sec-Fetch-Site` decides where it is present: `same-origin` and `none` pass, and another site only with an
/// `Origin` that is listed (every browser sends both, so a listed site could not be let in otherwise).
/// Without it `Origin` must be absent, the request's own, `public_url`'s or listed.
pub fn may_send(headers: &HeaderMap, origins: Origins<'_>) -> bool {
    let (Ok(origin), Ok(site)) = (only(headers, &ORIGIN), only(headers, &SEC_FETCH_SITE)) else { return false };
    let is_listed = |origin: &str| origins.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin));
    match (site, origin) {
        (Some("same-origin" | "none"), _) | (None, None) => true,
        (Some(_), origin) => origin.is_some_and(is_listed),
        (None, Some(origin)) => {
            origin.eq_ignore_ascii_case(origins.own) || origin.eq_ignore_ascii_case(origins.public) || is_listed(origin)
        }
    }
}

/// The one value of a header; `Err` when it stands twice or is not text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OWN: &str = "https://apps.example.com";
    const PUBLIC: &str = "https://login.example.com";
    const LISTED: &str = "https://other.example.com";

    fn judged(fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        may_send(&headers, Origins { own: OWN, public: PUBLIC, listed: &[LISTED.to_owned()] })
    }

    #[test]
    fn lets_pass_what_no_other_site_sent() {
        assert!(judged(&[]));
        assert!(judged(&[("sec-fetch-site", "same-origin"), ("origin", OWN)]));
        assert!(judged(&[("sec-fetch-site", "none")]));
        assert!(judged(&[("origin", OWN)]));
        assert!(judged(&[("origin", "HTTPS://APPS.example.com")]));
        assert!(judged(&[("origin", PUBLIC)]));
        assert!(judged(&[("origin", LISTED)]));
        assert!(judged(&[("sec-fetch-site", "cross-site"), ("origin", LISTED)]));
    }

    #[test]
    fn refuses_other_sites() {
        assert!(!judged(&[("sec-fetch-site", "cross-site")]));
        assert!(!judged(&[("sec-fetch-site", "same-site"), ("origin", "https://evil.example.com")]));
        assert!(!judged(&[("sec-fetch-site", "cross-site"), ("origin", OWN)]));
        assert!(!judged(&[("sec-fetch-site", "same-site"), ("origin", PUBLIC)]));
        assert!(!judged(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
        assert!(!judged(&[("origin", "https://evil")]));
        assert!(!judged(&[("origin", "null")]));
        assert!(!judged(&[("origin", "http://apps.example.com")]));
        assert!(!judged(&[("origin", OWN), ("origin", OWN)]));
    }
}
