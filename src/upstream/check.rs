//! Asks servers whether they are well: once for all workers, each server in its own time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::backend::Backend;
use super::health::{Checked, Streak};
use super::pool::Pool;
use super::{Lane, Outgoing, balance};
use crate::config::Check;
use crate::message::added::Added;
use crate::message::body::Body;

/// The checks that run.
#[derive(Debug, Default)]
pub struct Checkers {
    running: Vec<Checker>,
}

/// The check of one server, until it is dropped.
#[derive(Debug)]
struct Checker {
    backend: Arc<Backend>,
    check: Check,
    task: JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a server is not well.
#[derive(Debug)]
enum Ill {
    Status(StatusCode),
    Broken(super::SendError),
    Late(Duration),
    NoRequest(http::Error),
}

impl Checkers {
    /// From now on the servers of `pools` are checked as these say, on this runtime; a check that stays the same goes on
    /// undisturbed. `seed` is where the times between checks are drawn from.
    pub fn follow(&mut self, pools: &[Arc<Pool>], seed: u64) {
        let mut former = std::mem::take(&mut self.running);
        let servers = pools.iter().flat_map(|pool| pool.backends().map(move |backend| (backend, pool.settings())));
        for (number, (backend, settings)) in (1..).zip(servers) {
            let Some(check) = &settings.health.check else {
                backend.health().set_checked(Checked::Not, Instant::now());
                continue;
            };
            let is_same = |known: &Checker| Arc::ptr_eq(&known.backend, backend) && known.check == *check;
            let known = former.iter().position(is_same).map(|at| former.swap_remove(at));
            self.running.push(known.unwrap_or_else(|| {
                let task = tokio::spawn(watch(Arc::clone(backend), check.clone(), balance::mix(seed ^ number)));
                Checker { backend: Arc::clone(backend), check: check.clone(), task }
            }));
        }
    }
}

/// Checks one server until the task ends: at once, and then again and again.
async fn watch(backend: Arc<Backend>, check: Check, mut seed: u64) {
    let lane = Lane::new(Arc::clone(&backend), 0);
    let mut streak = Streak::default();
    loop {
        let asked = match timeout(check.timeout, ask(&lane, &check)).await {
            Ok(asked) => asked,
            Err(_) => Err(Ill::Late(check.timeout)),
        };
        if matches!(&asked, Err(Ill::Broken(error)) if error.is_own()) {
            // Nothing was asked.
            sleep(check.interval).await;
            continue;
        }
        let health = backend.health();
        let before = health.checked();
        let after = streak.judge(before, asked.is_ok(), &check);
        if after != before {
            health.set_checked(after, Instant::now());
            tell(&backend, before, asked.err());
        }
        seed = balance::mix(seed);
        sleep(jittered(check.interval, seed)).await;
    }
}

async fn ask(lane: &Lane, check: &Check) -> Result<(), Ill> {
    let authority = lane.backend().authority().as_str();
    let own = || HeaderValue::from_str(authority).map_err(|error| Ill::NoRequest(error.into()));
    let host = check.host.clone().map_or_else(own, Ok)?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let (method, target) = (&Method::GET, &check.path);
    let (headers, added, body) = (&mut headers, &Added::default(), Body::empty());
    let now = &Instant::now();
    let outgoing = Outgoing { method, target, headers, added, switches: false, is_kept: false, body, now };
    let reply = lane.send(outgoing).await.map_err(Ill::Broken)?;
    let status = reply.head.status();
    let is_good = check.status.iter().any(|range| range.contains(&status.as_u16()));
    is_good.then_some(()).ok_or(Ill::Status(status))
}

fn tell(backend: &Backend, before: Checked, ill: Option<Ill>) {
    let (upstream, server) = (backend.name(), &**backend.label());
    match (ill, before) {
        (Some(ill), _) => warn!(upstream, server, reason = %ill, "a server is down"),
        (None, Checked::Not) => info!(upstream, server, "a server is up"),
        (None, Checked::Up | Checked::Down) => info!(upstream, server, "a server is up again"),
    }
}

/// `interval`, a tenth more or less, so that many gateways don't ask at once.
fn jittered(interval: Duration, drawn: u64) -> Duration {
    let thousandths = 900 + u32::try_from(drawn % 201).unwrap_or(100);
    interval.saturating_mul(thousandths) / 1000
}

impl fmt::Display for Ill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the answer is {status}"),
            Self::Late(after) => write!(f, "no answer within {} ms", after.as_millis()),
            Self::NoRequest(error) => write!(f, "{error}"),
            Self::Broken(error) => {
                write!(f, "{error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
        }
    }
}

const AGENT: &str = concat!("portcullis-health/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_checks_differ_by_a_tenth_at_most() {
        let all: Vec<_> =
            (0..1000).map(|drawn| jittered(Duration::from_secs(10), balance::mix(drawn)).as_millis()).collect();
        assert!(all.iter().all(|millis| (9_000..=11_000).contains(millis)));
        assert!(all.iter().min() < Some(&9_100) && all.iter().max() > Some(&10_900));
    }
}
