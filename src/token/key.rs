//! One key, parsed once: jsonwebtoken would parse it again at every call, so signatures are made and checked with aws-lc directly, and
//! jsonwebtoken writes public keys as JWKs and computes their thumbprints.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaEncoding, RsaKeyPair,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use serde_json::Value;
use zeroize::Zeroizing;

use super::jose::algorithm_name;
use super::keys::{KeyError, install_crypto};
use super::pem;
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::secret::{Random, Secret};

/// A key as the store keeps it.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// Its name in token headers.
    pub kid: String,
    /// The one algorithm it is used with.
    pub algorithm: Algorithm,
    /// The secret's bytes (HS*), or the private key as PKCS#8 DER.
    pub material: Secret<Vec<u8>>,
    /// From when on it signs.
    pub signs: Signs,
    /// When its last token has expired, so that it verifies nothing from then on; `None`: it is not retired.
    pub until: Option<Timestamp>,
}

/// From when on a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// Since it was made, whatever a clock says that was set back since.
    AtOnce,
    /// It is published before, so that whoever verifies tokens knows it in time.
    From(Timestamp),
    /// It only verifies: another took its place before its time came, or the algorithm is a former one.
    Never,
}

/// Makes a new key: a secret as long as the hash, RSA of 2048 bits, or the algorithm's curve.
///
/// # Errors
/// [`KeyError::Crypto`] when the cryptographic library can't make one.
pub fn generate(algorithm: Algorithm, random: &Random) -> Result<StoredKey, KeyError> {
    install_crypto();
    let material = match family(algorithm) {
        Family::Hmac(_) => match secret_len(algorithm) {
            32 => random.bytes::<32>().to_vec(),
            48 => random.bytes::<48>().to_vec(),
            _ => random.bytes::<64>().to_vec(),
        },
        Family::Rsa(..) => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Crypto)?;
            let der: Pkcs8V1Der<'static> = pair.as_der().map_err(|_| KeyError::Crypto)?;
            der.as_ref().to_vec()
        }
        Family::Ec(signing, _) => {
            let der = EcdsaKeyPair::generate_pkcs8(signing, &SystemRandom::new()).map_err(|_| KeyError::Crypto)?;
            der.as_ref().to_vec()
        }
        Family::Ed => {
            let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyError::Crypto)?;
            der.as_ref().to_vec()
        }
    };
    let material = Secret::new(material);
    let key = Key::new(algorithm, material.expose(), None)?;
    Ok(StoredKey { kid: key.id().to_owned(), algorithm, material, signs: Signs::AtOnce, until: None })
}

/// One key, bound to one algorithm.
pub(super) struct Key {
    id: Arc<str>,
    algorithm: Algorithm,
    material: Material,
    jwk: Option<Value>,
}

