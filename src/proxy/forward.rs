//! One request to its upstream and the answer back.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::attempts::{Answered, Attempts};
use super::retry::Allowance;
use super::rewrite::{self, RewriteFacts};
use super::upgrade::{self, Switch, Tunnels};
use crate::access::Lease;
use crate::config::{Identity, Retries, Timeouts};
use crate::identity::Profile;
use crate::message::body::Body;
use crate::message::connection::Stop;
use crate::message::loan::Loan;
use crate::message::rejection::{Blame, Reason, Rejection};
use crate::message::survey::{Fields, Survey};
use crate::message::tether::Tether;
use crate::message::timer::Timers;
use crate::secret::Random;
use crate::upstream::{Admission, Backend, Caller, Came, Pool, Reply, Turn, Upstream};

/// What goes on, where to, and for how long.
#[derive(Debug)]
pub(super) struct Onward<'a> {
    /// The upstream's place in the configuration.
    pub(super) upstream: usize,
    /// Path and query as the application is to see them.
    pub(super) target: PathAndQuery,
    /// How the heads are rewritten.
    pub(super) facts: RewriteFacts<'a>,
    /// Who is there, and the names by which the application is told; the rest of it is in `facts`.
    pub(super) profile: Option<(&'a Profile, &'a Identity)>,
    /// Whether a WebSocket may be asked for.
    pub(super) websockets: bool,
    /// Bytes that the body may have.
    pub(super) body_bytes: Option<u64>,
    /// How long the upstream may take, as the route says it.
    pub(super) timeouts: &'a Timeouts,
    /// What is tried again beyond what always is.
    pub(super) retries: Option<&'a Retries>,
    /// Who asks, where that decides about the server.
    pub(super) caller: Caller<'a>,
    /// What allows streams to go on.
    pub(super) lease: &'a Lease,
    /// What keys of handshakes are made from.
    pub(super) random: &'a Random,
}

/// A worker's way to the upstreams of one configuration.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<Arc<Upstream>>,
    body_timeout: Duration,
    tunnels: Arc<Tunnels>,
    stop: watch::Receiver<Stop>,
    timers: Timers,
}

/// What is learned of a request while it is forwarded, for the access log.
#[derive(Debug, Default)]
pub struct Observed {
    head_micros: AtomicU64,
    away_micros: AtomicU64,
    left: OnceLock<Instant>,
    loan: OnceLock<Arc<Loan>>,
    pool: OnceLock<Arc<Pool>>,
    server: AtomicUsize,
    tries: AtomicU32,
}

impl Observed {
    /// From the request sent to the head of the answer; `None`: there was no answer.
    pub fn upstream_time(&self) -> Option<Duration> {
        let micros = self.head_micros.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// When the request was ready to leave; `None`: it never was.
    pub fn left(&self) -> Option<std::time::Instant> {
        self.left.get().map(|left| left.into_std())
    }

    /// How long the gateway waited for the upstream, answered or not: for the turn of the request, then for the head.
    pub fn away(&self) -> Duration {
        Duration::from_micros(self.away_micros.load(Relaxed))
    }

    /// Bytes of the request's body that came.
    pub fn bytes_in(&self) -> u64 {
        self.loan.get().map_or(0, |loan| loan.received())
    }

    /// The server that was asked last.
    pub fn server(&self) -> Option<Arc<str>> {
        let backend = self.pool.get()?.backend(self.server.load(Relaxed))?;
        Some(Arc::clone(backend.label()))
    }

    /// How often the request was sent, or would have been had a connection come about.
    pub fn tries(&self) -> u32 {
        self.tries.load(Relaxed)
    }

    pub(super) fn asks(&self, pool: &Arc<Pool>, at: usize) {
        self.pool.get_or_init(|| Arc::clone(pool));
        self.server.store(at, Relaxed);
        self.tries.fetch_add(1, Relaxed);
    }

    fn leaves(&self) -> Instant {
        *self.left.get_or_init(Instant::now)
    }

    fn comes_back(&self, away: Duration) {
        self.away_micros.store(micros(away), Relaxed);
    }

    fn answered(&self, after: Duration) {
        self.head_micros.store(micros(after).max(1), Relaxed);
    }
}

impl Forwarder {
    /// A forwarder to `upstreams`, in the order of the configuration.
    pub fn new(
        upstreams: Vec<Arc<Upstream>>,
        body_timeout: Duration,
        tunnels: Arc<Tunnels>,
        stop: watch::Receiver<Stop>,
    ) -> Self {
        Self { upstreams, body_timeout, tunnels, stop, timers: Timers::default() }
    }

