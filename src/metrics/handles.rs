//! What is counted for a route, an upstream, a listener, and the whole process.
//!
//! Handles are found by name when a configuration is loaded. One that several generations of the configuration name is the
//! same one, so that a reload loses no count; one that none names any longer goes, and its series with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::count::{Counter, Gauge, Histogram, Reading, Words, stripe, stripes_in_use};

/// Everything that outlives a configuration and has no other owner.
#[derive(Debug)]
pub struct Metrics {
    /// By route; `-` for requests that none decided.
    pub routes: Named<Route>,
    /// By upstream.
    pub upstreams: Named<Upstream>,
    /// By upstream and server.
    pub backends: Named<Backend>,
    /// By address.
    pub listeners: Named<Listener>,
    /// WebSockets.
    pub tunnels: Arc<Tunnels>,
    /// Client connections that were one too many.
    pub connections_refused: Arc<Counter>,
    /// When each of the gateway's certificates expires, by its file.
    pub certificates: Named<Gauge>,
    /// When each list of revoked certificates is out of date, by its file.
    pub revocation_lists: Named<Gauge>,
    /// Requests that no route decided: the gateway's own paths, what is malformed, what finds no route.
    pub no_route: Arc<Route>,
    /// Access tokens looked for in memory.
    pub tokens: Arc<Lookups>,
    /// Whether the store answered when it was last asked: 1 or 0.
    pub store_up: Gauge,
    /// Attempts to load the configuration anew.
    pub reloads: Reloads,
    /// Spans that the collector took.
    pub spans_exported: Counter,
    /// Spans that no collector has got: `queue-full`, `exporter`.
    pub spans_dropped: Words,
    /// When the gateway started, in seconds since 1970.
    pub started: u64,
}

impl Metrics {
    /// Nothing counted yet, at `now` in seconds since 1970: the configuration in force was loaded then.
    pub fn new(now: u64) -> Self {
        let routes = Named::default();
        let no_route = routes.find(NO_ROUTE);
        let store_up = Gauge::default();
        store_up.set(1);
        Self {
            routes,
            upstreams: Named::default(),
            backends: Named::default(),
            listeners: Named::default(),
            tunnels: Arc::default(),
            connections_refused: Arc::default(),
            certificates: Named::default(),
            revocation_lists: Named::default(),
            no_route,
            tokens: Arc::default(),
            store_up,
            reloads: Reloads::new(now),
            spans_exported: Counter::default(),
            spans_dropped: Words::new(&["queue-full", "exporter"]),
            started: now,
        }
    }
}

/// What was looked for in memory.
#[derive(Debug, Default)]
pub struct Lookups {
    /// It was there.
    pub hits: Counter,
    /// It was not.
    pub misses: Counter,
}

/// Handles by name, for as long as anyone holds them.
#[derive(Debug)]
pub struct Named<T>(Mutex<HashMap<Arc<str>, Weak<T>>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Named<T> {
    /// The handle of `name`: the one that someone holds, else a new one. Called when a configuration is loaded, never at a
    /// request.
    pub fn find(&self, name: &str) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known.get(name).and_then(Weak::upgrade) {
            return handle;
        }
        // Now and then only: a table of ten thousand routes is looked up one by one.
        if known.len().is_power_of_two() {
            known.retain(|_, handle| handle.strong_count() > 0);
        }
        let handle = Arc::new(T::default());
        known.insert(name.into(), Arc::downgrade(&handle));
        handle
    }

    /// All that someone holds, in the order of their names.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = known.iter().filter_map(|(name, handle)| Some((Arc::clone(name), handle.upgrade()?)));
        let mut all: Vec<_> = held.collect();
        drop(known);
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was let through, and the application's answer came back.
    Permit,
    /// A credential was asked for.
    Challenge,
    /// The rules said no.
    Deny,
    /// The rules said yes, and it was one too many.
    RateLimited,
    /// No route.
    NotFound,
    /// It could not be judged, or the client broke it off.
    BadRequest,
    /// The gateway's own paths.
    Own,
    /// It was let through, and the application gave no answer.
    UpstreamError,
    /// The gateway itself could not: the store is down, or worse.
    Error,
}

