//! One client connection over HTTP/2 (RFC 9113): hyper with narrow limits, and deadlines for the connection and for each
//! stream.
//!
//! Each request runs in a task of its own. One that its client does not take is reset alone; one that panics is too.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::conn::ClientStream;
use super::frames::{Beat, Frames, Pulse};
use crate::config::Limits;
use crate::message::body::{Body, BodyError};
use crate::message::connection::{ConnInfo, Link, Stop};
use crate::message::extended::{self, Extended};
use crate::message::respond;

/// Serves `stream` until one side ends it, a deadline passes or `stop` says so.
pub async fn serve<S, F, A>(
    stream: S,
    info: Arc<ConnInfo>,
    limits: &Limits,
    service: F,
    mut stop: watch::Receiver<Stop>,
) where
    S: ClientStream,
    F: Fn(Request<Incoming>, Arc<Link>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let opened = info.opened;
    let pulse = Pulse::new(opened);
    let streams = Streams::new(limits.body_timeout);
    let (next, most_fields) = (Arc::clone(&streams.next), limits.headers);
    let beats = Arc::clone(&pulse);
    let handler = service_fn(move |mut request: Request<Incoming>| {
        let stream =
            Arc::new(Stream { _beat: beats.begin(), answers: false.into(), waits: false.into(), taken: 0.into() });
        *next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&stream));
        // h2 bounds the bytes of a head, not its fields.
        let is_too_long = request.headers().len() > most_fields;
        let asks_head = *request.method() == Method::HEAD;
        adapt(&mut request);
        let is_socket = Extended::translate(&mut request, Arc::<Stream>::clone(&stream));
        let answer = (!is_too_long).then(|| service(request, Arc::new(Link::since_opened(opened))));
        async move {
            let mut response = match answer {
                Some(answer) => answer.await,
                None => respond::empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            };
            if is_socket {
                extended::translate_back(&mut response);
            }
            stream.answers.store(true, Relaxed);
            let response = if asks_head { without_body(response) } else { response };
            Ok::<_, Infallible>(response.map(|body| Paced { body, stream }))
        }
    });
    let io = TokioIo::new(Frames::new(stream, Arc::clone(&pulse)));
    let mut conn = pin!(builder(limits, streams).serve_connection(io, handler));
    let mut last_chance = (*stop.borrow_and_update() != Stop::Run).then_some(LAST_CHANCE);
    if last_chance.is_some() {
        conn.as_mut().graceful_shutdown();
    }
    let mut timer: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut goes = false;
    loop {
        let event = tokio::select! {
            biased;
            changed = stop.changed() => match changed {
                Ok(()) => Event::Stop,
                Err(_) => return,
            },
            event = poll_fn(|cx| poll(conn.as_mut(), timer.as_mut(), || pulse.deadline(limits, last_chance), cx)) => event,
        };
        match event {
            Event::Stop => match *stop.borrow_and_update() {
                Stop::Run => {}
                Stop::Drain => {
                    last_chance = Some(LAST_CHANCE);
                    pulse.count_anew();
                    conn.as_mut().graceful_shutdown();
                }
                Stop::Now => return,
            },
            Event::End(Ok(())) => return,
            Event::End(Err(error)) => {
                tracing::debug!(peer = %info.peer, %error, "client connection ended");
                return;
            }
            // It is told to go, and then left.
            Event::Late if goes || last_chance.is_some() => {
                tracing::debug!(peer = %info.peer, "client connection timed out");
                return;
            }
            Event::Late => {
                (goes, last_chance) = (true, Some(LAST_CHANCE));
                pulse.count_anew();
                conn.as_mut().graceful_shutdown();
            }
        }
    }
}

enum Event {
    Stop,
    End(hyper::Result<()>),
    Late,
}

