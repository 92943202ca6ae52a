//! Sessions: begun by a password, found by a cookie's key, ended by anyone who may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_cache::sync::Cache;

use super::refresh::RefreshKey;
use crate::clock::Timestamp;
use crate::config;
use crate::identity::UserName;
use crate::secret::{Random, Secret};
use crate::store::{Digest, Seq, SessionRecord, Store, StoreError};

/// A session as it is kept in memory.
#[derive(Debug)]
pub struct Live {
    /// Its public id: the `sid` of its tokens. Not its key.
    pub id: Arc<str>,
    /// Whose it is.
    pub user: UserName,
    /// How they signed in.
    pub methods: Vec<String>,
    /// When the password was given.
    pub auth_time: Timestamp,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
    /// Whether they asked to be remembered: then it may lie unused.
    pub remember: bool,
    read_at: Timestamp,
    last_seen: AtomicU64,
    written: AtomicU64,
}

impl Live {
    fn of(record: SessionRecord, read_at: Timestamp) -> Self {
        let seen = record.last_seen.as_millis();
        Self {
            id: record.id.into(),
            user: record.user,
            methods: record.methods,
            auth_time: record.auth_time,
            expires_at: record.expires_at,
            remember: record.remember,
            read_at,
            last_seen: AtomicU64::new(seen),
            written: AtomicU64::new(seen),
        }
    }

    fn is_over(&self, now: Timestamp, idle: Duration) -> bool {
        let seen = Timestamp::from_millis(self.last_seen.load(Ordering::Relaxed));
        now >= self.expires_at || (!self.remember && now.since(seen) >= idle)
    }

    /// Whether the store must be asked again: another gateway may have seen it in use, or it was read so long ago that its end
    /// could be forgotten before this memory of it is.
    fn is_worn(&self, now: Timestamp, idle: Duration) -> bool {
        self.is_over(now, idle) || now.since(self.read_at) >= KEPT_FOR
    }
}

/// What a session is begun with.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// Whose it is.
    pub user: &'a UserName,
    /// The version of the password that was verified: a session is not begun when it has changed meanwhile.
    pub password_version: u64,
    /// How they signed in.
    pub method: &'static str,
    /// The client's address.
    pub client: String,
    /// The client's `User-Agent`; cut at 256 bytes.
    pub agent: &'a str,
    /// What it is to be used with.
    pub carrier: Carrier,
}

/// What a session is used with.
#[derive(Clone, Copy)]
pub enum Carrier {
    /// A cookie; `remember` replaces idle time and lifetime.
    Cookie {
        /// What it holds, made by [`Sessions::new_key`].
        key: [u8; 32],
        /// Whether they asked to stay signed in.
        remember: bool,
    },
    /// Access tokens and a refresh token.
    Tokens,
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cookie { .. } => "Cookie",
            Self::Tokens => "Tokens",
        })
    }
}

/// A session that has just begun.
#[derive(Debug)]
pub struct Opened {
    /// Its public id.
    pub id: String,
    /// The cookie's value, or the refresh token.
    pub key: Secret<String>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The latest event at its beginning: to be taken in before it is used.
    pub seq: Seq,
}

/// The sessions that were used lately. Their uses are written at most once a minute, together.
#[derive(Debug)]
pub struct Sessions {
    pub(super) store: Store,
    random: Random,
    pub(super) refresh: RefreshKey,
    terms: ArcSwap<config::Sessions>,
    cache: Cache<Digest, Arc<Live>>,
    unwritten: Mutex<Vec<(String, Timestamp)>>,
}

impl Sessions {
    /// An empty memory before `store`.
    pub fn new(store: Store, random: Random, refresh: RefreshKey, terms: config::Sessions) -> Self {
        let terms = ArcSwap::from_pointee(terms);
        Self { store, random, refresh, terms, cache: Cache::new(MOST), unwritten: Mutex::new(Vec::new()) }
    }

    /// Puts `terms` in force. A session keeps the end that it began with; how long it may lie unused is always asked anew.
    pub fn set_terms(&self, terms: config::Sessions) {
        self.terms.store(Arc::new(terms));
    }

    /// How long a session may lie unused, unless its owner asked to be remembered.
    pub(super) fn idle(&self) -> Duration {
        self.terms.load().idle
    }

    /// A key for a cookie: 256 random bits, new at every sign-in.
    pub fn new_key(&self) -> [u8; 32] {
        self.random.bytes()
    }

