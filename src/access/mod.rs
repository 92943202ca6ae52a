//! The one decision: may this request go on, and as whom.
//!
//! [`Access::check`] finds the route, reads the credential, believes or refuses it and asks the rules, under every
//! reading of the path. Proxying, forward-auth and `explain` all call it, so that they cannot disagree.
//! [`Permit`] is the only way to forward a request, and only this module makes one.

mod authenticate;
mod authorize;
mod credential;
mod lease;
mod preflight;
mod reason;
mod rules;
mod seen;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;

pub use authenticate::{Bad, Known, Proof, Standing, identity_by_foreign_token, identity_by_key, identity_by_token};
pub use authorize::{Authorized, Challenge, Decision, Denial, Judged, Permit, SetAside, Want};
pub use credential::{Authorization, Credential, authorization, extract, shows_api_key};
pub use lease::Lease;
pub use preflight::{Answers, Preflight};
pub use reason::Reason;
pub use rules::{Asker, Asking, Look, No, Rules, Ruling, Says, Shown, Source, Ways, rule};

use crate::clock::Timestamp;
use crate::config::{Accept, Config};
use crate::message::head::Head;
use crate::metrics::Lookups;
use crate::session::{Accounts, ApiKeys, Basic, Follower, Sessions};
use crate::token::foreign::Issuers;
use crate::token::{Keyring, Revocations};
use seen::Seen;

/// Everything that a decision needs, of one generation of the configuration.
#[derive(Debug)]
pub struct Access {
    rules: Rules,
    keys: Arc<Keyring>,
    issuers: Arc<Issuers>,
    people: People,
    seen: Arc<Seen>,
    cookie: String,
    public_origin: String,
    max_staleness: Duration,
    max_lifetime: Duration,
    config: Arc<Config>,
}

/// What is known of people, sessions and revocations: outlives a change of the configuration.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct People {
    pub accounts: Arc<Accounts>,
    pub api_keys: Arc<ApiKeys>,
    pub basic: Arc<Basic>,
    pub sessions: Arc<Sessions>,
    pub revocations: Arc<Revocations>,
    pub follower: Arc<Follower>,
}

/// The [`Access`] in force, behind one pointer that a reload replaces: leases of whatever generation ask here.
#[derive(Debug)]
pub struct Current(ArcSwap<Access>);

impl Current {
    /// Puts `access` in force.
    pub fn new(access: Arc<Access>) -> Self {
        Self(ArcSwap::new(access))
    }

    /// Puts `access` in force in place of what is.
    pub fn replace(&self, access: Arc<Access>) {
        self.0.store(access);
    }

    /// What is in force now.
    pub fn load(&self) -> arc_swap::Guard<Arc<Access>> {
        self.0.load()
    }

    /// What is in force now, to be kept over a wait.
    pub fn load_full(&self) -> Arc<Access> {
        self.0.load_full()
    }
}

impl Access {
    /// The decisions of `config`.
    pub fn new(config: &Arc<Config>, keys: Arc<Keyring>, issuers: Arc<Issuers>, people: People) -> Self {
        Self::with(config, keys, issuers, people, Arc::new(Seen::new(Arc::default())))
    }

    /// The decisions of `config` after these: what is known of people, sessions and tokens stays known.
    #[must_use]
    pub fn succeeded_by(&self, config: &Arc<Config>, keys: Arc<Keyring>, issuers: Arc<Issuers>) -> Self {
        Self::with(config, keys, issuers, self.people.clone(), Arc::clone(&self.seen))
    }

    fn with(config: &Arc<Config>, keys: Arc<Keyring>, issuers: Arc<Issuers>, people: People, seen: Arc<Seen>) -> Self {
        Self {
            rules: Rules::new(&config.routes),
            keys,
            issuers,
            people,
            seen,
            cookie: config.sessions.cookie.clone(),
            public_origin: config.server.public_url.origin(),
            max_staleness: config.store.max_staleness,
            max_lifetime: config.tokens.max_lifetime,
            config: Arc::clone(config),
        }
    }

    /// The same before it has seen any token: those that it and its successors look for are counted in `lookups`.
    #[must_use]
    pub fn counting(mut self, lookups: &Arc<Lookups>) -> Self {
        self.seen = Arc::new(Seen::new(Arc::clone(lookups)));
        self
    }

    /// The issuers whose tokens are accepted beside our own.
    pub const fn issuers(&self) -> &Arc<Issuers> {
        &self.issuers
    }

    /// How many tokens that verified lately are remembered.
    pub fn tokens_remembered(&self) -> usize {
        self.seen.len()
    }

    /// The rules alone, for whoever explains them.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The configuration that they come from.
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Decides about a request whose head has just come: nothing was waited for since. `current` is where the lease of what is
    /// permitted finds the rules of later.
    ///
    /// Waits only where an account or a session is not in memory yet.
    pub async fn check(&self, head: &Arc<Head>, headers: &HeaderMap, current: &Arc<Current>) -> Judged {
        let Some(route) = self.rules.find(head) else {
            return Decision::NotFound { reading: None }.into();
        };
        let seen = authorization(headers);
        if seen == Authorization::Several {
            return Decision::Malformed("several Authorization headers").into();
        }
        let mut credential = extract(headers, seen, route.accept, &self.cookie);
        let certificate = head.certificate.as_deref().filter(|_| route.accept.client_cert);
        if let (Credential::None, Some(certificate)) = (&credential, certificate) {
            credential = Credential::Certificate(certificate);
        }
        if credential == Credential::TwoApiKeys {
            return Decision::Malformed("two API keys").into();
        }
        let mut standing = self.authenticate(&credential, head, Some(head.started)).await;
        // A cookie that is not good counts as none.
        if let (Standing::StaleCookie, Some(certificate)) = (&standing, certificate) {
            credential = Credential::Certificate(certificate);
            standing = self.authenticate(&credential, head, None).await;
        }
        self.authorize(Authorized { head, headers, route, seen, credential: &credential, standing, current })
    }

    /// Who stands behind a request to the gateway itself, where tokens, cookies and API keys without a limit to some
    /// routes count. A password has endpoints of its own.
    pub async fn who(&self, head: &Head, headers: &HeaderMap) -> Standing {
        let seen = authorization(headers);
        if seen == Authorization::Several {
            return Standing::Refused(Bad::Invalid("several Authorization headers".into()));
        }
        let all = Accept { api_key: true, ..Accept::DEFAULT };
        let standing = self.authenticate(&extract(headers, seen, all, &self.cookie), head, None).await;
        match standing {
            Standing::Known(known) if known.proof.api_key.as_ref().is_some_and(|key| !key.counts_everywhere()) => {
                Standing::Refused(Bad::Invalid("the API key is limited to some routes".into()))
            }
            standing => standing,
        }
    }

    /// Who stands behind an access token that was given as a parameter, which lets nobody in.
    pub async fn whose(&self, token: &str, now: Timestamp) -> Standing {
        self.by_token(token.as_bytes(), now, None).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a token can't be judged");
            Standing::Unavailable
        })
    }
}
