//! Reading private keys: PEM (RFC 7468) to the parsed key pair that an algorithm needs, and saying what was found where it is another.

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::keys::KeyError;

/// A block of PEM.
struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
}

/// The DER of the one private key in `pem`: PKCS#8, PKCS#1 or SEC1.
pub(super) fn private_key(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem)?;
    // `openssl ecparam` writes the curve into a block of its own before the key.
    let mut blocks: Vec<Block> = blocks(text)?.into_iter().filter(|block| block.label != "EC PARAMETERS").collect();
    let block = blocks.pop().ok_or(KeyError::NotPem)?;
    if !blocks.is_empty() {
        return Err(KeyError::SeveralInOne { count: blocks.len() + 1 });
    }
    match block.label.as_str() {
        "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Ok(block.der),
        "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
        _ => Err(KeyError::NotPrivate { label: block.label }),
    }
}

/// An RSA key of at least 2048 bits, from PKCS#8 or PKCS#1.
pub(super) fn rsa(der: &[u8]) -> Option<RsaKeyPair> {
    RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok()
}

/// An elliptic-curve key on the curve of `algorithm`, from PKCS#8 or SEC1.
pub(super) fn ec(der: &[u8], algorithm: &'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(algorithm, der).or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der)).ok()
}

/// An Ed25519 key from PKCS#8.
pub(super) fn ed25519(der: &[u8]) -> Option<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8(der).ok()
}

/// What kind of key `der` is, in words for the operator.
pub(super) fn kind(der: &[u8]) -> &'static str {
    let curves: [(&'static EcdsaSigningAlgorithm, &str); 4] = [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, "an elliptic-curve key on P-256"),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, "an elliptic-curve key on P-384"),
        (&ECDSA_P521_SHA512_FIXED_SIGNING, "an elliptic-curve key on P-521"),
        (&ECDSA_P256K1_SHA256_FIXED_SIGNING, "an elliptic-curve key on secp256k1"),
    ];
    if rsa(der).is_some() {
        return "an RSA key";
    }
    if ed25519(der).is_some() {
        return "an Ed25519 key";
    }
    if let Some((_, words)) = curves.iter().find(|(curve, _)| ec(der, curve).is_some()) {
        return words;
    }
    // Below 2048 bits the library refuses to parse, so that the identifier has to tell (RFC 8017 appendix A.1).
    if der.windows(RSA_ENCRYPTION.len()).any(|window| window == RSA_ENCRYPTION) || RsaPublicKey::from_der(der).is_ok() {
        return "an RSA key that is broken or not of 2048 to 8192 bits";
    }
    "a key of an unknown kind, or a broken one"
}

fn blocks(text: &str) -> Result<Vec<Block>, KeyError> {
    let mut found = Vec::new();
    let mut open: Option<(&str, Zeroizing<String>)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if open.is_some() {
                return Err(KeyError::NotPem);
            }
            open = Some((label, Zeroizing::new(String::new())));
        } else if let Some(label) = boundary(line, "-----END ") {
            let (begun, body) = open.take().ok_or(KeyError::NotPem)?;
            if begun != label {
                return Err(KeyError::NotPem);
            }
            let der = STANDARD.decode(body.as_bytes()).map_err(|_| KeyError::NotPem)?;
            found.push(Block { label: label.to_owned(), der: Zeroizing::new(der) });
        } else if let Some((_, body)) = &mut open {
            // RFC 1421 headers stand only in keys that OpenSSL encrypted in its old way.
            if line.contains(':') {
                return Err(KeyError::Encrypted);
            }
            body.push_str(line);
        }
    }
    if open.is_some() { Err(KeyError::NotPem) } else { Ok(found) }
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

