//! `/.gateway/token`: the OAuth 2.0 token endpoint (RFC 6749), for a password and for a refresh token.
//!
//! There are no registered clients, so `client_id` and an `Authorization` header prove nothing and are not looked at,
//! and neither is a cookie: no endpoint turns one into a token.

use http::StatusCode;
use serde_json::{Value, json};

use super::oauth::{Fault, Params};
use super::{Answered, Call};
use crate::clock::Timestamp;
use crate::observe::{User, audit};
use crate::secret::Secret;
use crate::session::{Asked, Carrier, Failure, Refreshed};
use crate::store::{SessionRecord, StoreError};
use crate::token::NewClaims;

/// `POST`: tokens for a password or for a refresh token.
pub(super) async fn submit(mut call: Call<'_>) -> Answered {
    match call.grant().await.and_then(|granted| call.answer(&granted)) {
        Ok(document) => call.said(StatusCode::OK, &document),
        Err(fault) => call.fault(fault),
    }
}

/// What tokens are made of.
struct Granted {
    user: String,
    groups: Vec<String>,
    session: String,
    methods: Vec<String>,
    auth_time: Timestamp,
    ends: Timestamp,
    refresh: Secret<String>,
    asked_for_scopes: bool,
}

/// An access token, and how many seconds it lives.
pub(super) struct Access {
    pub(super) token: String,
    pub(super) expires_in: u64,
}

