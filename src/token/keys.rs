//! The keys of own tokens: where they come from, which signs, and what is wrong with one that can't be used.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::jose::algorithm_name;
use super::key::{Family, Key, StoredKey, family, needs};
use super::pem;
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
    terms: Terms,
    keys: Vec<Key>,
    random: Random,
}

/// What own tokens must say, and for how long they are good.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) lifetime: Duration,
    pub(super) leeway: Duration,
    pub(super) max_lifetime: Duration,
}

impl KeySet {
    /// The keys that `tokens` names; where it leaves them to the store, `stored` in its order. The first signs, all verify.
    ///
    /// # Errors
    /// What is wrong with which key; [`KeyError::NoKeys`] when there is none.
    pub fn new(tokens: &Tokens, stored: &[StoredKey], random: Random) -> Result<Self, KeyError> {
        install_crypto();
        let algorithm = tokens.algorithm;
        let keys = match &tokens.keys {
            // Tokens of stored keys carry a `kid`, so their number does not matter.
            KeySource::Store => numbered(stored, |key| Key::new(key.algorithm, key.material.expose(), Some(&key.kid)))?,
            KeySource::Shared(keys) | KeySource::Pem(keys) if keys.len() > MAX_KEYS => {
                return Err(KeyError::TooMany { count: keys.len() });
            }
            KeySource::Shared(secrets) => numbered(secrets, |secret| match family(algorithm) {
                Family::Hmac(_) => Key::new(algorithm, secret.expose(), None),
                Family::Rsa(..) | Family::Ec(..) | Family::Ed => {
                    Err(KeyError::WrongKind { algorithm, found: "a shared secret" })
                }
            })?,
            KeySource::Pem(files) => numbered(files, |pem| match family(algorithm) {
                Family::Hmac(_) => Err(KeyError::WrongKind { algorithm, found: "a PEM file" }),
                Family::Rsa(..) | Family::Ec(..) | Family::Ed => {
                    Key::new(algorithm, &pem::private_key(pem.expose())?, None)
                }
            })?,
        };
        if keys.is_empty() {
            return Err(KeyError::NoKeys);
        }
        let terms = Terms {
            issuer: tokens.issuer.clone(),
            audience: tokens.audience.clone(),
            lifetime: tokens.lifetime,
            leeway: tokens.leeway,
            max_lifetime: tokens.max_lifetime,
        };
        Ok(Self { terms, keys, random })
    }

    /// The public keys as a JWK Set (RFC 7517 section 5), never a shared secret.
    pub fn verification_keys(&self) -> Value {
        let keys: Vec<&Value> = self.keys.iter().filter_map(Key::jwk).collect();
        json!({ "keys": keys })
    }

    /// The name of the key that signs.
    pub fn signing_key_id(&self) -> &str {
        self.signing_key().id()
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    pub(super) fn signing_key(&self) -> &Key {
        // `new` refuses an empty list.
        &self.keys[0]
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

fn numbered<T>(items: &[T], read: impl Fn(&T) -> Result<Key, KeyError>) -> Result<Vec<Key>, KeyError> {
    let in_list = |index: usize, error| match items.len() {
        1 => error,
        _ => KeyError::InList { number: index + 1, source: Box::new(error) },
    };
    items.iter().enumerate().map(|(index, item)| read(item).map_err(|error| in_list(index, error))).collect()
}

/// How many keys a token without `kid` is tried with: more would let a stranger make one request cost many signatures.
pub(super) const MAX_KEYS: usize = 8;
