//! What an error on the way to an upstream means, and whether trying again can help.

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::config::Retries;
use crate::message::loan::{ClientFault, Loan};
use crate::message::rejection::{Reason, Rejection};
use crate::upstream::{Budget, ConnectError, SendError, beneath};

/// Why a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its connection never came about: nothing of it was sent.
    Connect,
    /// A used connection closed before an answer.
    Stale,
    /// The server says that it has done nothing with it (RFC 9113, section 8.7).
    Unprocessed,
    /// Another connection did.
    Reset,
    /// The answer.
    Status(StatusCode),
}

/// What is left to be tried again of one request.
#[derive(Clone, Debug)]
pub(super) struct Allowance<'a> {
    connects: u32,
    stale: u32,
    unprocessed: u32,
    asked: u32,
    retries: Option<&'a Retries>,
    held_back: bool,
}

impl<'a> Allowance<'a> {
    /// For a request of `method`, on a route that says `retries`. With a body, or for another protocol, only what was
    /// never sent is sent again.
    pub(super) fn new(method: &Method, is_bare: bool, retries: Option<&'a Retries>) -> Self {
        let retries = retries.filter(|_| is_bare && is_idempotent(method));
        Self {
            connects: MOST_CONNECTS,
            stale: u32::from(is_bare && is_safe(method)),
            unprocessed: 0,
            asked: retries.map_or(0, |retries| retries.attempts),
            retries,
            held_back: false,
        }
    }

    /// The same where HTTP/2 `is_spoken`, perhaps: what a server has done nothing with is sent once more.
    #[must_use]
    pub(super) fn for_http2(mut self, is_spoken: bool) -> Self {
        self.unprocessed = u32::from(is_spoken);
        self
    }

    /// Whether anything may be tried again at an upstream of `servers`.
    pub(super) const fn is_left(&self, servers: usize) -> bool {
        (self.connects > 0 && servers > 1) || self.stale > 0 || self.unprocessed > 0 || self.asked > 0
    }

    /// A request is sent that the route lets be tried again.
    pub(super) fn earn(&self, budget: &Budget) {
        if self.asked > 0 {
            budget.earn();
        }
    }

    /// Uses up one try, if there is one for `cause`: its word for metrics.
    pub(super) fn take(&mut self, cause: Cause, budget: &Budget, now: Instant) -> Option<&'static str> {
        self.held_back = false;
        let one_of = |left: &mut u32| {
            let is_left = *left > 0;
            *left = left.saturating_sub(1);
            is_left
        };
        match cause {
            Cause::Connect => one_of(&mut self.connects).then_some("connect"),
            Cause::Unprocessed => one_of(&mut self.unprocessed).then_some("unprocessed"),
            Cause::Stale if one_of(&mut self.stale) => Some("stale"),
            Cause::Stale | Cause::Reset if self.retries?.reset => self.ask(budget, now).then_some("reset"),
            Cause::Status(status) if self.retries?.statuses.contains(&status) => {
                self.ask(budget, now).then_some("status")
            }
            Cause::Stale | Cause::Reset | Cause::Status(_) => None,
        }
    }

    /// Whether the last one was only not tried again because of the budget.
    pub(super) const fn was_held_back(&self) -> bool {
        self.held_back
    }

    fn ask(&mut self, budget: &Budget, now: Instant) -> bool {
        if self.asked == 0 {
            return false;
        }
        self.asked -= 1;
        self.held_back = !budget.spend(now);
        !self.held_back
    }
}

/// Whether asking twice does no more than asking once (RFC 9110, section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || matches!(*method, Method::PUT | Method::DELETE)
}

/// What `error` is a reason for.
pub(super) fn cause(error: &SendError) -> Cause {
    if error.is_connect() {
        Cause::Connect
    } else if error.is_unprocessed() {
        Cause::Unprocessed
    } else if error.is_stale() {
        Cause::Stale
    } else {
        Cause::Reset
    }
}

/// Whether a request without body may be tried once more when a used connection closed before an answer
/// (RFC 9110, section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What `error` means. The client is at fault where its own body broke off, which only its loan tells.
pub(super) fn rejection(error: SendError, loan: Option<&Loan>) -> Rejection {
    if let Some(fault) = loan.and_then(Loan::fault) {
        return Rejection::new(match fault {
            ClientFault::TooLarge => Reason::BodyTooLarge,
            ClientFault::Stalled => Reason::BodyStalled,
            ClientFault::Broken => Reason::BodyBroken,
            ClientFault::Unleased => Reason::LeaseEnded,
        })
        .because(error);
    }
    let reason = match beneath::<ConnectError>(&error) {
        Some(ConnectError::TimedOut) => Reason::ConnectTimeout,
        Some(ConnectError::NoDescriptors { .. }) => Reason::NoDescriptors,
        Some(ConnectError::Tls { .. }) => Reason::Tls,
        Some(ConnectError::Resolve { .. } | ConnectError::NoAddress | ConnectError::Refused { .. }) => Reason::Connect,
        None if error.is_connect() => Reason::Connect,
        // A server says after the handshake that it takes no client without a certificate, or not this one.
        None if beneath::<rustls::Error>(&error).is_some() => Reason::Tls,
        None if error.is_malformed() => Reason::BadAnswer,
        None => Reason::Reset,
    };
    Rejection::new(reason).because(error)
}

/// How often a request is tried on another server whose connection never came about.
const MOST_CONNECTS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn retries() -> Retries {
        Retries { attempts: 2, statuses: vec![StatusCode::SERVICE_UNAVAILABLE], reset: true }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_sent_is_sent_twice_more_and_the_rest_only_where_the_route_says_so() {
        let (now, retries) = (Instant::now(), retries());
        let full = Budget::new(now);
        let busy = Cause::Status(StatusCode::SERVICE_UNAVAILABLE);
        let count = |method: &Method, is_bare, retries, cause| {
            let mut left = Allowance::new(method, is_bare, retries);
            (0..9).filter(|_| left.take(cause, &full, now).is_some()).count()
        };
        let (get, post, delete) = (&Method::GET, &Method::POST, &Method::DELETE);
        for (method, is_bare, asked, cause, times) in [
            (get, true, false, Cause::Connect, 2),
            (post, false, false, Cause::Connect, 2),
            (get, true, false, Cause::Stale, 1),
            (get, false, false, Cause::Stale, 0),
            (delete, true, false, Cause::Stale, 0),
            (get, true, false, Cause::Reset, 0),
            (get, true, false, busy, 0),
            (get, true, true, busy, 2),
            (delete, true, true, busy, 2),
            (get, false, true, busy, 0),
            (post, true, true, busy, 0),
            (post, true, true, Cause::Reset, 0),
            (get, true, true, Cause::Reset, 2),
            (get, true, true, Cause::Stale, 3),
            (get, true, true, Cause::Status(StatusCode::NOT_FOUND), 0),
        ] {
            assert_eq!(count(method, is_bare, asked.then_some(&retries), cause), times, "{method} {cause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_budget_holds_back_is_told() {
        let (now, retries) = (Instant::now(), retries());
        let budget = Budget::new(now);
        while budget.spend(now) {}
        let mut left = Allowance::new(&Method::GET, true, Some(&retries));
        assert_eq!((left.take(Cause::Reset, &budget, now), left.was_held_back()), (None, true));
        assert_eq!((left.take(Cause::Connect, &budget, now), left.was_held_back()), (Some("connect"), false));
    }
}