impl Call<'_> {
    async fn grant(&mut self) -> Result<Granted, Fault> {
        if !self.is_of_this_site() {
            let (client, path) = (self.head.client.0, self.head.path.canonical());
            audit::Event::CrossSite { client, path, user: None }.log(self.record);
            return Err(Fault::CrossSite);
        }
        let params = self.params().await?;
        match params.need("grant_type", "grant_type is missing")?.expose().as_str() {
            "password" => self.by_password(&params).await,
            "refresh_token" => self.by_refresh_token(&params).await,
            _ => Err(Fault::UnsupportedGrantType),
        }
    }

    /// RFC 6749 section 4.3.
    async fn by_password(&mut self, params: &Params) -> Result<Granted, Fault> {
        let typed = params.need("username", "username is missing")?.expose();
        let password = params.need("password", "password is missing")?;
        let asked = Asked { typed, password, client: self.head.client.0, browser: None, browser_from_now: None };
        let user = self.state.shared.sign_in.verify(asked).await.map_err(|failure| self.failed_grant(&failure))?;
        let opened = self.opened(&user, Carrier::Tokens).await.map_err(|error| self.no_answer(&error))?;
        let Some(opened) = opened else {
            let (user, reason) = (Some(user.name), "the account has changed meanwhile");
            return Err(self.failed_grant(&Failure::Wrong { user, reason }));
        };
        let (client, session) = (self.head.client.0, opened.id.as_str());
        audit::Event::SignedIn { user: &user.name, client, method: "password", session }.log(self.record);
        self.record.user = User::Named(user.name.to_string());
        self.record.reason = "signed in".into();
        Ok(Granted {
            user: user.name.to_string(),
            groups: user.groups,
            session: opened.id,
            methods: vec!["password".to_owned()],
            auth_time: self.head.now,
            ends: opened.expires_at,
            refresh: opened.key,
            asked_for_scopes: params.find("scope").is_some(),
        })
    }

    /// RFC 6749 section 6.
    async fn by_refresh_token(&mut self, params: &Params) -> Result<Granted, Fault> {
        let token = params.need("refresh_token", "refresh_token is missing")?.expose();
        let people = &self.state.shared.people;
        // First of all what happened meanwhile, so that what was allowed again is allowed at once.
        people.follower.catch_up().await.map_err(|error| self.no_answer(&error))?;
        let (session, refresh) = match people.sessions.refresh(token).await.map_err(|error| self.no_answer(&error))? {
            Refreshed::Renewed { session, token } => (session, token),
            Refreshed::Reused { session } => return Err(self.reused(&session).await),
            Refreshed::Refused(why) => return Err(self.refused_grant(why)),
        };
        if people.revocations.session_ended(&session.id) {
            return Err(self.refused_grant("the session has ended"));
        }
        let account = people.accounts.find(&session.user).await.map_err(|error| self.no_answer(&error))?;
        let Some(account) = account.filter(|account| !account.disabled) else {
            return Err(self.refused_grant("there is no such account, or it is disabled"));
        };
        self.record.user = User::Named(account.profile.user.clone());
        self.record.reason = "refreshed".into();
        Ok(Granted {
            user: account.profile.user.clone(),
            groups: account.profile.groups.clone(),
            session: session.id,
            methods: session.methods,
            auth_time: session.auth_time,
            ends: session.expires_at,
            refresh,
            asked_for_scopes: params.find("scope").is_some(),
        })
    }

    fn answer(&mut self, granted: &Granted) -> Result<Value, Fault> {
        let access = self.access_token(&NewClaims {
            subject: &granted.user,
            now: self.head.now,
            session: Some(&granted.session),
            signed_in_at: Some(granted.auth_time),
            methods: &granted.methods,
            groups: &granted.groups,
            scope: "",
            not_after: Some(granted.ends),
        })?;
        let mut document = json!({
            "access_token": access.token,
            "token_type": "Bearer",
            "expires_in": access.expires_in,
            "refresh_token": granted.refresh.expose(),
        });
        // RFC 6749 section 5.1: a scope that differs from the one asked for is said. A password gives none.
        if granted.asked_for_scopes {
            document["scope"] = json!("");
        }
        Ok(document)
    }

    /// Signs an access token; it never outlives its session.
    pub(super) fn access_token(&self, claims: &NewClaims<'_>) -> Result<Access, Fault> {
        let keys = &self.state.keys;
        let token = keys.sign(claims).map_err(|error| {
            tracing::error!(%error, "an access token can't be signed");
            Fault::Internal
        })?;
        let left = claims.not_after.map_or(keys.lifetime(), |end| end.since(claims.now).min(keys.lifetime()));
        Ok(Access { token, expires_in: left.as_secs() })
    }

    fn failed_grant(&mut self, failure: &Failure) -> Fault {
        let client = self.head.client.0;
        self.record.reason = failure.to_string().into();
        match failure {
            Failure::Wrong { user, reason } => {
                let user = user.as_ref();
                audit::Event::SignInFailed { user, client, method: "password", reason }.log(self.record);
                Fault::InvalidGrant("Invalid credentials")
            }
            Failure::TooMany(wait) => {
                let seconds = wait.seconds();
                audit::Event::SignInThrottled { client, method: "password", seconds }.log(self.record);
                Fault::TooMany(seconds)
            }
            Failure::PasswordTooLong => Fault::InvalidRequest("The password is longer than 1024 bytes"),
            Failure::Busy | Failure::Store(_) => Fault::Unavailable,
        }
    }

    /// The session has just been ended: what it still has open is closed, and its tokens are refused from here on.
    async fn reused(&mut self, session: &SessionRecord) -> Fault {
        let (client, user) = (self.head.client.0, &session.user);
        audit::Event::RefreshReused { user, client, session: &session.id }.log(self.record);
        self.record.user = User::Named(user.to_string());
        if let Err(error) = self.state.shared.people.follower.catch_up().await {
            tracing::warn!(%error, "the end of a session is taken in later");
        }
        self.refused_grant("the refresh token was used before: its session is over")
    }

    fn refused_grant(&mut self, why: &'static str) -> Fault {
        self.record.reason = why.into();
        Fault::InvalidGrant("The refresh token is not valid")
    }

    pub(super) fn no_answer(&self, error: &StoreError) -> Fault {
        tracing::warn!(%error, "a token can't be judged");
        Fault::Unavailable
    }
}
