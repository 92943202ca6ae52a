//! The key sets in force: replaced while the gateway runs, when keys came or went in the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use serde_json::{Value, json};

use super::assertion::Assertions;
use super::{KeySet, NewClaims, Refusal, SignError, Verified};
use crate::clock::Timestamp;

/// The keys of own tokens and of assertions as they are now. Everyone who signs or verifies holds the same one.
#[derive(Debug)]
pub struct Keyring {
    tokens: ArcSwap<KeySet>,
    assertions: Option<Assertions>,
    /// Keys of tokens that went, the latest last, each with the end that it had.
    gone: Mutex<VecDeque<(Arc<str>, Option<Timestamp>)>>,
}

impl Keyring {
    /// A ring of `tokens`; `assertions` where applications are sent any.
    pub fn new(tokens: KeySet, assertions: Option<Assertions>) -> Self {
        Self { tokens: ArcSwap::from_pointee(tokens), assertions, gone: Mutex::default() }
    }

    /// A ring of `tokens` and `assertions` in place of `self`, for another configuration: what time it was there is known here.
    #[must_use]
    pub fn succeeded_by(&self, tokens: KeySet, assertions: Option<KeySet>) -> Self {
        let assertions = match (&self.assertions, assertions) {
            (Some(former), Some(keys)) => Some(former.succeeded_by(keys)),
            (_, keys) => keys.map(Assertions::new),
        };
        let former = self.load();
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let next = Self { gone: Mutex::new(gone), ..Self::new(tokens.following(&former), assertions) };
        next.note_gone(&former, &next.load());
        next
    }

    /// Puts `tokens` in force, and `assertions` where there are any. What is no longer among them verifies nothing from now on.
    pub fn replace(&self, tokens: KeySet, assertions: Option<KeySet>) {
        let former = self.tokens.load();
        self.note_gone(&former, &tokens);
        let tokens = tokens.following(&former);
        self.tokens.store(Arc::new(tokens));
        if let (Some(own), Some(keys)) = (&self.assertions, assertions) {
            own.replace(keys);
        }
    }

    /// Whether a key went before its last token had expired, as one that was stolen: what was opened with it must not go on.
    pub fn was_withdrawn(&self, key_id: &str, now: Timestamp) -> bool {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.iter().any(|(id, until)| **id == *key_id && until.is_none_or(|until| now < until))
    }

    fn note_gone(&self, former: &KeySet, tokens: &KeySet) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |id: &str| tokens.key_ids().any(|there| there == id);
        gone.retain(|(id, _)| !is_there(id));
        gone.extend(former.ends().filter(|(id, _)| !is_there(id)).map(|(id, until)| (Arc::clone(id), until)));
        let excess = gone.len().saturating_sub(MOST_GONE);
        gone.drain(..excess);
    }

    /// The keys of own tokens as they are now.
    pub fn load(&self) -> Guard<Arc<KeySet>> {
        self.tokens.load()
    }

    /// What makes assertions; `None` where no application is sent any.
    pub const fn assertions(&self) -> Option<&Assertions> {
        self.assertions.as_ref()
    }

    /// As [`KeySet::sign`].
    ///
    /// # Errors
    /// As there.
    pub fn sign(&self, claims: &NewClaims<'_>) -> Result<String, SignError> {
        self.load().sign(claims)
    }

    /// As [`KeySet::lifetime`].
    pub fn lifetime(&self) -> Duration {
        self.load().lifetime()
    }

    /// As [`KeySet::verify`].
    ///
    /// # Errors
    /// As there.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, Refusal> {
        self.load().verify(token, now)
    }

    /// As [`KeySet::recheck`].
    ///
    /// # Errors
    /// As there.
    pub fn recheck(&self, verified: &Verified, now: Timestamp) -> Result<(), Refusal> {
        self.load().recheck(verified, now)
    }

    /// As [`KeySet::still_counts`].
    pub fn still_counts(&self, verified: &Verified) -> bool {
        self.load().still_counts(verified)
    }

    /// As [`KeySet::is_ours`].
    pub fn is_ours(&self, token: &str) -> bool {
        self.load().is_ours(token)
    }

    /// All public keys as a JWK Set (RFC 7517 section 5): of own tokens, and of assertions. Never a shared secret.
    pub fn verification_keys(&self, now: Timestamp) -> Value {
        let tokens = self.load();
        let mut keys: Vec<Value> = tokens.public_keys(now).cloned().collect();
        if let Some(assertions) = &self.assertions {
            keys.extend(assertions.public_keys(now));
        }
        json!({ "keys": keys })
    }
}

