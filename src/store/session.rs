//! What the store does for sessions and tokens.

use std::time::Duration;

use super::records::{Digest, Rotated, Rotation, Seq, SessionRecord};
use super::sqlite::{rotation, sessions};
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::identity::UserName;

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
        self.database()?.write(move |db, _| sessions::create(db, &session, password_version)).await
    }

    /// The session `id`, if it has not ended; the caller judges its times.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn session(&self, id: &str) -> Result<Option<SessionRecord>, StoreError> {
        if self.is_none() {
            return Ok(None);
        }
        let id = id.to_owned();
        self.database()?.read(move |db| sessions::find(db, &id)).await
    }

    /// The session behind the cookie whose key has this digest, if it has not ended; the caller judges its times.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn session_by_key(&self, key_hash: Digest) -> Result<Option<SessionRecord>, StoreError> {
        if self.is_none() {
            return Ok(None);
        }
        self.database()?.read(move |db| sessions::find_by_key(db, &key_hash)).await
    }

    /// Judges a refresh token and, if it is good, puts its successor in its place; one that is used again too late ends
    /// its session. All of it or nothing: a family never forks.
    ///
    /// # Errors
    /// When the store gives no answer: then the token presented is still to be presented again.
    pub async fn rotate_refresh(&self, rotation: Rotation) -> Result<Rotated, StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| rotation::rotate(db, now, memory, &rotation)).await
    }

    /// Notes when sessions were last used. A time earlier than the one known changes nothing.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn touch_sessions(&self, seen: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        if self.is_none() {
            return Ok(());
        }
        self.database()?.write(move |db, _| sessions::touch(db, &seen)).await
    }

    /// Ends a session, also one that the store no longer knows but whose tokens may live. Twice is once.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_session(&self, id: &str) -> Result<Seq, StoreError> {
        let (id, memory) = (id.to_owned(), self.memory());
        self.database()?.write(move |db, now| sessions::end(db, now, memory, &id)).await
    }

    /// Ends all sessions of a user, and tokens of theirs that have no session.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_sessions_of(&self, user: &UserName) -> Result<Seq, StoreError> {
        let (user, memory) = (user.clone(), self.memory());
        self.database()?.write(move |db, now| sessions::end_all_of(db, now, memory, &user)).await
    }

    /// The sessions of one user or of all that have not passed their end, the latest used first.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn sessions(&self, user: Option<&UserName>) -> Result<Vec<SessionRecord>, StoreError> {
        let user = user.cloned();
        let now = self.database()?.now();
        self.database()?.read(move |db| sessions::list(db, now, user.as_ref())).await
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
        let (user, except, now) = (user.clone(), except.to_owned(), self.database()?.now());
        self.database()?.read(move |db| sessions::others(db, now, now - idle, (&user, &except), limit)).await
    }

    /// Ends every session of `user` but `except`; answers with how many there were.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_other_sessions(&self, user: &UserName, except: &str) -> Result<usize, StoreError> {
        let (user, except, memory) = (user.clone(), except.to_owned(), self.memory());
        self.database()?.write(move |db, now| sessions::end_others(db, now, memory, &user, &except)).await
    }

    /// Ends the tokens of a user that have no session and were issued by `issued`; their sessions go on.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn end_tokens_of(&self, user: &UserName, issued: Timestamp) -> Result<Seq, StoreError> {
        let (user, memory) = (user.clone(), self.memory());
        self.database()?.write(move |db, now| sessions::end_tokens_of(db, now, memory, &user, issued)).await
    }

    /// Refuses one token from now on; it expires at `until`. Twice is once.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn revoke_jti(&self, jti: &str, until: Timestamp) -> Result<Seq, StoreError> {
        let (jti, memory) = (jti.to_owned(), self.memory());
        self.database()?.write(move |db, now| sessions::revoke_jti(db, now, memory, &jti, until)).await
    }
}
