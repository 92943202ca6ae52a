//! The text that lines are written into. Its room is kept, so that a piece costs its bytes and one comparison.
//!
//! What must not stand in a line as it is, is looked for eight bytes at a time: hardly any line has something of the kind.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{Timestamp, three_digits};

/// Text that grows at its end.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The text, and room behind it.
    room: Vec<u8>,
    length: usize,
}

impl Text {
    /// What was written.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Forgets what was written, but keeps `most` bytes of room.
    pub(super) fn clear(&mut self, most: usize) {
        self.length = 0;
        self.room.truncate(most);
        self.room.shrink_to(most);
    }

    /// Writes bytes whose number is known where they are written, which makes them cheap.
    #[inline]
    pub(super) fn word<const N: usize>(&mut self, word: &[u8; N]) -> &mut Self {
        match self.room.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut) {
            Some(place) => {
                *place = *word;
                self.length += N;
            }
            None => self.make_room(word),
        }
        self
    }

    #[inline]
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        let end = self.length + text.len();
        match self.room.get_mut(self.length..end) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                self.length = end;
            }
            None => self.make_room(text.as_bytes()),
        }
        self
    }

    /// Writes `bytes`, for which there is no room, and makes some behind them.
    #[cold]
    fn make_room(&mut self, bytes: &[u8]) {
        self.room.truncate(self.length);
        self.room.extend_from_slice(bytes);
        self.length = self.room.len();
        self.room.resize(self.length + self.length.clamp(LEAST, MOST), 0);
    }

    /// RFC 3339 in UTC with milliseconds.
    pub(super) fn time(&mut self, time: Timestamp) -> &mut Self {
        match time.characters() {
            Some(characters) => self.word(&characters),
            None => self.push(&time.rfc3339()),
        }
    }

    pub(super) fn address(&mut self, address: IpAddr) -> &mut Self {
        let IpAddr::V4(four) = address else { return self.push(&address.to_string()) };
        let [a, b, c, d] = four.octets();
        self.number(a.into()).word(b".").number(b.into()).word(b".").number(c.into()).word(b".").number(d.into())
    }

    #[inline]
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        let room = self.room.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut);
        if let (Ok(small), Some(place)) = (u8::try_from(number), room) {
            let (digits, length) = SMALL[usize::from(small)];
            *place = digits;
            self.length += usize::from(length);
            return self;
        }
        self.push(itoa::Buffer::new().format(number))
    }

    /// Milliseconds with three places, the last one rounded.
    pub(super) fn millis(&mut self, span: Duration) -> &mut Self {
        let rounded = u64::from((span.subsec_nanos() + 500) / 1000);
        let micros = span.as_secs().saturating_mul(MILLION).saturating_add(rounded);
        self.number(micros / 1000).word(b".").word(&three_digits(micros))
    }

    /// Milliseconds as a JSON number, cut to three places of which the last is no zero, as if a float were written.
    pub(super) fn json_millis(&mut self, span: Duration) -> &mut Self {
        let micros = span.as_secs().saturating_mul(MILLION).saturating_add(span.subsec_micros().into());
        if micros >= MOST_MICROS {
            // A float has no place for the last digits, and is written with an exponent.
            #[expect(clippy::cast_precision_loss, reason = "decades, to a microsecond or so")]
            let millis = micros as f64 / 1000.0;
            return self.push(&serde_json::to_string(&millis).unwrap_or_default());
        }
        self.number(micros / 1000).word(b".");
        match three_digits(micros) {
            [tenths, b'0', b'0'] => self.word(&[tenths]),
            [tenths, hundredths, b'0'] => self.word(&[tenths, hundredths]),
            digits => self.word(&digits),
        }
    }

    /// Quotes, backslashes and everything that could end a line or move a terminal's cursor, escaped.
    pub(super) fn escaped(&mut self, text: &str) -> &mut Self {
        let is_plain = has_none(text.as_bytes(), |bytes| strange(bytes) | beyond(bytes));
        if is_plain || text.chars().all(|c| !c.is_control() && c != '"' && c != '\\') {
            return self.push(text);
        }
        self.push(&text.escape_debug().to_string())
    }

    /// A JSON string.
    pub(super) fn json(&mut self, text: &str) -> &mut Self {
        if has_none(text.as_bytes(), strange) {
            return self.word(b"\"").push(text).word(b"\"");
        }
        self.push(&serde_json::to_string(text).unwrap_or_default())
    }

    /// A JSON string, or null.
    pub(super) fn json_or_null(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.json(text),
            None => self.word(b"null"),
        }
    }
}

/// Whether `find`, which looks at eight bytes and sets a highest bit for what it finds, finds nothing in `text`.
#[inline]
fn has_none(text: &[u8], find: impl Fn(u64) -> u64) -> bool {
    let (words, rest) = text.as_chunks();
    let found = words.iter().fold(0, |found, word| found | find(u64::from_ne_bytes(*word)));
    if rest.is_empty() {
        return found & eight(HIGH) == 0;
    }
    // What is left is looked at with bytes before it, or with spaces.
    let rest = match (text.last_chunk(), text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(last), _, _) => u64::from_ne_bytes(*last),
        (None, Some(first), Some(last)) => {
            u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last))
        }
        _ => text.iter().fold(eight(b' '), |word, byte| word << 8 | u64::from(*byte)),
    };
    (found | find(rest)) & eight(HIGH) == 0
}

