//! The one body type: what the gateway answers itself, what a client sends, what an upstream answers.
//!
//! Frames pass through one at a time and are never collected. A body that was cut ends in an error, so that
//! hyper breaks the connection off instead of ending the message as if it were whole.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::headers::{IdentityNames, clean_trailers};
use super::loan::Lent;
use super::tether::{Hold, Tether};

/// A body of any origin.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    sent: u64,
    whole: bool,
    watcher: Option<Box<dyn Watcher>>,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    // Apart, as an answer that is there already is moved from hand to hand.
    Client(Box<Lent>),
    Upstream(Box<FromUpstream>),
}

/// Where the body of an upstream's answer comes from, kept until it is over.
pub trait Source: Send {
    /// The next frame.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>>;

    /// Whether nothing more comes.
    fn is_end_stream(&self) -> bool;

    /// How much is to come.
    fn size_hint(&self) -> SizeHint;
}

/// Why the body of an answer broke off.
pub type Cut = Box<dyn std::error::Error + Send + Sync>;

/// Learns how a body ended.
pub trait Watcher: Send + Sync {
    /// The body is over after `sent` bytes of data.
    fn ended(&self, end: End, sent: u64);
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// To its last byte.
    Whole,
    /// Before its end: an error, or nobody wanted the rest.
    Cut,
}

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The client sent more than allowed.
    TooLarge,
    /// The client stopped sending.
    ClientStalled,
    /// The client's framing is broken, or it left.
    ClientBroken(hyper::Error),
    /// The upstream's framing is broken, or its connection ended.
    UpstreamCut(Cut),
    /// The upstream stopped sending.
    UpstreamStalled,
    /// What allowed the request has ended.
    LeaseEnded,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that is there already.
    pub fn full(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        if data.is_empty() { Self::empty() } else { Self::of(Kind::Full(data)) }
    }

    /// A client's body, on loan to an attempt to forward it.
    pub(crate) fn lent(lent: Lent) -> Self {
        Self::of(Kind::Client(Box::new(lent)))
    }

    /// An upstream's body. It may pause for `between` at most and ends when `tether` says so; of its trailers goes on what
    /// may stand there, `names` being those that only the gateway sends.
    pub fn from_upstream(
        source: Box<dyn Source>,
        between: Option<Duration>,
        tether: Option<Arc<dyn Tether>>,
        names: &Arc<IdentityNames>,
    ) -> Self {
        if source.is_end_stream() {
            return Self::empty();
        }
        let names = Arc::clone(names);
        Self::of(Kind::Upstream(Box::new(FromUpstream {
            source,
            between,
            pause: None,
            failed: None,
            hold: Hold::new(tether),
            names,
        })))
    }

    /// Gives back what was taken of a client's body: it comes again.
    pub(crate) fn put_back(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        (self.sent, self.whole) = (self.sent.saturating_sub(data.len() as u64), false);
        if let Kind::Client(lent) = &mut self.kind {
            lent.put_back(data);
        }
    }

    /// Has the end of the body told to `watcher`.
    pub fn watch(&mut self, watcher: Box<dyn Watcher>) {
        self.watcher = Some(watcher);
    }

    fn of(kind: Kind) -> Self {
        Self { kind, sent: 0, whole: false, watcher: None }
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(data) => {
                let data = std::mem::take(data);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Kind::Client(lent) => lent.poll_frame(cx),
            Kind::Upstream(upstream) => upstream.poll_frame(cx),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_kind(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.sent += data.len() as u64;
                }
            }
            Poll::Ready(None) => self.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Client(lent) => lent.is_end_stream(),
            Kind::Upstream(upstream) => upstream.failed.is_none() && upstream.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(data) => SizeHint::with_exact(data.len() as u64),
            Kind::Client(lent) => lent.size_hint(),
            Kind::Upstream(upstream) => upstream.source.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            let end = if self.whole || self.is_end_stream() { End::Whole } else { End::Cut };
            watcher.ended(end, self.sent);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Client(_) => "client",
            Kind::Upstream(_) => "upstream",
        };
        f.debug_struct("Body").field("kind", &kind).field("sent", &self.sent).finish_non_exhaustive()
    }
}

/// An upstream's body with what may end it.
struct FromUpstream {
    source: Box<dyn Source>,
    between: Option<Duration>,
    pause: Option<Pause>,
    /// Why it ended, kept until what came before has gone out.
    failed: Option<Cut>,
    hold: Hold,
    names: Arc<IdentityNames>,
}

