//! Where a head ends and where a chunked body ends, and nothing else: hyper is the parser.
//!
//! The socket's wrapper needs the two ends to hand hyper one request at a time. Where hyper sees an end
//! elsewhere, the request after it is refused (`Link::target_fault`), so that a difference is never a hole.

use memchr::memchr;

/// Looks for the end of a request's head in bytes as they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadScan {
    at: At,
    fault: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// In the empty lines that may come first (RFC 9112, section 2.2).
    #[default]
    Before,
    /// In the request line.
    Line,
    /// In a field line.
    Field,
    /// At the beginning of a line.
    Start,
    /// Behind a CR there.
    StartCr,
}

impl HeadScan {
    /// Goes over `bytes`; how many of them belong to the head, if it ends in them.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut next = 0;
        while let Some(&byte) = bytes.get(next) {
            match self.at {
                At::Before => match byte {
                    b'\r' | b'\n' => next += 1,
                    _ => self.at = At::Line,
                },
                At::Line | At::Field => {
                    let rest = bytes.get(next..)?;
                    let end = memchr(b'\n', rest);
                    if self.at == At::Line && memchr(b'#', &rest[..end.unwrap_or(rest.len())]).is_some() {
                        self.fault = true;
                    }
                    next += end? + 1;
                    self.at = At::Start;
                }
                At::Start | At::StartCr => match byte {
                    b'\n' => return Some(next + 1),
                    b'\r' if self.at == At::Start => {
                        self.at = At::StartCr;
                        next += 1;
                    }
                    _ => self.at = At::Field,
                },
            }
        }
        None
    }

    /// Whether more than empty lines have come.
    pub(crate) fn has_begun(&self) -> bool {
        self.at != At::Before
    }

    /// Whether there was a raw `#` in the request line.
    pub(crate) const fn has_fault(&self) -> bool {
        self.fault
    }
}

/// Looks for the end of a chunked body in bytes as they come (RFC 9112, section 7.1).
#[derive(Clone, Debug)]
pub(crate) enum ChunkScan {
    /// In the digits of a size.
    Size(u64),
    /// Behind them.
    Extension { size: u64, cr: bool },
    /// In data, so many bytes before its end.
    Data(u64),
    /// In the line break behind data.
    DataEnd { cr: bool },
    /// In trailers: at the beginning of a line, or not.
    Trailer { start: bool, cr: bool },
    /// Behind the body.
    Done,
    /// The framing is broken; hyper finds that out too.
    Broken,
}

