//! Tokens that someone else signs: the issuers of `[[issuers]]`, their keys, and what a token of theirs comes to.
//!
//! `jwks` reads key sets, `judge` judges a token, `source` says where keys come from, `refresh` keeps them fresh. A key that
//! its issuer has withdrawn is marked, so that whoever holds a token that it signed finds out without looking it up.

mod judge;
mod jwks;
mod refresh;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::timeout;

pub use judge::{Verified, person_of};
pub use jwks::{JwksError, Unusable};
pub use refresh::Status;
pub use source::SourceError;

use super::jose;
use super::verify::Reason;
use crate::clock::{Clock, Timestamp};
use crate::config;
use judge::Judged;
use jwks::PublicKey;
use refresh::{Fetching, Wanted};

/// The issuers of one configuration.
#[derive(Debug, Default)]
pub struct Issuers(Vec<Arc<Issuer>>);

impl Issuers {
    /// The issuers that `configs` names. Those that `former` has on the same terms are kept, with their keys.
    pub fn new(configs: &[Arc<config::Issuer>], former: &Self, clock: &Clock) -> Self {
        let kept = |config: &Arc<config::Issuer>| former.0.iter().find(|issuer| issuer.config == *config).cloned();
        let make = |config: &Arc<config::Issuer>| Arc::new(Issuer::new(Arc::clone(config), clock.clone()));
        Self(configs.iter().map(|config| kept(config).unwrap_or_else(|| make(config))).collect())
    }

    /// The issuer whose tokens say `issuer`.
    pub fn find(&self, issuer: &str) -> Option<&Arc<Issuer>> {
        self.0.iter().find(|known| known.config.issuer == issuer)
    }

    /// The place of `issuer` in the configuration, if it is one of these and not one of a former configuration.
    pub fn place(&self, issuer: &Arc<Issuer>) -> Option<usize> {
        self.0.iter().position(|known| Arc::ptr_eq(known, issuer))
    }

    /// Whether `token` says that it comes from one of them, good or bad, as the laxest reader might take it. Proves nothing.
    pub fn is_theirs(&self, token: &str) -> bool {
        self.0.iter().any(|issuer| jose::claims_issuer(token, &issuer.config.issuer))
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.0.iter()
    }
}

/// Someone else whose tokens are accepted.
#[derive(Debug)]
pub struct Issuer {
    config: Arc<config::Issuer>,
    clock: Clock,
    /// `None`: none have come yet, or they are too old.
    keys: ArcSwapOption<Vec<Arc<PublicKey>>>,
    fetching: Fetching,
    /// Rises whenever keys were withdrawn.
    withdrawals: watch::Sender<u64>,
    is_kept: AtomicBool,
}

impl Issuer {
    fn new(config: Arc<config::Issuer>, clock: Clock) -> Self {
        let keys = match &config.keys {
            config::IssuerKeys::Shared(secrets) => {
                let keys = PublicKey::shared(secrets, &config.algorithms);
                Some(Arc::new(keys.into_iter().map(Arc::new).collect()))
            }
            _ => None,
        };
        let (keys, fetching) = (ArcSwapOption::new(keys), Fetching::new());
        Self { config, clock, keys, fetching, withdrawals: watch::Sender::new(0), is_kept: AtomicBool::new(false) }
    }

    /// Its terms.
    pub const fn config(&self) -> &Arc<config::Issuer> {
        &self.config
    }

    /// Judges `token`, whose `iss` is this issuer's, as of `now`. Where the key that signed it is not known the issuer may be
    /// asked for its keys first, which takes a moment.
    ///
    /// # Errors
    /// Why it does not hold, or that nobody can say now.
    pub async fn verify(self: &Arc<Self>, token: &str, now: Timestamp) -> Result<Verified, ForeignRefusal> {
        let mut attempts = self.fetching.subscribe();
        let key_id = match judge::judge(self, token, now) {
            Judged::Holds(verified) => return Ok(*verified),
            Judged::Refused(refusal) => return Err(refusal),
            Judged::UnknownKey(key_id) => key_id,
        };
        if matches!(self.config.keys, config::IssuerKeys::Shared(_)) {
            return Err(Reason::Signature.into());
        }
        let is_new = match self.fetching.want(&key_id, self.clock.monotonic(), &attempts) {
            Wanted::NotNow => return Err(self.unknown_key()),
            Wanted::Ended => false,
            Wanted::Soon { is_new } => match timeout(PATIENCE, attempts.changed()).await {
                Ok(_) => is_new,
                Err(_) => return Err(ForeignRefusal::Unavailable),
            },
        };
        match judge::judge(self, token, now) {
            Judged::Holds(verified) => Ok(*verified),
            Judged::Refused(refusal) => Err(refusal),
            Judged::UnknownKey(key_id) => {
                // An attempt that had begun before the token came may have been too early for its key.
                if is_new && self.fetching.is_well() {
                    self.fetching.not_found(&key_id, self.clock.monotonic());
                }
                Err(self.unknown_key())
            }
        }
    }

    /// What a token is told whose key is not known: that there is none only where the issuer has said so.
    fn unknown_key(&self) -> ForeignRefusal {
        if self.fetching.is_well() { Reason::UnknownKey.into() } else { ForeignRefusal::Unavailable }
    }
}

/// Why a token of another issuer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignRefusal {
    /// It was good once.
    Expired,
    /// It does not hold.
    Invalid(Reason),
    /// The issuer's keys are not known, and it does not answer: nobody can say.
    Unavailable,
}

impl fmt::Display for ForeignRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::Invalid(reason) => reason.fmt(f),
            Self::Unavailable => f.write_str("the issuer's keys can't be had"),
        }
    }
}

impl std::error::Error for ForeignRefusal {}

impl From<Reason> for ForeignRefusal {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

/// How long a request waits for an issuer's keys.
const PATIENCE: Duration = Duration::from_secs(3);
