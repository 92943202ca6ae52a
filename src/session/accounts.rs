//! Accounts as they are now, in bounded memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache;

use crate::identity::{Profile, UserName};
use crate::store::{Store, StoreError, UserRecord};

/// What a request needs to know of an account. Never its password's hash.
#[derive(Debug)]
pub struct Account {
    /// Its name.
    pub name: UserName,
    /// The version of its password.
    pub password_version: u64,
    /// Whether it is disabled.
    pub disabled: bool,
    /// What rules judge and applications are told.
    pub profile: Arc<Profile>,
}

impl Account {
    /// The account that the store has as `record`. `None`: no application may be told its name.
    pub fn of(record: UserRecord) -> Option<Self> {
        let UserRecord { name, password_version, groups, email, full_name, disabled, .. } = record;
        let profile = Profile::new(name.as_str(), &groups, email.as_deref(), full_name.as_deref())?;
        Some(Self { name, password_version, disabled, profile: Arc::new(profile) })
    }
}

/// The accounts that were asked for lately, and the names that have none: people whom another issuer knows. An event on a
/// user makes it be read anew, as does a new one.
#[derive(Debug)]
pub struct Accounts {
    store: Store,
    cache: Cache<UserName, Option<Arc<Account>>>,
    forgotten: AtomicU64,
}

impl Accounts {
    /// An empty memory before `store`.
    pub fn new(store: Store) -> Self {
        Self { store, cache: Cache::new(MOST), forgotten: AtomicU64::new(0) }
    }

    /// The account `name` as it is now; `None`: there is none.
    ///
    /// # Errors
    /// When it is not in memory and the store gives no answer.
    pub async fn find(&self, name: &UserName) -> Result<Option<Arc<Account>>, StoreError> {
        if let Some(account) = self.cache.get(name) {
            return Ok(account);
        }
        self.read(name).await
    }

    /// The account `name` as the store has it, which is kept.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn read(&self, name: &UserName) -> Result<Option<Arc<Account>>, StoreError> {
        let before = self.forgotten.load(Ordering::SeqCst);
        let account = self.store.user(name).await?.and_then(Account::of).map(Arc::new);
        self.cache.insert(name.clone(), account.clone());
        // What was read may be older than an event that was applied meanwhile: then it must not stay.
        if self.forgotten.load(Ordering::SeqCst) != before {
            self.cache.remove(name);
        }
        Ok(account)
    }

    /// Has `name` read anew the next time.
    pub fn forget(&self, name: &UserName) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(name);
    }

    /// Has everyone read anew.
    pub fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.clear();
    }
}

/// Accounts kept in memory: some ten megabytes at most.
const MOST: usize = 32 * 1024;
