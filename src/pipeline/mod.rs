//! The whole path of a request, on one screen.

mod answer;
mod cors;
mod finish;
mod limit;
mod normalize;
mod refuse;
mod secure;

pub use finish::unreadable;

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::access::{Decision, Judged, Permit, Preflight, Reason};
use crate::endpoint::answer::{Asker, Manner};
use crate::endpoint::{self, Answered, Call};
use crate::message::body::Body;
use crate::message::connection::{ConnInfo, Link};
use crate::observe::Record;
use crate::proxy::{Forwarder, Observed, Surroundings};
use crate::state::State;
use normalize::Normal;

/// What one worker thread has: the state in force and its own connections to upstreams.
#[derive(Debug)]
pub struct Worker {
    /// The state in force.
    pub state: Arc<State>,
    /// The way to the upstreams.
    pub forwarder: Forwarder,
}

/// Answers a request, whatever it is. Errors are answers too.
pub async fn handle(worker: &Worker, info: &ConnInfo, request: Request<Incoming>, link: &Link) -> Response<Body> {
    let state = &*worker.state;
    let (now, started) = (state.shared.clock.now(), Instant::now());
    let mut record = finish::begin(state, info, &request, (now, started));
    state.shared.unbelieved.note(&state.trust, info.peer.ip(), request.headers());
    let observed = Arc::new(Observed::default());
    let mut came_over_tls = info.tls.is_some();
    let mut answered = match normalize::normalize(&request, info, link, &state.trust, (now, started)) {
        Err(malformed) => {
            let request_id = Arc::clone(&record.request_id);
            let asker = Asker { state, head: None, manner: Manner::of(request.headers()), request_id: &request_id };
            let response = refuse::malformed(&asker, &mut record, &malformed);
            Answered { response, unread: Some(request) }
        }
        Ok(normal) => {
            record.client = normal.head.client.0;
            record.host = normal.head.host.name().to_owned();
            came_over_tls = normal.head.https;
            if info.redirects {
                record.decision = "own";
                let answered =
                    Answered { response: secure::redirect(&state.config, &normal.head), unread: Some(request) };
                return finish::finish(state, answered, record, observed);
            }
            match endpoint::find(&state.config, normal.head.host.name(), normal.head.path.canonical()) {
                Some(endpoint) => {
                    let call = Call { state, head: &normal.head, request, record: &mut record };
                    endpoint::serve(endpoint, call).await
                }
                None => judge(worker, request, &normal, &mut record, &observed).await,
            }
        }
    };
    if let Some(time) = state.config.server.hsts.filter(|_| came_over_tls) {
        secure::hold_to_https(answered.response.headers_mut(), time);
    }
    finish::finish(state, answered, record, observed)
}

/// What is not the gateway's own: a preflight, or a request that is decided about. Either answer says who may read it.
async fn judge(
    worker: &Worker,
    request: Request<Incoming>,
    normal: &Normal,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    let origin = cors::origin(request.headers());
    let mut answered = match state.access.preflight(&normal.head, request.headers(), &state.shared.current) {
        None => decide(worker, request, normal, record, observed).await,
        Some(preflight) => {
            let request_id = Arc::clone(&record.request_id);
            let manner = Manner::of(request.headers());
            let asker = Asker { state, head: Some(&normal.head), manner, request_id: &request_id };
            match preflight {
                Preflight::Onward(permit) => {
                    permitted(worker, permit, (request, normal), &asker, record, observed).await
                }
                Preflight::Answer(route) => {
                    Answered { response: cors::answer(&asker, record, &route), unread: Some(request) }
                }
                Preflight::Refuse(route) => {
                    Answered { response: cors::refuse(&asker, record, &route), unread: Some(request) }
                }
            }
        }
    };
    cors::announce(state, &normal.head, record, origin.as_ref(), answered.response.headers_mut());
    answered
}

/// A request is decided about, and goes on with a permit only.
async fn decide(
    worker: &Worker,
    request: Request<Incoming>,
    normal: &Normal,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    let judged = state.access.check(&normal.head, request.headers(), &state.shared.current).await;
    let Judged { decision, asker } = judged;
    record.asker = asker;
    let request_id = Arc::clone(&record.request_id);
    let asker =
        Asker { state, head: Some(&normal.head), manner: Manner::of(request.headers()), request_id: &request_id };
    let identity = match &decision {
        Decision::Permit(permit) => permit.identity(),
        Decision::Challenge(challenge) => challenge.identity.as_ref(),
        Decision::Deny(denial) => denial.identity.as_ref(),
        Decision::NotFound { .. } | Decision::Malformed(_) | Decision::Throttled(..) | Decision::Unavailable(_) => None,
    };
    if let Some(identity) = identity {
        record.user = Some(identity.profile.user.clone());
        state.note_return(identity, &normal.head, request.headers());
    }
    let response = match decision {
        Decision::Permit(permit) => {
            return permitted(worker, permit, (request, normal), &asker, record, observed).await;
        }
        Decision::Challenge(challenge) => {
            record.decided_by(&challenge.route);
            refuse::challenge(&asker, record, &challenge)
        }
        Decision::Deny(denial) => {
            record.decided_by(&denial.route);
            refuse::denial(&asker, record, &denial)
        }
        Decision::NotFound { reading } => {
            record.because(Reason::NoRoute, reading);
            refuse::not_found(&asker, record)
        }
        Decision::Malformed(why) => refuse::twofold(&asker, record, why),
        Decision::Throttled(route, wait) => {
            record.decided_by(&route);
            refuse::throttled(&asker, record, wait)
        }
        Decision::Unavailable(route) => {
            record.decided_by(&route);
            refuse::unavailable(&asker, record)
        }
    };
    Answered { response, unread: Some(request) }
}

/// What may pass goes on, or is answered by its route.
async fn permitted(
    worker: &Worker,
    permit: Permit,
    (request, normal): (Request<Incoming>, &Normal),
    asker: &Asker<'_>,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    let route = Arc::clone(permit.route());
    record.decision = "permit";
    record.decided_by(&route);
    let reason = match permit.identity() {
        _ if permit.is_preflight() => Reason::Preflight,
        Some(_) => Reason::SignedIn,
        None => Reason::Public,
    };
    record.because(reason, None);
    record.upstream = route.to.upstream().and_then(|upstream| state.upstream_names.get(upstream)).cloned();
    if let Some(instead) = permit.instead() {
        refuse::observed(record, instead);
    }
    finish::note_sign_in(&permit, &record.request_id);
    let counted = limit::count(state, &permit);
    if let Some(counted) = counted.as_ref().filter(|counted| !counted.may_come()) {
        if !route.observe {
            return Answered { response: counted.refuse(asker, record), unread: Some(request) };
        }
        counted.note(record);
    }
    let clears_cookie = permit.clears_cookie();
    let (mut response, unread) = match answer::own(asker, &route, &normal.head) {
        Some(own) => (own, Some(request)),
        None => {
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
            };
            let forwarded = worker.forwarder.forward(permit, &surroundings, request, observed).await;
            (forwarded.unwrap_or_else(|rejection| refuse::rejection(asker, record, &rejection)), None)
        }
    };
    if clears_cookie {
        asker.clear_cookie(response.headers_mut());
    }
    if let Some(counted) = counted {
        counted.announce(response.headers_mut());
    }
    Answered { response, unread }
}
