//! Key sets of other issuers (RFC 7517): each key by itself, so that one that can't be used discards no other.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::config::Algorithm;
use crate::secret::Secret;
use crate::token::jose::algorithm_name;
use crate::token::key::{Family, family};

/// A key that tokens of an issuer are verified with.
pub(super) struct PublicKey {
    key_id: Option<String>,
    /// Of all that makes it this key: the same one in a later set is the same one here.
    digest: [u8; 32],
    verifiers: Vec<(Algorithm, Verifier)>,
    is_withdrawn: AtomicBool,
}

enum Verifier {
    Public(ParsedPublicKey),
    Shared(Box<hmac::Key>),
}

impl PublicKey {
    /// The keys that `secrets` are under `algorithms`; a secret has no name.
    pub(super) fn shared(secrets: &[Secret<Vec<u8>>], algorithms: &[Algorithm]) -> Vec<Self> {
        let verifier = |secret: &Secret<Vec<u8>>, algorithm: Algorithm| match family(algorithm) {
            Family::Hmac(hash) => Some((algorithm, Verifier::Shared(Box::new(hmac::Key::new(hash, secret.expose()))))),
            Family::Rsa(..) | Family::Ec(..) | Family::Ed => None,
        };
        let key = |secret| Self {
            key_id: None,
            digest: [0; 32],
            verifiers: algorithms.iter().filter_map(|algorithm| verifier(secret, *algorithm)).collect(),
            is_withdrawn: AtomicBool::new(false),
        };
        secrets.iter().map(key).collect()
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    pub(super) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether it may verify tokens of the algorithm with this registered name.
    pub(super) fn takes(&self, algorithm: &str) -> bool {
        self.verifiers.iter().any(|(own, _)| algorithm_name(*own) == algorithm)
    }

    /// Whether `signature` is this key's over `message` by `algorithm`; for a shared secret in constant time.
    pub(super) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let verifier = self.verifiers.iter().find(|(own, _)| algorithm_name(*own) == algorithm);
        verifier.is_some_and(|(_, verifier)| match verifier {
            Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            Verifier::Shared(key) => hmac::verify(key, message, signature).is_ok(),
        })
    }

    /// From now on no token that it signed holds any more.
    pub(super) fn withdraw(&self) {
        self.is_withdrawn.store(true, Ordering::Release);
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::Acquire)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// What a document that should be a key set holds.
#[derive(Debug)]
pub(super) struct Jwks {
    /// The keys that can be used.
    pub(super) keys: Vec<PublicKey>,
    /// What is wrong with the others, by their place, counted from 1.
    pub(super) skipped: Vec<(usize, Unusable)>,
}

impl Jwks {
    /// Reads a key set. Keys are bound to those of `algorithms` that they can be used with, or to their own `alg`.
    pub(super) fn read(document: &[u8], algorithms: &[Algorithm]) -> Result<Self, JwksError> {
        let document: Value = serde_json::from_slice(document).map_err(|_| JwksError::NotJson)?;
        let Some(Value::Array(list)) = document.get("keys") else { return Err(JwksError::NoList) };
        if list.len() > MOST_KEYS {
            return Err(JwksError::TooMany { count: list.len() });
        }
        let mut set = Self { keys: Vec::new(), skipped: Vec::new() };
        for (index, key) in list.iter().enumerate() {
            match key.as_object().ok_or(Unusable::NotAnObject).and_then(|jwk| read_key(jwk, algorithms)) {
                Ok(key) => set.keys.push(key),
                Err(why) => set.skipped.push((index + 1, why)),
            }
        }
        if set.keys.is_empty() {
            return Err(JwksError::NoUsable { first: set.skipped.into_iter().next().map(|(_, why)| why) });
        }
        Ok(set)
    }
}

/// Why a document gives no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksError {
    /// It is not JSON.
    NotJson,
    /// It has no list `keys`.
    NoList,
    /// It has more keys than any issuer needs.
    TooMany {
        /// How many.
        count: usize,
    },
    /// None of its keys can be used.
    NoUsable {
        /// Why the first can't; `None`: there is none.
        first: Option<Unusable>,
    },
}

impl fmt::Display for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => f.write_str("the key set is not JSON"),
            Self::NoList => f.write_str("the key set has no list `keys`"),
            Self::TooMany { count } => write!(f, "the key set has {count} keys, at most {MOST_KEYS} are read"),
            Self::NoUsable { first: None } => f.write_str("the key set has no keys"),
            Self::NoUsable { first: Some(why) } => write!(f, "no key of the set can be used; the first {why}"),
        }
    }
}

impl std::error::Error for JwksError {}

/// Why a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not a JSON object.
    NotAnObject,
    /// It is of a kind that is not read, or a secret.
    Kind,
    /// It is on a curve that is not read.
    Curve,
    /// It is for something else than signatures.
    Use,
    /// Its `alg` is none of those that the issuer may sign with.
    Algorithm,
    /// A member is missing or malformed.
    Member(&'static str),
    /// An RSA key of another size than 2048 to 8192 bits.
    Size,
    /// It is not a key.
    Broken,
    /// It is a private key: whoever reads the set could sign with it.
    Private,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "is not an object",
            Self::Kind => "is neither RSA nor EC nor OKP",
            Self::Curve => "is not on P-256, P-384 or Ed25519",
            Self::Use => "is not for signatures",
            Self::Algorithm => "is for none of the issuer's algorithms",
            Self::Member(name) => return write!(f, "has no `{name}`, or a malformed one"),
            Self::Size => "is an RSA key that is not of 2048 to 8192 bits",
            Self::Broken => "is broken",
            Self::Private => "is a private key, which everyone has read by now",
        })
    }
}

