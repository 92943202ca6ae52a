//! API keys as they are now, in bounded memory. Their uses are written at most once a minute, together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;

use super::Account;
use crate::clock::Timestamp;
use crate::identity::api_key::ApiKeyText;
use crate::identity::{Profile, UserName};
use crate::secret::Secret;
use crate::store::{ApiKeyRecord, Digest, Store, StoreError};

/// An API key as it is kept in memory. Never the key itself.
#[derive(Debug)]
pub struct ApiKey {
    /// Its public id.
    pub id: Arc<str>,
    /// Whom it acts as.
    pub user: UserName,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    key_hash: Secret<Digest>,
    groups: Option<Vec<String>>,
    routes: Option<Arc<[String]>>,
    written: AtomicU64,
    /// The account's profile that was narrowed last, and what it came to.
    narrowed: ArcSwapOption<(Arc<Profile>, Arc<Profile>)>,
}

impl ApiKey {
    /// Whether it has passed its end.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// The names of the only routes on which it counts.
    pub const fn routes(&self) -> Option<&Arc<[String]>> {
        self.routes.as_ref()
    }

    /// Whether it counts on every route that accepts API keys.
    pub const fn counts_everywhere(&self) -> bool {
        self.routes.is_none()
    }

    /// What rules judge and applications are told of its user: the account as it is now, with no group that the key may not use.
    pub fn profile(&self, account: &Account) -> Option<Arc<Profile>> {
        let whole = &account.profile;
        let Some(allowed) = &self.groups else { return Some(Arc::clone(whole)) };
        if let Some(narrowed) = &*self.narrowed.load()
            && Arc::ptr_eq(&narrowed.0, whole)
        {
            return Some(Arc::clone(&narrowed.1));
        }
        let groups: Vec<String> = whole.groups.iter().filter(|group| allowed.contains(group)).cloned().collect();
        let profile = Arc::new(Profile::new(&whole.user, &groups, whole.email.as_deref(), whole.name.as_deref())?);
        self.narrowed.store(Some(Arc::new((Arc::clone(whole), Arc::clone(&profile)))));
        Some(profile)
    }
}

/// The keys that were used lately. An event on a key makes it be read anew.
#[derive(Debug)]
pub struct ApiKeys {
    store: Store,
    cache: Cache<Arc<str>, Arc<ApiKey>>,
    forgotten: AtomicU64,
    unwritten: Mutex<Vec<(String, Timestamp)>>,
}

impl ApiKeys {
    /// An empty memory before `store`.
    pub fn new(store: Store) -> Self {
        Self { store, cache: Cache::new(MOST), forgotten: AtomicU64::new(0), unwritten: Mutex::default() }
    }

    /// The key whose text this is; `None`: there is none, or it was revoked. The caller judges its end.
    ///
    /// # Errors
    /// When it is not in memory and the store gives no answer.
    pub async fn find(&self, text: ApiKeyText<'_>) -> Result<Option<Arc<ApiKey>>, StoreError> {
        let key = self.find_id(text.id()).await?;
        Ok(key.filter(|key| key.key_hash.is(&text.digest())))
    }

    /// The key called `id`; `None`: there is none, or it was revoked.
    ///
    /// # Errors
    /// When it is not in memory and the store gives no answer.
    pub async fn find_id(&self, id: &str) -> Result<Option<Arc<ApiKey>>, StoreError> {
        if let Some(key) = self.cache.get(id) {
            return Ok(Some(key));
        }
        let before = self.forgotten.load(Ordering::SeqCst);
        let Some(record) = self.store.api_key(id).await? else { return Ok(None) };
        let key = Arc::new(api_key(record));
        self.cache.insert(Arc::clone(&key.id), Arc::clone(&key));
        // What was read may be older than an event that was applied meanwhile: then it must not stay.
        if self.forgotten.load(Ordering::SeqCst) != before {
            self.cache.remove(id);
        }
        Ok(Some(key))
    }

    /// Notes that a key is in use. What is to be written waits for [`ApiKeys::flush`].
    pub fn used(&self, key: &ApiKey, now: Timestamp) {
        let written = key.written.load(Ordering::Relaxed);
        let is_due = now.since(Timestamp::from_millis(written)) >= WRITE_EVERY;
        let swap = |now| key.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && swap(now.as_millis()).is_ok() {
            self.wait_to_be_written([(key.id.to_string(), now)]);
        }
    }

    /// Writes the uses that were noted since the last time.
    ///
    /// # Errors
    /// When the store gives no answer; then the next call tries again.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        let result = self.store.touch_api_keys(used.clone()).await;
        if result.is_err() {
            self.wait_to_be_written(used);
        }
        result
    }

    /// Has the key called `id` read anew the next time.
    pub fn forget(&self, id: &str) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(id);
    }

    /// Has every key read anew.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.clear();
    }

    fn wait_to_be_written(&self, used: impl IntoIterator<Item = (String, Timestamp)>) {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(unwritten.len());
        unwritten.extend(used.into_iter().take(room));
    }
}

fn api_key(record: ApiKeyRecord) -> ApiKey {
    ApiKey {
        id: record.id.into(),
        user: record.user,
        scopes: record.scopes,
        expires_at: record.expires_at,
        key_hash: Secret::new(record.key_hash),
        groups: record.groups,
        routes: record.routes.map(Into::into),
        written: AtomicU64::new(record.last_used.map_or(0, Timestamp::as_millis)),
        narrowed: ArcSwapOption::empty(),
    }
}

/// Keys kept in memory: some ten megabytes at most.
const MOST: usize = 16 * 1024;

/// How often a key's use is written at most.
const WRITE_EVERY: Duration = Duration::from_secs(60);
