//! A name and a password, judged: throttled before any hashing, in the same time whether the account exists or not.
//!
//! Every way to give a password (form, JSON, later others) comes through here, so that they share their counters.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Follower;
use crate::identity::UserName;
use crate::identity::password::{self, Hasher, Verification};
use crate::metrics::Words;
use crate::secret::Secret;
use crate::store::{Digest, Store, StoreError, UserRecord};
use crate::throttle::{RetryAfter, Throttle};

/// Judges names and passwords.
#[derive(Debug)]
pub struct SignIn {
    store: Store,
    hasher: Hasher,
    throttle: Throttle,
    follower: Arc<Follower>,
    logins: Words,
}

/// What someone typed, and where.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The name as it was typed.
    pub typed: &'a str,
    /// The password as it was typed.
    pub password: &'a Secret<String>,
    /// The client's address.
    pub client: IpAddr,
    /// What this browser shows of an earlier sign-in: the digest of the cookie that it was given then.
    pub browser: Option<Digest>,
    /// What it will show at its next one, if this one succeeds.
    pub browser_from_now: Option<Digest>,
}

/// Why there is no sign-in.
#[derive(Debug)]
pub enum Failure {
    /// The name or the password is wrong, or the account is disabled. The client never learns which.
    Wrong {
        /// The account, if there is one, for the log.
        user: Option<UserName>,
        /// Which, for the log.
        reason: &'static str,
    },
    /// Too many attempts: nothing was looked at.
    TooMany(RetryAfter),
    /// Longer than any password can be: nothing was looked at.
    PasswordTooLong,
    /// Too many passwords are waiting.
    Busy,
    /// The store gives no answer.
    Store(StoreError),
}

impl SignIn {
    /// A judge over these.
    pub fn new(store: Store, hasher: Hasher, throttle: Throttle, follower: Arc<Follower>) -> Self {
        let logins = Words::new(&["success", "failure", "throttled", "invalid", "busy", "error"]);
        Self { store, hasher, throttle, follower, logins }
    }

    /// What came of the names and passwords so far.
    pub const fn logins(&self) -> &Words {
        &self.logins
    }

    /// What was counted of passwords.
    pub fn passwords(&self) -> &password::Counts {
        self.hasher.counts()
    }

    /// The account behind a name and its password: someone signs in.
    ///
    /// # Errors
    /// As [`Failure`] says. Only [`Failure::Wrong`] is counted.
    pub async fn verify(&self, asked: Asked<'_>) -> Result<UserRecord, Failure> {
        let judged = self.judge(asked).await;
        self.logins.count(judged.as_ref().map_or_else(word, |_| "success"));
        let user = judged?;
        match timeout(A_MOMENT, self.store.note_sign_in(&user.name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(user = %user.name, %error, "the sign-in was not noted"),
            Err(_) => tracing::warn!(user = %user.name, "the store is slow: the sign-in is noted later"),
        }
        Ok(user)
    }

    /// As [`SignIn::verify`], for someone who is signed in already and says the password once more: that is no sign-in, and a
    /// wrong one a failed attempt all the same.
    ///
    /// # Errors
    /// As there.
    pub async fn confirm(&self, asked: Asked<'_>) -> Result<UserRecord, Failure> {
        let judged = self.judge(asked).await;
        if let Err(failure) = &judged {
            self.logins.count(word(failure));
        }
        judged
    }

    async fn judge(&self, asked: Asked<'_>) -> Result<UserRecord, Failure> {
        if asked.password.expose().len() > password::MAX_BYTES {
            return Err(Failure::PasswordTooLong);
        }
        // First of all what happened meanwhile, so that what was allowed again is allowed at once.
        self.follower.catch_up().await.map_err(Failure::Store)?;
        let mut attempt =
            self.throttle.check(asked.typed, asked.client, asked.browser).await.map_err(Failure::TooMany)?;
        let user = match UserName::parse(asked.typed) {
            None => None,
            Some(name) => match self.store.user(&name).await {
                Ok(user) => user,
                Err(error) => {
                    attempt.abandoned();
                    return Err(Failure::Store(error));
                }
            },
        };
        let hash = user.as_ref().filter(|user| !user.disabled).and_then(|user| user.hash.clone());
        attempt.judging();
        let verification = self.hasher.verify(asked.password.clone(), hash).await;
        let wrong = |reason| Err(Failure::Wrong { user: user.as_ref().map(|user| user.name.clone()), reason });
        match (verification, &user) {
            (Verification::Match { rehash }, Some(found)) => {
                attempt.succeeded(asked.browser_from_now).await;
                self.upgrade(found, rehash).await;
                Ok(found.clone())
            }
            (Verification::Busy, _) => {
                attempt.abandoned();
                Err(Failure::Busy)
            }
            (Verification::Unreadable, Some(found)) => {
                tracing::error!(user = %found.name, "the stored password hash can't be read: set a new password");
                attempt.failed();
                wrong("the stored hash can't be read")
            }
            (_, found) => {
                attempt.failed();
                wrong(match found {
                    None => "no such account",
                    Some(found) if found.disabled => "the account is disabled",
                    Some(found) if found.hash.is_none() => "the account has no password",
                    Some(_) => "wrong password",
                })
            }
        }
    }

    /// Gives an account that has just been verified a new password, which ends all its sessions; answers with the version
    /// of the new password. `None`: the account has changed meanwhile, and nothing was done.
    ///
    /// # Errors
    /// [`Failure::Busy`] and [`Failure::Store`]: then the old password is still the one.
    pub async fn change_password(
        &self,
        verified: &UserRecord,
        password: &Secret<String>,
    ) -> Result<Option<u64>, Failure> {
        let hash = self.hasher.hash(password.clone()).await.map_err(|_| Failure::Busy)?;
        let changed = self.store.change_password(&verified.name, verified.password_version, hash);
        changed.await.map_err(Failure::Store)
    }

    /// Makes the browser and its network familiar with an account again: a new password forgets them.
    pub async fn note_familiar(&self, user: &UserName, client: IpAddr, browser: Digest) {
        if let Err(error) = self.throttle.note_familiar(user, client, browser).await {
            tracing::warn!(%user, %error, "the browser was not noted");
        }
    }

    /// Stores the same password under a stronger hash. When that fails there is another sign-in to do it.
    async fn upgrade(&self, user: &UserRecord, rehash: Option<Secret<String>>) {
        if let (Some(old), Some(new)) = (user.hash.clone(), rehash)
            && let Err(error) = self.store.upgrade_hash(&user.name, old, new).await
        {
            tracing::warn!(user = %user.name, %error, "the password's hash was not upgraded");
        }
    }
}

/// What a failure is counted as.
const fn word(failure: &Failure) -> &'static str {
    match failure {
        Failure::Wrong { .. } => "failure",
        Failure::TooMany(_) => "throttled",
        Failure::PasswordTooLong => "invalid",
        Failure::Busy => "busy",
        Failure::Store(_) => "error",
    }
}

/// How long a sign-in waits for what it can do without to be written; a store that is slow writes it later.
const A_MOMENT: Duration = Duration::from_millis(250);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { reason, .. } => f.write_str(reason),
            Self::TooMany(_) => f.write_str("too many attempts"),
            Self::PasswordTooLong => f.write_str("the password is too long"),
            Self::Busy => f.write_str("too many passwords are waiting"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}