/// Drives `conn` until it ends or the deadline passes. The deadline is looked at whenever something happens, which is when
/// it moves; the timer is set for it, or for an earlier one.
fn poll<C>(
    conn: Pin<&mut C>,
    mut timer: Pin<&mut Sleep>,
    deadline: impl Fn() -> Option<tokio::time::Instant>,
    cx: &mut Context<'_>,
) -> Poll<Event>
where
    C: Future<Output = hyper::Result<()>>,
{
    if let Poll::Ready(end) = conn.poll(cx) {
        return Poll::Ready(Event::End(end));
    }
    loop {
        // Streams end in tasks of their own, which wake nobody here: so a connection without a deadline is looked at too.
        let now = tokio::time::Instant::now();
        let due = deadline();
        if due.is_some_and(|due| due <= now) {
            return Poll::Ready(Event::Late);
        }
        let look = due.unwrap_or(now + LOOK_EVERY).min(now + LOOK_EVERY);
        if timer.is_elapsed() || timer.deadline() > look {
            timer.as_mut().reset(look);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
}

fn builder(limits: &Limits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(MISTAKES)
        .max_pending_accept_reset_streams(RESETS)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

/// Brings a request into the form that one of HTTP/1.1 has: `Host` from `:authority` (RFC 9113, section 8.3.1), and one
/// `Cookie` (section 8.2.3). Where both are there, whether they say the same is judged with every request.
fn adapt(request: &mut Request<Incoming>) {
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let headers = request.headers_mut();
    if let Some(authority) = authority
        && !headers.contains_key(HOST)
    {
        headers.insert(HOST, authority);
    }
    join_cookies(headers);
}

/// The answer to a HEAD, whose body hyper would send over HTTP/2: its length stays (RFC 9110, section 9.3.2).
fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response.map(|_unread| Body::empty())
}

fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Pieces of values with ASCII between them: a value again.
    if let Ok(cookie) = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..]))) {
        headers.insert(COOKIE, cookie);
    }
}

/// One request and its answer.
#[derive(Debug)]
struct Stream {
    _beat: Beat,
    /// The head of the answer is out.
    answers: AtomicBool,
    /// The answer's body has nothing yet.
    waits: AtomicBool,
    /// Frames of it that were taken.
    taken: AtomicU64,
}

/// Spawns the tasks of streams, each with its deadline.
#[derive(Clone, Debug)]
struct Streams {
    /// The request that the service was just called with: its task comes next.
    next: Arc<Mutex<Option<Arc<Stream>>>>,
    patience: Duration,
}

impl Streams {
    fn new(patience: Duration) -> Self {
        Self { next: Arc::default(), patience }
    }
}

impl<T> Executor<T> for Streams
where
    T: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: T) {
        let stream = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        match stream {
            Some(stream) => drop(tokio::spawn(unless_stalled(task, stream, self.patience))),
            None => drop(tokio::spawn(task)),
        }
    }
}

/// Runs `task` until its end, or until the client has taken nothing for too long of what is ready. Then it is dropped,
/// which resets its stream and no other.
async fn unless_stalled(task: impl Future<Output = ()>, stream: Arc<Stream>, patience: Duration) {
    let mut task = pin!(task);
    let mut stalled: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        stream.waits.store(false, Relaxed);
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Without room at the client the body is not asked for more; otherwise it says that it waits itself.
        let is_stalled = stream.answers.load(Relaxed) && !stream.waits.load(Relaxed);
        if !is_stalled {
            stalled = None;
            return Poll::Pending;
        }
        let taken = stream.taken.load(Relaxed);
        if stalled.as_ref().is_none_or(|(then, _)| *then != taken) {
            stalled = Some((taken, Box::pin(tokio::time::sleep(patience))));
        }
        match &mut stalled {
            Some((_, timer)) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}

/// An answer's body, which tells its stream what it waits for.
struct Paced {
    body: Body,
    stream: Arc<Stream>,
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.stream.waits.store(frame.is_pending(), Relaxed);
        if frame.is_ready() {
            self.stream.taken.fetch_add(1, Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Requests of a client at the same time.
const STREAMS: u32 = 100;

/// Streams that a client may take back before they were looked at; one more ends the connection.
const RESETS: usize = 20;

/// Streams that the gateway resets for a client's mistakes, such as one too many; one more ends the connection.
const MISTAKES: usize = 100;

/// The size that every implementation takes (RFC 9113, section 4.2).
const FRAME: u32 = 16 << 10;

/// What a client may send of a body before it is asked for more; of all bodies. It is asked for more as the application reads,
/// so that no connection holds more than the latter: `docs/tls.md` says what that comes to.
const STREAM_WINDOW: u32 = 256 << 10;
const WINDOW: u32 = 1 << 20;

/// What is kept of an answer that the client does not take.
const SEND_BUFFER: usize = 64 << 10;

/// How often a silent client is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How long a client has that was told to go.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How late the end of the last stream may be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_of_a_cookie_are_one_again() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=b", "c=d; e=f", "g=\u{e9}"] {
            headers.append(COOKIE, HeaderValue::from_bytes(crumb.as_bytes()).unwrap());
        }
        join_cookies(&mut headers);
        let joined: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(joined, ["a=b; c=d; e=f; g=\u{e9}".as_bytes()]);
    }
}
