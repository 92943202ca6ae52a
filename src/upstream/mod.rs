//! Where requests go: named upstreams, their servers, and the connections to them.
//!
//! A [`Backend`] is one server and shared by all workers; an [`Upstream`] is a worker's own client of it.

mod backend;
mod connect;
pub mod fetch;

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, InvalidUri, InvalidUriParts, PathAndQuery, Scheme};
use http::{Request, Uri};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use backend::{Admission, Backend, Refused};
pub use connect::{ConnectError, Stale};

use crate::config::Timeouts;
use crate::message::body::Body;
use connect::Connector;

/// One worker's client of an upstream.
#[derive(Debug)]
pub struct Upstream {
    backend: Arc<Backend>,
    client: Client<Connector, Body>,
}

impl Upstream {
    /// A client of `backend` for one of `workers` workers.
    pub fn new(backend: Arc<Backend>, workers: usize) -> Self {
        let timeouts = backend.timeouts();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(timeouts.idle)
            .pool_max_idle_per_host(backend.idle_limit().div_ceil(workers.max(1)))
            .http1_max_buf_size(BUFFER)
            .set_host(false)
            .retry_canceled_requests(true)
            .build(Connector::new(backend.clone()));
        Self { backend, client }
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
    pub(crate) fn send(&self, request: Request<Body>) -> ResponseFuture {
        self.client.request(request)
    }
}

/// The authority of a server in a URI.
pub(crate) fn authority(host: &str, port: u16) -> Result<Authority, InvalidUri> {
    let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    text.parse()
}

/// What may be buffered of an answer; also the most that its head may have.
const BUFFER: usize = 64 * 1024;

/// The longest that a request waits for its turn, whatever the upstream's timeouts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