    /// Its upstreams.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// Sends `request` where `onward` says, and gives the answer back once its head is there.
    ///
    /// # Errors
    /// A [`Rejection`] when there is no answer, or none that can be passed on.
    pub(super) async fn send_on(
        &self,
        onward: &Onward<'_>,
        request: Box<Request<Incoming>>,
        observed: &Observed,
    ) -> Result<Response<Body>, Rejection> {
        let upstream = self.upstreams.get(onward.upstream).ok_or_else(internal)?;
        let mut attempts = self.prepare(upstream, onward, request, observed)?;
        let answered = attempts.run().await;
        let answer = self.conclude(onward, attempts, answered);
        if let Err(rejection) = &answer
            && rejection.blame == Blame::Upstream
        {
            upstream.pool().counts().errors.count(rejection.reason.name());
        }
        answer
    }

    /// The request as the upstream is to see it.
    fn prepare<'a>(
        &'a self,
        upstream: &'a Upstream,
        onward: &Onward<'a>,
        mut request: Box<Request<Incoming>>,
        observed: &'a Observed,
    ) -> Result<Attempts<'a>, Rejection> {
        let survey = Survey::of(request.headers());
        let mut switch = None;
        if survey.fields.may_have(Fields::UPGRADE) {
            if !onward.websockets {
                // Without the field it is an ordinary request, which the application may still answer.
                request.headers_mut().remove(UPGRADE);
            } else if request.body().is_end_stream() {
                switch = Switch::of(&mut request, onward.random);
            }
        }
        let (head, body) = request.into_parts();
        let hint = body.size_hint();
        if onward.body_bytes.is_some_and(|limit| hint.lower() > limit) {
            return Err(Rejection::new(Reason::BodyTooLarge));
        }
        let expects_continue = survey.fields.may_have(Fields::EXPECT) && expects_continue(&head.headers);
        let loan = (!body.is_end_stream()).then(|| {
            let tether = Arc::new(Upload(onward.lease.clone()));
            Loan::new(body, onward.body_bytes, self.body_timeout, Some(tether), onward.facts.guarded)
        });
        if let Some(loan) = &loan {
            // A request is forwarded once, so that nothing is observed yet.
            let _ = observed.loan.set(loan.clone());
        }
        let mut headers = head.headers;
        let key = upstream.pool().key(&headers, onward.caller);
        let added = rewrite::noted_request(&mut headers, &survey, &onward.facts, onward.profile, hint.exact());
        if let Some(switch) = &switch {
            switch.ask(&mut headers);
        } else if hint.exact().is_none() {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let left = observed.leaves();
        let allowance = Allowance::new(&head.method, loan.is_none() && switch.is_none(), onward.retries)
            .for_http2(upstream.pool().may_speak_http2());
        Ok(Attempts {
            upstream,
            timeouts: onward.timeouts,
            left,
            sent: left,
            deadline: onward.timeouts.total.map(|total| left + total),
            method: head.method,
            target: onward.target.clone(),
            headers,
            added,
            loan,
            expects_continue,
            switch,
            key,
            allowance,
            observed,
            timers: &self.timers,
        })
    }

