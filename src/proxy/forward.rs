//! One request to its upstream and the answer back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::watch;
use tokio::time::Instant;

use super::rewrite::{self, RewriteFacts};
use super::upgrade::{self, Tunnels};
use super::{framing, retry};
use crate::access::Lease;
use crate::config::Timeouts;
use crate::message::body::Body;
use crate::message::connection::Stop;
use crate::message::loan::{Loan, drain_after};
use crate::message::rejection::{Blame, Reason, Rejection};
use crate::message::tether::Tether;
use crate::upstream::{Admission, Held, SendError, Upstream};

/// What goes on, where to, and for how long.
#[derive(Debug)]
pub(super) struct Onward<'a> {
    /// The upstream's place in the configuration.
    pub(super) upstream: usize,
    /// Path and query as the application is to see them.
    pub(super) target: PathAndQuery,
    /// How the heads are rewritten.
    pub(super) facts: RewriteFacts<'a>,
    /// Bytes that the body may have.
    pub(super) body_bytes: Option<u64>,
    /// How long the upstream may take, as the route says it.
    pub(super) timeouts: &'a Timeouts,
    /// What allows streams to go on.
    pub(super) lease: Lease,
}

/// A worker's way to the upstreams of one configuration.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Vec<Arc<Upstream>>,
    body_timeout: Duration,
    tunnels: Arc<Tunnels>,
    stop: watch::Receiver<Stop>,
}

/// What is learned of a request while it is forwarded, for the access log.
#[derive(Debug, Default)]
pub struct Observed {
    head_micros: AtomicU64,
    away_micros: AtomicU64,
    left: OnceLock<Instant>,
    loan: OnceLock<Arc<Loan>>,
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
        Self { upstreams, body_timeout, tunnels, stop }
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
        onward: Onward<'_>,
        request: Request<Incoming>,
        observed: &Observed,
    ) -> Result<Response<Body>, Rejection> {
        let upstream = self.upstreams.get(onward.upstream).ok_or_else(internal)?;
        let answer = self.exchange(upstream, onward, request, observed).await;
        if let Err(rejection) = &answer
            && rejection.blame == Blame::Upstream
        {
            upstream.backend().counts().errors.count(rejection.reason.name());
        }
        answer
    }

    async fn exchange(
        &self,
        upstream: &Upstream,
        onward: Onward<'_>,
        mut request: Request<Incoming>,
        observed: &Observed,
    ) -> Result<Response<Body>, Rejection> {
        let uri = upstream.uri(onward.target).map_err(|error| internal().because(error))?;
        let bodiless = request.body().is_end_stream();
        let switch = (bodiless && upgrade::is_wanted(&request)).then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let hint = body.size_hint();
        if onward.body_bytes.is_some_and(|limit| hint.lower() > limit) {
            return Err(Rejection::new(Reason::BodyTooLarge));
        }
        let expects_continue = expects_continue(&head.headers);
        let loan = (!body.is_end_stream()).then(|| {
            let tether = Arc::new(Upload(onward.lease.clone()));
            Loan::new(body, onward.body_bytes, self.body_timeout, Some(tether), onward.facts.guarded)
        });
        if let Some(loan) = &loan {
            // A request is forwarded once, so that nothing is observed yet.
            let _ = observed.loan.set(loan.clone());
        }
        let mut headers = head.headers;
        rewrite::request(&mut headers, &onward.facts, hint.exact());
        if switch.is_some() {
            upgrade::announce(&mut headers);
        } else if hint.exact().is_none() {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let attempts =
            Attempts { timeouts: onward.timeouts, upstream, method: head.method, uri, headers, loan, expects_continue };
        let left = observed.leaves();
        let admission = match upstream.backend().admit().await {
            Ok(admission) => admission,
            Err(_) => {
                observed.comes_back(left.elapsed());
                return Err(attempts.give_up(Rejection::new(Reason::TooManyPending)));
            }
        };
        let started = Instant::now();
        let answer = attempts.run(switch.is_some()).await;
        let back = Instant::now();
        observed.comes_back(back - left);
        let answer = answer?;
        observed.answered(back - started);
        self.pass_back(
            answer,
            switch,
            upstream,
            &onward.facts,
            onward.timeouts.between,
            Hold { lease: onward.lease, _admission: admission, held: None },
        )
    }

    fn pass_back(
        &self,
        mut answer: Response<Incoming>,
        switch: Option<OnUpgrade>,
        upstream: &Upstream,
        facts: &RewriteFacts<'_>,
        between: Option<Duration>,
        mut hold: Hold,
    ) -> Result<Response<Body>, Rejection> {
        let status = answer.status();
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        let agreed = switch.is_some() && upgrade::names_websocket(answer.headers());
        framing::check_answer(status, answer.headers(), answer.version(), agreed)
            .map_err(|fault| Rejection::new(Reason::BadAnswer).because(fault))?;
        let far_side = switches.then(|| hyper::upgrade::on(&mut answer));
        let (mut head, body) = answer.into_parts();
        // The client's version is hyper's to know.
        head.version = Version::HTTP_11;
        hold.held = head.extensions.remove::<Held>();
        rewrite::answer(status, &mut head.headers, facts, upstream.backend().origin());
        if let (Some(near), Some(far)) = (switch, far_side) {
            upgrade::announce(&mut head.headers);
            let hold = Arc::new(hold);
            upgrade::join(near, far, &self.tunnels, self.stop.clone(), async move { hold.lease.ended().await });
            return Ok(Response::from_parts(head, Body::empty()));
        }
        if body.is_end_stream() {
            return Ok(Response::from_parts(head, Body::empty()));
        }
        let body = Body::from_upstream(body, between, Some(Arc::new(hold)), facts.guarded);
        Ok(Response::from_parts(head, body))
    }
}

