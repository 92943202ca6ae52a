//! From a request as it came to the one form that is judged. What an application should not see ends here.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Version};
use hyper::body::Incoming;

use crate::clock::Timestamp;
use crate::message::connection::{ConnInfo, Link};
use crate::message::extended;
use crate::message::forwarded::{Origin, Scheme, Trust};
use crate::message::head::Head;
use crate::message::host::{Host, HostError};
use crate::message::line::{self, LineError};
use crate::message::survey::Fields;
use crate::proxy::framing::{self, FramingFault};

/// A request that can be judged.
#[derive(Debug)]
pub(super) struct Normal {
    /// Its head.
    pub(super) head: Arc<Head>,
    /// The way it came.
    pub(super) origin: Origin,
    /// Its fields, of those that are noted.
    pub(super) fields: Fields,
}

/// Why a request can't be judged.
#[derive(Debug)]
pub(super) enum Malformed {
    /// The request line is none that a route could be asked about.
    Line(LineError),
    /// There is not exactly one host.
    Host(HostError),
    /// The end of the body is in doubt: 400, and the connection ends.
    Framing(FramingFault),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => write!(f, "{error}"),
            Self::Host(error) => write!(f, "{error}"),
            Self::Framing(error) => write!(f, "{error}"),
        }
    }
}

/// Brings `request`, which has no other `fields` than these of those that are noted, into its one form.
///
/// # Errors
/// When it says two things at once, or something that no application should see.
pub(super) fn normalize(
    (request, fields): (&Request<Incoming>, Fields),
    info: &ConnInfo,
    link: &Link,
    trust: &Trust,
    (now, started): (Timestamp, Instant),
) -> Result<Normal, Malformed> {
    if fields.may_have(Fields::TRANSFER_ENCODING.and(Fields::CONTENT_LENGTH)) {
        framing::check(request.headers(), request.version()).map_err(Malformed::Framing)?;
    }
    if link.target_fault() {
        return Err(Malformed::Line(line::RAW_FRAGMENT));
    }
    if extended::is_foreign(request) {
        return Err(Malformed::Line(LineError::Protocol));
    }
    line::check_method(request.method()).map_err(Malformed::Line)?;
    let origin = match info.is_relayed {
        false => trust.read(info.peer.ip(), request.headers()),
        true => Trust::default().read(info.peer.ip(), request.headers()),
    };
    let mut origin = origin.map_err(Malformed::Host)?;
    origin.peer_value = info.peer_value();
    if info.tls.is_some() && origin.scheme.is_none() {
        origin.scheme = Some(Scheme::Https);
    }
    let mut written = None;
    let host = Host::of_request_by(request.uri(), request.headers(), |field| {
        let host;
        (host, written) = info.host(field)?;
        Ok(host)
    });
    let mut host = host.map_err(Malformed::Host)?;
    match &origin.host {
        Some(named) => host = named.clone(),
        None => origin.host_value = written,
    }
    let asks_server = request.version() >= Version::HTTP_11;
    let path = line::read_path(request.uri().path(), request.method(), asks_server).map_err(Malformed::Line)?;
    let head = Head {
        method: request.method().clone(),
        host,
        path,
        query: request.uri().query().map(str::to_owned),
        client: origin.client,
        https: origin.scheme == Some(Scheme::Https),
        // Whoever speaks for others shows its own, which is none of theirs.
        certificate: info.tls.as_ref().filter(|_| !origin.peer_is_trusted).and_then(|tls| tls.client.clone()),
        now,
        started,
    };
    Ok(Normal { head: Arc::new(head), origin, fields })
}
