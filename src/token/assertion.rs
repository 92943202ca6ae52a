//! Assertions: short tokens that tell an application who is there, signed so that it need not trust its network.
//!
//! They have keys of their own, `typ` `assertion+jwt` and the upstream's name as audience, so that none of them is ever
//! taken for a credential. One is made per person and upstream, and sent again while half of its life is left.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;
use quick_cache::sync::Cache;
use serde::Serialize;
use serde_json::Value;

use super::issue::{HeaderJson, signed};
use super::jose::{MAX_TOKEN_BYTES, algorithm_name};
use super::{KeySet, SignError};
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::identity::Identity;

/// What assertions are signed with, whatever own tokens are.
pub const ASSERTION_ALGORITHM: Algorithm = Algorithm::ES256;

/// How long an assertion lives.
pub const ASSERTION_LIFETIME: Duration = Duration::from_secs(300);

/// Makes assertions, and remembers them in bounded memory.
#[derive(Debug)]
pub struct Assertions {
    keys: ArcSwap<KeySet>,
    made: Cache<Said, Arc<Made>>,
}

/// The SHA-256 of all that an assertion says of a person, and to whom: whatever changes finds no former one.
type Said = [u8; 32];

#[derive(Debug)]
struct Made {
    value: HeaderValue,
    at: Timestamp,
    key_id: String,
}

impl Assertions {
    /// Makes assertions with `keys`, which no credential is verified with.
    pub fn new(keys: KeySet) -> Self {
        Self { keys: ArcSwap::from_pointee(keys), made: Cache::new(MOST) }
    }

    /// What `upstream` is told of `identity`, as a header's value.
    ///
    /// # Errors
    /// When the key can't sign, or what there is to say is too long even without groups.
    pub fn header(&self, identity: &Identity, upstream: &str, now: Timestamp) -> Result<HeaderValue, SignError> {
        let said = said(identity, upstream);
        let keys = self.keys.load();
        let key_id = keys.signing_key_id(now);
        if let Some(made) = self.made.get(&said)
            && made.is_young(now)
            && made.key_id == key_id
        {
            return Ok(made.value.clone());
        }
        let token = sign(&keys, identity, upstream, now)?;
        let mut value = HeaderValue::try_from(token).map_err(|_| SignError::Crypto)?;
        value.set_sensitive(true);
        self.made.insert(said, Arc::new(Made { value: value.clone(), at: now, key_id: key_id.to_owned() }));
        Ok(value)
    }

    /// What makes assertions with `keys` under another configuration. What was made before may say another issuer.
    pub(super) fn succeeded_by(&self, keys: KeySet) -> Self {
        Self::new(keys.following(&self.keys.load()))
    }

    pub(super) fn replace(&self, keys: KeySet) {
        let keys = keys.following(&self.keys.load());
        self.keys.store(Arc::new(keys));
    }

    pub(super) fn public_keys(&self, now: Timestamp) -> Vec<Value> {
        self.keys.load().public_keys(now).cloned().collect()
    }
}

impl Made {
    /// Whether at least half of its life is left. One from a time to come is none: the clock was set back.
    fn is_young(&self, now: Timestamp) -> bool {
        self.at <= now && now.since(self.at) <= ASSERTION_LIFETIME / 2
    }
}

fn sign(keys: &KeySet, identity: &Identity, upstream: &str, now: Timestamp) -> Result<String, SignError> {
    let (profile, jti) = (&identity.profile, keys.random().token::<16>());
    let key = keys.signing_key(now);
    let header = HeaderJson { typ: "assertion+jwt", alg: algorithm_name(key.algorithm()), kid: key.id() };
    let payload = |groups| PayloadJson {
        iss: &keys.terms().issuer,
        sub: &profile.user,
        aud: upstream,
        iat: now.as_secs(),
        exp: now.as_secs().saturating_add(ASSERTION_LIFETIME.as_secs()),
        jti: &jti,
        groups,
        email: profile.email.as_deref(),
        name: profile.name.as_deref(),
        auth_time: identity.signed_in_at.map(Timestamp::as_secs),
        amr: &identity.methods,
    };
    let token = signed(key, &header, &payload(&profile.groups))?;
    if token.len() <= MAX_TOKEN_BYTES {
        return Ok(token);
    }
    tracing::warn!(user = profile.user, groups = profile.groups.len(), "too many groups for an assertion, left out");
    let token = signed(key, &header, &payload(&[]))?;
    if token.len() <= MAX_TOKEN_BYTES { Ok(token) } else { Err(SignError::TooLong { bytes: token.len() }) }
}

