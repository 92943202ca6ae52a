//! Connections to a backend: resolve, connect in time, and tell apart what hyper does not.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::backend::Backend;
use super::dns::Names;
use super::interim::Interim;
use super::race::Race;
use super::stream::Stream;
use super::tls::{Offer, Tls, TlsFault};
use crate::config::{ServerAddr, UpstreamTls};

/// How a server is reached, made ready once for all workers.
#[derive(Debug)]
pub(super) enum Way {
    Tcp(Names),
    Tls(Names, Tls),
    Unix(PathBuf),
}

impl Way {
    /// The way to `address`, with `tls` where that is `https`.
    pub(super) fn to(address: &ServerAddr, tls: &UpstreamTls) -> Result<Self, TlsFault> {
        Ok(match address {
            ServerAddr::Http(place) | ServerAddr::H2c(place) => Self::Tcp(Names::new(place)),
            ServerAddr::Https(place) => Self::Tls(Names::new(place), Tls::new(tls, &place.host)?),
            ServerAddr::Unix(path) => Self::Unix(path.clone()),
        })
    }
}

/// A connection on which HTTP/1.1 was agreed when HTTP/2 was asked for: the next request takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Parked(Arc<Mutex<Option<(Stream, Instant)>>>);

impl Parked {
    pub(super) fn park(&self, stream: Stream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stream, Instant::now()));
    }

    /// The connection, unless nobody came for it at once: the server may have given it up.
    pub(super) fn take(&self) -> Option<Stream> {
        let parked = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        parked.filter(|(_, since)| since.elapsed() < PARKED_FOR).map(|(stream, _)| stream)
    }
}

/// Why no connection came about.
#[derive(Debug)]
pub enum ConnectError {
    /// The name does not resolve.
    Resolve {
        /// What the resolver says.
        source: Arc<io::Error>,
    },
    /// The name has no address.
    NoAddress,
    /// No address took the connection.
    Refused {
        /// What the last one said.
        source: io::Error,
    },
    /// The server's certificate is not believed, or TLS went wrong otherwise.
    Tls {
        /// What rustls says.
        source: io::Error,
    },
    /// None did in time.
    TimedOut,
    /// This process has no descriptors left, whoever is at the other end.
    NoDescriptors {
        /// What the system says.
        source: io::Error,
    },
}

impl ConnectError {
    /// Why the system gave no connection.
    fn of_system(source: io::Error) -> Self {
        let errno = rustix::io::Errno::from_io_error(&source);
        match errno {
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => Self::NoDescriptors { source },
            _ => Self::Refused { source },
        }
    }

    /// A word for metrics.
    const fn name(&self) -> &'static str {
        match self {
            Self::Resolve { .. } | Self::NoAddress => "unresolved",
            Self::Refused { .. } => "refused",
            Self::Tls { .. } => "tls",
            Self::TimedOut => "timeout",
            Self::NoDescriptors { .. } => "no_descriptors",
        }
    }
}

/// A connection that had served before closed without a byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// A new connection to `backend`, which is counted.
pub(super) async fn connect(backend: &Backend, offer: Offer) -> Result<Stream, ConnectError> {
    let connected = reach(backend.way(), backend.timeouts().connect, offer).await;
    backend.counts().connects.count(match &connected {
        Ok(_) => "success",
        Err(error) => error.name(),
    });
    connected
}

