//! The keys of own tokens: where they come from, which signs, and what is wrong with one that can't be used.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::jose::algorithm_name;
use super::key::{Family, Key, Signs, StoredKey, family, needs};
use super::pem;
use crate::clock::Timestamp;
use crate::config::{Algorithm, KeySource, Tokens};
use crate::secret::Random;

/// Makes aws-lc the cryptography of jsonwebtoken for this process. May be called any number of times.
pub fn install_crypto() {
    // The error only says that a provider is there already; this is the only one that is built in.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// The keys of own tokens, and the terms under which they are issued and accepted.
#[derive(Debug)]
pub struct KeySet {
    terms: Arc<Terms>,
    keys: Vec<Held>,
    /// Whether the configuration names the keys: then one that it does not name any more was withdrawn.
    are_named: bool,
    random: Random,
    /// The latest time at which anything was signed, in milliseconds: a clock that is set back brings no former key back.
    latest: Arc<AtomicU64>,
}

/// A key and its time.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: Key,
    signs: Signs,
    until: Option<Timestamp>,
}

impl Held {
    /// Whether its signatures still count.
    pub(super) fn verifies(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        match self.signs {
            Signs::AtOnce => true,
            Signs::From(from) => from <= now,
            Signs::Never => false,
        }
    }
}

/// What own tokens must say, and for how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) lifetime: Duration,
    pub(super) leeway: Duration,
    pub(super) max_lifetime: Duration,
}

impl KeySet {
    /// The keys that `tokens` names; where it leaves them to the store, `stored` in its order, the newest first.
    /// The first whose time has come signs, all verify.
    ///
    /// # Errors
    /// What is wrong with which key; [`KeyError::NoKeys`] when there is none that could sign.
    pub fn new(tokens: &Tokens, stored: &[StoredKey], random: Random) -> Result<Self, KeyError> {
        install_crypto();
        let algorithm = tokens.algorithm;
        let keys = match &tokens.keys {
            // Tokens of stored keys carry a `kid`, so their number does not matter.
            KeySource::Store => numbered(stored, |key| {
                let signs = if key.algorithm == algorithm { key.signs } else { Signs::Never };
                let (key, until) = (Key::new(key.algorithm, key.material.expose(), Some(&key.kid))?, key.until);
                Ok(Held { key, signs, until })
            })?,
            KeySource::Shared(keys) | KeySource::Pem(keys) if keys.len() > MAX_KEYS => {
                return Err(KeyError::TooMany { count: keys.len() });
            }
            KeySource::Shared(secrets) => numbered(secrets, |secret| match family(algorithm) {
                Family::Hmac(_) => Key::new(algorithm, secret.expose(), None).map(always),
                Family::Rsa(..) | Family::Ec(..) | Family::Ed => {
                    Err(KeyError::WrongKind { algorithm, found: "a shared secret" })
                }
            })?,
            KeySource::Pem(files) => numbered(files, |pem| match family(algorithm) {
                Family::Hmac(_) => Err(KeyError::WrongKind { algorithm, found: "a PEM file" }),
                Family::Rsa(..) | Family::Ec(..) | Family::Ed => {
                    Key::new(algorithm, &pem::private_key(pem.expose())?, None).map(always)
                }
            })?,
        };
        if keys.iter().all(|held| held.signs == Signs::Never) {
            return Err(KeyError::NoKeys);
        }
        let terms = Terms {
            issuer: tokens.issuer.clone(),
            audience: tokens.audience.clone(),
            lifetime: tokens.lifetime,
            leeway: tokens.leeway,
            max_lifetime: tokens.max_lifetime,
        };
        let are_named = !matches!(tokens.keys, KeySource::Store);
        Ok(Self { terms: Arc::new(terms), keys, are_named, random, latest: Arc::default() })
    }

    /// The public keys as a JWK Set (RFC 7517 section 5), never a shared secret.
    pub fn verification_keys(&self, now: Timestamp) -> Value {
        json!({ "keys": self.public_keys(now).collect::<Vec<_>>() })
    }

    /// The public keys that verify something at `now`, or will.
    pub(super) fn public_keys(&self, now: Timestamp) -> impl Iterator<Item = &Value> {
        self.keys.iter().filter(move |held| held.verifies(now)).filter_map(|held| held.key.jwk())
    }

    /// The name of the key that signs at `now`.
    pub fn signing_key_id(&self, now: Timestamp) -> &str {
        self.signing_key(now).id()
    }

