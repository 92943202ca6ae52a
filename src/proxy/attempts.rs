//! A request that may have to be sent more than once: which server, how often, and what an attempt came to.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::forward::Observed;
use super::framing::{self, FramingFault};
use super::retry::{self, Allowance, Cause};
use super::upgrade::Switch;
use crate::config::Timeouts;
use crate::message::added::Added;
use crate::message::body::Body;
use crate::message::loan::{Loan, drain_after};
use crate::message::rejection::{Reason, Rejection};
use crate::message::timer::Timers;
use crate::upstream::{Lane, NoTurn, Outgoing, Reply, SendError, Turn, Upstream};

/// A request on its way.
pub(super) struct Attempts<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) timeouts: &'a Timeouts,
    /// When it was ready to leave.
    pub(super) left: Instant,
    /// When it was sent last, and at first when it was ready to leave.
    pub(super) sent: Instant,
    /// When all of it must be over.
    pub(super) deadline: Option<Instant>,
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
    /// What the gateway says beside them.
    pub(super) added: Added,
    pub(super) loan: Option<Arc<Loan>>,
    pub(super) expects_continue: bool,
    /// What it asks for where that is another protocol.
    pub(super) switch: Option<Switch>,
    /// What its server is found by.
    pub(super) key: u64,
    /// What may be tried again.
    pub(super) allowance: Allowance<'a>,
    pub(super) observed: &'a Observed,
    pub(super) timers: &'a Timers,
}

/// An answer, and the server that gave it.
pub(super) struct Answered {
    pub(super) reply: Reply,
    pub(super) turn: Turn,
}

enum Failure {
    /// The server took too long.
    Late,
    /// The time for all of it was over, whoever used it up.
    Over,
    Broken(SendError),
    Malformed(FramingFault),
    /// Of the body a part is gone.
    Spent,
}

