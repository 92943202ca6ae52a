//! The beginning and the end of every request: the record that is kept of it, and its one access line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Bad, Permit, SetAside};
use crate::endpoint::{Answered, grpc};
use crate::message::body::{Body, End, Watcher};
use crate::message::connection::{ConnInfo, Link};
use crate::message::loan::drain_after;
use crate::message::survey::Fields;
use crate::metrics::Outcome;
use crate::observe::access::AccessLog;
use crate::observe::trace::{Finished, Parent, Tracer};
use crate::observe::{Ending, Record, audit, blank};
use crate::proxy::{Observed, expects_continue};
use crate::state::State;

use super::Worker;

/// Notes what the head of a request that has just come says of itself.
pub(super) fn begin(state: &State, (request, fields): (&Request<Incoming>, Fields), record: &mut Record) {
    record.method = request.method().clone();
    // Also where no access line is written: audit events say it too.
    let parent = fields.may_have(Fields::TRACEPARENT).then(|| Parent::read(request.headers())).flatten();
    let tracer = state.tracer.as_ref();
    record.recording = tracer.and_then(|tracer| tracer.begin(parent, &state.shared.random)).map(Box::new);
    let own = record.recording.as_ref().map(|recording| recording.trace());
    record.trace = own.or(parent.map(|parent| parent.trace));
}

/// The answer as it goes out, noted in the record of its request.
pub(super) fn finish(
    state: &State,
    answered: Answered,
    record: &mut Record,
    observed: &Arc<Observed>,
    link: &Link,
) -> Response<Body> {
    let Answered { mut response, unread } = answered;
    if let Some(request) = unread {
        let (head, body) = request.into_parts();
        if drain_after(body, expects_continue(&head.headers)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    record.status = grpc::status_of(&response);
    (record.server, record.tries) = (observed.server(), observed.tries());
    let now = Instant::now();
    link.is_now(now.into());
    count(state, record, observed, now);
    state.shared.recent.keep(record);
    response
}

/// Counts a request at `now`, when the head of its answer is there, or when it is clear that there will be none.
pub(super) fn count(state: &State, record: &Record, observed: &Observed, now: Instant) {
    let counts = record.route_index.and_then(|index| state.route_counts.get(index));
    let counts = counts.unwrap_or(&state.shared.metrics.no_route);
    let own = now.saturating_duration_since(record.started).saturating_sub(observed.away());
    counts.count(record.outcome(), record.status.as_u16(), own, observed.upstream_time());
}

/// Tells the auditor of a password that was judged for this very request: one by Basic that was not remembered, or a wrong
/// one where everyone may go.
pub(super) fn note_sign_in(permit: &Permit, record: &Record) {
    let (client, method) = (permit.head().client.0, "basic");
    if let Some(user) = permit.signs_in() {
        audit::Event::SignedIn { user, client, method, session: "" }.log(record);
    }
    match permit.set_aside() {
        Some(SetAside::Refused(Bad::Credentials { user, reason })) => {
            audit::Event::SignInFailed { user: user.as_ref(), client, method, reason }.log(record);
        }
        Some(SetAside::Throttled(wait)) => {
            audit::Event::SignInThrottled { client, method, seconds: wait.seconds() }.log(record);
        }
        Some(SetAside::Refused(Bad::Expired | Bad::Invalid(_) | Bad::OtherIssuer)) | None => {}
    }
}

/// Writes the access line of a head that the parser refused, and answered itself.
pub fn unreadable(worker: &Worker, info: &ConnInfo, error: &hyper::Error) {
    let State { shared, access_log, .. } = &*worker.state;
    let status =
        if error.is_parse_too_large() { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST };
    shared.metrics.no_route.count(Outcome::BadRequest, status.as_u16(), Duration::ZERO, None);
    let (id, now) = (shared.request_ids.next(), (shared.clock.now(), Instant::now()));
    let mut record = blank(id, info.peer.ip().to_canonical(), now);
    record.decision = "bad-request";
    record.code = UNREADABLE;
    record.reason = error.to_string().into();
    record.status = status;
    shared.recent.keep(&record);
    access_log.write(&record, &Ending::of(&record));
}

/// The code of a head that the parser refused.
const UNREADABLE: &str = "unreadable";

/// An access line, or spans, that wait for the end of the answer: its last byte is out, or it is cut.
pub(super) struct Line {
    pub(super) record: Record,
    pub(super) log: AccessLog,
    pub(super) tracer: Option<Tracer>,
    pub(super) observed: Arc<Observed>,
}

impl Watcher for Line {
    fn ended(&self, end: End, sent: u64) {
        let record = &self.record;
        let ending = Ending {
            bytes_in: self.observed.bytes_in(),
            bytes_out: sent,
            duration: record.started.elapsed(),
            upstream_time: self.observed.upstream_time(),
            // Nobody asks for the body of an answer to HEAD.
            is_cut: end == End::Cut && record.method != Method::HEAD,
        };
        self.log.write(record, &ending);
        if let Some(tracer) = &self.tracer {
            let Ending { bytes_in, bytes_out, duration, upstream_time, is_cut } = ending;
            let mut record = Record { bytes_in, bytes_out, duration, upstream_time, ..Record::clone(record) };
            if is_cut {
                record.reason.to_mut().push_str(", cut");
            }
            let left = self.observed.left().map(|left| left.saturating_duration_since(record.started));
            let away = left.map(|left| (left, self.observed.away()));
            tracer.export(Finished { record, away, is_cut });
        }
    }
}
