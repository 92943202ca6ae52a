//! The text of an API key: `pck_`, a public id, `_`, a secret of 256 random bits and a checksum.
//!
//! The prefix lets secret scanners find it and the gateway keep it from applications; the checksum tells a typo, or an
//! example in a text, from a key without asking the store. Only the SHA-256 of the whole is kept.

use std::fmt;

use aws_lc_rs::digest;

use crate::secret::{Random, Secret};

/// A text that has the form of an API key of ours. Whether there is such a key only the store knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKeyText<'a>(&'a str);

impl<'a> ApiKeyText<'a> {
    /// `text`, if it has the form of a key and its checksum is right.
    pub fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let has_form = rest.len() == ID + 1 + SECRET + CHECK
            && rest
                .bytes()
                .enumerate()
                .all(|(at, byte)| if at == ID { byte == b'_' } else { byte.is_ascii_alphanumeric() });
        if !has_form {
            return None;
        }
        let (body, check) = text.split_at(text.len() - CHECK);
        (checksum(body) == check).then_some(Self(text))
    }

    /// The public id, which lists and logs may show.
    pub fn id(self) -> &'a str {
        &self.0[PREFIX.len()..PREFIX.len() + ID]
    }

    /// What is stored of the key: it is random, so no salt is needed.
    pub fn digest(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        out
    }
}

impl fmt::Debug for ApiKeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyText({}…)", self.id())
    }
}

/// Whether a key can have this name: 1 to 64 bytes without control or outer space.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.trim() == name && !name.chars().any(char::is_control)
}

/// A key that has never been used.
pub fn generate(random: &Random) -> Secret<String> {
    let mut text = String::with_capacity(PREFIX.len() + ID + 1 + SECRET + CHECK);
    text.push_str(PREFIX);
    push_random(&mut text, ID, random);
    text.push('_');
    push_random(&mut text, SECRET, random);
    let check = checksum(&text);
    text.push_str(&check);
    Secret::new(text)
}

/// Whether `text` is meant as a key of ours, be it a good one or not: such a thing reaches no application.
pub fn is_ours(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

/// Whether anything in `text` is meant as a key of ours, whatever stands around it. The middle of a longer token is not.
pub fn mentions_ours(text: &[u8]) -> bool {
    text.split(|byte| !(byte.is_ascii_alphanumeric() || b"_-.+/".contains(byte))).any(is_ours)
}

/// Letters and digits by rejection: 43 of them are 256 bits.
fn push_random(text: &mut String, count: usize, random: &Random) {
    let end = text.len() + count;
    while text.len() < end {
        let fair = random.bytes::<64>().into_iter().filter(|byte| usize::from(*byte) < ALPHABET.len() * 4);
        let room = end - text.len();
        text.extend(fair.take(room).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    }
}

/// The CRC-32 of IEEE 802.3 as six letters and digits, as other makers of keys have it.
fn checksum(body: &str) -> String {
    let mut crc = u32::MAX;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let (mut rest, mut text) = (!crc as usize, [b'0'; CHECK]);
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[rest % ALPHABET.len()];
        rest /= ALPHABET.len();
    }
    text.into_iter().map(char::from).collect()
}

/// What every key begins with.
pub const PREFIX: &str = "pck_";

const ID: usize = 12;
const SECRET: usize = 43;
const CHECK: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let (one, other) = (generate(&Random::system()), generate(&Random::system()));
        let key = ApiKeyText::parse(one.expose()).unwrap();
        assert_eq!((key.id().len(), one.expose().len()), (12, 66));
        assert_ne!(key.digest(), ApiKeyText::parse(other.expose()).unwrap().digest());
        assert!(!format!("{key:?}").contains(&one.expose()[20..]));
    }

    #[test]
    fn a_typo_is_told_from_a_key() {
        let good = generate(&Random::system());
        let good = good.expose();
        for at in 0..good.len() {
            let other = if good.as_bytes()[at] == b'x' { "y" } else { "x" };
            let typo = format!("{}{other}{}", &good[..at], &good[at + 1..]);
            assert_eq!(ApiKeyText::parse(&typo), None, "{at}");
        }
        for bad in ["", "pck_", &good[1..], &good[..65], &format!("{good}0"), &format!(" {good}"), &"é".repeat(33)] {
            assert_eq!(ApiKeyText::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_scanners_know() {
        // CRC-32 of "123456789" is 0xcbf43926, its well-known check value.
        let mut rest: usize = 0xcbf4_3926;
        let mut expected = Vec::new();
        for _ in 0..6 {
            expected.insert(0, ALPHABET[rest % 62]);
            rest /= 62;
        }
        assert_eq!(checksum("123456789").into_bytes(), expected);
    }

    #[test]
    fn finds_what_is_meant_as_a_key() {
        assert!(is_ours(b"pck_anything") && !is_ours(b"xpck_") && !is_ours(b"PCK_x"));
        assert!(mentions_ours(b"Token token=\"pck_x\"") && mentions_ours(b" a, pck_b"));
        assert!(!mentions_ours(b"sk_live_x") && !mentions_ours(b"apck_x"));
    }
}
