//! What a permission holds by: streams and tunnels end with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::authenticate::identity_by_key;
use super::{Access, Current, Known, Shown};
use crate::identity::Identity;
use crate::message::head::Head;
use crate::store::StoreError;
use crate::token::Verified;

/// Session, person and head of a permitted request. Costs nothing until someone waits for its end.
#[derive(Clone, Debug)]
pub struct Lease {
    current: Arc<Current>,
    head: Arc<Head>,
    known: Option<Known>,
    shown: Shown,
}

impl Lease {
    pub(super) fn new(current: &Arc<Current>, head: &Arc<Head>, known: Option<Known>, shown: Shown) -> Self {
        Self { current: Arc::clone(current), head: Arc::clone(head), known, shown }
    }

    /// Who it was permitted to.
    pub(super) const fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Resolves when what was permitted would not be any more: the session has ended, the API key was revoked or the password
    /// changed that was shown, the account is disabled, the groups or the rules have changed so that they refuse it, the key of
    /// a token was withdrawn, here or by its issuer, or revocations are not known to be fresh.
    ///
    /// The idle time of a session does not count, nor does the expiry of an access token. Without a session it resolves
    /// `max_lifetime` after the request at the latest, which another issuer has its own of.
    pub async fn ended(&self) {
        let mut generation = self.current.load().people.follower.subscribe();
        let last = sleep_until(self.last_moment().await);
        let withdrawn = self.key_withdrawn();
        tokio::pin!(last, withdrawn);
        loop {
            if !self.holds().await {
                return;
            }
            tokio::select! {
                () = &mut last => return,
                () = &mut withdrawn => return,
                changed = generation.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Resolves when the issuer of a token withdraws the key that signed it.
    async fn key_withdrawn(&self) {
        match self.known.as_ref().and_then(|known| known.proof.token.as_ref()) {
            Some(token) => token.withdrawn().await,
            None => std::future::pending().await,
        }
    }

    /// The end of the session, which a token does not say; without one, `max_lifetime` after the request.
    async fn last_moment(&self) -> Instant {
        let access = self.current.load_full();
        let session = self.known.as_ref().and_then(|known| Some((&known.proof, known.proof.session.as_ref()?)));
        let ends = match session {
            None => None,
            Some((proof, _)) if proof.session_ends.is_some() => proof.session_ends,
            Some((_, session)) => access.people.sessions.ends_at(session).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the end of a stream's session is not known");
                None
            }),
        };
        let issuer = self.known.as_ref().and_then(|known| known.proof.issuer.as_ref());
        let max_lifetime = issuer.map_or(access.max_lifetime, |issuer| issuer.config().max_lifetime);
        let key_ends = self.known.as_ref().and_then(|known| known.proof.api_key.as_ref()?.expires_at);
        let longest = key_ends.map_or(max_lifetime, |end| end.since(self.head.now).min(max_lifetime));
        let from_now = ends.map_or(longest, |end| end.since(self.head.now));
        let opened = Instant::from_std(self.head.started);
        opened.checked_add(from_now.min(FAR)).unwrap_or(opened + FAR)
    }

    async fn holds(&self) -> bool {
        let access = self.current.load_full();
        // Where nobody is signed in there is nothing that could have been revoked.
        let Some(known) = &self.known else { return access.still_permits(&self.head, None, self.shown) };
        if !access.is_fresh(Instant::now().into_std()) {
            return false;
        }
        let (proof, people) = (&known.proof, &access.people);
        let now = self.head.now + self.head.started.elapsed();
        let is_withdrawn =
            |token: &Verified| access.keys.was_withdrawn(token.key_id(), now) || !access.keys.still_counts(token);
        let is_revoked = proof.own.as_ref().is_some_and(is_withdrawn)
            || proof.claims.as_ref().is_some_and(|claims| people.revocations.refuses(claims).is_some())
            || proof.session.as_ref().is_some_and(|session| people.revocations.session_ended(session))
            || proof
                .certificate
                .as_ref()
                .is_some_and(|certificate| access.doubts(certificate, &self.head, now).is_some());
        if is_revoked {
            return false;
        }
        match self.identity_now(&access, known).await {
            Ok(Some(identity)) => {
                let known = Known { identity: Arc::new(identity), proof: Arc::clone(proof) };
                access.still_permits(&self.head, Some(&known), self.shown)
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, "a stream can't be judged and ends");
                false
            }
        }
    }

    /// Who it is, as account and key are now; `None`: nobody any more.
    async fn identity_now(&self, access: &Access, known: &Known) -> Result<Option<Identity>, StoreError> {
        let (proof, people) = (&known.proof, &access.people);
        let Some(name) = &proof.account else { return access.foreigner_now(known).await };
        let Some(account) = people.accounts.find(name).await?.filter(|account| !account.disabled) else {
            return Ok(None);
        };
        if proof.password_version.is_some_and(|version| version != account.password_version) {
            return Ok(None);
        }
        match &proof.api_key {
            None => Ok(Some(Identity { profile: Arc::clone(&account.profile), ..Identity::clone(&known.identity) })),
            Some(key) => {
                let key = people.api_keys.find_id(&key.id).await?;
                Ok(key.and_then(|key| identity_by_key(&account, &key)))
            }
        }
    }
}

/// Longer than any session: tokio's timers reach two years.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
