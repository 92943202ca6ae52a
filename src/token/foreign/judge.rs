//! Judging a token of another issuer: the same order and the same strictness as for own ones, and whom it comes to.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::jwks::PublicKey;
use super::{ForeignRefusal, Issuer};
use crate::clock::Timestamp;
use crate::config;
use crate::identity::{Profile, is_group_name};
use crate::policy;
use crate::token::claims::{self, Claims};
use crate::token::jose::{self, Header, Parts};
use crate::token::keys::MAX_KEYS;
use crate::token::verify::{AHEAD, Reason, read_payload};

/// Proof that a token of another issuer holds: only [`Issuer::verify`] makes one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verified {
    claims: Arc<Claims>,
    profile: Arc<Profile>,
    issuer: Arc<Issuer>,
    key: Arc<PublicKey>,
}

impl Verified {
    /// What it says. `sub` is the person's name here, prefix included; `jti` is its name among the tokens of all issuers;
    /// a session of theirs is none of ours.
    pub const fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// What an application is told, where no local account counts.
    pub const fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Whose it is.
    pub const fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Whether the key that signed it is none of its issuer's any more.
    pub fn is_withdrawn(&self) -> bool {
        self.key.is_withdrawn()
    }

    /// Resolves when the key that signed it is none of its issuer's any more.
    pub async fn withdrawn(&self) {
        let mut withdrawals = self.issuer.withdrawals.subscribe();
        while !self.key.is_withdrawn() && withdrawals.changed().await.is_ok() {}
    }

    /// Judges anew, as of `now`, what can have changed since: its expiry, and whether its issuer has withdrawn the key.
    ///
    /// # Errors
    /// Why it does not hold any more.
    pub fn recheck(&self, now: Timestamp) -> Result<(), ForeignRefusal> {
        if self.key.is_withdrawn() {
            return Err(Reason::UnknownKey.into());
        }
        if is_expired(&self.issuer, self.claims.exp, now) { Err(ForeignRefusal::Expired) } else { Ok(()) }
    }
}

/// What a token comes to with the keys that are known.
pub(super) enum Judged {
    Holds(Box<Verified>),
    Refused(ForeignRefusal),
    /// No key that is known could have signed it, and nothing else speaks against it.
    UnknownKey(String),
}

pub(super) fn judge(issuer: &Arc<Issuer>, token: &str, now: Timestamp) -> Judged {
    try_judge(issuer, token, now).unwrap_or_else(Judged::Refused)
}

fn try_judge(issuer: &Arc<Issuer>, token: &str, now: Timestamp) -> Result<Judged, ForeignRefusal> {
    let parts = Parts::split(token)?;
    let header = Header::read(parts.header)?;
    if !issuer.config.algorithms.iter().any(|algorithm| jose::algorithm_name(*algorithm) == header.algorithm) {
        return Err(Reason::Algorithm.into());
    }
    let payload = read_payload(parts.payload)?;
    let keys = issuer.keys.load();
    let key = match find_key(keys.as_ref().map_or(&[], |keys| keys), &header, &parts) {
        Ok(key) => Arc::clone(key),
        Err(Reason::UnknownKey) => {
            // What could not pass with any key is no reason to ask the issuer for more of them. Without any key nothing can be
            // said yet.
            if keys.is_some() {
                judge_claims(issuer, &payload, &header, now).map_err(|_| Reason::UnknownKey)?;
            }
            return Ok(Judged::UnknownKey(header.key_id.unwrap_or_default()));
        }
        Err(reason) => return Err(reason.into()),
    };
    let mut claims = judge_claims(issuer, &payload, &header, now)?;
    let profile = profile(&issuer.config, &claims.sub, &payload).ok_or(Reason::Person)?;
    claims.all = Arc::new(payload);
    let (claims, profile) = (Arc::new(claims), Arc::new(profile));
    Ok(Judged::Holds(Box::new(Verified { claims, profile, issuer: Arc::clone(issuer), key })))
}

/// The key whose signature it is: of those with the token's `kid`, else of those without any. Several may have one `kid`.
fn find_key<'a>(keys: &'a [Arc<PublicKey>], header: &Header, parts: &Parts<'_>) -> Result<&'a Arc<PublicKey>, Reason> {
    let of_algorithm = || keys.iter().filter(|key| key.takes(&header.algorithm));
    let holds = |key: &&Arc<PublicKey>| key.verifies(&header.algorithm, parts.signed.as_bytes(), &parts.signature);
    let Some(key_id) = &header.key_id else {
        // Without a name it may be of a key that is not known yet.
        return of_algorithm().take(MAX_KEYS).find(holds).ok_or(Reason::UnknownKey);
    };
    let mut named = of_algorithm().filter(|key| key.key_id() == Some(key_id)).take(MAX_KEYS).peekable();
    if named.peek().is_some() {
        return named.find(holds).ok_or(Reason::Signature);
    }
    of_algorithm().filter(|key| key.key_id().is_none()).take(MAX_KEYS).find(holds).ok_or(Reason::UnknownKey)
}