    /// The names of all keys, the newest first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|held| held.key.id())
    }

    /// The name of each key, and when it verifies nothing any more.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&Arc<str>, Option<Timestamp>)> {
        self.keys.iter().map(|held| (held.key.shared_id(), held.until))
    }

    /// The same keys as the successors of `former`: what time it was there is known here.
    #[must_use]
    pub(super) fn following(self, former: &Self) -> Self {
        let terms = if self.terms == former.terms { Arc::clone(&former.terms) } else { self.terms };
        Self { latest: Arc::clone(&former.latest), terms, ..self }
    }

    pub(super) const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// Whether `key_id` is a key that the configuration no longer names. One of the store's that is gone was only retired.
    pub(super) fn withdrew(&self, key_id: &str) -> bool {
        self.are_named && !self.key_ids().any(|known| known == key_id)
    }

    pub(super) fn keys(&self) -> &[Held] {
        &self.keys
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    /// The newest key whose time has come; before the first one's time that one, since `new` refuses a set without any.
    pub(super) fn signing_key(&self, now: Timestamp) -> &Key {
        let before = self.latest.fetch_max(now.as_millis(), Ordering::Relaxed);
        let now = Timestamp::from_millis(before.max(now.as_millis()));
        let due = self.keys.iter().find(|held| held.is_due(now));
        let first = || self.keys.iter().rfind(|held| held.signs != Signs::Never);
        &due.or_else(first).unwrap_or(&self.keys[0]).key
    }
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is none.
    NoKeys,
    /// More than a token without `kid` could be tried with.
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One of several is wrong.
    InList {
        /// Which, counted from 1.
        number: usize,
        /// How.
        source: Box<KeyError>,
    },
    /// A secret that is shorter than the hash (RFC 7518 section 3.2).
    SecretTooShort {
        /// The algorithm.
        algorithm: Algorithm,
        /// Bytes it needs.
        needs: usize,
        /// Bytes it has.
        has: usize,
    },
    /// Not PEM, or broken PEM.
    NotPem,
    /// A private key under a passphrase.
    Encrypted,
    /// PEM of something else.
    NotPrivate {
        /// What it calls itself.
        label: String,
    },
    /// More than one key in one file.
    SeveralInOne {
        /// How many.
        count: usize,
    },
    /// A key of another kind, curve or size.
    WrongKind {
        /// The algorithm that needs another.
        algorithm: Algorithm,
        /// What was found.
        found: &'static str,
    },
    /// The cryptographic library refused.
    Crypto,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys => f.write_str("no key to sign tokens with"),
            Self::TooMany { count } => write!(f, "{count} keys, at most {MAX_KEYS} are tried"),
            Self::InList { number, source } => write!(f, "key {number}: {source}"),
            Self::SecretTooShort { algorithm, needs, has } => {
                write!(f, "{} needs a secret of at least {needs} bytes, this one has {has}", algorithm_name(*algorithm))
            }
            Self::NotPem => f.write_str("not a PEM file, or a broken one"),
            Self::Encrypted => f.write_str("private key is encrypted; decrypt it with `openssl pkey`"),
            Self::NotPrivate { label } => write!(f, "expected a private key, found {label:?}"),
            Self::SeveralInOne { count } => write!(f, "{count} keys in one file, expected one"),
            Self::WrongKind { algorithm, found } => {
                write!(f, "{} needs {}, found {found}", algorithm_name(*algorithm), needs(*algorithm))
            }
            Self::Crypto => f.write_str("the cryptographic library refused the key"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InList { source, .. } => Some(source.as_ref()),
            Self::NoKeys
            | Self::TooMany { .. }
            | Self::SecretTooShort { .. }
            | Self::NotPem
            | Self::Encrypted
            | Self::NotPrivate { .. }
            | Self::SeveralInOne { .. }
            | Self::WrongKind { .. }
            | Self::Crypto => None,
        }
    }
}

/// A key of the configuration.
const fn always(key: Key) -> Held {
    Held { key, signs: Signs::AtOnce, until: None }
}

fn numbered<T>(items: &[T], read: impl Fn(&T) -> Result<Held, KeyError>) -> Result<Vec<Held>, KeyError> {
    let in_list = |index: usize, error| match items.len() {
        1 => error,
        _ => KeyError::InList { number: index + 1, source: Box::new(error) },
    };
    items.iter().enumerate().map(|(index, item)| read(item).map_err(|error| in_list(index, error))).collect()
}

/// How many keys a token without `kid` is tried with: more would let a stranger make one request cost many signatures.
pub(super) const MAX_KEYS: usize = 8;
