//! One server of an upstream, as all workers share it: its limits, what is in use of them, and its health.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::uri::Authority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connect::Way;
use super::health::Health;
use super::{BackendFault, authority};
use crate::config::{ServerAddr, Timeouts, Upstream as Settings, UpstreamLimits, UpstreamTls};
use crate::metrics::{Backend as Tally, Gauge, Metrics, Upstream as Counts};

/// One server of an upstream.
#[derive(Debug)]
pub struct Backend {
    name: String,
    address: ServerAddr,
    authority: Authority,
    label: Arc<str>,
    way: Way,
    tls: UpstreamTls,
    timeouts: Timeouts,
    limits: UpstreamLimits,
    turns: Arc<Semaphore>,
    pending: AtomicUsize,
    open: AtomicUsize,
    counts: Arc<Counts>,
    tally: Arc<Tally>,
    health: Arc<Health>,
}

/// Leave to have one request in progress at a backend, until it is dropped.
#[derive(Debug)]
pub struct Admission {
    _turn: OwnedSemaphorePermit,
}

impl Backend {
    /// The server `address` of the upstream `settings`, counted in `metrics`. `former` is what was known of the same
    /// server under other settings.
    ///
    /// # Errors
    /// When `address` can't stand in a URI, or no TLS can come about with it.
    pub(super) fn new(
        settings: &Settings,
        address: ServerAddr,
        metrics: &Metrics,
        former: Option<&Self>,
    ) -> Result<Arc<Self>, BackendFault> {
        let authority = authority(&address).map_err(BackendFault::Address)?;
        let label = label(&address);
        Ok(Arc::new(Self {
            name: settings.name.clone(),
            way: Way::to(&address, &settings.tls).map_err(BackendFault::Tls)?,
            tls: settings.tls.clone(),
            address,
            timeouts: settings.timeouts.clone(),
            limits: settings.limits.clone(),
            turns: Arc::new(Semaphore::new(settings.limits.connections.min(Semaphore::MAX_PERMITS))),
            pending: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            counts: metrics.upstreams.find(&settings.name),
            tally: metrics.backends.find(&format!("{} {label}", settings.name)),
            label,
            authority,
            health: former.map_or_else(|| Arc::new(Health::new(Instant::now())), |former| Arc::clone(&former.health)),
        }))
    }

    /// Whether it is the server `address` under `settings`, so that its connections are good for them too.
    pub(super) fn is_same(&self, settings: &Settings, address: &ServerAddr) -> bool {
        let Self { name, address: own, tls, timeouts, limits, .. } = self;
        let is_spoken_to_alike = !own.is_https() || *tls == settings.tls;
        let is_treated_alike = *timeouts == settings.timeouts && *limits == settings.limits;
        *name == settings.name && own == address && is_spoken_to_alike && is_treated_alike
    }

    /// The name of its upstream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place in the network.
    pub fn address(&self) -> &ServerAddr {
        &self.address
    }

    /// Its place in a URI.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What logs and metrics call it: its address.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The scheme and the place by which it may name itself.
    pub fn origin(&self) -> (&'static str, &Authority) {
        (if self.address.is_https() { "https" } else { "http" }, &self.authority)
    }

    pub(super) const fn way(&self) -> &Way {
        &self.way
    }

    /// Its upstream's timeouts.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    pub(super) const fn idle_limit(&self) -> usize {
        self.limits.idle
    }

    /// What is counted of its upstream.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What is counted of itself.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How it is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Open connections to it, those that wait for a request included.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Requests in progress there, over all workers.
    pub fn in_flight(&self) -> usize {
        // What has leave is what is not to be had: nothing else is counted on the way of a request.
        self.limits.connections.min(Semaphore::MAX_PERMITS).saturating_sub(self.turns.available_permits())
    }

    pub(super) fn count_open(&self) {
        self.open.fetch_add(1, Relaxed);
        self.counts.connections.rise();
    }

    pub(super) fn count_closed(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.counts.connections.fall();
    }

    /// Leave for one more request, if it may be in progress here at once. HTTP/1.1 has one request to a connection, so
    /// that this bounds the connections in use; unused ones that workers keep come on top. Requests over HTTP/2 share
    /// connections, of which there are fewer then.
    pub(super) fn try_admit(&self) -> Option<Admission> {
        self.turns.clone().try_acquire_owned().ok().map(|turn| Admission { _turn: turn })
    }

    /// Waits for the same. Whoever waits holds a [`Waiting`] of this or another server of the upstream.
    pub(super) fn turn(&self) -> impl Future<Output = Option<Admission>> + Send + 'static {
        let turn = self.turns.clone().acquire_owned();
        async move { turn.await.ok().map(|turn| Admission { _turn: turn }) }
    }

    /// One more who waits, if that may be.
    pub(super) fn wait(&self) -> Option<Waiting<'_>> {
        Waiting::begin(&self.pending, &self.counts.waiting, self.limits.pending)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }
}

/// What logs and metrics call the server at `address`.
pub(super) fn label(address: &ServerAddr) -> Arc<str> {
    address.host_port().map_or_else(|| address.to_string(), ToString::to_string).into()
}

/// One who waits, counted also when it gives up.
pub(super) struct Waiting<'a> {
    count: &'a AtomicUsize,
    shown: &'a Gauge,
}

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, shown: &'a Gauge, limit: usize) -> Option<Self> {
        shown.rise();
        let waiting = Self { count, shown };
        (count.fetch_add(1, Relaxed) < limit).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
        self.shown.fall();
    }
}
