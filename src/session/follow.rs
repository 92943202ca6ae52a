//! Taking in what happened: events of the store become forgotten accounts, ended sessions, refused tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};

use super::live::KEPT_FOR;
use super::{Accounts, ApiKeys, OwnKeys, Sessions};
use crate::clock::{Clock, Timestamp};
use crate::identity::UserName;
use crate::store::{DataVersion, Event, EventKind, Seq, Store, StoreError};
use crate::throttle::Throttle;
use crate::token::{Event as Revocation, Revocations};

/// Follows the store's events. Its reader is woken by a clock every quarter of a second, by the control socket, and by
/// every change that this process makes itself.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    clock: Clock,
    followed: Followed,
    /// How long a token may live, and so how long its revocation matters, in milliseconds. It only rises.
    memory: AtomicU64,
    place: Mutex<Place>,
    /// Milliseconds of monotonic time, plus one; 0: never.
    fresh_at: AtomicU64,
    generation: watch::Sender<u64>,
}

/// What events change.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct Followed {
    pub accounts: Arc<Accounts>,
    pub api_keys: Arc<ApiKeys>,
    pub sessions: Arc<Sessions>,
    pub revocations: Arc<Revocations>,
    pub throttle: Throttle,
    pub keys: Arc<OwnKeys>,
}

#[derive(Debug, Default)]
struct Place {
    seq: Seq,
    version: Option<DataVersion>,
    /// Keys have changed and were not read since.
    keys_due: bool,
}

impl Follower {
    /// A follower that has taken in nothing yet. `memory` is how long a token may live, and so how long its revocation matters.
    pub fn new(store: Store, clock: Clock, followed: Followed, memory: Duration) -> Self {
        let (place, memory) = (Mutex::new(Place::default()), AtomicU64::new(millis(memory)));
        Self { store, clock, followed, memory, place, fresh_at: AtomicU64::new(0), generation: watch::Sender::new(0) }
    }

    /// Takes in every event up to now.
    ///
    /// # Errors
    /// When the store gives no answer: then what is known grows stale.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let mut place = self.place.lock().await;
        let asked_at = self.clock.monotonic();
        let version = self.store.data_version().await?;
        if place.version != Some(version) {
            if place.version.is_some_and(|before| !before.is_of_one_opening(version)) {
                tracing::info!("the store was opened anew: everything is read anew");
                self.begin_anew(&mut place);
            }
            self.apply_new(&mut place).await?;
            if place.keys_due {
                self.followed.keys.reload().await?;
                place.keys_due = false;
                self.raise();
            }
            place.version = Some(version);
        }
        self.fresh_at.store(millis(asked_at) + 1, Ordering::SeqCst);
        Ok(())
    }

    /// Remembers revocations for at least `memory` from now on. Where that is longer than before, all that the store still
    /// knows is read once more: what was forgotten here may matter again.
    ///
    /// # Errors
    /// When the store gives no answer: then what tokens may live longer must not count yet.
    pub async fn remember_for(&self, memory: Duration) -> Result<(), StoreError> {
        let memory = millis(memory);
        if self.memory.load(Ordering::SeqCst) >= memory {
            return Ok(());
        }
        self.store.remember_for(Duration::from_millis(memory));
        let mut place = self.place.lock().await;
        self.memory.fetch_max(memory, Ordering::SeqCst);
        *place = Place { keys_due: place.keys_due, ..Place::default() };
        drop(place);
        self.catch_up().await
    }

    /// Whether events were taken in within the `max_staleness` before `now`.
    pub fn is_fresh(&self, max_staleness: Duration, now: Instant) -> bool {
        self.staleness(now).is_some_and(|age| age <= max_staleness)
    }

    /// How long before `now` everything up to then was taken in; `None`: never yet.
    pub fn staleness(&self, now: Instant) -> Option<Duration> {
        let at = self.fresh_at.load(Ordering::SeqCst).checked_sub(1)?;
        Some(self.clock.monotonic_at(now).saturating_sub(Duration::from_millis(at)))
    }

    /// Rises whenever something changed that may end what was permitted.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Has streams and tunnels judged anew: after a change of the rules, or when what is known has grown stale.
    pub fn raise(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Forgets what another file may say otherwise. What is revoked stays revoked.
    fn begin_anew(&self, place: &mut Place) {
        *place = Place { keys_due: true, ..Place::default() };
        self.followed.accounts.forget_all();
        self.followed.api_keys.forget_all();
        self.followed.sessions.forget_all();
        self.raise();
    }

    /// Streams are told of every batch: whoever waits here may leave, and the store may fail, before the next.
    async fn apply_new(&self, place: &mut Place) -> Result<(), StoreError> {
        loop {
            let (events, latest) = self.store.events_after(place.seq, BATCH).await?;
            if latest < place.seq {
                tracing::warn!("the store has gone back in time, as after a restored backup: everything is read anew");
                self.begin_anew(place);
                continue;
            }
            for event in &events {
                self.apply(event);
                place.keys_due |= event.kind == EventKind::KeysChanged;
                place.seq = event.seq;
            }
            if !events.is_empty() {
                self.raise();
            }
            if events.len() < BATCH {
                place.seq = place.seq.max(latest);
                return Ok(());
            }
        }
    }

    fn apply(&self, event: &Event) {
        let Followed { accounts, api_keys, revocations, throttle, .. } = &self.followed;
        let memory = Duration::from_millis(self.memory.load(Ordering::SeqCst));
        let (now, until) = (self.clock.settled(), event.at + memory);
        match &event.kind {
            EventKind::SessionEnded { session } => {
                // Neither a token nor what is kept in memory of a session may outlive the memory of its end.
                let until = until.max(event.at + 2 * KEPT_FOR);
                revocations.apply(Revocation::SessionEnded { sid: session, until }, now);
            }
            EventKind::TokenRevoked { jti } => revocations.apply(Revocation::TokenRevoked { jti, until }, now),
            EventKind::ApiKeyRevoked { id } => api_keys.forget(id),
            EventKind::UserChanged { user } => accounts.forget(user),
            EventKind::UserSignedOut { user, at } => {
                revocations.apply(signed_out(user, *at, until), now);
                accounts.forget(user);
            }
            EventKind::Unlocked { user } => throttle.unlock(user, event.at),
            // Read once, after the last of these events.
            EventKind::KeysChanged => {}
        }
    }
}

/// In milliseconds, one short of the most.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX - 1)
}

fn signed_out(user: &UserName, at: Timestamp, until: Timestamp) -> Revocation<'_> {
    Revocation::UserSignedOut { user: user.as_str(), at, until }
}

/// Events taken in at once.
const BATCH: usize = 4096;
