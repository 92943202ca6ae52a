//! An upstream as all workers share it: its servers, which of them is next, and who waits for one.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout};

use super::backend::{Admission, Backend};
use super::balance::{self, Candidate, Turns};
use super::budget::Budget;
use super::health::{Standing, WHOLE};
use super::{BackendFault, LONGEST_WAIT};
use crate::config::{Balance, HashBy, Upstream as Settings, WeightedServer};
use crate::message::cookie;
use crate::metrics::{Metrics, Upstream as Counts};

/// The servers of an upstream.
#[derive(Debug)]
pub struct Pool {
    settings: Arc<Settings>,
    members: Box<[Member]>,
    turns: Turns,
    draws: AtomicU64,
    budget: Arc<Budget>,
    counts: Arc<Counts>,
}

/// One of them.
#[derive(Debug)]
struct Member {
    backend: Arc<Backend>,
    weight: u64,
    seed: u64,
    passed: AtomicU64,
}

/// Leave to send one request to one of the servers.
#[derive(Debug)]
pub struct Turn {
    /// Which.
    pub at: usize,
    /// Whether it was waited for, so that time has passed.
    pub has_waited: bool,
    /// For as long as the request is in progress.
    pub admission: Admission,
}

/// A turn that is waited for.
type Waited = Pin<Box<dyn Future<Output = Option<Admission>> + Send>>;

/// Why there is no server for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// Too many wait already, or the wait has lasted as long as an answer may.
    Busy,
    /// None is well; the checks look again after this time.
    Down(Duration),
    /// None is left that was not tried.
    NoOther,
}

/// Whose request it is, where that decides about the server.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Who is signed in.
    pub user: Option<&'a str>,
    /// Where the request comes from.
    pub client: IpAddr,
}

impl Pool {
    /// The servers of `settings`. What `former` knows of those that are the same goes on, with their connections.
    ///
    /// # Errors
    /// When an address can't stand in a URI, or no TLS can come about.
    pub fn new(settings: &Arc<Settings>, metrics: &Metrics, former: Option<&Self>) -> Result<Arc<Self>, BackendFault> {
        let counts = metrics.upstreams.find(&settings.name);
        let member = |server: &WeightedServer| {
            let known = former.iter().flat_map(|former| former.backends());
            let known = known.into_iter().find(|known| *known.address() == server.address);
            let backend = match known {
                Some(same) if same.is_same(settings, &server.address) => Arc::clone(same),
                known => Backend::new(settings, server.address.clone(), metrics, known.map(AsRef::as_ref))?,
            };
            let seed = seed(backend.label());
            Ok::<_, BackendFault>(Member { backend, weight: server.weight.into(), seed, passed: AtomicU64::new(0) })
        };
        let budget = former.map_or_else(|| Arc::new(Budget::new(Instant::now())), |former| Arc::clone(&former.budget));
        Ok(Arc::new(Self {
            members: settings.servers.iter().map(member).collect::<Result<_, _>>()?,
            settings: Arc::clone(settings),
            turns: Turns::default(),
            draws: AtomicU64::new(0),
            budget,
            counts,
        }))
    }

