//! The gateway's own answers: a problem (RFC 9457) for programs, a page for people.

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::grpc;
use super::page::{self, ErrorPage};
use crate::access::{Bad, shows_api_key};
use crate::config::StoreKind;
use crate::message::body::Body;
use crate::message::head::Head;
use crate::message::survey::Fields;
use crate::observe::RequestId;
use crate::state::State;

/// Whoever is answered: what decides between a problem and a page, and what both say.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The configuration in force.
    pub state: &'a State,
    /// The head as it was judged; `None` when it could not be.
    pub head: Option<&'a Head>,
    /// What it takes for an answer.
    pub manner: Manner,
    /// What the log knows the request by.
    pub request_id: RequestId,
}

/// What a client takes for an answer, as far as its headers tell.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    is_page_load: bool,
    /// Whether it shows a credential that no browser sends by itself.
    shows_credential: bool,
    /// Whether a browser with Fetch Metadata sends it, be it for a script.
    is_browser: bool,
    /// Whether it reads the statuses of gRPC and not those of HTTP.
    is_grpc: bool,
}

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Manner {
    /// Reads it from a request's headers: a browser that loads a page says `Sec-Fetch-Mode: navigate`, or without that
    /// header names `text/html` in `Accept`.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::noted(headers, Fields::of(headers))
    }

    /// The same from headers of which it is noted that they are no other `fields` than these.
    fn noted(headers: &HeaderMap, fields: Fields) -> Self {
        let mode = fields.may_have(Fields::SEC_FETCH_MODE).then(|| headers.get(&SEC_FETCH_MODE)).flatten();
        let is_page_load = match mode {
            Some(mode) => mode == "navigate",
            None => fields.may_have(Fields::ACCEPT) && headers.get_all(ACCEPT).iter().any(names_html),
        };
        let shows_credential =
            fields.may_have(Fields::AUTHORIZATION) || (fields.may_have(Fields::X_API_KEY) && shows_api_key(headers));
        let is_browser = fields.may_have(Fields::FETCH_METADATA);
        Self { is_page_load, shows_credential, is_browser, is_grpc: false }
    }

    /// Reads it from a request that is judged on its way to an application, with the `fields` that it has of those noted.
    pub fn of_call<B>(request: &Request<B>, fields: Fields) -> Self {
        let is_grpc = fields.may_have(Fields::CONTENT_TYPE) && grpc::is_call(request);
        Self { is_grpc, ..Self::noted(request.headers(), fields) }
    }
}

/// An error, as far as the client learns it.
#[derive(Clone, Debug, Default)]
pub struct Problem<'a> {
    /// What it says.
    pub detail: &'a str,
    /// Seconds until it may be worth another try.
    pub retry_after: Option<u64>,
    /// The `WWW-Authenticate` of a 401.
    pub challenge: Option<&'static str>,
    /// Whether a name and password by Basic would do too: browsers are not told, lest they ask for one in a window of theirs.
    pub takes_basic: bool,
    /// Whether signing in can help.
    pub offers_sign_in: bool,
    /// Who is signed in.
    pub signed_in: Option<&'a str>,
    /// The methods that would do, for a 405.
    pub allow: Option<&'static str>,
    /// Whether the connection ends with this answer: its framing is in doubt.
    pub closes: bool,
    /// Whether our cookie was shown and is not good: it is cleared.
    pub clears_cookie: bool,
}

