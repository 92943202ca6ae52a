//! Keeping an issuer's keys fresh: when to ask for them, and what becomes of an answer or of none.
//!
//! Keys are asked for in the background before they are out of date, and at once when a token names one that is not known: by
//! one request at a time, seldom, and not again for the same name. While the issuer does not answer its last keys stay good
//! for a day.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::jwks::PublicKey;
use super::source::{self, Loaded, SourceError};
use super::{Issuer, Issuers};
use crate::config::IssuerKeys;

/// What is known of asking an issuer for its keys.
#[derive(Debug)]
pub(super) struct Fetching {
    wake: Arc<Notify>,
    /// Rises whenever an attempt has ended.
    attempts: watch::Sender<u64>,
    state: Mutex<State>,
}

/// Times are those of the monotonic clock.
#[derive(Debug, Default)]
struct State {
    is_wanted: bool,
    is_under_way: bool,
    began: Option<Duration>,
    due: Duration,
    /// When keys last came.
    got: Option<Duration>,
    /// How often it has failed since.
    failures: u32,
    failed: u64,
    succeeded: u64,
    error: Option<String>,
    unknown: Unknown,
}

/// Names of keys that were asked for and not found lately, the latest last.
#[derive(Debug, Default)]
struct Unknown {
    names: HashSet<String>,
    order: VecDeque<(String, Duration)>,
}

/// How an issuer's keys are doing.
#[derive(Clone, Debug)]
pub struct Status {
    /// How many keys are in use.
    pub keys: usize,
    /// How long ago they came; `None`: none ever did.
    pub age: Option<Duration>,
    /// Why the last attempt failed; `None`: it did not.
    pub error: Option<String>,
    /// Attempts that brought keys.
    pub succeeded: u64,
    /// Attempts that did not.
    pub failed: u64,
}

/// What asking for a key that is not known comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// An attempt is coming or under way: worth waiting for. `is_new`: it begins after this question.
    Soon { is_new: bool },
    /// One has ended since the token was judged, and may have brought its key.
    Ended,
    /// The issuer was asked a moment ago, or for this very key not long ago.
    NotNow,
}

impl Fetching {
    pub(super) fn new() -> Self {
        Self { wake: Arc::new(Notify::new()), attempts: watch::Sender::new(0), state: Mutex::default() }
    }

    /// Resolves with the next attempt that ends.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the issuer asked because of a token that names the key `key_id`, unless that was done a moment ago. `since` tells
    /// of attempts that have ended since the token was judged.
    pub(super) fn want(&self, key_id: &str, now: Duration, since: &watch::Receiver<u64>) -> Wanted {
        let mut state = self.state();
        state.unknown.forget(now);
        if since.has_changed().unwrap_or(false) {
            return Wanted::Ended;
        }
        if state.is_under_way || state.is_wanted {
            return Wanted::Soon { is_new: !state.is_under_way };
        }
        let is_too_soon = state.began.is_some_and(|began| now.saturating_sub(began) < LEAST_BETWEEN);
        if is_too_soon || state.unknown.names.contains(key_id) {
            return Wanted::NotNow;
        }
        state.is_wanted = true;
        drop(state);
        self.wake.notify_one();
        Wanted::Soon { is_new: true }
    }

    /// The issuer was asked and has no such key.
    pub(super) fn not_found(&self, key_id: &str, now: Duration) {
        self.state().unknown.remember(key_id, now);
    }

    /// Whether the last attempt brought keys.
    pub(super) fn is_well(&self) -> bool {
        let state = self.state();
        state.got.is_some() && state.failures == 0
    }

    #[cfg(test)]
    pub(super) fn unknown_names(&self) -> usize {
        self.state().unknown.names.len()
    }

    #[cfg(test)]
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.state().is_due(now)
    }

    /// Whether an attempt is to begin now, which then is under way.
    pub(super) fn begin(&self, now: Duration) -> bool {
        let mut state = self.state();
        let is_due = !state.is_under_way && state.is_due(now);
        if is_due {
            state.is_wanted = false;
            state.is_under_way = true;
            state.began = Some(now);
        }
        is_due
    }

    pub(super) fn end(&self, now: Duration, outcome: Result<Duration, String>) {
        let mut state = self.state();
        state.is_under_way = false;
        match outcome {
            Ok(good_for) => {
                state.due = now + good_for.mul_f64(EARLY);
                state.got = Some(now);
                state.succeeded += 1;
                (state.failures, state.error) = (0, None);
            }
            Err(error) => {
                let wait = LEAST_BETWEEN.saturating_mul(1 << state.failures.min(16)).min(MOST_BETWEEN);
                state.due = now + wait;
                state.failed += 1;
                (state.failures, state.error) = (state.failures.saturating_add(1), Some(error));
            }
        }
        // With the state still held, so that no one sees the one without the other.
        self.attempts.send_modify(|attempts| *attempts += 1);
    }
}

impl State {
    fn is_due(&self, now: Duration) -> bool {
        self.began.is_none() || now >= self.due || self.is_wanted
    }
}

impl Unknown {
    fn remember(&mut self, key_id: &str, now: Duration) {
        if self.names.insert(key_id.to_owned()) {
            self.order.push_back((key_id.to_owned(), now));
        }
        while self.order.len() > MOST_UNKNOWN {
            self.forget_first();
        }
    }

