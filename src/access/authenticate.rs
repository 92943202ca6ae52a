//! From a credential that was shown to a person who is believed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::credential::{name_and_password, text};
use super::seen::{AnyVerified, Entry};
use super::{Access, Credential};
use crate::clock::Timestamp;
use crate::config;
use crate::identity::api_key::ApiKeyText;
use crate::identity::{Identity, Profile, UserName};
use crate::message::certificate::ClientCertificate;
use crate::message::head::Head;
use crate::session::{Account, ApiKey, Failure, Live, Verified as VerifiedPassword, cookie_key};
use crate::store::StoreError;
use crate::throttle::RetryAfter;
use crate::token::foreign::{self, ForeignRefusal, Issuer};
use crate::token::{Claims, Refusal, Verified};

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

impl Known {
    /// Whether it is a browser with its cookie.
    pub fn is_by_cookie(&self) -> bool {
        self.proof.session.is_some() && self.proof.claims.is_none()
    }
}

/// What a person was believed for: enough to ask later whether it still holds.
#[derive(Debug)]
pub struct Proof {
    /// The local account; `None`: someone whom only another issuer knows.
    pub account: Option<UserName>,
    /// The issuer of the token, where it is another one than this gateway.
    pub issuer: Option<Arc<Issuer>>,
    /// That token, which ends with the key that signed it.
    pub token: Option<foreign::Verified>,
    /// The token, where it is an own one.
    pub own: Option<Verified>,
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
    /// The certificate of the connection.
    pub certificate: Option<ClientCertificate>,
}

/// Why a token is not good. The text is for the log only.
#[derive(Debug)]
pub enum Bad {
    /// It was good once.
    Expired,
    /// It is good, of an issuer whom the route does not take.
    OtherIssuer,
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
    /// Believes `credential`, or not. `just_now`: the present, where it was read and nothing has been waited for since.
    pub(super) async fn authenticate(
        &self,
        credential: &Credential<'_>,
        head: &Head,
        just_now: Option<Instant>,
    ) -> Standing {
        let now = head.now;
        let judged = match credential {
            Credential::None => return Standing::Nobody,
            Credential::Bearer(token) => self.by_token(token, now, just_now).await,
            // Large, and seldom asked for.
            Credential::Basic(rest) => Box::pin(self.by_basic(rest, head)).await,
            Credential::ApiKey(text) => self.by_api_key(text, now).await,
            Credential::TwoApiKeys => return Standing::Refused(Bad::Invalid("two API keys".into())),
            Credential::Cookies(keys) => self.by_cookie(keys, now).await,
            Credential::Certificate(certificate) => self.by_certificate(certificate, head).await,
        };
        judged.unwrap_or_else(|error| {
            // Every request would say it: that the store is down is told once, by whoever follows it.
            tracing::debug!(%error, "a credential can't be judged");
            Standing::Unavailable
        })
    }

    /// How long revocations may be unread before nobody is let in.
    pub const fn max_staleness(&self) -> Duration {
        self.max_staleness
    }