/// The members of a problem (RFC 9457, section 3.1), in alphabetical order.
#[derive(Serialize)]
struct Document<'a> {
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_url: Option<&'a str>,
    request_id: &'a str,
    status: u16,
    title: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Asker<'_> {
    /// Whether this is a browser that loads a page.
    pub const fn is_page_load(&self) -> bool {
        self.manner.is_page_load
    }

    /// Whether the request could be sent to the sign-in page and come back as it was.
    pub fn can_come_back(&self) -> bool {
        let is_get = self.head.is_some_and(|head| matches!(head.method, Method::GET | Method::HEAD));
        is_get && !self.manner.shows_credential
    }

    /// An error.
    pub fn problem(&self, status: StatusCode, problem: &Problem<'_>) -> Response<Body> {
        let mut answer = match self.manner {
            Manner { is_grpc: true, .. } => self.grpc(status, problem),
            Manner { is_page_load: true, .. } => self.error_page(status, problem),
            _ => self.json(status, problem),
        };
        let headers = answer.headers_mut();
        if let Some(seconds) = problem.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = problem.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if problem.takes_basic && !self.manner.is_browser {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(BASIC_CHALLENGE));
        }
        if let Some(allow) = problem.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if problem.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if problem.clears_cookie {
            self.clear_cookie(headers);
        }
        answer
    }

    /// A page of ours.
    pub fn page(&self, status: StatusCode, html: String) -> Response<Body> {
        let mut answer = Response::new(Body::full(html));
        *answer.status_mut() = status;
        *answer.headers_mut() = page::headers();
        self.name(answer)
    }

    /// A document of ours, as `application/json`.
    pub fn document(&self, status: StatusCode, document: &Value) -> Response<Body> {
        self.own(status, "application/json", document.to_string())
    }

    /// An error body of exactly these members, as `application/problem+json`.
    pub fn bare_problem(&self, status: StatusCode, members: &Value) -> Response<Body> {
        self.own(status, PROBLEM, members.to_string())
    }

    /// Nothing but a status.
    pub fn empty(&self, status: StatusCode) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = status;
        // Nothing in it may be shown as a page either.
        *answer.headers_mut() = page::security_headers();
        self.name(answer)
    }

    /// What the operator wrote, which is not to be kept, and is what it says it is.
    pub fn given(
        &self,
        status: StatusCode,
        kind: HeaderValue,
        bytes: Bytes,
        retry_after: Option<u64>,
    ) -> Response<Body> {
        let mut answer = Response::new(Body::full(bytes));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        self.name(answer)
    }

    /// 303 to a path on this host, which has been checked or made here.
    pub fn see_other(&self, path: &str) -> Response<Body> {
        let mut answer = self.empty(StatusCode::SEE_OTHER);
        let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
        answer.headers_mut().insert(LOCATION, location);
        answer
    }

    /// The sign-in page's path with a way back to this request.
    pub fn login_path(&self, again: bool) -> String {
        let login = &self.state.config.login.path;
        let target = self.head.map_or_else(|| "/".to_owned(), Head::target);
        let next: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
        let again = if again { "again=1&" } else { "" };
        format!("{login}?{again}next={next}")
    }

    /// Whether there is a sign-in page at all.
    fn has_sign_in(&self) -> bool {
        self.state.config.store.kind != StoreKind::None
    }

    /// Adds the `Set-Cookie` that takes our cookie away.
    pub fn clear_cookie(&self, headers: &mut HeaderMap) {
        headers.append(SET_COOKIE, self.state.cookie.clear());
    }

    fn error_page(&self, status: StatusCode, problem: &Problem<'_>) -> Response<Body> {
        let here = self.head.filter(|_| self.can_come_back()).map(Head::target);
        let html = page::error(&ErrorPage {
            title: &self.state.config.login.title,
            status,
            heading: None,
            explanation: None,
            request_id: &self.request_id.digits(),
            signed_in: problem.signed_in,
            retry_after: problem.retry_after,
            login_path: (problem.offers_sign_in && self.has_sign_in()).then_some(self.state.config.login.path.as_str()),
            here: here.as_deref(),
        });
        self.page(status, html)
    }

    fn json(&self, status: StatusCode, problem: &Problem<'_>) -> Response<Body> {
        let document = Document {
            detail: problem.detail,
            login_url: (problem.offers_sign_in && self.has_sign_in()).then_some(self.state.login_url.as_str()),
            request_id: &self.request_id.digits(),
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error"),
            kind: "about:blank",
        };
        let mut text = Vec::with_capacity(DOCUMENT);
        // Neither memory nor text can refuse to be written to.
        let _ = serde_json::to_writer(&mut text, &document);
        self.own(status, PROBLEM, text)
    }

    fn grpc(&self, status: StatusCode, problem: &Problem<'_>) -> Response<Body> {
        let mut answer = self.name(grpc::refusal(status, problem.detail));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    fn own(&self, status: StatusCode, media_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
        let mut answer = Response::new(Body::full(text));
        *answer.status_mut() = status;
        // Nothing in it may be shown as a page either.
        *answer.headers_mut() = page::security_headers();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.name(answer)
    }

    fn name(&self, mut answer: Response<Body>) -> Response<Body> {
        if let Ok(id) = HeaderValue::from_str(&self.request_id.digits()) {
            answer.headers_mut().insert(&X_REQUEST_ID, id);
        }
        answer
    }
}

/// What the client of a bad token is told: the detail and the `WWW-Authenticate` (RFC 6750 section 3.1).
pub fn token_challenge(bad: &Bad) -> (&'static str, &'static str) {
    match bad {
        Bad::Expired => ("Token has expired", EXPIRED),
        Bad::Invalid(_) | Bad::OtherIssuer => ("Invalid token", INVALID),
        Bad::Credentials { .. } => ("Invalid credentials", CHALLENGE),
    }
}

fn names_html(accept: &HeaderValue) -> bool {
    let text = accept.to_str().unwrap_or("");
    text.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("text/html"));
        is_html
            && !parts
                .any(|parameter| matches!(parameter.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// RFC 7617 section 2.
const BASIC_CHALLENGE: &str = "Basic realm=\"portcullis\", charset=\"UTF-8\"";

/// The `WWW-Authenticate` of a 401 that says no more than that a token would do. All challenges have one realm.
pub const CHALLENGE: &str = "Bearer realm=\"portcullis\"";

const EXPIRED: &str = "Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"Token has expired\"";

const INVALID: &str = "Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"Invalid token\"";

/// RFC 9470 section 3.
pub const STEP_UP: &str = "Bearer realm=\"portcullis\", error=\"insufficient_user_authentication\"";

/// Room for most problems, in bytes.
const DOCUMENT: usize = 256;

const PROBLEM: &str = "application/problem+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_names_html_and_star_is_none() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", true),
            ("application/json, Text/HTML;q=0.5", true),
            ("*/*", false),
            ("text/*", false),
            ("text/html;q=0", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            assert_eq!(names_html(&HeaderValue::from_str(accept).unwrap()), expected, "{accept}");
        }
    }
}