/// Has a highest bit where one of `bytes` is a control character below the space, a quote or a backslash.
#[inline]
const fn strange(bytes: u64) -> u64 {
    // With this bit turned the quote comes right behind the control characters, and only the space leaves its place for it.
    let (controls, backslash) = (bytes ^ eight(b' ' ^ b'"'), bytes ^ eight(b'\\'));
    (controls.wrapping_sub(eight(b' ' + 1)) | backslash.wrapping_sub(eight(1))) & !bytes
}

/// Has a highest bit where one of `bytes` is beyond what ASCII can show.
#[inline]
const fn beyond(bytes: u64) -> u64 {
    bytes | bytes.wrapping_add(eight(1))
}

/// A number of which every byte is `byte`.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The digits of the numbers of a byte, and how many they are.
const SMALL: [([u8; 3], u8); 256] = {
    let mut all = [([0; 3], 0); 256];
    let mut number = 0;
    while number < 256_u16 {
        let [hundreds, tens, ones] =
            [b'0' + (number / 100) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        all[number as usize] = match number {
            ..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            100.. => ([hundreds, tens, ones], 3),
        };
        number += 1;
    }
    all
};

/// The highest bit of a byte.
const HIGH: u8 = 0x80;

/// Microseconds of a second.
const MILLION: u64 = 1_000_000;

/// So many microseconds have 16 digits; a float tells fewer apart.
const MOST_MICROS: u64 = 1_000_000_000_000_000;

/// The least and the most room that is made at once: of much text as much again would be much memory.
const LEAST: usize = 4 * 1024;
const MOST: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Text) -> &mut Text) -> String {
        let mut text = Text::default();
        write(&mut text);
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    /// Every character that is of interest at every place of texts that are shorter and longer than what is looked at at once.
    fn each_text(check: impl Fn(&str)) {
        let ascii = (0..=0x7f_u8).map(char::from);
        let others = ['\u{80}', '\u{85}', '\u{a0}', 'é', '\u{200b}', '\u{2028}', '\u{2029}', '\u{feff}', '\u{10ffff}'];
        let all: Vec<char> = ascii.chain(others).collect();
        for length in 0..20 {
            for place in 0..=length {
                for inner in &all {
                    let (before, after) = ("a~".repeat(10), "! z".repeat(10));
                    check(&format!("{}{inner}{}", &before[..place], &after[..length - place]));
                }
            }
        }
    }

    #[test]
    fn json_strings_are_written_as_by_serde() {
        each_text(|text| assert_eq!(written(|to| to.json(text)), serde_json::to_string(text).unwrap()));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_nothing_else() {
        each_text(|text| {
            let is_safe = text.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
            let expected = if is_safe { text.to_owned() } else { text.escape_debug().to_string() };
            assert_eq!(written(|to| to.escaped(text)), expected);
        });
    }

    #[test]
    fn numbers_are_written_as_everywhere() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        let all: Vec<u64> =
            powers.flat_map(|power| [power - 1, power, power + 1]).chain([110, 101, 255, 256, u64::MAX]).collect();
        for number in all {
            assert_eq!(written(|to| to.number(number)), number.to_string());
        }
    }

    #[test]
    fn milliseconds_are_written_as_a_float_would_be() {
        let most = MOST_MICROS;
        let powers = (0..18).map(|power| 10_u64.pow(power));
        let all: Vec<u64> = powers.flat_map(|power| [power - 1, power, 7 * power, 12 * power]).collect();
        for micros in all.into_iter().chain([1234, 1_230_000, 65_432_100, most - 1, most, most + 7, u64::MAX]) {
            #[expect(clippy::cast_precision_loss, reason = "as a float would be")]
            let expected = serde_json::to_string(&(micros as f64 / 1000.0)).unwrap();
            assert_eq!(written(|to| to.json_millis(Duration::from_micros(micros))), expected);
        }
    }

    #[test]
    fn milliseconds_are_rounded_for_people() {
        for (nanos, text) in [(0, "0.000"), (499, "0.000"), (500, "0.001"), (999_499, "0.999"), (999_500, "1.000")] {
            assert_eq!(written(|to| to.millis(Duration::from_nanos(nanos))), text);
        }
        let day = Duration::from_secs(86400) + Duration::from_nanos(999_999_500);
        assert_eq!(written(|to| to.millis(day)), "86401000.000");
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for address in ["0.0.0.0", "203.0.113.9", "255.255.255.255", "::1", "2001:db8::7", "::ffff:10.0.0.1"] {
            assert_eq!(written(|to| to.address(address.parse().unwrap())), address);
        }
    }

    #[test]
    fn room_is_made_wherever_a_piece_ends() {
        let (word, after) = (b"0123456789", "abcdefghij");
        for before in LEAST - 30..LEAST + 5 {
            let mut text = Text::default();
            let filled = "x".repeat(before);
            // With the first byte there is the least room that is made.
            text.push(&filled[..1]).push(&filled[1..]).word(word).push(after).word(word);
            let whole = [filled.as_bytes(), word, after.as_bytes(), word].concat();
            assert_eq!((text.as_bytes(), text.len()), (&*whole, whole.len()));
            text.clear(16);
            assert_eq!((text.as_bytes(), text.len(), text.room.len()), (&b""[..], 0, 16));
            text.word(word).push(after);
            assert_eq!(text.as_bytes(), b"0123456789abcdefghij");
        }
    }
}
