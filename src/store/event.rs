//! What the store does for events, housekeeping and the counters of failed sign-ins.

use super::records::{DataVersion, Digest, Event, Seq, ThrottleRecord};
use super::sqlite::{events, sessions, throttle};
use super::{Store, StoreError};
use crate::identity::UserName;

/// Events and housekeeping.
impl Store {
    /// At most `limit` events after `seq`, in order, and the place of the latest event of all.
    /// A latest place before `seq` means that another file is in place now (a backup): forget everything and begin at 0.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn events_after(&self, seq: Seq, limit: usize) -> Result<(Vec<Event>, Seq), StoreError> {
        if self.is_none() {
            return Ok((Vec::new(), 0));
        }
        self.database()?.read(move |db| events::after(db, seq, limit)).await
    }

    /// The place of the latest event; 0 before the first.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn latest_seq(&self) -> Result<Seq, StoreError> {
        if self.is_none() {
            return Ok(0);
        }
        self.database()?.read(events::latest).await
    }

    /// Differs from an earlier answer when anything was written since, by whatever process, and costs next to nothing.
    /// Ask for it before [`events_after`](Self::events_after), not after, so that nothing falls between.
    ///
    /// # Errors
    /// When the store gives no answer: then revocations are not known to be fresh.
    pub async fn data_version(&self) -> Result<DataVersion, StoreError> {
        if self.is_none() {
            return Ok(DataVersion(0));
        }
        self.database()?.data_version().await.map(DataVersion)
    }

    /// Removes at most `batch` each of what has passed its time: sessions, events, familiar networks, counters.
    /// Answers with how many there were; call again while that is not 0.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn clean(&self, batch: usize) -> Result<usize, StoreError> {
        if self.is_none() {
            return Ok(0);
        }
        let now = self.database()?.settled();
        self.database()?
            .write(move |db, _| {
                Ok(sessions::clean(db, now, batch)? + events::clean(db, now, batch)? + throttle::clean(db, now, batch)?)
            })
            .await
    }
}

/// What the throttle remembers.
impl Store {
    /// All counters of failed sign-ins.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn throttle_rows(&self) -> Result<Vec<ThrottleRecord>, StoreError> {
        if self.is_none() {
            return Ok(Vec::new());
        }
        self.database()?.read(throttle::all).await
    }

    /// Saves these counters; one that counts nothing is deleted.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn save_throttle(&self, rows: Vec<ThrottleRecord>) -> Result<(), StoreError> {
        if self.is_none() {
            return Ok(());
        }
        self.database()?.write(move |db, now| throttle::save(db, now, &rows)).await
    }

    /// Whether someone signed in to the account from this network or with this browser within 30 days. No for unknown names.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn is_familiar(
        &self,
        user: &UserName,
        network: Digest,
        browser: Option<Digest>,
    ) -> Result<bool, StoreError> {
        if self.is_none() {
            return Ok(false);
        }
        let user = user.clone();
        let now = self.database()?.now();
        self.database()?.read(move |db| throttle::is_familiar(db, now, &user, &network, browser.as_ref())).await
    }

    /// Notes that someone has just signed in to the account from this network and with this browser.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn note_familiar(
        &self,
        user: &UserName,
        network: Digest,
        browser: Option<Digest>,
    ) -> Result<(), StoreError> {
        let user = user.clone();
        self.database()?.write(move |db, now| throttle::note_familiar(db, now, &user, &network, browser.as_ref())).await
    }
}
