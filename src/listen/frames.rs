//! The frames of an HTTP/2 client as they pass (RFC 9113, section 4.1): only their heads are looked at.
//!
//! h2 answers every SETTINGS and PING, and takes any number of frames that cost a client nothing and carry nothing. So
//! they have a budget here, which time and what the client takes of us fill up again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::config::Limits;

/// What a connection is doing, for its deadlines. Socket, streams and the connection's task share it.
#[derive(Debug)]
pub(super) struct Pulse {
    opened: Instant,
    streams: AtomicUsize,
    has_begun: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
}

impl Pulse {
    /// That of a connection that was opened then.
    pub(super) fn new(opened: Instant) -> Arc<Self> {
        Arc::new(Self {
            opened,
            streams: AtomicUsize::new(0),
            has_begun: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
        })
    }

    /// A request begins, and is in progress until the result is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Beat {
        self.has_begun.store(true, Relaxed);
        self.streams.fetch_add(1, Relaxed);
        Beat(Arc::clone(self))
    }

    /// When the connection has taken too long with what it is doing.
    pub(super) fn deadline(&self, limits: &Limits, last_chance: Option<Duration>) -> Option<Instant> {
        let since = |moment: &AtomicU64| match moment.load(Relaxed) {
            NEVER => None,
            millis => Some(self.opened + Duration::from_millis(millis)),
        };
        if let Some(since) = since(&self.blocked_since) {
            return Some(since + limits.body_timeout);
        }
        if let Some(since) = since(&self.head_since) {
            return Some(since + limits.header_timeout);
        }
        if self.streams.load(Relaxed) > 0 {
            return None;
        }
        let span = if self.has_begun.load(Relaxed) { limits.idle_timeout } else { limits.header_timeout };
        since(&self.idle_since).map(|since| since + last_chance.map_or(span, |last| span.min(last)))
    }

    /// From now on the time of an idle connection counts anew.
    pub(super) fn count_anew(&self) {
        self.idle_since.store(self.millis(), Relaxed);
    }

    fn set(&self, moment: &AtomicU64, is_so: bool) {
        let was_so = moment.load(Relaxed) != NEVER;
        if is_so != was_so {
            moment.store(if is_so { self.millis() } else { NEVER }, Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// One request in progress.
#[derive(Debug)]
pub(super) struct Beat(Arc<Pulse>);

impl Drop for Beat {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Relaxed) == 1 {
            self.0.count_anew();
        }
    }
}

/// A client's connection under h2.
#[derive(Debug)]
pub(super) struct Frames<S> {
    stream: S,
    pulse: Arc<Pulse>,
    scan: Scan,
    budget: Budget,
}

impl<S> Frames<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, scan: Scan::Preface(PREFACE), budget: Budget::new(Instant::now()) }
    }
}

/// Where the bytes that come are.
#[derive(Debug)]
enum Scan {
    /// So many bytes before the end of the connection preface, whose content h2 checks.
    Preface(usize),
    /// In the head of a frame, of which so many bytes are there.
    Head([u8; HEAD], usize),
    /// So many bytes before the end of a frame.
    Payload(usize),
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
}

impl Scan {
    /// Goes over `bytes`, and tells `each` of every head that is whole.
    fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            match self {
                Self::Preface(left) | Self::Payload(left) => {
                    let here = bytes.len().min(*left);
                    *left -= here;
                    bytes = &bytes[here..];
                    if *left == 0 {
                        *self = Self::Head([0; HEAD], 0);
                    }
                }
                Self::Head(head, have) => {
                    let here = bytes.len().min(HEAD - *have);
                    head[*have..*have + here].copy_from_slice(&bytes[..here]);
                    *have += here;
                    bytes = &bytes[here..];
                    if *have == HEAD {
                        let [a, b, c, kind, flags, ..] = *head;
                        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                        each(Head { length, kind, flags });
                        *self = if length == 0 { Self::Head([0; HEAD], 0) } else { Self::Payload(length) };
                    }
                }
            }
        }
    }
}

impl Head {
    /// Whether it costs the client next to nothing: all but heads of requests and data.
    const fn is_cheap(self) -> bool {
        match self.kind {
            DATA => self.length == 0 && self.flags & END_STREAM == 0,
            HEADERS | CONTINUATION => false,
            _ => true,
        }
    }