    /// As the configuration says it.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The servers, in the order of the configuration.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.members.iter().map(|member| &member.backend)
    }

    /// The server at `at`.
    pub fn backend(&self, at: usize) -> Option<&Arc<Backend>> {
        self.members.get(at).map(|member| &member.backend)
    }

    /// What is counted of the upstream.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What is left for requests that are sent again.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How the server at `at` is now.
    pub fn standing(&self, at: usize) -> Option<Standing> {
        self.backend(at).map(|backend| self.standing_of(backend, Instant::now()))
    }

    /// Whether HTTP/2 is spoken to any of them, or may be.
    pub(crate) fn may_speak_http2(&self) -> bool {
        self.settings.servers.iter().any(|server| server.address.may_speak_http2())
    }

    /// Whether a request belongs to one server.
    pub(crate) fn is_sticky(&self) -> bool {
        matches!(self.settings.balance, Balance::Hash(_))
    }

    /// What the server of a request is found by; nothing where it is not hashed.
    pub fn key(&self, headers: &HeaderMap, caller: Caller<'_>) -> u64 {
        match &self.settings.balance {
            Balance::Hash(by) => key(by, headers, caller),
            Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo => 0,
        }
    }

    /// Leave at `now` to send a request with `key` to a server that is none of `tried`; waits for it where all of them have as
    /// many requests as they may.
    ///
    /// # Errors
    /// When there is none.
    pub async fn admit(&self, tried: &[usize], key: u64, now: Instant) -> Result<Turn, NoTurn> {
        if let ([member], []) = (&*self.members, tried) {
            // What is alone is not chosen.
            if self.settings.health.check.is_none()
                && let Some(admission) = member.backend.try_admit()
            {
                return Ok(Turn { at: 0, has_waited: false, admission });
            }
        }
        let full = match self.admit_now(tried, key, now) {
            Ok(turn) => return Ok(turn),
            Err(full) => full,
        };
        if full.is_empty() {
            return Err(match &self.settings.health.check {
                Some(check) if tried.is_empty() => NoTurn::Down(check.interval),
                Some(_) | None => NoTurn::NoOther,
            });
        }
        Box::pin(self.wait(&full)).await.ok_or(NoTurn::Busy)
    }

    /// The same without waiting. Otherwise which servers are full: none where there is no server at all.
    pub(crate) fn admit_now(&self, tried: &[usize], key: u64, now: Instant) -> Result<Turn, Vec<usize>> {
        let mut full = Vec::new();
        for takes_left_out in [false, true] {
            let mut skipped = tried.to_vec();
            while let Some(next) = self.pick(&skipped, key, now, takes_left_out) {
                let Some(member) = self.members.get(next.at) else { break };
                if let Some(admission) = member.backend.try_admit() {
                    self.turns.take(&member.passed, next.passed, next.weight);
                    return Ok(Turn { at: next.at, has_waited: false, admission });
                }
                skipped.push(next.at);
                full.push(next.at);
            }
            // One that failed requests is better than none, but not better than one that is busy.
            if !full.is_empty() {
                break;
            }
        }
        Err(full)
    }

    /// Waits for the first of the servers `full` that has a turn.
    async fn wait(&self, full: &[usize]) -> Option<Turn> {
        let backends = || full.iter().filter_map(|at| Some((*at, self.backend(*at)?)));
        let _waiting = backends().find_map(|(_, backend)| backend.wait())?;
        let mut turns: Vec<(usize, Waited)> = Vec::new();
        turns.extend(backends().map(|(at, backend)| (at, Box::pin(backend.turn()) as Waited)));
        let first = poll_fn(|cx| {
            let first = turns.iter_mut().find_map(|(at, turn)| match turn.as_mut().poll(cx) {
                Poll::Ready(admission) => {
                    Some(admission.map(|admission| Turn { at: *at, has_waited: true, admission }))
                }
                Poll::Pending => None,
            });
            first.map_or(Poll::Pending, Poll::Ready)
        });
        timeout(self.settings.timeouts.response.min(LONGEST_WAIT), first).await.ok().flatten()
    }

    /// The server for a request with `key` that is none of `skipped`.
    fn pick(&self, skipped: &[usize], key: u64, now: Instant, takes_left_out: bool) -> Option<Candidate> {
        let candidate = |(at, member): (usize, &Member)| {
            let share = match self.standing_of(&member.backend, now) {
                Standing::In(share) => share,
                Standing::Out if takes_left_out => WHOLE,
                Standing::Out | Standing::Down => return None,
            };
            Some(Candidate {
                at,
                weight: member.weight * u64::from(share),
                load: u64::try_from(member.backend.in_flight()).unwrap_or(u64::MAX),
                passed: self.turns.of(&member.passed),
                seed: member.seed,
            })
        };
        let all = self.members.iter().enumerate().filter(|(at, _)| !skipped.contains(at)).filter_map(candidate);
        match &self.settings.balance {
            Balance::LeastRequests => balance::least_requests(all),
            Balance::RoundRobin => balance::round_robin(all),
            Balance::RandomTwo => balance::random_two(all, self.draw()),
            Balance::Hash(_) => balance::hashed(all, key),
        }
    }

    /// Another number each time, spread evenly.
    pub(crate) fn draw(&self) -> u64 {
        balance::mix(self.draws.fetch_add(1, Relaxed))
    }

    fn standing_of(&self, backend: &Backend, now: Instant) -> Standing {
        backend.health().standing(now, self.settings.health.ejection.slow_start)
    }

    /// The server at `at` has answered.
    pub(crate) fn served(&self, at: usize) {
        if let Some(backend) = self.backend(at) {
            backend.health().served();
        }
    }

    /// The server at `at` has failed a request. After some in a row it is left out, unless no other is well.
    pub(crate) fn failed(&self, at: usize) {
        let Some(backend) = self.backend(at) else { return };
        let now = Instant::now();
        let is_in = |other: &Arc<Backend>| matches!(self.standing_of(other, now), Standing::In(_));
        let is_last = || !self.backends().any(|other| !Arc::ptr_eq(other, backend) && is_in(other));
        if let Some(out) = backend.health().failed(now, &self.settings.health.ejection, is_last) {
            backend.tally().ejections.count();
            let (upstream, server, seconds) = (backend.name(), &**backend.label(), out.as_secs_f64());
            tracing::warn!(upstream, server, seconds, "a server fails requests and is left out");
        }
    }
}

/// The places of the servers of `settings` in the order in which a request without headers is sent to them, where it is
/// hashed and all are well.
pub fn order(settings: &Settings, caller: Caller<'_>) -> Vec<usize> {
    let Balance::Hash(by) = &settings.balance else { return (0..settings.servers.len()).collect() };
    let key = key(by, &HeaderMap::new(), caller);
    let candidate = |(at, server): (usize, &WeightedServer)| {
        let seed = seed(&super::backend::label(&server.address));
        Candidate { at, weight: u64::from(server.weight) * u64::from(WHOLE), load: 0, passed: 0, seed }
    };
    let mut left: Vec<Candidate> = settings.servers.iter().enumerate().map(candidate).collect();
    let mut order = Vec::new();
    while let Some(next) = balance::hashed(left.iter().copied(), key) {
        left.retain(|candidate| candidate.at != next.at);
        order.push(next.at);
    }
    order
}

fn key(by: &HashBy, headers: &HeaderMap, caller: Caller<'_>) -> u64 {
    let found = match by {
        HashBy::Client => None,
        HashBy::User => caller.user.map(str::as_bytes),
        HashBy::Header(name) => headers.get(name).map(|value| value.as_bytes()),
        HashBy::Cookie(name) => cookie::values(headers, name).next(),
    };
    found.map_or_else(|| balance::network(caller.client), balance::hash)
}

/// What tells the server at `label` from others, in every gateway.
fn seed(label: &str) -> u64 {
    balance::hash(label.as_bytes())
}

#[cfg(test)]
mod tests;
