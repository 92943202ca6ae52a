//! Failed sign-ins, counted by account and by network, and when the next attempt may be made. Requests are counted in `rate`.
//!
//! An attempt is let in before any hashing and counts from then on, so that parallel guesses are counted as those one
//! after the other are. The counters live in memory, are saved to the store now and then and read from it at start.
//! Everything is keyed by digests under a key of the store: what was typed as a name may be a password.

mod counter;
mod rate;
mod table;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::clock::{Clock, Timestamp};
use crate::identity::UserName;
use crate::store::{Digest, Store, StoreError, ThrottleRecord, ThrottleScope};
use counter::{ACCOUNT, NETWORK, Turn};
pub use rate::{Quota, Rates, Taken};
use table::{Key, Table};

/// The counters. Cheap to clone; one for all workers.
#[derive(Clone, Debug)]
pub struct Throttle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    store: Store,
    key: hmac::Key,
    tables: Mutex<Tables>,
    /// Rung when an attempt is over, for those that wait for their turn.
    over: Notify,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Tables {
    accounts: Table,
    networks: Table,
}

/// Too many attempts: nothing was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(Duration);

impl RetryAfter {
    /// What the `Retry-After` header says: whole seconds, at least one, before which no attempt is let in. The network's
    /// counter is asked first, so the account's may have more to say then.
    pub const fn seconds(self) -> u64 {
        let seconds = self.0.as_secs() + if self.0.subsec_nanos() > 0 { 1 } else { 0 };
        if seconds == 0 { 1 } else { seconds }
    }
}

