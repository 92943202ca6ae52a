//! `[tokens]`: how own tokens are signed and how long they live.

use std::time::Duration;

use toml::Spanned;

use super::reader::{Context, Table, Written};
use super::secrets::{SecretBytes, secrets};
use super::server::positive;
use super::{Algorithm, KeySource, PublicUrl, Tokens};
use crate::diag::Diagnostic;

/// `[tokens]` as written.
#[derive(Default)]
pub(super) struct Raw {
    issuer: Option<Written<String>>,
    audience: Option<Written<String>>,
    algorithm: Option<Written<Algorithm>>,
    lifetime: Option<Written<Duration>>,
    leeway: Option<Written<Duration>>,
    max_lifetime: Option<Written<Duration>>,
    secret: Option<Written<Vec<Written<SecretBytes>>>>,
    key: Option<Written<Vec<Written<SecretBytes>>>>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let list = |table: &mut Table<'_>, name| {
            let item = table.take(name)?;
            secrets(&item).map(|list| Spanned::new(item.key.clone(), list))
        };
        let raw = Self {
            issuer: table.take("issuer").and_then(|item| item.text()),
            audience: table.take("audience").and_then(|item| item.text()),
            algorithm: table.take("algorithm").and_then(|item| item.word("tokens.algorithm", ALGORITHMS)),
            lifetime: table.duration("lifetime"),
            leeway: table.duration("leeway"),
            max_lifetime: table.duration("max_lifetime"),
            secret: list(&mut table, "secret"),
            key: list(&mut table, "key"),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>, public_url: &PublicUrl) -> Tokens {
        let algorithm = self.algorithm.map_or(Algorithm::ES256, Spanned::into_inner);
        let written = self.lifetime.as_ref().or(self.max_lifetime.as_ref()).map(Spanned::span);
        let max_lifetime = positive(cx, "max_lifetime", self.max_lifetime, MAX_LIFETIME);
        let lifetime = positive(cx, "lifetime", self.lifetime, Duration::from_secs(900).min(max_lifetime));
        if let Some(span) = written.filter(|_| lifetime > max_lifetime) {
            let finding =
                Diagnostic::error("lifetime-too-long", "own tokens would live longer than `max_lifetime` lets them");
            cx.report(finding.at(span).help("make `lifetime` shorter or `max_lifetime` longer (it is 24h unless set)"));
        }
        judge_leeway(cx, self.leeway.as_ref());
        Tokens {
            issuer: self.issuer.map_or_else(|| public_url.origin(), Spanned::into_inner),
            audience: self.audience.map_or_else(|| "portcullis".to_owned(), Spanned::into_inner),
            algorithm,
            lifetime,
            leeway: self.leeway.map_or(Duration::ZERO, Spanned::into_inner),
            max_lifetime,
            keys: keys(cx, algorithm, self.secret, self.key),
        }
    }
}

type Keys = Option<Written<Vec<Written<SecretBytes>>>>;

fn keys(cx: &Context<'_>, algorithm: Algorithm, secret: Keys, key: Keys) -> KeySource {
    let shared = hash_length(algorithm);
    match (secret, key, shared) {
        (None, None, _) => KeySource::Store,
        (Some(_), Some(key), _) => {
            let finding = Diagnostic::error("conflicting-keys", "`secret` and `key` are both given").at(key.span());
            cx.report(
                finding.help("`secret` is for HS256, HS384 and HS512, `key` for every other algorithm: keep one"),
            );
            KeySource::Store
        }
        (Some(secret), None, None) => {
            let message = format!("{algorithm:?} signs with a private key, not with a shared secret");
            let help = "give `key = { file = \"key.pem\" }`, or set algorithm = \"HS256\"";
            cx.report(Diagnostic::error("wrong-key-kind", message).at(secret.span()).help(help));
            KeySource::Store
        }
        (None, Some(key), Some(_)) => {
            let message = format!("{algorithm:?} signs with a shared secret, not with a private key");
            let help = "give `secret = { env = \"NAME\" }`, or choose an algorithm such as \"ES256\"";
            cx.report(Diagnostic::error("wrong-key-kind", message).at(key.span()).help(help));
            KeySource::Store
        }
        (Some(secret), None, Some(length)) => {
            secret.get_ref().iter().for_each(|secret| judge_secret(cx, secret, algorithm, length));
            KeySource::Shared(secret.into_inner().into_iter().map(Spanned::into_inner).collect())
        }
        (None, Some(key), None) => {
            key.get_ref().iter().for_each(|key| judge_key(cx, key));
            KeySource::Pem(key.into_inner().into_iter().map(Spanned::into_inner).collect())
        }
    }
}

/// More than a clock can be wrong by would be another lifetime.
pub(super) fn judge_leeway(cx: &Context<'_>, leeway: Option<&Written<Duration>>) {
    if let Some(leeway) = leeway.filter(|leeway| *leeway.get_ref() > MOST_LEEWAY) {
        let finding = Diagnostic::error("out-of-range", "`leeway` can't be longer than 5m").at(leeway.span());
        cx.report(finding.help("leeway evens out clocks; a token that shall live longer needs a longer `lifetime`"));
    }
}