impl FromUpstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.hold.is_cut(cx) {
            return Poll::Ready(Some(Err(BodyError::LeaseEnded)));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(BodyError::UpstreamCut(error))));
        }
        if let Poll::Ready(frame) = self.source.poll_frame(cx) {
            if let Some(pause) = &mut self.pause {
                pause.end();
            }
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                self.hold.pass(data.map_or(0, Bytes::len));
            }
            return match frame {
                Some(Ok(frame)) => Poll::Ready(cleaned(frame, &self.names).map(Ok)),
                Some(Err(error)) => {
                    // hyper drops what it has not written yet when a body fails, be it the head.
                    self.failed = Some(error);
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            };
        }
        self.hold.pause();
        if self.hold.is_cut(cx) {
            return Poll::Ready(Some(Err(BodyError::LeaseEnded)));
        }
        if let Some(between) = self.between {
            let pause = self.pause.get_or_insert_with(Pause::new);
            if pause.is_over(between, cx) {
                return Poll::Ready(Some(Err(BodyError::UpstreamStalled)));
            }
        }
        Poll::Pending
    }
}

/// `frame` as it may go on; `None`: trailers of which nothing may.
pub(crate) fn cleaned(frame: Frame<Bytes>, names: &IdentityNames) -> Option<Frame<Bytes>> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean_trailers(&mut trailers, names);
            (!trailers.is_empty()).then(|| Frame::trailers(trailers))
        }
        Err(data) => Some(data),
    }
}

/// A pause that must not last too long. Its timer is kept between pauses.
pub(crate) struct Pause {
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Pause {
    pub(crate) const fn new() -> Self {
        Self { timer: None, running: false }
    }

    /// Something came.
    pub(crate) fn end(&mut self) {
        self.running = false;
    }

    /// Nothing came: whether that has lasted for `limit`.
    pub(crate) fn is_over(&mut self, limit: Duration, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.running {
            timer.as_mut().reset(tokio::time::Instant::now() + limit);
            self.running = true;
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is too large",
            Self::ClientStalled => "the client stopped sending",
            Self::ClientBroken(_) => "the request's body is malformed or cut",
            Self::UpstreamCut(_) => "the upstream's body is malformed or cut",
            Self::UpstreamStalled => "the upstream stopped sending",
            Self::LeaseEnded => "what allowed the stream has ended",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ClientBroken(source) => Some(source),
            Self::UpstreamCut(source) => Some(source.as_ref()),
            Self::TooLarge | Self::ClientStalled | Self::UpstreamStalled | Self::LeaseEnded => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::BodyExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Record(Arc<Mutex<Vec<(End, u64)>>>);

    impl Watcher for Record {
        fn ended(&self, end: End, sent: u64) {
            self.0.lock().unwrap().push((end, sent));
        }
    }

    #[tokio::test]
    async fn tells_once_how_it_ended() {
        let record = Record::default();
        let watched = |mut body: Body| {
            body.watch(Box::new(record.clone()));
            body
        };
        drop(watched(Body::empty()));
        let whole = watched(Body::full("hello"));
        assert_eq!(whole.size_hint().exact(), Some(5));
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "hello");
        drop(watched(Body::full("unread")));
        let ends = record.0.lock().unwrap().clone();
        assert_eq!(ends, [(End::Whole, 0), (End::Whole, 5), (End::Cut, 0)]);
    }

    struct Over(Arc<tokio::sync::Notify>);

    impl Tether for Over {
        fn cut(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move { self.0.notified().await })
        }
    }

    /// Five bytes, and no end.
    struct Endless(Option<Bytes>);

    impl Source for Endless {
        fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
            self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
        }

        fn is_end_stream(&self) -> bool {
            false
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_holds_it() {
        let over = Arc::new(tokio::sync::Notify::new());
        let source = Box::new(Endless(Some("hello".into())));
        let tether = Some(Arc::new(Over(over.clone())) as Arc<dyn Tether>);
        let mut body = Body::from_upstream(source, None, tether, &Arc::new(IdentityNames::new([])));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        let waits = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending()));
        assert!(waits.await);
        over.notify_one();
        assert!(matches!(body.frame().await, Some(Err(BodyError::LeaseEnded))));
    }

    #[tokio::test]
    async fn a_pause_ends_with_what_comes_and_is_counted_anew() {
        let mut pause = Pause::new();
        let short = Duration::from_millis(5);
        assert!(std::future::poll_fn(|cx| Poll::Ready(!pause.is_over(Duration::from_secs(60), cx))).await);
        pause.end();
        std::future::poll_fn(|cx| if pause.is_over(short, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}
