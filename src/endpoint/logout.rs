//! `login.logout_path`: a button, and the end of a session everywhere.

use std::time::Duration;

use http::StatusCode;

use super::page::{self, LogoutPage};
use super::{Answered, Call, Problem};
use crate::access::{Bad, Known, Proof, Standing};
use crate::clock::Timestamp;
use crate::observe::{User, audit};
use crate::store::StoreError;

/// `GET`: a button. A link must not sign anyone out.
pub(super) async fn show(call: Call<'_>) -> Answered {
    let standing = call.state.access.who(call.head, call.request.headers()).await;
    let known = match &standing {
        Standing::Known(known) => Some(known),
        _ => None,
    };
    call.note_return(known);
    let user = known.map(|known| known.identity.profile.user.clone());
    call.record.user = user.clone().into();
    let login = &call.state.config.login;
    let html = page::logout(&LogoutPage {
        title: &login.title,
        path: &login.logout_path,
        login_path: &login.path,
        user: user.as_deref(),
    });
    let response = call.asker().page(StatusCode::OK, html);
    call.unread(response)
}

/// `POST`: the session is over everywhere, and the cookie is cleared. Without a session there is nothing to end.
pub(super) async fn submit(call: Call<'_>) -> Answered {
    if !call.is_of_this_site() {
        let (client, path) = (call.head.client.0, call.head.path.canonical());
        audit::Event::CrossSite { client, path, user: None }.log(call.record);
        let problem = Problem { detail: "The request was sent by another site", ..Problem::default() };
        return call.refuse(StatusCode::FORBIDDEN, &problem);
    }
    let known = match call.state.access.who(call.head, call.request.headers()).await {
        Standing::Known(known) => Some(known),
        Standing::Nobody | Standing::StaleCookie => None,
        Standing::Refused(bad) => return call.bad_token(&bad),
        // No password is looked at here, so that none can be wrong too often.
        Standing::Throttled(_) | Standing::Unavailable => return call.unavailable(),
    };
    match call.end(known.as_ref()).await {
        Ok(Ended::Yes) => {}
        Ok(Ended::Nameless) => return call.nameless(),
        Err(error) => {
            tracing::warn!(%error, "a session can't be ended");
            return call.unavailable();
        }
    }
    if let Some(known) = known {
        let user = &known.identity.profile.user;
        let client = call.head.client.0;
        audit::Event::SignedOut { user, client }.log(call.record);
        call.record.user = User::Named(user.clone());
    }
    call.gone()
}

/// What ending a credential came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is over.
    Yes,
    /// It has no name that it could be ended by.
    Nameless,
}

impl Call<'_> {
    /// Ends what is shown: the credential that counts, and the cookies that are cleared, which count as none when they are two.
    async fn end(&self, known: Option<&Known>) -> Result<Ended, StoreError> {
        let ended = match known {
            Some(known) => self.end_proof(&known.proof).await?,
            None => Ended::Yes,
        };
        self.end_shown(known.and_then(|known| known.proof.session.as_deref())).await?;
        self.state.shared.people.follower.catch_up().await?;
        Ok(ended)
    }

    /// Ends what a credential is believed for: its session, or the token itself.
    pub(super) async fn end_proof(&self, proof: &Proof) -> Result<Ended, StoreError> {
        let store = &self.state.shared.store;
        match (&proof.session, &proof.claims) {
            (Some(session), _) => store.end_session(session).await.map(drop)?,
            (None, Some(claims)) => match (&claims.jti, &proof.account) {
                (Some(jti), _) => {
                    let theirs = proof.issuer.as_ref().map(|issuer| issuer.config().leeway);
                    let leeway = theirs.unwrap_or(self.state.config.tokens.leeway);
                    store.revoke_jti(jti, Timestamp::from_secs(claims.exp) + leeway + SLACK).await.map(drop)?;
                }
                // Without a session and without a name of its own a token can only be ended with those of its kind that
                // are no newer. Never by a digest: its signature can be written in another way.
                (None, Some(account)) if proof.issuer.is_none() => {
                    store.end_tokens_of(account, Timestamp::from_secs(claims.iat)).await.map(drop)?;
                }
                (None, _) => return Ok(Ended::Nameless),
            },
            (None, None) => {}
        }
        Ok(Ended::Yes)
    }

    /// Another issuer's token without `jti` can't be told from the person's other ones: only their issuer can end it.
    fn nameless(self) -> Answered {
        let detail = "The token has no jti, and can only be ended by its issuer";
        self.refuse(StatusCode::BAD_REQUEST, &Problem { detail, ..Problem::default() })
    }

    fn gone(self) -> Answered {
        let asker = self.asker();
        let mut response = if asker.is_page_load() {
            asker.see_other(&format!("{}?signed_out=1", self.state.config.login.path))
        } else {
            asker.empty(StatusCode::NO_CONTENT)
        };
        asker.clear_cookie(response.headers_mut());
        self.record.reason = "signed out".into();
        self.unread(response)
    }

    fn bad_token(self, bad: &Bad) -> Answered {
        let (detail, challenge) = super::answer::token_challenge(bad);
        self.refuse(StatusCode::UNAUTHORIZED, &Problem { detail, challenge: Some(challenge), ..Problem::default() })
    }

    fn unavailable(self) -> Answered {
        let problem = Problem { detail: "Sign-out is not possible now", retry_after: Some(2), ..Problem::default() };
        self.refuse(StatusCode::SERVICE_UNAVAILABLE, &problem)
    }
}

/// Added to a revoked token's expiry before its revocation is forgotten.
const SLACK: Duration = Duration::from_secs(60);
