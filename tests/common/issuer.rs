//! An identity provider: keys that it publishes, and tokens that it signs. It can say anything, or nothing.

use std::net::SocketAddr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::recorder::reply;
use super::token::{encode, now};
use super::{Answer, Recorded, Recorder};

/// A key of an issuer under a name.
pub(crate) struct IssuerKey {
    pair: EcdsaKeyPair,
    kid: String,
}

impl IssuerKey {
    pub(crate) fn new(kid: &str) -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
        Self { pair, kid: kid.to_owned() }
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid,
            "x": encode(&point[1..33]), "y": encode(&point[33..]),
        })
    }

    /// A token that says `claims`.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid });
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

/// The server of an issuer: a key set at `/jwks.json`, and a discovery document.
pub(crate) struct Issuer {
    server: Recorder,
}

impl Issuer {
    /// One that publishes `keys`.
    pub(crate) fn publishing(keys: &[&IssuerKey]) -> Self {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        let server = Recorder::answering(move |request: &Recorded| {
            let origin = format!("http://{}", request.header("host").unwrap_or_default());
            let document = match request.line().split(' ').nth(1) {
                Some("/jwks.json") => json!({ "keys": keys }),
                Some("/.well-known/openid-configuration") => {
                    json!({ "issuer": origin, "jwks_uri": format!("{origin}/jwks.json") })
                }
                _ => return Answer::Keep(reply("404 Not Found", "", "")),
            };
            Answer::Keep(reply("200 OK", "Content-Type: application/json\r\n", &document.to_string()))
        });
        Self { server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What its tokens say in `iss`.
    pub(crate) fn name(&self) -> String {
        format!("http://{}", self.address())
    }

    /// How often its keys were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.server.take().iter().filter(|request| request.line().contains("/jwks.json")).count()
    }

    /// The claims of a token of `subject` that nothing is wrong with.
    pub(crate) fn claims(&self, subject: &str) -> Value {
        let now = now();
        json!({
            "iss": self.name(), "sub": subject, "aud": ["apps", "x"], "iat": now, "exp": now + 600,
            "jti": format!("{subject}-{now}"), "groups": ["ops", "a,b"], "email": "b@example.com", "name": "Bo Ø",
            "sid": "theirs", "amr": ["pwd"],
        })
    }

    /// `[[issuers]]` for it, with more keys.
    pub(crate) fn section(&self, name: &str, more: &str) -> String {
        let jwks = format!("{}/jwks.json", self.name());
        format!(
            "[[issuers]]\nname = \"{name}\"\nissuer = \"{}\"\naudience = [\"apps\"]\njwks = \"{jwks}\"\n{more}\n",
            self.name()
        )
    }
}

/// `claims` with some replaced; `null` leaves one out.
pub(crate) fn with(mut claims: Value, changes: Value) -> Value {
    let members = claims.as_object_mut().expect("claims are an object");
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    claims
}
