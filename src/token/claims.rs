//! What a token says, read strictly: every claim that is used has its type, and a subject can stand in a header.
//!
//! Only the form is judged here; issuer, audience and times are `verify`'s.

use std::sync::Arc;

use serde_json::{Map, Value};
use unicode_normalization::is_nfc;

use super::verify::Reason;

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// Whom it names.
    pub sub: String,
    /// For whom it is; never empty.
    pub aud: Vec<String>,
    /// When it was issued, in seconds since the epoch.
    pub iat: u64,
    /// When it ends, in seconds since the epoch.
    pub exp: u64,
    /// Its own name.
    pub jti: Option<String>,
    /// The session it belongs to; a token minted elsewhere has none.
    pub sid: Option<String>,
    /// When the password was given, in seconds since the epoch.
    pub auth_time: Option<u64>,
    /// How the person signed in (RFC 8176).
    pub amr: Vec<String>,
    /// The groups at the time of issue. An account's groups as they are now count instead.
    pub groups: Vec<String>,
    /// Scopes, separated by spaces (RFC 9068 section 2.2.3).
    pub scope: String,
    /// The whole payload.
    pub all: Arc<Map<String, Value>>,
}

impl Claims {
    /// The scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|scope| !scope.is_empty())
    }
}

/// Whom an `aud` claim names, one of `audience` among them: a string, or a list of nothing but strings (RFC 7519 section 4.1.3).
pub(super) fn audience(payload: &Map<String, Value>, audience: &[String]) -> Result<Vec<String>, Reason> {
    let named = match payload.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => strings(many).ok_or(Reason::Claim("aud"))?,
        _ => return Err(Reason::Claim("aud")),
    };
    if named.iter().any(|one| audience.contains(one)) { Ok(named) } else { Err(Reason::Audience) }
}

/// A date that must be there.
pub(super) fn required_date(payload: &Map<String, Value>, name: &'static str) -> Result<u64, Reason> {
    date(payload, name)?.ok_or(Reason::Claim(name))
}

/// A NumericDate (RFC 7519 section 2): a number of seconds, a fraction of which is dropped.
pub(super) fn date(payload: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Reason> {
    let number = match payload.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(Reason::Claim(name)),
    };
    if let Some(whole) = number.as_u64() {
        return if whole < EXACT_BELOW { Ok(Some(whole)) } else { Err(Reason::Claim(name)) };
    }
    match number.as_f64() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "not negative and below 2^53 by the guard; dropping the fraction is meant"
        )]
        Some(value) if value >= 0.0 && value < EXACT_BELOW as f64 => Ok(Some(value as u64)),
        _ => Err(Reason::Claim(name)),
    }
}

/// The subject: text that names one person, and that can be said to an application without being changed.
pub(super) fn subject(payload: &Map<String, Value>) -> Result<String, Reason> {
    match payload.get("sub") {
        Some(Value::String(name)) if is_speakable(name) => Ok(name.clone()),
        _ => Err(Reason::Claim("sub")),
    }
}

/// A string that need not be there.
pub(super) fn text(payload: &Map<String, Value>, name: &'static str) -> Result<Option<String>, Reason> {
    match payload.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value.clone())),
        Some(_) => Err(Reason::Claim(name)),
    }
}

/// A list of strings that need not be there.
pub(super) fn texts(payload: &Map<String, Value>, name: &'static str) -> Result<Vec<String>, Reason> {
    match payload.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => strings(values).ok_or(Reason::Claim(name)),
        Some(_) => Err(Reason::Claim(name)),
    }
}

/// Two spellings of one character would be two names that look alike, so only the composed form counts.
pub(super) fn is_speakable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_SUBJECT_BYTES
        && !name.contains(char::is_control)
        && !name.starts_with(char::is_whitespace)
        && !name.ends_with(char::is_whitespace)
        && is_nfc(name)
}

fn strings(values: &[Value]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

const MAX_SUBJECT_BYTES: usize = 256;

/// From here on not every whole number is a JSON number that every reader reads alike (RFC 8259 section 6).
const EXACT_BELOW: u64 = 1 << 53;
