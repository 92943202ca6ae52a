//! Refresh tokens: the session's id, a generation and an HMAC of both under a key of the server.
//!
//! So the successor of a token can be said again without having been kept; the store holds its hash only.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;

/// The key under which refresh tokens are made.
#[derive(Debug)]
pub struct RefreshKey(hmac::Key);

impl RefreshKey {
    /// The key made of the server's secret.
    pub fn new(secret: &Secret<[u8; 32]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))
    }

    /// The refresh token of a session's `generation`: 52 bytes as base64url.
    pub fn token(&self, session: &[u8; 16], generation: u32) -> Secret<String> {
        let mut bytes = Vec::with_capacity(52);
        bytes.extend_from_slice(session);
        bytes.extend_from_slice(&generation.to_be_bytes());
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        Secret::new(text(&bytes))
    }
}

/// A session's id as it stands in tokens and tables.
pub fn session_id(raw: &[u8; 16]) -> String {
    text(raw)
}

/// Bytes as unpadded base64url.
pub(super) fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_by_session_generation_and_key() {
        let (one, other) = (RefreshKey::new(&Secret::new([1; 32])), RefreshKey::new(&Secret::new([2; 32])));
        let token = one.token(&[7; 16], 0);
        assert_eq!(token.expose(), one.token(&[7; 16], 0).expose());
        for different in [one.token(&[7; 16], 1), one.token(&[8; 16], 0), other.token(&[7; 16], 0)] {
            assert_ne!(token.expose(), different.expose());
        }
    }
}
