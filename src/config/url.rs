//! URLs that name a server and nothing else: `public_url`, upstreams, origins. Pure.

use std::net::Ipv6Addr;

use super::values::Fault;
use crate::diag::quoted;

/// `scheme://host:port`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// `http`, `https`, …
    pub(super) scheme: String,
    /// A name or an address; an IPv6 address in brackets.
    pub(super) host: String,
    /// The port, if it is written.
    pub(super) port: Option<u16>,
}

/// Reads `scheme://host` or `scheme://host:port`; a lone `/` behind it is let pass.
pub(super) fn origin(text: &str) -> Result<Origin, Fault> {
    let fault = |message: String, label, help: &str| Err(Fault::new(message, label, help));
    let Some((scheme, rest)) = text.split_once("://") else {
        let help = format!("write \"http://{}\"", text.trim_start_matches('/'));
        return fault(format!("{} has no scheme", quoted(text)), "no scheme", &help);
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return fault(
            "a URL here names no user".to_owned(),
            "has a user or a password",
            "remove what stands before the `@`",
        );
    }
    if !matches!(path, "" | "/") {
        let help = format!("write \"{scheme}://{authority}\"");
        return fault(
            format!("{} is more than a scheme, a host and a port", quoted(text)),
            "has a path or a query",
            &help,
        );
    }
    let (host, port) = split_port(authority);
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => {
            return fault(
                format!("{} has no valid port", quoted(text)),
                "bad port",
                "a port is a number from 1 to 65535",
            );
        }
    };
    let host = host.to_ascii_lowercase();
    if !is_host(&host) {
        return fault(
            format!("{} has no valid host", quoted(text)),
            "bad host",
            "write a host name or an address; an IPv6 address in [ ]",
        );
    }
    Ok(Origin { scheme: scheme.to_ascii_lowercase(), host, port })
}

/// Whether `host` is a name in lower case, an IPv4 address or an IPv6 address in brackets.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(plain);
    host.len() <= 253 && host.split('.').all(label)
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let bracket = authority.rfind(']').unwrap_or(0);
    match authority[bracket..].rfind(':') {
        Some(colon) => (&authority[..bracket + colon], Some(&authority[bracket + colon + 1..])),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scheme_host_and_port() {
        let read = |text| origin(text).map(|origin| (origin.scheme, origin.host, origin.port)).unwrap();
        assert_eq!(read("http://127.0.0.1:8080"), ("http".into(), "127.0.0.1".into(), Some(8080)));
        assert_eq!(read("HTTPS://Apps.Example.com/"), ("https".into(), "apps.example.com".into(), None));
        assert_eq!(read("http://[::1]:80"), ("http".into(), "[::1]".into(), Some(80)));
        assert_eq!(read("http://my_app"), ("http".into(), "my_app".into(), None));
    }

    #[test]
    fn refuses_all_that_is_more_or_less() {
        let bad =
            ["", "app", "app:3000", "http://", "http://a/b", "http://a?x", "http://a#x", "http://u:p@a", "http://a:"];
        let more = [
            "http://a:0",
            "http://a:99999",
            "http://a:x",
            "http://a b",
            "http://::1",
            "http://[::1",
            "http://a..b",
            "http://ä",
        ];
        for text in bad.iter().chain(&more) {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