/// What an answer holds on to while it streams.
struct Hold {
    lease: Lease,
    _admission: Admission,
    held: Option<Held>,
}

impl Tether for Hold {
    fn cut(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { end_of_stream(&self.lease).await })
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

/// A request that may have to be sent more than once.
struct Attempts<'a> {
    timeouts: &'a Timeouts,
    upstream: &'a Upstream,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    loan: Option<Arc<Loan>>,
    expects_continue: bool,
}

impl Attempts<'_> {
    async fn run(mut self, switching: bool) -> Result<Response<Incoming>, Rejection> {
        let repeatable = self.loan.is_none() && !switching && retry::is_safe(&self.method);
        let keeps = repeatable || self.upstream.backend().address().may_speak_http2();
        let mut spare = keeps.then(|| self.headers.clone());
        loop {
            let sent = self.attempt().await;
            let rejection = match sent {
                Ok(answer) => return Ok(answer),
                Err(Failure::Late) => Rejection::new(Reason::ResponseTimeout),
                Err(Failure::Broken(error)) => {
                    let is_whole = self.loan.as_ref().is_none_or(|loan| loan.is_at_home());
                    let again = (repeatable && error.is_stale()) || (is_whole && error.is_unprocessed());
                    if let Some(headers) = spare.take_if(|_| again) {
                        self.headers = headers;
                        continue;
                    }
                    retry::rejection(error, self.loan.as_deref())
                }
            };
            return Err(self.give_up(rejection));
        }
    }

    async fn attempt(&mut self) -> Result<Response<Incoming>, Failure> {
        let body = self.loan.as_ref().and_then(Loan::lend).unwrap_or_default();
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = std::mem::take(&mut self.headers);
        let limit = self.timeouts.response;
        let mut sending = pin!(self.upstream.send(request));
        let mut timer = pin!(tokio::time::sleep(limit));
        loop {
            tokio::select! {
                biased;
                answer = sending.as_mut() => return answer.map_err(Failure::Broken),
                () = timer.as_mut() => match self.due(limit) {
                    Some(due) => timer.as_mut().reset(due),
                    None => return Err(Failure::Late),
                },
            }
        }
    }

    /// When the upstream is late, if that is still to come: a client that is slow to send is not its fault.
    fn due(&self, limit: Duration) -> Option<Instant> {
        let now = Instant::now();
        let since = self.loan.as_ref()?.upstream_since().unwrap_or(now);
        Some(since + limit).filter(|due| *due > now)
    }

    /// Lets go of the client's body, so that the client can see the answer.
    fn give_up(&self, rejection: Rejection) -> Rejection {
        let Some(loan) = &self.loan else {
            return rejection;
        };
        let close = match loan.take_back() {
            Some(body) => drain_after(body, self.expects_continue),
            None => !loan.is_over(),
        };
        rejection.closing(close)
    }
}

enum Failure {
    Late,
    Broken(SendError),
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
            Reason::Reset,
            Reason::BadAnswer,
            Reason::ResponseTimeout,
            Reason::BodyTooLarge,
            Reason::BodyStalled,
            Reason::BodyBroken,
            Reason::Internal,
        ];
        let theirs = all.map(Rejection::new).into_iter().filter(|rejection| rejection.blame == Blame::Upstream);
        let theirs: Vec<_> = theirs.map(|rejection| rejection.reason.name()).collect();
        let counts = crate::metrics::Upstream::default();
        let counted: Vec<_> = counts.errors.values().map(|(reason, _)| reason).collect();
        assert_eq!(theirs, counted);
    }
}
