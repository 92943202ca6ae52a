//! From a decision that is not a permission to the answer that the client gets, and to what the log says of it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use http::{Response, StatusCode};

use super::normalize::Malformed;
use crate::access::{Bad, Challenge, Decision, Denial, Permit, Reason, Want};
use crate::config::Unauthenticated;
use crate::endpoint::answer::{self, Asker, Problem};
use crate::message::body::Body;
use crate::message::line::LineError;
use crate::message::rejection::{Blame, Rejection};
use crate::observe::{Record, audit};
use crate::state::State;
use crate::throttle::RetryAfter;

/// The permit, or else the answer that the client gets instead.
pub(super) fn unless_permitted(
    asker: &Asker<'_>,
    record: &mut Record,
    decision: Decision,
) -> ControlFlow<Response<Body>, Permit> {
    ControlFlow::Break(match decision {
        Decision::Permit(permit) => return ControlFlow::Continue(permit),
        Decision::Challenge(asked) => {
            record.decided_by(&asked.route);
            challenge(asker, record, &asked)
        }
        Decision::Deny(denied) => {
            record.decided_by(&denied.route);
            denial(asker, record, &denied)
        }
        Decision::NotFound { reading } => {
            record.because(Reason::NoRoute, reading);
            not_found(asker, record)
        }
        Decision::Malformed(why) => twofold(asker, record, why),
        Decision::Throttled(route, wait) => {
            record.decided_by(&route);
            throttled(asker, record, wait)
        }
        Decision::Unavailable(route) => {
            record.decided_by(&route);
            unavailable(asker, record)
        }
    })
}

/// 400, 405: a request that can't be judged.
pub(super) fn malformed(asker: &Asker<'_>, record: &mut Record, malformed: &Malformed) -> Response<Body> {
    record.decision = "bad-request";
    match malformed {
        Malformed::Line(error) => record.because(Reason::Line(*error), None),
        Malformed::Host(error) => record.because(Reason::Host(*error), None),
        Malformed::Framing(error) => {
            record.code = FRAMING;
            record.reason = error.to_string().into();
        }
    }
    match malformed {
        Malformed::Line(LineError::Method) => {
            let problem = Problem { detail: "Method not allowed", allow: Some(METHODS), ..Problem::default() };
            asker.problem(StatusCode::METHOD_NOT_ALLOWED, &problem)
        }
        Malformed::Line(LineError::Protocol) => {
            asker.problem(StatusCode::NOT_IMPLEMENTED, &Problem { detail: "Not implemented", ..Problem::default() })
        }
        Malformed::Line(LineError::OptionsOfServer) => {
            record.decision = "own";
            let mut answer = asker.empty(StatusCode::NO_CONTENT);
            answer.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static(METHODS));
            answer
        }
        Malformed::Line(LineError::Target(_) | LineError::Path(_)) | Malformed::Host(_) | Malformed::Framing(_) => {
            let problem = Problem { detail: "Bad request", closes: true, ..Problem::default() };
            asker.problem(StatusCode::BAD_REQUEST, &problem)
        }
    }
}

/// 501: over HTTP/2 any success would tell a client that its WebSocket is open, and none is.
pub(super) fn no_socket(asker: &Asker<'_>, record: &mut Record) -> Response<Body> {
    record.code = NO_SOCKET;
    record.reason.to_mut().push_str(", no WebSocket there");
    asker.problem(StatusCode::NOT_IMPLEMENTED, &Problem { detail: "No WebSocket here", ..Problem::default() })
}

/// 400: the credentials of a request that is well-formed otherwise contradict each other.
pub(super) fn twofold(asker: &Asker<'_>, record: &mut Record, why: &'static str) -> Response<Body> {
    record.decision = "bad-request";
    record.because(Reason::Twofold(why), None);
    asker.problem(StatusCode::BAD_REQUEST, &Problem { detail: "Bad request", ..Problem::default() })
}

/// 404: no route.
fn not_found(asker: &Asker<'_>, record: &mut Record) -> Response<Body> {
    record.decision = "not-found";
    asker.problem(StatusCode::NOT_FOUND, &Problem { detail: "Not found", ..Problem::default() })
}

