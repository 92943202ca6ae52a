//! The one host of a request: `Host` and the target's authority must say the same (RFC 9112 section 3.2).
//!
//! Hosts are compared in lower case, without port and without a trailing dot.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};

/// A host in normal form, with the port that was written beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: Arc<str>,
    port: Option<u16>,
}

/// The `Host` field that most requests of a connection have, written as we would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    text: HeaderValue,
    host: Host,
}

impl Field {
    /// That of `text`, which says `host`. `None`: we would write it otherwise.
    pub(super) fn of(text: &HeaderValue, host: &Host) -> Option<Self> {
        // A copy, as the other shares its memory with all of the head.
        let copy = || HeaderValue::from_bytes(text.as_bytes()).ok();
        let text = host.is_written(text.as_bytes()).then(copy).flatten()?;
        Some(Self { text, host: host.clone() })
    }

    /// The host and its text, if that is `text`.
    pub(super) fn says(&self, text: &HeaderValue) -> Option<(Host, HeaderValue)> {
        (self.text == text).then(|| (self.host.clone(), self.text.clone()))
    }
}

/// Why a request has no one host. All of them are answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// No `Host`.
    Missing,
    /// More than one `Host`.
    Several,
    /// What is no host name or address, with an optional port.
    Invalid,
    /// A user before the host.
    UserInfo,
    /// `Host` and the target of the request differ.
    Differs,
    /// A target that is neither a path nor an `http` or `https` URI.
    Target,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the request has no host",
            Self::Several => "the request has more than one host",
            Self::Invalid => "the host is no valid name or address",
            Self::UserInfo => "the host has a user before it",
            Self::Differs => "the host differs from that of the request target",
            Self::Target => "the request target is neither a path nor an http URI",
        })
    }
}

impl std::error::Error for HostError {}

impl Host {
    /// The host of a request.
    ///
    /// # Errors
    /// No host, several, one that is malformed, or two that differ.
    pub fn of_request(uri: &Uri, headers: &HeaderMap) -> Result<Self, HostError> {
        Self::of_request_by(uri, headers, |field| Self::parse(field.as_bytes()))
    }

    /// The same where `read` knows what a `Host` field says.
    pub(crate) fn of_request_by(
        uri: &Uri,
        headers: &HeaderMap,
        read: impl FnOnce(&HeaderValue) -> Result<Self, HostError>,
    ) -> Result<Self, HostError> {
        let mut fields = headers.get_all(HOST).iter();
        let field = fields.next().ok_or(HostError::Missing)?;
        if fields.next().is_some() {
            return Err(HostError::Several);
        }
        let host = read(field)?;
        if let Some(authority) = uri.authority() {
            let default = match uri.scheme_str() {
                Some("http") => 80,
                Some("https") => 443,
                _ => return Err(HostError::Target),
            };
            if authority.as_str().as_bytes() == field.as_bytes() {
                return Ok(host);
            }
            let target = Self::parse(authority.as_str().as_bytes())?;
            let port = |host: &Self| host.port.unwrap_or(default);
            if target.name != host.name || port(&target) != port(&host) {
                return Err(HostError::Differs);
            }
        }
        Ok(host)
    }

    /// Reads the value of a `Host` field, or the authority of a URI.
    ///
    /// # Errors
    /// What is no host with an optional port.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        Self::plain(text).map_or_else(|| Self::parse_any(text), Ok)
    }

    /// A host as most are written, read in one pass: a name without a dot at its end, and a port without zeros in front.
    /// `None`: it is another, or none.
    fn plain(text: &[u8]) -> Option<Self> {
        let mut is_in_label = false;
        let mut end = text.len();
        for (at, byte) in text.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => is_in_label = true,
                b'.' if is_in_label => is_in_label = false,
                b':' => {
                    end = at;
                    break;
                }
                _ => return None,
            }
        }
        let (name, rest) = text.split_at_checked(end).filter(|(name, _)| is_in_label && name.len() <= LONGEST)?;
        let port = match rest.split_first() {
            None => None,
            Some((_, digits)) => Some(plain_port(digits)?),
        };
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        Some(Self { name: name.into(), port })
    }

    fn parse_any(text: &[u8]) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Missing);
        }
        if text.contains(&b'@') {
            return Err(HostError::UserInfo);
        }
        let text = std::str::from_utf8(text).map_err(|_| HostError::Invalid)?;
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(HostError::Invalid)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Invalid)?;
            let port = rest.strip_prefix(':').map(parse_port).transpose()?;
            if port.is_none() && !rest.is_empty() {
                return Err(HostError::Invalid);
            }
            return Ok(Self { name: format!("[{address}]").into(), port });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(parse_port(port)?)),
            None => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if !is_name(name) {
            return Err(HostError::Invalid);
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), port })
    }

    /// The host in lower case, without port and trailing dot; an IPv6 address in brackets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `text` is the host as [`fmt::Display`] writes it.
    pub(super) fn is_written(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(self.name.as_bytes()) else { return false };
        match self.port {
            None => rest.is_empty(),
            // As it was parsed, but for zeros in front.
            Some(port) => rest.strip_prefix(b":").and_then(plain_port) == Some(port),
        }
    }

    /// The port, if one is written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A port as it is written here: digits without zeros in front.
