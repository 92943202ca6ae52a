//! One client connection, from its first byte to its end: hyper, its deadlines, the drain.
//!
//! hyper has no timer here: a deadline is worked out from what the [`Link`] says, and the one timer of a
//! connection is moved only when it fires or must fire earlier, so that an ordinary request costs none.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::watch::Watched;
use crate::config::Limits;
use crate::message::body::{Body, BodyError};
use crate::message::connection::{ConnInfo, Framing, Link, Stage, Stop};
use crate::message::loan::DRAINED_FOR;
use crate::message::survey::Fields;

/// Serves `stream` until one side ends it, a deadline passes or `stop` says so.
///
/// `service` answers requests; `refused` is told of a head that hyper could not parse and has answered itself.
pub async fn serve<S, F, A, R>(
    stream: S,
    info: Arc<ConnInfo>,
    limits: &Limits,
    service: F,
    refused: R,
    mut stop: watch::Receiver<Stop>,
) where
    S: ClientStream,
    F: Fn(Request<Incoming>, Arc<Link>) -> A,
    A: Future<Output = Response<Body>>,
    R: Fn(&ConnInfo, &hyper::Error),
{
    let link = Arc::new(Link::since_opened(info.opened));
    let ending = stop.clone();
    let handler = |request: Request<Incoming>| {
        link.begin(framing(request.headers()));
        link.set_unframed(request.version() < Version::HTTP_11);
        let answer = service(request, link.clone());
        let (link, ending) = (link.clone(), ending.clone());
        async move {
            let mut response = answer.await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                link.open_tunnel();
            } else if *ending.borrow() != Stop::Run {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Served { body, link }))
        }
    };
    let mut socket = Watched::new(stream, link.clone());
    let mut course = Course { info: &info, limits, link: &link, stop: &mut stop, timer: Timer::new() };
    // Boxed, so that its room and hyper's buffers go while nothing is asked.
    while let Some(idle) = Box::pin(course.converse(socket, &handler, &refused)).await {
        match course.park(idle).await {
            Some(woken) => socket = woken,
            None => return,
        }
    }
}

/// What lasts as long as the connection.
struct Course<'a> {
    info: &'a ConnInfo,
    limits: &'a Limits,
    link: &'a Link,
    stop: &'a mut watch::Receiver<Stop>,
    timer: Timer,
}

