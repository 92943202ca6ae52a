//! Where a server of an upstream is, and how it is spoken to: `http://`, `https://`, `h2c://` or `unix:`. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::url;
use super::values::Fault;
use crate::diag::{nearest, quoted};

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerAddr {
    /// HTTP/1.1 in the clear.
    Http(HostPort),
    /// TLS; HTTP/2 where the server offers it.
    Https(HostPort),
    /// HTTP/2 in the clear, known beforehand (RFC 9113, section 3.3).
    H2c(HostPort),
    /// HTTP/1.1 over a unix socket.
    Unix(PathBuf),
}

/// A place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// A name or an address (an IPv6 address without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

impl ServerAddr {
    /// Its place, unless it is a unix socket.
    pub fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Http(place) | Self::Https(place) | Self::H2c(place) => Some(place),
            Self::Unix(_) => None,
        }
    }

    /// Whether HTTP/2 is spoken to it, or may be.
    pub fn may_speak_http2(&self) -> bool {
        matches!(self, Self::Https(_) | Self::H2c(_))
    }

    /// Whether it is spoken to over TLS.
    pub fn is_https(&self) -> bool {
        matches!(self, Self::Https(_))
    }
}

/// As a URL without a scheme has it.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// As the configuration has it.
impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(place) => write!(f, "http://{place}"),
            Self::Https(place) => write!(f, "https://{place}"),
            Self::H2c(place) => write!(f, "h2c://{place}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads a server; a relative path of a socket starts at `directory`.
pub(super) fn server(text: &str, directory: &Path) -> Result<ServerAddr, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path, directory).map(ServerAddr::Unix);
    }
    let origin = url::origin(text)?;
    let at =
        |port| HostPort { host: origin.host.trim_matches(['[', ']']).to_owned(), port: origin.port.unwrap_or(port) };
    match origin.scheme.as_str() {
        "http" => Ok(ServerAddr::Http(at(80))),
        "https" => Ok(ServerAddr::Https(at(443))),
        "h2c" => Ok(ServerAddr::H2c(at(80))),
        other => {
            let message = format!("{} is not a scheme that requests can be forwarded by", quoted(other));
            let near = if other == "grpc" { Some("h2c") } else { nearest(other, SCHEMES.iter().copied()) };
            let scheme = near.unwrap_or("http");
            let help = format!("write \"{scheme}://{}\"; known are http, https, h2c and unix:/path", origin.host);
            Err(Fault::new(message, "not a known scheme", help))
        }
    }
}

fn socket(path: &str, directory: &Path) -> Result<PathBuf, Fault> {
    let fault = |message: String, label| Err(Fault::new(message, label, "write \"unix:/run/app.sock\""));
    // What `unix://path` would mean nobody agrees on; three slashes are an absolute path to everyone.
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => return fault(format!("{} names a host", quoted(path)), "has two slashes"),
        None => path,
    };
    if path.is_empty() || path.contains('\0') {
        return fault(format!("{} is not a path", quoted(path)), "not a path");
    }
    let path = directory.join(path);
    if path.as_os_str().len() > LONGEST_PATH {
        let message = format!("a unix socket's path has at most {LONGEST_PATH} bytes");
        return Err(Fault::new(
            message,
            "too long",
            "move the socket to a shorter path, such as \"unix:/run/app.sock\"",
        ));
    }
    Ok(path)
}

const SCHEMES: &[&str] = &["http", "https", "h2c"];

/// What `sockaddr_un` has room for, less the zero at its end (unix(7)).
const LONGEST_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_as_it_was_read() {
        for (text, shown) in [
            ("http://App", "http://app:80"),
            ("https://app", "https://app:443"),
            ("HTTPS://[::1]:8443/", "https://[::1]:8443"),
            ("h2c://10.0.0.1:50051", "h2c://10.0.0.1:50051"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
            ("unix:app.sock", "unix:/etc/gate/app.sock"),
        ] {
            let server = server(text, Path::new("/etc/gate")).unwrap();
            assert_eq!(server.to_string(), shown, "{text}");
            assert_eq!(server.host_port().is_none(), text.starts_with("unix:"));
        }
    }

    #[test]
    fn what_can_be_no_server_is_refused() {
        let long = format!("unix:/{}", "x".repeat(LONGEST_PATH));
        for text in ["ftp://a", "grpc://a", "unix:", "unix://host/path", "unix:/a\0b", "https://a/b", "app", &long] {
            assert!(server(text, Path::new("/")).is_err(), "{text}");
        }
    }
}
