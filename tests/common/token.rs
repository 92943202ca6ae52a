//! Tokens written by hand: any header, any payload, a right or wrong signature.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The secret of [`super::Setup::shared_secret`], as long as SHA-512 wants it.
pub(crate) const SECRET: &str = "k7Qd2vXe9RbTn4WmZc8YpLs3HfJu6GaA1xKoV5tBiNqEwMrDyUzCgSjPhOlFIX0e";
/// The issuer there.
pub(crate) const ISSUER: &str = "http://gateway.test";

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the sun dies")
}

/// The claims of a token of `subject` that nothing is wrong with.
pub(crate) fn claims(subject: &str) -> Value {
    let now = now();
    json!({
        "iss": ISSUER,
        "sub": subject,
        "aud": "portcullis",
        "iat": now,
        "exp": now + 600,
        "jti": format!("test-{subject}-{now}"),
    })
}

/// [`claims`] with some replaced; `null` leaves one out.
pub(crate) fn claims_with(subject: &str, changes: Value) -> Value {
    let mut claims = claims(subject);
    let members = claims.as_object_mut().expect("claims are an object");
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    claims
}

/// A token with the usual header.
pub(crate) fn mint(claims: &Value) -> String {
    mint_raw(r#"{"alg":"HS256","typ":"JWT"}"#, claims.to_string().as_bytes())
}

/// A token with any header and payload, signed with [`SECRET`].
pub(crate) fn mint_raw(header: &str, payload: &[u8]) -> String {
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
    let signature = sign(hmac::HMAC_SHA256, SECRET.as_bytes(), signed.as_bytes());
    format!("{signed}.{signature}")
}

/// A token signed with another algorithm or key.
pub(crate) fn mint_with(algorithm: hmac::Algorithm, key: &[u8], header: &str, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = sign(algorithm, key, signed.as_bytes());
    format!("{signed}.{signature}")
}

/// An encoded MAC over `text` as it is.
pub(crate) fn sign(algorithm: hmac::Algorithm, key: &[u8], text: &[u8]) -> String {
    encode(hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref())
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims of a token, unverified.
pub(crate) fn claims_of(token: &str) -> Value {
    part_of(token, 1)
}

/// The header of a token.
pub(crate) fn header_of(token: &str) -> Value {
    part_of(token, 0)
}

fn part_of(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a token has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}
