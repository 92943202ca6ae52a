//! The proof of a WebSocket's handshake over HTTP/1.1 (RFC 6455, section 4.1), where the client had none to ask for.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderMap, HeaderValue};

use crate::secret::Random;

/// A key that was made here, for one handshake.
#[derive(Clone, Debug)]
pub(super) struct Key(String);

impl Key {
    /// A new one.
    pub(super) fn new(random: &Random) -> Self {
        Self(STANDARD.encode(random.bytes::<16>()))
    }

    /// As it stands in the request.
    pub(super) fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }

    /// Whether the answer proves that it was read, once and rightly.
    pub(super) fn is_answered(&self, headers: &HeaderMap) -> bool {
        let mut answers = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let is_right = answers.next().is_some_and(|answer| answer.as_bytes() == self.accept().as_bytes());
        is_right && answers.next().is_none()
    }

    fn accept(&self) -> String {
        let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        digest.update(self.0.as_bytes());
        digest.update(RFC_6455);
        STANDARD.encode(digest.finish())
    }
}

/// What every server adds to the key (RFC 6455, section 1.3).
const RFC_6455: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_answer_of_the_rfc_and_takes_no_other() {
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        let answers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(value));
            }
            key.is_answered(&headers)
        };
        let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(answers(&[right]));
        assert!(!answers(&[]) && !answers(&["S3pPLMBiTxaQ9kYGzzhZRbK+xOo="]) && !answers(&[right, right]));
    }

    #[test]
    fn no_two_handshakes_have_the_same_key() {
        let random = Random::system();
        let (one, other) = (Key::new(&random), Key::new(&random));
        assert_ne!(one.0, other.0);
        assert_eq!(STANDARD.decode(&one.0).unwrap().len(), 16);
    }
}