fn judge_claims(
    issuer: &Issuer,
    payload: &Map<String, Value>,
    header: &Header,
    now: Timestamp,
) -> Result<Claims, ForeignRefusal> {
    let config = &issuer.config;
    if payload.get("iss").and_then(Value::as_str) != Some(config.issuer.as_str()) {
        return Err(Reason::Claim("iss").into());
    }
    let aud = claims::audience(payload, &config.audience)?;
    let exp = claims::required_date(payload, "exp")?;
    if is_expired(issuer, exp, now) {
        return Err(ForeignRefusal::Expired);
    }
    if !header.typed_as_access_token {
        return Err(Reason::Type.into());
    }
    let latest = now + AHEAD;
    let iat = claims::date(payload, "iat")?;
    if iat.is_some_and(|iat| Timestamp::from_secs(iat) > latest) {
        return Err(Reason::IssuedAhead.into());
    }
    if claims::date(payload, "nbf")?.is_some_and(|nbf| Timestamp::from_secs(nbf) > latest) {
        return Err(Reason::NotYetValid.into());
    }
    if Timestamp::from_secs(exp).since(iat.map_or(now, Timestamp::from_secs)) > config.max_lifetime {
        return Err(Reason::LivesTooLong.into());
    }
    // No two tokens of different issuers have one name, nor does one of theirs have the name of one of ours.
    let jti =
        claims::text(payload, "jti")?.filter(|jti| !jti.is_empty()).map(|jti| format!("{}\n{jti}", config.issuer));
    Ok(Claims {
        iss: config.issuer.clone(),
        sub: name(config, payload)?,
        aud,
        // A token that does not say when it was issued counts as older than any event.
        iat: iat.unwrap_or(0),
        exp,
        jti,
        sid: None,
        auth_time: claims::date(payload, "auth_time")?,
        amr: Vec::new(),
        // They stand in the profile.
        groups: Vec::new(),
        scope: scope(payload),
        all: Arc::default(),
    })
}

/// Whom a token comes to on the terms of `config` that said `payload` and held when it was shown; `None`: it would not hold,
/// or names nobody. Pure: keys and clocks are not asked.
pub fn person_of(config: &config::Issuer, payload: &Map<String, Value>) -> Option<Profile> {
    let is_its = payload.get("iss").and_then(Value::as_str) == Some(config.issuer.as_str());
    let audience = claims::audience(payload, &config.audience).ok().filter(|_| is_its);
    let (exp, iat) = (claims::required_date(payload, "exp").ok()?, claims::date(payload, "iat").ok()?);
    let lives = iat.map_or(Duration::ZERO, |iat| Timestamp::from_secs(exp).since(Timestamp::from_secs(iat)));
    audience.filter(|_| lives <= config.max_lifetime)?;
    profile(config, &name(config, payload).ok()?, payload)
}

fn is_expired(issuer: &Issuer, exp: u64, now: Timestamp) -> bool {
    now >= Timestamp::from_secs(exp) + issuer.config.leeway
}

/// Who it is: text in the claim that the configuration names. An e-mail address only where the issuer says that it is verified.
fn name(config: &config::Issuer, payload: &Map<String, Value>) -> Result<String, Reason> {
    if config.user == EMAIL && !is_email_verified(payload) {
        return Err(Reason::EmailNotVerified);
    }
    match policy::claim(payload, &config.user) {
        Some(Value::String(name)) if claims::is_speakable(name) => {
            let name = format!("{}{name}", config.user_prefix);
            let is_own = !config.others_users.iter().any(|other| name.starts_with(other));
            if is_own && claims::is_speakable(&name) { Ok(name) } else { Err(Reason::Person) }
        }
        _ => Err(Reason::Person),
    }
}

/// What is not text is no group, nor is what no group can be called, or what only another issuer's can be.
fn groups(config: &config::Issuer, payload: &Map<String, Value>) -> Vec<String> {
    let named = match policy::claim(payload, &config.groups) {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let count = named.len();
    let own =
        named.into_iter().filter(|group| is_group_name(group)).map(|group| format!("{}{group}", config.group_prefix));
    let own: Vec<String> =
        own.filter(|group| !config.others_groups.iter().any(|other| group.starts_with(other))).collect();
    if own.len() < count {
        let left_out = count - own.len();
        tracing::debug!(issuer = &*config.name, left_out, "groups of a token are left out: no group is called so");
    }
    own
}

/// `scope` (RFC 9068 section 2.2.3), or `scp` as some issuers call it: words in one text, or a list of words.
fn scope(payload: &Map<String, Value>) -> String {
    let words = |name: &str| match payload.get(name) {
        Some(Value::String(words)) => Some(words.clone()),
        Some(Value::Array(list)) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    };
    words("scope").or_else(|| words("scp")).unwrap_or_default()
}

fn profile(config: &config::Issuer, name: &str, payload: &Map<String, Value>) -> Option<Profile> {
    let email = payload.get(EMAIL).and_then(Value::as_str).filter(|_| is_email_verified(payload));
    let full_name = payload.get("name").and_then(Value::as_str);
    Profile::new(name, &groups(config, payload), email, full_name)
}

/// OpenID Connect Core section 5.1: a boolean, so that no text is taken for one.
fn is_email_verified(payload: &Map<String, Value>) -> bool {
    payload.get("email_verified") == Some(&Value::Bool(true))
}

const EMAIL: &str = "email";
