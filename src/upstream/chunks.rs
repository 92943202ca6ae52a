//! A body in chunks (RFC 9112, section 7.1), taken apart as it comes.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::{EMPTY_HEADER, Status};

use super::answer::Fault;

/// Where in a body in chunks the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the line that says how large a chunk is.
    #[default]
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// In the end of the line behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
}

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    /// Nothing more comes but this.
    End(HeaderMap),
}

impl Chunks {
    /// Takes the next piece out of `bytes`; `None`: more must come before there is one.
    ///
    /// # Errors
    /// What is not as a body in chunks must be: chunks and the lines of their sizes end in CRLF, trailers as fields of a head
    /// do, and neither a line nor all trailers are longer than 16 KiB.
    pub(super) fn take(&mut self, bytes: &mut BytesMut) -> Result<Option<Piece>, Fault> {
        loop {
            match self {
                Self::Size => match take_size(bytes)? {
                    None => return Ok(None),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(_) if bytes.is_empty() => return Ok(None),
                Self::Data(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= here as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Some(Piece::Data(bytes.split_to(here).freeze())));
                }
                Self::DataEnd => match &**bytes {
                    [b'\r', b'\n', ..] => {
                        bytes.advance(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Fault::Chunks("a chunk is longer than it says")),
                },
                Self::Trailers => return take_trailers(bytes).map(|trailers| trailers.map(Piece::End)),
            }
        }
    }
}

fn take_size(bytes: &mut BytesMut) -> Result<Option<u64>, Fault> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > MOST_LINE { Err(Fault::Chunks("a line is too long")) } else { Ok(None) };
    };
    if end > MOST_LINE {
        return Err(Fault::Chunks("a line is too long"));
    }
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Fault::Chunks("a line ends in a bare LF"))?;
    let size = size(line)?;
    bytes.advance(end + 1);
    Ok(Some(size))
}

/// The size that a line says; extensions are dropped (RFC 9112, section 7.1.1).
fn size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let is_extension = matches!(rest.trim_ascii_start(), [] | [b';', ..]);
    if !is_extension || rest.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(Fault::Chunks("a size is malformed"));
    }
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| Fault::Chunks("a size is malformed"))
}

fn take_trailers(bytes: &mut BytesMut) -> Result<Option<HeaderMap>, Fault> {
    let mut fields = [EMPTY_HEADER; MOST_TRAILERS];
    let (end, trailers) = match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((end, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BAD_TRAILER)?;
                trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| BAD_TRAILER)?);
            }
            (end, trailers)
        }
        Ok(Status::Partial) if bytes.len() <= MOST_LINE => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Fault::Chunks("the trailers are too large"));
        }
        Err(_) => return Err(BAD_TRAILER),
    };
    if end > MOST_LINE {
        return Err(Fault::Chunks("the trailers are too large"));
    }
    bytes.advance(end);
    Ok(Some(trailers))
}

const BAD_TRAILER: Fault = Fault::Chunks("a trailer is malformed");

/// How long the line of a size may be, with what else it says; also how long all trailers.
const MOST_LINE: usize = 16 * 1024;

/// How many trailers there may be.
const MOST_TRAILERS: usize = 64;
