//! `/.gateway/revoke`: token revocation (RFC 7009). Whoever has the token may end it; nothing else is needed.

use http::StatusCode;

use super::logout::Ended;
use super::oauth::Fault;
use super::{Answered, Call};
use crate::access::Standing;
use crate::observe::{User, audit};

/// `POST`: a refresh token ends its session, an access token its session or itself. What is not known is over already.
pub(super) async fn submit(mut call: Call<'_>) -> Answered {
    match call.revoke().await {
        Ok(()) => {
            let response = call.asker().empty(StatusCode::OK);
            call.unread(response)
        }
        Err(fault) => call.fault(fault),
    }
}

impl Call<'_> {
    async fn revoke(&mut self) -> Result<(), Fault> {
        let params = self.params().await?;
        // The hint says nothing that the token does not say better (RFC 7009 section 2.1).
        let token = params.need("token", "token is missing")?.expose();
        let shared = &self.state.shared;
        let presented = shared.people.sessions.presented(token);
        let user = match presented {
            Some(presented) => {
                let id = presented.session();
                let session = shared.store.session(&id).await.map_err(|error| self.no_answer(&error))?;
                let Some(session) = session else { return Ok(()) };
                shared.store.end_session(&id).await.map_err(|error| self.no_answer(&error))?;
                session.user.to_string()
            }
            None => match self.state.access.whose(token, self.head.now).await {
                Standing::Known(known) => {
                    let ended = self.end_proof(&known.proof).await.map_err(|error| self.no_answer(&error))?;
                    if ended == Ended::Nameless {
                        return Err(Fault::UnsupportedTokenType);
                    }
                    known.identity.profile.user.clone()
                }
                Standing::Unavailable | Standing::Throttled(_) => return Err(Fault::Unavailable),
                Standing::Nobody | Standing::StaleCookie | Standing::Refused(_) => return Ok(()),
            },
        };
        shared.people.follower.catch_up().await.map_err(|error| self.no_answer(&error))?;
        let client = self.head.client.0;
        audit::Event::SignedOut { user: &user, client }.log(self.record);
        self.record.user = User::Named(user);
        self.record.reason = "revoked".into();
        Ok(())
    }
}