impl Throttle {
    /// Takes up the counters where the store has them.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn start(store: Store, clock: Clock) -> Result<Self, StoreError> {
        let secret = store.server_secret("throttle").await?;
        let rows = store.throttle_rows().await?;
        let mut tables = Tables { accounts: Table::new(ACCOUNT, ENTRIES), networks: Table::new(NETWORK, ENTRIES) };
        let times = Times::read(&clock);
        for row in rows {
            let failures = row.failures.iter().filter_map(|(at, other)| Some((times.to_monotonic(*at)?, *other)));
            let blocked = row.blocked_until.and_then(|until| times.to_monotonic(until));
            tables.of(row.scope).restore(
                row.key,
                failures.collect(),
                row.level,
                blocked.unwrap_or_default(),
                times.now,
            );
        }
        Ok(Self(Arc::new(Shared {
            clock,
            store,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose()),
            tables: Mutex::new(tables),
            over: Notify::new(),
            waiting: AtomicUsize::new(0),
        })))
    }

    /// Lets an attempt on the account called `name` in, or says when to come back. `browser` is a digest of what the
    /// browser shows of an earlier sign-in. Where only attempts in progress stand in the way, this waits for them a moment.
    ///
    /// # Errors
    /// When there were too many failures.
    pub async fn check(&self, name: &str, network: IpAddr, browser: Option<Digest>) -> Result<Attempt, RetryAfter> {
        let user = UserName::parse(name);
        let folded = user.as_ref().map_or_else(|| name.to_lowercase(), |user| user.as_str().to_owned());
        let digest = self.network(network);
        let asked = Asked { account: short(self.digest(b"account", folded.as_bytes())), network: short(digest) };
        let turn = self.wait_for_turn(&asked, user.as_ref(), digest, browser);
        let on_account = timeout(PATIENCE, turn).await.unwrap_or(Err(RetryAfter(Duration::ZERO)))?;
        let shared = self.0.clone();
        Ok(Attempt { shared, asked, on_account, user, network: digest, state: AttemptState::LetIn })
    }

    /// Forgives what failed on an account up to `at`, on the networks that it came from too.
    pub fn unlock(&self, user: &UserName, at: Timestamp) {
        let account = short(self.digest(b"account", user.as_str().as_bytes()));
        let times = Times::read(&self.0.clock);
        let at = times.to_monotonic(at).unwrap_or_default();
        let mut tables = self.0.tables();
        tables.accounts.forgive(&account, at, times.now);
        tables.networks.forgive_all_about(&account, at, times.now);
        drop(tables);
        self.0.over.notify_waiters();
    }

    /// Makes a network and a browser familiar with an account whose password was just given there.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn note_familiar(&self, user: &UserName, network: IpAddr, browser: Digest) -> Result<(), StoreError> {
        self.0.store.note_familiar(user, self.network(network), Some(browser)).await
    }

    /// Saves what has changed since the last time. To be called every second and at the end.
    ///
    /// # Errors
    /// When the store gives no answer: then the next call tries again.
    pub async fn save(&self) -> Result<(), StoreError> {
        let (accounts, networks, rows) = {
            let times = Times::read(&self.0.clock);
            let mut tables = self.0.tables();
            let (accounts, networks) =
                (tables.accounts.take_changed(times.now), tables.networks.take_changed(times.now));
            let mut rows = Vec::with_capacity(accounts.len() + networks.len());
            rows.extend(accounts.iter().map(|key| tables.record(ThrottleScope::Account, *key, &times)));
            rows.extend(networks.iter().map(|key| tables.record(ThrottleScope::Network, *key, &times)));
            (accounts, networks, rows)
        };
        if rows.is_empty() {
            return Ok(());
        }
        let saved = self.0.store.save_throttle(rows).await;
        if saved.is_err() {
            let mut tables = self.0.tables();
            tables.accounts.mark_changed(accounts);
            tables.networks.mark_changed(networks);
        }
        saved
    }

    /// Takes a place among the attempts in progress; answers whether the account's counter counts it.
    async fn wait_for_turn(
        &self,
        asked: &Asked,
        user: Option<&UserName>,
        network: Digest,
        browser: Option<Digest>,
    ) -> Result<bool, RetryAfter> {
        let mut place = None;
        loop {
            // Made before the look at the counters: what is over in between rings it.
            let over = self.0.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            let mut on_account = true;
            let mut taken = self.take(asked, on_account);
            if let Err((ThrottleScope::Account, _)) = taken
                && self.is_familiar(user, network, browser).await
            {
                on_account = false;
                taken = self.take(asked, on_account);
            }
            match taken {
                Ok(()) => return Ok(on_account),
                Err((_, Turn::After(wait))) => return Err(RetryAfter(wait)),
                Err((_, Turn::NoRoom)) => return Err(RetryAfter(Duration::ZERO)),
                Err((_, Turn::Free | Turn::Behind)) => {}
            }
            if place.is_none() {
                place = Some(Waiting::begin(&self.0).ok_or(RetryAfter(Duration::ZERO))?);
            }
            over.await;
        }
    }

    /// Takes a place among the attempts in progress, or says whose counter forbids it.
    fn take(&self, asked: &Asked, on_account: bool) -> Result<(), (ThrottleScope, Turn)> {
        let now = Times::read(&self.0.clock).now;
        let mut tables = self.0.tables();
        match tables.networks.turn(&asked.network, now) {
            Turn::Free => {}
            turn => return Err((ThrottleScope::Network, turn)),
        }
        if on_account {
            match tables.accounts.turn(&asked.account, now) {
                Turn::Free => {}
                turn => return Err((ThrottleScope::Account, turn)),
            }
        }
        if !tables.networks.begin(asked.network, now) {
            return Err((ThrottleScope::Network, Turn::NoRoom));
        }
        if on_account && !tables.accounts.begin(asked.account, now) {
            tables.networks.end(&asked.network, now);
            return Err((ThrottleScope::Account, Turn::NoRoom));
        }
        Ok(())
    }

    /// A store that gives no answer makes nobody familiar.
    async fn is_familiar(&self, user: Option<&UserName>, network: Digest, browser: Option<Digest>) -> bool {
        let Some(user) = user else { return false };
        self.0.store.is_familiar(user, network, browser).await.unwrap_or(false)
    }

    fn network(&self, address: IpAddr) -> Digest {
        match address.to_canonical() {
            IpAddr::V4(address) => self.digest(b"network", &address.octets()),
            // Whoever has an IPv6 address has the /64 around it.
            IpAddr::V6(address) => self.digest(b"network", &address.octets()[..8]),
        }
    }

    fn digest(&self, kind: &[u8], text: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0.key);
        context.update(kind);
        context.update(&[0]);
        context.update(text);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

/// Leave to look at one password. Dropped before [`judging`](Self::judging) it counts as never made, after it as failed.
#[derive(Debug)]
#[must_use = "an attempt that is dropped is not counted as it should be"]
pub struct Attempt {
    shared: Arc<Shared>,
    asked: Asked,
    on_account: bool,
    user: Option<UserName>,
    network: Digest,
    state: AttemptState,
}

