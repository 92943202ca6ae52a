//! What the gateway answers itself: a table from path and method to the endpoint.

pub mod answer;
mod form;
mod login;
mod logout;
pub mod next;
pub mod page;
mod read;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::Known;
use crate::config::Login;
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
    /// A name below `/.gateway` that there is not.
    Unknown,
}

/// The endpoint of a canonical path, if it is one of the gateway's own.
pub fn find(login: &Login, canonical: &str) -> Option<Endpoint> {
    if canonical == login.path {
        return Some(Endpoint::Login);
    }
    if canonical == login.logout_path {
        return Some(Endpoint::Logout);
    }
    let below = canonical.strip_prefix(OWN_PREFIX)?;
    (below.is_empty() || below.starts_with('/')).then_some(Endpoint::Unknown)
}

/// A request to an endpoint.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct Call<'a> {
    pub state: &'a State,
    pub head: &'a Head,
    pub request: Request<Incoming>,
    pub record: &'a mut Record,
}

/// What an endpoint answers with, and the body that it did not read.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub response: Response<Body>,
    /// The request, where its body is still to be dropped.
    pub unread: Option<Request<Incoming>>,
}

/// Answers a request to one of the gateway's own paths.
pub async fn serve(endpoint: Endpoint, call: Call<'_>) -> Answered {
    call.record.decision = "own";
    let method = call.head.method.clone();
    match (endpoint, &method) {
        (Endpoint::Login, &(Method::GET | Method::HEAD)) => login::show(call).await,
        (Endpoint::Login, &Method::POST) => login::submit(call).await,
        (Endpoint::Logout, &(Method::GET | Method::HEAD)) => logout::show(call).await,
        (Endpoint::Logout, &Method::POST) => logout::submit(call).await,
        (Endpoint::Login | Endpoint::Logout, _) => {
            let problem =
                Problem { detail: "Method not allowed", allow: Some("GET, HEAD, POST"), ..Problem::default() };
            call.refuse(StatusCode::METHOD_NOT_ALLOWED, &problem)
        }
        (Endpoint::Unknown, _) => {
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
            request_id: &self.record.request_id,
        }
    }

    fn refuse(self, status: StatusCode, problem: &Problem<'_>) -> Answered {
        self.record.reason = problem.detail.to_owned();
        let response = self.asker().problem(status, problem);
        self.unread(response)
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

    #[test]
    fn own_paths_are_found_and_no_others() {
        let login = Login {
            path: "/login".to_owned(),
            logout_path: "/logout".to_owned(),
            title: String::new(),
            failure_status: StatusCode::FORBIDDEN,
            failure_detail: String::new(),
        };
        for (path, expected) in [
            ("/login", Some(Endpoint::Login)),
            ("/logout", Some(Endpoint::Logout)),
            ("/.gateway", Some(Endpoint::Unknown)),
            ("/.gateway/x/y", Some(Endpoint::Unknown)),
            ("/.gatewayx", None),
            ("/login/x", None),
            ("/", None),
        ] {
            assert_eq!(find(&login, path), expected, "{path}");
        }
    }
}
