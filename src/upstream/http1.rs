//! HTTP/1.1 to a backend (RFC 9112): one worker's connections, each with one request at a time.
//!
//! Whoever waits for an answer moves its connection on, so that what a server sends wakes the client's own task and no
//! other stands in between. Only where a request has a body, or becomes a tunnel, both directions need a task.
//!
//! hyper's two ends of a connection talk through channels that wake each other's tasks. Where both ends are polled by one
//! task that would wake it once more for nothing, so that one end is polled for nobody, and the other for a waker of the
//! connection's own, which wakes whoever uses it: the next one does not wake the one before.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::BUFFER;
use super::backend::Backend;
use super::connect::{ConnectError, Parked, Wire, connect};
use super::send::SendError;
use super::tls::Offer;
use crate::message::body::{Body, Way};

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

    /// Sends `request` over a connection that is there, or a new one. Its target is in origin form.
    pub(super) async fn send(
        &self,
        mut request: Box<Request<Body>>,
    ) -> Result<(Response<Incoming>, Option<Ride>), SendError> {
        loop {
            let unused = self.unused.take();
            let is_reused = unused.is_some();
            let mut connection = match unused {
                Some(connection) => connection,
                // Seldom needed, and large.
                None => Box::pin(self.connect()).await.map_err(|error| SendError::Connect(Arc::new(error)))?,
            };
            let needs_task = !request.body().is_end_stream() || request.headers().contains_key(UPGRADE);
            let sending = connection.sender.try_send_request(*request);
            let mut ride = Ride::on(connection, &self.unused);
            let answer = if needs_task {
                tokio::spawn(ride.go_on_alone());
                sending.await.map(|answer| (answer, None))
            } else {
                // A task that has had its turn would be told so, and that must not be told to nobody.
                let mut sending = pin!(unconstrained(sending));
                let answer = poll_fn(|cx| {
                    ride.drive(cx.waker());
                    sending.as_mut().poll(&mut unheard())
                });
                answer.await.map(|answer| {
                    ride.has_answer = true;
                    (answer, Some(ride))
                })
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(mut error) => match error.take_message().filter(|_| is_reused) {
                    // The server had closed it before any of the request was sent.
                    Some(back) => *request = back,
                    None => return Err(SendError::Http1(error.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, ConnectError> {
        let stream = match self.parked.take() {
            Some(stream) => stream,
            None => connect(&self.backend, Offer::Http1).await?,
        };
        let wire = TokioIo::new(Wire::new(stream, Arc::clone(&self.backend)));
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(wire)
            .await
            .map_err(|error| ConnectError::Refused { source: std::io::Error::other(error) })?;
        let user = Arc::new(User::default());
        let waker = Waker::from(Arc::clone(&user));
        Ok(Box::new(Connection { sender, driver: Box::pin(driver.with_upgrades()), user, waker }))
    }
}

/// Both ends of hyper's connection.
struct Connection {
    sender: SendRequest<Body>,
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    user: Arc<User>,
    /// Wakes the user.
    waker: Waker,
}

/// Whoever is to be woken when a connection can go on.
#[derive(Debug, Default)]
struct User(Mutex<Option<Waker>>);

impl Connection {
    /// Reads and writes what can be; `user` is woken when more can be. Ready: it is over.
    fn drive(&mut self, user: Option<&Waker>) -> Poll<hyper::Result<()>> {
        self.user.set(user);
        self.driver.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

impl User {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, user: Option<&Waker>) {
        let mut known = self.lock();
        let is_same = match (&*known, user) {
            (Some(known), Some(user)) => known.will_wake(user),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            *known = user.cloned();
        }
    }
}

impl Wake for User {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(user) = &*self.lock() {
            user.wake_by_ref();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// An exchange on a connection, which goes back to the others of its kind when the answer is over.
#[derive(Debug)]
pub(crate) struct Ride {
    /// `None`: it has ended.
    connection: Option<Box<Connection>>,
    has_answer: bool,
    unused: Weak<Unused>,
}

impl Ride {
    fn on(connection: Box<Connection>, unused: &Arc<Unused>) -> Self {
        Self { connection: Some(connection), has_answer: false, unused: Arc::downgrade(unused) }
    }

    /// Moves the connection until the exchange is over, whoever waits for what.
    async fn go_on_alone(mut self) {
        self.has_answer = true;
        poll_fn(|cx| {
            self.drive(cx.waker());
            match &mut self.connection {
                Some(connection) => connection.sender.poll_ready(cx).map(drop),
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Reads and writes what can be.
    fn drive(&mut self, user: &Waker) {
        let Some(connection) = &mut self.connection else { return };
        if let Poll::Ready(ended) = connection.drive(Some(user)) {
            self.connection = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        }
    }
}

impl Way for Ride {
    fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut *body).poll_frame(&mut unheard());
        if polled.is_ready() {
            return polled;
        }
        self.drive(cx.waker());
        Pin::new(body).poll_frame(&mut unheard())
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        // Whoever leaves before the answer takes the connection along, and the server sees that nobody waits.
        if !self.has_answer {
            return;
        }
        let is_ready = |ride: &Self| ride.connection.as_ref().is_some_and(|connection| connection.sender.is_ready());
        if !is_ready(self) {
            // The end of the answer may have come with its last byte.
            self.drive(Waker::noop());
        }
        if is_ready(self)
            && let (Some(connection), Some(unused)) = (self.connection.take(), self.unused.upgrade())
        {
            unused.put(connection);
        }
    }
}

/// Connections that wait for a request.
#[derive(Debug)]
struct Unused {
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
    fn take(&self) -> Option<Box<Connection>> {
        let (connection, since) = self.lock().connections.pop()?;
        if since.elapsed() < self.idle {
            return Some(connection);
        }
        // All others have waited longer.
        let over = std::mem::take(&mut self.lock().connections);
        drop(over);
        None
    }

    fn put(self: &Arc<Self>, connection: Box<Connection>) {
        connection.user.set(None);
        let mut kept = self.lock();
        if self.most == 0 {
            return;
        }
        kept.connections.push((connection, Instant::now()));
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
        kept.connections.retain_mut(|(connection, since)| {
            let is_open = connection.drive(None).is_pending();
            is_open && now.duration_since(*since) < self.idle
        });
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

/// What is polled with this wakes nobody.
fn unheard() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// How often unused connections are looked at, at least and at most.
const LOOKED_AT: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(10);

/// For how long more of them than are to be kept may be unused.
const MOMENT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::coop::poll_proceed;

    use super::*;
    use crate::config::load_text;
    use crate::metrics::Metrics;

    /// A server that answers each request with five bytes in two pieces.
    async fn server() -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    while stream.read(&mut [0; 1024]).await.unwrap_or(0) > 0 {
                        for piece in ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe", "llo"] {
                            stream.write_all(piece.as_bytes()).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_task_that_has_had_its_turn_gets_its_answer_all_the_same() {
        let text = format!(
            "[upstreams]\napp = \"http://{}\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n",
            server().await
        );
        let config = load_text(Path::new("gateway.toml"), text, &|_| None).config.unwrap();
        let settings = &config.upstreams[0];
        let backend = Backend::new(settings, settings.servers[0].address.clone(), &Metrics::new(0), None).unwrap();
        let http1 = Http1::new(backend, 8, Parked::default());
        // tokio gives a task 128 steps at a time: the turn ends at another one of them each time. Without a step none goes on.
        for spent in 80..128 {
            let whole = async {
                let request = Request::get("/x").header("host", "app").body(Body::empty()).unwrap();
                let (answer, ride) = http1.send(Box::new(request)).await.unwrap();
                let way = ride.map(|ride| Box::new(ride) as Box<dyn Way>);
                let names = Arc::new(crate::message::headers::IdentityNames::new([]));
                Body::from_upstream(answer.into_body(), way, None, None, &names).collect().await.unwrap().to_bytes()
            };
            let mut whole = pin!(whole);
            let spending = poll_fn(|cx| {
                for _ in 0..spent {
                    let Poll::Ready(step) = poll_proceed(cx) else { break };
                    step.made_progress();
                }
                whole.as_mut().poll(cx)
            });
            let body = tokio::time::timeout(Duration::from_secs(5), spending).await;
            assert_eq!(body.unwrap_or_else(|_| panic!("{spent}: nobody was woken")), "hello");
        }
    }
}
