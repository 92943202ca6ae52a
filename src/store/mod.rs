//! Users, sessions, keys and what happened to them, kept in one SQLite file.
//!
//! [`Store`] is a cheap handle onto a thread that reads and a thread that writes; its methods wait without holding
//! up a runtime thread, and no longer than [`DEADLINE`]. Each change and the events that tell of it are one
//! transaction, so that a process killed at any moment leaves the old state or the new one.
//! Other processes (the command line) may open the same file at the same time.

mod error;
mod peek;
mod records;
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use error::{StoreError, StoreErrorKind};
pub use peek::peek;
pub use records::{
    ApiKeyRecord, DataVersion, Digest, Event, EventKind, HAND_OVER, KeyRecord, KeyUse, Lives, NewUser, Origin, Retired,
    Rotated, Rotation, Seq, SessionRecord, Synced, ThrottleRecord, ThrottleScope, UserRecord,
};

use crate::clock::{Clock, Timestamp};
use crate::config::{self, Algorithm, StoreKind};
use crate::identity::UserName;
use crate::identity::password::account_file::FileAccount;
use crate::secret::{Random, Secret};
use sqlite::{Database, api_keys, events, file_users, keys, rotation, sessions, throttle, users};

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
    database: Arc<Database>,
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
        let StoreKind::Sqlite(path) = &config.kind;
        let database = Arc::new(Database::open(path, clock)?);
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
        self.database.close().await
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

    fn memory(&self) -> Duration {
        Duration::from_millis(self.memory.load(Ordering::Relaxed))
    }
}

/// Users.
impl Store {
    /// The account `name`; `None`: there is none.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, StoreError> {
        let name = name.clone();
        self.database.read(move |db| users::find(db, &name)).await
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        self.database.read(users::all).await
    }

    /// Whether there is any account.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn has_users(&self) -> Result<bool, StoreError> {
        self.database.read(users::exist).await
    }

    /// Makes an account; `None`: the name is taken.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_user(&self, user: NewUser) -> Result<Option<Seq>, StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| users::add(db, now, memory, &user)).await
    }

    /// Makes all these accounts or, on an error, none; answers with the names that were taken, which stay as they are.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_users(&self, users: Vec<NewUser>) -> Result<Vec<UserName>, StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| users::add_all(db, now, memory, &users)).await
    }

    /// Makes the accounts of the file those that `accounts` says: all of it or nothing. Whoever has another password or is
    /// gone has no session any more. Accounts that the store has of its own stay as they are.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn sync_file(&self, accounts: Vec<FileAccount>) -> Result<Synced, StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| file_users::sync(db, now, memory, &accounts)).await
    }

    /// Sets a new password, which ends all sessions of the account and makes no network or browser familiar any more;
    /// `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_password(&self, name: &UserName, hash: Secret<String>) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database.write(move |db, now| users::set_password(db, now, memory, &name, &hash)).await
    }

    /// Sets a new password as [`set_password`](Self::set_password) does, for someone whose old one was verified when the
    /// account was at `password_version`; answers with the new version. `None`: the account is gone, disabled or a file's, or
    /// its password has changed meanwhile, and nothing was done.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn change_password(
        &self,
        name: &UserName,
        password_version: u64,
        hash: Secret<String>,
    ) -> Result<Option<u64>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database
            .write(move |db, now| users::change_password(db, now, memory, &name, password_version, &hash))
            .await
    }

    /// Replaces the hash `old` by `new`, which is of the same password; `false`: it has changed meanwhile.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn upgrade_hash(
        &self,
        name: &UserName,
        old: Secret<String>,
        new: Secret<String>,
    ) -> Result<bool, StoreError> {
        let name = name.clone();
        self.database.write(move |db, _| users::upgrade_hash(db, &name, &old, &new)).await
    }

    /// Sets the groups; sessions go on and are judged by the new ones. `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_groups(&self, name: &UserName, groups: Vec<String>) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database.write(move |db, now| users::set_groups(db, now, memory, &name, groups)).await
    }

    /// Sets e-mail address and full name; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_profile(
        &self,
        name: &UserName,
        email: Option<String>,
        full_name: Option<String>,
    ) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database.write(move |db, now| users::set_profile(db, now, memory, &name, email, full_name)).await
    }

    /// Disables the account, which ends its sessions, or enables it again; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_disabled(&self, name: &UserName, disabled: bool) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database.write(move |db, now| users::set_disabled(db, now, memory, &name, disabled)).await
    }

    /// Deletes the account and ends its sessions; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn delete_user(&self, name: &UserName) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database.write(move |db, now| users::delete(db, now, memory, &name)).await
    }

    /// Notes that someone has just signed in to the account.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn note_sign_in(&self, name: &UserName) -> Result<(), StoreError> {
        let name = name.clone();
        self.database.write(move |db, now| users::note_sign_in(db, now, &name)).await
    }

    /// Forgives the account's failed sign-ins, by an event for the gateways that count them; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn unlock(&self, name: &UserName) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database.write(move |db, now| users::unlock(db, now, memory, &name)).await
    }
}