impl Outcome {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Permit,
        Self::Challenge,
        Self::Deny,
        Self::RateLimited,
        Self::NotFound,
        Self::BadRequest,
        Self::Own,
        Self::UpstreamError,
        Self::Error,
    ];

    /// The word for it: those of the access log's `decision`, and `upstream-error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Challenge => "challenge",
            Self::Deny => "deny",
            Self::RateLimited => "rate-limited",
            Self::NotFound => "not-found",
            Self::BadRequest => "bad-request",
            Self::Own => "own",
            Self::UpstreamError => "upstream-error",
            Self::Error => "error",
        }
    }
}

/// The requests that a route decided. Their counters are made when the first one comes: a table of ten thousand routes
/// costs neither memory nor series for those that nobody asks for.
#[derive(Debug, Default)]
pub struct Route(OnceLock<Box<[Shard]>>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    classes: [AtomicU64; CLASSES.len()],
    own: Histogram,
    upstream: Histogram,
}

/// The counts of a route, as a page shows them.
pub(super) struct Counts {
    pub(super) outcomes: [u64; Outcome::ALL.len()],
    pub(super) classes: [u64; CLASSES.len()],
    pub(super) own: Reading,
    pub(super) upstream: Reading,
}

impl Route {
    /// One more request: what came of it, its status, how long the gateway itself took until the head of the answer, and
    /// how long the upstream, if it answered.
    pub fn count(&self, outcome: Outcome, status: u16, own: Duration, upstream: Option<Duration>) {
        let shards = self.0.get_or_init(|| (0..stripes_in_use()).map(|_| Shard::default()).collect());
        let shard = &shards[stripe(shards.len())];
        shard.outcomes[outcome as usize].fetch_add(1, Relaxed);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        shard.classes[class].fetch_add(1, Relaxed);
        shard.own.observe(own);
        if let Some(upstream) = upstream {
            shard.upstream.observe(upstream);
        }
    }

    /// The counts over all stripes; `None`: nobody has asked for it yet.
    pub(super) fn counts(&self) -> Option<Counts> {
        let shards = self.0.get()?;
        let mut counts = Counts {
            outcomes: Default::default(),
            classes: Default::default(),
            own: Reading::default(),
            upstream: Reading::default(),
        };
        let add = |sums: &mut [u64], counters: &[AtomicU64]| {
            sums.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.load(Relaxed));
        };
        for shard in shards {
            add(&mut counts.outcomes, &shard.outcomes);
            add(&mut counts.classes, &shard.classes);
            shard.own.add_to(&mut counts.own);
            shard.upstream.add_to(&mut counts.upstream);
        }
        Some(counts)
    }
}

/// Classes of status codes (RFC 9110, section 15).
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What stands in place of a route's name where there is none.
const NO_ROUTE: &str = "-";

/// The connections to an upstream, and what became of requests there.
#[derive(Debug)]
pub struct Upstream {
    /// Attempts to connect, by result: `success`, `refused`, `timeout`, `tls`, `unresolved`, `no_descriptors`.
    pub connects: Words,
    /// Requests without an answer, by reason: the words of `message::rejection::Reason`.
    pub errors: Words,
    /// Open connections.
    pub connections: Gauge,
    /// Requests that wait for their turn.
    pub waiting: Gauge,
    /// Requests that were sent again, by why: `connect`, `stale`, `unprocessed`, `reset`, `status`.
    pub retries: Words,
    /// Those that were not, because too many were already.
    pub retries_held_back: Counter,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connects: Words::new(&["success", "refused", "timeout", "tls", "unresolved", "no_descriptors"]),
            errors: Words::new(&[
                "connect",
                "tls",
                "connect_timeout",
                "too_many_pending",
                "unhealthy",
                "reset",
                "bad_answer",
                "response_timeout",
            ]),
            connections: Gauge::default(),
            waiting: Gauge::default(),
            retries: Words::new(&["connect", "stale", "unprocessed", "reset", "status"]),
            retries_held_back: Counter::default(),
        }
    }
}

/// What one server of an upstream was given.
#[derive(Debug, Default)]
pub struct Backend {
    /// Requests, each time that one was sent.
    pub requests: Counter,
    /// How often it was left out because it failed requests.
    pub ejections: Counter,
}