impl Default for ChunkScan {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl ChunkScan {
    /// Goes over `bytes`; how many of them belong to the body.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut next = 0;
        while let Some(&byte) = bytes.get(next) {
            match self {
                Self::Done => return next,
                Self::Broken => return bytes.len(),
                Self::Data(left) => {
                    let here = (bytes.len() - next) as u64;
                    if here < *left {
                        *left -= here;
                        return bytes.len();
                    }
                    // `left` is at most `here`, a length in memory.
                    next += usize::try_from(*left).unwrap_or(bytes.len());
                    *self = Self::DataEnd { cr: false };
                    continue;
                }
                _ => *self = self.step(byte),
            }
            next += 1;
        }
        next
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn step(&self, byte: u8) -> Self {
        match (self, byte) {
            (&Self::Size(size), b'\r') => Self::Extension { size, cr: true },
            (&Self::Size(size), _) => match char::from(byte).to_digit(16) {
                Some(digit) => match size.checked_mul(16) {
                    Some(size) => Self::Size(size + u64::from(digit)),
                    None => Self::Broken,
                },
                None if byte == b'\n' => Self::Broken,
                None => Self::Extension { size, cr: false },
            },
            (&Self::Extension { size: 0, cr: true }, b'\n') => Self::Trailer { start: true, cr: false },
            (&Self::Extension { size, cr: true }, b'\n') => Self::Data(size),
            (&Self::Extension { size, cr: false }, b'\r') => Self::Extension { size, cr: true },
            (Self::Extension { cr: true, .. }, _) | (Self::Extension { .. }, b'\n') => Self::Broken,
            (&Self::Extension { size, .. }, _) => Self::Extension { size, cr: false },
            (Self::DataEnd { cr: false }, b'\r') => Self::DataEnd { cr: true },
            (Self::DataEnd { cr: true }, b'\n') => Self::Size(0),
            (&Self::Trailer { start, cr: false }, b'\r') => Self::Trailer { start, cr: true },
            (Self::Trailer { start: true, cr: true }, b'\n') => Self::Done,
            (Self::Trailer { start: false, cr: true }, b'\n') => Self::Trailer { start: true, cr: false },
            (Self::Trailer { cr: false, .. }, _) => Self::Trailer { start: false, cr: false },
            (Self::Done, _) => Self::Done,
            (Self::DataEnd { .. } | Self::Trailer { .. } | Self::Data(_) | Self::Broken, _) => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the head in `text` and its fault, read whole and cut at each position.
    fn head(text: &[u8]) -> (Option<usize>, bool) {
        let mut whole = HeadScan::default();
        let found = whole.scan(text);
        for cut in 0..=text.len() {
            let mut scan = HeadScan::default();
            let (first, second) = text.split_at(cut);
            let end = scan.scan(first).or_else(|| scan.scan(second).map(|end| end + cut));
            assert_eq!((end, scan.fault), (found, whole.fault), "cut at {cut} of {:?}", text.escape_ascii());
        }
        (found, whole.fault)
    }

    #[test]
    fn finds_the_end_of_a_head_wherever_reads_are_cut() {
        for (text, rest) in [
            ("GET / HTTP/1.1\r\n\r\n", ""),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /next"),
            ("GET / HTTP/1.1\nHost: a\n\n", "\n\nGET /next"),
            ("GET / HTTP/1.1\nHost: a\r\n\n", "body"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", "\r\n\r\n"),
            ("\r\n\n\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n", "#"),
            ("GET / HTTP/1.1\r\nA: #\r\nB: /#?\r\n\r\n", "x#y"),
        ] {
            let whole = format!("{text}{rest}");
            assert_eq!(head(whole.as_bytes()), (Some(text.len()), false), "{whole:?}");
        }
        for open in ["", "\r\n\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nA: b\r\n", "GET / HTTP/1.1\r\n\r\r"] {
            assert_eq!(head(open.as_bytes()).0, None, "{open:?}");
        }
    }

    #[test]
    fn sees_a_raw_fragment_in_the_request_line_only() {
        for line in ["GET /a#b HTTP/1.1", "GET # HTTP/1.1", "GET http://h/#/../admin HTTP/1.1", "GET /a#"] {
            assert!(head(format!("\r\n{line}\r\nA: b\r\n\r\n").as_bytes()).1, "{line}");
            assert!(head(format!("{line}\n\n").as_bytes()).1, "{line}");
        }
        assert!(!head(b"GET /%23 HTTP/1.1\r\nReferer: /#\r\n\r\n").1);
    }

    fn chunked(text: &[u8]) -> Option<usize> {
        let mut whole = ChunkScan::default();
        let found = whole.scan(text);
        for cut in 0..=text.len() {
            let mut scan = ChunkScan::default();
            let mut end = scan.scan(&text[..cut]);
            if end == cut {
                end += scan.scan(&text[cut..]);
            }
            assert_eq!((end, scan.is_done()), (found, whole.is_done()), "cut at {cut}");
        }
        whole.is_done().then_some(found)
    }

    #[test]
    fn finds_the_end_of_a_chunked_body_wherever_reads_are_cut() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;a=b\r\nhello\r\n0;x\r\n\r\n",
            "A \r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
            "1\r\n\r\r\n0\r\nX: y\r\nZ: w\r\n\r\n",
        ] {
            assert_eq!(chunked(format!("{body}GET /").as_bytes()), Some(body.len()), "{body:?}");
        }
    }

    #[test]
    fn never_ends_a_body_whose_framing_is_broken() {
        for body in [
            "5\nhello\n0\n\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "0\r\n\rX",
            "fffffffffffffffff\r\n\r\n0\r\n\r\n",
            "5\r\nhel",
        ] {
            assert_eq!(chunked(body.as_bytes()), None, "{body:?}");
        }
    }
}
