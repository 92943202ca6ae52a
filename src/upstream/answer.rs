//! The head of an answer over HTTP/1.1 (RFC 9112), and what follows from it for its body and its connection.
//!
//! What a message may not say is judged by `proxy::framing`; here is only decided where the body ends, and in doubt it ends
//! with the connection, which is of no use any more then.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use httparse::{Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::BUFFER;
use crate::message::body::BodyError;
use crate::message::framed::{Framed, Said};
use crate::message::survey::Fields;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    /// What its head may have.
    pub(super) fields: Fields,
    /// What its head says of its body.
    pub(super) framed: Framed,
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
        let mut noted = Noted::default();
        let Some(head) = may_be_whole.then(|| parse(bytes, &mut noted)).transpose()?.flatten() else {
            *looked = bytes.len();
            return if bytes.len() >= BUFFER { Err(Fault::TooLarge) } else { Ok(None) };
        };
        *looked = 0;
        let status = head.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return judged(head, &noted, is_head).map(Some);
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

/// What is noted of the fields of a head while they are read.
#[derive(Default)]
struct Noted {
    fields: Fields,
    framed: Framed,
    /// The last length; none that is larger than any body.
    length: Option<u64>,
    persistence: Persistence,
}

/// Takes a head out of `bytes`; `None`: it is not whole. A `Connection` that only says whether it persists is noted and left out:
/// it ends at this hop.
fn parse(bytes: &mut BytesMut, noted: &mut Noted) -> Result<Option<Response<()>>, Fault> {
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
        let (name, text) = (whole.get(name.range()).unwrap_or_default(), whole.get(value.range()).unwrap_or_default());
        if name.eq_ignore_ascii_case(CONNECTION.as_str().as_bytes()) && noted.persistence.note(text) {
            continue;
        }
        let name = HeaderName::from_bytes(name).ok();
        let name = name.ok_or(Fault::Head(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(whole.slice(value.range()));
        let value = value.map_err(|_| Fault::Head(httparse::Error::HeaderValue))?;
        let named = Fields::named(name.as_str());
        noted.fields = noted.fields.and(named);
        noted.framed.note(named, &value);
        if named.may_have(Fields::CONTENT_LENGTH) {
            noted.length = value.to_str().ok().and_then(|digits| digits.parse().ok());
        }
        headers.append(name, value);
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

fn judged(head: Response<()>, noted: &Noted, is_head: bool) -> Result<Answer, Fault> {
    let Noted { fields, framed, mut persistence, .. } = *noted;
    if fields.may_have(Fields::CONNECTION) {
        let values = head.headers().get_all(CONNECTION).iter();
        for option in values.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
            persistence.note(option.trim_ascii());
        }
    }
    let length = match head.status() {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Length::Bytes(0),
        // What follows is another protocol, which nobody asked for here.
        StatusCode::SWITCHING_PROTOCOLS => Length::Connection,
        _ if is_head => Length::Bytes(0),
        _ => length(noted, head.version())?,
    };
    let stays_open = length != Length::Connection && persistence.stays_open(head.version());
    Ok(Answer { head, fields, framed, length, stays_open })
}

/// What the framing says; a second word about it, or one that is none, leaves it to the end of the connection.
fn length(noted: &Noted, version: Version) -> Result<Length, Fault> {
    match (noted.framed.coding, noted.framed.length) {
        (Said::Plainly, Said::Nothing) if version == Version::HTTP_11 => Ok(Length::Chunked),
        (Said::Nothing, Said::Plainly) => noted.length.map(Length::Bytes).ok_or(Fault::Length),
        _ => Ok(Length::Connection),
    }
}

/// What is said of whether the connection persists (RFC 9112, section 9.3).
#[derive(Clone, Copy, Default)]
struct Persistence {
    closes: bool,
    keeps: bool,
}

impl Persistence {
    /// Notes one option of the connection; whether it is about that, and no name of a field.
    fn note(&mut self, option: &[u8]) -> bool {
        let (closes, keeps) = (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
        self.closes |= closes;
        self.keeps |= keeps;
        closes || keeps
    }

    const fn stays_open(self, version: Version) -> bool {
        !self.closes && (matches!(version, Version::HTTP_11) || self.keeps)
    }
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
    use proptest::prelude::*;

    use super::*;

    /// Looked up in the head, one option after the other.
    fn plainly_stays_open(head: &Response<()>) -> bool {
        let values = head.headers().get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
        let options = values.flat_map(|value| value.split(|&byte| byte == b','));
        let options: Vec<_> = options.map(|option| option.trim_ascii().to_ascii_lowercase()).collect();
        let has = |option: &[u8]| options.iter().any(|said| said == option);
        !has(b"close") && (head.version() == Version::HTTP_11 || has(b"keep-alive"))
    }

    /// Looked up in the head, one field after the other.
    fn plain_length(head: &Response<()>) -> Option<Length> {
        let headers = head.headers();
        let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
        let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
        match (&codings[..], &lengths[..]) {
            ([], [one]) if !one.is_empty() && one.as_bytes().iter().all(u8::is_ascii_digit) => {
                one.to_str().ok()?.parse().ok().map(Length::Bytes)
            }
            ([one], []) if one.as_bytes().eq_ignore_ascii_case(b"chunked") && head.version() == Version::HTTP_11 => {
                Some(Length::Chunked)
            }
            _ => Some(Length::Connection),
        }
    }

    proptest! {
        #[test]
        fn what_is_noted_while_it_is_read_is_what_the_head_says(
            fields in prop::collection::vec(
                (proptest::sample::select(&[
                    "Content-Length", "content-length", "TRANSFER-ENCODING", "transfer-encoding", "Connection", "te",
                    "x-content-length", "Set-Cookie", "cache-control", "Upgrade", "x-transfer-encoding",
                ][..]),
                 proptest::sample::select(&[
                    "5", "05", "", "+5", "5, 5", "99999999999999999999", "chunked", "Chunked", "gzip, chunked", "close",
                    "keep-alive", "Keep-Alive", "Close", "close, keep-alive", "x, Close", "\u{e9}",
                ][..])), 0..5),
            is_old in any::<bool>(),
            code in proptest::sample::select(&[200_u16, 204, 304, 404][..]),
            is_head in any::<bool>(),
        ) {
            let (mut text, mut said) = (format!("HTTP/1.{} {code} OK\r\n", u8::from(!is_old)), Response::new(()));
            *said.version_mut() = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
            for (name, value) in &fields {
                text.push_str(&format!("{name}: {value}\r\n"));
                let name = HeaderName::try_from(*name).unwrap();
                said.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let has_body = !is_head && code != 204 && code != 304;
            let length = if has_body { plain_length(&said) } else { Some(Length::Bytes(0)) };
            let text = format!("HTTP/1.1 103 Early\r\ncontent-length: 7\r\nconnection: close\r\n\r\n{text}\r\n");
            let answer = match (read(&mut BytesMut::from(&*text), &mut 0, is_head), length) {
                (Err(Fault::Length), None) => return Ok(()),
                (answer, _) => answer.unwrap().unwrap(),
            };
            let headers = answer.head.headers();
            let ends = answer.length == Length::Connection;
            prop_assert_eq!(answer.stays_open, !ends && plainly_stays_open(&said));
            let kept = |(name, value): &(&HeaderName, &HeaderValue)| {
                let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
                **name != CONNECTION || !["close", "keep-alive"].contains(&text.as_str())
            };
            let fields = said.headers().iter().filter(kept).map(|(name, value)| (name.clone(), value.clone()));
            prop_assert_eq!(headers, &fields.collect::<HeaderMap>());
            prop_assert_eq!((answer.fields, answer.framed), (Fields::of(headers), Framed::of(headers)));
            prop_assert_eq!(Some(answer.length), length);
        }
    }
}