    /// Whether what is known of revocations is fresh enough to let anyone in at `now`.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.people.follower.is_fresh(self.max_staleness, now)
    }

    pub(super) async fn by_token(
        &self,
        token: &[u8],
        now: Timestamp,
        just_now: Option<Instant>,
    ) -> Result<Standing, StoreError> {
        let (entry, is_new) = match self.seen.find(token).filter(|entry| self.is_in_force(entry.verified())) {
            Some(entry) => match self.recheck(entry.verified(), now) {
                Ok(()) => (entry, false),
                Err(standing) => {
                    self.seen.forget(token);
                    return Ok(standing);
                }
            },
            None => match Box::pin(self.verify(text(token), now)).await {
                Ok(verified) => (Entry::new(verified), true),
                Err(standing) => return Ok(standing),
            },
        };
        // A token that is new may have waited for the keys of its issuer.
        if !self.is_fresh(just_now.filter(|_| !is_new).unwrap_or_else(Instant::now)) {
            return Ok(Standing::Unavailable);
        }
        let standing = match entry.verified() {
            AnyVerified::Own(verified) => self.by_own_token(verified, &entry, is_new, now).await?,
            AnyVerified::Foreign(verified) => self.by_foreign_token(verified, &entry, is_new).await?,
        };
        if is_new && matches!(standing, Standing::Known(_)) {
            self.seen.keep(text(token), entry);
        }
        Ok(standing)
    }

    /// Verifies a token that was not seen lately: ours, or of the issuer that it names.
    async fn verify(&self, token: &str, now: Timestamp) -> Result<AnyVerified, Standing> {
        let refusal = match self.keys.verify(token, now) {
            Ok(verified) => return Ok(AnyVerified::Own(verified)),
            Err(refusal) => refusal,
        };
        if let Refusal::NotOurs { issuer: Some(named) } = &refusal
            && let Some(issuer) = self.issuers.find(named)
        {
            return issuer.verify(token, now).await.map(AnyVerified::Foreign).map_err(foreign_refusal);
        }
        Err(own_refusal(&refusal))
    }

    /// Judges anew what can have changed of a token that verified.
    fn recheck(&self, verified: &AnyVerified, now: Timestamp) -> Result<(), Standing> {
        match verified {
            AnyVerified::Own(verified) => self.keys.recheck(verified, now).map_err(|refusal| own_refusal(&refusal)),
            AnyVerified::Foreign(verified) => verified.recheck(now).map_err(foreign_refusal),
        }
    }

    /// Whether a token was verified on terms and with a key that still hold: an issuer of a former configuration may have had
    /// other terms, and whether a key that is gone was withdrawn or has only become too old, its issuer has to say.
    fn is_in_force(&self, verified: &AnyVerified) -> bool {
        match verified {
            AnyVerified::Own(_) => true,
            AnyVerified::Foreign(verified) => {
                !verified.is_withdrawn() && self.issuers.place(verified.issuer()).is_some()
            }
        }
    }

    async fn by_own_token(
        &self,
        token: &Verified,
        entry: &Entry,
        is_new: bool,
        now: Timestamp,
    ) -> Result<Standing, StoreError> {
        let claims = token.claims();
        if let Some(why) = self.people.revocations.refuses(claims) {
            return refused(why.to_string());
        }
        let Some(name) = entry.name() else { return refused("no account can have this name") };
        match self.account(name, is_new).await? {
            None => refused("no such account"),
            Some(account) if account.disabled => refused("the account is disabled"),
            Some(account) => {
                if let Some(session) = &claims.sid {
                    self.people.sessions.seen_by_token(session, entry.noted(), now);
                }
                let make = || known_by_token(&account, token);
                Ok(Standing::Known(Known::clone(&entry.known(&account.profile, make))))
            }
        }
    }

    /// Someone whom another issuer knows: issuer and name. Where a local account has that name, the issuer's terms say
    /// whether it is the same person.
    async fn by_foreign_token(
        &self,
        verified: &foreign::Verified,
        entry: &Entry,
        is_new: bool,
    ) -> Result<Standing, StoreError> {
        let claims = verified.claims();
        if let Some(why) = self.people.revocations.refuses(claims) {
            return refused(why.to_string());
        }
        let account = match entry.name() {
            Some(name) => self.account(name, is_new).await?,
            None => None,
        };
        let profile = match (verified.issuer().config().accounts, &account) {
            (_, None) => verified.profile(),
            (config::Accounts::Separate, Some(_)) => return refused("a local account has this name"),
            (config::Accounts::Shared, Some(account)) if account.disabled => return refused("the account is disabled"),
            (config::Accounts::Shared, Some(account)) => &account.profile,
        };
        let name = account.as_ref().map(|account| account.name.clone());
        let make = || known_by_foreign_token(verified, profile, name);
        Ok(Standing::Known(Known::clone(&entry.known(profile, make))))
    }

    /// Who someone is now whom only another issuer knows; `None`: nobody any more, since a local account has the name.
    pub(super) async fn foreigner_now(&self, known: &Known) -> Result<Option<Identity>, StoreError> {
        let account = match UserName::parse(&known.identity.profile.user) {
            Some(name) => self.people.accounts.find(&name).await?,
            None => None,
        };
        Ok(account.is_none().then(|| Identity::clone(&known.identity)))
    }

    /// The account `name`. A token that was never seen needs a word from the store: one that is down lets nobody in.
    async fn account(&self, name: &UserName, is_new: bool) -> Result<Option<Arc<Account>>, StoreError> {
        if is_new { Box::pin(self.people.accounts.read(name)).await } else { self.people.accounts.find(name).await }
    }

    async fn by_api_key(&self, text: &str, now: Timestamp) -> Result<Standing, StoreError> {
        let bad = |reason: &'static str| Ok(Standing::Refused(Bad::Invalid(reason.into())));
        let Some(text) = ApiKeyText::parse(text) else { return bad("not an API key, or cut or misspelled") };
        let found = self.people.api_keys.find(text).await?;
        if !self.is_fresh(Instant::now()) {
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

    /// The local account that has the name of a certificate which the handshake has verified: no authority makes people.
    async fn by_certificate(&self, certificate: &ClientCertificate, head: &Head) -> Result<Standing, StoreError> {
        if let Some(why) = self.doubts(certificate, head, head.now) {
            return refused(why);
        }
        let Some(name) = certificate.name.as_deref().and_then(UserName::parse) else {
            return refused("no account can have the name in the certificate");
        };
        let account = self.people.accounts.find(&name).await?;
        if !self.is_fresh(Instant::now()) {
            return Ok(Standing::Unavailable);
        }
        match account {
            None => refused("there is no account of the name in the certificate"),
            Some(account) if account.disabled => refused("the account is disabled"),
            Some(account) => Ok(Standing::Known(known_by_certificate(&account, certificate))),
        }
    }

    /// Why a certificate does not count for the request with `head`, though the handshake has verified it: its time is over,
    /// or those who vouch for it are not, or no longer, those whom the host that is asked believes. What a connection was
    /// opened for is no reason: a client may write another host than it asked TLS for.
    pub(super) fn doubts(&self, certificate: &ClientCertificate, head: &Head, now: Timestamp) -> Option<&'static str> {
        if u64::try_from(certificate.not_after).is_ok_and(|end| end < now.as_secs()) {
            return Some("the client's certificate has expired");
        }
        let is_trusted = self.config.server.tls.trusts(head.host.name(), &certificate.trust);
        (!is_trusted)
            .then_some("clients of this host are not, or no longer, believed by what has verified the certificate")
    }

    /// A name and password judged as those of the sign-in page are, and remembered for a moment.
    async fn by_basic(&self, rest: &str, head: &Head) -> Result<Standing, StoreError> {
        let bad = |user, reason| Ok(Standing::Refused(Bad::Credentials { user, reason }));
        let Some((name, password)) = name_and_password(rest) else { return bad(None, "not a name and a password") };
        let verified = self.people.basic.verify(&name, &password, head.client.0, head.started).await;
        match verified {
            Ok(_) if !self.is_fresh(Instant::now()) => Ok(Standing::Unavailable),
            Ok(verified) => Ok(Standing::Known(known_by_basic(&verified, head.now))),
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
        if !self.is_fresh(Instant::now()) {
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
            account: Some(account.name.clone()),
            issuer: None,
            token: None,
            own: None,
            session: None,
            session_ends: None,
            claims: None,
            api_key: None,
            password_version: None,
            is_sign_in: false,
            certificate: None,
        }
    }
}

/// Whom `key` makes of its account: its user, with no group that it may not use.
pub fn identity_by_key(account: &Account, key: &ApiKey) -> Option<Identity> {
    Some(Identity {
        profile: key.profile(account)?,
        scopes: key.scopes.clone(),
        claims: Arc::default(),
        methods: vec!["api-key".to_owned()],
        signed_in_at: None,
        session: None,
    })
}

/// The password comes with every request: it is given now, whether it was hashed now or is remembered.
fn known_by_basic(verified: &VerifiedPassword, now: Timestamp) -> Known {
    let VerifiedPassword { found, is_sign_in } = verified;
    let account = &found.account;
    let identity = Identity {
        profile: Arc::clone(&account.profile),
        scopes: Vec::new(),
        claims: Arc::default(),
        methods: vec!["basic".to_owned()],
        signed_in_at: Some(now),
        session: None,
    };
    let proof =
        Proof { password_version: Some(account.password_version), is_sign_in: *is_sign_in, ..Proof::of(account) };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
}

/// A certificate is no sign-in: nobody knows how old it is.
fn known_by_certificate(account: &Account, certificate: &ClientCertificate) -> Known {
    let identity = Identity {
        profile: Arc::clone(&account.profile),
        scopes: Vec::new(),
        claims: Arc::default(),
        methods: vec!["client-cert".to_owned()],
        signed_in_at: None,
        session: None,
    };
    let proof = Proof { certificate: Some(certificate.clone()), ..Proof::of(account) };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
}

/// Whom a token that holds makes of its account.
pub fn identity_by_token(account: &Account, claims: &Claims) -> Identity {
    Identity {
        profile: Arc::clone(&account.profile),
        scopes: claims.scopes().map(str::to_owned).collect(),
        claims: Arc::clone(&claims.all),
        methods: claims.amr.clone(),
        signed_in_at: claims.auth_time.map(Timestamp::from_secs),
        session: claims.sid.as_deref().map(Into::into),
    }
}

fn known_by_token(account: &Account, token: &Verified) -> Known {
    let claims = token.claims();
    let identity = identity_by_token(account, claims);
    let (own, session) = (Some(token.clone()), identity.session.clone());
    let proof = Proof { own, session, claims: Some(Arc::clone(claims)), ..Proof::of(account) };
    Known { identity: Arc::new(identity), proof: Arc::new(proof) }
}

/// Whom a token of another issuer makes of someone who is told as `profile`.
pub fn identity_by_foreign_token(verified: &foreign::Verified, profile: &Arc<Profile>) -> Identity {
    let claims = verified.claims();
    Identity {
        profile: Arc::clone(profile),
        scopes: claims.scopes().map(str::to_owned).collect(),
        claims: Arc::clone(&claims.all),
        // What the issuer calls a password is none of ours; `claims` can ask for its `amr`.
        methods: vec!["issuer".to_owned()],
        signed_in_at: claims.auth_time.map(Timestamp::from_secs),
        session: None,
    }
}

fn known_by_foreign_token(verified: &foreign::Verified, profile: &Arc<Profile>, account: Option<UserName>) -> Known {
    let claims = verified.claims();
    let identity = identity_by_foreign_token(verified, profile);
    let proof = Proof {
        account,
        issuer: Some(Arc::clone(verified.issuer())),
        token: Some(verified.clone()),
        own: None,
        session: None,
        session_ends: None,
        claims: Some(Arc::clone(claims)),
        api_key: None,
        password_version: None,
        is_sign_in: false,
        certificate: None,
    };
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

fn refused(why: impl Into<Cow<'static, str>>) -> Result<Standing, StoreError> {
    Ok(Standing::Refused(Bad::Invalid(why.into())))
}

fn own_refusal(refusal: &Refusal) -> Standing {
    match refusal {
        Refusal::Expired => Standing::Refused(Bad::Expired),
        other => Standing::Refused(Bad::Invalid(other.to_string().into())),
    }
}

fn foreign_refusal(refusal: ForeignRefusal) -> Standing {
    match refusal {
        ForeignRefusal::Expired => Standing::Refused(Bad::Expired),
        ForeignRefusal::Invalid(reason) => Standing::Refused(Bad::Invalid(reason.to_string().into())),
        ForeignRefusal::Unavailable => Standing::Unavailable,
    }
}

/// More cookies of our name than any browser sends by accident.
const MOST_COOKIES: usize = 64;