/// The DER of the object identifier 1.2.840.113549.1.1.1.
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};

    use super::super::forge::{key, now, pem, tokens};
    use super::super::{KeySet, NewClaims};
    use super::*;
    use crate::config::{Algorithm, KeySource};
    use crate::secret::{Random, Secret};

    fn set(algorithm: Algorithm, pems: Vec<Secret<Vec<u8>>>) -> Result<KeySet, KeyError> {
        KeySet::new(&tokens(algorithm, KeySource::Pem(pems)), &[], Random::system())
    }

    fn text(pem: &str) -> Vec<Secret<Vec<u8>>> {
        vec![Secret::new(pem.as_bytes().to_vec())]
    }

    /// The DER of a key as its algorithm's older form: PKCS#1 or SEC1.
    fn old_form(algorithm: Algorithm) -> Vec<u8> {
        let der = key(algorithm).material.expose().clone();
        let curve = match algorithm {
            Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            // RFC 5208 around a key of 2048 bits: 26 bytes, then RFC 8017's structure.
            _ => return der[26..].to_vec(),
        };
        let pair = EcdsaKeyPair::from_pkcs8(curve, &der).unwrap();
        let der: EcPrivateKeyRfc5915Der<'static> = pair.private_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    #[test]
    fn reads_every_form_of_private_key() {
        use Algorithm::{ES256, ES384, EdDSA, PS384, RS256};
        let new_form = |algorithm| key(algorithm).material.expose().clone();
        for (algorithm, label, der) in [
            (RS256, "PRIVATE KEY", new_form(RS256)),
            (RS256, "RSA PRIVATE KEY", old_form(RS256)),
            (PS384, "RSA PRIVATE KEY", old_form(PS384)),
            (ES256, "PRIVATE KEY", new_form(ES256)),
            (ES256, "EC PRIVATE KEY", old_form(ES256)),
            (ES384, "EC PRIVATE KEY", old_form(ES384)),
            (EdDSA, "PRIVATE KEY", new_form(EdDSA)),
        ] {
            let plain = String::from_utf8(pem(label, &der).expose().clone()).unwrap();
            let forms = [
                plain.clone(),
                plain.replace('\n', "\r\n"),
                format!("some words before\n\n{plain}\nand behind"),
                format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{plain}"),
            ];
            for form in forms {
                let set = set(algorithm, text(&form)).unwrap();
                let claims = NewClaims {
                    subject: "a",
                    now: now(),
                    session: None,
                    signed_in_at: None,
                    methods: &[],
                    groups: &[],
                    scope: "",
                    not_after: None,
                };
                assert!(set.verify(&set.sign(&claims).unwrap(), now()).is_ok(), "{algorithm:?} {label}");
            }
        }
    }

    #[test]
    fn says_what_was_found_instead() {
        use Algorithm::{ES256, ES384, EdDSA, HS256, RS256};
        let file = |algorithm| vec![pem("PRIVATE KEY", key(algorithm).material.expose())];
        let mut with_two = file(ES256);
        with_two.extend(file(ES256));
        let joined = with_two.iter().flat_map(|pem| pem.expose().clone()).collect();
        let broken = |from: &str, to: &str| {
            let pem = String::from_utf8(file(ES256)[0].expose().clone()).unwrap();
            text(&pem.replace(from, to))
        };
        for (algorithm, keys, expected) in [
            (ES256, file(RS256), "ES256 needs an elliptic-curve key on P-256, found an RSA key"),
            (ES256, file(ES384), "ES256 needs an elliptic-curve key on P-256, found an elliptic-curve key on P-384"),
            (
                ES384,
                vec![pem("EC PRIVATE KEY", &old_form(ES256))],
                "ES384 needs an elliptic-curve key on P-384, found an elliptic-curve key on P-256",
            ),
            (EdDSA, file(ES256), "EdDSA needs an Ed25519 key, found an elliptic-curve key on P-256"),
            (RS256, file(EdDSA), "RS256 needs an RSA key of at least 2048 bits, found an Ed25519 key"),
            (
                RS256,
                text(&format!("-----BEGIN PRIVATE KEY-----\n{RSA_1024}\n-----END PRIVATE KEY-----")),
                "RS256 needs an RSA key of at least 2048 bits, found an RSA key that is broken or not of 2048 to 8192 bits",
            ),
            (
                ES256,
                vec![pem("PRIVATE KEY", b"nonsense")],
                "ES256 needs an elliptic-curve key on P-256, found a key of an unknown kind, or a broken one",
            ),
            (HS256, file(ES256), "HS256 needs a shared secret, found a PEM file"),
            (ES256, vec![pem("PUBLIC KEY", b"x")], "expected a private key, found \"PUBLIC KEY\""),
            (ES256, vec![pem("CERTIFICATE", b"x")], "expected a private key, found \"CERTIFICATE\""),
            (
                ES256,
                vec![pem("ENCRYPTED PRIVATE KEY", b"x")],
                "private key is encrypted; decrypt it with `openssl pkey`",
            ),
            (
                ES256,
                broken("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\n\nM"),
                "private key is encrypted; decrypt it with `openssl pkey`",
            ),
            (ES256, vec![Secret::new(joined)], "2 keys in one file, expected one"),
            (ES256, broken("-----END PRIVATE KEY-----", ""), "not a PEM file, or a broken one"),
            (ES256, broken("-----END PRIVATE KEY-----", "-----END KEY-----"), "not a PEM file, or a broken one"),
            (ES256, broken("M", "*"), "not a PEM file, or a broken one"),
            (ES256, text(""), "not a PEM file, or a broken one"),
            (ES256, vec![Secret::new(vec![0xff, 0xfe])], "not a PEM file, or a broken one"),
            (ES256, Vec::new(), "no key to sign tokens with"),
            (
                ES256,
                [file(ES256), file(RS256)].into_iter().flatten().collect(),
                "key 2: ES256 needs an elliptic-curve key on P-256, found an RSA key",
            ),
            (ES256, (0..9).flat_map(|_| file(ES256)).collect(), "9 keys, at most 8 are tried"),
        ] {
            assert_eq!(set(algorithm, keys).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_secret_is_at_least_as_long_as_the_hash() {
        for (algorithm, least) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
            for (len, good) in [(0, false), (least - 1, false), (least, true), (1000, true)] {
                let source = KeySource::Shared(vec![Secret::new(vec![b'k'; len])]);
                let set = KeySet::new(&tokens(algorithm, source), &[], Random::system());
                assert_eq!(set.is_ok(), good, "{algorithm:?} {len}");
                if let Ok(set) = set {
                    assert_eq!(set.verification_keys(now()).to_string(), r#"{"keys":[]}"#);
                }
            }
        }
        let source = KeySource::Shared(vec![Secret::new(vec![b'k'; 64])]);
        let error = KeySet::new(&tokens(Algorithm::RS256, source), &[], Random::system()).unwrap_err();
        assert_eq!(error.to_string(), "RS256 needs an RSA key of at least 2048 bits, found a shared secret");
    }

    /// A key that is too short to be used for anything.
    const RSA_1024: &str = "
MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAMe9Bk2iwcghq5C7
AmPpXF4MyS1N466ec6aIT+QkdvN440/fEU8dPl97HHegJY/BlX2NooD8N4lookZg
Hhz1iRX0pJkSifc71KvNuTF+b08+LSG3AeSityLXuUfRX/ZN3sIicwV6ToSO9QBp
sTdxwZq0BBdpG6VOPOSoRc48d6wzAgMBAAECgYAL9ZFvDJO1u+5d2BSojsxtBS72
e3dqeSpLilXePyCwK0jQ+3Y52nJlnSVzNC+Lj/e3cMeOGYvpuk4dEJw896ahgtD2
t33uNegXd3NS3d4irCLOvj0kjQfDinc3Klwb3cyzKlCujz1oXcfrf2Qu0rVHRSDX
oSUwnluPUPI7FtQDoQJBAOksNJp/4H5Ow6+p5lmpXKRyBbJQ4R8p2GalMPt9iirv
lMUOm5T/R39MNPSnN4F8SrJLk8JHEUu0rxU24pmGvG8CQQDbSuK+MeeEe+aU3+iv
RtNl9vEnJTgV7c7c73LZ2J8o5j3ek5cL7vh7appxJUGC7DJchuH9J3KjAn1OEHvg
lfZ9AkEAz0kaFoM5+m9g7Uf33JuAHTy0LbpS91ZG57FQ4zHOY68KrUf4LbPnRpZj
uV7yLC1nZitj1uFA0fF1eEGLnno2BwJBAJ8i9e69+lu7KjapUos345sgHBqjONM5
EyBjp74NJFsi0o0eH8PqNGojj1ZCigr/awCYZZE3ukovOU2YSr1NNmUCQCEAoWYH
GpKz/e5V19zsExUsx+C+5ZWqFpIAjhIeTocP7fYXWcMOb+XwNuHkZ20Br4vQdoD8
51zTr5/FBsIf1oI=";
}
