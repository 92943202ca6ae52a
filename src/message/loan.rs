//! A client's body on its way upstream: limited, timed, and lent to each attempt to send it.
//!
//! hyper's client gives a request back to nobody. So an attempt gets a [`Body`] that
//! returns the client's one to its [`Loan`] when it is dropped and nothing of it went out, and that leaves a mark there
//! when the client itself was at fault, which hyper's error does not tell.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{Body, BodyError, Pause, cleaned};
use super::headers::IdentityNames;
use super::tether::{Hold, Tether};

/// What is known of a client's body that is lent out.
pub struct Loan {
    home: Mutex<Option<Home>>,
    fault: Mutex<Option<ClientFault>>,
    limit: Option<u64>,
    stall: Duration,
    tether: Option<Arc<dyn Tether>>,
    names: Arc<IdentityNames>,
    began: Instant,
    moved: AtomicU64,
    waiting: AtomicBool,
    over: AtomicBool,
    received: AtomicU64,
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("fault", &self.fault).field("received", &self.received).finish_non_exhaustive()
    }
}

/// A body of which nothing is gone.
struct Home {
    incoming: Incoming,
    /// What was taken of it and given back, which comes first.
    ahead: Option<Bytes>,
}

/// What a client did wrong while it sent its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// It sent more than allowed.
    TooLarge,
    /// It stopped sending.
    Stalled,
    /// Its framing is broken, or it left.
    Broken,
    /// It went on sending when what allowed the request had ended.
    Unleased,
}

impl Loan {
    /// Takes `incoming` into keeping: at most `limit` bytes, never longer than `stall` without any, and no longer than
    /// `tether` allows. Of its trailers goes on what may stand there, `names` being those that only the gateway sends.
    pub fn new(
        incoming: Incoming,
        limit: Option<u64>,
        stall: Duration,
        tether: Option<Arc<dyn Tether>>,
        names: &Arc<IdentityNames>,
    ) -> Arc<Self> {
        Arc::new(Self {
            home: Mutex::new(Some(Home { incoming, ahead: None })),
            fault: Mutex::new(None),
            limit,
            stall,
            tether,
            names: Arc::clone(names),
            began: Instant::now(),
            moved: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            over: AtomicBool::new(false),
            received: AtomicU64::new(0),
        })
    }

    /// Lends the body to an attempt, if it is at home.
    pub fn lend(self: &Arc<Self>) -> Option<Body> {
        let Home { incoming, ahead } = self.leave_home()?;
        let counted = ahead.as_ref().map_or(0, |data| data.len() as u64);
        let lent = Lent {
            incoming: Some(incoming),
            ahead,
            gone: 0,
            ended: false,
            left: self.limit.map(|limit| limit.saturating_sub(counted)),
            pause: Pause::new(),
            hold: Hold::new(self.tether.clone()),
            loan: self.clone(),
        };
        Some(Body::lent(lent))
    }

    /// What is left of the body to be read, if nothing of it went out.
    pub fn take_back(&self) -> Option<Incoming> {
        self.leave_home().map(|home| home.incoming)
    }

    fn leave_home(&self) -> Option<Home> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nothing of it went out, so that it can be lent again.
    pub(crate) fn is_at_home(&self) -> bool {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What the client did wrong.
    pub fn fault(&self) -> Option<ClientFault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of data that came.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Whether all of it came.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Since when the upstream, and not the client, has been the one to do something; `None` while the
    /// client is waited for.
    pub(crate) fn upstream_since(&self) -> Option<Instant> {
        let moved = self.began + Duration::from_micros(self.moved.load(Relaxed));
        (!self.waiting.load(Relaxed)).then_some(moved)
    }

    fn moves(&self) {
        self.waiting.store(false, Relaxed);
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.moved.store(now, Relaxed);
    }

    fn blame(&self, fault: ClientFault) {
        self.waiting.store(false, Relaxed);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }
}

/// A client's body while an attempt has it.
pub(crate) struct Lent {
    incoming: Option<Incoming>,
    /// What was taken and given back.
    ahead: Option<Bytes>,
    /// Bytes that were taken and not given back.
    gone: u64,
    ended: bool,
    left: Option<u64>,
    pause: Pause,
    hold: Hold,
    loan: Arc<Loan>,
}

impl Lent {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.ahead.take() {
            self.gone += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(incoming) = self.incoming.as_mut().filter(|_| !self.ended) else {
            return Poll::Ready(None);
        };
        if self.hold.is_cut(cx) {
            return self.unleased();
        }
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            self.loan.waiting.store(true, Relaxed);
            self.hold.pause();
            if self.hold.is_cut(cx) {
                return self.unleased();
            }
            if self.pause.is_over(self.loan.stall, cx) {
                self.loan.blame(ClientFault::Stalled);
                self.ended = true;
                return Poll::Ready(Some(Err(BodyError::ClientStalled)));
            }
            return Poll::Pending;
        };
        self.pause.end();
        self.loan.moves();
        match frame {
            Some(Ok(frame)) => self.pass(frame),
            Some(Err(error)) => {
                self.loan.blame(ClientFault::Broken);
                self.ended = true;
                Poll::Ready(Some(Err(BodyError::ClientBroken(error))))
            }
            None => {
                self.ended = true;
                self.loan.over.store(true, Relaxed);
                Poll::Ready(None)
            }
        }
    }

