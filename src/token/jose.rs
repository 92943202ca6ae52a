//! The outer form of a token, read strictly: JWS compact serialization (RFC 7515 section 7.1), its header (section 4), and JSON objects in
//! which no name stands twice (RFC 7519 section 4 leaves that open, and two readers would then see two different tokens).

use std::cell::Cell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::verify::Reason;
use crate::config::Algorithm;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The registered name of `algorithm` (RFC 7518 section 3.1, RFC 8037 section 3.1).
pub const fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "HS256",
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::EdDSA => "EdDSA",
    }
}

/// The three parts of a compact JWS, still encoded but for the signature.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// What the signature is over: header, dot, payload.
    pub(super) signed: &'a str,
    /// The encoded header.
    pub(super) header: &'a str,
    /// The encoded payload.
    pub(super) payload: &'a str,
    /// The signature's bytes.
    pub(super) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Takes `token` apart; a size or a number of parts that is not ours is refused before anything is decoded.
    pub(super) fn split(token: &'a str) -> Result<Self, Reason> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::NotThreeParts)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::NotThreeParts)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(Reason::NotThreeParts);
        }
        Ok(Self { signed, header, payload, signature: decode(signature)? })
    }
}

/// What a header says that matters here.
#[derive(Debug)]
pub(super) struct Header {
    /// `alg`, as written.
    pub(super) algorithm: String,
    /// `kid`
    pub(super) key_id: Option<String>,
    /// Whether `typ` is absent or one of an access token's.
    pub(super) typed_as_access_token: bool,
}

impl Header {
    /// Reads an encoded header. Members that name or carry keys (`jwk`, `jku`, `x5u`, `x5c`) are never looked at.
    pub(super) fn read(encoded: &str) -> Result<Self, Reason> {
        let members = object(&decode(encoded)?).map_err(|flaw| match flaw {
            Flaw::Syntax => Reason::HeaderSyntax,
            Flaw::Duplicate => Reason::DuplicateMember,
        })?;
        // RFC 7515 section 4.1.11: an extension that is not understood must be refused, and none is.
        if members.contains_key("crit") {
            return Err(Reason::Critical);
        }
        // RFC 7797 (`b64`) changes what is signed; `zip` and `enc` belong to JWE (RFC 7516).
        if ["b64", "zip", "enc"].iter().any(|name| members.contains_key(*name)) {
            return Err(Reason::HeaderMember);
        }
        match members.get("cty") {
            None => {}
            Some(Value::String(kind)) if !is_media_type(kind, "jwt") => {}
            Some(_) => return Err(Reason::HeaderMember),
        }
        let Some(Value::String(algorithm)) = members.get("alg") else {
            return Err(Reason::Algorithm);
        };
        let key_id = match members.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_KEY_ID_BYTES => Some(kid.clone()),
            Some(_) => return Err(Reason::KeyId),
        };
        let typed_as_access_token = match members.get("typ") {
            None => true,
            Some(Value::String(kind)) => is_media_type(kind, "jwt") || is_media_type(kind, "at+jwt"),
            Some(_) => false,
        };
        Ok(Self { algorithm: algorithm.clone(), key_id, typed_as_access_token })
    }
}

/// Decodes base64url without padding (RFC 7515 section 2); any other alphabet, padding, space, or stray last bits are refused.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Base64)
}

/// Why bytes are not an object that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// They are not JSON, or not an object.
    Syntax,
    /// A name stands twice in one object, at whatever depth and however escaped.
    Duplicate,
}

/// Reads one JSON object and nothing around it.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, Flaw> {
    let duplicate = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Strict(&duplicate).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Err(_) if duplicate.get() => Err(Flaw::Duplicate),
        Ok(_) | Err(_) => Err(Flaw::Syntax),
    }
}

/// Whether `token` says that it comes from `issuer`, as an application that is laxer than we are might read it: without a look at the
/// signature, in either alphabet, padded or not, with a member twice, and with anything broken but the one member.
pub(super) fn claims_issuer(token: &str, issuer: &str) -> bool {
    token.split('.').take(MAX_PEEKED_PARTS).any(|part| {
        let lenient: Vec<u8> = part
            .bytes()
            .filter_map(|byte| match byte {
                b'+' => Some(b'-'),
                b'/' => Some(b'_'),
                b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => Some(byte),
                _ => None,
            })
            .collect();
        let decoded = LENIENT.decode(&lenient).unwrap_or_default();
        let text = String::from_utf8_lossy(&decoded);
        let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c == '\0' || c.is_whitespace());
        let found = Cell::new(false);
        let mut reader = serde_json::Deserializer::from_str(text);
        let whole = reader.deserialize_map(IssuerSeeker { issuer, found: &found });
        found.get() || whole.is_err() && text.starts_with('{') && mentions_issuer(text, issuer)
    })
}

/// Looks through text that is not JSON by the rules, which some readers take all the same (`NaN`, lone surrogates, raw controls).
fn mentions_issuer(text: &str, issuer: &str) -> bool {
    text.match_indices("\"iss\"").any(|(place, name)| {
        let value = text[place + name.len()..].trim_start_matches([' ', '\t', '\r', '\n', ':', '[']);
        let first = serde_json::Deserializer::from_str(value).into_iter::<String>().next();
        matches!(first, Some(Ok(value)) if value == issuer)
    })
}