fn read_key(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<PublicKey, Unusable> {
    let text = |name: &'static str| match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Unusable::Member(name)),
    };
    if ["d", "p", "q", "k"].iter().any(|member| jwk.contains_key(*member)) {
        return Err(if text("kty")? == Some("oct") { Unusable::Kind } else { Unusable::Private });
    }
    // RFC 7517 sections 4.2 and 4.3; a library that reads keys for us would not look at either.
    if text("use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(Unusable::Use);
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => {}
        Some(_) => return Err(Unusable::Use),
    }
    let own = text("alg")?;
    let candidates =
        allowed.iter().copied().filter(|algorithm| own.is_none_or(|own| own == algorithm_name(*algorithm)));
    let candidates: Vec<Algorithm> = candidates.collect();
    let bytes = |name| {
        let text = text(name)?.ok_or(Unusable::Member(name))?;
        LENIENT.decode(text).map_err(|_| Unusable::Member(name))
    };
    let (verifiers, parts) = match text("kty")? {
        Some("RSA") => rsa(&candidates, bytes("n")?, bytes("e")?)?,
        Some("EC") => ec(&candidates, text("crv")?, &bytes("x")?, &bytes("y")?)?,
        Some("OKP") => ed(&candidates, text("crv")?, bytes("x")?)?,
        _ => return Err(Unusable::Kind),
    };
    if verifiers.is_empty() {
        return Err(Unusable::Algorithm);
    }
    let key_id = text("kid")?.map(str::to_owned);
    let names: Vec<&str> = verifiers.iter().map(|(algorithm, _)| algorithm_name(*algorithm)).collect();
    let told = format!("{key_id:?} {names:?} {parts:?}");
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, told.as_bytes()).as_ref());
    Ok(PublicKey { key_id, digest: sum, verifiers, is_withdrawn: AtomicBool::new(false) })
}

type Verifiers = (Vec<(Algorithm, Verifier)>, Vec<u8>);

/// RFC 7518 section 6.3.1. Leading zeros, which some issuers write, change nothing.
fn rsa(candidates: &[Algorithm], n: Vec<u8>, e: Vec<u8>) -> Result<Verifiers, Unusable> {
    let bare = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (n, e) = (bare(n), bare(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(Unusable::Size);
    }
    // With an exponent of 1 anyone could sign, an even one belongs to no key, and a long one costs as much as signing. The
    // library below takes them.
    let is_even = e.last().is_none_or(|last| last % 2 == 0);
    if is_even || e[..] == [1] || e.len() > LONGEST_EXPONENT {
        return Err(Unusable::Member("e"));
    }
    let components = RsaPublicKeyComponents { n: &n, e: &e };
    let mut verifiers = Vec::new();
    for algorithm in candidates {
        if let Some(parameters) = rsa_parameters(*algorithm) {
            let key = components.to_parsed_public_key(parameters).map_err(|_| Unusable::Broken)?;
            verifiers.push((*algorithm, Verifier::Public(key)));
        }
    }
    Ok((verifiers, [n, e].concat()))
}

const fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::HS256
        | Algorithm::HS384
        | Algorithm::HS512
        | Algorithm::ES256
        | Algorithm::ES384
        | Algorithm::EdDSA => None,
    }
}

/// RFC 7518 section 6.2.1: both coordinates at full length, and a point on the curve.
fn ec(candidates: &[Algorithm], curve: Option<&str>, x: &[u8], y: &[u8]) -> Result<Verifiers, Unusable> {
    let (algorithm, length, verification): (_, _, &'static dyn VerificationAlgorithm) = match curve {
        Some("P-256") => (Algorithm::ES256, 32, &signature::ECDSA_P256_SHA256_FIXED),
        Some("P-384") => (Algorithm::ES384, 48, &signature::ECDSA_P384_SHA384_FIXED),
        _ => return Err(Unusable::Curve),
    };
    for (name, coordinate) in [("x", x), ("y", y)] {
        if coordinate.len() != length {
            return Err(Unusable::Member(name));
        }
    }
    let point = [&[UNCOMPRESSED][..], x, y].concat();
    one(candidates, algorithm, verification, point)
}

/// RFC 8037 section 2.
fn ed(candidates: &[Algorithm], curve: Option<&str>, x: Vec<u8>) -> Result<Verifiers, Unusable> {
    match curve {
        Some("Ed25519") if x.len() == 32 => one(candidates, Algorithm::EdDSA, &signature::ED25519, x),
        Some("Ed25519") => Err(Unusable::Member("x")),
        _ => Err(Unusable::Curve),
    }
}

fn one(
    candidates: &[Algorithm],
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    public: Vec<u8>,
) -> Result<Verifiers, Unusable> {
    if !candidates.contains(&algorithm) {
        return Err(Unusable::Algorithm);
    }
    let key = ParsedPublicKey::new(verification, &public).map_err(|_| Unusable::Broken)?;
    Ok((vec![(algorithm, Verifier::Public(key))], public))
}

/// SEC 1 section 2.3.3.
const UNCOMPRESSED: u8 = 4;

/// Bytes of an RSA key's exponent, which is 65537 nearly everywhere.
const LONGEST_EXPONENT: usize = 4;

/// Keys of one set: the largest issuers publish about a dozen.
const MOST_KEYS: usize = 100;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
