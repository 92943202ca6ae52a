//! Where frames of a WebSocket end (RFC 6455, section 5.2), so that the gateway can close one in words that the client
//! understands. Only lengths are looked at: nothing is copied, unmasked or judged.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why the gateway closes a WebSocket (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The gateway ends.
    GoingAway,
    /// What allowed it does so no longer.
    NoLongerAllowed,
}

impl Farewell {
    /// The frame that says so, as a server sends it.
    pub(super) const fn frame(self) -> &'static [u8] {
        match self {
            Self::GoingAway => b"\x88\x0c\x03\xe9going away",
            Self::NoLongerAllowed => b"\x88\x13\x03\xf0no longer allowed",
        }
    }
}

/// How far the frames to a client have come, for whoever would end them.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU8);

impl Progress {
    /// Whether a frame may follow here: the last one is whole, and none of them closed the connection.
    pub(super) fn is_between_frames(&self) -> bool {
        self.0.load(Relaxed) & !LAST == BETWEEN
    }

    /// Whether a frame has begun that is not whole.
    pub(super) fn is_amid_frame(&self) -> bool {
        self.0.load(Relaxed) & !LAST == AMID
    }

    /// Lets nothing pass behind the frame in progress: the next write after it fails.
    pub(super) fn stop_behind_frame(&self) {
        self.0.fetch_or(LAST, Relaxed);
    }

    fn follow(&self, frames: &Frames) {
        let at = match frames.at {
            At::Header if frames.have == 0 => BETWEEN,
            At::Header | At::Payload(_) => AMID,
            At::Over => OVER,
        };
        self.0.store(at | (self.0.load(Relaxed) & LAST), Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.0.load(Relaxed) & LAST != 0
    }
}

/// A client's side of a tunnel, which follows the frames that are written to it.
#[derive(Debug)]
pub(super) struct Followed<'a, S> {
    stream: S,
    frames: Frames,
    progress: &'a Progress,
}

impl<'a, S> Followed<'a, S> {
    /// Follows what is written to `stream` in `progress`.
    pub(super) fn new(stream: S, progress: &'a Progress) -> Self {
        Self { stream, frames: Frames::default(), progress }
    }

    /// The stream again.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Followed<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Followed<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = if self.progress.is_stopping() {
            match self.frames.clone().step(bytes) {
                _ if self.frames.is_between() => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                rest => &bytes[..bytes.len() - rest.len()],
            }
        } else {
            bytes
        };
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.frames.follow(bytes.get(..count).unwrap_or(bytes));
        self.progress.follow(&self.frames);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The frames of one direction.
#[derive(Clone, Debug, Default)]
struct Frames {
    at: At,
    /// Bytes of a header that is not whole.
    header: [u8; LONGEST],
    have: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Header,
    /// So many bytes of a payload are to come.
    Payload(u64),
    /// No frame may follow: one closed the connection, or these are none that a server sends.
    Over,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.at == At::Header && self.have == 0
    }

    /// Goes on by `bytes`.
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = self.step(bytes);
        }
    }

    /// Goes on to the end of the frame at most, and gives back what is behind it.
    fn step<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                At::Over => return &[],
                At::Payload(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    // No more is taken than is left.
                    self.payload(left - taken as u64);
                }
                At::Header => {
                    if let Some(slot) = self.header.get_mut(self.have) {
                        *slot = byte;
                    }
                    self.have += 1;
                    bytes = rest;
                    self.judge_header();
                }
            }
            if self.is_between() {
                return bytes;
            }
        }
        bytes
    }

    fn judge_header(&mut self) {
        let [first, second, long @ ..] = self.header;
        let is_known = matches!(first & 0x0f, 0..=2 | 8..=10);
        if !is_known || (self.have > 1 && second & 0x80 != 0) {
            self.at = At::Over;
            return;
        }
        let (needs, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes([long[0], long[1]]))),
            127 => (LONGEST, u64::from_be_bytes(long)),
            short => (2, u64::from(short)),
        };
        if self.have >= needs {
            self.payload(length);
        }
    }

    fn payload(&mut self, left: u64) {
        if left > 0 {
            self.at = At::Payload(left);
            return;
        }
        self.at = if self.header[0] & 0x0f == CLOSE { At::Over } else { At::Header };
        self.have = 0;
    }
}

/// A header without a mask, which only clients send.
const LONGEST: usize = 10;

const CLOSE: u8 = 8;

const BETWEEN: u8 = 0;
const AMID: u8 = 1;
const OVER: u8 = 2;
const LAST: u8 = 4;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(opcode: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![opcode];
        match length {
            0..=125 => frame.push(u8::try_from(length).unwrap()),
            126..=65_535 => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // What a payload says is no header.
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn a_farewell_is_a_whole_frame_with_its_code() {
        for (farewell, code) in [(Farewell::GoingAway, 1001_u16), (Farewell::NoLongerAllowed, 1008)] {
            let frame = farewell.frame();
            assert_eq!(frame[0], 0x88);
            assert_eq!(usize::from(frame[1]), frame.len() - 2);
            assert_eq!(frame[2..4], code.to_be_bytes());
            assert!(std::str::from_utf8(&frame[4..]).is_ok());
        }
    }

    #[test]
    fn ends_are_found_however_the_bytes_come() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];
        let opcodes = [0x81, 0x02, 0x00, 0xc1, 0x89, 0x8a];
        let mut ends = vec![0];
        let mut all = Vec::new();
        for (number, length) in lengths.iter().cycle().take(24).enumerate() {
            all.extend(frame(opcodes[number % opcodes.len()], *length));
            ends.push(all.len());
        }
        for piece in [1, 2, 3, 7, 1000, 8192, all.len()] {
            let mut frames = Frames::default();
            let mut passed = 0;
            for bytes in all.chunks(piece) {
                frames.follow(bytes);
                passed += bytes.len();
                assert_eq!(frames.is_between(), ends.contains(&passed), "{passed} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn nothing_follows_a_close_or_what_are_no_frames_of_a_server() {
        let masked = [&[0x81, 0x81, 1, 2, 3, 4, 5][..], &frame(0x81, 3)].concat();
        let too_long = [&[0x82, 127][..], &[0xff; 8], &[0; 100]].concat();
        for bytes in [frame(0x88, 2), frame(0x88, 0), masked, b"first".to_vec(), b"HTTP/1.1".to_vec(), too_long] {
            for piece in [1, bytes.len()] {
                let mut frames = Frames::default();
                bytes.chunks(piece).for_each(|piece| frames.follow(piece));
                frames.follow(&[]);
                assert!(!frames.is_between(), "{bytes:?}");
            }
        }
        let mut closed = Frames::default();
        closed.follow(&[frame(0x88, 2), frame(0x81, 2)].concat());
        assert_eq!(closed.at, At::Over);
    }

    #[tokio::test]
    async fn the_frame_in_progress_is_the_last() {
        let (near, mut far) = tokio::io::duplex(4096);
        let progress = Progress::default();
        let mut followed = Followed::new(near, &progress);
        assert!(progress.is_between_frames());
        let both = [frame(0x81, 200), frame(0x81, 3)].concat();
        followed.write_all(&both[..100]).await.unwrap();
        assert!(progress.is_amid_frame() && !progress.is_between_frames());
        progress.stop_behind_frame();
        let rest = followed.write_all(&both[100..]).await;
        assert_eq!(rest.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        drop(followed);
        assert!(progress.is_between_frames() && !progress.is_amid_frame());
        let mut passed = Vec::new();
        far.read_to_end(&mut passed).await.unwrap();
        assert_eq!(passed, frame(0x81, 200));
    }
}
