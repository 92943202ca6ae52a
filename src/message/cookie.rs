//! The gateway's own cookie: read, made, cleared, and kept from applications (RFC 6265).
//!
//! An application's cookies pass byte for byte; nothing here decodes or unquotes a value.

use std::fmt;
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// The values of the cookie `name` in every `Cookie` field, in the order sent. Names are compared exactly.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|&byte| byte == b';')).filter_map(
        move |pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value)
        },
    )
}

/// Removes the cookies called one of `names` from every `Cookie` field, with blanks around the name as well; the
/// others stay byte for byte. Says whether there was any.
pub fn remove(headers: &mut HeaderMap, names: &[&str]) -> bool {
    let is_ours = |pair: &[u8]| names.iter().any(|name| cookie_name(pair) == name.as_bytes());
    let pairs = |field: &HeaderValue| field.as_bytes().split(|&byte| byte == b';').any(is_ours);
    if !headers.get_all(COOKIE).iter().any(pairs) {
        return false;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|field| {
            if !pairs(field) {
                return Some(field.clone());
            }
            let others: Vec<&[u8]> =
                field.as_bytes().split(|&byte| byte == b';').filter(|pair| !is_ours(pair)).collect();
            let others = others.join(&b';');
            let others = others.trim_ascii_start();
            if others.is_empty() { None } else { HeaderValue::from_bytes(others).ok() }
        })
        .collect();
    headers.remove(COOKIE);
    for field in kept {
        headers.append(COOKIE, field);
    }
    true
}

/// Whether a `Set-Cookie` field would make a browser send a cookie called `name`.
pub fn sets(field: &HeaderValue, name: &str) -> bool {
    let pair = field.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    // `=name=value` is a cookie without a name, which a browser sends back as `name=value`.
    let start = pair.iter().position(|&byte| byte != b'=' && !byte.is_ascii_whitespace()).unwrap_or(pair.len());
    cookie_name(&pair[start..]) == name.as_bytes()
}

/// Removes every `Set-Cookie` of one of `names` from an answer; says whether there was any.
pub fn remove_set_cookie(headers: &mut HeaderMap, names: &[&str]) -> bool {
    let is_ours = |field: &HeaderValue| names.iter().any(|name| sets(field, name));
    if !headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return false;
    }
    let kept: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().filter(|field| !is_ours(field)).cloned().collect();
    headers.remove(SET_COOKIE);
    for field in kept {
        headers.append(SET_COOKIE, field);
    }
    true
}

/// What the gateway's cookie is called and where it counts.
#[derive(Clone, Debug)]
pub struct OurCookie {
    name: Box<str>,
    attributes: Box<str>,
    cleared: HeaderValue,
}

/// A name, a value or a domain that cannot stand in a `Set-Cookie` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCookie;

impl fmt::Display for InvalidCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cookie cannot hold this")
    }
}

impl std::error::Error for InvalidCookie {}

impl OurCookie {
    /// The cookie `name`, its prefix included; with `domain` it counts on every host of that.
    ///
    /// # Errors
    /// A name that is no token, a domain that is no host name, or a prefix that the other two contradict: a browser
    /// would drop such a cookie without a word.
    pub fn new(name: &str, secure: bool, domain: Option<&str>) -> Result<Self, InvalidCookie> {
        let token = !name.is_empty() && name.bytes().all(is_token);
        let host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let domain_fits = domain.is_none_or(|domain| !domain.is_empty() && domain.bytes().all(host));
        let prefix_fits = (secure || !(name.starts_with("__Host-") || name.starts_with("__Secure-")))
            && !(name.starts_with("__Host-") && domain.is_some());
        if !token || !domain_fits || !prefix_fits {
            return Err(InvalidCookie);
        }
        let domain = domain.map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        let secure = if secure { "; Secure" } else { "" };
        let attributes = format!("; Path=/{domain}; HttpOnly; SameSite=Lax{secure}");
        let cleared = HeaderValue::try_from(format!("{name}={attributes}; Max-Age=0")).map_err(|_| InvalidCookie)?;
        Ok(Self { name: name.into(), attributes: attributes.into(), cleared })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The field that sets it; without `max_age` it ends with the browser's session.
    ///
    /// # Errors
    /// A value with bytes that no cookie can have.
    pub fn set(&self, value: &str, max_age: Option<Duration>) -> Result<HeaderValue, InvalidCookie> {
        if value.is_empty() || !value.bytes().all(is_cookie_octet) {
            return Err(InvalidCookie);
        }
        let max_age = max_age.map(|span| format!("; Max-Age={}", span.as_secs())).unwrap_or_default();
        HeaderValue::try_from(format!("{}={value}{}{max_age}", self.name, self.attributes)).map_err(|_| InvalidCookie)
    }

    /// The field that clears it.
    pub fn clear(&self) -> HeaderValue {
        self.cleared.clone()
    }

    /// Its values in a request; see [`values`].
    pub fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        values(headers, &self.name)
    }
}

