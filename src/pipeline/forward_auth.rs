//! `/.gateway/check`: another proxy asks whether a request that it holds may go on, and as whom.
//!
//! The request that is asked about is put together again from the one family of headers that `server.forward_auth` names.
//! From there on it is a request as any other: the same normal form, the same decision, the same record. What the gateway
//! would remove on the way and the other proxy does not is refused here, as nobody else would.

use std::ops::ControlFlow;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_KEY, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::normalize::{Malformed, Normal};
use super::refuse;
use super::{answer as own_answer, cors, decide, limit};
use crate::access::{Permit, Preflight, Reason};
use crate::config::{ForwardAuth, Route};
use crate::endpoint::answer::{Asker, CHALLENGE, Manner, Problem};
use crate::endpoint::{self, Answered};
use crate::message::body::Body;
use crate::message::forwarded::Scheme;
use crate::message::head::Head;
use crate::message::headers::{is_method_override, reads_as};
use crate::message::host::Host;
use crate::message::line;
use crate::message::survey::Fields;
use crate::observe::{Page, Record};
use crate::proxy::{rewrite, told};
use crate::state::State;

/// Answers whoever asks about a request of another.
pub(super) async fn answer(
    state: &State,
    request: Box<Request<Incoming>>,
    normal: &Normal,
    record: &mut Record,
) -> Answered {
    let family = state.config.server.forward_auth;
    let response = match original(family, &request, normal, record) {
        Err(fault) => refused(state, &request, normal, record, &fault),
        Ok(head) => judge(state, &Arc::new(head), request.headers(), record).await,
    };
    Answered { response, unread: Some(request) }
}

/// Why there is no request to be judged.
enum Fault {
    /// Only a proxy of ours may ask.
    Peer,
    /// A header of the family is not there exactly once, or is none of its kind.
    Header(&'static str, &'static str),
    /// The request that is asked about is one that nobody should see.
    Malformed(Malformed),
    /// It is for the gateway itself.
    Own,
}

/// What the other proxy says of the request that it holds.
struct Said {
    method: Method,
    host: Host,
    https: bool,
    target: String,
}

/// The request that is asked about, in its one form.
fn original(
    family: ForwardAuth,
    request: &Request<Incoming>,
    normal: &Normal,
    record: &mut Record,
) -> Result<Head, Fault> {
    if !normal.origin.peer_is_trusted {
        return Err(Fault::Peer);
    }
    let said = match family {
        // Never reached: the path is none of the gateway's then.
        ForwardAuth::Off => return Err(Fault::Own),
        ForwardAuth::Nginx => Said {
            method: method(request.headers(), "x-original-method")?,
            host: host(request.headers(), "x-original-host")?,
            https: normal.head.https,
            target: one(request.headers(), "x-original-uri")?.to_owned(),
        },
        ForwardAuth::Traefik => Said {
            method: method(request.headers(), "x-forwarded-method")?,
            host: host(request.headers(), "x-forwarded-host")?,
            https: scheme(request.headers(), "x-forwarded-proto")? == Scheme::Https,
            target: one(request.headers(), "x-forwarded-uri")?.to_owned(),
        },
        ForwardAuth::Envoy => Said {
            method: request.method().clone(),
            host: Host::of_request(request.uri(), request.headers())
                .map_err(|error| Fault::Malformed(Malformed::Host(error)))?,
            https: normal.head.https,
            target: below(request)?,
        },
    };
    let malformed = |error| Fault::Malformed(Malformed::Line(error));
    let (path, query) = match said.target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (said.target.as_str(), None),
    };
    record.method = said.method.clone();
    record.page = Page::Written { host: said.host.name().to_owned(), path: path.to_owned() };
    if said.target.contains('#') {
        return Err(malformed(line::RAW_FRAGMENT));
    }
    line::check_method(&said.method).map_err(malformed)?;
    let path = line::read_path(path, &said.method, false).map_err(malformed)?;
    let Head { client, now, started, .. } = *normal.head;
    // The certificate of the connection is the other proxy's.
    let (method, host, https, certificate) = (said.method, said.host, said.https, None);
    Ok(Head { method, host, path, query, client, https, certificate, now, started })
}

