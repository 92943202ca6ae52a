//! `/.gateway/introspect`: what a token is worth (RFC 7662), told to those who may know.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::oauth::Fault;
use super::{Answered, Call, Problem};
use crate::access::{Bad, Known, Standing};
use crate::identity::UserName;
use crate::observe::{User, audit};
use crate::session::refresh::Presented;

/// `POST`: the token's claims, or that it is not active.
pub(super) async fn submit(mut call: Call<'_>) -> Answered {
    let caller = match call.state.access.who(call.head, call.request.headers()).await {
        // Only people of this gateway may ask.
        Standing::Known(known) if known.proof.issuer.is_none() => known,
        Standing::Known(_) => {
            return call.unauthenticated(Standing::Refused(Bad::Invalid("a token of another issuer".into())));
        }
        standing => return call.unauthenticated(standing),
    };
    let user = caller.identity.profile.user.clone();
    let by_cookie = caller.proof.claims.is_none() && caller.proof.api_key.is_none();
    if by_cookie && !call.is_of_this_site() {
        let (client, path) = (call.head.client.0, call.head.path.canonical());
        audit::Event::CrossSite { client, path, user: Some(&user) }.log(call.record);
        let problem = Problem { detail: "The request was sent by another site", ..Problem::default() };
        return call.refuse(StatusCode::FORBIDDEN, &problem);
    }
    call.record.user = User::Named(user);
    match call.introspect(&caller).await {
        Ok(found) => {
            let document = found.map_or_else(|| json!({ "active": false }), Value::Object);
            call.said(StatusCode::OK, &document)
        }
        Err(fault) => call.fault(fault),
    }
}

/// Whether `caller` may know of a token of `owner`: of one's own only, but with an API key that was made for it of all.
fn may_know(caller: &Known, owner: Option<&UserName>) -> bool {
    let is_trusted = |scopes: &[String]| scopes.iter().any(|scope| scope == "introspect");
    owner.is_some_and(|owner| caller.proof.account.as_ref() == Some(owner))
        || caller.proof.api_key.as_ref().is_some_and(|key| is_trusted(&key.scopes))
}

impl Call<'_> {
    async fn introspect(&mut self, caller: &Known) -> Result<Option<Map<String, Value>>, Fault> {
        let params = self.params().await?;
        let token = params.need("token", "token is missing")?.expose();
        if let Some(presented) = self.state.shared.people.sessions.presented(token) {
            return self.of_refresh_token(caller, presented).await;
        }
        match self.state.access.whose(token, self.head.now).await {
            Standing::Known(owner) if may_know(caller, owner.proof.account.as_ref()) => Ok(of_access_token(&owner)),
            Standing::Known(_) | Standing::Nobody | Standing::StaleCookie | Standing::Refused(_) => Ok(None),
            Standing::Throttled(_) | Standing::Unavailable => Err(Fault::Unavailable),
        }
    }

    /// A refresh token has no `token_type`: it is none that a request could be let in with.
    async fn of_refresh_token(
        &self,
        caller: &Known,
        presented: Presented,
    ) -> Result<Option<Map<String, Value>>, Fault> {
        let found = self.state.shared.store.session(&presented.session()).await;
        let session = found.map_err(|error| self.no_answer(&error))?.filter(|session| {
            may_know(caller, Some(&session.user))
                && session.refresh_hash.is_some()
                && session.refresh_generation == presented.generation()
                && !session.is_over(self.head.now, self.state.config.sessions.idle)
        });
        Ok(session.and_then(|session| {
            let document = json!({
                "active": true,
                "iss": self.state.config.tokens.issuer,
                "sub": session.user.as_str(),
                "username": session.user.as_str(),
                "sid": session.id,
                "auth_time": session.auth_time.as_secs(),
                "amr": session.methods,
                "exp": session.expires_at.as_secs(),
            });
            document.as_object().cloned()
        }))
    }
}

/// The claims as they were signed; name and groups as they are now.
fn of_access_token(owner: &Known) -> Option<Map<String, Value>> {
    let claims = owner.proof.claims.as_ref()?;
    let copied = COPIED.iter().filter_map(|name| Some(((*name).to_owned(), claims.all.get(*name)?.clone())));
    let mut document: Map<String, Value> = copied.collect();
    if !claims.scope.is_empty() {
        document.insert("scope".to_owned(), json!(claims.scope));
    }
    let profile = &owner.identity.profile;
    document.extend([
        ("active".to_owned(), json!(true)),
        ("sub".to_owned(), json!(profile.user)),
        ("username".to_owned(), json!(profile.user)),
        ("groups".to_owned(), json!(profile.groups)),
        ("token_type".to_owned(), json!("Bearer")),
    ]);
    Some(document)
}

/// Claims that are told as they stand in the token.
const COPIED: [&str; 9] = ["iss", "aud", "iat", "nbf", "exp", "jti", "sid", "auth_time", "amr"];
