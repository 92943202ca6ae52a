//! From a credential that was shown to a person who is believed.

use std::borrow::Cow;
use std::sync::Arc;

use super::credential::name_and_password;
use super::seen::Entry;
use super::{Access, Credential};
use crate::clock::Timestamp;
use crate::identity::api_key::ApiKeyText;
use crate::identity::{Identity, UserName};
use crate::message::head::Head;
use crate::session::{Account, ApiKey, Failure, Live, Verified, cookie_key};
use crate::store::StoreError;
use crate::throttle::RetryAfter;
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
    /// A token, key or password that is not good.
    Refused(Bad),
    /// Too many wrong passwords: this one was not looked at.
    Throttled(RetryAfter),
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
    /// The token's claims; `None` behind anything else.
    pub claims: Option<Arc<Claims>>,
    /// The API key.
    pub api_key: Option<Arc<ApiKey>>,
    /// The version of the password that was shown itself, by Basic.
    pub password_version: Option<u64>,
    /// Whether that password was verified for this very request, and not remembered.
    pub is_sign_in: bool,
}

/// Why a token is not good. The text is for the log only.
#[derive(Debug)]
pub enum Bad {
    /// It was good once.
    Expired,
    /// Anything else.
    Invalid(Cow<'static, str>),
    /// A name and password by Basic that are wrong, or are none.
    Credentials {
        /// The account, if there is one.
        user: Option<UserName>,
        /// Which.
        reason: &'static str,
    },
}

impl Access {
    /// Believes `credential`, or not.
    pub(super) async fn authenticate(&self, credential: &Credential<'_>, head: &Head) -> Standing {
        let now = head.now;
        let judged = match credential {
            Credential::None => return Standing::Nobody,
            Credential::Bearer(token) => self.by_token(token, now).await,
            Credential::Basic(rest) => self.by_basic(rest, head).await,
            Credential::ApiKey(text) => self.by_api_key(text, now).await,
            Credential::TwoApiKeys => return Standing::Refused(Bad::Invalid("two API keys".into())),
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

    pub(super) async fn by_token(&self, token: &str, now: Timestamp) -> Result<Standing, StoreError> {
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

    async fn by_api_key(&self, text: &str, now: Timestamp) -> Result<Standing, StoreError> {
        let bad = |reason: &'static str| Ok(Standing::Refused(Bad::Invalid(reason.into())));
        let Some(text) = ApiKeyText::parse(text) else { return bad("not an API key, or cut or misspelled") };
        let found = self.people.api_keys.find(text).await?;
        if !self.is_fresh() {
            return Ok(Standing::Unavailable);
        }
        let Some(key) = found else { return bad("no such API key, or one that was revoked") };
        if key.is_over(now) {
            return bad("the API key has expired");
        }
        let account = self.people.accounts.find(&key.user).await?.filter(|account| !account.disabled);
        let Some(account) = account else { return bad("the API key's account is disabled or gone") };
        let Some(identity) = identity_by_key(&account, &key) else { return bad("no application may be told the name") };
        self.people.api_keys.used(&key, now);
        let proof = Proof { api_key: Some(key), ..Proof::of(&account) };
        Ok(Standing::Known(Known { identity: Arc::new(identity), proof: Arc::new(proof) }))
    }

    /// A name and password judged as those of the sign-in page are, and remembered for a moment.
    async fn by_basic(&self, rest: &str, head: &Head) -> Result<Standing, StoreError> {
        let bad = |user, reason| Ok(Standing::Refused(Bad::Credentials { user, reason }));
        let Some((name, password)) = name_and_password(rest) else { return bad(None, "not a name and a password") };
        let verified = self.people.basic.verify(&name, &password, head.client.0, (head.now, head.started)).await;
        match verified {
            Ok(_) if !self.is_fresh() => Ok(Standing::Unavailable),
            Ok(verified) => Ok(Standing::Known(known_by_basic(&verified))),
            Err(Failure::Wrong { user, reason }) => bad(user, reason),
            Err(Failure::PasswordTooLong) => bad(None, "longer than any password"),
            Err(Failure::TooMany(wait)) => Ok(Standing::Throttled(wait)),
            Err(Failure::Busy) => Ok(Standing::Unavailable),
            Err(Failure::Store(error)) => Err(error),
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

impl Proof {
    /// The account alone.
    fn of(account: &Account) -> Self {
        Self {
            account: account.name.clone(),
            session: None,
            session_ends: None,
            claims: None,
            api_key: None,
            password_version: None,
            is_sign_in: false,
        }
    }
}

/// Whom `key` makes of its account: its user, with no group that it may not use.
pub(super) fn identity_by_key(account: &Account, key: &ApiKey) -> Option<Identity> {
    Some(Identity {
        profile: key.profile(account)?,
        scopes: key.scopes.clone(),
        claims: Arc::default(),
        methods: vec!["api-key".to_owned()],
        signed_in_at: None,
        session: None,
    })
}

fn known_by_basic(verified: &Verified) -> Known {
    let Verified { found, is_sign_in } = verified;
    let account = &found.account;
    let identity = Identity {
        profile: Arc::clone(&account.profile),
        scopes: Vec::new(),
        claims: Arc::default(),
        methods: vec!["basic".to_owned()],
        signed_in_at: Some(found.verified_at),
        session: None,
    };
    let proof =
        Proof { password_version: Some(account.password_version), is_sign_in: *is_sign_in, ..Proof::of(account) };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
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
    let proof = Proof { session, claims: Some(claims), ..Proof::of(account) };
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
    let proof =
        Proof { session: Some(Arc::clone(&live.id)), session_ends: Some(live.expires_at), ..Proof::of(account) };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
}

/// More cookies of our name than any browser sends by accident.
const MOST_COOKIES: usize = 64;