/// Path and query after `/.gateway/check`, as they came.
fn below(request: &Request<Incoming>) -> Result<String, Fault> {
    let uri = request.uri();
    let path = uri.path().strip_prefix(PREFIX).filter(|path| path.starts_with('/'));
    let path = path.ok_or(Fault::Header("the path", "is not written after `/.gateway/check`"))?;
    Ok(uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
}

/// The one value of a header of the family. A second could be the client's.
fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Fault::Header(name, "is missing")),
        (Some(_), Some(_)) => Err(Fault::Header(name, "stands twice")),
        (Some(value), None) => value.to_str().map_err(|_| Fault::Header(name, "is not visible ASCII")),
    }
}

fn method(headers: &HeaderMap, name: &'static str) -> Result<Method, Fault> {
    Method::from_bytes(one(headers, name)?.as_bytes()).map_err(|_| Fault::Header(name, "is no method"))
}

fn host(headers: &HeaderMap, name: &'static str) -> Result<Host, Fault> {
    Host::parse(one(headers, name)?.as_bytes()).map_err(|error| Fault::Malformed(Malformed::Host(error)))
}

fn scheme(headers: &HeaderMap, name: &'static str) -> Result<Scheme, Fault> {
    Scheme::parse(one(headers, name)?.as_bytes()).ok_or(Fault::Header(name, "is no scheme"))
}

/// The answer where there is nothing to judge.
fn refused(
    state: &State,
    request: &Request<Incoming>,
    normal: &Normal,
    record: &mut Record,
    fault: &Fault,
) -> Response<Body> {
    let (request_id, manner) = (record.request_id, Manner::of(request.headers()));
    let asker = Asker { state, head: Some(&normal.head), manner, request_id };
    let plain = |status, detail| asker.problem(status, &Problem { detail, ..Problem::default() });
    match fault {
        Fault::Peer => {
            record.code = CODE;
            record.decision = "own";
            record.reason = "only a trusted proxy may ask".into();
            plain(StatusCode::FORBIDDEN, "Only a trusted proxy may ask")
        }
        // The mistake is the other proxy's: whoever sets it up has to see it.
        Fault::Header(name, what) => {
            record.code = CODE;
            record.decision = "bad-request";
            record.reason = format!("{name} {what}").into();
            plain(StatusCode::BAD_REQUEST, "Bad request")
        }
        Fault::Malformed(malformed) => for_family(state, refuse::malformed(&asker, record, malformed)),
        Fault::Own => {
            record.decision = "own";
            record.because(Reason::Own, None);
            for_family(state, plain(StatusCode::NOT_FOUND, "Not found"))
        }
    }
}

/// Answers about `head`. What the other proxy hands to the client in place of the application's answer says who may read it.
async fn judge(state: &State, head: &Arc<Head>, headers: &HeaderMap, record: &mut Record) -> Response<Body> {
    let mut answer = decided(state, head, headers, record).await;
    if answer.status() != StatusCode::OK {
        cors::announce(state, head, record, cors::origin(headers, Fields::of(headers)).as_ref(), answer.headers_mut());
    }
    answer
}

async fn decided(state: &State, head: &Arc<Head>, headers: &HeaderMap, record: &mut Record) -> Response<Body> {
    let (request_id, manner) = (record.request_id, Manner::of(headers));
    let asker = Asker { state, head: Some(head), manner, request_id };
    // What is the gateway's own goes to no application, whoever asks.
    if endpoint::find(&state.config, head.host.name(), head.path.canonical()).is_some() {
        record.decision = "own";
        record.because(Reason::Own, None);
        let problem = Problem { detail: "Not found", ..Problem::default() };
        return for_family(state, asker.problem(StatusCode::NOT_FOUND, &problem));
    }
    let is_envoy = state.config.server.forward_auth == ForwardAuth::Envoy;
    let permit = match state.access.preflight(head, headers, &state.shared.current) {
        Some(Preflight::Onward(permit)) => permit,
        Some(Preflight::Refuse(route)) => return for_family(state, cors::refuse(&asker, record, &route)),
        // To the others every success is leave to go on, which nobody without a name has here: they answer it before they ask.
        Some(Preflight::Answer(route)) if is_envoy => return cors::answer(&asker, record, &route),
        Some(Preflight::Answer(_)) | None => {
            let decision = decide::ask(state, head, headers, record).await;
            match refuse::unless_permitted(&asker, record, decision) {
                ControlFlow::Continue(permit) => permit,
                ControlFlow::Break(response) => return for_family(state, response),
            }
        }
    };
    decide::note_permit(state, &permit, record);
    let counted = limit::count(state, &permit);
    if let Some(counted) = counted.as_ref().filter(|counted| !counted.may_come()) {
        if !permit.route().observe {
            return for_family(state, counted.refuse(&asker, record));
        }
        counted.note(record);
    }
    // What a route answers itself goes to the client in place of the application's answer; a 200 here would let it pass.
    if let Some(own) = own_answer::own(&asker, &permit, head) {
        if !own.status().is_success() {
            return for_family(state, own);
        }
        let problem = Problem { detail: "Not allowed", ..Problem::default() };
        return for_family(state, asker.problem(StatusCode::FORBIDDEN, &problem));
    }
    if let Some(name) = smuggled(state, permit.route(), headers) {
        record.code = CODE;
        record.decision = "bad-request";
        record.upstream = None;
        record.reason = format!("{name} could be taken for what only the gateway may say").into();
        let problem = Problem { detail: "Bad request", ..Problem::default() };
        return for_family(state, asker.problem(StatusCode::BAD_REQUEST, &problem));
    }
    allowed(&asker, &permit, headers)
}

