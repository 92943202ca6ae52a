//! Judging a token: outer form, key, signature, issuer, audience, expiry, then the rest, in this order.
//!
//! The client learns `Token has expired` or `Invalid token`; the [`Reason`] is for the log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::claims::{self, Claims};
use super::jose::{self, Flaw, Header, Parts};
use super::key::Key;
use super::keys::{KeySet, MAX_KEYS, Terms};
use crate::clock::Timestamp;

/// Proof that a token holds: only [`KeySet::verify`] makes one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verified {
    claims: Arc<Claims>,
    key_id: Arc<str>,
    terms: Arc<Terms>,
}

impl Verified {
    /// What it says.
    pub const fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// The key that signed it.
    pub fn key_id(&self) -> &Arc<str> {
        &self.key_id
    }
}

impl KeySet {
    /// Judges `token` as of `now`. Revocations are not looked at.
    ///
    /// # Errors
    /// Why it does not hold. Expiry is judged right after signature, issuer and audience, so that nothing else hides it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, Refusal> {
        let parts = Parts::split(token)?;
        let header = Header::read(parts.header)?;
        let key = self.proves(&header, &parts, now).map_err(|reason| self.unproven(reason, parts.payload))?;
        let payload = read_payload(parts.payload)?;
        let claims = self.judge(payload, &header, now)?;
        let terms = Arc::clone(self.terms());
        Ok(Verified { claims: Arc::new(claims), key_id: Arc::clone(key.shared_id()), terms })
    }

    /// Judges anew, as of `now`, what can have changed of a token that verified: its expiry, whether its key still counts, and
    /// after a reload of the configuration whether it is for this issuer and audience still.
    ///
    /// # Errors
    /// Why it does not hold any more.
    pub fn recheck(&self, verified: &Verified, now: Timestamp) -> Result<(), Refusal> {
        if !self.has_key(&verified.key_id, now) {
            return Err(Refusal::Invalid(Reason::UnknownKey));
        }
        self.meets_terms(verified)?;
        if self.is_expired(verified.claims.exp, now) { Err(Refusal::Expired) } else { Ok(()) }
    }

    /// Whether a stream that was opened with `verified` may go on as far as keys and terms go. Expiry does not count, nor
    /// does a key that the store has retired meanwhile.
    pub fn still_counts(&self, verified: &Verified) -> bool {
        !self.withdrew(&verified.key_id) && self.meets_terms(verified).is_ok()
    }

    /// Nothing to do but a look at a pointer while the terms are those that it verified under.
    fn meets_terms(&self, verified: &Verified) -> Result<(), Refusal> {
        let (terms, claims) = (self.terms(), &verified.claims);
        if Arc::ptr_eq(terms, &verified.terms) || *terms == verified.terms {
            return Ok(());
        }
        if claims.iss != terms.issuer {
            return Err(Refusal::NotOurs { issuer: Some(claims.iss.clone()) });
        }
        if !claims.aud.contains(&terms.audience) {
            return Err(Reason::Audience.into());
        }
        if Timestamp::from_secs(claims.exp).since(Timestamp::from_secs(claims.iat)) > terms.max_lifetime {
            return Err(Reason::LivesTooLong.into());
        }
        Ok(())
    }

    /// Whether `token` says that it is one of ours, good or bad, as the laxest reader might take it. Proves nothing.
    pub fn is_ours(&self, token: &str) -> bool {
        jose::claims_issuer(token, &self.terms().issuer)
    }

    /// Whether a token verified with `key_id` would still find its key: for caches that outlive a key set.
    pub fn has_key(&self, key_id: &str, now: Timestamp) -> bool {
        self.keys().iter().any(|held| held.key.id() == key_id && held.verifies(now))
    }

    fn is_expired(&self, exp: u64, now: Timestamp) -> bool {
        now >= Timestamp::from_secs(exp) + self.terms().leeway
    }

    /// The key whose signature it is. Only keys of exactly the algorithm named are tried, so a public key is never taken for a secret.
    fn proves(&self, header: &Header, parts: &Parts<'_>, now: Timestamp) -> Result<&Key, Reason> {
        let of_algorithm = |key: &&Key| jose::algorithm_name(key.algorithm()) == header.algorithm;
        let in_time = self.keys().iter().filter(|held| held.verifies(now)).map(|held| &held.key);
        let mut candidates = in_time.filter(of_algorithm).peekable();
        candidates.peek().ok_or(Reason::Algorithm)?;
        let holds = |key: &&Key| key.verifies(parts.signed.as_bytes(), &parts.signature);
        match &header.key_id {
            None => candidates.take(MAX_KEYS).find(holds).ok_or(Reason::Signature),
            Some(key_id) => {
                let key = candidates.find(|key| key.id() == key_id).ok_or(Reason::UnknownKey)?;
                if holds(&key) { Ok(key) } else { Err(Reason::Signature) }
            }
        }
    }

    /// A token that our keys don't prove may be someone else's; what it says of itself is believed only so far.
    fn unproven(&self, reason: Reason, payload: &str) -> Refusal {
        match read_payload(payload).ok().as_ref().and_then(|payload| payload.get("iss")) {
            Some(Value::String(issuer)) if *issuer != self.terms().issuer => {
                Refusal::NotOurs { issuer: Some(issuer.clone()) }
            }
            _ => Refusal::Invalid(reason),
        }
    }

    fn judge(&self, payload: Map<String, Value>, header: &Header, now: Timestamp) -> Result<Claims, Refusal> {
        let terms = self.terms();
        match payload.get("iss") {
            Some(Value::String(issuer)) if *issuer == terms.issuer => {}
            Some(Value::String(issuer)) => return Err(Refusal::NotOurs { issuer: Some(issuer.clone()) }),
            _ => return Err(Refusal::NotOurs { issuer: None }),
        }
        let aud = claims::audience(&payload, std::slice::from_ref(&terms.audience))?;
        let exp = claims::required_date(&payload, "exp")?;
        if self.is_expired(exp, now) {
            return Err(Refusal::Expired);
        }
        if !header.typed_as_access_token {
            return Err(Reason::Type.into());
        }
        let iat = claims::required_date(&payload, "iat")?;
        let latest = now + AHEAD;
        if Timestamp::from_secs(iat) > latest {
            return Err(Reason::IssuedAhead.into());
        }
        if claims::date(&payload, "nbf")?.is_some_and(|nbf| Timestamp::from_secs(nbf) > latest) {
            return Err(Reason::NotYetValid.into());
        }
        if Timestamp::from_secs(exp).since(Timestamp::from_secs(iat)) > terms.max_lifetime {
            return Err(Reason::LivesTooLong.into());
        }
        Ok(Claims {
            iss: terms.issuer.clone(),
            sub: claims::subject(&payload)?,
            aud,
            iat,
            exp,
            jti: claims::text(&payload, "jti")?,
            sid: claims::text(&payload, "sid")?,
            auth_time: claims::date(&payload, "auth_time")?,
            amr: claims::texts(&payload, "amr")?,
            groups: claims::texts(&payload, "groups")?,
            scope: claims::text(&payload, "scope")?.unwrap_or_default(),
            all: Arc::new(payload),
        })
    }
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was good once: signature, issuer and audience hold.
    Expired,
    /// It says that someone else issued it, or (signed with our key) nobody.
    NotOurs {
        /// Who, if it says so. Not believed.
        issuer: Option<String>,
    },
    /// It does not hold.
    Invalid(Reason),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::NotOurs { issuer: Some(issuer) } => write!(f, "issued by {issuer:?}"),
            Self::NotOurs { issuer: None } => f.write_str("no issuer"),
            Self::Invalid(reason) => reason.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

