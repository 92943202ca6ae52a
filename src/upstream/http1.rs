//! HTTP/1.1 to a backend (RFC 9112): one worker's connections, each with one request at a time.
//!
//! A request without a body, or with a small one that came with its head, is an exchange of our own (`exchange`): almost all
//! requests are one. Where a body is still to come, or the connection becomes a tunnel, both directions go on at once: that is
//! hyper's, in a task, which gives the connection back when the exchange is over.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::answer::Fault;
use super::backend::Backend;
use super::connect::{ConnectError, Parked, Wire, connect};
use super::exchange::{Connection, rest};
use super::send::SendError;
use super::tls::Offer;
use super::{BUFFER, Outgoing, Reply};
use crate::message::body::Body;

/// One worker's HTTP/1.1 connections to one backend.
#[derive(Debug)]
pub(super) struct Http1 {
    backend: Arc<Backend>,
    parked: Parked,
    unused: Arc<Unused>,
}

impl Http1 {
    /// Connections to `backend`, of which `keep` are kept unused. One that is left in `parked` is taken first.
    pub(super) fn new(backend: Arc<Backend>, keep: usize, parked: Parked) -> Self {
        let idle = backend.timeouts().idle;
        let unused = Arc::new(Unused { kept: Mutex::default(), most: keep, idle });
        Self { backend, parked, unused }
    }

    /// Sends `outgoing` over a connection that is there, or a new one.
    pub(super) async fn send(&self, mut outgoing: Outgoing<'_>) -> Result<Reply, SendError> {
        let is_small = outgoing.body.size_hint().exact().is_some_and(|length| length <= SMALL);
        if !is_small || outgoing.switches {
            let (connection, switches) = (self.connection(self.unused.take(*outgoing.now)).await?, outgoing.switches);
            return Box::pin(self.carry(connection, outgoing.into_request(), switches)).await;
        }
        let (mut body, mut is_again) = (outgoing.body.is_end_stream().then(Bytes::new), false);
        loop {
            let now = if is_again { Instant::now() } else { *outgoing.now };
            let (mut connection, is_reused) = match self.connection(self.unused.take(now)).await {
                Ok(connection) => connection,
                Err(error) => {
                    // Nothing was sent: another server may have all of it.
                    outgoing.body.put_back(body.unwrap_or_default());
                    return Err(error);
                }
            };
            let body = match &body {
                Some(body) => body,
                None => match Box::pin(at_once(&mut outgoing.body)).await? {
                    Some(whole) => body.insert(whole),
                    None => {
                        let connection = (connection, is_reused);
                        return Box::pin(self.carry(connection, outgoing.into_request(), false)).await;
                    }
                },
            };
            let Outgoing { method, target, headers, added, .. } = &outgoing;
            match connection.ask(method, target, (headers, added), body).await {
                Ok(answer) => {
                    let back = Instant::now();
                    let rest = rest(connection, &answer, back, Arc::downgrade(&self.unused));
                    return Ok(Reply::new(answer, rest, back));
                }
                // The server had closed it before any of the request was sent.
                Err(fault) if is_reused && fault.is_unsent() => is_again = true,
                Err(fault) => return Err(SendError::Exchange(fault)),
            }
        }
    }

    /// Sends a request whose body is still to come, or that asks for another protocol.
    async fn carry(
        &self,
        (mut connection, mut is_reused): (Box<Connection>, bool),
        mut request: Request<Body>,
        switches: bool,
    ) -> Result<Reply, SendError> {
        loop {
            let (mut sender, driver) = http1::Builder::new()
                .max_buf_size(BUFFER)
                .handshake(TokioIo::new(connection.into_wire()))
                .await
                .map_err(SendError::Http1)?;
            let sending = sender.try_send_request(request);
            if switches {
                tokio::spawn(switch(sender, driver));
            } else {
                tokio::spawn(drive(sender, driver, Arc::downgrade(&self.unused)));
            }
            match sending.await {
                Ok(answer) => return Ok(Reply::streamed(answer, None)),
                Err(mut error) => match error.take_message().filter(|_| is_reused) {
                    // The server had closed it before any of the request was sent.
                    Some(back) => request = back,
                    None => return Err(SendError::Http1(error.into_error())),
                },
            }
            (connection, is_reused) = self.connection(self.unused.take(Instant::now())).await?;
        }
    }