impl Course<'_> {
    /// Has hyper serve requests on `socket` until the connection is over, or nothing has been asked for a while: then the
    /// socket is given back, with nothing of it read that was not answered.
    async fn converse<S, H, A, R>(&mut self, socket: Watched<S>, handler: &H, refused: &R) -> Option<Watched<S>>
    where
        S: ClientStream,
        H: Fn(Request<Incoming>) -> A,
        A: Future<Output = Result<Response<Served>, Infallible>>,
        R: Fn(&ConnInfo, &hyper::Error),
    {
        let Self { info, limits, link, stop, timer } = self;
        let service = service_fn(handler);
        let mut conn = builder(limits).serve_connection(TokioIo::new(socket), service).with_upgrades();
        let (mut draining, answered) = (*stop.borrow() != Stop::Run, link.requests());
        loop {
            match event(&mut conn, timer, stop, || next_look(link, limits, draining), link).await {
                Event::Stop => match *stop.borrow_and_update() {
                    Stop::Run => {}
                    Stop::Drain => {
                        draining = true;
                        // hyper would close one whose first request is on its way; that is answered, and the last then.
                        if link.stage() != Stage::Opened {
                            Pin::new(&mut conn).graceful_shutdown();
                        }
                    }
                    Stop::Now => return None,
                },
                Event::End(Ok(())) => {
                    // A tunnel goes on without hyper, and is a connection still.
                    if link.is_tunnel() {
                        drop(conn);
                        link.gone().await;
                    }
                    return None;
                }
                Event::End(Err(error)) => {
                    tracing::debug!(peer = %info.peer, %error, "client connection ended");
                    if let Some(parts) = conn.into_parts().filter(|_| link.is_unframed()) {
                        parts.io.into_inner().into_stream().0.break_off();
                    }
                    if error.is_parse() {
                        refused(info, &error);
                    }
                    return None;
                }
                Event::Late if !draining && is_for_parking(link, limits) => {
                    // What hyper calls idle it closes when it is to end; without a request so far it has read empty lines only.
                    let is_given_up = link.requests() == answered || {
                        link.set_parking(true);
                        Pin::new(&mut conn).graceful_shutdown();
                        let ended = poll_fn(|cx| Poll::Ready(Pin::new(&mut conn).poll(cx))).await;
                        link.set_parking(false);
                        ended.is_ready()
                    };
                    if is_given_up {
                        let parts = conn.into_parts()?;
                        return Some(parts.io.into_inner().putting_back(&parts.read_buf));
                    }
                    // It is at something that was not seen here: it ends that, and the connection with it.
                    draining = true;
                }
                Event::Late => {
                    tracing::debug!(peer = %info.peer, stage = ?link.stage(), "client connection timed out");
                    let is_between = matches!(link.stage(), Stage::Opened | Stage::Head | Stage::Idle);
                    if let Some(parts) = conn.into_parts().filter(|_| is_between) {
                        say_goodbye(parts.io.into_inner()).await;
                    }
                    return None;
                }
            }
        }
    }

    /// Waits for the next request without hyper, and gives the socket back when there is something to be read.
    async fn park<S: ClientStream>(&mut self, socket: Watched<S>) -> Option<Watched<S>> {
        let Self { info, limits, link, stop, timer } = self;
        link.parked();
        let mut readable = poll_fn(|cx| socket.stream().poll_readable(cx));
        loop {
            match event(&mut readable, timer, stop, || deadline(link, limits, false), link).await {
                Event::Stop => match *stop.borrow_and_update() {
                    Stop::Run => {}
                    Stop::Drain => break,
                    Stop::Now => return None,
                },
                Event::End(()) => return Some(socket),
                Event::Late => {
                    tracing::debug!(peer = %info.peer, stage = ?link.stage(), "client connection timed out");
                    break;
                }
            }
        }
        Box::pin(say_goodbye(socket)).await;
        None
    }
}

enum Event<T> {
    Stop,
    End(T),
    Late,
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .keep_alive(true)
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(BUFFER));
    // hyper's own default is on the stack; any other number is on the heap for each request.
    if limits.headers != HYPER_HEADERS {
        builder.max_headers(limits.headers);
    }
    builder
}

/// How the body of a request that hyper has parsed is framed (RFC 9112, section 6.3).
fn framing(headers: &HeaderMap) -> Framing {
    // Most requests have neither.
    if !Fields::of(headers).may_have(Fields::TRANSFER_ENCODING.and(Fields::CONTENT_LENGTH)) {
        return Framing::None;
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return Framing::Chunked;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    match length {
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    }
}

/// Drives `conn` until it ends, `stop` rises or the deadline passes.
async fn event<C>(
    conn: &mut C,
    timer: &mut Timer,
    stop: &mut watch::Receiver<Stop>,
    deadline: impl Fn() -> Option<Instant>,
    link: &Link,
) -> Event<C::Output>
where
    C: Future + Unpin,
{
    let probe = stop.clone();
    let mut changed = pin!(stop.changed());
    let mut registered = false;
    poll_fn(|cx| {
        // The waker of a task stays the same, so that it is registered once and then only asked for.
        if !registered || probe.has_changed().unwrap_or(false) {
            registered = true;
            if let Poll::Ready(Ok(())) = changed.as_mut().poll(cx) {
                return Poll::Ready(Event::Stop);
            }
        }
        if let Poll::Ready(end) = poll_conn(conn, link, cx) {
            return Poll::Ready(Event::End(end));
        }
        timer.poll(deadline(), cx).map(|()| Event::Late)
    })
    .await
}

fn poll_conn<C: Future + Unpin>(conn: &mut C, link: &Link, cx: &mut Context<'_>) -> Poll<C::Output> {
    link.wakes();
    loop {
        if let Poll::Ready(end) = Pin::new(&mut *conn).poll(cx) {
            return Poll::Ready(end);
        }
        // The request is over, and bytes that were held back meanwhile have nobody else to announce them.
        if !link.can_go_on() {
            return Poll::Pending;
        }
        link.set_waiting(false);
    }
}

/// When to look at the connection, if nothing happens: its deadline has passed then, or it is to be parked.
fn next_look(link: &Link, limits: &Limits, draining: bool) -> Option<Instant> {
    if !draining && link.may_park() {
        return Some(link.since() + limits.idle_timeout.min(PARKED_AFTER));
    }
    deadline(link, limits, draining)
}

/// Whether the connection has done nothing for long enough to be parked, and is not to be closed yet.
fn is_for_parking(link: &Link, limits: &Limits) -> bool {
    link.may_park() && Instant::now() < link.since() + limits.idle_timeout
}

/// When the connection has taken too long with what it is doing.
fn deadline(link: &Link, limits: &Limits, draining: bool) -> Option<Instant> {
    if let Some(since) = link.blocked_since() {
        return Some(since + limits.body_timeout);
    }
    let span = match link.stage() {
        Stage::Busy => return None,
        Stage::Opened if draining => limits.header_timeout.min(LAST_CHANCE),
        Stage::Opened | Stage::Head => limits.header_timeout,
        Stage::Idle => limits.idle_timeout,
        Stage::Lingering => DRAINED_FOR,
    };
    Some(link.since() + span)
}

/// A connection's one timer.
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires; `None`: it has fired and nothing has needed it since.
    set_for: Option<Instant>,
}

