//! Connections for which there is no room: one too many, or no descriptor left. Each is told so in what its listener speaks.

use std::fs::File;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use rustix::io::Errno;

use super::door::{ClientSocket, OpenDoor};

/// What clients of a listener speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
    /// TLS.
    Tls,
}

impl Spoken {
    /// What a client is told for whom there is no room.
    pub(super) const fn farewell(self) -> &'static [u8] {
        match self {
            Self::Http1 => {
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            }
            // No settings, and GOAWAY: nothing was looked at, ENHANCE_YOUR_CALM (RFC 9113, section 6.8).
            Self::Http2 => b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b",
            // A handshake is not paid for: the alert internal_error (RFC 8446, section 6).
            Self::Tls => b"\x15\x03\x03\0\x02\x02\x50",
        }
    }
}

/// A descriptor that is kept to be given up, so that when none is left whoever waits can be told so.
#[derive(Debug)]
pub(super) struct Spare(Option<File>);

impl Spare {
    pub(super) fn new() -> Self {
        Self(kept())
    }

    /// Takes the connections that wait at `listener` and tells each that there is none for it. How many there were.
    pub(super) async fn shed(&mut self, listener: &OpenDoor, spoken: Spoken) -> usize {
        let mut told = 0;
        while told < MOST {
            self.0 = None;
            let mut accepting = pin!(listener.accept());
            let waiting = poll_fn(|cx| match accepting.as_mut().poll(cx) {
                Poll::Ready(Ok((stream, _))) => Poll::Ready(Some(stream)),
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
            });
            let Some(stream) = waiting.await else { break };
            tell(&stream, spoken);
            drop(stream);
            told += 1;
        }
        self.0 = kept();
        told
    }
}

/// Whether `error` says that this process, or the system, has no descriptors left.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Nobody waits here: what does not fit at once is not said.
pub(super) fn tell(stream: &ClientSocket, spoken: Spoken) {
    let _ = stream.try_write(spoken.farewell());
    // A socket that is closed with bytes unread takes back what was written.
    let mut bytes = [0; 4096];
    let read = |_| matches!(stream.try_read(&mut bytes), Ok(1..));
    let _ = (0..8).all(read);
}

fn kept() -> Option<File> {
    File::open("/dev/null").ok()
}

/// How many are told so at a time.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::door::Door;

    #[test]
    fn descriptors_are_told_from_other_troubles() {
        for (code, expected) in [(24, true), (23, true), (105, false), (12, false), (103, false)] {
            assert_eq!(is_out_of_descriptors(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
    }

    #[tokio::test]
    async fn everyone_who_waits_is_told_in_their_own_words() {
        for spoken in [Spoken::Http1, Spoken::Http2, Spoken::Tls] {
            let listener = crate::listen::socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let listener = Door::from(listener).open().unwrap();
            let _first = std::net::TcpStream::connect(address).unwrap();
            let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            for mut client in &clients {
                io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            }
            let mut spare = Spare::new();
            // As after a failure: the socket is known to have someone who waits.
            listener.accept().await.unwrap();
            assert_eq!(spare.shed(&listener, spoken).await, 3);
            assert!(spare.0.is_some());
            for mut client in clients {
                let mut all = Vec::new();
                io::Read::read_to_end(&mut client, &mut all).unwrap();
                assert_eq!(all, spoken.farewell());
            }
        }
    }
}
