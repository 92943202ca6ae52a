//! W3C Trace Context (level 1): whose trace a request belongs to, whether it is recorded, and what the upstream is told.
//!
//! Without `[trace]` the two fields pass as they came, and the trace's id stands in the access log. With it, a request whose
//! parent is sampled is recorded, and of those without a parent a share; then `traceparent` names our span.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{mpsc, oneshot};

use super::Record;
use super::id::Digits;
use crate::config;
use crate::metrics::Metrics;
use crate::secret::Random;

/// The id of a trace: 32 hexadecimal digits, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

/// The id of a span: 16 hexadecimal digits, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(u64);

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span that the request was sent from.
    pub span: SpanId,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

/// A request that is recorded: its ids.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(super) trace: TraceId,
    pub(super) parent: Option<SpanId>,
    pub(super) server: SpanId,
    pub(super) client: SpanId,
}

/// A recorded request that is over.
#[derive(Debug)]
pub struct Finished {
    /// All that is known of it.
    pub record: Record,
    /// When it left for the upstream, from its beginning, and how long it was away; `None`: it never left.
    pub away: Option<(Duration, Duration)>,
    /// Whether its answer broke off.
    pub is_cut: bool,
}

/// Decides what is recorded, and hands it to the exporter. Never waits.
#[derive(Clone, Debug)]
pub struct Tracer {
    threshold: u64,
    jobs: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// What the exporter gets.
#[derive(Debug)]
pub(super) enum Job {
    Request(Box<Finished>),
    Flush(oneshot::Sender<()>),
}

impl Parent {
    /// What the one `traceparent` of `headers` says, if it is valid.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.as_bytes())
    }

    /// `version-trace-parent-flags`. A later version may say more behind another dash (section 4.3 of the recommendation).
    fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(LENGTH)?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let version = hex(&known[..2])?;
        let is_whole = more.is_empty() || (version > 0 && more[0] == b'-');
        if !dashes || !is_whole || version == 0xff {
            return None;
        }
        let (trace, span, flags) = (hex(&known[3..35])?, hex(&known[36..52])?, hex(&known[53..])?);
        let span = u64::try_from(span).ok()?;
        (trace != 0 && span != 0).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            is_sampled: flags & 1 == 1,
        })
    }
}

/// Lower-case hexadecimal digits: others are invalid.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

impl Recording {
    /// The trace that it is part of.
    pub const fn trace(&self) -> TraceId {
        self.trace
    }

    /// Tells the upstream that our span is its parent. What a client said of a trace that is none goes.
    pub fn announce(&self, headers: &mut HeaderMap) {
        let text = format!("00-{}-{}-01", self.trace, self.client);
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
    }
}

impl Tracer {
    /// A tracer by `[trace]`, and the queue that its exporter takes from.
    pub(super) fn new(config: &config::Trace, metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of the numbers below 2^63; the cast saturates"
        )]
        let threshold = (config.sample * (1_u64 << 63) as f64) as u64;
        (Self { threshold, jobs, metrics: Arc::clone(metrics) }, queue)
    }

    /// The ids of a request, if it is recorded.
    pub fn begin(&self, parent: Option<Parent>, random: &Random) -> Option<Recording> {
        if parent.is_some_and(|parent| !parent.is_sampled) {
            return None;
        }
        let trace = match parent {
            Some(parent) => parent.trace,
            None => {
                let id = u128::from_be_bytes(random.bytes());
                // The lower half, as others who sample by a share of the ids do, so that they take the same ones.
                #[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
                let lower = id as u64;
                if lower >> 1 >= self.threshold || id == 0 {
                    return None;
                }
                TraceId(id)
            }
        };
        let span = || SpanId(u64::from_be_bytes(random.bytes()).max(1));
        Some(Recording { trace, parent: parent.map(|parent| parent.span), server: span(), client: span() })
    }

    /// Hands over a request that is over. When the queue is full it is dropped and counted.
    pub fn export(&self, finished: Finished) {
        let spans = 1 + u64::from(finished.away.is_some());
        if self.jobs.try_send(Job::Request(Box::new(finished))).is_err() {
            self.metrics.spans_dropped.add("queue-full", spans);
        }
    }

    /// Waits, at most `patience`, until what was handed over so far has been sent.
    pub async fn flush(&self, patience: Duration) {
        let (done, sent) = oneshot::channel();
        let flushed = async {
            if self.jobs.send(Job::Flush(done)).await.is_ok() {
                let _exporter_gone = sent.await;
            }
        };
        let _collector_is_slow = tokio::time::timeout(patience, flushed).await;
    }
}