/// What is wrong with a token, for the log; a client never learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Over 8 KiB.
    TooLong,
    /// Not three parts, or an empty one.
    NotThreeParts,
    /// A part is not base64url in its one canonical form.
    Base64,
    /// The header is not a JSON object.
    HeaderSyntax,
    /// The payload is not a JSON object.
    PayloadSyntax,
    /// A name stands twice in one object.
    DuplicateMember,
    /// `alg` is missing, or no key is of that algorithm.
    Algorithm,
    /// `crit` is there.
    Critical,
    /// `b64`, `zip`, `enc`, or a nested token.
    HeaderMember,
    /// `kid` is not a short string.
    KeyId,
    /// No key of that algorithm has that `kid`.
    UnknownKey,
    /// The signature does not hold.
    Signature,
    /// It is for someone else.
    Audience,
    /// A claim is missing, or of the wrong type or form.
    Claim(&'static str),
    /// `typ` is that of another kind of token.
    Type,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `iat` lies ahead.
    IssuedAhead,
    /// It claims to live longer than any token may.
    LivesTooLong,
    /// The claim that names the person is missing, or holds what nobody may be called.
    Person,
    /// The person is named by an e-mail address that the issuer has not verified.
    EmailNotVerified,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::NotThreeParts => "not three parts",
            Self::Base64 => "not canonical base64url",
            Self::HeaderSyntax => "header is not a JSON object",
            Self::PayloadSyntax => "payload is not a JSON object",
            Self::DuplicateMember => "a name stands twice",
            Self::Algorithm => "algorithm is not ours",
            Self::Critical => "critical header",
            Self::HeaderMember => "header asks for what is not supported",
            Self::KeyId => "malformed key id",
            Self::UnknownKey => "unknown key id",
            Self::Signature => "signature does not hold",
            Self::Audience => "audience is not ours",
            Self::Claim(name) => return write!(f, "claim {name:?} is missing or malformed"),
            Self::Type => "another type of token",
            Self::NotYetValid => "not valid yet",
            Self::IssuedAhead => "issued in the future",
            Self::LivesTooLong => "claims to live too long",
            Self::Person => "the claim that names the person holds no name",
            Self::EmailNotVerified => "the e-mail address is not verified",
        })
    }
}

