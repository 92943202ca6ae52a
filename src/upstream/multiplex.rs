//! HTTP/2 to a backend (RFC 9113): one worker's connections, each shared by many requests.
//!
//! hyper-util's client can't be used for this: it keeps connections by the URI's authority, and that is `:authority`, which
//! the client chose and the application must see.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, Request, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::backend::Backend;
use super::connect::{ConnectError, Heard, Parked, Wire, connect};
use super::flight::{Flight, Pilot};
use super::send::SendError;
use super::tls::Offer;
use super::{BUFFER, Reply};
use crate::message::body::Body;

/// One worker's HTTP/2 connections to one backend.
#[derive(Debug)]
pub(super) struct Multiplex {
    backend: Arc<Backend>,
    pool: Arc<Pool>,
    parked: Parked,
    connecting: Arc<Flight<Connected>>,
}

/// What a connection turned out to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// What became of a request that may go over HTTP/2.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Reply),
    /// The server speaks HTTP/1.1 only: nothing was sent.
    NotSpoken(Box<Request<Body>>),
}

type Connected = Result<Spoken, Arc<ConnectError>>;

impl Multiplex {
    /// Connections to `backend`, of which `keep` are kept unused. One that speaks HTTP/1.1 is left in `parked`.
    pub(super) fn new(backend: Arc<Backend>, keep: usize, parked: Parked) -> Self {
        let pool = Arc::new(Pool { connections: Mutex::default(), last_end: Mutex::default(), keep });
        Self { backend, pool, parked, connecting: Flight::new() }
    }

    /// Sends `request` over a connection that is there, or a new one.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Outcome, SendError> {
        let mut request = request;
        let mut is_adapted = false;
        for attempt in 1.. {
            let Some((mut connection, mut turn)) = self.pool.enter() else {
                match self.connect().await.map_err(SendError::Connect)? {
                    Spoken::Http2 => {}
                    Spoken::Http1 if is_adapted => return Err(SendError::NotSpoken),
                    Spoken::Http1 => return Ok(Outcome::NotSpoken(Box::new(request))),
                }
                if attempt < ATTEMPTS {
                    continue;
                }
                // New ones end at once: the last one's end says why.
                return Err(match self.pool.last_end() {
                    // On none of them was anything of the request sent.
                    Some(SendError::Tls(fault)) => SendError::Connect(fault),
                    Some(end) => end,
                    None => {
                        let source = std::io::Error::other("every new connection ended at once");
                        SendError::Connect(Arc::new(ConnectError::Refused { source }))
                    }
                });
            };
            if !is_adapted {
                self.adapt(&mut request);
                is_adapted = true;
            }
            match connection.try_send_request(request).await {
                Ok(answer) => {
                    turn.answered();
                    return Ok(Outcome::Answer(Reply::streamed(answer, Some(turn))));
                }
                Err(mut error) => match error.take_message().filter(|_| attempt < ATTEMPTS) {
                    // The connection had ended before any of it was sent.
                    Some(back) => request = back,
                    None => {
                        return Err(turn.failed(error.into_error()));
                    }
                },
            }
        }
        Err(SendError::NotSpoken)
    }

    /// What HTTP/2 has otherwise: the host, and nothing of the connection (RFC 9113, sections 8.2.2 and 8.3.1).
    fn adapt(&self, request: &mut Request<Body>) {
        let headers = request.headers_mut();
        let host = authority(headers);
        for name in [HOST, CONNECTION, UPGRADE, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let mut parts = Parts::default();
        parts.scheme = Some(if self.backend.address().is_https() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(host.unwrap_or_else(|| self.backend.authority().clone()));
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = http::Version::HTTP_2;
    }

    async fn connect(&self) -> Connected {
        let begin = |pilot: Pilot<Connected>| {
            let (backend, pool, parked) = (Arc::clone(&self.backend), Arc::clone(&self.pool), self.parked.clone());
            tokio::spawn(async move { pilot.land(establish(&backend, &pool, &parked).await.map_err(Arc::new)) });
        };
        let given_up = || Err(Arc::new(ConnectError::Refused { source: std::io::Error::other("given up") }));
        self.connecting.join(begin).await.unwrap_or_else(given_up)
    }
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    Authority::try_from(headers.get(HOST)?.as_bytes()).ok()
}

/// Makes a connection and leaves it where it belongs.
async fn establish(backend: &Arc<Backend>, pool: &Arc<Pool>, parked: &Parked) -> Result<Spoken, ConnectError> {
    let stream = connect(backend, Offer::Either).await?;
    if stream.is_http1() {
        parked.park(stream);
        return Ok(Spoken::Http1);
    }
    let state = State::new();
    let wire = Wire::shared(stream, Arc::clone(backend), Arc::clone(&state.heard));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_header_list_size(MOST_HEAD);
    let (sender, connection) = builder
        .handshake(TokioIo::new(wire))
        .await
        .map_err(|error| ConnectError::Refused { source: std::io::Error::other(error) })?;
    tokio::spawn(drive(connection, Arc::clone(&state), Arc::downgrade(pool), backend.timeouts().idle));
    pool.lock().push(Connection { sender, state });
    Ok(Spoken::Http2)
}

/// Moves a connection's bytes until it ends, or has lain unused for `idle`.
async fn drive(
    mut connection: http2::Connection<TokioIo<Wire>, Body, TokioExecutor>,
    state: Arc<State>,
    pool: Weak<Pool>,
    idle: Duration,
) {
    let mut moving = std::pin::pin!(std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        state.most.store(connection.current_max_send_streams(), Relaxed);
        polled
    }));
    loop {
        tokio::select! {
            ended = moving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 connection to an upstream ended");
                    if let Some(pool) = pool.upgrade() {
                        *pool.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.failed(error));
                    }
                }
                break;
            }
            () = tokio::time::sleep_until(state.looked_at_next(idle)) => {
                // Without its sender it says good-bye and ends.
                if let Some(pool) = pool.upgrade() {
                    pool.drop_idle(&state, idle);
                }
            }
        }
    }
    if let Some(pool) = pool.upgrade() {
        pool.remove(&state);
    }
}

