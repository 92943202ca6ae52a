//! What the gateway says of someone, as values of header fields: what cannot be said faithfully is left out.
//!
//! User, groups and e-mail are ASCII with everything else percent-encoded, so that two names never become one; full
//! name and single claims are UTF-8 as they are.

use http::HeaderValue;
use serde_json::Value;
use unicode_normalization::is_nfc;

/// A user name as a header value; `None`: a name that nobody may have, and the credential is refused.
pub fn user_value(user: &str) -> Option<HeaderValue> {
    encode_ascii(user)
}

/// A value of visible ASCII: `%`, inner spaces and all other bytes are percent-encoded. `None`: the header is left out.
pub fn encode_ascii(value: &str) -> Option<HeaderValue> {
    if !is_sound(value) {
        return None;
    }
    let mut encoded = String::with_capacity(value.len());
    push_ascii(&mut encoded, value);
    HeaderValue::try_from(encoded).ok()
}

/// A value of UTF-8 as it is. `None`: the header is left out.
pub fn encode_utf8(value: &str) -> Option<HeaderValue> {
    if is_sound(value) { HeaderValue::from_bytes(value.as_bytes()).ok() } else { None }
}

/// Groups joined by commas, each percent-encoded; a group that cannot stand in such a list is left out.
/// `None`: none is left, and so the header is left out.
pub fn encode_groups<S: AsRef<str>>(groups: impl IntoIterator<Item = S>) -> Option<HeaderValue> {
    let mut list = String::new();
    for group in groups {
        let group = group.as_ref();
        if !is_sound(group) || group.contains(',') {
            continue;
        }
        if !list.is_empty() {
            list.push(',');
        }
        push_ascii(&mut list, group);
    }
    if list.is_empty() { None } else { HeaderValue::try_from(list).ok() }
}

/// A claim: text as it is, numbers and truth values as JSON writes them, lists as groups are. `None`: an object, null,
/// or what no header can hold; the header is left out.
pub fn encode_claim(claim: &Value) -> Option<HeaderValue> {
    match claim {
        Value::Array(members) => encode_groups(members.iter().filter_map(scalar)),
        claim => encode_utf8(&scalar(claim)?),
    }
}

fn scalar(value: &Value) -> Option<std::borrow::Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(if *truth { "true" } else { "false" }.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Not empty, at most 256 bytes, NFC, and without control characters and outer spaces.
fn is_sound(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= MAX_BYTES
        && value.trim() == value
        && (value.is_ascii() || is_nfc(value))
        && !value.chars().any(char::is_control)
}

fn push_ascii(text: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            super::path::push_escape(text, byte);
        }
    }
}

const MAX_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: Option<HeaderValue>) -> Option<String> {
        value.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn encodes_what_is_not_visible_ascii() {
        for (value, expected) in [
            ("alice", "alice"),
            ("al ice", "al%20ice"),
            ("100%", "100%25"),
            ("ålice", "%C3%A5lice"),
            ("alice@example.com", "alice@example.com"),
            ("a,b;c\"d", "a,b;c\"d"),
        ] {
            assert_eq!(text(encode_ascii(value)).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn refuses_what_no_name_may_be() {
        let long = "a".repeat(257);
        for bad in [
            "",
            " ",
            " alice",
            "alice ",
            "al\nice",
            "al\rice",
            "al\0ice",
            "al\tice",
            "al\u{7f}ice",
            "al\u{85}ice",
            "\u{a0}alice",
            "a\u{30a}lice",
            &long,
        ] {
            assert_eq!(user_value(bad), None, "{bad:?}");
            assert_eq!(encode_utf8(bad), None, "{bad:?}");
        }
        assert!(user_value(&"a".repeat(256)).is_some());
    }

    #[test]
    fn a_full_name_is_utf8() {
        assert_eq!(text(encode_utf8("Ålice de la Cruz 100%")).as_deref(), Some("Ålice de la Cruz 100%"));
    }

    #[test]
    fn groups_that_cannot_stand_in_a_list_are_left_out() {
        let groups = ["ops", "a,b", "", " x", "R&D team", "x\ny", "émile"];
        assert_eq!(text(encode_groups(groups)).as_deref(), Some("ops,R&D%20team,%C3%A9mile"));
        assert_eq!(encode_groups(["a,b", ""]), None);
        assert_eq!(encode_groups(Vec::<String>::new()), None);
        let many: Vec<String> = (0..1000).map(|n| format!("group-{n}")).collect();
        assert!(encode_groups(many).is_some());
    }

    #[test]
    fn claims_are_written_by_their_kind() {
        for (claim, expected) in [
            (json!("Ärzte e.V."), Some("Ärzte e.V.")),
            (json!(42), Some("42")),
            (json!(1.5), Some("1.5")),
            (json!(true), Some("true")),
            (json!(["a", 1, false, null, {"b": 1}, ["c"], "d,e", "f g"]), Some("a,1,false,f%20g")),
            (json!([]), None),
            (json!([null]), None),
            (json!({"a": 1}), None),
            (json!(null), None),
            (json!(""), None),
            (json!("a\r\nb"), None),
        ] {
            assert_eq!(text(encode_claim(&claim)).as_deref(), expected, "{claim}");
        }
    }
}
