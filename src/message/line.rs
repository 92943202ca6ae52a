//! The request line: which methods are judged at all, and which targets are paths.
//!
//! The pipeline, the `[[tests]]` of a configuration and `explain` all read it here, so that they cannot differ.

use std::fmt;

use http::Method;

use super::path::{PathError, RequestPath};

/// Why a request line can't be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// TRACE and CONNECT are not for a gateway, and no method is spelled in another case: 405.
    Method,
    /// A CONNECT for a protocol that is not known here (RFC 8441, section 4): 501.
    Protocol,
    /// `OPTIONS *` asks the gateway itself.
    OptionsOfServer,
    /// The target is not a path.
    Target(&'static str),
    /// The path is one that applications could read as another.
    Path(PathError),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the method is not for a gateway"),
            Self::Protocol => f.write_str("only a WebSocket can be asked for"),
            Self::OptionsOfServer => f.write_str("the gateway's own options"),
            Self::Target(why) => f.write_str(why),
            Self::Path(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LineError {}

/// What someone writes down to say which request is meant: a path, or a URL of `http` or `https`. Nothing in it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether the URL is `https`; `None`: a path alone.
    pub https: Option<bool>,
    /// Host and port as written; `None`: a path alone.
    pub authority: Option<String>,
    /// The path as it would come.
    pub path: String,
    /// What follows the first `?`.
    pub query: Option<String>,
}

impl Target {
    /// Reads `text`; the error is what is wrong with it.
    ///
    /// # Errors
    /// What is neither a path nor a URL of `http` or `https`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (https, authority, rest) = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
                let https = match scheme.to_ascii_lowercase().as_str() {
                    "http" => false,
                    "https" => true,
                    _ => return Err("only http and https have routes"),
                };
                let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                (Some(https), Some(authority.to_owned()), rest)
            }
            _ if text.starts_with('/') || text == "*" => (None, None, text),
            _ => return Err("neither a path nor a URL"),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        Ok(Self { https, authority, path, query })
    }

    /// Whether a `#` stands in it, which no browser sends.
    pub fn has_fragment(&self) -> bool {
        self.path.contains('#') || self.query.as_ref().is_some_and(|query| query.contains('#'))
    }
}

/// Refuses methods that no route can be asked about.
///
/// # Errors
/// TRACE, CONNECT, and a method of RFC 9110 in another case.
pub fn check_method(method: &Method) -> Result<(), LineError> {
    let refused = matches!(*method, Method::TRACE | Method::CONNECT) || is_misspelt(method);
    if refused { Err(LineError::Method) } else { Ok(()) }
}

/// Reads the target of a request, without its query.
///
/// # Errors
/// What is no path, or one that no application should see. `asks_server` says whether `OPTIONS *` may be asked.
pub fn read_path(raw: &str, method: &Method, asks_server: bool) -> Result<RequestPath, LineError> {
    if raw == "*" {
        return Err(if *method == Method::OPTIONS && asks_server {
            LineError::OptionsOfServer
        } else {
            LineError::Target("the target is not a path")
        });
    }
    RequestPath::parse(raw).map_err(LineError::Path)
}

/// A `#` as it came: a browser never sends one, and applications disagree about what follows.
pub const RAW_FRAGMENT: LineError = LineError::Target("the target has a raw `#`");

/// Whether this is a method of RFC 9110 in another case: to us it is another one, to many applications the same, and so
/// it would go past a route that names methods.
fn is_misspelt(method: &Method) -> bool {
    const STANDARD: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    // Most are one of them as it is written.
    let is_other = |known: &Method| known.as_str().eq_ignore_ascii_case(method.as_str());
    !STANDARD.contains(method) && STANDARD.iter().any(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_could_go_past_a_route_are_refused() {
        for name in ["TRACE", "CONNECT", "get", "Post", "delete"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(check_method(&method), Err(LineError::Method), "{name}");
        }
        for name in ["GET", "PROPFIND", "propfind", "M-SEARCH"] {
            assert_eq!(check_method(&Method::from_bytes(name.as_bytes()).unwrap()), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_url() {
        let read = |text| {
            let Target { https, authority, path, query } = Target::parse(text)?;
            Ok::<_, &str>((https, authority.unwrap_or_default(), path, query.unwrap_or_default()))
        };
        let of = |https, authority: &str, path: &str, query: &str| {
            Ok((https, authority.to_owned(), path.to_owned(), query.to_owned()))
        };
        assert_eq!(read("/a//b?x=/y?z"), of(None, "", "/a//b", "x=/y?z"));
        assert_eq!(read("https://H.example:8443/a?b"), of(Some(true), "H.example:8443", "/a", "b"));
        assert_eq!(read("HTTP://h"), of(Some(false), "h", "/", ""));
        assert_eq!(read("http://h?q"), of(Some(false), "h", "/", "q"));
        assert_eq!(read("/next?to=http://h"), of(None, "", "/next", "to=http://h"));
        assert_eq!(read("*"), of(None, "", "*", ""));
        for bad in ["", "a/b", "h:80/x", "ftp://h/x", "://h"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(Target::parse("/a#b").unwrap().has_fragment() && Target::parse("/a?b#c").unwrap().has_fragment());
        assert!(!Target::parse("/a%23b").unwrap().has_fragment());
    }

    #[test]
    fn a_star_is_the_servers_own() {
        assert_eq!(read_path("*", &Method::OPTIONS, true), Err(LineError::OptionsOfServer));
        for (method, asks_server) in [(Method::OPTIONS, false), (Method::GET, true)] {
            assert_eq!(
                read_path("*", &method, asks_server),
                Err(LineError::Target("the target is not a path")),
                "{method}"
            );
        }
        assert_eq!(read_path("/%00", &Method::GET, true), Err(LineError::Path(PathError::Control)));
        assert_eq!(read_path("/a", &Method::GET, true).unwrap().canonical(), "/a");
    }
}