async fn reach(way: &Way, limit: Duration, offer: Offer) -> Result<Stream, ConnectError> {
    let (names, tls) = match way {
        Way::Tcp(names) => (names, None),
        Way::Tls(names, tls) => (names, Some(tls)),
        Way::Unix(path) => {
            return match timeout(limit, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => Ok(Stream::Unix(stream)),
                Ok(Err(source)) => Err(ConnectError::of_system(source)),
                Err(_) => Err(ConnectError::TimedOut),
            };
        }
    };
    let deadline = Instant::now() + limit;
    let addresses = match timeout_at(deadline, names.addresses(std::time::Instant::now())).await {
        Ok(addresses) => addresses.map_err(|source| ConnectError::Resolve { source })?,
        Err(_) => return Err(ConnectError::TimedOut),
    };
    let mut race = Race::of(addresses.into_iter().map(|address| async move {
        let stream = TcpStream::connect(address).await.map_err(ConnectError::of_system)?;
        // Small requests must not wait for an acknowledgement; a failure shows at the first write.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }));
    let mut last = ConnectError::NoAddress;
    loop {
        let stream = match timeout_at(deadline, race.next()).await {
            Ok(Some(Ok(stream))) => stream,
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) => return Err(last),
            Err(_) => return Err(ConnectError::TimedOut),
        };
        let Some(tls) = tls else { return Ok(Stream::Tcp(stream)) };
        // Each address that is left has its share of the time.
        let left = u32::try_from(race.left()).unwrap_or(u32::MAX).saturating_add(1);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        last = match timeout(share, tls.connect(stream, offer)).await {
            Ok(Ok(stream)) => return Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(source)) => ConnectError::Tls { source },
            Err(_) => ConnectError::TimedOut,
        };
    }
}

/// A connection to a backend, counted there. Knows whether it has served before, so that a request that met
/// its end can be told from one that the upstream broke off.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    backend: Arc<Backend>,
    served: bool,
    answered: bool,
    interim: Interim,
    /// Of HTTP/2, where many requests share it: what came. It is not judged by what was written last.
    heard: Option<Arc<Heard>>,
    /// What was read while looking for why nothing can be written any more.
    ahead: Vec<u8>,
}

/// What came over a connection that many share.
#[derive(Debug, Default)]
pub(super) struct Heard {
    reads: AtomicU64,
    fault: Mutex<Option<rustls::Error>>,
}

impl Heard {
    /// Rises with whatever comes.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// What ended its TLS, which h2 keeps as a text only: a server refuses a client's certificate after the handshake.
    pub(super) fn fault(&self) -> Option<ConnectError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(ConnectError::Tls { source: io::Error::other(fault) })
    }

    fn note(&self, read: &io::Result<()>) {
        match read {
            Ok(()) => drop(self.reads.fetch_add(1, Relaxed)),
            Err(error) => {
                let fault = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()).cloned();
                *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
            }
        }
    }
}

impl Wire {
    pub(super) fn new(stream: Stream, backend: Arc<Backend>) -> Self {
        backend.count_open();
        Self {
            stream,
            backend,
            served: false,
            answered: false,
            interim: Interim::default(),
            heard: None,
            ahead: Vec::new(),
        }
    }

    /// A connection for HTTP/2, which counts in `heard` what comes.
    pub(super) fn shared(stream: Stream, backend: Arc<Backend>, heard: Arc<Heard>) -> Self {
        let mut wire = Self::new(stream, backend);
        wire.heard = Some(heard);
        wire
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// Whether a request has gone out on a used connection and nothing of an answer has come.
    const fn is_stale(&self) -> bool {
        self.served && !self.answered && self.heard.is_none()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.backend.count_closed();
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = if self.ahead.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, into))
        } else {
            let count = self.ahead.len().min(into.remaining());
            into.put_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            Ok(())
        };
        if let Some(heard) = &self.heard {
            heard.note(&read);
        }
        if into.filled().len() > before {
            self.served = true;
            self.answered = true;
            if self.heard.is_none()
                && let Err(flood) = self.interim.pass(&into.filled()[before..])
            {
                return Poll::Ready(Err(io::Error::other(flood)));
            }
        } else if self.is_stale() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, Stale)));
        }
        Poll::Ready(read)
    }
}

impl Wire {
    /// Why nothing can be written any more: `error`, or what the other end has said of it in TLS, as when it refuses a
    /// certificate. It has closed, so that there is something to read soon.
    fn last_word(&mut self, error: io::Error, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.stream.is_tls() || !self.ahead.is_empty() {
            return Poll::Ready(error);
        }
        let mut bytes = [0; 1024];
        let mut into = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into)) {
            Err(said) if said.get_ref().is_some_and(|said| said.is::<rustls::Error>()) => {
                let said = Err(said);
                if let Some(heard) = &self.heard {
                    heard.note(&said);
                }
                Poll::Ready(said.err().unwrap_or(error))
            }
            Ok(()) | Err(_) => {
                self.ahead.extend_from_slice(into.filled());
                Poll::Ready(error)
            }
        }
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match ready!(written) {
            Ok(count) => {
                self.answered = false;
                self.interim.ask();
                Poll::Ready(Ok(count))
            }
            Err(_) if self.served && self.heard.is_none() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, Stale)))
            }
            Err(error) => self.last_word(error, cx).map(Err),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.last_word(error, cx).map(Err),
        }
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
            Self::Tls { .. } => "TLS with the upstream did not come about",
            Self::TimedOut => "the upstream took no connection in time",
            Self::NoDescriptors { .. } => "no descriptor is left for a connection",
        })
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source } => Some(source.as_ref()),
            Self::Refused { source } | Self::Tls { source } | Self::NoDescriptors { source } => Some(source),
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