/// Whether `written` is the media type `application/<name>`, with or without the prefix (RFC 7515 section 4.1.9), in any case.
fn is_media_type(written: &str, name: &str) -> bool {
    let bare = match written.split_at_checked(MEDIA_PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(MEDIA_PREFIX) => rest,
        _ => written,
    };
    bare.eq_ignore_ascii_case(name)
}

/// Builds a [`Value`] and stops at a name that stands twice.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if map.insert(name, value).is_some() {
                self.0.set(true);
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// Looks for a member `iss` that is, or contains, the issuer.
struct IssuerSeeker<'a> {
    issuer: &'a str,
    found: &'a Cell<bool>,
}

impl<'de> Visitor<'de> for IssuerSeeker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            if name != "iss" {
                members.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            let ours = match members.next_value::<Value>()? {
                Value::String(value) => value == self.issuer,
                Value::Array(values) => values.iter().any(|value| value.as_str() == Some(self.issuer)),
                _ => false,
            };
            if ours {
                self.found.set(true);
                return Ok(());
            }
        }
        Ok(())
    }
}

const LENIENT: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    base64::engine::GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

const MAX_KEY_ID_BYTES: usize = 256;
const MAX_PEEKED_PARTS: usize = 8;
const MEDIA_PREFIX: &str = "application/";

#[cfg(test)]
mod tests {
    use super::super::forge::{ISSUER, Mint, Payload, b64};
    use super::*;

    #[test]
    fn knows_what_is_ours_however_it_is_broken() {
        let mint = Mint::new(Algorithm::HS256);
        let header = b64(mint.header());
        let part = |payload: &str| b64(payload);
        let iss = format!(r#""iss":"{ISSUER}""#);
        let ours = [
            mint.say(Payload::honest().json()),
            mint.say(Payload::honest().with("exp", 1).json()),
            format!("{header}.{}.", part(&format!("{{{iss}}}"))),
            format!("{header}.{}", part(&format!("{{{iss}}}"))),
            format!("..{}.x.y", part(&format!("{{{iss}}}"))),
            format!("{header}.{}.x", part(&format!(" \r\n\t{{{iss}}}"))),
            format!("{header}.{}.x", part(&format!("\u{feff}{{{iss}}}"))),
            format!("{header}.{}.x", part(&format!(r#"{{"iss":"other",{iss}}}"#))),
            format!("{header}.{}.x", part(&format!(r#"{{{iss},"iss":"other"}}"#))),
            format!("{header}.{}.x", part(&format!(r#"{{{iss}}} trailing"#))),
            format!("{header}.{}.x", part(&format!(r#"{{{iss},"broken"#))),
            format!("{header}.{}.x", part(&format!(r#"{{"\u0069ss":"{ISSUER}"}}"#))),
            format!("{header}.{}.x", part(&format!(r#"{{"a":{{"a":1,"a":[2]}},{iss}}}"#))),
            format!("{header}.{}.x", part(&format!(r#"{{"iss":["{ISSUER}"]}}"#))),
            format!("{header}.{}.x", part(&format!(r#"{{"a":NaN,{iss}}}"#))),
            format!("{header}.{}.x", part(&format!("{{\"a\":\"\u{1}\",{iss}}}"))),
            format!("{header}.{}.x", part(&format!(r#"{{"\ud800":1,"iss" : "{ISSUER}"}}"#))),
            format!("{header}.{}==.x", part(&format!(r#"{{{iss},"x":"??>>~~"}}"#)).replace('_', "/").replace('-', "+")),
            format!("{header}.{}.x", part(&format!(r#"{{"deep":{}{},{iss}}}"#, "[".repeat(3000), "]".repeat(3000)))),
        ];
        for token in ours {
            assert!(mint.set.is_ours(&token), "{token:.200}");
        }
        let others = [
            String::new(),
            "....".to_owned(),
            mint.say(Payload::honest().with("iss", r#""https://id.test""#).json()),
            mint.say(Payload::honest().without("iss").json()),
            mint.say(Payload::honest().without("iss").with("x", format!("{{{iss}}}")).json()),
            mint.say(Payload::honest().with("iss", format!("\"{ISSUER}/\"")).json()),
            format!("{header}.{}.x", part("{{{{")),
            format!("{header}.{}.x", part("{\"iss\"")),
            format!("{header}.{}.x", part(&"{\"iss\":[".repeat(10_000))),
            ".".repeat(1 << 20),
            "e".repeat(1 << 20),
        ];
        for token in others {
            assert!(!mint.set.is_ours(&token), "{token:.200}");
        }
    }

    #[test]
    fn an_object_is_read_whole_and_each_name_once() {
        let read = |json: &str| object(json.as_bytes());
        for good in ["{}", " {\"a\":1}\r\n", r#"{"a":{"a":{"a":[]}},"b":[{"a":1},{"a":1}]}"#, r#"{"A":1,"a":2,"":3}"#] {
            assert_eq!(read(good).map(Value::Object), Ok(serde_json::from_str(good).unwrap()));
        }
        for twice in [r#"{"a":1,"a":1}"#, r#"{"":1,"":2}"#, r#"{"é":1,"\u00e9":2}"#, r#"{"x":[{"a":1,"a":2}]}"#] {
            assert_eq!(read(twice), Err(Flaw::Duplicate), "{twice}");
        }
        for broken in ["", "{", "[]", "{} {}", r#"{"a":1 "b":2}"#, r#"{"a":1e999}"#, r#"{a:1}"#, "{\"a\":\"\n\"}"] {
            assert_eq!(read(broken), Err(Flaw::Syntax), "{broken}");
        }
    }
}