    fn forget(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(_, at)| now.saturating_sub(*at) >= UNKNOWN_FOR) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((name, _)) = self.order.pop_front() {
            self.names.remove(&name);
        }
    }
}

impl Issuers {
    /// Keeps the keys of all of them fresh, each by a task of the current runtime that ends with the issuer. Those that are
    /// looked after already are left alone.
    pub fn keep_fresh(&self) {
        for issuer in self.iter().filter(|issuer| !matches!(issuer.config.keys, IssuerKeys::Shared(_))) {
            if !issuer.is_kept.swap(true, std::sync::atomic::Ordering::SeqCst) {
                tokio::spawn(keep(Arc::downgrade(issuer)));
            }
        }
    }
}

async fn keep(issuer: Weak<Issuer>) {
    loop {
        let Some(held) = issuer.upgrade() else { return };
        held.step().await;
        let wake = Arc::clone(&held.fetching.wake);
        drop(held);
        tokio::select! {
            () = sleep(TICK) => {}
            () = wake.notified() => {}
        }
    }
}

impl Issuer {
    /// Asks for the keys if that is due.
    async fn step(&self) {
        self.expire();
        if self.fetching.begin(self.clock.monotonic()) {
            let loaded = source::load(&self.config).await;
            self.take_in(loaded);
        }
    }

    /// Asks for the keys now: for commands, which have no time to wait until it is due.
    pub async fn ask(&self) {
        if !matches!(self.config.keys, IssuerKeys::Shared(_)) && self.fetching.begin(self.clock.monotonic()) {
            let loaded = source::load(&self.config).await;
            self.take_in(loaded);
        }
    }

    /// How its keys are doing.
    pub fn status(&self) -> Status {
        let keys = self.keys.load().as_ref().map_or(0, |keys| keys.len());
        let now = self.clock.monotonic();
        let state = self.fetching.state();
        Status {
            keys,
            age: state.got.map(|got| now.saturating_sub(got)),
            error: state.error.clone(),
            succeeded: state.succeeded,
            failed: state.failed,
        }
    }

    pub(super) fn take_in(&self, loaded: Result<Loaded, SourceError>) {
        let name = &*self.config.name;
        let (was_well, had_failed) = (self.fetching.is_well(), self.fetching.state().failures > 0);
        let outcome = match loaded {
            Ok(Loaded { jwks, good_for }) => {
                for (place, why) in &jwks.skipped {
                    tracing::debug!(issuer = name, key = place, %why, "a key of an issuer is left out");
                }
                self.replace(jwks.keys);
                Ok(good_for)
            }
            Err(error) => Err(error.to_string()),
        };
        match &outcome {
            Ok(_) if !was_well => {
                tracing::info!(issuer = name, keys = self.status().keys, "an issuer's keys are known")
            }
            Ok(_) => {}
            // Told once per outage, or a stranger's tokens could fill the log.
            Err(error) if had_failed => tracing::debug!(issuer = name, error, "an issuer's keys still can't be had"),
            Err(error) => {
                tracing::warn!(issuer = name, error, "an issuer's keys can't be had; what is known of them stays")
            }
        }
        self.fetching.end(self.clock.monotonic(), outcome);
    }

    /// Puts `fresh` in force. Keys that were known stay the same ones; those that are gone verify nothing any more.
    fn replace(&self, fresh: Vec<PublicKey>) {
        let before = self.keys.load_full().unwrap_or_default();
        let known = |key: &PublicKey| before.iter().find(|known| known.digest() == key.digest()).cloned();
        let keys: Vec<Arc<PublicKey>> =
            fresh.into_iter().map(|key| known(&key).unwrap_or_else(|| Arc::new(key))).collect();
        let is_gone = |key: &&Arc<PublicKey>| !keys.iter().any(|kept| Arc::ptr_eq(kept, key));
        let gone: Vec<Arc<PublicKey>> = before.iter().filter(is_gone).cloned().collect();
        self.keys.store(Some(Arc::new(keys)));
        self.withdraw(&gone);
    }

    /// Forgets keys that came too long ago: their issuer may have withdrawn them since.
    pub(super) fn expire(&self) {
        let now = self.clock.monotonic();
        let got = self.fetching.state().got;
        if got.is_some_and(|got| now.saturating_sub(got) >= STALE_FOR) && self.keys.load().is_some() {
            tracing::error!(issuer = &*self.config.name, "an issuer's keys are too old and are not used any more");
            if let Some(keys) = self.keys.swap(None) {
                self.withdraw(&keys);
            }
        }
    }

    fn withdraw(&self, gone: &[Arc<PublicKey>]) {
        gone.iter().for_each(|key| key.withdraw());
        if !gone.is_empty() {
            self.withdrawals.send_modify(|withdrawals| *withdrawals += 1);
        }
    }
}

/// How often an issuer is asked at most, whatever tokens name.
const LEAST_BETWEEN: Duration = Duration::from_secs(5);

/// How often an issuer is asked at least that does not answer.
const MOST_BETWEEN: Duration = Duration::from_secs(300);

/// The part of the time for which keys are good after which they are asked for again.
const EARLY: f64 = 0.8;

/// How long keys are used while their issuer does not answer.
const STALE_FOR: Duration = Duration::from_secs(86_400);

/// How long a key that was not found is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// How many such keys are remembered.
const MOST_UNKNOWN: usize = 256;

/// How often the time is looked at.
const TICK: Duration = Duration::from_secs(1);
