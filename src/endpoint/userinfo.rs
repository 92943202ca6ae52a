//! `/.gateway/userinfo`: who the gateway takes the caller for.

use http::StatusCode;
use serde_json::json;

use super::answer::{self, CHALLENGE};
use super::{Answered, Call, Problem};
use crate::access::{Bad, Known, Standing};
use crate::observe::{User, audit};

/// `GET`: the account as it is now, and until when the credential shown is good.
pub(super) async fn show(call: Call<'_>) -> Answered {
    match call.state.access.who(call.head, call.request.headers()).await {
        Standing::Known(known) => call.tell(&known),
        standing => call.unauthenticated(standing),
    }
}

impl Call<'_> {
    fn tell(self, known: &Known) -> Answered {
        let (identity, proof) = (&known.identity, &known.proof);
        let profile = &identity.profile;
        let mut document = json!({ "sub": profile.user, "groups": profile.groups });
        let ends = proof.session_ends.map(|end| end.as_secs());
        let exp = proof.claims.as_ref().map(|claims| claims.exp).or(ends);
        // OpenID Connect Core section 5.3.2: what has no value is left out.
        for (name, value) in [
            ("name", profile.name.as_ref().map(|name| json!(name))),
            ("email", profile.email.as_ref().map(|email| json!(email))),
            ("auth_time", identity.signed_in_at.map(|at| json!(at.as_secs()))),
            ("exp", exp.map(|exp| json!(exp))),
        ] {
            if let Some(value) = value {
                document[name] = value;
            }
        }
        self.record.user = User::Named(profile.user.clone());
        self.record.reason = "signed in".into();
        let response = self.asker().document(StatusCode::OK, &document);
        self.unread(response)
    }

    /// 401 as on a protected route, or 503 where the credential can't be judged.
    pub(super) fn unauthenticated(self, standing: Standing) -> Answered {
        let offers_sign_in = true;
        let (detail, challenge, clears_cookie) = match &standing {
            Standing::Unavailable | Standing::Throttled(_) => {
                let detail = "Credentials can't be judged now";
                let problem = Problem { detail, retry_after: Some(RETRY_SECONDS), ..Problem::default() };
                return self.refuse(StatusCode::SERVICE_UNAVAILABLE, &problem);
            }
            Standing::Refused(bad) => {
                if let Bad::Invalid(why) = bad {
                    let client = self.head.client.0;
                    audit::Event::BadCredential { client, route: None, reason: why }.log(self.record);
                }
                let (detail, challenge) = answer::token_challenge(bad);
                let problem = Problem { detail, challenge: Some(challenge), ..Problem::default() };
                return self.refuse(StatusCode::UNAUTHORIZED, &problem);
            }
            Standing::StaleCookie => ("Not authenticated", CHALLENGE, true),
            Standing::Nobody | Standing::Known(_) => ("Not authenticated", CHALLENGE, false),
        };
        let challenge = Some(challenge);
        let problem = Problem { detail, challenge, offers_sign_in, clears_cookie, ..Problem::default() };
        self.refuse(StatusCode::UNAUTHORIZED, &problem)
    }
}

/// When a credential that could not be judged may be shown again, in seconds.
const RETRY_SECONDS: u64 = 2;
