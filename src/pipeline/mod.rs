//! The whole path of a request, on one screen.

mod answer;
mod cors;
mod decide;
mod finish;
mod forward_auth;
mod limit;
mod normalize;
mod open;
mod refuse;
mod secure;

pub use finish::unreadable;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::{Body as _, Incoming};

use crate::access::{Permit, Preflight};
use crate::endpoint::answer::{Asker, Manner};
use crate::endpoint::{self, Answered, Call, Endpoint};
use crate::message::body::Body;
use crate::message::connection::{ConnInfo, Link};
use crate::message::extended::Extended;
use crate::message::survey::Fields;
use crate::observe::{Page, Record, Unbelieved};
use crate::proxy::{Forwarder, Observed, Surroundings};
use crate::state::State;
use normalize::Normal;
use open::Open;

/// What one worker thread has: the state in force and its own connections to upstreams.
#[derive(Debug)]
pub struct Worker {
    /// The state in force.
    pub state: Arc<State>,
    /// The way to the upstreams.
    pub forwarder: Forwarder,
}

/// Answers a request, whatever it is. Errors are answers too.
///
/// What every step hands on is small, since each has a place for it in the future of every request.
pub async fn handle(worker: &Worker, info: &ConnInfo, request: Box<Request<Incoming>>, link: &Link) -> Response<Body> {
    let state = &*worker.state;
    let (now, started) = (state.shared.clock.now(), Instant::now());
    let observed = Arc::new(Observed::default());
    let mut record = Open::new(state, info, (now, started), Arc::clone(&observed));
    let fields = Fields::of(request.headers());
    finish::begin(state, (&request, fields), &mut record);
    if fields.may_have(Unbelieved::SAYING) {
        state.shared.unbelieved.note(&state.trust, info.peer.ip(), request.headers());
    }
    let mut came_over_tls = info.tls.is_some();
    let extended = Extended::marks(request.extensions()).then(|| Manner::of(request.headers()));
    let mut answered = match &normalize::normalize((&request, fields), info, link, &state.trust, (now, started)) {
        Err(malformed) => {
            record.page = Page::Written { host: String::new(), path: request.uri().path().to_owned() };
            let request_id = record.request_id;
            let manner = Manner::of(request.headers());
            let asker = Asker { state, head: None, manner, request_id };
            let response = refuse::malformed(&asker, &mut record, malformed);
            Answered { response, unread: Some(request) }
        }
        Ok(normal) => {
            record.client = normal.head.client.0;
            record.page = Page::of(&normal.head, request.uri().path());
            came_over_tls = normal.head.https;
            if info.redirects {
                record.decision = "own";
                let answered =
                    Answered { response: secure::redirect(&state.config, &normal.head), unread: Some(request) };
                return record.finish(answered, link);
            }
            match endpoint::find(&state.config, normal.head.host.name(), normal.head.path.canonical()) {
                // Those seldom asked for have places of their own, as theirs would be part of every request's.
                Some(Endpoint::Check) => Box::pin(forward_auth::answer(state, request, normal, &mut record)).await,
                Some(endpoint) => {
                    let call = Call { state, head: &normal.head, request, record: &mut record };
                    Box::pin(endpoint::serve(endpoint, call)).await
                }
                None => judge(worker, request, normal, &mut record, &observed).await,
            }
        }
    };
    if let Some(manner) = extended.filter(|_| answered.response.status().is_success()) {
        let request_id = record.request_id;
        let asker = Asker { state, head: None, manner, request_id };
        answered.response = refuse::no_socket(&asker, &mut record);
    }
    if let Some(time) = state.config.server.hsts.filter(|_| came_over_tls) {
        secure::hold_to_https(answered.response.headers_mut(), time);
    }
    record.finish(answered, link)
}

