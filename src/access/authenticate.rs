//! From a credential that was shown to a person who is believed.

use std::borrow::Cow;
use std::sync::Arc;

use super::seen::Entry;
use super::{Access, Credential};
use crate::clock::Timestamp;
use crate::identity::{Identity, UserName};
use crate::session::{Account, Live, cookie_key};
use crate::store::StoreError;
use crate::token::{Claims, Refusal};

/// What a credential came to.
#[derive(Debug)]
pub enum Standing {
    /// None was shown.
    Nobody,
    /// Cookies of our name were shown, and none of them is good: they count as none and are cleared.
    StaleCookie,
    /// Someone.
    Known(Known),
    /// A token in `Authorization` that is not good.
    Refused(Bad),
    /// The store is down and the credential can't be judged: never let in, never called bad.
    Unavailable,
}

/// Someone, and what proves it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who.
    pub identity: Arc<Identity>,
    /// By what.
    pub proof: Arc<Proof>,
}

/// What a person was believed for: enough to ask later whether it still holds.
#[derive(Debug)]
pub struct Proof {
    /// The local account.
    pub account: UserName,
    /// The session behind it.
    pub session: Option<Arc<str>>,
    /// When that session ends, used or not.
    pub session_ends: Option<Timestamp>,
    /// The token's claims; `None` behind a cookie.
    pub claims: Option<Arc<Claims>>,
}

/// Why a token is not good. The text is for the log only.
#[derive(Debug)]
pub enum Bad {
    /// It was good once.
    Expired,
    /// Anything else.
    Invalid(Cow<'static, str>),
}

impl Access {
    /// Believes `credential`, or not.
    pub(super) async fn authenticate(&self, credential: &Credential<'_>, now: Timestamp) -> Standing {
        let judged = match credential {
            Credential::None => return Standing::Nobody,
            Credential::Bearer(token) => self.by_token(token, now).await,
            Credential::Cookies(keys) => self.by_cookie(keys, now).await,
        };
        judged.unwrap_or_else(|error| {
            tracing::warn!(%error, "a credential can't be judged");
            Standing::Unavailable
        })
    }

    /// Whether what is known of revocations is fresh enough to let anyone in.
    pub(super) fn is_fresh(&self) -> bool {
        self.people.follower.is_fresh(self.max_staleness)
    }

    async fn by_token(&self, token: &str, now: Timestamp) -> Result<Standing, StoreError> {
        let bad = |reason| Ok(Standing::Refused(Bad::Invalid(reason)));
        let (digest, seen) = self.seen.find(token);
        let judged = match &seen {
            Some(entry) => self.keys.recheck(entry.verified(), now).map(|()| Arc::clone(entry)),
            None => self.keys.verify(token, now).map(Entry::new),
        };
        let entry = match judged {
            Ok(entry) => entry,
            Err(refusal) => {
                self.seen.drop(&digest);
                return match refusal {
                    Refusal::Expired => Ok(Standing::Refused(Bad::Expired)),
                    other => bad(other.to_string().into()),
                };
            }
        };
        if !self.is_fresh() {
            return Ok(Standing::Unavailable);
        }
        let claims = entry.verified().claims();
        if let Some(why) = self.people.revocations.refuses(claims) {
            return bad(why.to_string().into());
        }
        let Some(name) = UserName::parse(&claims.sub) else { return bad("no account can have this name".into()) };
        // A token that was never seen needs a word from the store: one that is down lets nobody in.
        let account = match seen {
            Some(_) => self.people.accounts.find(&name).await?,
            None => self.people.accounts.read(&name).await?,
        };
        match account {
            None => bad("no such account".into()),
            Some(account) if account.disabled => bad("the account is disabled".into()),
            Some(account) => {
                if seen.is_none() {
                    self.seen.keep(digest, Arc::clone(&entry));
                }
                if let Some(session) = &claims.sid {
                    self.people.sessions.seen_by_token(session, entry.noted(), now);
                }
                let make = || known_by_token(&account, Arc::clone(claims));
                Ok(Standing::Known(Known::clone(&entry.known(&account.profile, make))))
            }
        }
    }

    /// Of several cookies the ones that verify count; two different sessions count as none.
    async fn by_cookie(&self, keys: &[&[u8]], now: Timestamp) -> Result<Standing, StoreError> {
        let mut found: Option<Arc<Live>> = None;
        for key in keys.iter().filter_map(|key| cookie_key(key)).take(MOST_COOKIES) {
            let Some(live) = self.people.sessions.find(&key, now).await? else { continue };
            if self.people.revocations.session_ended(&live.id) {
                continue;
            }
            if found.as_ref().is_some_and(|other| other.id != live.id) {
                return Ok(Standing::StaleCookie);
            }
            found = Some(live);
        }
        let Some(live) = found else { return Ok(Standing::StaleCookie) };
        if !self.is_fresh() {
            return Ok(Standing::Unavailable);
        }
        match self.people.accounts.find(&live.user).await? {
            Some(account) if !account.disabled => {
                self.people.sessions.seen(&live, now);
                Ok(Standing::Known(known_by_cookie(&account, &live)))
            }
            _ => Ok(Standing::StaleCookie),
        }
    }
}

fn known_by_token(account: &Account, claims: Arc<Claims>) -> Known {
    let session: Option<Arc<str>> = claims.sid.as_deref().map(Into::into);
    let identity = Identity {
        profile: Arc::clone(&account.profile),
        scopes: claims.scopes().map(str::to_owned).collect(),
        claims: Arc::clone(&claims.all),
        methods: claims.amr.clone(),
        signed_in_at: claims.auth_time.map(Timestamp::from_secs),
        session: session.clone(),
    };
    let proof = Proof { account: account.name.clone(), session, session_ends: None, claims: Some(claims) };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
}

fn known_by_cookie(account: &Account, live: &Live) -> Known {
    let identity = Identity {
        profile: Arc::clone(&account.profile),
        scopes: Vec::new(),
        claims: Arc::default(),
        methods: live.methods.clone(),
        signed_in_at: Some(live.auth_time),
        session: Some(Arc::clone(&live.id)),
    };
    let proof = Proof {
        account: account.name.clone(),
        session: Some(Arc::clone(&live.id)),
        session_ends: Some(live.expires_at),
        claims: None,
    };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
}

/// More cookies of our name than any browser sends by accident.
const MOST_COOKIES: usize = 64;
