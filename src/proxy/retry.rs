//! What an error on the way to an upstream means, and whether trying again can help.

use http::Method;

use crate::message::loan::{ClientFault, Loan};
use crate::message::rejection::{Reason, Rejection};
use crate::upstream::{ConnectError, SendError, beneath};

/// Whether a request without body may be tried once more when a used connection closed before an answer
/// (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
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
