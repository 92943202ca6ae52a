//! What a head says of how its body is framed (RFC 9112, section 6.3), noted in one pass and judged by nobody here: what may
//! not pass is for `proxy::framing` to say, and where a body ends for whoever reads it.

use http::{HeaderMap, HeaderValue};

use super::survey::Fields;

/// What the fields `Transfer-Encoding` and `Content-Length` of a head say. Small, as it goes with the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// Of transfer codings; plain is exactly one `chunked`.
    pub coding: Said,
    /// Of a length; plain is one that is nothing but digits.
    pub length: Said,
}

/// How something is said of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said {
    /// Not at all.
    #[default]
    Nothing,
    /// Once, and as it must be.
    Plainly,
    /// More than once, or otherwise.
    Oddly,
}

impl Framed {
    /// What `headers` say.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut framed = Self::default();
        for (name, value) in headers {
            // By the length first, which no other field of most heads has.
            if matches!(name.as_str().len(), 14 | 17) {
                framed.note(Fields::named(name.as_str()), value);
            }
        }
        framed
    }

    /// One more field of the head, which is among the fields `named`, has this `value`.
    pub fn note(&mut self, named: Fields, value: &HeaderValue) {
        let text = value.as_bytes();
        if named.may_have(Fields::TRANSFER_ENCODING) {
            self.coding = self.coding.again(text.eq_ignore_ascii_case(b"chunked"));
        } else if named.may_have(Fields::CONTENT_LENGTH) {
            self.length = self.length.again(!text.is_empty() && text.iter().all(u8::is_ascii_digit));
        }
    }
}

impl Said {
    /// What it is with one more word, which is plain or not.
    const fn again(self, is_plain: bool) -> Self {
        match self {
            Self::Nothing if is_plain => Self::Plainly,
            Self::Nothing | Self::Plainly | Self::Oddly => Self::Oddly,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::Said::{Nothing, Oddly, Plainly};
    use super::*;

    #[test]
    fn one_plain_word_is_told_from_all_others() {
        for (fields, coding, length) in [
            (&[("host", "a"), ("x-rate-limited", "5"), ("x-content-lang", "5")][..], Nothing, Nothing),
            (&[("transfer-encoding", "Chunked")], Plainly, Nothing),
            (&[("transfer-encoding", "gzip, chunked")], Oddly, Nothing),
            (&[("transfer-encoding", "x"), ("transfer-encoding", "chunked")], Oddly, Nothing),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Oddly, Nothing),
            (&[("content-length", "05")], Nothing, Plainly),
            (&[("content-length", "99999999999999999999")], Nothing, Plainly),
            (&[("content-length", "5"), ("content-length", "5")], Nothing, Oddly),
            (&[("content-length", "+5")], Nothing, Oddly),
            (&[("content-length", "")], Nothing, Oddly),
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], Plainly, Plainly),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(Framed::of(&headers), Framed { coding, length }, "{fields:?}");
        }
    }
}
