//! The body of a sign-in: JSON or a form, read strictly and in bounded time and memory.

use std::fmt;

use form_urlencoded::parse;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::secret::Secret;

/// What was typed.
#[derive(Debug)]
pub(super) struct Typed {
    /// The name as it was typed.
    pub username: String,
    /// The password as it was typed.
    pub password: Secret<String>,
    /// Whether to stay signed in. Forms only.
    pub remember: bool,
    /// Where to go afterwards, as it came. Forms only.
    pub next: Option<String>,
}

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

/// Why a body is not a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Neither JSON nor a form, or compressed: 415.
    MediaType,
    /// Not what its content type says: 400.
    Syntax,
    /// A field is missing, there twice, or of the wrong type: 422.
    Field(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MediaType => f.write_str("Send application/json or application/x-www-form-urlencoded"),
            Self::Syntax => f.write_str("The body is not well-formed"),
            Self::Field(field) => write!(f, "Exactly one {field} is needed, as a text"),
        }
    }
}

/// What the body says it is written in.
///
/// # Errors
/// [`Malformed::MediaType`] for anything but JSON and forms.
pub(super) fn kind(headers: &HeaderMap) -> Result<Kind, Malformed> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return Err(Malformed::MediaType) };
    let is_plain = headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding == "identity");
    let text = value.to_str().map_err(|_| Malformed::MediaType)?;
    let essence = text.split(';').next().unwrap_or("").trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" if is_plain => Ok(Kind::Json),
        "application/x-www-form-urlencoded" if is_plain => Ok(Kind::Form),
        _ => Err(Malformed::MediaType),
    }
}

/// Reads a sign-in.
///
/// # Errors
/// When it is not well-formed, or a field is missing, there twice or no text.
pub(super) fn read(kind: Kind, body: &[u8]) -> Result<Typed, Malformed> {
    match kind {
        Kind::Json => read_json(body),
        Kind::Form => read_form(body),
    }
}

fn read_json(body: &[u8]) -> Result<Typed, Malformed> {
    let fields: JsonFields = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Malformed::Field("username and password"),
        _ => Malformed::Syntax,
    })?;
    Ok(Typed { username: fields.username, password: fields.password, remember: false, next: None })
}

struct JsonFields {
    username: String,
    password: Secret<String>,
}

impl<'de> Deserialize<'de> for JsonFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = JsonFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with username and password")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonFields, A::Error> {
                let (mut username, mut password) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    let is_second = match key.as_str() {
                        "username" => username.replace(map.next_value::<String>()?).is_some(),
                        "password" => password.replace(Secret::new(map.next_value::<String>()?)).is_some(),
                        _ => map.next_value::<de::IgnoredAny>().map(|_| false)?,
                    };
                    if is_second {
                        return Err(de::Error::custom("a field stands twice"));
                    }
                }
                match (username, password) {
                    (Some(username), Some(password)) => Ok(JsonFields { username, password }),
                    _ => Err(de::Error::custom("a field is missing")),
                }
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

fn read_form(body: &[u8]) -> Result<Typed, Malformed> {
    let [username, password, remember, next] = fields(body, ["username", "password", "remember", "next"])?;
    Ok(Typed {
        username: username.ok_or(Malformed::Field("username"))?,
        password: Secret::new(password.ok_or(Malformed::Field("password"))?),
        remember: remember.is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false" | "off" | "no")),
        next,
    })
}

/// The fields of a form that have these names; others are not looked at.
///
/// # Errors
/// When the form is not well-formed, or one of the fields stands twice.
pub(super) fn fields<const N: usize>(body: &[u8], names: [&'static str; N]) -> Result<[Option<String>; N], Malformed> {
    // The parser is lenient about escapes and bytes that are not UTF-8; a password must arrive as it was typed.
    if !has_whole_escapes(body) {
        return Err(Malformed::Syntax);
    }
    let mut found = [const { None }; N];
    for (name, value) in parse(body) {
        let known = names.into_iter().zip(&mut found).find(|(known, _)| *known == name);
        if let Some((name, slot)) = known
            && slot.replace(value.into_owned()).is_some()
        {
            return Err(Malformed::Field(name));
        }
    }
    Ok(found)
}

/// Whether every `%` begins an escape, and all of it is UTF-8.
pub(super) fn has_whole_escapes(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    percent_encoding::percent_decode(body).decode_utf8().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn typed(kind: Kind, body: &str) -> Result<(String, String, bool, Option<String>), Malformed> {
        let typed = read(kind, body.as_bytes())?;
        Ok((typed.username, typed.password.expose().clone(), typed.remember, typed.next))
    }

    #[test]
    fn reads_json_and_forms() {
        let json = typed(Kind::Json, r#"{"username":"alice","password":"p\u00e4ss","more":[1]}"#).unwrap();
        assert_eq!(json, ("alice".into(), "päss".into(), false, None));
        let form = typed(Kind::Form, "username=alice&password=p%C3%A4+ss&remember=on&next=%2Fa&x=y").unwrap();
        assert_eq!(form, ("alice".into(), "pä ss".into(), true, Some("/a".into())));
    }

    #[test]
    fn refuses_what_is_twice_missing_or_of_another_type() {
        for body in [
            r#"{"username":"a"}"#,
            r#"{"username":"a","password":1}"#,
            r#"{"username":null,"password":"p"}"#,
            r#"{"username":"a","username":"b","password":"p"}"#,
            r#"{"username":"a","password":"p","password":"q"}"#,
            r#"["a","p"]"#,
            "1",
        ] {
            assert!(matches!(typed(Kind::Json, body), Err(Malformed::Field(_))), "{body}");
        }
        for body in
            ["username=a", "password=p", "username=a&username=b&password=p", "username=a&password=p&next=/&next=/x"]
        {
            assert!(matches!(typed(Kind::Form, body), Err(Malformed::Field(_))), "{body}");
        }
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        for body in ["", "{", r#"{"username":"a","password":"p"} x"#, "{\"username\":\"\u{0}\"}"] {
            assert_eq!(typed(Kind::Json, body), Err(Malformed::Syntax), "{body}");
        }
        for body in ["username=%&password=p", "username=%zz&password=p", "username=a&password=%ff"] {
            assert_eq!(typed(Kind::Form, body), Err(Malformed::Syntax), "{body}");
        }
    }

    #[test]
    fn tells_the_content_types_apart() {
        let of = |value: &'static str| kind(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]));
        assert_eq!(of("application/json; charset=utf-8"), Ok(Kind::Json));
        assert_eq!(of("Application/X-WWW-Form-Urlencoded"), Ok(Kind::Form));
        for other in ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonx"] {
            assert_eq!(of(other), Err(Malformed::MediaType), "{other}");
        }
        assert_eq!(kind(&HeaderMap::new()), Err(Malformed::MediaType));
    }
}
