//! From a request as it came to the one form that is judged. What an application should not see ends here.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, Version};
use hyper::body::Incoming;

use crate::clock::Timestamp;
use crate::message::connection::{ConnInfo, Link};
use crate::message::forwarded::{Origin, Scheme, Trust};
use crate::message::head::Head;
use crate::message::host::{Host, HostError};
use crate::message::path::{PathError, RequestPath};
use crate::proxy::framing::{self, FramingFault};

/// A request that can be judged.
#[derive(Debug)]
pub(super) struct Normal {
    /// Its head.
    pub(super) head: Arc<Head>,
    /// The way it came.
    pub(super) origin: Origin,
}

/// Why a request can't be judged.
#[derive(Debug)]
pub(super) enum Malformed {
    /// TRACE and CONNECT are not for a gateway, and no method is spelled in another case: 405.
    Method,
    /// `OPTIONS *` asks the gateway itself.
    OptionsOfServer,
    /// The target is not a path.
    Target(&'static str),
    /// The path is one that applications could read as another.
    Path(PathError),
    /// There is not exactly one host.
    Host(HostError),
    /// The end of the body is in doubt: 400, and the connection ends.
    Framing(FramingFault),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the method is not for a gateway"),
            Self::OptionsOfServer => f.write_str("the gateway's own options"),
            Self::Target(why) => f.write_str(why),
            Self::Path(error) => write!(f, "{error}"),
            Self::Host(error) => write!(f, "{error}"),
            Self::Framing(error) => write!(f, "{error}"),
        }
    }
}

/// Brings `request` into its one form.
///
/// # Errors
/// When it says two things at once, or something that no application should see.
pub(super) fn normalize(
    request: &Request<Incoming>,
    info: &ConnInfo,
    link: &Link,
    trust: &Trust,
    (now, started): (Timestamp, Instant),
) -> Result<Normal, Malformed> {
    framing::check(request.headers(), request.version()).map_err(Malformed::Framing)?;
    if link.target_fault() {
        return Err(Malformed::Target("the target has a raw `#`"));
    }
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) || is_misspelt(request.method()) {
        return Err(Malformed::Method);
    }
    let origin = trust.read(info.peer.ip(), request.headers()).map_err(Malformed::Host)?;
    let host = Host::of_request(request.uri(), request.headers()).map_err(Malformed::Host)?;
    let host = origin.host.clone().unwrap_or(host);
    let raw = request.uri().path();
    if raw == "*" {
        let is_options = *request.method() == Method::OPTIONS && request.version() == Version::HTTP_11;
        return Err(if is_options {
            Malformed::OptionsOfServer
        } else {
            Malformed::Target("the target is not a path")
        });
    }
    let path = RequestPath::parse(raw).map_err(Malformed::Path)?;
    let head = Head {
        method: request.method().clone(),
        host,
        path,
        query: request.uri().query().map(str::to_owned),
        client: origin.client,
        https: origin.scheme == Some(Scheme::Https),
        now,
        started,
    };
    Ok(Normal { head: Arc::new(head), origin })
}

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
    STANDARD.iter().any(|known| known != method && known.as_str().eq_ignore_ascii_case(method.as_str()))
}
