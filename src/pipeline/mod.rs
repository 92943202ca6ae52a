//! The whole path of a request, on one screen.

mod decide;
mod finish;
mod forward_auth;
mod normalize;
mod refuse;

pub use finish::unreadable;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::endpoint::answer::{Asker, Manner};
use crate::endpoint::{self, Answered, Call, Endpoint};
use crate::message::body::Body;
use crate::message::connection::{ConnInfo, Link};
use crate::observe::Record;
use crate::proxy::{Forwarder, Observed, Surroundings};
use crate::state::State;
use decide::decide;
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
    let answered = match normalize::normalize(&request, info, link, &state.trust, (now, started)) {
        Err(malformed) => {
            let request_id = Arc::clone(&record.request_id);
            let asker = Asker { state, head: None, manner: Manner::of(request.headers()), request_id: &request_id };
            let response = refuse::malformed(&asker, &mut record, &malformed);
            Answered { response, unread: Some(request) }
        }
        Ok(normal) => {
            record.client = normal.head.client.0;
            record.host = normal.head.host.name().to_owned();
            match endpoint::find(&state.config, normal.head.host.name(), normal.head.path.canonical()) {
                Some(Endpoint::Check) => forward_auth::answer(state, request, &normal, &mut record).await,
                Some(endpoint) => {
                    let call = Call { state, head: &normal.head, request, record: &mut record };
                    endpoint::serve(endpoint, call).await
                }
                None => judge(worker, request, &normal, &mut record, &observed).await,
            }
        }
    };
    finish::finish(state, answered, record, observed)
}

/// What is not the gateway's own is decided about, and goes on with a permit only.
async fn judge(
    worker: &Worker,
    request: Request<Incoming>,
    normal: &Normal,
    record: &mut Record,
    observed: &Arc<Observed>,
) -> Answered {
    let state = &*worker.state;
    let decision = decide(state, &normal.head, request.headers(), record).await;
    let request_id = Arc::clone(&record.request_id);
    let asker =
        Asker { state, head: Some(&normal.head), manner: Manner::of(request.headers()), request_id: &request_id };
    let permit = match refuse::unless_permitted(&asker, record, decision) {
        ControlFlow::Continue(permit) => permit,
        ControlFlow::Break(response) => return Answered { response, unread: Some(request) },
    };
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
    let clears_cookie = permit.clears_cookie();
    let forwarded = worker.forwarder.forward(permit, &surroundings, request, observed).await;
    let mut response = forwarded.unwrap_or_else(|rejection| refuse::rejection(&asker, record, &rejection));
    if clears_cookie {
        asker.clear_cookie(response.headers_mut());
    }
    Answered { response, unread: None }
}