fn said(identity: &Identity, upstream: &str) -> Said {
    let mut context = Context::new(&SHA256);
    // Each piece behind its length, so that no two lists of pieces are one text.
    let mut add = |piece: &str| {
        context.update(&(piece.len() as u64).to_be_bytes());
        context.update(piece.as_bytes());
    };
    let profile = &identity.profile;
    add(upstream);
    add(&profile.user);
    for piece in [&profile.email, &profile.name] {
        add(if piece.is_some() { "1" } else { "0" });
        add(piece.as_deref().unwrap_or_default());
    }
    for list in [&profile.groups, &identity.methods] {
        add(&list.len().to_string());
        list.iter().for_each(|piece| add(piece));
    }
    add(&identity.signed_in_at.map_or_else(String::new, |at| at.as_secs().to_string()));
    let mut said = [0; 32];
    said.copy_from_slice(context.finish().as_ref());
    said
}

#[derive(Serialize)]
struct PayloadJson<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<u64>,
    amr: &'a [String],
}

/// Assertions kept: some twenty megabytes at most.
const MOST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::forge::{NOW, key, tokens};
    use super::super::{Keyring, Reason, Refusal};
    use super::*;
    use crate::config::KeySource;
    use crate::identity::Profile;
    use crate::secret::Random;

    fn set() -> KeySet {
        let tokens = tokens(ASSERTION_ALGORITHM, KeySource::Store);
        KeySet::new(&tokens, &[key(ASSERTION_ALGORITHM)], Random::system()).unwrap()
    }

    fn identity(groups: &[String], signed_in_at: u64) -> Identity {
        Identity {
            profile: Arc::new(Profile::new("alice", groups, Some("a@example.com"), Some("Alice Ünger")).unwrap()),
            scopes: Vec::new(),
            claims: Arc::default(),
            methods: vec!["password".to_owned()],
            signed_in_at: Some(Timestamp::from_secs(signed_in_at)),
            session: None,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(NOW + seconds)
    }

    fn parts(value: &HeaderValue) -> [Value; 2] {
        let text = value.to_str().unwrap();
        let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let mut parts = text.split('.');
        [(); 2].map(|()| read(parts.next().unwrap()))
    }

    #[test]
    fn says_who_is_there_and_to_whom() {
        let assertions = Assertions::new(set());
        let groups = ["admin".to_owned(), "a b".to_owned()];
        let value = assertions.header(&identity(&groups, NOW - 9), "app", at(0)).unwrap();
        let [header, mut claims] = parts(&value);
        let kid = &assertions.public_keys(at(0))[0]["kid"];
        assert_eq!(header, serde_json::json!({ "typ": "assertion+jwt", "alg": "ES256", "kid": kid }));
        assert_eq!(claims["jti"].take().as_str().map(str::len), Some(22));
        let expected = serde_json::json!({
            "iss": super::super::forge::ISSUER, "sub": "alice", "aud": "app", "iat": NOW, "exp": NOW + 300, "jti": null,
            "groups": ["admin", "a b"], "email": "a@example.com", "name": "Alice Ünger",
            "auth_time": NOW - 9, "amr": ["password"],
        });
        assert_eq!(claims, expected);
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn one_is_sent_again_while_half_of_its_life_is_left_and_nothing_has_changed() {
        let assertions = Assertions::new(set());
        let alice = identity(&[], NOW);
        let first = assertions.header(&alice, "app", at(0)).unwrap();
        assert_eq!(assertions.header(&identity(&[], NOW), "app", at(150)).unwrap(), first);
        assert_ne!(assertions.header(&alice, "app", at(151)).unwrap(), first);
        let now = at(151);
        let second = assertions.header(&alice, "app", now).unwrap();
        let changed = [
            assertions.header(&alice, "other", now).unwrap(),
            assertions.header(&identity(&["admin".to_owned()], NOW), "app", now).unwrap(),
            assertions.header(&identity(&[], NOW + 1), "app", now).unwrap(),
            assertions.header(&Identity { methods: Vec::new(), ..alice.clone() }, "app", now).unwrap(),
        ];
        assert!(changed.iter().all(|other| *other != second));
        assert_eq!(assertions.header(&alice, "app", now).unwrap(), second);
        assert_ne!(assertions.header(&alice, "app", at(0)).unwrap(), second, "the clock was set back");
        let last = assertions.header(&alice, "app", now).unwrap();
        assertions.replace(set());
        assert_ne!(assertions.header(&alice, "app", now).unwrap(), last, "its key is gone");
    }

    #[test]
    fn none_is_a_credential_and_its_key_is_published() {
        let tokens = set();
        let ring = Keyring::new(tokens, Some(Assertions::new(set())));
        let value = ring.assertions().unwrap().header(&identity(&[], NOW), "portcullis", at(0)).unwrap();
        let text = value.to_str().unwrap();
        assert_eq!(ring.verify(text, at(0)).unwrap_err(), Refusal::Invalid(Reason::UnknownKey));
        assert!(ring.is_ours(text), "it is removed where a client sends it");
        assert_eq!(ring.verification_keys(at(0))["keys"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn too_many_groups_are_left_out() {
        let many: Vec<String> = (0..1000).map(|n| format!("group-{n}")).collect();
        let value = Assertions::new(set()).header(&identity(&many, NOW), "app", at(0)).unwrap();
        assert_eq!(parts(&value)[1]["groups"], serde_json::json!([]));
    }
}
