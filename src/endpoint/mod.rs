//! What the gateway answers itself: a table from path and method to the endpoint.

mod account;
mod agent;
pub mod answer;
mod form;
pub mod grpc;
mod introspect;
mod login;
mod logout;
mod metadata;
pub mod next;
mod oauth;
pub mod page;
mod read;
mod revoke;
mod token;
mod userinfo;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Known, Reason};
use crate::config::{Config, ForwardAuth, StoreKind};
use crate::message::body::Body;
use crate::message::head::Head;
use crate::observe::Record;
use crate::state::State;
use answer::{Asker, Manner, Problem};

/// A path of the gateway's own, on every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `login.path`
    Login,
    /// `login.logout_path`
    Logout,
    /// `/.gateway/token`
    Token,
    /// `/.gateway/revoke`
    Revoke,
    /// `/.gateway/introspect`
    Introspect,
    /// `/.gateway/userinfo`
    UserInfo,
    /// `/.gateway/account`
    Account,
    /// `/.gateway/account/password`
    AccountPassword,
    /// `/.gateway/account/sessions`
    AccountSessions,
    /// `/.gateway/account/keys`
    AccountKeys,
    /// `/.well-known/jwks.json`, on `public_url`'s host only.
    Jwks,
    /// `/.well-known/oauth-authorization-server`, on `public_url`'s host only.
    ServerMetadata,
    /// `/.gateway/check`, and all below it where Envoy asks: the pipeline answers it.
    Check,
    /// A name below `/.gateway` that there is not, or one that comes later.
    Unknown,
}

/// The endpoint of a canonical path on `host`, if it is one of the gateway's own.
pub fn find(config: &Config, host: &str, canonical: &str) -> Option<Endpoint> {
    let found = find_any(config, host, canonical)?;
    // Without a store nobody signs in, and nothing is signed.
    let needs_store = !matches!(found, Endpoint::Check | Endpoint::UserInfo | Endpoint::Unknown);
    Some(if needs_store && config.store.kind == StoreKind::None { Endpoint::Unknown } else { found })
}

fn find_any(config: &Config, host: &str, canonical: &str) -> Option<Endpoint> {
    let login = &config.login;
    if canonical == login.path {
        return Some(Endpoint::Login);
    }
    if canonical == login.logout_path {
        return Some(Endpoint::Logout);
    }
    // On other hosts these are the applications'.
    if let Some(document) = metadata::find_document(canonical) {
        return (host == config.server.public_url.host).then_some(document);
    }
    let below = canonical.strip_prefix(OWN_PREFIX)?;
    if let Some(asked) = below.strip_prefix("/check") {
        let asks = match config.server.forward_auth {
            ForwardAuth::Off => false,
            ForwardAuth::Nginx | ForwardAuth::Traefik => asked.is_empty(),
            ForwardAuth::Envoy => asked.starts_with('/'),
        };
        if asks {
            return Some(Endpoint::Check);
        }
    }
    match below {
        "/token" => Some(Endpoint::Token),
        "/revoke" => Some(Endpoint::Revoke),
        "/introspect" => Some(Endpoint::Introspect),
        "/userinfo" => Some(Endpoint::UserInfo),
        "/account" => Some(Endpoint::Account),
        "/account/password" => Some(Endpoint::AccountPassword),
        "/account/sessions" => Some(Endpoint::AccountSessions),
        "/account/keys" => Some(Endpoint::AccountKeys),
        _ => (below.is_empty() || below.starts_with('/')).then_some(Endpoint::Unknown),
    }
}

/// A request to an endpoint.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct Call<'a> {
    pub state: &'a State,
    pub head: &'a Head,
    pub request: Box<Request<Incoming>>,
    pub record: &'a mut Record,
}

/// What an endpoint answers with, and the body that it did not read.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub response: Response<Body>,
    /// The request, where its body is still to be dropped.
    pub unread: Option<Box<Request<Incoming>>>,
}

