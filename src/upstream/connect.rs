//! Connections to a backend: resolve, connect in time, and tell apart what hyper does not.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use super::backend::Backend;

/// Makes connections to one backend, whatever it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    backend: Arc<Backend>,
}

/// Why no connection came about.
#[derive(Debug)]
pub enum ConnectError {
    /// The name does not resolve.
    Resolve {
        /// What the resolver says.
        source: io::Error,
    },
    /// The name has no address.
    NoAddress,
    /// No address took the connection.
    Refused {
        /// What the last one said.
        source: io::Error,
    },
    /// None did in time.
    TimedOut,
}

impl ConnectError {
    /// A word for metrics.
    const fn name(&self) -> &'static str {
        match self {
            Self::Resolve { .. } | Self::NoAddress => "unresolved",
            Self::Refused { .. } => "refused",
            Self::TimedOut => "timeout",
        }
    }
}

/// A connection that had served before closed without a byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl Connector {
    pub(super) const fn new(backend: Arc<Backend>) -> Self {
        Self { backend }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let backend = self.backend.clone();
        Box::pin(async move {
            let connected = connect(&backend).await;
            backend.counts().connects.count(match &connected {
                Ok(_) => "success",
                Err(error) => error.name(),
            });
            Ok(TokioIo::new(Wire::new(connected?, backend)))
        })
    }
}

/// A new connection to `backend`: its addresses in turn, each with its share of the time.
async fn connect(backend: &Backend) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + backend.timeouts().connect;
    let addresses = match timeout_at(deadline, resolve(backend)).await {
        Ok(addresses) => addresses?,
        Err(_) => return Err(ConnectError::TimedOut),
    };
    let mut last = ConnectError::NoAddress;
    for (at, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests must not wait for an acknowledgement; a failure shows at the first write.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(source)) => last = ConnectError::Refused { source },
            Err(_) => last = ConnectError::TimedOut,
        }
    }
    Err(last)
}

async fn resolve(backend: &Backend) -> Result<Vec<SocketAddr>, ConnectError> {
    let address = backend.address();
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    match tokio::net::lookup_host((address.host.as_str(), address.port)).await {
        Ok(found) => Ok(found.collect()),
        Err(source) => Err(ConnectError::Resolve { source }),
    }
}

/// A connection to a backend, counted there. Knows whether it has served before, so that a request that met
/// its end can be told from one that the upstream broke off.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    backend: Arc<Backend>,
    served: bool,
    answered: bool,
}

impl Wire {
    fn new(stream: TcpStream, backend: Arc<Backend>) -> Self {
        backend.count_open();
        Self { stream, backend, served: false, answered: false }
    }

    /// Whether a request has gone out on a used connection and nothing of an answer has come.
    const fn is_stale(&self) -> bool {
        self.served && !self.answered
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.backend.count_closed();
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, into));
        if into.filled().len() > before {
            self.served = true;
            self.answered = true;
        } else if self.is_stale() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, Stale)));
        }
        Poll::Ready(read)
    }
}

impl Wire {
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match ready!(written) {
            Ok(count) => {
                self.answered = false;
                Poll::Ready(Ok(count))
            }
            Err(_) if self.served => Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, Stale))),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve { .. } => "the upstream's name does not resolve",
            Self::NoAddress => "the upstream's name has no address",
            Self::Refused { .. } => "the upstream took no connection",
            Self::TimedOut => "the upstream took no connection in time",
        })
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source } | Self::Refused { source } => Some(source),
            Self::NoAddress | Self::TimedOut => None,
        }
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a used connection closed before an answer")
    }
}

impl std::error::Error for Stale {}
