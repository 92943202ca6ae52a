//! The head of an answer over HTTP/1.1 (RFC 9112), and what follows from it for its body and its connection.
//!
//! What a message may not say is judged by `proxy::framing`; here is only decided where the body ends, and in doubt it ends
//! with the connection, which is of no use any more then.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::BUFFER;
use crate::message::body::BodyError;

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
    /// The request's own body broke off.
    Body(BodyError),
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
            Self::Unsent(_) | Self::Body(_) | Self::Io(_) | Self::Ended => false,
        }
    }
}

/// Reads the head of an answer out of `bytes`, if it is there whole; interim answers before it are dropped (RFC 9110,
/// section 15.2). Before `looked` its end is known not to be. Where `is_head` says so, HEAD was asked for.
///
/// # Errors
/// A head that is malformed, or has more than 64 KiB or a hundred fields.
pub(super) fn read(bytes: &mut BytesMut, looked: &mut usize, is_head: bool) -> Result<Option<Answer>, Fault> {
    while !bytes.is_empty() {
        // What comes in many pieces is parsed when its end is there, not with each of them.
        let may_be_whole = *looked == 0 || has_end(bytes, *looked);
        let Some(head) = may_be_whole.then(|| parse(bytes)).transpose()?.flatten() else {
            *looked = bytes.len();
            return if bytes.len() >= BUFFER { Err(Fault::TooLarge) } else { Ok(None) };
        };
        *looked = 0;
        let status = head.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return judged(head, is_head).map(Some);
        }
    }
    Ok(None)
}

/// Whether the empty line that ends a head may be behind `looked`. Lines may end in LF alone, as the parser takes them
/// (RFC 9112, section 2.2).
fn has_end(bytes: &[u8], looked: usize) -> bool {
    let news = bytes.get(looked.saturating_sub(3)..).unwrap_or_default();
    memchr::memmem::find(news, b"\n\r\n").is_some() || memchr::memmem::find(news, b"\n\n").is_some()
}

/// Takes a head out of `bytes`; `None`: it is not whole.
fn parse(bytes: &mut BytesMut) -> Result<Option<Response<()>>, Fault> {
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let end = match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(Status::Complete(end)) if end <= BUFFER => end,
        Ok(Status::Partial) => return Ok(None),
        Ok(Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Err(error) => return Err(Fault::Head(error)),
    };
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
    // Names and values stay where they were read, once the head is one's own.
    let start = bytes.as_ptr().addr();
    let mut places = [(Place::default(), Place::default()); MOST_FIELDS];
    let count = parsed.headers.len();
    for (field, place) in parsed.headers.iter().zip(&mut places) {
        *place = (Place::of(field.name.as_bytes(), start), Place::of(field.value, start));
    }
    let whole = bytes.split_to(end).freeze();
    let headers = head.headers_mut();
    headers.reserve(count);
    for (name, value) in places.into_iter().take(count) {
        let name = whole.get(name.range()).and_then(|name| HeaderName::from_bytes(name).ok());
        let value = HeaderValue::from_maybe_shared(whole.slice(value.range()));
        headers.append(
            name.ok_or(Fault::Head(httparse::Error::HeaderName))?,
            value.map_err(|_| Fault::Head(httparse::Error::HeaderValue))?,
        );
    }
    Ok(Some(head))
}

/// Where a piece of a head stands in it. Small, as room is made for a hundred fields of which few are there.
#[derive(Clone, Copy, Default)]
struct Place {
    from: u16,
    length: u16,
}

impl Place {
    /// The place of `part` in a text that begins at `start`.
    fn of(part: &[u8], start: usize) -> Self {
        let from = part.as_ptr().addr().saturating_sub(start);
        match (u16::try_from(from), u16::try_from(part.len())) {
            (Ok(from), Ok(length)) if length > 0 => Self { from, length },
            // Empty wherever it stands: no head is larger than 64 KiB.
            _ => Self::default(),
        }
    }

    fn range(self) -> Range<usize> {
        let from = usize::from(self.from);
        from..from + usize::from(self.length)
    }
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
            Self::Body(source) => write!(f, "{source}"),
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
            Self::Body(source) => source.source(),
            Self::Head(source) => Some(source),
            Self::Ended | Self::TooLarge | Self::Length | Self::Chunks(_) => None,
        }
    }
}

/// How many fields a head may have.
const MOST_FIELDS: usize = 100;
