//! The `Forwarded` field (RFC 7239), read so that a client cannot hide what proxies have added to it.

use http::HeaderMap;
use http::header::FORWARDED;

/// One element of `Forwarded` (RFC 7239 section 4): what one proxy says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// `for`
    pub(super) node: Option<String>,
    pub(super) proto: Option<String>,
    pub(super) host: Option<String>,
}

/// The elements of all `Forwarded` fields. What is no element is one that says nothing, so that a walk ends there.
pub(super) fn elements(headers: &HeaderMap) -> Vec<Element> {
    let mut elements = Vec::new();
    for field in headers.get_all(FORWARDED) {
        let text = String::from_utf8_lossy(field.as_bytes());
        let parts = split_unquoted(&text, b',').into_iter().filter(|part| !part.trim().is_empty());
        elements.extend(parts.map(|part| parse_element(part).unwrap_or_default()));
    }
    elements
}

/// `None`: malformed, or a parameter twice (which RFC 7239 section 4 forbids).
fn parse_element(text: &str) -> Option<Element> {
    let mut element = Element::default();
    for pair in split_unquoted(text, b';').into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let value = unquote(value)?;
        let slot = match name.to_ascii_lowercase().as_str() {
            "for" => &mut element.node,
            "proto" => &mut element.proto,
            "host" => &mut element.host,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    Some(element)
}

fn unquote(value: &str) -> Option<String> {
    let Some(quoted) = value.strip_prefix('"') else {
        return (!value.is_empty() && !value.contains(['"', ' ', '\t'])).then(|| value.to_owned());
    };
    let inner = quoted.strip_suffix('"')?;
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next()?),
            '"' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// Splits at `separator` outside of quotations. Read from the right: a client that leaves a quotation open must not
/// swallow the elements that proxies have added behind it.
fn split_unquoted(text: &str, separator: u8) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let mut quoted = false;
    let mut end = bytes.len();
    for (at, &byte) in bytes.iter().enumerate().rev() {
        let escaped = || bytes[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
        if byte == b'"' && !(quoted && escaped()) {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            parts.push(&text[at + 1..end]);
            end = at;
        }
    }
    parts.push(&text[..end]);
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn nodes(fields: &[&str]) -> Vec<Option<String>> {
        let value = |field: &&str| HeaderValue::from_bytes(field.as_bytes()).unwrap();
        let headers: HeaderMap = fields.iter().map(|field| (FORWARDED, value(field))).collect();
        elements(&headers).into_iter().map(|element| element.node).collect()
    }

    #[test]
    fn reads_elements_over_all_fields() {
        assert_eq!(
            nodes(&["for=a;by=x, For=\"b,\\\"c\"", "", "FOR=d;host=h"]),
            [Some("a".into()), Some("b,\"c".into()), Some("d".into())]
        );
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for bad in ["for", "for=", "for=a b", "for=a;for=b", "for=\"a", "for=a\"", "for=\"a\"b\"", "for=\"a\\\"", "x"] {
            assert_eq!(nodes(&[bad]), [None], "{bad}");
        }
    }

    #[test]
    fn an_open_quotation_does_not_swallow_what_follows() {
        for lie in ["for=\"x", "for=\"\\", "\"", "for=\"a\\\"", "é\""] {
            for added in ["for=a", "for=\"a\"", "for=\"a\";proto=https;host=\"h\""] {
                let found = nodes(&[&format!("{lie}, {added}")]);
                assert_eq!(found.last(), Some(&Some("a".to_owned())), "{lie}, {added}");
            }
        }
    }
}
