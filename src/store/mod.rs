//! Users, sessions, keys and what happened to them, kept in one SQLite file.
//!
//! [`Store`] is a cheap handle onto a thread that reads and a thread that writes; its methods wait without holding
//! up a runtime thread, and no longer than [`DEADLINE`]. Each change and the events that tell of it are one
//! transaction, so that a process killed at any moment leaves the old state or the new one.
//! Other processes (the command line) may open the same file at the same time.

mod error;
mod event;
mod key;
mod peek;
mod records;
mod session;
mod sqlite;
mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use error::{StoreError, StoreErrorKind};
pub use peek::peek;
pub use records::{
    ApiKeyRecord, DataVersion, Digest, Event, EventKind, HAND_OVER, KeyRecord, KeyUse, Lives, NewUser, Origin, Retired,
    Rotated, Rotation, Seq, SessionRecord, Synced, ThrottleRecord, ThrottleScope, UserRecord,
};

use crate::clock::Clock;
use crate::config::{self, StoreKind};
use crate::secret::Random;
use sqlite::Database;

/// How long a question to the store may wait for its answer.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long events are kept at least: longer than any token that they may be about, unless
/// [`Store::remembering`] says more.
pub const MEMORY: Duration = Duration::from_secs(25 * 3600);

/// A handle onto the store. Cheap to clone.
///
/// Where a method answers with a [`Seq`], the change is durable, and whoever has taken in all events up to that one knows it.
/// A `None` in its place means that nothing was done, for the reason that the method names.
#[derive(Clone, Debug)]
pub struct Store {
    /// `None`: there is no store, nobody is in it and nothing was ever revoked.
    database: Option<Arc<Database>>,
    random: Random,
    /// How long events are kept, in milliseconds. It only rises.
    memory: Arc<AtomicU64>,
}

impl Store {
    /// Opens the store that the configuration names; makes the file (mode 0600) if there is none, and brings an older one up to date.
    ///
    /// # Errors
    /// When the file can't be opened for writing, or is none of ours.
    pub fn open(config: &config::Store, clock: Clock, random: Random) -> Result<Self, StoreError> {
        let database = match &config.kind {
            StoreKind::Sqlite(path) => Some(Arc::new(Database::open(path, clock)?)),
            StoreKind::None => None,
        };
        let store = Self { database, random, memory: Arc::default() };
        store.remember_for(MEMORY);
        Ok(store)
    }

    /// Lets go of the file at the end of a process. The last process to do so leaves everything in the one file, without
    /// `-wal` and `-shm` beside it.
    ///
    /// # Errors
    /// When the store gives no answer; nothing is lost, and the next one to open the file takes it from there.
    pub async fn close(&self) -> Result<(), StoreError> {
        match &self.database {
            Some(database) => database.close().await,
            None => Ok(()),
        }
    }

    /// The same store, which keeps events for at least `span`: for tokens that may live longer than a day.
    #[must_use]
    pub fn remembering(self, span: Duration) -> Self {
        let store = Self { memory: Arc::new(AtomicU64::new(self.memory.load(Ordering::Relaxed))), ..self };
        store.remember_for(span);
        store
    }

    /// From now on keeps events for at least `span`: this handle and all its clones.
    pub fn remember_for(&self, span: Duration) {
        self.memory.fetch_max(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether there is no store: every question finds nothing, and nothing can be written.
    pub const fn is_none(&self) -> bool {
        self.database.is_none()
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_deref().ok_or_else(StoreError::none)
    }

    fn memory(&self) -> Duration {
        Duration::from_millis(self.memory.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
