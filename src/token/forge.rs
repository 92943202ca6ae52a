//! Tokens made by hand, for tests: own base64url, own HMAC (RFC 2104), signatures from the bare primitives, JSON as raw text.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};

use super::{KeySet, StoredKey, algorithm_name, generate};
use crate::clock::Timestamp;
use crate::config::{Algorithm, KeySource, Tokens};
use crate::secret::{Random, Secret};

pub(super) const ISSUER: &str = "http://gateway.test";
pub(super) const NOW: u64 = 1_700_000_000;

pub(super) const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

pub(super) fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

/// `[tokens]` with its defaults.
pub(super) fn tokens(algorithm: Algorithm, keys: KeySource) -> Tokens {
    Tokens {
        issuer: ISSUER.to_owned(),
        audience: "portcullis".to_owned(),
        algorithm,
        lifetime: Duration::from_secs(900),
        leeway: Duration::ZERO,
        max_lifetime: Duration::from_secs(86_400),
        keys,
    }
}

/// A key of `algorithm`: RSA is generated once for all tests, it takes long.
pub(super) fn key(algorithm: Algorithm) -> StoredKey {
    static RSA: LazyLock<StoredKey> = LazyLock::new(|| generate(Algorithm::RS256, &Random::system()).unwrap());
    match algorithm_name(algorithm).as_bytes() {
        [b'R' | b'P', ..] => StoredKey { algorithm, ..RSA.clone() },
        _ => generate(algorithm, &Random::system()).unwrap(),
    }
}

/// A key set of one key, and that key in the hands of a forger.
pub(super) struct Mint {
    pub(super) key: StoredKey,
    pub(super) set: Arc<KeySet>,
}

impl Mint {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let key = key(algorithm);
        let tokens = tokens(algorithm, KeySource::Store);
        let set = KeySet::new(&tokens, std::slice::from_ref(&key), Random::system()).unwrap();
        Self { key, set: Arc::new(set) }
    }

    /// The header of an honest token without `kid`.
    pub(super) fn header(&self) -> String {
        format!(r#"{{"alg":"{}","typ":"JWT"}}"#, algorithm_name(self.key.algorithm))
    }

    /// A token of this header and payload, properly signed.
    pub(super) fn sign(&self, header: &str, payload: impl AsRef<[u8]>) -> String {
        self.sign_encoded(&b64(header), &b64(payload))
    }

    /// A token of parts that are encoded already, or wrongly.
    pub(super) fn sign_encoded(&self, header: &str, payload: &str) -> String {
        let signed = format!("{header}.{payload}");
        let signature = signature(self.key.algorithm, self.key.material.expose(), signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    /// An honest header and this payload.
    pub(super) fn say(&self, payload: impl AsRef<[u8]>) -> String {
        self.sign(&self.header(), payload)
    }
}

/// The claims of an honest token as raw JSON.
pub(super) struct Payload(Vec<(String, String)>);

impl Payload {
    pub(super) fn honest() -> Self {
        let members = [
            ("iss", format!("{ISSUER:?}")),
            ("sub", r#""alice""#.to_owned()),
            ("aud", r#""portcullis""#.to_owned()),
            ("iat", NOW.to_string()),
            ("exp", (NOW + 900).to_string()),
        ];
        Self(members.map(|(name, json)| (name.to_owned(), json)).to_vec())
    }

    /// With `name` set to this JSON.
    pub(super) fn with(mut self, name: &str, json: impl ToString) -> Self {
        self.0.retain(|(had, _)| had != name);
        self.and(name, json)
    }

    /// With one more member, even if it is there already.
    pub(super) fn and(mut self, name: &str, json: impl ToString) -> Self {
        self.0.push((name.to_owned(), json.to_string()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(had, _)| had != name);
        self
    }

    pub(super) fn json(&self) -> String {
        let members: Vec<String> = self.0.iter().map(|(name, json)| format!(r#""{name}":{json}"#)).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Base64url without padding.
pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let mut bits = [0; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for index in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63].into());
        }
    }
    text
}

pub(super) fn signature(algorithm: Algorithm, material: &[u8], message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |padding: &'static dyn RsaEncoding| {
        let pair = RsaKeyPair::from_pkcs8(material).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &random, message, &mut signature).unwrap();
        signature
    };
    match algorithm {
        Algorithm::HS256 => hmac(&digest::SHA256, material, message),
        Algorithm::HS384 => hmac(&digest::SHA384, material, message),
        Algorithm::HS512 => hmac(&digest::SHA512, material, message),
        Algorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
        Algorithm::RS384 => rsa(&RSA_PKCS1_SHA384),
        Algorithm::RS512 => rsa(&RSA_PKCS1_SHA512),
        Algorithm::PS256 => rsa(&RSA_PSS_SHA256),
        Algorithm::PS384 => rsa(&RSA_PSS_SHA384),
        Algorithm::PS512 => rsa(&RSA_PSS_SHA512),
        Algorithm::ES256 | Algorithm::ES384 => {
            let curve = match algorithm {
                Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
            };
            let pair = EcdsaKeyPair::from_pkcs8(curve, material).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        }
        Algorithm::EdDSA => Ed25519KeyPair::from_pkcs8(material).unwrap().sign(message).as_ref().to_vec(),
    }
}

pub(super) fn hmac(hash: &'static digest::Algorithm, key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = vec![0; hash.block_len()];
    if key.len() > block.len() {
        let short = digest::digest(hash, key);
        block[..short.as_ref().len()].copy_from_slice(short.as_ref());
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |byte: u8| block.iter().map(|b| b ^ byte).collect::<Vec<u8>>();
    let inner = digest::digest(hash, &[&pad(0x36), message].concat());
    digest::digest(hash, &[&pad(0x5c), inner.as_ref()].concat()).as_ref().to_vec()
}

/// The PEM of `der` under `label`.
pub(super) fn pem(label: &str, der: &[u8]) -> Secret<Vec<u8>> {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    Secret::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes())
}