enum Material {
    Hmac(Box<hmac::Key>),
    Rsa { pair: RsaKeyPair, padding: &'static dyn RsaEncoding, public: ParsedPublicKey },
    Ec { pair: EcdsaKeyPair, public: ParsedPublicKey },
    Ed { pair: Ed25519KeyPair, public: ParsedPublicKey },
}

impl Key {
    /// Reads `material` (a secret, or the DER of a private key); without `kid` it gets one of its own.
    pub(super) fn new(algorithm: Algorithm, material: &[u8], kid: Option<&str>) -> Result<Self, KeyError> {
        let wrong = || KeyError::WrongKind { algorithm, found: pem::kind(material) };
        let (material, decoding) = match family(algorithm) {
            Family::Hmac(hash) => {
                let needs = secret_len(algorithm);
                if material.len() < needs {
                    return Err(KeyError::SecretTooShort { algorithm, needs, has: material.len() });
                }
                let id = kid.map_or_else(|| secret_id(material), str::to_owned);
                let material = Material::Hmac(Box::new(hmac::Key::new(hash, material)));
                return Ok(Self { id: id.into(), algorithm, material, jwk: None });
            }
            Family::Rsa(padding, verification) => {
                let pair = pem::rsa(material).ok_or_else(wrong)?;
                let public = parse(verification, pair.public_key().as_ref())?;
                let decoding = DecodingKey::from_rsa_der(pair.public_key().as_ref());
                (Material::Rsa { pair, padding, public }, decoding)
            }
            Family::Ec(signing, verification) => {
                let pair = pem::ec(material, signing).ok_or_else(wrong)?;
                let public = parse(verification, pair.public_key().as_ref())?;
                let decoding = DecodingKey::from_ec_der(pair.public_key().as_ref());
                (Material::Ec { pair, public }, decoding)
            }
            Family::Ed => {
                let pair = pem::ed25519(material).ok_or_else(wrong)?;
                let public = parse(&signature::ED25519, pair.public_key().as_ref())?;
                let decoding = DecodingKey::from_ed_der(pair.public_key().as_ref());
                (Material::Ed { pair, public }, decoding)
            }
        };
        let (id, jwk) = public_jwk(&decoding, algorithm, kid)?;
        Ok(Self { id: id.into(), algorithm, material, jwk: Some(jwk) })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn shared_id(&self) -> &Arc<str> {
        &self.id
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key as a JWK; a shared secret has none.
    pub(super) fn jwk(&self) -> Option<&Value> {
        self.jwk.as_ref()
    }

    /// The signature over `message` as JWS wants it: for ES* both numbers at fixed length (RFC 7518 section 3.4).
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.material {
            Material::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Material::Rsa { pair, padding, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Material::Ec { pair, .. } => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Material::Ed { pair, .. } => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }

    /// Whether `signature` is this key's over `message`; for HMAC in constant time.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Rsa { public, .. } | Material::Ec { public, .. } | Material::Ed { public, .. } => {
                public.verify_sig(message, signature).is_ok()
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What an algorithm is made of.
pub(super) enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ec(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed,
}

/// RFC 7518 sections 3.2 to 3.5, RFC 8037 section 3.1.
pub(super) fn family(algorithm: Algorithm) -> Family {
    match algorithm {
        Algorithm::HS256 => Family::Hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => Family::Hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => Family::Hmac(hmac::HMAC_SHA512),
        Algorithm::RS256 => Family::Rsa(&signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Family::Rsa(&signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Family::Rsa(&signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Family::Rsa(&signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Family::Rsa(&signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Family::Rsa(&signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => {
            Family::Ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED)
        }
        Algorithm::ES384 => {
            Family::Ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED)
        }
        Algorithm::EdDSA => Family::Ed,
    }
}

fn secret_len(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    }
}

/// What kind of key `algorithm` takes, in words for the operator.
pub(super) fn needs(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "an elliptic-curve key on P-256",
        Algorithm::ES384 => "an elliptic-curve key on P-384",
        _ => match family(algorithm) {
            Family::Hmac(_) => "a shared secret",
            Family::Rsa(..) => "an RSA key of at least 2048 bits",
            Family::Ec(..) => "an elliptic-curve key",
            Family::Ed => "an Ed25519 key",
        },
    }
}

fn parse(algorithm: &'static dyn VerificationAlgorithm, public: &[u8]) -> Result<ParsedPublicKey, KeyError> {
    ParsedPublicKey::new(algorithm, public).map_err(|_| KeyError::Crypto)
}

/// The public key as a JWK (RFC 7518 section 6, RFC 8037 section 2), named by its thumbprint (RFC 7638) unless it has a name.
fn public_jwk(key: &DecodingKey, algorithm: Algorithm, kid: Option<&str>) -> Result<(String, Value), KeyError> {
    let mut jwk = Jwk::from_decoding_key(key, None).map_err(|_| KeyError::Crypto)?;
    let id = match kid {
        Some(kid) => kid.to_owned(),
        None => jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Crypto)?,
    };
    jwk.common.key_id = Some(id.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    let mut value = serde_json::to_value(&jwk).map_err(|_| KeyError::Crypto)?;
    value["alg"] = Value::from(algorithm_name(algorithm));
    Ok((id, value))
}

/// A name for a shared secret that tells nothing of it: half of a MAC under it.
fn secret_id(secret: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"portcullis key id");
    let half = Zeroizing::new(tag.as_ref()[..16].to_vec());
    URL_SAFE_NO_PAD.encode(half.as_slice())
}

#[cfg(test)]
mod tests {
    use super::super::forge::{ALL, key};
    use super::*;

    #[test]
    fn makes_a_key_of_every_algorithm_that_signs_and_verifies() {
        for algorithm in ALL {
            let stored = key(algorithm);
            let key = Key::new(algorithm, stored.material.expose(), Some(&stored.kid)).unwrap();
            let signature = key.sign(b"message").unwrap();
            assert!(key.verifies(b"message", &signature), "{algorithm:?}");
            assert!(!key.verifies(b"massage", &signature), "{algorithm:?}");
            let expected = match algorithm {
                Algorithm::HS256 => 32,
                Algorithm::HS384 => 48,
                Algorithm::HS512 | Algorithm::ES256 | Algorithm::EdDSA => 64,
                Algorithm::ES384 => 96,
                _ => 256,
            };
            assert_eq!(signature.len(), expected, "{algorithm:?}");
            assert_eq!(key.jwk.is_some(), !algorithm_name(algorithm).starts_with("HS"));
        }
        for algorithm in [Algorithm::HS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_ne!(key(algorithm).kid, key(algorithm).kid);
        }
    }

    #[test]
    fn ecdsa_signatures_are_never_short() {
        // One in 128 has a leading zero byte in one of its numbers.
        let stored = key(Algorithm::ES256);
        let key = Key::new(Algorithm::ES256, stored.material.expose(), None).unwrap();
        for n in 0..600_u32 {
            assert_eq!(key.sign(&n.to_be_bytes()).unwrap().len(), 64);
        }
    }

    #[test]
    fn signs_as_rfc_8037_appendix_a_does() {
        install_crypto();
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let key = Key::new(Algorithm::EdDSA, &[&prefix[..], &seed].concat(), None).unwrap();
        assert_eq!(key.id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let signature = key.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc").unwrap();
        let expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(URL_SAFE_NO_PAD.encode(signature), expected);
        assert_eq!(
            key.jwk.unwrap(),
            serde_json::json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                "use": "sig",
                "alg": "EdDSA",
            })
        );
    }

    #[test]
    fn signs_as_rfc_7515_appendix_a_1_does() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = Key::new(Algorithm::HS256, &URL_SAFE_NO_PAD.decode(secret).unwrap(), None).unwrap();
        let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let expected = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn public_keys_say_what_they_are_and_nothing_private() {
        for (algorithm, members) in [
            (Algorithm::RS256, &["alg", "e", "kid", "kty", "n", "use"][..]),
            (Algorithm::PS512, &["alg", "e", "kid", "kty", "n", "use"]),
            (Algorithm::ES256, &["alg", "crv", "kid", "kty", "use", "x", "y"]),
            (Algorithm::ES384, &["alg", "crv", "kid", "kty", "use", "x", "y"]),
            (Algorithm::EdDSA, &["alg", "crv", "kid", "kty", "use", "x"]),
        ] {
            let stored = key(algorithm);
            let key = Key::new(algorithm, stored.material.expose(), None).unwrap();
            let jwk = key.jwk.unwrap();
            let mut names: Vec<&String> = jwk.as_object().unwrap().keys().collect();
            names.sort();
            assert_eq!(names, members, "{algorithm:?}");
            assert_eq!(jwk["alg"], algorithm_name(algorithm));
            assert_eq!((jwk["kid"].as_str(), jwk["use"].as_str()), (Some(stored.kid.as_str()), Some("sig")));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let stored = key(Algorithm::HS256);
        let key = Key::new(Algorithm::HS256, stored.material.expose(), None).unwrap();
        assert_eq!(format!("{key:?}"), format!("Key {{ id: {:?}, algorithm: HS256, .. }}", key.id));
    }
}