/// Sessions and tokens.
impl Store {
    /// Begins a session, for a password that was verified against the account when it was at `password_version`.
    /// `None`: the account is gone or disabled, or its password has changed meanwhile, so there is no session.
    /// The [`Seq`] is that of the latest event; whoever takes in all up to it knows what was allowed again before.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn create_session(
        &self,
        session: SessionRecord,
        password_version: u64,
    ) -> Result<Option<Seq>, StoreError> {
        self.database.write(move |db, _| sessions::create(db, &session, password_version)).await
    }

    /// The session `id`, if it has not ended; the caller judges its times.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn session(&self, id: &str) -> Result<Option<SessionRecord>, StoreError> {
        let id = id.to_owned();
        self.database.read(move |db| sessions::find(db, &id)).await
    }

    /// The session behind the cookie whose key has this digest, if it has not ended; the caller judges its times.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn session_by_key(&self, key_hash: Digest) -> Result<Option<SessionRecord>, StoreError> {
        self.database.read(move |db| sessions::find_by_key(db, &key_hash)).await
    }

    /// Judges a refresh token and, if it is good, puts its successor in its place; one that is used again too late ends
    /// its session. All of it or nothing: a family never forks.
    ///
    /// # Errors
    /// When the store gives no answer: then the token presented is still to be presented again.
    pub async fn rotate_refresh(&self, rotation: Rotation) -> Result<Rotated, StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| rotation::rotate(db, now, memory, &rotation)).await
    }

    /// Notes when sessions were last used. A time earlier than the one known changes nothing.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn touch_sessions(&self, seen: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        self.database.write(move |db, _| sessions::touch(db, &seen)).await
    }

    /// Ends a session, also one that the store no longer knows but whose tokens may live. Twice is once.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_session(&self, id: &str) -> Result<Seq, StoreError> {
        let (id, memory) = (id.to_owned(), self.memory());
        self.database.write(move |db, now| sessions::end(db, now, memory, &id)).await
    }

    /// Ends all sessions of a user, and tokens of theirs that have no session.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_sessions_of(&self, user: &UserName) -> Result<Seq, StoreError> {
        let (user, memory) = (user.clone(), self.memory());
        self.database.write(move |db, now| sessions::end_all_of(db, now, memory, &user)).await
    }

    /// The sessions of one user or of all that have not passed their end, the latest used first.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn sessions(&self, user: Option<&UserName>) -> Result<Vec<SessionRecord>, StoreError> {
        let user = user.cloned();
        let now = self.database.now();
        self.database.read(move |db| sessions::list(db, now, user.as_ref())).await
    }

    /// The sessions of `user` beside `except` that are not over, the latest used first and at most `limit` of them, and how
    /// many there are in all. A cookie's session that is not remembered is over when it was not used for `idle`.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn other_sessions(
        &self,
        user: &UserName,
        except: &str,
        idle: Duration,
        limit: usize,
    ) -> Result<(Vec<SessionRecord>, u64), StoreError> {
        let (user, except, now) = (user.clone(), except.to_owned(), self.database.now());
        self.database.read(move |db| sessions::others(db, now, now - idle, (&user, &except), limit)).await
    }

    /// Ends every session of `user` but `except`; answers with how many there were.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_other_sessions(&self, user: &UserName, except: &str) -> Result<usize, StoreError> {
        let (user, except, memory) = (user.clone(), except.to_owned(), self.memory());
        self.database.write(move |db, now| sessions::end_others(db, now, memory, &user, &except)).await
    }

    /// Ends the tokens of a user that have no session and were issued by `issued`; their sessions go on.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_tokens_of(&self, user: &UserName, issued: Timestamp) -> Result<Seq, StoreError> {
        let (user, memory) = (user.clone(), self.memory());
        self.database.write(move |db, now| sessions::end_tokens_of(db, now, memory, &user, issued)).await
    }

    /// Refuses one token from now on; it expires at `until`. Twice is once.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn revoke_jti(&self, jti: &str, until: Timestamp) -> Result<Seq, StoreError> {
        let (jti, memory) = (jti.to_owned(), self.memory());
        self.database.write(move |db, now| sessions::revoke_jti(db, now, memory, &jti, until)).await
    }
}