impl Attempts<'_> {
    /// The answer, from the first server or another one.
    ///
    /// # Errors
    /// When there is none; the client's body is let go of then, so that the client can see the answer.
    pub(super) async fn run(&mut self) -> Result<Answered, Rejection> {
        self.tries().await.map_err(|rejection| self.give_up(rejection))
    }

    async fn tries(&mut self) -> Result<Answered, Rejection> {
        let upstream = self.upstream;
        let pool = upstream.pool();
        let mut tried = Vec::new();
        let mut turn = self.admit(&tried, self.sent).await.map_err(no_turn)?;
        if turn.has_waited {
            self.sent = Instant::now();
        }
        self.allowance.earn(pool.budget());
        let mut headers = std::mem::take(&mut self.headers);
        loop {
            let at = turn.at;
            let lane = upstream.lanes().get(at).ok_or_else(|| Rejection::new(Reason::Internal))?;
            self.observed.asks(pool, at);
            lane.backend().tally().requests.count();
            let is_kept = self.allowance.is_left(pool.settings().servers.len());
            let outcome = self.attempt(lane, &mut headers, is_kept).await;
            self.judge(at, &outcome);
            let again = match &outcome {
                Ok(reply) => self.allowance.take(Cause::Status(reply.head.status()), pool.budget(), self.sent),
                // Another server needs a descriptor too.
                Err(Failure::Broken(error)) if error.is_own() || self.client_failed() => None,
                Err(Failure::Broken(error)) => self.allowance.take(retry::cause(error), pool.budget(), self.sent),
                Err(Failure::Late | Failure::Over | Failure::Malformed(_) | Failure::Spent) => None,
            };
            if self.allowance.was_held_back() {
                pool.counts().retries_held_back.count();
            }
            // Of a body that went out in part nothing is left to send.
            let Some(why) = again.filter(|_| is_kept && self.is_whole()) else {
                return self.end(outcome, turn);
            };
            turn = match why {
                // Nothing was sent: any other server will do, and there must be one.
                "connect" => {
                    tried.push(at);
                    drop(turn);
                    match self.admit(&tried, Instant::now()).await {
                        Ok(turn) => turn,
                        Err(_) => return Err(self.rejection(outcome)),
                    }
                }
                // The connection was over, and perhaps the server is about to be.
                "stale" if !pool.is_sticky() => pool.admit_now(&[at], self.key, Instant::now()).unwrap_or(turn),
                "stale" | "unprocessed" => turn,
                _ => {
                    tried.push(at);
                    match pool.admit_now(&tried, self.key, Instant::now()) {
                        Ok(other) => other,
                        Err(full) if !full.is_empty() => return self.end(outcome, turn),
                        Err(_) if self.rests(pool.draw()).await => turn,
                        Err(_) => return self.end(outcome, turn),
                    }
                }
            };
            pool.counts().retries.count(why);
            self.sent = Instant::now();
        }
    }

    /// Leave at `now`, or later, to send it to a server that is none of `tried`.
    async fn admit(&self, tried: &[usize], now: Instant) -> Result<Turn, NoTurn> {
        let admitted = self.upstream.pool().admit(tried, self.key, now);
        match self.deadline {
            Some(deadline) => timeout_at(deadline, admitted).await.unwrap_or(Err(NoTurn::Busy)),
            None => admitted.await,
        }
    }

    /// Sends it once. `headers` go with it, unless they are kept.
    async fn attempt(&self, lane: &Lane, headers: &mut HeaderMap, is_kept: bool) -> Result<Reply, Failure> {
        let body = match &self.loan {
            Some(loan) => loan.lend().ok_or(Failure::Spent)?,
            None => Body::empty(),
        };
        let Self { method, target, added, .. } = self;
        let switches = self.switch.is_some();
        let outgoing = Outgoing { method, target, headers, added, switches, is_kept, body, now: &self.sent };
        let limit = self.timeouts.response;
        let mut due = self.by_deadline(self.sent + limit);
        let mut timer = self.timers.lend();
        let mut sending = pin!(lane.send(outgoing));
        let reply = poll_fn(|cx| {
            if let Poll::Ready(reply) = sending.as_mut().poll(cx) {
                return Poll::Ready(reply.map_err(Failure::Broken));
            }
            loop {
                ready!(timer.poll(due, cx));
                due = match self.due(limit) {
                    Some(later) => later,
                    None if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                        return Poll::Ready(Err(Failure::Over));
                    }
                    None => return Poll::Ready(Err(Failure::Late)),
                };
            }
        });
        let reply = reply.await?;
        let answer = &reply.head;
        let status = answer.status();
        if status == StatusCode::SWITCHING_PROTOCOLS
            && self.switch.as_ref().is_some_and(|switch| !switch.is_agreed(answer.headers()))
        {
            return Err(Failure::Malformed(FramingFault::Switch));
        }
        framing::check_answer(status, &reply.framed, answer.version(), self.switch.is_some())
            .map_err(Failure::Malformed)?;
        Ok(reply)
    }

    /// When the upstream is late, if that is still to come: a client that is slow to send is not its fault.
    fn due(&self, limit: Duration) -> Option<Instant> {
        let now = Instant::now();
        let since = self.loan.as_ref()?.upstream_since().unwrap_or(now);
        Some(self.by_deadline(since + limit)).filter(|due| *due > now)
    }

    fn by_deadline(&self, due: Instant) -> Instant {
        self.deadline.map_or(due, |deadline| deadline.min(due))
    }

    /// Waits a moment before the same server is asked again; not where the time would be over then.
    async fn rests(&self, draw: u64) -> bool {
        let until = Instant::now() + REST + Duration::from_millis(draw % 25);
        let is_in_time = self.deadline.is_none_or(|deadline| until < deadline);
        if is_in_time {
            sleep_until(until).await;
        }
        is_in_time
    }

    /// Whether nothing of the body is missing.
    fn is_whole(&self) -> bool {
        self.loan.as_ref().is_none_or(|loan| loan.is_at_home())
    }

    fn client_failed(&self) -> bool {
        self.loan.as_ref().is_some_and(|loan| loan.fault().is_some())
    }

    /// What an attempt says of the server at `at`.
    fn judge(&self, at: usize, outcome: &Result<Reply, Failure>) {
        let pool = self.upstream.pool();
        match outcome {
            Ok(reply) if matches!(reply.head.status().as_u16(), 502..=504) => pool.failed(at),
            Ok(_) => pool.served(at),
            Err(Failure::Late | Failure::Malformed(_)) => pool.failed(at),
            // One that closes what nobody uses does well, and neither a client that breaks off nor our own want is its fault.
            Err(Failure::Broken(error))
                if error.is_stale() || error.is_unprocessed() || error.is_own() || self.client_failed() => {}
            Err(Failure::Broken(_)) => pool.failed(at),
            Err(Failure::Over | Failure::Spent) => {}
        }
    }

    fn end(&self, outcome: Result<Reply, Failure>, turn: Turn) -> Result<Answered, Rejection> {
        match outcome {
            Ok(reply) => Ok(Answered { reply, turn }),
            Err(_) => Err(self.rejection(outcome)),
        }
    }

    fn rejection(&self, outcome: Result<Reply, Failure>) -> Rejection {
        match outcome {
            Ok(_) | Err(Failure::Spent) => Rejection::new(Reason::Internal),
            Err(Failure::Late | Failure::Over) => Rejection::new(Reason::ResponseTimeout),
            Err(Failure::Malformed(fault)) => Rejection::new(Reason::BadAnswer).because(fault),
            Err(Failure::Broken(error)) => retry::rejection(error, self.loan.as_deref()),
        }
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

fn no_turn(why: NoTurn) -> Rejection {
    match why {
        NoTurn::Busy => Rejection::new(Reason::TooManyPending),
        NoTurn::Down(again) => {
            let mut rejection = Rejection::new(Reason::Unhealthy);
            rejection.retry_after = Some(again);
            rejection
        }
        NoTurn::NoOther => Rejection::new(Reason::Unhealthy),
    }
}

/// How long a server rests that is asked again because there is no other.
const REST: Duration = Duration::from_millis(25);