/// The name of a pair, without blanks around it; of a pair without `=`, the whole.
fn cookie_name(pair: &[u8]) -> &[u8] {
    pair.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 6265 section 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (COOKIE, HeaderValue::from_bytes(field.as_bytes()).unwrap())).collect()
    }

    fn read(fields: &[&str]) -> Vec<String> {
        let headers = request(fields);
        values(&headers, "gw").map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    #[test]
    fn reads_every_value_of_its_name() {
        let cases: [(&[&str], &[&str]); 12] = [
            (&[], &[]),
            (&["gw=x; gw=y"], &["x", "y"]),
            (&["a=b", "c=d; gw=x", "gw=y"], &["x", "y"]),
            (&["a=b;gw=x;c"], &["x"]),
            (&["gw=\"y\""], &["\"y\""]),
            (&["GW=x"], &[]),
            (&["gw =z"], &[]),
            (&["=z", "gw", "=gw=x", "gwx=1", "xgw=1"], &[]),
            (&["gw="], &[""]),
            (&["gw=a=b=="], &["a=b=="]),
            (&["  gw=x  ;\tgw=y"], &["x", "y"]),
            (&["a=\"; gw=x; b=\""], &["x"]),
        ];
        for (fields, expected) in cases {
            assert_eq!(read(fields), expected, "{fields:?}");
        }
        let many = vec!["a=b; gw=x"; 1000].join("; ");
        assert_eq!(read(&[&many]).len(), 1000);
        assert_eq!(read(&[&format!("gw={}", "x".repeat(65_536))])[0].len(), 65_536);
    }

    #[test]
    fn removes_only_its_own() {
        let cases: [(&[&str], &[&str]); 9] = [
            (&["gw=x"], &[]),
            (&["gw=x; a=b"], &["a=b"]),
            (&["a=b; gw=x"], &["a=b"]),
            (&["a=b;  c=\"d; gw=x;e"], &["a=b;  c=\"d;e"]),
            (&["a=b", "gw=x; gw=y", "c=d; gw =z"], &["a=b", "c=d"]),
            (&["gw", "old=1; a"], &["a"]),
            (&["a=b;  ; =z;c"], &["a=b;  ; =z;c"]),
            (&["GW=x; gwx=1"], &["GW=x; gwx=1"]),
            (&["gw=x;", "gw=y; "], &[]),
        ];
        for (fields, expected) in cases {
            let mut headers = request(fields);
            let removed = remove(&mut headers, &["gw", "old"]);
            assert_eq!(headers, request(expected), "{fields:?}");
            assert_eq!(removed, fields != expected, "{fields:?}");
        }
    }

    #[test]
    fn knows_what_sets_it() {
        for ours in ["gw=x", "gw=", " gw = x; Path=/", "\tgw=x", "=gw=x", " = gw=x", "==gw=x", "gw", "gw; Path=/"] {
            assert!(sets(&HeaderValue::try_from(ours).unwrap(), "gw"), "{ours}");
        }
        for other in ["gwx=1", "a=gw=x", "a=b; gw=x", "", "=", ";gw=x", "GW=x"] {
            assert!(!sets(&HeaderValue::try_from(other).unwrap(), "gw"), "{other}");
        }
        let fields = ["a=b; Path=/", "gw=evil", "c=d"];
        let mut headers: HeaderMap = fields.iter().map(|field| (SET_COOKIE, HeaderValue::from_static(field))).collect();
        assert!(remove_set_cookie(&mut headers, &["gw"]));
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["a=b; Path=/", "c=d"]);
        assert!(!remove_set_cookie(&mut headers, &["gw"]));
    }

    #[test]
    fn is_made_as_a_browser_wants_it() {
        let cookie = OurCookie::new("__Host-gw", true, None).unwrap();
        assert_eq!(cookie.set("k-1_2", None).unwrap(), "__Host-gw=k-1_2; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(
            cookie.set("k", Some(Duration::from_secs(60))).unwrap(),
            "__Host-gw=k; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60"
        );
        assert_eq!(cookie.clear(), "__Host-gw=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0");
        let cookie = OurCookie::new("gw", false, Some("example.com")).unwrap();
        assert_eq!(cookie.set("k", None).unwrap(), "gw=k; Path=/; Domain=example.com; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn refuses_what_a_browser_would_drop() {
        for (name, secure, domain) in [
            ("", true, None),
            ("g w", true, None),
            ("g;w", true, None),
            ("gw", true, Some("")),
            ("gw", true, Some("a;b")),
            ("__Host-gw", false, None),
            ("__Secure-gw", false, Some("h")),
            ("__Host-gw", true, Some("h")),
        ] {
            assert!(OurCookie::new(name, secure, domain).is_err(), "{name} {domain:?}");
        }
        let cookie = OurCookie::new("gw", true, None).unwrap();
        for value in ["", "a b", "a;b", "a,b", "a\"", "a\r\n", "é", "\\"] {
            assert_eq!(cookie.set(value, None), Err(InvalidCookie), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_removed_is_read_no_more(field in "[gw=; \t\"ab,]{0,40}") {
            let mut headers = request(&[&field]);
            let before = values(&headers, "gw").count();
            let removed = remove(&mut headers, &["gw"]);
            prop_assert_eq!(values(&headers, "gw").count(), 0);
            prop_assert!(removed || before == 0);
        }
    }
}