impl Attempt {
    /// To be called right before the password is hashed: from then on an attempt whose client goes away has cost us the
    /// work, and counts as failed.
    pub fn judging(&mut self) {
        self.state = AttemptState::Judged;
    }

    /// The password was wrong, or there is no such user.
    pub fn failed(mut self) {
        self.state = AttemptState::Judged;
    }

    /// The password was right. Failures on this account from this network are forgiven, no others: or whoever has an
    /// account could wipe the counter of a network with it. `browser` is a digest of what this browser will show at its
    /// next sign-in; it and the network are familiar with the account for 30 days.
    pub async fn succeeded(mut self, browser: Option<Digest>) {
        {
            let mut tables = self.shared.tables();
            tables.networks.forgive_about(&self.asked.network, &self.asked.account);
            tables.accounts.forgive_about(&self.asked.account, &self.asked.network);
        }
        self.state = AttemptState::LetIn;
        let (store, user, network) = (self.shared.store.clone(), self.user.clone(), self.network);
        drop(self);
        let Some(user) = user else { return };
        // Nobody waits long for it: what the store has taken in it writes, sooner or later.
        match timeout(A_MOMENT, store.note_familiar(&user, network, browser)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a sign-in's network was not noted"),
            Err(_) => tracing::warn!("the store is slow: a sign-in's network is noted later"),
        }
    }

    /// Nothing can be said of the password: the request was malformed, the store or the hashing gave no answer.
    pub fn abandoned(mut self) {
        self.state = AttemptState::LetIn;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = Times::read(&self.shared.clock).now;
        let failed = matches!(self.state, AttemptState::Judged);
        let mut tables = self.shared.tables();
        tables.networks.end(&self.asked.network, now);
        if self.on_account {
            tables.accounts.end(&self.asked.account, now);
        }
        if failed {
            tables.networks.fail(self.asked.network, self.asked.account, now);
            if self.on_account {
                tables.accounts.fail(self.asked.account, self.asked.network, now);
            }
        }
        drop(tables);
        self.shared.over.notify_waiters();
    }
}

#[derive(Clone, Copy, Debug)]
enum AttemptState {
    LetIn,
    Judged,
}

/// Which counters an attempt is about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    account: Key,
    network: Key,
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn of(&mut self, scope: ThrottleScope) -> &mut Table {
        match scope {
            ThrottleScope::Account => &mut self.accounts,
            ThrottleScope::Network => &mut self.networks,
        }
    }

    fn record(&mut self, scope: ThrottleScope, key: Key, times: &Times) -> ThrottleRecord {
        let mut record = ThrottleRecord { scope, key, failures: Vec::new(), level: 0, blocked_until: None };
        if let Some(counter) = self.of(scope).get(&key) {
            record.failures = counter.failures().map(|(at, other)| (times.to_wall(at), other)).collect();
            record.level = counter.level();
            record.blocked_until = counter.blocked_until().map(|until| times.to_wall(until));
        }
        record
    }
}

/// A place among those that wait for their turn; there is a limit to them.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Option<Self> {
        let place = Self(shared);
        (shared.waiting.fetch_add(1, Ordering::SeqCst) < WAITING).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Both times of one moment, to turn one into the other. Counting goes by monotonic time, which a clock that is set
/// does not move; what is saved outlives it.
struct Times {
    now: Duration,
    wall: Timestamp,
}

impl Times {
    fn read(clock: &Clock) -> Self {
        // Monotonic time begins with the process; a day on top leaves room for what happened before.
        Self { now: clock.monotonic() + DAY, wall: clock.now() }
    }

    /// `None`: more than a day before the process began.
    fn to_monotonic(&self, at: Timestamp) -> Option<Duration> {
        // A saved time ahead of now, after a clock was set back, is as good as now, but for a wait that is not over.
        let ahead = at.since(self.wall).min(NETWORK.longest);
        (self.now + ahead).checked_sub(self.wall.since(at))
    }

    fn to_wall(&self, at: Duration) -> Timestamp {
        self.wall + at.saturating_sub(self.now) - self.now.saturating_sub(at)
    }
}

fn short(digest: Digest) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

/// Counters of each kind.
const ENTRIES: usize = 65_536;

/// How long an attempt waits for those in progress.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an attempt that succeeded waits to be noted.
const A_MOMENT: Duration = Duration::from_millis(250);

/// Attempts that may wait so.
const WAITING: usize = 256;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests;