/// For how long a connection is kept for the request that it was made for.
const PARKED_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPort;

    fn way(port: u16, resolver: super::super::dns::Resolver) -> Way {
        Way::Tcp(Names::asking(&HostPort { host: "app".to_owned(), port }, resolver))
    }

    #[tokio::test]
    async fn an_address_that_refuses_hides_no_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let both = |_: &str, port| Ok(vec![([127, 0, 0, 2], port).into(), ([127, 0, 0, 1], port).into()]);
        let way = way(port, both);
        for _ in 0..4 {
            // Each connection begins with another of them.
            reach(&way, Duration::from_secs(5), Offer::Http1).await.unwrap();
            listener.accept().await.unwrap();
        }
    }

    /// A port of 127.0.0.1 that lets nobody wait any more: whoever connects hears nothing.
    async fn deaf() -> (tokio::net::TcpListener, TcpStream, u16) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let waits = TcpStream::connect(address).await.unwrap();
        (listener, waits, address.port())
    }

    #[tokio::test]
    async fn an_address_that_is_dead_costs_a_moment_and_not_its_share_of_the_time() {
        let (_listener, _waits, port) = deaf().await;
        let listener = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let both = |_: &str, port| Ok(vec![([127, 0, 0, 1], port).into(), ([127, 0, 0, 2], port).into()]);
        let way = way(port, both);
        for _ in 0..2 {
            // Either may begin.
            let began = Instant::now();
            reach(&way, Duration::from_secs(60), Offer::Http1).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            listener.accept().await.unwrap();
        }
        let dead = way_to_itself(port);
        let late = reach(&dead, Duration::from_millis(20), Offer::Http1).await;
        assert!(matches!(late, Err(ConnectError::TimedOut)));
    }

    fn way_to_itself(port: u16) -> Way {
        way(port, |_, port| Ok(vec![([127, 0, 0, 1], port).into()]))
    }

    #[test]
    fn running_out_of_descriptors_is_told_from_a_server_that_refuses() {
        for (code, name) in [(24, "no_descriptors"), (23, "no_descriptors"), (111, "refused"), (13, "refused")] {
            assert_eq!(ConnectError::of_system(io::Error::from_raw_os_error(code)).name(), name, "{code}");
        }
    }

    #[tokio::test]
    async fn a_name_that_could_not_be_looked_up_is_asked_for_again_at_once() {
        static IS_DOWN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = way(port, |_, port| match IS_DOWN.load(Relaxed) {
            true => Err(io::Error::other("no resolver answers")),
            false => Ok(vec![([127, 0, 0, 1], port).into()]),
        });
        let down = reach(&way, Duration::from_secs(5), Offer::Http1).await;
        assert!(matches!(down, Err(ConnectError::Resolve { .. })));
        IS_DOWN.store(false, Relaxed);
        reach(&way, Duration::from_secs(5), Offer::Http1).await.unwrap();
    }

    #[tokio::test]
    async fn no_resolver_is_waited_for_longer_than_a_connection() {
        let hangs = way(80, |_, _| {
            loop {
                std::thread::park();
            }
        });
        let late = reach(&hangs, Duration::from_millis(20), Offer::Http1).await;
        assert!(matches!(late, Err(ConnectError::TimedOut)));
        let none = reach(&way(80, |_, _| Ok(Vec::new())), Duration::from_secs(5), Offer::Http1).await;
        assert!(matches!(none, Err(ConnectError::NoAddress)));
        let gone = reach(&way(80, |_, _| Err(io::Error::other("gone"))), Duration::from_secs(5), Offer::Http1).await;
        assert!(matches!(gone, Err(ConnectError::Resolve { .. })));
    }
}