/// Answers a request to one of the gateway's own paths.
pub async fn serve(endpoint: Endpoint, call: Call<'_>) -> Answered {
    call.record.decision = "own";
    call.record.code = Reason::Own.code();
    let method = call.head.method.clone();
    match (endpoint, &method) {
        (Endpoint::Login, &(Method::GET | Method::HEAD)) => login::show(call).await,
        (Endpoint::Login, &Method::POST) => login::submit(call).await,
        (Endpoint::Logout, &(Method::GET | Method::HEAD)) => logout::show(call).await,
        (Endpoint::Logout, &Method::POST) => logout::submit(call).await,
        (Endpoint::Jwks, &(Method::GET | Method::HEAD)) => metadata::jwks(call),
        (Endpoint::ServerMetadata, &(Method::GET | Method::HEAD)) => metadata::server(call),
        (Endpoint::Token, &Method::POST) => token::submit(call).await,
        (Endpoint::Revoke, &Method::POST) => revoke::submit(call).await,
        (Endpoint::Introspect, &Method::POST) => introspect::submit(call).await,
        (Endpoint::UserInfo, &(Method::GET | Method::HEAD)) => userinfo::show(call).await,
        (Endpoint::Login | Endpoint::Logout, _) => call.wrong_method("GET, HEAD, POST"),
        (Endpoint::Token | Endpoint::Revoke | Endpoint::Introspect, _) => call.wrong_method("POST"),
        (Endpoint::Account, &(Method::GET | Method::HEAD)) => account::show(call).await,
        (Endpoint::AccountPassword, &Method::POST) => account::change_password(call).await,
        (Endpoint::AccountSessions, &Method::POST) => account::end_sessions(call).await,
        (Endpoint::AccountKeys, &Method::POST) => account::change_keys(call).await,
        (Endpoint::Account, _) => call.wrong_method("GET, HEAD"),
        (Endpoint::AccountPassword | Endpoint::AccountSessions | Endpoint::AccountKeys, _) => call.wrong_method("POST"),
        (Endpoint::UserInfo | Endpoint::Jwks | Endpoint::ServerMetadata, _) => call.wrong_method("GET, HEAD"),
        (Endpoint::Check | Endpoint::Unknown, _) => {
            call.refuse(StatusCode::NOT_FOUND, &Problem { detail: "Not found", ..Problem::default() })
        }
    }
}

impl Call<'_> {
    fn note_return(&self, known: Option<&Known>) {
        if let Some(known) = known {
            self.state.note_return(&known.identity, self.head, self.request.headers());
        }
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            state: self.state,
            head: Some(self.head),
            manner: Manner::of(self.request.headers()),
            request_id: self.record.request_id,
        }
    }

    fn refuse(self, status: StatusCode, problem: &Problem<'_>) -> Answered {
        self.record.reason = problem.detail.to_owned().into();
        let response = self.asker().problem(status, problem);
        self.unread(response)
    }

    fn wrong_method(self, allow: &'static str) -> Answered {
        let problem = Problem { detail: "Method not allowed", allow: Some(allow), ..Problem::default() };
        self.refuse(StatusCode::METHOD_NOT_ALLOWED, &problem)
    }

    fn unread(self, response: Response<Body>) -> Answered {
        Answered { response, unread: Some(self.request) }
    }
}

/// Everything below is the gateway's.
const OWN_PREFIX: &str = "/.gateway";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn own_paths_are_found_and_no_others() {
        let text = "[upstreams]\na = \"http://b\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"a\"\n";
        let loaded = config::load_text(std::path::Path::new("gateway.toml"), text.to_owned(), &|_| None);
        let config = loaded.config.unwrap();
        for (path, expected) in [
            ("/login", Some(Endpoint::Login)),
            ("/logout", Some(Endpoint::Logout)),
            ("/.gateway", Some(Endpoint::Unknown)),
            ("/.gateway/x/y", Some(Endpoint::Unknown)),
            ("/.gateway/token", Some(Endpoint::Token)),
            ("/.gateway/token/", Some(Endpoint::Unknown)),
            ("/.gateway/Token", Some(Endpoint::Unknown)),
            ("/.gateway/revoke", Some(Endpoint::Revoke)),
            ("/.gateway/introspect", Some(Endpoint::Introspect)),
            ("/.gateway/userinfo", Some(Endpoint::UserInfo)),
            ("/x/.gateway/token", None),
            ("/.gateway/account", Some(Endpoint::Account)),
            ("/.gateway/account/password", Some(Endpoint::AccountPassword)),
            ("/.gateway/account/sessions", Some(Endpoint::AccountSessions)),
            ("/.gateway/account/keys", Some(Endpoint::AccountKeys)),
            ("/.gateway/account/", Some(Endpoint::Unknown)),
            ("/.gateway/account/more", Some(Endpoint::Unknown)),
            ("/.gatewayx", None),
            ("/login/x", None),
            ("/", None),
        ] {
            assert_eq!(find(&config, "h", path), expected, "{path}");
        }
    }
}
