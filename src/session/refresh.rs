//! Refresh tokens: the session's id, a generation and an HMAC of both under a key of the server.
//!
//! So the successor of a token can be said again without having been kept; the store holds its hash only.
//! Each is good for one use (RFC 9700 section 4.14.2): the use makes its successor, a repeat within ten seconds gets the same
//! successor again (a lost answer, a second tab), and a later one can only be a thief's or the victim's, so it ends the session.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Sessions, sha256};
use crate::secret::Secret;
use crate::store::{Rotated, Rotation, SessionRecord, StoreError};

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

    /// What `token` says, if it was made with this key; in time that tells nothing of the right one.
    pub fn read(&self, token: &str) -> Option<Presented> {
        // The decoder refuses stray bits at the end, so one token has one spelling.
        let mut bytes = [0; 53];
        let length = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()?;
        let (said, tag) = bytes.get(..length).filter(|bytes| bytes.len() == 52)?.split_at(20);
        hmac::verify(&self.0, said, tag).ok()?;
        let (session, generation) = said.split_at(16);
        Some(Presented {
            session: session.try_into().ok()?,
            generation: u32::from_be_bytes(generation.try_into().ok()?),
        })
    }
}

/// A refresh token that was made here. Whether its session lives is the store's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    session: [u8; 16],
    generation: u32,
}

impl Presented {
    /// The session that it belongs to.
    pub fn session(&self) -> String {
        session_id(&self.session)
    }

    /// Which of the session's refresh tokens it is, counted from 0.
    pub const fn generation(&self) -> u32 {
        self.generation
    }
}

/// What a refresh token came to.
#[derive(Debug)]
pub enum Refreshed {
    /// It was good.
    Renewed {
        /// The session.
        session: SessionRecord,
        /// The next refresh token.
        token: Secret<String>,
    },
    /// It was used before, and not just now: the session has been ended.
    Reused {
        /// The session as it was.
        session: SessionRecord,
    },
    /// It is not good. The text is for the log.
    Refused(&'static str),
}

impl Sessions {
    /// What `token` says, if it is a refresh token that was made here.
    pub fn presented(&self, token: &str) -> Option<Presented> {
        self.refresh.read(token)
    }

    /// Uses a refresh token.
    ///
    /// # Errors
    /// When the store gives no answer: then it may be presented again.
    pub async fn refresh(&self, token: &str) -> Result<Refreshed, StoreError> {
        let Some(presented) = self.presented(token) else {
            return Ok(Refreshed::Refused("not a refresh token of this gateway"));
        };
        let Some(next) = presented.generation.checked_add(1) else {
            return Ok(Refreshed::Refused("the last of its kind"));
        };
        let successor = self.refresh.token(&presented.session, next);
        let rotation = Rotation {
            session: presented.session(),
            generation: presented.generation,
            hash: sha256(token.as_bytes()),
            successor: sha256(successor.expose().as_bytes()),
            grace: GRACE,
            idle: self.idle(),
        };
        Ok(match self.store.rotate_refresh(rotation).await? {
            Rotated::Renewed(session) | Rotated::Repeated(session) => Refreshed::Renewed { session, token: successor },
            Rotated::Reused(session) => Refreshed::Reused { session },
            Rotated::Over => Refreshed::Refused("the session has passed its time"),
            Rotated::Unknown => Refreshed::Refused("the session has ended"),
        })
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

/// For how long a refresh token that was used may be used again.
const GRACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_it_made() {
        let (one, other) = (RefreshKey::new(&Secret::new([1; 32])), RefreshKey::new(&Secret::new([2; 32])));
        let token = one.token(&[7; 16], 3).expose().clone();
        assert_eq!(one.read(&token), Some(Presented { session: [7; 16], generation: 3 }));
        assert_eq!(other.read(&token), None);
        let mut tried = 0;
        for at in 0..token.len() {
            for letter in ["A", "_", "=", "."] {
                let mut changed = token.clone();
                changed.replace_range(at..=at, letter);
                if changed != token {
                    assert_eq!(one.read(&changed), None, "{changed}");
                    tried += 1;
                }
            }
        }
        assert!(tried > 200);
        for bad in
            ["", "x", &token[1..], &token[..66], &format!("{token}A"), &format!("{token}="), &format!(" {token}")]
        {
            assert_eq!(one.read(bad), None, "{bad:?}");
        }
    }

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
