//! Signing own tokens.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::jose::{MAX_TOKEN_BYTES, algorithm_name};
use super::key::Key;
use super::keys::KeySet;
use crate::clock::Timestamp;

/// What a new token is to say; issuer, audience, lifetime and its own name are the key set's.
#[derive(Clone, Copy, Debug)]
pub struct NewClaims<'a> {
    /// Whom it names.
    pub subject: &'a str,
    /// The time.
    pub now: Timestamp,
    /// The session it belongs to.
    pub session: Option<&'a str>,
    /// When the password was given.
    pub signed_in_at: Option<Timestamp>,
    /// How the person signed in (RFC 8176).
    pub methods: &'a [String],
    /// Their groups.
    pub groups: &'a [String],
    /// Scopes, separated by spaces.
    pub scope: &'a str,
    /// When it ends at the latest, such as the end of its session.
    pub not_after: Option<Timestamp>,
}

impl KeySet {
    /// A token that says `claims`, signed with the newest key whose time has come.
    ///
    /// Groups that would make it longer than a token may be are left out: it would be refused on its way back, and an
    /// account's groups are looked up at every request anyway.
    ///
    /// # Errors
    /// [`SignError::TooLong`] when it is too long without groups too, [`SignError::Crypto`] when the key can't sign.
    pub fn sign(&self, claims: &NewClaims<'_>) -> Result<String, SignError> {
        let jti = self.random().token::<16>();
        let token = self.sign_with(claims, claims.groups, &jti)?;
        if token.len() <= MAX_TOKEN_BYTES {
            return Ok(token);
        }
        tracing::warn!(user = claims.subject, groups = claims.groups.len(), "too many groups for a token, left out");
        let token = self.sign_with(claims, &[], &jti)?;
        if token.len() <= MAX_TOKEN_BYTES { Ok(token) } else { Err(SignError::TooLong { bytes: token.len() }) }
    }

    /// How long a token of [`KeySet::sign`] lives.
    pub fn lifetime(&self) -> Duration {
        self.terms().lifetime
    }

    fn sign_with(&self, claims: &NewClaims<'_>, groups: &[String], jti: &str) -> Result<String, SignError> {
        let key = self.signing_key(claims.now);
        let iat = claims.now.as_secs();
        let header = HeaderJson { typ: "JWT", alg: algorithm_name(key.algorithm()), kid: key.id() };
        let payload = PayloadJson {
            iss: &self.terms().issuer,
            sub: claims.subject,
            aud: &self.terms().audience,
            iat,
            exp: claims
                .not_after
                .map_or(u64::MAX, Timestamp::as_secs)
                .min(iat.saturating_add(self.terms().lifetime.as_secs())),
            jti,
            sid: claims.session,
            auth_time: claims.signed_in_at.map(Timestamp::as_secs),
            amr: claims.methods,
            groups,
            scope: claims.scope,
        };
        signed(key, &header, &payload)
    }
}

/// The JWS of `header` and `payload` in compact serialization (RFC 7515 section 7.1).
pub(super) fn signed(key: &Key, header: &HeaderJson<'_>, payload: &impl Serialize) -> Result<String, SignError> {
    let mut token = encode(header)?;
    token.push('.');
    token.push_str(&encode(payload)?);
    let signature = key.sign(token.as_bytes()).ok_or(SignError::Crypto)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// Why a token could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// It would be longer than a token may be.
    TooLong {
        /// How long, without groups.
        bytes: usize,
    },
    /// The cryptographic library refused.
    Crypto,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a token of {bytes} bytes is over the limit of {MAX_TOKEN_BYTES}"),
            Self::Crypto => f.write_str("the signing key can't sign"),
        }
    }
}

impl std::error::Error for SignError {}

fn encode(json: &impl Serialize) -> Result<String, SignError> {
    // Strings and numbers always serialize; the error is only there in the type.
    serde_json::to_vec(json).map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| SignError::Crypto)
}

/// The header of a token (RFC 7515 section 4.1).
#[derive(Serialize)]
pub(super) struct HeaderJson<'a> {
    pub(super) typ: &'a str,
    pub(super) alg: &'a str,
    pub(super) kid: &'a str,
}

#[derive(Serialize)]
struct PayloadJson<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    amr: &'a [String],
    groups: &'a [String],
    scope: &'a str,
}

#[cfg(test)]
mod tests {
    use super::super::forge::{ALL, Mint, NOW, now};
    use super::super::install_crypto;
    use super::*;

    fn alice(groups: &[String]) -> NewClaims<'_> {
        NewClaims {
            subject: "alice",
            now: now(),
            session: None,
            signed_in_at: None,
            methods: &[],
            groups,
            scope: "",
            not_after: None,
        }
    }

    #[test]
    fn another_library_reads_what_is_signed_here() {
        install_crypto();
        for algorithm in ALL {
            let mint = Mint::new(algorithm);
            let token = mint.set.sign(&alice(&[])).unwrap();
            let name: jsonwebtoken::Algorithm = algorithm_name(algorithm).parse().unwrap();
            let mut validation = jsonwebtoken::Validation::new(name);
            validation.set_audience(&["portcullis"]);
            validation.validate_exp = false;
            let key = match mint.set.verification_keys(now())["keys"].get(0) {
                Some(jwk) => {
                    let jwk = serde_json::from_value(jwk.clone()).unwrap();
                    jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap()
                }
                None => jsonwebtoken::DecodingKey::from_secret(mint.key.material.expose()),
            };
            let read = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).unwrap();
            assert_eq!(read.header.kid.as_deref(), Some(mint.set.signing_key_id(now())));
            assert_eq!(read.header.typ.as_deref(), Some("JWT"));
            assert_eq!(read.claims["sub"], "alice", "{algorithm:?}");
            assert_eq!(read.claims["exp"], NOW + 900);
        }
    }

    #[test]
    fn no_two_tokens_have_one_name() {
        let mint = Mint::new(crate::config::Algorithm::HS256);
        let id = || {
            let token = mint.set.sign(&alice(&[])).unwrap();
            mint.set.verify(&token, now()).unwrap().claims().jti.clone().unwrap()
        };
        assert_ne!(id(), id());
    }

    #[test]
    fn too_many_groups_are_left_out_rather_than_locking_the_user_out() {
        let mint = Mint::new(crate::config::Algorithm::HS256);
        let many: Vec<String> = (0..1000).map(|n| format!("group-{n}")).collect();
        let token = mint.set.sign(&alice(&many)).unwrap();
        assert!(mint.set.verify(&token, now()).unwrap().claims().groups.is_empty());
        let scope = "s".repeat(MAX_TOKEN_BYTES);
        let error = mint.set.sign(&NewClaims { scope: &scope, ..alice(&many) }).unwrap_err();
        assert!(matches!(error, SignError::TooLong { bytes } if bytes > MAX_TOKEN_BYTES));
    }
}
