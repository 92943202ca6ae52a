//! HTTP/2 by hand (RFC 9113): frames as a test writes them, and what comes back.

use std::net::SocketAddr;

use super::Wire;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK literals that nobody has to remember (RFC 7541, section 6.2.2).
pub(crate) fn literals(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            assert!(text.len() < 127, "one byte is enough for the length");
            block.push(text.len() as u8);
            block.extend(text);
        }
    }
    block
}

/// A client that has said hello.
pub(crate) struct Raw(pub(crate) Wire);

impl Raw {
    /// Connects, and sends the preface with these settings.
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut wire = Wire::connect(address);
        wire.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let setting = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload: Vec<u8> = settings.iter().flat_map(setting).collect();
        wire.write(frame(SETTINGS, 0, 0, &payload));
        Self(wire)
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.write(frame(kind, flags, stream, payload));
    }

    /// Sends a request without a body, of these fields.
    pub(crate) fn request(&mut self, stream: u32, fields: &[(&str, &[u8])]) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &literals(fields));
    }

    /// Sends `GET path` to the host `h`.
    pub(crate) fn get(&mut self, stream: u32, path: &str) {
        self.request(stream, &basic("GET", "h", path));
    }

    /// The next frame but for settings and window updates; `None`: the gateway has closed.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.0.read_exact(9).ok()?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.0.read_exact(length).ok()?;
            let found = Frame { kind: head[3], flags: head[4], stream, payload };
            match found.kind {
                SETTINGS if found.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if found.flags & ACK == 0 => self.send(PING, ACK, 0, &found.payload),
                SETTINGS | WINDOW_UPDATE => {}
                _ => return Some(found),
            }
        }
    }

    /// The next frame of `kind` on `stream`, or the end.
    pub(crate) fn next_of(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|found| found.kind == kind && found.stream == stream)
    }

    /// The status of the answer on `stream`, or the word for what came in its place.
    pub(crate) fn outcome(&mut self, stream: u32) -> String {
        loop {
            match self.next() {
                Some(found) if found.kind == HEADERS && found.stream == stream => return status(&found.payload),
                Some(found) if found.kind == RST_STREAM && found.stream == stream => return "reset".to_owned(),
                Some(found) if found.kind == GOAWAY => return "goaway".to_owned(),
                Some(_) => {}
                None => return "closed".to_owned(),
            }
        }
    }
}

/// The pseudo fields of a request, and nothing else.
pub(crate) fn basic<'a>(method: &'a str, authority: &'a str, path: &'a str) -> Vec<(&'static str, &'a [u8])> {
    vec![
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", authority.as_bytes()),
        (":path", path.as_bytes()),
    ]
}

/// The status at the beginning of a block of fields: from the static table, or three digits, plain or by Huffman's code.
pub(crate) fn status(block: &[u8]) -> String {
    let known = [200, 204, 206, 304, 400, 404, 500];
    // The table may be made smaller first.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block {
        [index @ 0x88..=0x8e, ..] => known[usize::from(index - 0x88)].to_string(),
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).into_owned(),
        [0x08 | 0x18 | 0x48, length, digits @ ..] => huffman_digits(&digits[..usize::from(length & 0x7f)]),
        other => panic!("no status first: {other:?}"),
    }
}

fn huffman_digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut text, mut at) = (String::new(), 0);
    while text.len() < 3 {
        let number = |length: usize| bits[at..at + length].iter().fold(0, |number, bit| number << 1 | bit);
        let (digit, length) = match number(5) {
            few @ 0..=2 => (few, 5),
            _ => (number(6) - 0b01_1001 + 3, 6),
        };
        text.push(char::from(b'0' + digit));
        at += length;
    }
    text
}
