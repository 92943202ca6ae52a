//! The record of a request that has no answer yet. Its client can leave before there is one, and what was asked of the
//! application by then is no less told of than any other request.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use super::finish::{self, Line};
use crate::clock::Timestamp;
use crate::endpoint::Answered;
use crate::message::body::Body;
use crate::message::connection::{ConnInfo, Link};
use crate::message::rejection::Blame;
use crate::observe::access::AccessLog;
use crate::observe::trace::Finished;
use crate::observe::{Ending, Record, blank};
use crate::proxy::Observed;
use crate::state::State;

/// The record of a request in progress. Dropped before it is finished it says that the client has left.
pub(super) struct Open<'a> {
    state: &'a State,
    /// Of use only where no line is written.
    record: Record,
    /// Has the record in it from the beginning, as it is too large to be handed on to the answer.
    line: Option<Box<Line>>,
    observed: Arc<Observed>,
    is_finished: bool,
}

impl<'a> Open<'a> {
    /// A request that has just come over the connection of `info`, and of which `observed` learns more.
    pub(super) fn new(
        state: &'a State,
        info: &ConnInfo,
        (time, started): (Timestamp, Instant),
        observed: Arc<Observed>,
    ) -> Self {
        let (id, client, log) = (state.shared.request_ids.next(), info.peer.ip().to_canonical(), &state.access_log);
        let line = log.is_on().then(|| {
            let (log, observed) = (log.clone(), Arc::clone(&observed));
            // Made where it stays.
            Box::write(
                Box::new_uninit(),
                Line { record: blank(id, client, (time, started)), log, tracer: None, observed },
            )
        });
        Self { state, record: blank(id, client, (time, started)), line, observed, is_finished: false }
    }

    /// There is an answer, which goes out as it is given.
    pub(super) fn finish(&mut self, answered: Answered, link: &Link) -> Response<Body> {
        self.is_finished = true;
        let (state, observed) = (self.state, &self.observed);
        let record = self.line.as_mut().map_or(&mut self.record, |line| &mut line.record);
        let mut response = finish::finish(state, answered, record, observed, link);
        let tracer = record.recording.as_ref().and_then(|_| state.tracer.clone());
        let line = match self.line.take() {
            Some(mut line) => {
                line.tracer = tracer;
                line
            }
            None if tracer.is_none() => return response,
            None => {
                let (record, log, observed) = (self.record.take(), AccessLog::off(), Arc::clone(observed));
                Box::new(Line { record, log, tracer, observed })
            }
        };
        response.body_mut().watch(line);
        response
    }
}

impl Deref for Open<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.line.as_ref().map_or(&self.record, |line| &line.record)
    }
}

impl DerefMut for Open<'_> {
    fn deref_mut(&mut self) -> &mut Record {
        self.line.as_mut().map_or(&mut self.record, |line| &mut line.record)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let Self { state, record, line, observed, .. } = self;
        let record = line.as_mut().map_or(record, |line| &mut line.record);
        if record.decision != "permit" {
            record.decision = "bad-request";
        }
        record.fault = Some(Blame::Client);
        (record.code, record.reason) = (CLIENT_GONE, "the connection ended before an answer".into());
        record.status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST);
        (record.server, record.tries) = (observed.server(), observed.tries());
        record.bytes_in = observed.bytes_in();
        let now = Instant::now();
        record.duration = now.saturating_duration_since(record.started);
        finish::count(state, record, observed, now);
        state.access_log.write(record, &Ending::of(record));
        state.shared.recent.keep(record);
        if let Some(tracer) = record.recording.as_ref().and(state.tracer.as_ref()) {
            let left = observed.left().map(|left| left.saturating_duration_since(record.started));
            // Until it left the gateway waited for the application.
            let away = left.map(|left| (left, record.duration.saturating_sub(left).max(Duration::from_micros(1))));
            tracer.export(Finished { record: record.take(), away, is_cut: true });
        }
    }
}

/// The code of a request whose client left before an answer.
const CLIENT_GONE: &str = "client_gone";

/// Nobody gets it; access logs know it from nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;