    fn unleased(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.loan.blame(ClientFault::Unleased);
        self.ended = true;
        Poll::Ready(Some(Err(BodyError::LeaseEnded)))
    }

    /// Counts data; trailers are the last that comes.
    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(data) = frame.data_ref() else {
            // They can't be given back.
            self.gone += 1;
            self.ended = true;
            self.loan.over.store(true, Relaxed);
            return Poll::Ready(cleaned(frame, &self.loan.names).map(Ok));
        };
        let size = data.len() as u64;
        self.gone += size;
        self.loan.received.fetch_add(size, Relaxed);
        self.hold.pass(data.len());
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(size) else {
                self.loan.blame(ClientFault::TooLarge);
                self.ended = true;
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            *left = rest;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Gives `data` back, which comes before what is left.
    pub(super) fn put_back(&mut self, data: Bytes) {
        self.gone = self.gone.saturating_sub(data.len() as u64);
        self.ahead = Some(data);
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        if self.ahead.is_some() {
            return false;
        }
        self.ended || self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let left = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let ahead = self.ahead.as_ref().map_or(0, |data| data.len() as u64);
        match left.exact() {
            Some(left) => SizeHint::with_exact(left + ahead),
            None => left,
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_whole = self.gone == 0 && self.loan.fault().is_none();
        if let Some(incoming) = self.incoming.take().filter(|_| is_whole) {
            let home = Home { incoming, ahead: self.ahead.take() };
            *self.loan.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(home);
        }
    }
}

/// Has the rest of a body read and dropped after an answer that did not need it, so that the client sees the
/// answer and its connection can be used again: up to 256 KiB or 2 s. Says whether the connection must be
/// closed, because the client waits for a `100 Continue` that it is not going to get (RFC 9110, 10.1.1).
#[must_use]
pub fn drain_after(body: Incoming, expects_continue: bool) -> bool {
    if body.is_end_stream() {
        return false;
    }
    if expects_continue {
        return true;
    }
    if body.size_hint().lower() > DRAINED_BYTES {
        return true;
    }
    tokio::spawn(tokio::time::timeout(DRAINED_FOR, drain(body)));
    false
}

async fn drain(mut body: Incoming) {
    let mut left = DRAINED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(rest) = left.checked_sub(size) else {
            return;
        };
        left = rest;
    }
}

/// How much of a body that nobody wants is read.
const DRAINED_BYTES: u64 = 256 * 1024;

/// For how long.
pub(crate) const DRAINED_FOR: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use http::{Request, Response};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::sync::mpsc;

    use super::*;

    /// The body of a request of five bytes, of which two have come, and the client that sends it.
    async fn loan() -> (Arc<Loan>, DuplexStream) {
        let (near, mut client) = tokio::io::duplex(4096);
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhe").await.unwrap();
        let (came, mut bodies) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            came.send(request.into_body()).unwrap();
            pending::<Result<Response<Body>, Infallible>>()
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(near), service));
        let names = Arc::new(IdentityNames::new([]));
        let body = bodies.recv().await.unwrap();
        (Loan::new(body, Some(5), Duration::from_secs(60), None, &names), client)
    }

    async fn take(body: &mut Body) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn what_was_given_back_can_be_lent_again_and_comes_whole() {
        let (loan, mut client) = loan().await;
        drop(loan.lend().unwrap());
        let mut body = loan.lend().unwrap();
        assert!(loan.lend().is_none(), "one at a time");
        let some = take(&mut body).await;
        assert_eq!(some, "he");
        body.put_back(some);
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(5));
        drop(body);
        assert!(loan.is_at_home());
        client.write_all(b"llo").await.unwrap();
        let mut body = loan.lend().unwrap();
        assert_eq!(body.size_hint().exact(), Some(5));
        let whole = [take(&mut body).await, take(&mut body).await].concat();
        assert_eq!((&*whole, loan.received(), body.is_end_stream()), (&b"hello"[..], 5, true));
        // All of it, too.
        body.put_back(whole.into());
        drop(body);
        let whole = loan.lend().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!((whole, loan.received(), loan.fault()), ("hello".into(), 5, None));
    }

    #[tokio::test]
    async fn of_what_went_out_in_part_nothing_is_lent_again() {
        let (loan, _client) = loan().await;
        let mut body = loan.lend().unwrap();
        take(&mut body).await;
        drop(body);
        assert!(!loan.is_at_home() && loan.lend().is_none() && loan.take_back().is_none());
    }
}
