//! The id of a request: in its answer, the logs and behind `portcullis why`.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::secret::Random;

/// What a request is known by: 32 hexadecimal digits, which are written down only where someone reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

/// The digits of an id, to be read as text.
#[derive(Clone, Copy, Debug)]
pub struct Digits([u8; LENGTH]);

impl RequestId {
    /// Reads what [`RequestId::digits`] gives, and nothing that reads alike.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != LENGTH || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    /// The id as text.
    pub fn digits(self) -> Digits {
        Digits::of(self.0)
    }

    /// One of `count` places, by the end of the id: ids are spread evenly over them.
    pub(super) const fn place(self, count: usize) -> usize {
        self.0 as usize % count
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits())
    }
}

impl Digits {
    /// All 32 of `number`.
    pub(super) fn of(number: u128) -> Self {
        let mut digits = [0; LENGTH];
        let (pairs, _) = digits.as_chunks_mut();
        for (pair, byte) in pairs.iter_mut().zip(number.to_be_bytes()) {
            *pair = PAIRS[usize::from(byte)];
        }
        Self(digits)
    }

    /// As bytes of ASCII.
    pub(super) const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl Deref for Digits {
    type Target = str;

    fn deref(&self) -> &str {
        // They are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Makes request ids: unique, in no order that tells how many requests there are.
#[derive(Debug)]
pub struct RequestIds {
    start: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// A fresh series.
    pub fn new(random: &Random) -> Self {
        Self { start: u64::from_be_bytes(random.bytes()), next: AtomicU64::new(u64::from_be_bytes(random.bytes())) }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        // An odd multiplier permutes the 64-bit numbers, so no id comes twice in a series.
        let step = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        RequestId(u128::from(self.start) << 64 | u128::from(step ^ self.start.rotate_left(29)))
    }
}

const LENGTH: usize = 32;

/// The digits of every byte.
const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// An id for tests.
#[cfg(test)]
pub(super) const fn numbered(number: u128) -> RequestId {
    RequestId(number)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn gives_every_request_an_id_of_its_own() {
        let ids = RequestIds::new(&Random::system());
        let seen: HashSet<RequestId> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|id| RequestId::parse(&id.digits()) == Some(*id)));
    }

    #[test]
    fn is_read_as_it_is_written_and_no_other_way() {
        let id = RequestId(0x0f1e_2d3c);
        assert_eq!(id.to_string(), "0000000000000000000000000f1e2d3c");
        assert_eq!(RequestId::parse(&id.to_string()), Some(id));
        let number = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
        assert_eq!(RequestId(number).to_string(), "0123456789abcdeffedcba9876543210");
        let upper = id.to_string().to_uppercase();
        for text in ["", "0f1e2d3c", "+000000000000000000000000f1e2d3c", "000000000000000000000000f1e2d3cg0", &upper] {
            assert_eq!(RequestId::parse(text), None, "{text}");
        }
    }
}