/// 429: too many wrong passwords, and this one was not looked at.
fn throttled(asker: &Asker<'_>, record: &mut Record, wait: RetryAfter) -> Response<Body> {
    record.decision = "challenge";
    record.because(Reason::TooManyAttempts, None);
    let seconds = wait.seconds();
    audit::Event::SignInThrottled { client: record.client, method: "basic", seconds }.log(record);
    let problem = Problem { detail: "Too many attempts", retry_after: Some(seconds), ..Problem::default() };
    asker.problem(StatusCode::TOO_MANY_REQUESTS, &problem)
}

/// 503: the credential can't be judged.
fn unavailable(asker: &Asker<'_>, record: &mut Record) -> Response<Body> {
    record.decision = "error";
    record.because(Reason::StoreDown, None);
    let problem =
        Problem { detail: "Credentials can't be judged now", retry_after: Some(RETRY_SECONDS), ..Problem::default() };
    asker.problem(StatusCode::SERVICE_UNAVAILABLE, &problem)
}

/// What an observed route would have refused goes on, and is told.
pub(super) fn observed(record: &mut Record, instead: &Decision) {
    let (decision, route) = match instead {
        Decision::Deny(denial) => {
            record.because(denial.why, denial.reading);
            ("deny", Some(&denial.route))
        }
        Decision::Challenge(challenge) => {
            wanted(record, challenge);
            ("challenge", Some(&challenge.route))
        }
        Decision::Throttled(route, _) => {
            record.because(Reason::TooManyAttempts, None);
            ("challenge", Some(route))
        }
        Decision::Unavailable(route) => {
            record.because(Reason::StoreDown, None);
            ("error", Some(route))
        }
        // Neither is ever let pass.
        Decision::Permit(_) | Decision::NotFound { .. } | Decision::Malformed(_) => return,
    };
    record.observed = Some(decision);
    if let Decision::Challenge(Challenge { want: Want::Token(Bad::Credentials { user, reason }), .. }) = instead {
        let (user, client) = (user.as_ref(), record.client);
        audit::Event::SignInFailed { user, client, method: "basic", reason }.log(record);
    }
    let who = match instead {
        Decision::Deny(denial) => denial.identity.as_ref().map(|identity| identity.profile.user.as_str()),
        _ => None,
    };
    let (user, client, reason) = (who.or(record.user()), record.client, &*record.reason);
    let route = route.map(|route| &*route.name);
    audit::Event::WouldDeny { user, client, route, reason, instead: decision }.log(record);
}

/// Notes what a challenge is made for.
fn wanted(record: &mut Record, challenge: &Challenge) {
    let (reason, detail) = match &challenge.want {
        Want::Credential => (Reason::NotAuthenticated, None),
        Want::Token(Bad::Expired) => (Reason::TokenExpired, None),
        Want::Token(Bad::OtherIssuer) => (Reason::IssuerElsewhere, None),
        Want::Token(Bad::Invalid(why)) => (Reason::BadCredential, Some(why.clone())),
        Want::Token(Bad::Credentials { reason, .. }) => (Reason::BadCredential, Some(Cow::Borrowed(*reason))),
        Want::StepUp => (Reason::StepUp, None),
    };
    record.because(reason, challenge.reading);
    if let Some(detail) = detail {
        record.reason = detail;
    }
}

/// 303 to the sign-in page, or 401.
fn challenge(asker: &Asker<'_>, record: &mut Record, challenge: &Challenge) -> Response<Body> {
    record.decision = "challenge";
    wanted(record, challenge);
    match &challenge.want {
        Want::Token(Bad::Invalid(_) | Bad::OtherIssuer) => {
            let (client, route) = (record.client, Some(&*challenge.route.name));
            audit::Event::BadCredential { client, route, reason: &record.reason }.log(record);
        }
        Want::Token(Bad::Credentials { user, reason }) => {
            let (user, client) = (user.as_ref(), record.client);
            audit::Event::SignInFailed { user, client, method: "basic", reason }.log(record);
        }
        Want::Credential | Want::StepUp | Want::Token(Bad::Expired) => {}
    }
    let again = matches!(challenge.want, Want::StepUp);
    if redirects(asker, challenge) {
        let mut answer = asker.see_other(&asker.login_path(again));
        if challenge.clears_cookie {
            asker.clear_cookie(answer.headers_mut());
        }
        return answer;
    }
    let (detail, header) = match &challenge.want {
        Want::Credential => ("Not authenticated", answer::CHALLENGE),
        Want::Token(bad) => answer::token_challenge(bad),
        Want::StepUp => ("A newer or stronger sign-in is needed", answer::STEP_UP),
    };
    let problem = Problem {
        detail,
        challenge: Some(header),
        takes_basic: challenge.takes_basic,
        offers_sign_in: !matches!(challenge.want, Want::Token(_)) || asker.is_page_load(),
        signed_in: challenge.identity.as_ref().map(|identity| identity.profile.user.as_str()),
        clears_cookie: challenge.clears_cookie,
        ..Problem::default()
    };
    asker.problem(StatusCode::UNAUTHORIZED, &problem)
}

