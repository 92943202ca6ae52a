//! What is learned about a request along its way, until it is written as one access line.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::trace::{Recording, TraceId};
use crate::access::{Asker, Reason};
use crate::clock::Timestamp;
use crate::config::Route;
use crate::message::path::Reading;
use crate::message::rejection::Blame;
use crate::metrics::Outcome;
use crate::secret::Random;

/// Everything that an access line says.
#[derive(Clone, Debug)]
pub struct Record {
    /// Stands in the answer, the log and behind `portcullis why`.
    pub request_id: Arc<str>,
    /// When the head was whole.
    pub time: Timestamp,
    /// The same moment, for durations.
    pub started: Instant,
    /// The client, after trusted proxies were looked through.
    pub client: IpAddr,
    /// As it was sent.
    pub method: Method,
    /// The one host, or nothing when the request had none.
    pub host: String,
    /// The path as it came, without the query.
    pub path: String,
    /// What was answered.
    pub status: StatusCode,
    /// Who was there.
    pub user: Option<String>,
    /// The route that decided.
    pub route: Option<Arc<str>>,
    /// Its place in the configuration.
    pub route_index: Option<usize>,
    /// `permit`, `challenge`, `deny`, `rate-limited`, `not-found`, `bad-request`, `own`, `error`.
    pub decision: &'static str,
    /// Whose fault it is that a request that was let through got no answer.
    pub fault: Option<Blame>,
    /// A stable word for why; empty where the gateway's own pages have only a sentence.
    pub code: &'static str,
    /// Why, in the words of the rules.
    pub reason: String,
    /// Under which reading of the path it was refused.
    pub reading: Option<Reading>,
    /// Who asked, as the rules saw them. Never written down.
    pub asker: Asker,
    /// What would have been decided, had the route not only been observed.
    pub observed: Option<&'static str>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Until the last byte.
    pub duration: Duration,
    /// From the request's departure to the head of the upstream's answer.
    pub upstream_time: Option<Duration>,
    /// The upstream's name.
    pub upstream: Option<Arc<str>>,
    /// The address of the server that was asked last.
    pub server: Option<Arc<str>>,
    /// How often it was sent there and elsewhere.
    pub tries: u32,
    /// The trace that it is part of.
    pub trace: Option<TraceId>,
    /// Its spans, where it is recorded.
    pub recording: Option<Box<Recording>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Until the last byte.
    pub duration: Duration,
    /// From the request's departure to the head of the upstream's answer.
    pub upstream_time: Option<Duration>,
    /// Whether the answer broke off.
    pub is_cut: bool,
}

impl Ending {
    /// The end of `record`, which is whole.
    pub const fn of(record: &Record) -> Self {
        let Record { bytes_in, bytes_out, duration, upstream_time, .. } = *record;
        Self { bytes_in, bytes_out, duration, upstream_time, is_cut: false }
    }
}

impl Record {
    /// Notes why the request came out as it did.
    pub fn because(&mut self, reason: Reason, reading: Option<Reading>) {
        self.code = reason.code();
        self.reading = reading;
        self.reason = match reading {
            None => reason.to_string(),
            Some(reading) => format!("{reason}, read with {}", reading.name()),
        };
    }

    /// `route` has decided.
    pub fn decided_by(&mut self, route: &Route) {
        self.route = Some(Arc::clone(&route.name));
        self.route_index = Some(route.index);
    }

    /// What came of the request, for metrics and spans.
    pub fn outcome(&self) -> Outcome {
        match (self.fault, self.decision) {
            (None, "permit") => Outcome::Permit,
            (Some(Blame::Upstream), _) => Outcome::UpstreamError,
            (Some(Blame::Client), _) | (_, "bad-request") => Outcome::BadRequest,
            (Some(Blame::Gateway), _) => Outcome::Error,
            (None, "challenge") => Outcome::Challenge,
            (None, "deny") => Outcome::Deny,
            (None, "rate-limited") => Outcome::RateLimited,
            (None, "not-found") => Outcome::NotFound,
            (None, "own") => Outcome::Own,
            (None, _) => Outcome::Error,
        }
    }
}

/// The record of a request of which nothing is known but when and where it came from.
pub fn blank(request_id: Arc<str>, client: IpAddr, started: Instant) -> Record {
    Record {
        request_id,
        time: Timestamp::default(),
        started,
        client,
        method: Method::default(),
        host: String::new(),
        path: String::new(),
        status: StatusCode::OK,
        user: None,
        route: None,
        route_index: None,
        decision: "error",
        fault: None,
        code: "",
        reason: String::new(),
        reading: None,
        asker: Asker::default(),
        observed: None,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::ZERO,
        upstream_time: None,
        upstream: None,
        server: None,
        tries: 0,
        trace: None,
        recording: None,
    }
}

/// Makes request ids: unique, in no order that tells how many requests there are.
#[derive(Debug)]
pub struct RequestIds {
    start: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// A fresh series.
    pub fn new(random: &Random) -> Self {
        Self { start: u64::from_be_bytes(random.bytes()), next: AtomicU64::new(u64::from_be_bytes(random.bytes())) }
    }

    /// The next id: 32 hexadecimal digits.
    pub fn next(&self) -> Arc<str> {
        // An odd multiplier permutes the 64-bit numbers, so no id comes twice in a series.
        let step = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = u128::from(self.start) << 64 | u128::from(step ^ self.start.rotate_left(29));
        let mut digits = [0; 32];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = DIGITS[(id >> (124 - 4 * place) & 15) as usize];
        }
        std::str::from_utf8(&digits).unwrap_or_default().into()
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A record for tests.
#[cfg(test)]
pub(super) fn blank_for_tests() -> Record {
    Record {
        request_id: "0123".into(),
        time: Timestamp::from_millis(1_700_000_000_123),
        started: Instant::now(),
        client: [127, 0, 0, 1].into(),
        method: Method::GET,
        host: "apps.example.com".to_owned(),
        path: "/a".to_owned(),
        status: StatusCode::OK,
        user: Some("alice".to_owned()),
        route: Some("rest".into()),
        route_index: Some(2),
        decision: "permit",
        fault: None,
        code: "signed-in",
        reason: "signed in".to_owned(),
        reading: None,
        asker: Asker::default(),
        observed: None,
        bytes_in: 0,
        bytes_out: 12,
        duration: Duration::from_micros(1500),
        upstream_time: Some(Duration::from_micros(1200)),
        upstream: Some("app".into()),
        server: Some("10.0.0.1:9000".into()),
        tries: 2,
        trace: None,
        recording: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn gives_every_request_an_id_of_its_own() {
        let ids = RequestIds::new(&Random::system());
        let seen: HashSet<Arc<str>> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|id| id.len() == 32));
    }
}