fn plain_port(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || digits.first().is_none_or(|first| *first == b'0') {
        return None;
    }
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    let port = digits.iter().try_fold(0, |port, byte| Some(port * 10 + digit(byte)?))?;
    u16::try_from(port).ok()
}

/// Digits only: the parser of the standard library would take a sign.
fn parse_port(text: &str) -> Result<u16, HostError> {
    let port = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    port.filter(|port| *port != 0).ok_or(HostError::Invalid)
}

/// Labels of letters, digits, `-` and `_`; the underscore is no part of a host name, but is used in container networks.
fn is_name(name: &str) -> bool {
    let mut is_in_label = false;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => is_in_label = true,
            b'.' if is_in_label => is_in_label = false,
            _ => return false,
        }
    }
    name.len() <= LONGEST && is_in_label
}

/// More bytes no name has (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Result<String, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        Host::of_request(&target.parse().unwrap(), &headers).map(|host| host.to_string())
    }

    #[test]
    fn brings_a_host_into_normal_form() {
        let cases = [
            ("APP.Example.com", "app.example.com", None),
            ("app.example.com.", "app.example.com", None),
            ("app.example.com.:443", "app.example.com", Some(443)),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]", "[::1]", None),
            ("[0:0::1]:080", "[::1]", Some(80)),
            ("my_app", "my_app", None),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ];
        for (text, name, port) in cases {
            let host = Host::parse(text.as_bytes()).unwrap();
            assert_eq!((host.name(), host.port()), (name, port), "{text}");
            assert_eq!(host.is_written(text.as_bytes()), host.to_string() == text, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        let invalid: [&[u8]; 26] = [
            b".",
            b"..",
            b"h..",
            b".h",
            b"a..b",
            b"a,b",
            b"a, b",
            b"h/path",
            b"h?q",
            b"h#f",
            b"h:",
            b"h:0",
            b"h:+80",
            b"h:99999",
            b"h:80a",
            b"h:80:80",
            b"[::1",
            b"[::1]x",
            b"[::1]:",
            b"[]",
            b"[h]",
            b"::1",
            b"h ",
            b"h\\x",
            "bücher.example".as_bytes(),
            b"h%41",
        ];
        for text in invalid {
            assert_eq!(Host::parse(text), Err(HostError::Invalid), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(Host::parse(b""), Err(HostError::Missing));
        assert_eq!(Host::parse(b"user@h"), Err(HostError::UserInfo));
        assert_eq!(Host::parse(&[b'a'; 254]), Err(HostError::Invalid));
        assert_eq!(Host::parse(&[0xff]), Err(HostError::Invalid));
    }

    #[test]
    fn a_request_has_one_host() {
        assert_eq!(request("/", &[]), Err(HostError::Missing));
        assert_eq!(request("/", &[""]), Err(HostError::Missing));
        assert_eq!(request("/", &["a", "a"]), Err(HostError::Several));
        assert_eq!(request("/", &["A:80"]), Ok("a:80".into()));
        assert_eq!(request("http://a/", &["a:80"]), Ok("a:80".into()));
        assert_eq!(request("https://A.:443/", &["a"]), Ok("a".into()));
        assert_eq!(request("http://a:81/", &["a"]), Err(HostError::Differs));
        assert_eq!(request("http://evil/", &["a"]), Err(HostError::Differs));
        assert_eq!(request("http://u@a/", &["a"]), Err(HostError::UserInfo));
        assert_eq!(request("http://a/", &[]), Err(HostError::Missing));
        assert_eq!(request("ftp://a/", &["a"]), Err(HostError::Target));
        assert_eq!(request("a", &["a"]), Err(HostError::Target));
    }

    proptest! {
        /// What is read in one pass is what the other readers make of it.
        #[test]
        fn a_plain_host_is_no_other(text in "[aB0._-]{0,4}[a-zA-Z0-9_.-]{0,8}(:[0-9a+]{0,6})?(|[.:@ /])") {
            let text = text.as_bytes();
            if let Some(host) = Host::plain(text) {
                prop_assert_eq!(Ok(host), Host::parse_any(text));
            }
        }
    }

    #[test]
    fn most_hosts_are_plain() {
        for text in ["app.example.com", "APP.Example.com:8443", "127.0.0.1:80", "localhost", "my_app:65535"] {
            assert!(Host::plain(text.as_bytes()).is_some(), "{text}");
        }
        for text in
            ["", ".", "a..b", "a.", "a:", "a:0", "a:080", "a:65536", "a:99999", "a:+1", "[::1]", "a@b", "a b", "é"]
        {
            assert!(Host::plain(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Host::plain(&[b'a'; 253]).is_some() && Host::plain(&[b'a'; 254]).is_none());
    }
}