    /// Whether more of a request's head is to come; `None`: it has nothing to do with one.
    const fn leaves_open(self) -> Option<bool> {
        match self.kind {
            HEADERS | CONTINUATION => Some(self.flags & END_HEADERS == 0),
            _ => None,
        }
    }
}

/// How many cheap frames may come.
#[derive(Debug)]
struct Budget {
    left: u64,
    filled: Instant,
    written: u64,
}

impl Budget {
    const fn new(now: Instant) -> Self {
        Self { left: MOST_CHEAP, filled: now, written: 0 }
    }

    /// One more; whether it may.
    fn spend(&mut self, now: Instant) -> bool {
        let millis = u64::try_from((now - self.filled).as_millis()).unwrap_or(u64::MAX);
        let by_time = millis.saturating_mul(CHEAP_PER_SECOND) / 1000;
        if by_time > 0 {
            self.filled = now;
        }
        let by_bytes = self.written / BYTES_PER_CHEAP;
        self.written %= BYTES_PER_CHEAP;
        self.left = self.left.saturating_add(by_time).saturating_add(by_bytes).min(MOST_CHEAP);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
        let (pulse, budget, mut is_flooded) = (&this.pulse, &mut this.budget, false);
        this.scan.scan(&into.filled()[before..], |head| {
            if let Some(is_open) = head.leaves_open() {
                pulse.set(&pulse.head_since, is_open);
            }
            is_flooded |= head.is_cheap() && !budget.spend(Instant::now());
        });
        if is_flooded {
            return Poll::Ready(Err(io::Error::other("too many frames that say nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Frames<S> {
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        self.pulse.set(&self.pulse.blocked_since, written.is_pending());
        if let Poll::Ready(Ok(count)) = written {
            self.budget.written = self.budget.written.saturating_add(*count as u64);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(&written);
        written
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

const NEVER: u64 = u64::MAX;

/// The length of `PRI * HTTP/2.0…` (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Cheap frames at once.
const MOST_CHEAP: u64 = 1000;

/// So many more with each second.
const CHEAP_PER_SECOND: u64 = 100;

/// One more for so many bytes that the client takes: it says that there is room again.
const BYTES_PER_CHEAP: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(bytes: &[u8]) -> Vec<Head> {
        let whole = |cut: usize| {
            let (mut scan, mut found) = (Scan::Preface(PREFACE), Vec::new());
            scan.scan(&bytes[..cut], |head| found.push(head));
            scan.scan(&bytes[cut..], |head| found.push(head));
            found
        };
        let found = whole(0);
        (0..=bytes.len()).for_each(|cut| assert_eq!(whole(cut), found, "cut at {cut}"));
        found
    }

    #[test]
    fn finds_the_heads_of_frames_wherever_reads_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 3, 1, 5, 0, 0, 0, 1, 7, 8, 9]);
        bytes.extend([0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0, 0, 0, 0]);
        let head = |length, kind, flags| Head { length, kind, flags };
        assert_eq!(heads(&bytes), [head(0, 4, 0), head(3, HEADERS, 5), head(8, 6, 1)]);
    }

    #[test]
    fn what_carries_something_is_not_cheap() {
        let cheap = |kind, length, flags| Head { length, kind, flags }.is_cheap();
        assert!(
            !cheap(DATA, 1, 0) && !cheap(DATA, 0, END_STREAM) && !cheap(HEADERS, 5, 0) && !cheap(CONTINUATION, 5, 0)
        );
        assert!(cheap(DATA, 0, 0));
        for kind in [2, 3, 4, 6, 7, 8, 0x42] {
            assert!(cheap(kind, 8, 0), "{kind}");
        }
    }

    #[tokio::test]
    async fn the_budget_is_filled_by_time_and_by_what_the_client_takes() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let spent = |budget: &mut Budget, now| (0..5000).take_while(|_| budget.spend(now)).count() as u64;
        assert_eq!(spent(&mut budget, start), MOST_CHEAP);
        assert_eq!(spent(&mut budget, start + Duration::from_secs(2)), 2 * CHEAP_PER_SECOND);
        budget.written = 10 * BYTES_PER_CHEAP;
        assert_eq!(spent(&mut budget, start + Duration::from_secs(2)), 10);
        assert_eq!(spent(&mut budget, start + Duration::from_secs(3600)), MOST_CHEAP);
    }
}
