//! Whether a message's framing can be trusted (RFC 9112, section 6.3), before any of it goes on.
//!
//! hyper has framed the body already, but takes more than is safe to pass on: other codings before
//! `chunked`, a length beside it, odd status codes.

use http::{HeaderMap, StatusCode, Version};

use crate::message::framed::{Framed, Said};

/// What is wrong with a message's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingFault {
    /// A transfer coding other than exactly one `chunked`.
    Coding,
    /// More than one length, or one that is not a number.
    Length,
    /// A length beside a transfer coding.
    Both,
    /// A status that no answer may have.
    Status,
    /// A 101 that is no answer to what was asked for.
    Switch,
}

/// Whether a request's framing is in order; if not, it is answered 400 and the connection closed.
///
/// # Errors
/// On any transfer coding but exactly one `chunked`, and on more than one length.
pub fn check(headers: &HeaderMap, version: Version) -> Result<(), FramingFault> {
    check_framed(&Framed::of(headers), version)
}

/// Whether an answer that is `framed` so can be passed on; if not, it is a 502.
pub(crate) fn check_answer(
    status: StatusCode,
    framed: &Framed,
    version: Version,
    upgrading: bool,
) -> Result<(), FramingFault> {
    let allowed = match status.as_u16() {
        101 => upgrading,
        200..=599 => true,
        _ => false,
    };
    if !allowed {
        return Err(FramingFault::Status);
    }
    check_framed(framed, version)?;
    if framed.coding != Said::Nothing && framed.length != Said::Nothing {
        return Err(FramingFault::Both);
    }
    Ok(())
}

fn check_framed(framed: &Framed, version: Version) -> Result<(), FramingFault> {
    match framed.coding {
        Said::Nothing => {}
        Said::Plainly if version >= Version::HTTP_11 => {}
        Said::Plainly | Said::Oddly => return Err(FramingFault::Coding),
    }
    match framed.length {
        Said::Nothing | Said::Plainly => Ok(()),
        Said::Oddly => Err(FramingFault::Length),
    }
}

impl std::fmt::Display for FramingFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Coding => "a transfer coding other than exactly one chunked",
            Self::Length => "more than one length, or one that is not a number",
            Self::Both => "a length beside a transfer coding",
            Self::Status => "a status that no answer may have",
            Self::Switch => "a 101 that does not agree to the WebSocket that was asked for",
        })
    }
}

impl std::error::Error for FramingFault {}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn takes_exactly_one_chunked_in_any_case() {
        for value in ["chunked", "Chunked", "CHUNKED"] {
            assert_eq!(check(&headers(&[("transfer-encoding", value.as_bytes())]), Version::HTTP_11), Ok(()));
        }
        for value in [
            "gzip, chunked",
            "identity, chunked",
            ",chunked",
            "chunked,",
            "chunked, chunked",
            "chunked;a=b",
            "\"chunked\"",
            "x",
            "",
        ] {
            let fault = check(&headers(&[("transfer-encoding", value.as_bytes())]), Version::HTTP_11);
            assert_eq!(fault, Err(FramingFault::Coding), "{value:?}");
        }
        let twice = headers(&[("transfer-encoding", b"chunked"), ("transfer-encoding", b"chunked")]);
        assert_eq!(check(&twice, Version::HTTP_11), Err(FramingFault::Coding));
        assert_eq!(check(&headers(&[("transfer-encoding", b"chunked")]), Version::HTTP_10), Err(FramingFault::Coding));
    }

    #[test]
    fn takes_one_length_that_is_a_number() {
        for (value, good) in [("5", true), ("05", true), ("+5", false), ("-1", false), ("5, 5", false), ("", false)] {
            let verdict = check(&headers(&[("content-length", value.as_bytes())]), Version::HTTP_11);
            assert_eq!(verdict.is_ok(), good, "{value:?}");
        }
        let twice = headers(&[("content-length", b"5"), ("content-length", b"5")]);
        assert_eq!(check(&twice, Version::HTTP_11), Err(FramingFault::Length));
    }

    #[test]
    fn passes_on_no_answer_that_can_be_read_in_two_ways() {
        let none = Framed::default();
        for (status, upgrading, good) in [
            (200, false, true),
            (101, true, true),
            (101, false, false),
            (600, false, false),
            (999, false, false),
            (103, false, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(check_answer(status, &none, Version::HTTP_11, upgrading).is_ok(), good, "{status}");
        }
        let both = Framed::of(&headers(&[("content-length", b"5"), ("transfer-encoding", b"chunked")]));
        assert_eq!(check_answer(StatusCode::OK, &both, Version::HTTP_11, false), Err(FramingFault::Both));
    }
}
