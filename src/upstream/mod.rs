//! Where requests go: named upstreams, their servers, and the connections to them.
//!
//! A [`Backend`] is one server and shared by all workers; an [`Upstream`] is a worker's own client of it.

mod backend;
mod connect;
mod dns;
pub mod fetch;
mod flight;
mod multiplex;
mod send;
mod stream;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, InvalidUri, InvalidUriParts, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;

pub use backend::{Admission, Backend, Refused};
pub use connect::{ConnectError, Stale};
pub(crate) use send::{SendError, beneath};
pub use tls::{TlsFault, verify};

use crate::config::{ServerAddr, Timeouts};
use crate::message::body::Body;
use multiplex::Turn;
use send::Sender;

/// One worker's client of an upstream.
#[derive(Debug)]
pub struct Upstream {
    backend: Arc<Backend>,
    sender: Sender,
}

impl Upstream {
    /// A client of `backend` for one of `workers` workers.
    pub fn new(backend: Arc<Backend>, workers: usize) -> Self {
        let sender = Sender::new(&backend, workers);
        Self { backend, sender }
    }

    /// The server behind it.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Its timeouts.
    pub fn timeouts(&self) -> &Timeouts {
        self.backend.timeouts()
    }

    /// The absolute form of `target` at this upstream.
    ///
    /// # Errors
    /// Never for a target that was parsed; the types don't say so.
    pub(crate) fn uri(&self, target: PathAndQuery) -> Result<Uri, InvalidUriParts> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.backend.authority().clone());
        parts.path_and_query = Some(target);
        Uri::from_parts(parts)
    }

    /// Sends `request`, over a connection that is there or a new one.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        self.sender.send(request).await
    }
}

/// What an answer over HTTP/2 holds on to in its extensions: its place on the connection, to be kept while it streams.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    _turn: Arc<Turn>,
}

impl Held {
    fn of(turn: Turn) -> Self {
        Self { _turn: Arc::new(turn) }
    }
}

/// Why nothing can be sent to a server.
#[derive(Debug)]
pub enum BackendFault {
    /// It can't stand in a URI.
    Address(InvalidUri),
    /// No TLS can come about.
    Tls(TlsFault),
}

impl fmt::Display for BackendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(source) => write!(f, "not an address: {source}"),
            Self::Tls(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for BackendFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(source) => Some(source),
            Self::Tls(source) => Some(source),
        }
    }
}

/// The authority of a server in a URI. A socket has none, and nobody sees the one that stands for it.
pub(crate) fn authority(server: &ServerAddr) -> Result<Authority, InvalidUri> {
    server.host_port().map_or_else(|| "localhost".to_owned(), ToString::to_string).parse()
}

/// What may be buffered of an answer; also the most that its head may have.
const BUFFER: usize = 64 * 1024;

/// The longest that a request waits for its turn, whatever the upstream's timeouts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