/// Connections that take requests.
#[derive(Debug)]
struct Pool {
    connections: Mutex<Vec<Connection>>,
    last_end: Mutex<Option<SendError>>,
    keep: usize,
}

#[derive(Debug)]
struct Connection {
    sender: http2::SendRequest<Body>,
    state: Arc<State>,
}

/// What is known of a connection.
#[derive(Debug)]
struct State {
    /// Requests in progress on it.
    streams: AtomicUsize,
    /// How many of them the server takes.
    most: AtomicUsize,
    heard: Arc<Heard>,
    /// Whether it has answered a request.
    has_answered: AtomicBool,
    unused_since: Mutex<Instant>,
}

impl State {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            streams: AtomicUsize::new(0),
            most: AtomicUsize::new(MOST_STREAMS),
            heard: Arc::default(),
            has_answered: AtomicBool::new(false),
            unused_since: Mutex::new(Instant::now()),
        })
    }

    /// What an error on it means.
    fn failed(&self, source: hyper::Error) -> SendError {
        match self.heard.fault() {
            Some(fault) => SendError::Tls(Arc::new(fault)),
            None => SendError::Http2 { source, reused: self.has_answered.load(Relaxed) },
        }
    }

    fn has_room(&self) -> bool {
        // A server that takes none may take one in a moment; hyper holds the request back until then.
        self.streams.load(Relaxed) < self.most.load(Relaxed).clamp(1, MOST_STREAMS)
    }

    fn is_unused(&self) -> bool {
        self.streams.load(Relaxed) == 0
    }

    fn unused_since(&self) -> Instant {
        *self.unused_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it may have been unused for `idle`.
    fn looked_at_next(&self, idle: Duration) -> Instant {
        let since = if self.is_unused() { self.unused_since() } else { Instant::now() };
        (since + idle).max(Instant::now() + SHORTEST)
    }
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the connection that ended last did.
    fn last_end(&self) -> Option<SendError> {
        self.last_end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A turn on the first connection that has room, so that the last ones fall out of use.
    fn enter(self: &Arc<Self>) -> Option<(http2::SendRequest<Body>, Turn)> {
        let mut connections = self.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let connection = connections.iter().find(|connection| connection.state.has_room())?;
        let state = Arc::clone(&connection.state);
        state.streams.fetch_add(1, Relaxed);
        let heard = state.heard.reads();
        let turn = Turn { state, pool: Arc::downgrade(self), waits: Some((Instant::now(), heard)) };
        Some((connection.sender.clone(), turn))
    }

    /// Takes a connection out; it ends when its last request has.
    fn remove(&self, state: &Arc<State>) {
        self.lock().retain(|connection| !Arc::ptr_eq(&connection.state, state));
    }

    fn drop_idle(&self, state: &Arc<State>, idle: Duration) {
        let is_over = |state: &State| state.is_unused() && state.unused_since().elapsed() >= idle;
        self.lock().retain(|connection| !(Arc::ptr_eq(&connection.state, state) && is_over(state)));
    }

    /// A connection has become unused: whether one too many is.
    fn drop_surplus(&self, state: &Arc<State>) {
        let mut connections = self.lock();
        if connections.iter().filter(|connection| connection.state.is_unused()).count() > self.keep {
            connections.retain(|connection| !(Arc::ptr_eq(&connection.state, state) && state.is_unused()));
        }
    }
}

/// One request in progress on a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    state: Arc<State>,
    pool: Weak<Pool>,
    /// While there is no answer: since when, and what had been heard by then.
    waits: Option<(Instant, u64)>,
}

impl Turn {
    fn answered(&mut self) {
        self.waits = None;
        self.state.has_answered.store(true, Relaxed);
    }

    fn failed(mut self, source: hyper::Error) -> SendError {
        self.waits = None;
        self.state.failed(source)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.state.unused_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let is_last = self.state.streams.fetch_sub(1, Relaxed) == 1;
        let Some(pool) = self.pool.upgrade() else { return };
        // Given up while nothing at all came: the connection may be dead without an end, and takes no more requests.
        let is_silent =
            self.waits.is_some_and(|(since, heard)| since.elapsed() >= SILENT && self.state.heard.reads() == heard);
        if is_silent {
            pool.remove(&self.state);
        } else if is_last {
            pool.drop_surplus(&self.state);
        }
    }
}

/// How often a request is handed to another connection because the one before had ended unnoticed.
const ATTEMPTS: u32 = 3;

/// Requests on one connection; RFC 9113 (section 6.5.2) wants a server to take at least these.
const MOST_STREAMS: usize = 100;

/// What the head of an answer may have, as with HTTP/1.1.
#[expect(clippy::cast_possible_truncation, reason = "64 KiB")]
const MOST_HEAD: u32 = BUFFER as u32;

/// After how long without a byte a connection is held for dead when a request on it is given up.
const SILENT: Duration = Duration::from_secs(1);

/// A connection is not looked at more often.
const SHORTEST: Duration = Duration::from_millis(10);
