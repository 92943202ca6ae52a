//! Why there is no answer from upstream: status, reason and whose fault it is.
//!
//! The client learns the status; the reason and its source go to the log.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Why a request got no answer from upstream.
#[derive(Debug)]
pub struct Rejection {
    /// What the client is answered.
    pub status: StatusCode,
    /// Why.
    pub reason: Reason,
    /// Whose fault it is.
    pub blame: Blame,
    /// When it may be tried again.
    pub retry_after: Option<Duration>,
    /// Whether the client's connection can't be used any longer.
    pub close: bool,
    /// What lies beneath, for the log.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client's.
    Client,
    /// The application's, or that of the way to it.
    Upstream,
    /// Ours.
    Gateway,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection came about: refused, unreachable, no such name.
    Connect,
    /// TLS did not come about: the upstream's certificate is not believed, or ours is not.
    Tls,
    /// No connection came about in time.
    ConnectTimeout,
    /// More requests wait for a connection than may.
    TooManyPending,
    /// No server of the upstream is well.
    Unhealthy,
    /// The connection ended before an answer.
    Reset,
    /// What came is not an answer, or one that can't be passed on safely.
    BadAnswer,
    /// No answer came in time.
    ResponseTimeout,
    /// The request's body is larger than allowed.
    BodyTooLarge,
    /// The client stopped sending its body.
    BodyStalled,
    /// The framing of the request's body is broken, or it ended early.
    BodyBroken,
    /// What allowed the request has ended while its body was on its way.
    LeaseEnded,
    /// The gateway has no descriptor left for a connection.
    NoDescriptors,
    /// The request could not be put together.
    Internal,
}

impl Reason {
    /// A word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::TooManyPending => "too_many_pending",
            Self::Unhealthy => "unhealthy",
            Self::Reset => "reset",
            Self::BadAnswer => "bad_answer",
            Self::ResponseTimeout => "response_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyStalled => "body_stalled",
            Self::BodyBroken => "body_broken",
            Self::LeaseEnded => "lease_ended",
            Self::NoDescriptors => "no_descriptors",
            Self::Internal => "internal",
        }
    }
}

impl Rejection {
    /// A rejection for `reason`; status, blame and the rest follow from it.
    pub fn new(reason: Reason) -> Self {
        let (status, blame) = match reason {
            Reason::Connect | Reason::Tls | Reason::Reset | Reason::BadAnswer => {
                (StatusCode::BAD_GATEWAY, Blame::Upstream)
            }
            Reason::ConnectTimeout | Reason::ResponseTimeout => (StatusCode::GATEWAY_TIMEOUT, Blame::Upstream),
            Reason::TooManyPending | Reason::Unhealthy => (StatusCode::SERVICE_UNAVAILABLE, Blame::Upstream),
            Reason::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Blame::Client),
            Reason::BodyStalled => (StatusCode::REQUEST_TIMEOUT, Blame::Client),
            Reason::BodyBroken => (StatusCode::BAD_REQUEST, Blame::Client),
            Reason::LeaseEnded => (StatusCode::UNAUTHORIZED, Blame::Client),
            Reason::NoDescriptors => (StatusCode::SERVICE_UNAVAILABLE, Blame::Gateway),
            Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Blame::Gateway),
        };
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1));
        Self { status, reason, blame, retry_after, close: blame == Blame::Client, source: None }
    }

    /// With what lies beneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With the client's connection closed after the answer.
    #[must_use]
    pub const fn closing(mut self, close: bool) -> Self {
        self.close = self.close || close;
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Connect => "the upstream can't be reached",
            Reason::Tls => "no TLS with the upstream comes about",
            Reason::ConnectTimeout => "the upstream does not accept connections in time",
            Reason::TooManyPending => "too many requests wait for the upstream",
            Reason::Unhealthy => "no server of the upstream is well",
            Reason::Reset => "the upstream closed the connection before an answer",
            Reason::BadAnswer => "the upstream's answer is malformed",
            Reason::ResponseTimeout => "the upstream does not answer in time",
            Reason::BodyTooLarge => "the request's body is too large",
            Reason::BodyStalled => "the client stopped sending the request's body",
            Reason::BodyBroken => "the request's body is malformed or cut",
            Reason::LeaseEnded => "what allowed the request has ended",
            Reason::NoDescriptors => "no descriptor is left for a connection to the upstream",
            Reason::Internal => "the request can't be put together",
        })
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_broke_its_body_loses_its_connection() {
        for (reason, status, close) in [
            (Reason::Connect, 502, false),
            (Reason::Tls, 502, false),
            (Reason::Reset, 502, false),
            (Reason::BadAnswer, 502, false),
            (Reason::ConnectTimeout, 504, false),
            (Reason::ResponseTimeout, 504, false),
            (Reason::TooManyPending, 503, false),
            (Reason::Unhealthy, 503, false),
            (Reason::BodyTooLarge, 413, true),
            (Reason::BodyStalled, 408, true),
            (Reason::BodyBroken, 400, true),
            (Reason::LeaseEnded, 401, true),
            (Reason::NoDescriptors, 503, false),
            (Reason::Internal, 500, false),
        ] {
            let rejection = Rejection::new(reason);
            assert_eq!((rejection.status.as_u16(), rejection.close), (status, close), "{}", reason.name());
        }
    }
}