    /// Begins a session; `None` when the account is gone or disabled, or its password has changed since it was verified.
    ///
    /// # Errors
    /// When the store gives no answer: then there is no session.
    pub async fn open(&self, new: NewSession<'_>, now: Timestamp) -> Result<Option<Opened>, StoreError> {
        let raw_id = self.random.bytes::<16>();
        let id = super::refresh::session_id(&raw_id);
        let (remember, key, digests) = match new.carrier {
            Carrier::Cookie { key, remember } => {
                let cookie = super::refresh::text(&key);
                (remember, Secret::new(cookie), (Some(sha256(&key)), None))
            }
            Carrier::Tokens => {
                let refresh = self.refresh.token(&raw_id, 0);
                let digest = sha256(refresh.expose().as_bytes());
                (false, refresh, (None, Some(digest)))
            }
        };
        let terms = self.terms.load_full();
        let expires_at = now + if remember { terms.remember } else { terms.lifetime };
        let record = SessionRecord {
            id: id.clone(),
            key_hash: digests.0,
            refresh_hash: digests.1,
            refresh_generation: 0,
            user: new.user.clone(),
            created_at: now,
            auth_time: now,
            last_seen: now,
            remember,
            methods: vec![new.method.to_owned()],
            client: new.client,
            agent: shortened(new.agent),
            expires_at,
        };
        let opened = self.store.create_session(record, new.password_version).await?;
        Ok(opened.map(|seq| Opened { id, key, expires_at, seq }))
    }

    /// The session behind a cookie's key, if it is neither over nor unused for too long.
    ///
    /// # Errors
    /// When it is not in memory and the store gives no answer.
    pub async fn find(&self, key: &[u8; 32], now: Timestamp) -> Result<Option<Arc<Live>>, StoreError> {
        let (digest, idle) = (sha256(key), self.idle());
        let live = match self.cache.get(&digest) {
            Some(live) if !live.is_worn(now, idle) => live,
            worn => match self.store.session_by_key(digest).await? {
                None => {
                    self.cache.remove(&digest);
                    return Ok(None);
                }
                Some(record) => {
                    let live = Arc::new(Live::of(record, now));
                    if let Some(worn) = worn {
                        live.last_seen.fetch_max(worn.last_seen.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    self.cache.insert(digest, Arc::clone(&live));
                    live
                }
            },
        };
        Ok((!live.is_over(now, idle)).then_some(live))
    }

    /// When the session `id` ends, used or not; `None`: the store knows no such session.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn ends_at(&self, id: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.store.session(id).await?.map(|session| session.expires_at))
    }

    /// Notes that a session is in use. Costs two loads and a store; what is to be written waits for [`Sessions::flush`].
    pub fn seen(&self, live: &Live, now: Timestamp) {
        live.last_seen.fetch_max(now.as_millis(), Ordering::Relaxed);
        let written = live.written.load(Ordering::Relaxed);
        let is_due = now.since(Timestamp::from_millis(written)) >= WRITE_EVERY;
        let swap = |now| live.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && swap(now.as_millis()).is_ok() {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            if unwritten.len() < MOST {
                unwritten.push((live.id.to_string(), now));
            }
        }
    }

    /// Notes that a session is in use through an access token. `noted` is when it was last noted for that token, in
    /// milliseconds; until a note is due this costs two loads.
    pub fn seen_by_token(&self, id: &str, noted: &AtomicU64, now: Timestamp) {
        let before = noted.load(Ordering::Relaxed);
        let is_due = now.since(Timestamp::from_millis(before)) >= WRITE_EVERY.min(self.idle() / 2);
        if is_due && noted.compare_exchange(before, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            if unwritten.len() < MOST {
                unwritten.push((id.to_owned(), now));
            }
        }
    }

    /// Writes the uses that were noted since the last time.
    ///
    /// # Errors
    /// When the store gives no answer; then the next call tries again.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let seen = std::mem::take(&mut *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.is_empty() {
            return Ok(());
        }
        let result = self.store.touch_sessions(seen.clone()).await;
        if result.is_err() {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MOST.saturating_sub(unwritten.len());
            unwritten.extend(seen.into_iter().take(room));
        }
        result
    }

    /// Drops everything.
    pub fn forget_all(&self) {
        self.cache.clear();
    }
}

/// The 256-bit key in a cookie's value, if it has the form of one.
pub fn cookie_key(value: &[u8]) -> Option<[u8; 32]> {
    let mut key = [0; 33];
    let length = URL_SAFE_NO_PAD.decode_slice(value, &mut key).ok()?;
    (length == 32).then(|| std::array::from_fn(|index| key[index]))
}

/// SHA-256: what is stored instead of keys. They are random, so no salt is needed.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn shortened(agent: &str) -> String {
    let end = (0..=agent.len().min(256)).rev().find(|&end| agent.is_char_boundary(end)).unwrap_or(0);
    agent[..end].to_owned()
}

/// Sessions kept in memory: some twenty megabytes at most.
const MOST: usize = 64 * 1024;

/// How long a session is believed before the store is asked again. Its end must be remembered for longer.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(3600);

/// How often a session's use is written at most.
const WRITE_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_has_the_form_of_a_key() {
        let key = URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(cookie_key(key.as_bytes()), Some([7; 32]));
        for bad in ["", "x", &key[1..], &format!("{key}A"), &format!("{key}="), "\"quoted\""] {
            assert_eq!(cookie_key(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
