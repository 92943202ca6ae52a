//! What the store does for accounts.

use super::records::{NewUser, Seq, Synced, UserRecord};
use super::sqlite::{file_users, users};
use super::{Store, StoreError};
use crate::identity::UserName;
use crate::identity::password::account_file::FileAccount;
use crate::secret::Secret;

/// Users.
impl Store {
    /// The account `name`; `None`: there is none.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, StoreError> {
        if self.is_none() {
            return Ok(None);
        }
        let name = name.clone();
        self.database()?.read(move |db| users::find(db, &name)).await
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        if self.is_none() {
            return Ok(Vec::new());
        }
        self.database()?.read(users::all).await
    }

    /// Whether there is any account.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn has_users(&self) -> Result<bool, StoreError> {
        self.database()?.read(users::exist).await
    }

    /// Makes an account; `None`: the name is taken.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_user(&self, user: NewUser) -> Result<Option<Seq>, StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| users::add(db, now, memory, &user)).await
    }

    /// Makes all these accounts or, on an error, none; answers with the names that were taken, which stay as they are.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn add_users(&self, users: Vec<NewUser>) -> Result<Vec<UserName>, StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| users::add_all(db, now, memory, &users)).await
    }

    /// Makes the accounts of the file those that `accounts` says: all of it or nothing. Whoever has another password or is
    /// gone has no session any more. Accounts that the store has of its own stay as they are.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn sync_file(&self, accounts: Vec<FileAccount>) -> Result<Synced, StoreError> {
        let memory = self.memory();
        self.database()?.write(move |db, now| file_users::sync(db, now, memory, &accounts)).await
    }

    /// Sets a new password, which ends all sessions of the account and makes no network or browser familiar any more;
    /// `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_password(&self, name: &UserName, hash: Secret<String>) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database()?.write(move |db, now| users::set_password(db, now, memory, &name, &hash)).await
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
        self.database()?
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
        self.database()?.write(move |db, _| users::upgrade_hash(db, &name, &old, &new)).await
    }

    /// Sets the groups; sessions go on and are judged by the new ones. `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_groups(&self, name: &UserName, groups: Vec<String>) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database()?.write(move |db, now| users::set_groups(db, now, memory, &name, groups)).await
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
        self.database()?.write(move |db, now| users::set_profile(db, now, memory, &name, email, full_name)).await
    }

    /// Disables the account, which ends its sessions, or enables it again; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn set_disabled(&self, name: &UserName, disabled: bool) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database()?.write(move |db, now| users::set_disabled(db, now, memory, &name, disabled)).await
    }

    /// Deletes the account and ends its sessions; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn delete_user(&self, name: &UserName) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database()?.write(move |db, now| users::delete(db, now, memory, &name)).await
    }

    /// Notes that someone has just signed in to the account.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn note_sign_in(&self, name: &UserName) -> Result<(), StoreError> {
        let name = name.clone();
        self.database()?.write(move |db, now| users::note_sign_in(db, now, &name)).await
    }

    /// Forgives the account's failed sign-ins, by an event for the gateways that count them; `None`: no such user.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn unlock(&self, name: &UserName) -> Result<Option<Seq>, StoreError> {
        let (name, memory) = (name.clone(), self.memory());
        self.database()?.write(move |db, now| users::unlock(db, now, memory, &name)).await
    }
}