/// Keys and secrets.
impl Store {
    /// All keys, the oldest first.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn signing_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.database.read(keys::all).await
    }

    /// Adds a signing key; `None`: there is one of that `kid` already.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_signing_key(&self, key: KeyRecord) -> Result<Option<Seq>, StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| keys::add(db, now, memory, &key)).await
    }

    /// A key of `key`'s algorithm and purpose that is not retired: adds `key` if there is none, so that gateways that start at once agree on one.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn first_signing_key(&self, key: KeyRecord) -> Result<KeyRecord, StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| keys::first(db, now, memory, key)).await
    }

    /// Makes `key` the one that signs from now on, or after `publish_first`. Every other of its purpose is retired by then, and one
    /// whose time has not come yet never signs. The key's times are set here.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn rotate_keys(&self, key: KeyRecord, publish_first: Duration) -> Result<(KeyRecord, Seq), StoreError> {
        let memory = self.memory();
        self.database.write(move |db, now| keys::rotate(db, now, memory, key, publish_first)).await
    }

    /// Notes that what the signing keys of `purpose` sign from now on may live for `lifetime`.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn note_key_lifetime(&self, purpose: KeyUse, lifetime: Duration) -> Result<(), StoreError> {
        self.database.write(move |db, now| keys::note_lifetime(db, now, purpose, lifetime)).await
    }

    /// Removes a key at once, whatever it has signed; not the one that signs with `algorithm`, if no other one does now.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn retire_key(&self, kid: &str, algorithm: Algorithm) -> Result<Retired, StoreError> {
        let (kid, memory) = (kid.to_owned(), self.memory());
        self.database.write(move |db, now| keys::retire(db, now, memory, &kid, algorithm)).await
    }

    /// Removes the keys of `purpose` whose last token has expired. Answers with how many there were.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn clean_keys(&self, purpose: KeyUse, lives: Lives) -> Result<usize, StoreError> {
        let (memory, settled) = (self.memory(), self.database.settled());
        self.database.write(move |db, now| keys::clean(db, (now, settled), memory, purpose, lives)).await
    }

    /// The secret called `name`, made when it is first asked for, the same for all gateways on this store.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn server_secret(&self, name: &'static str) -> Result<Secret<[u8; 32]>, StoreError> {
        if let Some(secret) = self.database.read(move |db| keys::secret(db, name)).await? {
            return Ok(secret);
        }
        let fresh = Secret::new(self.random.bytes::<32>());
        self.database.write(move |db, _| keys::secret_or(db, name, &fresh)).await
    }
}

/// Keys for machines.
impl Store {
    /// The API key `id`, if it was not revoked; the caller judges its digest and its end.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn api_key(&self, id: &str) -> Result<Option<ApiKeyRecord>, StoreError> {
        let id = id.to_owned();
        self.database.read(move |db| api_keys::find(db, &id)).await
    }

    /// The API keys of one user or of all, expired ones too, by user and name.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn api_keys(&self, user: Option<&UserName>) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let user = user.cloned();
        self.database.read(move |db| api_keys::list(db, user.as_ref())).await
    }

    /// Adds an API key; `false`: its user is not there, or has one of that name.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_api_key(&self, key: ApiKeyRecord) -> Result<bool, StoreError> {
        self.database.write(move |db, _| api_keys::add(db, &key)).await
    }

    /// Notes when API keys were last used. A time earlier than the one known changes nothing.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        self.database.write(move |db, _| api_keys::touch(db, &used)).await
    }

    /// Ends an API key; `None`: there is none of that id.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn revoke_api_key(&self, id: &str) -> Result<Option<Seq>, StoreError> {
        let (id, memory) = (id.to_owned(), self.memory());
        self.database.write(move |db, now| api_keys::revoke(db, now, memory, &id)).await
    }
}

/// Events and housekeeping.
impl Store {
    /// At most `limit` events after `seq`, in order, and the place of the latest event of all.
    /// A latest place before `seq` means that another file is in place now (a backup): forget everything and begin at 0.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn events_after(&self, seq: Seq, limit: usize) -> Result<(Vec<Event>, Seq), StoreError> {
        self.database.read(move |db| events::after(db, seq, limit)).await
    }

    /// The place of the latest event; 0 before the first.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn latest_seq(&self) -> Result<Seq, StoreError> {
        self.database.read(events::latest).await
    }

    /// Differs from an earlier answer when anything was written since, by whatever process, and costs next to nothing.
    /// Ask for it before [`events_after`](Self::events_after), not after, so that nothing falls between.
    ///
    /// # Errors
    /// When the store gives no answer: then revocations are not known to be fresh.
    pub async fn data_version(&self) -> Result<DataVersion, StoreError> {
        self.database.data_version().await.map(DataVersion)
    }

    /// Removes at most `batch` each of what has passed its time: sessions, events, familiar networks, counters.
    /// Answers with how many there were; call again while that is not 0.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn clean(&self, batch: usize) -> Result<usize, StoreError> {
        let now = self.database.settled();
        self.database
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
        self.database.read(throttle::all).await
    }

    /// Saves these counters; one that counts nothing is deleted.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn save_throttle(&self, rows: Vec<ThrottleRecord>) -> Result<(), StoreError> {
        self.database.write(move |db, now| throttle::save(db, now, &rows)).await
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
        let user = user.clone();
        let now = self.database.now();
        self.database.read(move |db| throttle::is_familiar(db, now, &user, &network, browser.as_ref())).await
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
        self.database.write(move |db, now| throttle::note_familiar(db, now, &user, &network, browser.as_ref())).await
    }
}

#[cfg(test)]
mod tests;
