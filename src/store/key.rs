//! What the store does for signing keys, secrets and the keys of machines.

use std::time::Duration;

use super::records::{ApiKeyRecord, KeyRecord, KeyUse, Lives, Retired, Seq};
use super::sqlite::{api_keys, keys};
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::identity::UserName;
use crate::secret::Secret;

/// Keys and secrets.
impl Store {
    /// All keys, the oldest first.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn signing_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        if self.is_none() {
            return Ok(Vec::new());
        }
        self.database()?.read(keys::all).await
    }

    /// Adds a signing key; `None`: there is one of that `kid` already.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_signing_key(&self, key: KeyRecord) -> Result<Option<Seq>, StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| keys::add(db, now, memory, &key)).await
    }

    /// A key of `key`'s algorithm and purpose that is not retired: adds `key` if there is none, so that gateways that start at once agree on one.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn first_signing_key(&self, key: KeyRecord) -> Result<KeyRecord, StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| keys::first(db, now, memory, key)).await
    }

    /// Makes `key` the one that signs from now on, or after `publish_first`. Every other of its purpose is retired by then, and one
    /// whose time has not come yet never signs. The key's times are set here.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn rotate_keys(&self, key: KeyRecord, publish_first: Duration) -> Result<(KeyRecord, Seq), StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| keys::rotate(db, now, memory, key, publish_first)).await
    }

    /// Notes that what the signing keys of `purpose` sign from now on may live for `lifetime`.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn note_key_lifetime(&self, purpose: KeyUse, lifetime: Duration) -> Result<(), StoreError> {
        self.database()?.write(move |db, now| keys::note_lifetime(db, now, purpose, lifetime)).await
    }

    /// Removes a key at once, whatever it has signed; not the one that signs with `algorithm`, if no other one does now.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn retire_key(&self, kid: &str, algorithm: Algorithm) -> Result<Retired, StoreError> {
        let (kid, memory) = (kid.to_owned(), self.memory());
        self.database()?.write(move |db, now| keys::retire(db, now, memory, &kid, algorithm)).await
    }

    /// Removes the keys of `purpose` whose last token has expired. Answers with how many there were.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn clean_keys(&self, purpose: KeyUse, lives: Lives) -> Result<usize, StoreError> {
        if self.is_none() {
            return Ok(0);
        }
        let (memory, settled) = (self.memory(), self.database()?.settled());
        self.database()?.write(move |db, now| keys::clean(db, (now, settled), memory, purpose, lives)).await
    }

    /// The secret called `name`, made when it is first asked for, the same for all gateways on this store.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn server_secret(&self, name: &'static str) -> Result<Secret<[u8; 32]>, StoreError> {
        if self.is_none() {
            return Ok(Secret::new(self.random.bytes::<32>()));
        }
        if let Some(secret) = self.database()?.read(move |db| keys::secret(db, name)).await? {
            return Ok(secret);
        }
        let fresh = Secret::new(self.random.bytes::<32>());
        self.database()?.write(move |db, _| keys::secret_or(db, name, &fresh)).await
    }
}

/// Keys for machines.
impl Store {
    /// The API key `id`, if it was not revoked; the caller judges its digest and its end.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn api_key(&self, id: &str) -> Result<Option<ApiKeyRecord>, StoreError> {
        if self.is_none() {
            return Ok(None);
        }
        let id = id.to_owned();
        self.database()?.read(move |db| api_keys::find(db, &id)).await
    }

    /// The API keys of one user or of all, expired ones too, by user and name.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn api_keys(&self, user: Option<&UserName>) -> Result<Vec<ApiKeyRecord>, StoreError> {
        if self.is_none() {
            return Ok(Vec::new());
        }
        let user = user.cloned();
        self.database()?.read(move |db| api_keys::list(db, user.as_ref())).await
    }

    /// Adds an API key; `false`: its user is not there, or has one of that name.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_api_key(&self, key: ApiKeyRecord) -> Result<bool, StoreError> {
        self.database()?.write(move |db, _| api_keys::add(db, &key)).await
    }

    /// Notes when API keys were last used. A time earlier than the one known changes nothing.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        if self.is_none() {
            return Ok(());
        }
        self.database()?.write(move |db, _| api_keys::touch(db, &used)).await
    }

    /// Ends an API key; `None`: there is none of that id.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn revoke_api_key(&self, id: &str) -> Result<Option<Seq>, StoreError> {
        let (id, memory) = (id.to_owned(), self.memory());
        self.database()?.write(move |db, now| api_keys::revoke(db, now, memory, &id)).await
    }
}