/// Whether the client is sent to the sign-in page.
fn redirects(asker: &Asker<'_>, challenge: &Challenge) -> bool {
    let could_help = challenge.route.accept.cookie && challenge.by_password && asker.can_come_back();
    could_help
        && match challenge.route.unauthenticated {
            Unauthenticated::Auto => asker.is_page_load(),
            Unauthenticated::Login => true,
            Unauthenticated::Refuse => false,
        }
}

/// 403: the rules say no.
fn denial(asker: &Asker<'_>, record: &mut Record, denial: &Denial) -> Response<Body> {
    record.decision = "deny";
    record.because(denial.why, denial.reading);
    let user = denial.identity.as_ref().map(|identity| identity.profile.user.as_str());
    let (client, route) = (record.client, Some(&*denial.route.name));
    let (detail, event) = match denial.why {
        Reason::CrossSite => {
            let path = record.page.path();
            ("The request was sent by another site", audit::Event::CrossSite { client, path, user })
        }
        _ => {
            let reason = &*record.reason;
            ("Not allowed", audit::Event::Denied { user, client, route, reason })
        }
    };
    event.log(record);
    let problem = Problem {
        detail,
        signed_in: user,
        offers_sign_in: user.is_some() && asker.is_page_load(),
        clears_cookie: denial.clears_cookie,
        ..Problem::default()
    };
    asker.problem(StatusCode::FORBIDDEN, &problem)
}

/// What an error says, and each that lies beneath it where that says something else.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}

/// 502, 503, 504 and what a client's own body came to.
pub(super) fn rejection(asker: &Asker<'_>, record: &mut Record, rejection: &Rejection) -> Response<Body> {
    record.code = rejection.reason.name();
    record.reason = record.code.into();
    record.fault = Some(rejection.blame);
    tell(asker.state, record, rejection);
    let detail = rejection.status.canonical_reason().unwrap_or("Error");
    let retry_after = rejection.retry_after.map(|wait| wait.as_secs().max(1));
    let challenge = (rejection.status == StatusCode::UNAUTHORIZED).then_some(answer::CHALLENGE);
    let problem = Problem { detail, retry_after, challenge, closes: rejection.close, ..Problem::default() };
    asker.problem(rejection.status, &problem)
}

/// Says why, once a second for each cause: while an application is down, every request would say the same.
fn tell(state: &State, record: &Record, rejection: &Rejection) {
    let source = rejection.source.as_deref().map(|source| causes(source));
    let digits = record.request_id.digits();
    let (request_id, upstream) = (&*digits, record.upstream.as_deref());
    let kept_back = (rejection.blame != Blame::Client).then(|| {
        let (upstream, source) = (upstream.unwrap_or_default(), source.as_deref().unwrap_or_default());
        let cause = format!("{upstream} {} {source}", rejection.reason.name());
        state.shared.seldom.may_tell(&cause, state.shared.clock.now())
    });
    match (kept_back.flatten(), rejection.blame) {
        (Some(kept_back), Blame::Upstream) => {
            tracing::warn!(request_id, upstream, source, kept_back, "{rejection}");
        }
        (Some(kept_back), Blame::Gateway) => {
            tracing::error!(request_id, upstream, source, kept_back, "{rejection}");
        }
        (Some(_) | None, _) => tracing::debug!(request_id, upstream, source, "{rejection}"),
    }
}

/// The code of an ordinary answer where only a WebSocket would do.
const NO_SOCKET: &str = "no-websocket";

/// The code of a body whose end is in doubt.
const FRAMING: &str = "framing";

/// What goes on, when the rules let it.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// When a credential that could not be judged may be shown again, in seconds.
const RETRY_SECONDS: u64 = 2;
