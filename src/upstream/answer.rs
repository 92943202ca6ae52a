//! The head of an answer over HTTP/1.1 (RFC 9112), and what follows from it for its body and its connection.
//!
//! What a message may not say is judged by `proxy::framing`; here is only decided where the body ends, and in doubt it ends
//! with the connection, which is of no use any more then.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::BUFFER;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    pub(super) length: Length,
    /// Whether the connection takes another request behind the body.
    pub(super) stays_open: bool,
}

/// Where a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// After so many bytes.
    Bytes(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Connection,
}

/// What went wrong between a request and the end of its answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Nothing of the request could be sent.
    Unsent(io::Error),
    /// The connection broke.
    Io(io::Error),
    /// The connection ended before the answer did.
    Ended,
    /// The head is not HTTP/1.1.
    Head(httparse::Error),
    /// The head is larger than is read.
    TooLarge,
    /// A length that is larger than any body.
    Length,
    /// The chunks are not as they must be.
    Chunks(&'static str),
}

impl Fault {
    /// Whether nothing of the request was sent.
    pub(super) const fn is_unsent(&self) -> bool {
        matches!(self, Self::Unsent(_))
    }

    /// Whether what came is not HTTP, or not such that it can be read.
    pub(super) const fn is_malformed(&self) -> bool {
        match self {
            Self::Head(_) | Self::TooLarge | Self::Length | Self::Chunks(_) => true,
            Self::Unsent(_) | Self::Io(_) | Self::Ended => false,
        }
    }
}

/// Reads the head of an answer out of `bytes`, if it is there whole; interim answers before it are dropped (RFC 9110,
/// section 15.2). Before `looked` its end is known not to be. Where `is_head` says so, HEAD was asked for.
///
/// # Errors
/// A head that is malformed, or has more than 64 KiB or a hundred fields.
pub(super) fn read(bytes: &mut BytesMut, looked: &mut usize, is_head: bool) -> Result<Option<Answer>, Fault> {
    loop {
        let Some(end) = end_of_head(bytes, *looked) else {
            *looked = bytes.len().saturating_sub(2);
            return if bytes.len() >= BUFFER { Err(Fault::TooLarge) } else { Ok(None) };
        };
        *looked = 0;
        if end > BUFFER {
            return Err(Fault::TooLarge);
        }
        let head = parse(&bytes.split_to(end).freeze())?;
        let status = head.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return judged(head, is_head).map(Some);
        }
    }
}

/// Behind the empty line that ends a head. Lines may end in LF alone, as the parser takes them (RFC 9112, section 2.2).
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut line = from;
    while let Some(found) = memchr::memchr(b'\n', bytes.get(line..)?) {
        line += found + 1;
        match bytes.get(line..)? {
            [b'\n', ..] => return Some(line + 1),
            [b'\r', b'\n', ..] => return Some(line + 2),
            _ => {}
        }
    }
    None
}

/// Parses a whole head.
fn parse(bytes: &Bytes) -> Result<Response<()>, Fault> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(Fault::Head(httparse::Error::NewLine)),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Err(error) => return Err(Fault::Head(error)),
    }
    let mut head = Response::new(());
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    *head.status_mut() = code.ok_or(Fault::Head(httparse::Error::Status))?;
    *head.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    if let Some(reason) = parsed.reason
        && Some(reason) != head.status().canonical_reason()
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        head.extensions_mut().insert(reason);
    }
    let headers = head.headers_mut();
    headers.reserve(parsed.headers.len());
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        headers.append(
            name.map_err(|_| Fault::Head(httparse::Error::HeaderName))?,
            value.map_err(|_| Fault::Head(httparse::Error::HeaderValue))?,
        );
    }
    Ok(head)
}

fn judged(head: Response<()>, is_head: bool) -> Result<Answer, Fault> {
    let length = match head.status() {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Length::Bytes(0),
        // What follows is another protocol, which nobody asked for here.
        StatusCode::SWITCHING_PROTOCOLS => Length::Connection,
        _ if is_head => Length::Bytes(0),
        _ => length(&head)?,
    };
    let stays_open = length != Length::Connection && stays_open(head.version(), head.headers());
    Ok(Answer { head, length, stays_open })
}

/// What the framing says; a second word about it, or one that is none, leaves it to the end of the connection.
fn length(head: &Response<()>) -> Result<Length, Fault> {
    let headers = head.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        let is_clear = is_chunked && head.version() == Version::HTTP_11 && !headers.contains_key(CONTENT_LENGTH);
        return Ok(if is_clear { Length::Chunked } else { Length::Connection });
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) && !length.is_empty() => {
            let digits = length.to_str().ok().and_then(|digits| digits.parse().ok());
            digits.map(Length::Bytes).ok_or(Fault::Length)
        }
        _ => Ok(Length::Connection),
    }
}

/// Whether the connection persists (RFC 9112, section 9.3).
fn stays_open(version: Version, headers: &HeaderMap) -> bool {
    let mut options = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii);
    if version == Version::HTTP_11 {
        return !options.any(|option| option.eq_ignore_ascii_case(b"close"));
    }
    let mut keeps = false;
    for option in options {
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
    }
    keeps
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent(source) => write!(f, "the request could not be sent: {source}"),
            Self::Io(source) => write!(f, "the connection broke: {source}"),
            Self::Ended => f.write_str("the connection closed before the answer was whole"),
            Self::Head(source) => write!(f, "the head of the answer is malformed: {source}"),
            Self::TooLarge => f.write_str("the head of the answer is too large"),
            Self::Length => f.write_str("the length of the answer is too large"),
            Self::Chunks(why) => write!(f, "the chunks of the answer are malformed: {why}"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unsent(source) | Self::Io(source) => Some(source),
            Self::Head(source) => Some(source),
            Self::Ended | Self::TooLarge | Self::Length | Self::Chunks(_) => None,
        }
    }
}

/// How many fields a head may have.
const MOST_FIELDS: usize = 100;