/// A name that the gateway would have removed, and that the other proxy, which knows the plain ones only, does not: another
/// spelling of an identity header, a method in place of the one that was judged, a WebSocket where the route has none.
fn smuggled<'a>(state: &State, route: &Route, headers: &'a HeaderMap) -> Option<&'a HeaderName> {
    let told = &state.config.told;
    let is_disguised = |name: &HeaderName| !told.contains(name) && told.iter().any(|known| reads_as(name, known));
    let overrides = |name: &HeaderName| route.strips_method_overrides && is_method_override(name.as_str());
    let opens = |name: &HeaderName| !route.websockets && [UPGRADE, SEC_WEBSOCKET_KEY].contains(name);
    headers.keys().find(|name| is_disguised(name) || overrides(name) || opens(name))
}

/// 200 with everything that the application is to be told. A header that has no value is there too, and empty, so that it
/// takes the place of what the client sent.
fn allowed(asker: &Asker<'_>, permit: &Permit, headers: &HeaderMap) -> Response<Body> {
    let state = asker.state;
    let mut answer = asker.empty(StatusCode::OK);
    let fields = answer.headers_mut();
    if state.config.server.forward_auth != ForwardAuth::Nginx {
        keep_theirs(fields, headers, state.cookie.name(), permit.drops_authorization());
    }
    for name in &*state.config.told {
        fields.insert(name, EMPTY);
    }
    if let Some(identity) = permit.identity() {
        let (head, route) = (permit.head(), permit.route());
        for (name, value) in told(identity, head, route, state.keys.assertions(), &state.upstream_names) {
            fields.insert(name, value);
        }
    }
    if permit.clears_cookie() {
        asker.clear_cookie(fields);
    }
    answer
}

/// The credentials of the request without ours, for a proxy that can put them in place of those that came. nginx has too
/// little room for them in an answer to `auth_request`, and can cut ours out itself.
fn keep_theirs(answer: &mut HeaderMap, headers: &HeaderMap, our_cookie: &str, drops_authorization: bool) {
    let mut theirs = HeaderMap::new();
    for name in &CREDENTIALS {
        for value in headers.get_all(name) {
            theirs.append(name, value.clone());
        }
    }
    rewrite::remove_credentials(&mut theirs, &[our_cookie], drops_authorization);
    for name in CREDENTIALS.iter().filter(|name| headers.contains_key(*name)) {
        answer.insert(name, EMPTY);
        for (nth, value) in theirs.get_all(name).iter().enumerate() {
            if nth == 0 {
                answer.insert(name, value.clone());
            } else {
                answer.append(name, value.clone());
            }
        }
    }
}

/// `auth_request` knows 401 and 403, and makes 500 of everything else: a redirect is a 401 with a `Location`, which the
/// configuration of nginx can make use of.
fn for_family(state: &State, mut answer: Response<Body>) -> Response<Body> {
    if state.config.server.forward_auth != ForwardAuth::Nginx {
        return answer;
    }
    *answer.status_mut() = match answer.status() {
        StatusCode::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
        status if status.is_redirection() => {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            StatusCode::UNAUTHORIZED
        }
        _ => StatusCode::FORBIDDEN,
    };
    answer
}

/// What stands before the path where Envoy asks.
const PREFIX: &str = "/.gateway/check";

/// The code of what is wrong with the question.
const CODE: &str = "forward-auth";

const EMPTY: HeaderValue = HeaderValue::from_static("");

static CREDENTIALS: [HeaderName; 3] = [COOKIE, AUTHORIZATION, HeaderName::from_static("x-api-key")];