impl Timer {
    const fn new() -> Self {
        Self { sleep: None, set_for: None }
    }

    /// Whether `deadline` has passed. The timer may be set earlier than that, never later.
    fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
        if self.set_for.is_some() && sleep.is_elapsed() {
            self.set_for = None;
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if self.set_for.is_none_or(|set_for| deadline < set_for) {
            sleep.as_mut().reset(deadline);
            self.set_for = Some(deadline);
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// What a client's bytes come over.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Has the connection end so that the client can't take it for the end of an answer.
    fn break_off(self);

    /// Whether there is something to be read, or an end, of which a read that had to wait has seen nothing.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;
}

impl ClientStream for TcpStream {
    fn break_off(self) {
        // Failing leaves an ordinary end, as on a connection that the client has reset itself.
        let _ = SockRef::from(&self).set_linger(Some(Duration::ZERO));
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is one of the next read too.
        self.poll_read_ready(cx).map(drop)
    }
}

/// Tells a client that has not finished its head in time (RFC 9110, section 15.5.9); one that has begun none is owed the
/// end of its TLS only (RFC 8446, section 6.1).
async fn say_goodbye<S: ClientStream>(watched: Watched<S>) {
    let (mut stream, begun) = watched.into_stream();
    let goodbye = async {
        if !begun {
            return stream.shutdown().await;
        }
        stream.write_all(TOO_SLOW).await?;
        stream.shutdown().await?;
        while stream.read(&mut [0; 256]).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that does not take even this has gone, or means ill.
    let _ = tokio::time::timeout(LAST_CHANCE, goodbye).await;
}

const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long a client has that the gateway would rather be rid of.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long after its last answer a connection gives up hyper, which keeps 16 KiB for what is read and written next. Making
/// another takes a microsecond or two. Short, as what many that come at once give up is used again by others, and goes
/// back to the system hardly ever.
const PARKED_AFTER: Duration = Duration::from_millis(200);

/// What hyper may hold of a body in either direction.
const BUFFER: usize = 64 * 1024;

/// How many fields hyper takes unless told otherwise.
const HYPER_HEADERS: usize = 100;

/// An answer's body, which tells the link when it is over.
struct Served {
    body: Body,
    link: Arc<Link>,
}

impl HttpBody for Served {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.link.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// The deadlines of what comes next count from there.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_streams_is_over_when_its_last_byte_is_taken() {
        let link = Link::new();
        let (ready, streamed) = (Instant::now(), Duration::from_secs(100));
        let mut polls = 0;
        let mut conn = Box::pin(poll_fn(|_| {
            polls += 1;
            match polls {
                1 => link.is_now(Instant::now()),
                _ => link.finish(),
            }
            Poll::<()>::Pending
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(poll_conn(&mut conn, &link, &mut cx).is_pending());
        tokio::time::advance(streamed).await;
        assert!(poll_conn(&mut conn, &link, &mut cx).is_pending());
        assert_eq!((link.stage(), link.since()), (Stage::Idle, ready + streamed));
    }
}