impl From<KeySet> for Keyring {
    fn from(tokens: KeySet) -> Self {
        Self::new(tokens, None)
    }
}

/// Keys that are remembered after they went: more than are replaced while a stream lives.
const MOST_GONE: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::forge::{NOW, Payload, key, now, tokens};
    use super::super::{Reason, Signs, StoredKey};
    use super::*;
    use crate::config::{Algorithm, KeySource};
    use crate::secret::Random;

    fn set(keys: &[StoredKey]) -> KeySet {
        KeySet::new(&tokens(Algorithm::ES256, KeySource::Store), keys, Random::system()).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(NOW + seconds)
    }

    fn claims(now: Timestamp) -> NewClaims<'static> {
        NewClaims {
            subject: "alice",
            now,
            session: None,
            signed_in_at: None,
            methods: &[],
            groups: &[],
            scope: "",
            not_after: None,
        }
    }

    fn signer(ring: &Keyring, now: Timestamp) -> String {
        let token = ring.sign(&claims(now)).unwrap();
        ring.verify(&token, now).unwrap().key_id().to_string()
    }

    #[test]
    fn a_new_key_signs_from_its_time_and_the_old_one_verifies_to_its_end() {
        let (old, new) = (key(Algorithm::ES256), key(Algorithm::ES256));
        let ring = Keyring::from(set(std::slice::from_ref(&old)));
        let early = ring.sign(&claims(now())).unwrap();
        let verified = ring.verify(&early, now()).unwrap();
        let old = StoredKey { until: Some(at(10 + 900)), ..old };
        let new = StoredKey { signs: Signs::From(at(10)), ..new };
        ring.replace(set(&[new.clone(), old.clone()]), None);
        assert_eq!(ring.verification_keys(now())["keys"].as_array().unwrap().len(), 2, "published before it signs");
        assert_eq!(signer(&ring, at(9)), old.kid);
        assert_eq!(signer(&ring, at(10)), new.kid);
        assert!(ring.verify(&early, at(899)).is_ok());
        assert!(ring.recheck(&verified, at(899)).is_ok());
        let last = Payload::honest().with("iat", NOW + 800).with("exp", NOW + 2000).json();
        let mint = super::super::forge::Mint { key: old, set: Arc::clone(&ring.load()) };
        let forged = mint.say(last);
        assert!(ring.verify(&forged, at(909)).is_ok());
        assert_eq!(ring.verify(&forged, at(910)).unwrap_err(), Refusal::Invalid(Reason::Signature));
        assert_eq!(ring.recheck(&verified, at(910)).unwrap_err(), Refusal::Invalid(Reason::UnknownKey));
        assert_eq!(ring.verification_keys(at(910))["keys"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_brings_no_former_key_back() {
        let (old, new) = (key(Algorithm::ES256), key(Algorithm::ES256));
        let old = StoredKey { until: Some(at(2000)), ..old };
        // Once the newer has signed, in this process; over a change of the keys too.
        let later = StoredKey { signs: Signs::From(at(10)), ..new.clone() };
        let ring = Keyring::from(set(&[later.clone(), old.clone()]));
        assert_eq!(signer(&ring, at(10)), new.kid);
        assert_eq!(signer(&ring, now()), new.kid);
        ring.replace(set(&[later, old.clone()]), None);
        assert_eq!(signer(&ring, now()), new.kid);
        // One that was to sign at once does so by any clock.
        let ring = Keyring::from(set(&[new.clone(), old]));
        assert_eq!(signer(&ring, Timestamp::from_secs(NOW - 86_400)), new.kid);
        // And where the old one is gone already, the new one signs early.
        let ring = Keyring::from(set(&[StoredKey { signs: Signs::From(at(10)), ..new.clone() }]));
        assert_eq!(signer(&ring, now()), new.kid);
    }

    #[test]
    fn a_key_that_was_replaced_before_its_time_never_signs() {
        let (first, skipped) = (key(Algorithm::ES256), key(Algorithm::ES256));
        let skipped = StoredKey { signs: Signs::Never, until: Some(at(1000)), ..skipped };
        let ring = Keyring::from(set(&[skipped.clone(), first.clone()]));
        assert_eq!(signer(&ring, at(500)), first.kid);
        let only = KeySet::new(&tokens(Algorithm::ES256, KeySource::Store), &[skipped], Random::system());
        assert_eq!(only.unwrap_err(), super::super::KeyError::NoKeys);
        let other = KeySet::new(&tokens(Algorithm::ES384, KeySource::Store), &[first], Random::system());
        assert_eq!(other.unwrap_err(), super::super::KeyError::NoKeys, "of another algorithm");
    }
}
