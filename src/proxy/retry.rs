//! What an error on the way to an upstream means, and whether trying again can help.

use std::error::Error as StdError;

use http::Method;
use hyper_util::client::legacy::Error;

use crate::message::loan::{ClientFault, Loan};
use crate::message::rejection::{Reason, Rejection};
use crate::upstream::{ConnectError, Stale};

/// Whether a request without body may be tried once more when a used connection closed before an answer
/// (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether `error` says that a used connection closed before a byte of an answer.
pub(super) fn was_stale(error: &Error) -> bool {
    beneath::<Stale>(error).is_some()
}

/// What `error` means. The client is at fault where its own body broke off, which only its loan tells.
pub(super) fn rejection(error: Error, loan: Option<&Loan>) -> Rejection {
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
        Some(ConnectError::Resolve { .. } | ConnectError::NoAddress | ConnectError::Refused { .. }) => Reason::Connect,
        None if error.is_connect() => Reason::Connect,
        None => match beneath::<hyper::Error>(&error) {
            Some(error) if error.is_parse() || error.is_parse_status() => Reason::BadAnswer,
            Some(_) | None => Reason::Reset,
        },
    };
    Rejection::new(reason).because(error)
}

/// The first `E` beneath `error`.
fn beneath<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An `io::Error` shows what it wraps here only, not as its source.
        if let Some(found) =
            error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<E>())
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