    /// The `unused` connection, or a new one, and whether it has had a request before.
    async fn connection(&self, unused: Option<Box<Connection>>) -> Result<(Box<Connection>, bool), SendError> {
        match unused {
            Some(connection) => Ok((connection, true)),
            // Seldom needed, and large.
            None => {
                let connection = Box::pin(self.connect()).await;
                Ok((connection.map_err(|error| SendError::Connect(Arc::new(error)))?, false))
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, ConnectError> {
        let stream = match self.parked.take() {
            Some(stream) => stream,
            None => connect(&self.backend, Offer::Http1).await?,
        };
        Ok(Connection::new(Wire::new(stream, Arc::clone(&self.backend))))
    }
}

/// All of a small body, if it came with its head; else what did come goes back, and nobody waits for more here.
async fn at_once(body: &mut Body) -> Result<Option<Bytes>, SendError> {
    let (mut whole, mut has_rested) = (BytesMut::new(), false);
    let is_whole = poll_fn(|cx| {
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // A length leaves no room for trailers (RFC 9112, section 6.3).
                    whole.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
                    if body.is_end_stream() {
                        return Poll::Ready(Ok(true));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(true)),
                // The client's connection reads no body before it is asked for one.
                Poll::Pending if !has_rested => {
                    has_rested = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(Ok(false)),
            }
        }
    });
    let is_whole = is_whole.await.map_err(|error| SendError::Exchange(Fault::Body(error)))?;
    let whole = whole.freeze();
    if is_whole {
        return Ok(Some(whole));
    }
    body.put_back(whole);
    Ok(None)
}

/// hyper's end of a connection.
type Driver = http1::Connection<TokioIo<Wire>, Body>;

/// Moves an exchange until it is over, whoever waits for what, and gives the connection to `unused`.
async fn drive(mut sender: SendRequest<Body>, mut driver: Driver, unused: Weak<Unused>) {
    let over = poll_fn(|cx| match driver.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending => sender.poll_ready(cx).map(|ready| ready.map_err(|_| Ok(()))),
    });
    match over.await {
        Ok(()) => {}
        Err(Ok(())) => return,
        Err(Err(error)) => return tracing::debug!(%error, "a connection to an upstream ended"),
    }
    // Nothing more is to be sent, so that hyper ends, and the connection goes on.
    drop(sender);
    if poll_fn(|cx| driver.poll_without_shutdown(cx)).await.is_err() {
        return;
    }
    let parts = driver.into_parts();
    if parts.read_buf.is_empty()
        && let Some(unused) = unused.upgrade()
    {
        unused.put(Connection::new(parts.io.into_inner()), Instant::now());
    }
}

/// Moves an exchange that may become a tunnel.
async fn switch(mut sender: SendRequest<Body>, driver: Driver) {
    let mut driver = pin!(driver.with_upgrades());
    poll_fn(|cx| match driver.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(ended),
        Poll::Pending => sender.poll_ready(cx).map(|_| Ok(())),
    })
    .await
    .unwrap_or_else(|error| tracing::debug!(%error, "a connection to an upstream ended"));
}

/// Connections that wait for a request.
#[derive(Debug)]
pub(super) struct Unused {
    kept: Mutex<Kept>,
    /// How many are kept for longer than a moment: under load they are unused by turns.
    most: usize,
    /// For how long one is kept.
    idle: Duration,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one that was used last at the end.
    connections: Vec<(Box<Connection>, Instant)>,
    /// Whether a task looks after them.
    is_watched: bool,
}

impl Unused {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last, so that the others fall out of use.
    fn take(&self, now: Instant) -> Option<Box<Connection>> {
        loop {
            let (mut connection, since) = self.lock().connections.pop()?;
            if now.duration_since(since) >= self.idle {
                // All others have waited longer.
                let over = std::mem::take(&mut self.lock().connections);
                drop(over);
                return None;
            }
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last exchange was over at `now`. Whether more came than that is looked at when it is taken, too.
    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>, now: Instant) {
        if self.most == 0 || !connection.has_read_all() {
            return;
        }
        let mut kept = self.lock();
        kept.connections.push((connection, now));
        if !kept.is_watched
            && let Ok(runtime) = Handle::try_current()
        {
            kept.is_watched = true;
            runtime.spawn(watch(Arc::downgrade(self), self.idle.clamp(SHORTEST, LOOKED_AT)));
        }
    }

    /// Drops those that the server has closed, or that have waited too long; whether any is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.connections
            .retain_mut(|(connection, since)| connection.is_quiet() && now.duration_since(*since) < self.idle);
        // The first ones have been unused for the longest.
        let surplus = kept.connections.len().saturating_sub(self.most);
        let is_over = |(_, since): &&(_, Instant)| now.duration_since(*since) >= MOMENT;
        let over = kept.connections.iter().take(surplus).take_while(is_over).count();
        kept.connections.drain(..over);
        kept.is_watched = !kept.connections.is_empty();
        kept.is_watched
    }
}

/// Looks after unused connections from time to time for as long as there are any.
async fn watch(unused: Weak<Unused>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if !unused.upgrade().is_some_and(|unused| unused.sweep()) {
            return;
        }
    }
}

/// How large a body is that may be sent with its head.
const SMALL: u64 = 16 * 1024;

/// How often unused connections are looked at, at least and at most.
const LOOKED_AT: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(10);

/// For how long more of them than are to be kept may be unused.
const MOMENT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
