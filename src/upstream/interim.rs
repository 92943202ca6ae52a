//! Interim answers over HTTP/1.1 (RFC 9110, section 15.2), counted as their bytes pass: hyper reads as many as come, and
//! drops them.

use std::fmt;

/// How many interim answers came before the answer that is waited for.
#[derive(Debug, Default)]
pub(super) struct Interim {
    place: Place,
    count: u32,
}

/// Where in what comes the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// So many bytes into a status line, as far as the first digit of its status.
    Start(usize),
    /// In the head of an interim answer, behind so many bytes of its end.
    Interim(usize),
    /// In the answer itself, or behind it.
    Answer,
}

impl Default for Place {
    fn default() -> Self {
        Self::Start(0)
    }
}

/// More interim answers came than any server has a reason for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyInterim;

impl Interim {
    /// Something was sent: what comes after an answer is the answer to that.
    pub(super) fn ask(&mut self) {
        if self.place == Place::Answer {
            *self = Self::default();
        }
    }

    /// Takes note of what came.
    ///
    /// # Errors
    /// When that is one interim answer too many.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), TooManyInterim> {
        if self.place == Place::Answer {
            return Ok(());
        }
        for &byte in bytes {
            self.place = match self.place {
                Place::Start(FIRST_DIGIT) if byte == b'1' => Place::Interim(0),
                Place::Start(at) if at < FIRST_DIGIT => Place::Start(at + 1),
                Place::Start(_) | Place::Answer => {
                    self.place = Place::Answer;
                    return Ok(());
                }
                // hyper takes lines that end in LF only, too.
                Place::Interim(1) if byte == b'\n' => {
                    self.count += 1;
                    if self.count > MOST {
                        return Err(TooManyInterim);
                    }
                    Place::default()
                }
                Place::Interim(_) if byte == b'\n' => Place::Interim(1),
                Place::Interim(ended) if byte == b'\r' => Place::Interim(ended),
                Place::Interim(_) => Place::Interim(0),
            };
        }
        Ok(())
    }
}

impl fmt::Display for TooManyInterim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more than a hundred interim answers came")
    }
}

impl std::error::Error for TooManyInterim {}

/// The place of the first digit of a status in `HTTP/1.1 200 OK`.
const FIRST_DIGIT: usize = 9;

/// How many may come before the answer.
const MOST: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";

    #[test]
    fn a_hundred_are_enough_wherever_reads_are_cut() {
        for size in [1, 7, 1000] {
            let mut interim = Interim::default();
            let hundred = EARLY.repeat(100);
            hundred.chunks(size).for_each(|bytes| interim.pass(bytes).unwrap());
            assert_eq!(interim.count, 100);
            let last = EARLY.chunks(size).try_for_each(|bytes| interim.pass(bytes));
            assert_eq!(last, Err(TooManyInterim));
        }
    }

    #[test]
    fn what_follows_the_answer_is_not_looked_at_and_the_next_one_is_counted_anew() {
        let mut interim = Interim::default();
        interim.pass(&[EARLY, b"HTTP/1.1 200 OK\r\n\r\n"].concat()).unwrap();
        interim.pass(&EARLY.repeat(200)).unwrap();
        interim.ask();
        interim.pass(&EARLY.repeat(100)).unwrap();
        interim.ask();
        assert_eq!(
            interim.pass(b"HTTP/1.1 100 Continue\n\n"),
            Err(TooManyInterim),
            "a body sent in between ends nothing"
        );
    }
}