/// The client connections of one listener.
#[derive(Debug)]
pub struct Listener {
    /// Those that are open.
    pub open: Gauge,
    /// All so far.
    pub accepted: Counter,
    /// Those that were closed because a trusted peer sent no PROXY header, or a malformed one.
    pub unintroduced: Counter,
    /// TLS handshakes that came to nothing, by reason.
    pub handshakes_failed: Words,
}

impl Default for Listener {
    fn default() -> Self {
        let handshakes_failed = Words::new(&["not_tls", "refused", "timeout"]);
        Self {
            open: Gauge::default(),
            accepted: Counter::default(),
            unintroduced: Counter::default(),
            handshakes_failed,
        }
    }
}

impl AsRef<Gauge> for Listener {
    fn as_ref(&self) -> &Gauge {
        &self.open
    }
}

/// WebSockets, over all workers.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// Those that are open.
    pub open: Gauge,
    /// All so far.
    pub opened: Counter,
}

impl AsRef<Gauge> for Tunnels {
    fn as_ref(&self) -> &Gauge {
        &self.open
    }
}

/// Attempts to load the configuration anew.
#[derive(Debug)]
pub struct Reloads {
    counts: Words,
    successful: Gauge,
    since: AtomicU64,
}

impl Reloads {
    fn new(now: u64) -> Self {
        let successful = Gauge::default();
        successful.set(1);
        Self { counts: Words::new(&["success", "failure"]), successful, since: AtomicU64::new(now) }
    }

    /// A new configuration is in force since `now`, in seconds since 1970.
    pub fn succeeded(&self, now: u64) {
        self.counts.count("success");
        self.successful.set(1);
        self.since.store(now, Relaxed);
    }

    /// The new configuration was refused, and the old one goes on.
    pub fn failed(&self) {
        self.counts.count("failure");
        self.successful.set(0);
    }

    /// The attempts by result.
    pub const fn counts(&self) -> &Words {
        &self.counts
    }

    /// Whether the last attempt succeeded: 1 or 0. Starting counts as one.
    pub fn successful(&self) -> i64 {
        self.successful.value()
    }

    /// When the configuration in force was loaded, in seconds since 1970.
    pub fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_two_generations_is_one_and_one_of_none_is_gone() {
        let metrics = Metrics::new(7);
        let names = |metrics: &Metrics| metrics.routes.all().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let first = [metrics.routes.find("admin"), metrics.routes.find("old")];
        first[0].count(Outcome::Deny, 403, Duration::from_micros(80), None);
        let second = [metrics.routes.find("admin"), metrics.routes.find("new")];
        drop(first);
        assert_eq!(names(&metrics), ["-".into(), "admin".into(), "new".into()] as [Arc<str>; 3]);
        let counts = second[0].counts().unwrap();
        assert_eq!(counts.outcomes[Outcome::Deny as usize], 1);
        assert_eq!((counts.classes[3], counts.own.buckets[0], counts.upstream.micros), (1, 1, 0));
        assert!(second[1].counts().is_none(), "nobody asked for it");
    }

    #[test]
    fn outcomes_are_counted_in_their_order() {
        let places: Vec<_> = Outcome::ALL.iter().map(|outcome| *outcome as usize).collect();
        assert_eq!(places, (0..Outcome::ALL.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_failed_reload_keeps_the_time_of_the_last_good_one() {
        let reloads = Reloads::new(10);
        assert_eq!((reloads.successful(), reloads.since()), (1, 10));
        reloads.succeeded(20);
        reloads.failed();
        assert_eq!((reloads.successful(), reloads.since()), (0, 20));
        assert_eq!(reloads.counts().values().collect::<Vec<_>>(), [("success", 1), ("failure", 1)]);
    }

    #[test]
    fn what_is_held_is_counted_until_it_is_dropped() {
        let listener = Arc::new(Listener::default());
        let held = [super::super::Held::new(&listener), super::super::Held::new(&listener)];
        assert_eq!(listener.open.value(), 2);
        drop(held);
        assert_eq!(listener.open.value(), 0);
    }
}