pub(super) fn read_payload(encoded: &str) -> Result<Map<String, Value>, Reason> {
    jose::object(&jose::decode(encoded)?).map_err(|flaw| match flaw {
        Flaw::Syntax => Reason::PayloadSyntax,
        Flaw::Duplicate => Reason::DuplicateMember,
    })
}

/// How far a clock may be behind that of whoever issued a token.
pub(super) const AHEAD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::super::forge::{ALL, ISSUER, Mint, NOW, Payload, b64, now, signature, tokens};
    use super::super::{Event, NewClaims, Revocations, Why};
    use super::*;
    use crate::config::{Algorithm, KeySource};
    use crate::secret::{Random, Secret};

    const SECRET: &[u8] = b"a secret of forty-one bytes for two sides";

    #[test]
    fn what_verified_is_judged_anew_under_other_terms_and_keys() {
        let mint = Mint::new(Algorithm::HS256);
        let token = mint.say(Payload::honest().json());
        let verified = mint.set.verify(&token, now()).unwrap();
        let secrets = || KeySource::Shared(vec![Secret::new(mint.key.material.expose().clone())]);
        let terms = tokens(Algorithm::HS256, secrets());
        let under = |terms: &crate::config::Tokens| KeySet::new(terms, &[], Random::system()).unwrap();
        assert!(!shared(0).still_counts(&verified), "a secret that is no longer named");
        assert!(mint.set.still_counts(&verified) && Mint::new(Algorithm::HS256).set.still_counts(&verified));
        let mut other = terms.clone();
        other.audience = "others".into();
        assert_eq!(under(&other).meets_terms(&verified).unwrap_err(), Refusal::Invalid(Reason::Audience));
        let mut other = terms.clone();
        other.issuer = "https://other.example".into();
        assert!(matches!(under(&other).meets_terms(&verified).unwrap_err(), Refusal::NotOurs { .. }));
        let mut other = terms.clone();
        other.max_lifetime = Duration::from_secs(1);
        assert_eq!(under(&other).meets_terms(&verified).unwrap_err(), Refusal::Invalid(Reason::LivesTooLong));
        let mut other = terms;
        other.lifetime = Duration::from_secs(7);
        assert!(under(&other).meets_terms(&verified).is_ok(), "how long new ones live does not matter");
    }

    fn shared(leeway: u64) -> KeySet {
        let keys = KeySource::Shared(vec![
            Secret::new(b"a first secret that nobody else has ever had".to_vec()),
            Secret::new(SECRET.to_vec()),
        ]);
        let mut tokens = tokens(Algorithm::HS256, keys);
        tokens.leeway = Duration::from_secs(leeway);
        KeySet::new(&tokens, &[], Random::system()).unwrap()
    }

    fn minted_elsewhere(header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(payload));
        format!("{signed}.{}", b64(signature(Algorithm::HS256, SECRET, signed.as_bytes())))
    }

    #[test]
    fn a_good_token_of_every_algorithm_comes_back_as_it_went() {
        let (methods, groups) = (["pwd".to_owned()], ["ops".to_owned(), "ünï,x".to_owned()]);
        for algorithm in ALL {
            let mint = Mint::new(algorithm);
            let new = NewClaims {
                subject: "alice",
                now: now(),
                session: Some("0123456789abcdefghijkl"),
                signed_in_at: Some(Timestamp::from_secs(NOW - 5)),
                methods: &methods,
                groups: &groups,
                scope: "read write",
                not_after: None,
            };
            let token = mint.set.sign(&new).unwrap();
            let verified = mint.set.verify(&token, now()).unwrap();
            assert_eq!(&**verified.key_id(), mint.key.kid, "{algorithm:?}");
            let claims = verified.claims();
            assert_eq!((claims.iss.as_str(), claims.sub.as_str()), (ISSUER, "alice"));
            assert_eq!((claims.iat, claims.exp, claims.auth_time), (NOW, NOW + 900, Some(NOW - 5)));
            assert_eq!(claims.aud, ["portcullis"]);
            assert_eq!((&claims.amr[..], &claims.groups[..]), (&methods[..], &groups[..]));
            assert_eq!(claims.scopes().collect::<Vec<_>>(), ["read", "write"]);
            assert_eq!(claims.sid.as_deref(), Some("0123456789abcdefghijkl"));
            assert_eq!(claims.jti.as_ref().map(String::len), Some(22));
            assert_eq!(claims.all["jti"].as_str(), claims.jti.as_deref());
            // One made by hand too, and not under another key of the same algorithm.
            assert!(mint.set.verify(&mint.say(Payload::honest().json()), now()).is_ok(), "{algorithm:?}");
            assert!(mint.set.has_key(verified.key_id(), now()) && !mint.set.has_key("other", now()));
        }
    }

    #[test]
    fn takes_a_plain_token_minted_with_a_shared_secret() {
        // As a few lines of a library write it: no kid, no jti, no session.
        let token = minted_elsewhere(r#"{"alg":"HS256","typ":"JWT"}"#, &Payload::honest().json());
        let verified = shared(0).verify(&token, now()).unwrap();
        assert_eq!(verified.claims().sub, "alice");
        assert_eq!((&verified.claims().jti, &verified.claims().sid), (&None, &None));
        let known =
            minted_elsewhere(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, verified.key_id()), &Payload::honest().json());
        assert!(shared(0).verify(&known, now()).is_ok());
        // A longer hash under the same secret is another algorithm.
        let signed = format!("{}.{}", b64(r#"{"alg":"HS512"}"#), b64(Payload::honest().json()));
        let token = format!("{signed}.{}", b64(signature(Algorithm::HS512, SECRET, signed.as_bytes())));
        assert_eq!(shared(0).verify(&token, now()).unwrap_err(), Refusal::Invalid(Reason::Algorithm));
    }

    #[test]
    fn expiry_is_at_the_second_and_leeway_moves_it() {
        for (leeway, age, good) in
            [(0, -1, true), (0, 0, false), (0, 1, false), (10, 9, true), (10, 10, false), (10, 11, false)]
        {
            let exp = NOW.checked_add_signed(-age).unwrap();
            let token = minted_elsewhere(r#"{"alg":"HS256"}"#, &Payload::honest().with("exp", exp).json());
            let got = shared(leeway).verify(&token, now());
            assert_eq!(got.is_ok(), good, "leeway {leeway}, expired for {age} s");
            assert!(good || matches!(got, Err(Refusal::Expired)));
        }
        let token = minted_elsewhere(r#"{"alg":"HS256"}"#, &Payload::honest().with("exp", NOW + 1).json());
        assert!(shared(0).verify(&token, Timestamp::from_millis(NOW * 1000 + 999)).is_ok());
        assert!(shared(0).verify(&token, Timestamp::from_millis(NOW * 1000 + 1000)).is_err());
    }

    #[test]
    fn takes_what_the_rules_leave_free() {
        let mint = Mint::new(Algorithm::HS256);
        let payloads = [
            ("an audience among others", Payload::honest().with("aud", r#"["x","portcullis"]"#)),
            (
                "fractions of seconds",
                Payload::honest().with("exp", format!("{}.75", NOW + 5)).with("iat", format!("{NOW}.5")),
            ),
            ("an exponent", Payload::honest().with("exp", "1.70000001e9")),
            ("iat 30 s ahead", Payload::honest().with("iat", NOW + 30)),
            ("nbf 30 s ahead", Payload::honest().with("nbf", NOW + 30)),
            ("the longest life", Payload::honest().with("exp", NOW + 86_400)),
            ("a composed name", Payload::honest().with("sub", r#""\u00e5lice""#)),
            ("a name with a space inside", Payload::honest().with("sub", r#""alice b""#)),
            ("the longest name", Payload::honest().with("sub", format!("{:?}", "a".repeat(256)))),
            ("claims of its own", Payload::honest().with("tenant", r#"{"id":[1,null,true,1.5,-3]}"#)),
            ("an escaped name", Payload::honest().without("sub").and("\\u0073ub", r#""alice""#)),
            ("space around", Payload::honest()),
        ];
        for (name, payload) in payloads {
            let token = mint.say(format!(" {}\n", payload.json()));
            assert!(mint.set.verify(&token, now()).is_ok(), "{name}: {:?}", mint.set.verify(&token, now()));
        }
        for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT"] {
            let token = mint.sign(&format!(r#"{{"typ":"{typ}","alg":"HS256"}}"#), Payload::honest().json());
            assert!(mint.set.verify(&token, now()).is_ok(), "typ {typ}");
        }
        for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","cty":"json","x":[1],"jku":"http://x"}"#] {
            assert!(mint.set.verify(&mint.sign(header, Payload::honest().json()), now()).is_ok(), "{header}");
        }
    }

    #[test]
    fn a_rewritten_ecdsa_signature_verifies_and_is_revoked_all_the_same() {
        let mint = Mint::new(Algorithm::ES256);
        let token = mint.say(Payload::honest().with("jti", r#""AAAAAAAAAAAAAAAAAAAAAA""#).json());
        let (signed, _) = token.rsplit_once('.').unwrap();
        let mut bytes = Parts::split(&token).unwrap().signature;
        let mut borrow = 0;
        for (digit, order) in bytes[32..].iter_mut().zip(P256_ORDER).rev() {
            let difference = i32::from(order) - i32::from(*digit) - borrow;
            borrow = i32::from(difference < 0);
            *digit = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        let other = format!("{signed}.{}", b64(&bytes));
        assert_ne!(other, token);
        let verified = mint.set.verify(&other, now()).unwrap();
        let revocations = Revocations::new();
        assert_eq!(revocations.refuses(verified.claims()), None);
        let until = Timestamp::from_secs(NOW + 900);
        revocations.apply(Event::TokenRevoked { jti: "AAAAAAAAAAAAAAAAAAAAAA", until }, now());
        assert_eq!(revocations.refuses(verified.claims()), Some(Why::TokenRevoked));
    }

    #[test]
    fn a_retired_key_verifies_until_it_is_gone() {
        let (old, new) = (Mint::new(Algorithm::ES256), Mint::new(Algorithm::ES256));
        let token = old.say(Payload::honest().json());
        let tokens = tokens(Algorithm::ES256, KeySource::Store);
        let both = KeySet::new(&tokens, &[new.key.clone(), old.key.clone()], Random::system()).unwrap();
        assert_eq!(&**both.verify(&token, now()).unwrap().key_id(), old.key.kid);
        assert_eq!(both.signing_key_id(now()), new.key.kid);
        assert_eq!(new.set.verify(&token, now()).unwrap_err(), Refusal::Invalid(Reason::Signature));
    }

    #[test]
    fn a_stranger_s_token_is_told_from_a_bad_one_of_ours() {
        let mint = Mint::new(Algorithm::ES256);
        let stranger = Mint::new(Algorithm::RS256);
        let token = stranger.say(Payload::honest().with("iss", r#""https://id.test""#).json());
        let foreign = Refusal::NotOurs { issuer: Some("https://id.test".to_owned()) };
        assert_eq!(mint.set.verify(&token, now()).unwrap_err(), foreign);
        let token = stranger.say(Payload::honest().json());
        assert_eq!(mint.set.verify(&token, now()).unwrap_err(), Refusal::Invalid(Reason::Algorithm));
        let token = stranger.say(Payload::honest().without("iss").json());
        assert_eq!(mint.set.verify(&token, now()).unwrap_err(), Refusal::Invalid(Reason::Algorithm));
    }

    /// SEC 2 section 2.4.2.
    const P256_ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, //
        0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
}
