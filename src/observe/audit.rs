//! What an auditor asks about: who signed in, who could not, who was refused what. One enum, one place.

use std::net::IpAddr;

use tracing::field::display;
use tracing::{info, warn};

use super::Record;
use crate::identity::UserName;

/// Something an auditor asks about.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they hold")]
pub enum Event<'a> {
    /// Someone gave the right password.
    SignedIn { user: &'a UserName, client: IpAddr, method: &'static str, session: &'a str },
    /// Someone gave wrong credentials. The name is logged only when there is such an account:
    /// anything else could be a password typed into the wrong field.
    SignInFailed { user: Option<&'a UserName>, client: IpAddr, method: &'static str, reason: &'static str },
    /// Someone has to wait before the next attempt.
    SignInThrottled { client: IpAddr, method: &'static str, seconds: u64 },
    /// Another site tried to make a browser do something.
    CrossSite { client: IpAddr, path: &'a str, user: Option<&'a str> },
    /// A refresh token was used a second time, so it is in two hands: its session was ended.
    RefreshReused { user: &'a UserName, client: IpAddr, session: &'a str },
    /// A session or a token was ended by its owner.
    SignedOut { user: &'a str, client: IpAddr },
    /// Someone gave themselves a new password, which ended all their sessions; they go on in this one.
    PasswordChanged { user: &'a UserName, client: IpAddr, session: Option<&'a str> },
    /// Someone ended one of their sessions from another one.
    SessionEnded { user: &'a UserName, client: IpAddr, session: &'a str },
    /// Someone ended all of their sessions but the one they were in.
    OtherSessionsEnded { user: &'a UserName, client: IpAddr, count: usize },
    /// Someone made themselves an API key.
    ApiKeyAdded { user: &'a UserName, client: IpAddr, key: &'a str },
    /// Someone revoked one of their API keys.
    ApiKeyRevoked { user: &'a UserName, client: IpAddr, key: &'a str },
    /// A rule said no to someone who is signed in, or to everyone.
    Denied { user: Option<&'a str>, client: IpAddr, route: Option<&'a str>, reason: &'a str },
    /// What a route would have refused that is only observed.
    WouldDeny { user: Option<&'a str>, client: IpAddr, route: Option<&'a str>, reason: &'a str, instead: &'static str },
    /// A credential was shown that is not good.
    BadCredential { client: IpAddr, route: Option<&'a str>, reason: &'a str },
}

impl Event<'_> {
    /// Writes the event to the log, under the target `portcullis::audit`, with the names by which `request` is found in other logs.
    pub fn log(&self, request: &Record) {
        let digits = request.request_id.digits();
        let (request_id, trace_id) = (&*digits, request.trace.map(display));
        match self {
            Self::SignedIn { user, client, method, session } => {
                info!(target: TARGET, event = "signed-in", %user, %client, method, session, request_id, trace_id, "signed in");
            }
            Self::SignInFailed { user, client, method, reason } => {
                let user = user.map_or("(unknown)", UserName::as_str);
                warn!(target: TARGET, event = "sign-in-failed", user, %client, method, reason, request_id, trace_id, "sign-in failed");
            }
            Self::SignInThrottled { client, method, seconds } => {
                warn!(target: TARGET, event = "sign-in-throttled", %client, method, retry_after = seconds, request_id, trace_id, "too many attempts to sign in");
            }
            Self::CrossSite { client, path, user } => {
                warn!(target: TARGET, event = "cross-site", %client, path, user, request_id, trace_id, "request of another site refused");
            }
            Self::RefreshReused { user, client, session } => {
                warn!(target: TARGET, event = "refresh-reused", %user, %client, session, request_id, trace_id, "refresh token used again, session ended");
            }
            Self::SignedOut { user, client } => {
                info!(target: TARGET, event = "signed-out", user, %client, request_id, trace_id, "signed out")
            }
            Self::PasswordChanged { user, client, session } => {
                info!(target: TARGET, event = "password-changed", %user, %client, session, request_id, trace_id, "password changed");
            }
            Self::SessionEnded { user, client, session } => {
                info!(target: TARGET, event = "session-ended", %user, %client, session, request_id, trace_id, "session ended");
            }
            Self::OtherSessionsEnded { user, client, count } => {
                info!(target: TARGET, event = "other-sessions-ended", %user, %client, count, request_id, trace_id, "other sessions ended");
            }
            Self::ApiKeyAdded { user, client, key } => {
                info!(target: TARGET, event = "api-key-added", %user, %client, key, request_id, trace_id, "API key added");
            }
            Self::ApiKeyRevoked { user, client, key } => {
                info!(target: TARGET, event = "api-key-revoked", %user, %client, key, request_id, trace_id, "API key revoked");
            }
            Self::Denied { user, client, route, reason } => {
                info!(target: TARGET, event = "denied", user, %client, route, reason, request_id, trace_id, "request denied");
            }
            Self::WouldDeny { user, client, route, reason, instead } => {
                info!(target: TARGET, event = "would-deny", user, %client, route, reason, instead, request_id, trace_id, "request would be denied");
            }
            Self::BadCredential { client, route, reason } => {
                info!(target: TARGET, event = "bad-credential", %client, route, reason, request_id, trace_id, "credential refused");
            }
        }
    }
}

const TARGET: &str = "portcullis::audit";
