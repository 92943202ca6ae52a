//! One server of an upstream, as all workers share it: its limits and what is in use of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::uri::Authority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::connect::Way;
use super::{BackendFault, LONGEST_WAIT, authority};
use crate::config::{ServerAddr, Timeouts, Upstream as Settings};
use crate::metrics::{Gauge, Upstream as Counts};

/// One server of an upstream.
#[derive(Debug)]
pub struct Backend {
    name: String,
    address: ServerAddr,
    authority: Authority,
    way: Way,
    timeouts: Timeouts,
    idle: usize,
    turns: Arc<Semaphore>,
    pending: AtomicUsize,
    pending_limit: usize,
    open: AtomicUsize,
    counts: Arc<Counts>,
}

/// Leave to have one request in progress at a backend, until it is dropped.
#[derive(Debug)]
pub struct Admission {
    _turn: OwnedSemaphorePermit,
}

/// Why a request may not wait for its turn, or not any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Backend {
    /// The server `address` of the upstream `settings`, whose `counts` all its servers share.
    ///
    /// # Errors
    /// When `address` can't stand in a URI, or no TLS can come about with it.
    pub fn new(settings: &Settings, address: ServerAddr, counts: Arc<Counts>) -> Result<Arc<Self>, BackendFault> {
        let limits = &settings.limits;
        Ok(Arc::new(Self {
            name: settings.name.clone(),
            authority: authority(&address).map_err(BackendFault::Address)?,
            way: Way::to(&address, &settings.tls).map_err(BackendFault::Tls)?,
            address,
            timeouts: settings.timeouts.clone(),
            idle: limits.idle,
            turns: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            pending: AtomicUsize::new(0),
            pending_limit: limits.pending,
            open: AtomicUsize::new(0),
            counts,
        }))
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
        self.idle
    }

    /// What is counted of its upstream.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Open connections to it, those that wait for a request included.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub(super) fn count_open(&self) {
        self.open.fetch_add(1, Relaxed);
        self.counts.connections.rise();
    }

    pub(super) fn count_closed(&self) {
        self.open.fetch_sub(1, Relaxed);
        self.counts.connections.fall();
    }

    /// Waits until one more request may be in progress here. HTTP/1.1 has one request to a connection, so
    /// that this bounds the connections in use; unused ones that workers keep come on top. Requests over HTTP/2 share
    /// connections, of which there are fewer then.
    ///
    /// # Errors
    /// When too many wait already, or the wait has lasted as long as an answer may.
    pub async fn admit(&self) -> Result<Admission, Refused> {
        match self.turns.clone().try_acquire_owned() {
            Ok(turn) => return Ok(Admission { _turn: turn }),
            Err(TryAcquireError::Closed) => return Err(Refused),
            Err(TryAcquireError::NoPermits) => {}
        }
        let _waiting = Waiting::begin(&self.pending, &self.counts.waiting, self.pending_limit).ok_or(Refused)?;
        let wait = self.timeouts.response.min(LONGEST_WAIT);
        match tokio::time::timeout(wait, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(Admission { _turn: turn }),
            Ok(Err(_)) | Err(_) => Err(Refused),
        }
    }
}

/// One who waits, counted also when it gives up.
struct Waiting<'a> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{HostPort, UpstreamLimits};

    fn backend(connections: usize, pending: usize) -> Arc<Backend> {
        let settings = Settings {
            name: "app".into(),
            servers: Vec::new(),
            tls: Default::default(),
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                response: Duration::from_millis(20),
                between: None,
                idle: Duration::from_secs(90),
            },
            limits: UpstreamLimits { connections, idle: 32, pending },
        };
        Backend::new(&settings, ServerAddr::Http(HostPort { host: "::1".into(), port: 80 }), Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn one_too_many_waits_and_one_more_is_refused() {
        let backend = backend(1, 1);
        assert_eq!(backend.authority().as_str(), "[::1]:80");
        let first = backend.admit().await.unwrap();
        let waiting = tokio::spawn({
            let backend = backend.clone();
            async move { backend.admit().await.map(drop) }
        });
        while backend.pending.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(backend.admit().await.unwrap_err(), Refused);
        assert_eq!(backend.counts().waiting.value(), 1);
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!((backend.pending.load(Relaxed), backend.counts().waiting.value()), (0, 0));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let backend = backend(1, 1);
        let _first = backend.admit().await.unwrap();
        assert_eq!(backend.admit().await.unwrap_err(), Refused);
        assert_eq!(backend.pending.load(Relaxed), 0);
    }
}