/// RFC 7518 section 3.2: a key of the size of the hash output or larger MUST be used.
pub(super) fn judge_secret(cx: &Context<'_>, secret: &Written<SecretBytes>, algorithm: Algorithm, length: usize) {
    let bytes = secret.get_ref().expose();
    let report = |finding: Diagnostic| {
        let help = format!("make one with `openssl rand -base64 {}`", length.max(32) * 3 / 2);
        cx.report(finding.at(secret.span()).help(help));
    };
    if is_well_known(bytes) {
        report(Diagnostic::error("weak-secret", "the secret is one that everybody knows"));
    } else if bytes.len() < length {
        let message = format!("the secret has {} bytes; {algorithm:?} needs at least {length}", bytes.len());
        report(Diagnostic::error("weak-secret", message));
    } else if is_repetition(bytes) {
        report(Diagnostic::warning("weak-secret", "the secret is one piece over and over, which is easily guessed"));
    }
}

/// Whether anybody would try `secret` first: a word of examples, alone or repeated, or a short pattern.
fn is_well_known(secret: &[u8]) -> bool {
    let text = String::from_utf8_lossy(secret).trim().to_lowercase();
    let plain: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    WELL_KNOWN.iter().any(|known| text == *known || plain == *known)
}

/// A piece of at most eight characters, or a well-known secret, over and over.
fn is_repetition(secret: &[u8]) -> bool {
    let text = String::from_utf8_lossy(secret).trim().to_lowercase();
    let plain: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let bytes = text.as_bytes();
    (1..=8.min(bytes.len() / 2)).any(|period| bytes.iter().skip(period).zip(bytes).all(|(a, b)| a == b))
        || WELL_KNOWN.iter().any(|known| {
            known.len() >= 4
                && !plain.is_empty()
                && plain.len().is_multiple_of(known.len())
                && plain == known.repeat(plain.len() / known.len())
        })
}

/// Only that it is a private key; whether it suits the algorithm, the key set finds out when it is built.
fn judge_key(cx: &Context<'_>, key: &Written<SecretBytes>) {
    let text = String::from_utf8_lossy(key.get_ref().expose());
    let problem = |message: &str, help: &str| {
        cx.report(Diagnostic::error("bad-key", message.to_owned()).at(key.span()).help(help));
    };
    let make = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`";
    if !text.contains("-----BEGIN ") {
        problem("the key is not PEM", make);
    } else if text.contains("ENCRYPTED") {
        problem(
            "the key is encrypted",
            "decrypt it with `openssl pkey`, and keep the file readable for the gateway only",
        );
    } else if !text.contains("PRIVATE KEY-----") {
        problem("the key is not a private key", "own tokens are signed here: give the private key");
    }
}

/// Bytes of the hash of an algorithm that takes a shared secret.
pub(super) const fn hash_length(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}

/// How long a token may claim to live, unless it is said.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(86_400);

const MOST_LEEWAY: Duration = Duration::from_secs(300);

pub(super) const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Secrets of tutorials, examples and defaults, in lower case.
const WELL_KNOWN: &[&str] = &[
    "secret",
    "secretkey",
    "secret-key",
    "mysecret",
    "mysecretkey",
    "supersecret",
    "supersecretkey",
    "jwtsecret",
    "jwtsecretkey",
    "jwt_secret",
    "yoursecretkey",
    "yoursecret",
    "yourjwtsecret",
    "yoursecrethere",
    "yoursecretkeyhere",
    "yoursupersecretkey",
    "your256bitsecret",
    "your384bitsecret",
    "your512bitsecret",
    "changeme",
    "changethis",
    "pleasechangeme",
    "changemeinproduction",
    "changethisinproduction",
    "changethissecret",
    "changethissecretinproduction",
    "yoursecretkeychangethisinproduction",
    "yoursecretkeychangeinproduction",
    "thisisasecret",
    "thisisasecretkey",
    "thisisaverysecretkey",
    "thisisasupersecretkey",
    "password",
    "admin",
    "test",
    "testsecret",
    "default",
    "example",
    "examplekey",
    "shhhhh",
    "keyboardcat",
    "portcullis",
    "1234567890",
    "12345678901234567890123456789012",
    "1234567890123456789012345678901234567890123456789012345678901234",
    "0123456789abcdef0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz123456",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm123456",
    // The key of FastAPI's tutorial, found in many deployed applications.
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_secrets_that_everybody_knows() {
        for secret in ["secret", "SECRET\n", "your-256-bit-secret", "changeme"] {
            assert!(is_well_known(secret.as_bytes()), "{secret}");
        }
        for repeated in [
            "secretsecretsecretsecretsecretsecret",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababababababababababababab",
        ] {
            assert!(is_repetition(repeated.as_bytes()), "{repeated}");
        }
        for good in ["kT8!vN2#qR5@wX9$zB4%yC7^uD1&eF6*", "q0Vv1w6a2l0cQe5oS8Gm3Yh7Jt4Kz9Pd"] {
            assert!(!is_well_known(good.as_bytes()) && !is_repetition(good.as_bytes()), "{good}");
        }
    }
}