impl TraceId {
    /// The id as text.
    pub(super) fn digits(self) -> Digits {
        Digits::of(self.0)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// Requests that may wait for a slow collector: a few megabytes.
const QUEUE: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostPort;

    fn tracer(sample: f64) -> (Tracer, mpsc::Receiver<Job>) {
        let collector = HostPort { host: "127.0.0.1".to_owned(), port: 4318 };
        let config = config::Trace { collector, https: false, ca: None, sample, service: "s".to_owned() };
        Tracer::new(&config, &Arc::new(Metrics::new(0)))
    }

    #[test]
    fn reads_what_is_valid_and_nothing_else() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (value, sampled) in [
            (format!("00-{trace}-{span}-01"), Some(true)),
            (format!("00-{trace}-{span}-00"), Some(false)),
            (format!("00-{trace}-{span}-ff"), Some(true)),
            (format!("cc-{trace}-{span}-01-what-comes-later"), Some(true)),
            (format!("cc-{trace}-{span}-01"), Some(true)),
            (format!("00-{trace}-{span}-01-more"), None),
            (format!("cc-{trace}-{span}-01.more"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("00-{}-{span}-01", trace.to_uppercase()), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{trace}-{span}-0"), None),
            (format!("00_{trace}-{span}-01"), None),
            (format!("00-{trace}-{span}-0g"), None),
            (String::new(), None),
        ] {
            let parent = Parent::parse(value.as_bytes());
            assert_eq!(parent.map(|parent| parent.is_sampled), sampled, "{value}");
            if let Some(parent) = parent {
                assert_eq!((parent.trace.to_string(), parent.span.to_string()), (trace.to_owned(), span.to_owned()));
            }
        }
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(format!("00-{trace}-{span}-01")).unwrap();
        headers.append(TRACEPARENT, value.clone());
        assert!(Parent::read(&headers).is_some());
        headers.append(TRACEPARENT, value);
        assert!(Parent::read(&headers).is_none(), "two are none");
    }

    #[test]
    fn the_parent_decides_and_of_the_others_a_share() {
        let random = Random::system();
        let parent = |is_sampled| Some(Parent { trace: TraceId(7), span: SpanId(8), is_sampled });
        let (none, _queue) = tracer(0.0);
        let (all, _queue) = tracer(1.0);
        let (half, _queue) = tracer(0.5);
        assert!(none.begin(None, &random).is_none());
        let followed = none.begin(parent(true), &random).unwrap();
        assert_eq!((followed.trace, followed.parent), (TraceId(7), Some(SpanId(8))));
        assert!(all.begin(parent(false), &random).is_none());
        assert!((0..100).all(|_| all.begin(None, &random).is_some()));
        let taken = (0..2000).filter(|_| half.begin(None, &random).is_some()).count();
        // Eight standard deviations on either side.
        assert!((820..1180).contains(&taken), "{taken} of 2000");
    }

    #[test]
    fn the_upstream_is_told_of_our_span() {
        let recording = |parent| Recording { trace: TraceId(0xab), parent, server: SpanId(1), client: SpanId(2) };
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-1-2-01"));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        recording(Some(SpanId(9))).announce(&mut headers);
        assert_eq!(headers[TRACEPARENT], "00-000000000000000000000000000000ab-0000000000000002-01");
        assert_eq!(headers[TRACESTATE], "a=b");
        recording(None).announce(&mut headers);
        assert!(!headers.contains_key(TRACESTATE), "of a trace that is none");
    }

    #[test]
    fn one_too_many_is_dropped_and_counted() {
        let (tracer, _nobody_takes) = tracer(1.0);
        let record = crate::observe::record::blank_for_tests();
        for _ in 0..QUEUE + 3 {
            let away = Some((Duration::ZERO, Duration::ZERO));
            tracer.export(Finished { record: record.clone(), away, is_cut: false });
        }
        let dropped: Vec<_> = tracer.metrics.spans_dropped.values().collect();
        assert_eq!(dropped, [("queue-full", 6), ("exporter", 0)]);
    }
}