/// What is not the gateway's own: a preflight, or a request that is decided about. Either answer says who may read it.
async fn judge(
    worker: &Worker,
    request: Box<Request<Incoming>>,
    normal: &Normal,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    let origin = cors::origin(request.headers(), normal.fields);
    // Over HTTP/2 no field tells of a body. There are few, which have places of their own.
    let preflight = request
        .body()
        .is_end_stream()
        .then(|| state.access.preflight(&normal.head, request.headers(), &state.shared.current).map(Box::new));
    let mut answered = match preflight.flatten() {
        None => decide(worker, request, normal, record, observed).await,
        Some(preflight) => Box::pin(ahead(worker, *preflight, (request, normal), record, observed)).await,
    };
    cors::announce(state, &normal.head, record, origin.as_ref(), answered.response.headers_mut());
    answered
}

/// What comes of a true preflight.
async fn ahead(
    worker: &Worker,
    preflight: Preflight,
    (request, normal): (Box<Request<Incoming>>, &Normal),
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let request_id = record.request_id;
    let manner = Manner::of_call(&request, normal.fields);
    let asker = Asker { state: &worker.state, head: Some(&normal.head), manner, request_id };
    match preflight {
        Preflight::Onward(permit) => permitted(worker, &permit, (request, normal), &asker, record, observed).await,
        Preflight::Answer(route) => Answered { response: cors::answer(&asker, record, &route), unread: Some(request) },
        Preflight::Refuse(route) => Answered { response: cors::refuse(&asker, record, &route), unread: Some(request) },
    }
}

/// A request is decided about, and goes on with a permit only.
async fn decide(
    worker: &Worker,
    request: Box<Request<Incoming>>,
    normal: &Normal,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    let decision = decide::ask(state, &normal.head, request.headers(), record).await;
    let request_id = record.request_id;
    let manner = Manner::of_call(&request, normal.fields);
    let asker = Asker { state, head: Some(&normal.head), manner, request_id };
    let permit = match refuse::unless_permitted(&asker, record, decision) {
        ControlFlow::Continue(permit) => permit,
        ControlFlow::Break(response) => return Answered { response, unread: Some(request) },
    };
    permitted(worker, &permit, (request, normal), &asker, record, observed).await
}

/// What may pass goes on, or is answered by its route.
async fn permitted(
    worker: &Worker,
    permit: &Permit,
    (request, normal): (Box<Request<Incoming>>, &Normal),
    asker: &Asker<'_>,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    decide::note_permit(state, permit, record);
    let counted = limit::count(state, permit);
    if let Some(counted) = counted.as_ref().filter(|counted| !counted.may_come()) {
        if !permit.route().observe {
            return Answered { response: counted.refuse(asker, record), unread: Some(request) };
        }
        counted.note(record);
    }
    // No answer that is there already has a place where one is waited for.
    let mut answered = if let Some(own) = answer::own(asker, permit, &normal.head).map(Box::new) {
        Answered { response: *own, unread: Some(request) }
    } else {
        let recording = record.recording.clone();
        let surroundings = Surroundings {
            guarded: &state.config.guarded,
            our_cookies: &[state.cookie.name()],
            trust: &state.trust,
            origin: &normal.origin,
            body_bytes: state.config.server.limits.body_bytes,
            assertions: state.keys.assertions(),
            upstream_names: &state.upstream_names,
            recording: recording.as_deref(),
            random: &state.shared.random,
        };
        let forwarded = worker.forwarder.forward(permit, &surroundings, request, observed).await;
        let response = forwarded.unwrap_or_else(|rejection| refuse::rejection(asker, record, &rejection));
        Answered { response, unread: None }
    };
    let headers = answered.response.headers_mut();
    if permit.clears_cookie() {
        asker.clear_cookie(headers);
    }
    if let Some(counted) = counted {
        counted.announce(headers);
    }
    answered
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    /// Every request in progress has a place of this size, part of which is written when it comes, and moved as it goes on.
    #[test]
    fn what_a_request_in_progress_needs_stays_small() {
        fn size<F: Future>(
            _: impl FnOnce(&'static Worker, &'static ConnInfo, Box<Request<Incoming>>, &'static Link) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size(handle);
        assert!(size < 3584, "{size}");
    }
}