    /// What came of it, as the client is to see it.
    fn conclude(
        &self,
        onward: &Onward<'_>,
        attempts: Attempts<'_>,
        answered: Result<Answered, Rejection>,
    ) -> Result<Response<Body>, Rejection> {
        let Attempts { upstream, left, sent, deadline, switch, observed, .. } = attempts;
        let back = answered.as_ref().map_or_else(|_| Instant::now(), |answered| answered.reply.back);
        observed.comes_back(back - left);
        let Answered { reply, turn: Turn { at, admission, .. } } = answered?;
        observed.answered(back - sent);
        let backend = upstream.pool().backend(at).ok_or_else(internal)?;
        let hold = Hold { lease: onward.lease.clone(), deadline, _admission: admission };
        Ok(self.pass_back(reply, switch, backend, &onward.facts, onward.timeouts.between, hold))
    }

    fn pass_back(
        &self,
        reply: Reply,
        switch: Option<Switch>,
        backend: &Backend,
        facts: &RewriteFacts<'_>,
        between: Option<Duration>,
        hold: Hold,
    ) -> Response<Body> {
        let Reply { head: mut answer, fields, came, .. } = reply;
        let status = answer.status();
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let far_side = switches.then(|| hyper::upgrade::on(&mut answer));
        let (mut head, ()) = answer.into_parts();
        // The client's version is hyper's to know.
        head.version = Version::HTTP_11;
        rewrite::noted_answer((status, fields), &mut head.headers, facts, backend.origin());
        if let (Some(near), Some(far)) = (switch, far_side) {
            upgrade::announce(&mut head.headers);
            let hold = Arc::new(hold);
            upgrade::join(near, far, &self.tunnels, self.stop.clone(), async move { hold.lease.ended().await });
            return Response::from_parts(head, Body::empty());
        }
        let body = match came {
            Came::Whole(body) => Body::full(body),
            Came::Coming(source) if source.is_end_stream() => Body::empty(),
            Came::Coming(source) => Body::from_upstream(source, between, Some(Arc::new(hold)), facts.guarded),
        };
        Response::from_parts(head, body)
    }
}

/// What an answer holds on to while it streams.
struct Hold {
    lease: Lease,
    /// When all of it must be over.
    deadline: Option<Instant>,
    _admission: Admission,
}

impl Tether for Hold {
    fn cut(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let ended = end_of_stream(&self.lease);
            match self.deadline {
                Some(deadline) => drop(timeout_at(deadline, ended).await),
                None => ended.await,
            }
        })
    }
}

/// What a request's body is held by.
struct Upload(Lease);

impl Tether for Upload {
    fn cut(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { end_of_stream(&self.0).await })
    }
}

/// A body that is done within a second is no stream.
async fn end_of_stream(lease: &Lease) {
    tokio::time::sleep(STREAM_AFTER).await;
    lease.ended().await;
}

/// Whether the client waits for leave to send its body (RFC 9110, section 10.1.1).
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn internal() -> Rejection {
    Rejection::new(Reason::Internal)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// How old a body is before it counts as a stream.
const STREAM_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_an_upstream_has_a_counter() {
        let all = [
            Reason::Connect,
            Reason::Tls,
            Reason::ConnectTimeout,
            Reason::TooManyPending,
            Reason::Unhealthy,
            Reason::Reset,
            Reason::BadAnswer,
            Reason::ResponseTimeout,
            Reason::BodyTooLarge,
            Reason::BodyStalled,
            Reason::BodyBroken,
            Reason::NoDescriptors,
            Reason::Internal,
        ];
        let theirs = all.map(Rejection::new).into_iter().filter(|rejection| rejection.blame == Blame::Upstream);
        let theirs: Vec<_> = theirs.map(|rejection| rejection.reason.name()).collect();
        let counts = crate::metrics::Upstream::default();
        let counted: Vec<_> = counts.errors.values().map(|(reason, _)| reason).collect();
        assert_eq!(theirs, counted);
    }
}
