//! The socket as hyper sees it: one request at a time, and never without being watched.
//!
//! hyper drops a `#fragment` from the target without a word, reads on while an upgrade is undecided, and
//! knows one deadline only. So its reads go through [`Watched`], which hands over one head at a time, then
//! exactly that request's body, and notes on the [`Link`] what the connection is doing.

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scan::{ChunkScan, HeadScan};
use crate::message::connection::{Framing, Link, Stage};

/// A client's socket under hyper.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    link: Leaving,
    mode: Mode,
    held: BytesMut,
    closed: bool,
    shut: bool,
}

/// Tells the link when the socket is dropped, wherever that happens.
#[derive(Debug)]
struct Leaving(Arc<Link>);

impl Deref for Leaving {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What the next bytes are.
#[derive(Debug)]
enum Mode {
    /// A head.
    Head(HeadScan),
    /// Not known before the service is called with the head that was sent.
    Sent,
    /// So many bytes of a body.
    Length(u64),
    /// A chunked body.
    Chunked(ChunkScan),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    pub(crate) fn new(stream: S, link: Arc<Link>) -> Self {
        let mode = Mode::Head(HeadScan::default());
        let link = Leaving(link);
        Self { stream, link, mode, held: BytesMut::new(), closed: false, shut: false }
    }

    /// The socket, and whether a head has begun on it.
    pub(crate) fn into_stream(self) -> (S, bool) {
        let begun = matches!(&self.mode, Mode::Head(scan) if scan.has_begun());
        (self.stream, begun)
    }

    /// The same for the next parser, which is to begin with what the last one had read and not parsed: empty lines.
    pub(super) fn putting_back(mut self, unparsed: &[u8]) -> Self {
        self.held.extend_from_slice(unparsed);
        self.mode = Mode::Head(HeadScan::default());
        self
    }

    /// What the bytes come over.
    pub(super) const fn stream(&self) -> &S {
        &self.stream
    }

    /// Moves from what is over to what comes next.
    fn advance(&mut self) -> io::Result<()> {
        match &self.mode {
            Mode::Sent => {
                // hyper reads on although the head was whole: it sees it end elsewhere.
                let framing = self.link.framing().ok_or(io::ErrorKind::InvalidData)?;
                self.mode = match framing {
                    Framing::None | Framing::Length(0) => Mode::Head(HeadScan::default()),
                    Framing::Length(length) => Mode::Length(length),
                    Framing::Chunked => Mode::Chunked(ChunkScan::default()),
                };
            }
            Mode::Length(0) => self.mode = Mode::Head(HeadScan::default()),
            Mode::Chunked(scan) if scan.is_done() => self.mode = Mode::Head(HeadScan::default()),
            Mode::Head(_) | Mode::Length(_) | Mode::Chunked(_) => {}
        }
        Ok(())
    }

    /// How many of `bytes` belong to what is being read; notes where it ends.
    fn take(mode: &mut Mode, link: &Link, bytes: &[u8]) -> usize {
        match mode {
            Mode::Head(scan) => match scan.scan(bytes) {
                Some(end) => {
                    link.head_sent(scan.has_fault());
                    *mode = Mode::Sent;
                    end
                }
                None => {
                    if scan.has_begun() {
                        link.head_begins();
                    }
                    bytes.len()
                }
            },
            Mode::Sent => 0,
            Mode::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                here
            }
            Mode::Chunked(scan) => scan.scan(bytes),
        }
    }

    /// Reads what is held, or else the socket, and gives hyper what belongs to the request.
    fn poll_take(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            let here = self.held.len().min(into.remaining());
            let taken = Self::take(&mut self.mode, &self.link, &self.held[..here]);
            into.put_slice(&self.held[..taken]);
            self.let_go(taken);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(self.poll_socket(cx, into))?;
        let bytes = &into.filled()[before..];
        self.closed = bytes.is_empty();
        let taken = Self::take(&mut self.mode, &self.link, bytes);
        if taken < bytes.len() {
            self.held.extend_from_slice(&bytes[taken..]);
            into.set_filled(before + taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the socket, and notes whether it has nothing of the next head.
    fn poll_socket(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        let is_between = matches!(&self.mode, Mode::Head(scan) if !scan.has_begun());
        self.link.set_resting(is_between && read.is_pending());
        read
    }

    /// Waits for the client to leave. What it sends meanwhile is held back; from then on nothing is read, and
    /// the connection's task asks again when the request is over (`Link::can_go_on`).
    fn poll_vigil(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let before = into.filled().len();
            // hyper does not ask again when the request is over, as it knows that there is nothing.
            ready!(self.poll_socket(cx, into))?;
            self.held.extend_from_slice(&into.filled()[before..]);
            into.set_filled(before);
            if self.held.is_empty() {
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
        }
        self.link.set_waiting(true);
        Poll::Pending
    }

    /// Bytes as they come, the held ones first.
    fn poll_through(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let here = self.held.len().min(into.remaining());
        into.put_slice(&self.held[..here]);
        self.let_go(here);
        Poll::Ready(Ok(()))
    }

    /// Forgets `count` held bytes, and their memory with the last.
    fn let_go(&mut self, count: usize) {
        self.held.advance(count);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    fn note_written(&self, is_blocked: bool) {
        self.link.set_blocked(is_blocked);
        self.link.set_unflushed(true);
    }

    /// Whether the client may still send something that nobody is going to read.
    fn is_amid(&self) -> bool {
        if self.closed {
            return false;
        }
        match &self.mode {
            Mode::Head(scan) => scan.has_begun(),
            Mode::Sent => self.link.framing() != Some(Framing::None),
            Mode::Length(left) => *left > 0,
            Mode::Chunked(scan) => !scan.is_done(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.link.is_tunnel() {
            return self.poll_through(cx, into);
        }
        if self.link.is_parking() {
            return Poll::Pending;
        }
        self.advance()?;
        if matches!(self.mode, Mode::Head(_)) && self.link.stage() == Stage::Busy {
            return self.poll_vigil(cx, into);
        }
        self.poll_take(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_written(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note_written(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.link.set_unflushed(!matches!(flushed, Poll::Ready(Ok(()))));
        flushed
    }

    /// Closes our side. A client that is still sending would lose the answer to a reset if its bytes met a
    /// closed socket, so they are read and dropped until it has seen the end (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.link.is_parking() {
            return Poll::Ready(Ok(()));
        }
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            if !self.link.is_tunnel() && self.is_amid() {
                self.link.linger();
            }
        }
        if self.link.stage() != Stage::Lingering {
            return Poll::Ready(Ok(()));
        }
        let mut room = [0; 4096];
        loop {
            let mut dropped = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut dropped)) {
                Ok(()) if !dropped.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// What hyper would get now; `None`: it would wait.
    async fn read_now(watched: &mut Watched<DuplexStream>) -> Option<Vec<u8>> {
        let mut room = vec![0; 4096];
        std::future::poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut room);
            Poll::Ready(match Pin::new(&mut *watched).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => {
                    read.unwrap();
                    Some(buffer.filled().to_vec())
                }
                Poll::Pending => None,
            })
        })
        .await
    }

    async fn read_head(watched: &mut Watched<DuplexStream>) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read_now(watched).await.unwrap());
        }
        head
    }

    fn pair() -> (DuplexStream, Watched<DuplexStream>, Arc<Link>) {
        let (client, server) = tokio::io::duplex(1 << 16);
        let link = Arc::new(Link::new());
        (client, Watched::new(server, link.clone()), link)
    }

    const FIRST: &[u8] = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    const SECOND: &[u8] = b"GET /b#c HTTP/1.1\r\n\r\n";

    #[tokio::test]
    async fn hands_over_one_request_at_a_time_wherever_reads_are_cut() {
        let all = [FIRST, b"hello", SECOND, b"GET /d HTTP/1.1\r\n\r\n"].concat();
        for cut in 0..all.len() {
            let (mut client, mut watched, link) = pair();
            let mut got = Vec::new();
            for part in [&all[..cut], &all[cut..]] {
                client.write_all(part).await.unwrap();
                while let Some(bytes) = read_now(&mut watched).await {
                    assert!(!bytes.is_empty());
                    got.extend_from_slice(&bytes);
                    if got.len() == FIRST.len() && link.framing().is_none() {
                        link.begin(Framing::Length(5));
                        assert!(!link.target_fault());
                    }
                    assert!(got.len() <= FIRST.len() + 5, "the next head waits for the answer");
                }
            }
            assert_eq!(got, all[..FIRST.len() + 5], "cut at {cut}");
            assert_eq!(link.stage(), Stage::Busy);
            link.finish();
            assert_eq!(read_head(&mut watched).await, SECOND);
            link.begin(Framing::None);
            assert!(link.target_fault(), "cut at {cut}");
            link.finish();
            assert_eq!(read_head(&mut watched).await, b"GET /d HTTP/1.1\r\n\r\n");
            link.begin(Framing::None);
            assert!(!link.target_fault());
        }
    }

    #[tokio::test]
    async fn bytes_behind_an_upgrade_wait_for_the_101() {
        let (mut client, mut watched, link) = pair();
        let head = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(&[&head[..], b"GET /smuggled HTTP/1.1\r\n\r\n"].concat()).await.unwrap();
        assert_eq!(read_now(&mut watched).await.unwrap(), head);
        link.begin(Framing::None);
        assert_eq!(read_now(&mut watched).await, None);
        link.open_tunnel();
        assert_eq!(read_now(&mut watched).await.unwrap(), b"GET /smuggled HTTP/1.1\r\n\r\n");
        client.write_all(b"more").await.unwrap();
        assert_eq!(read_now(&mut watched).await.unwrap(), b"more");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_while_its_request_is_in_progress() {
        let (mut client, mut watched, link) = pair();
        client.write_all(SECOND).await.unwrap();
        assert_eq!(read_now(&mut watched).await.unwrap(), SECOND);
        link.begin(Framing::None);
        assert_eq!(read_now(&mut watched).await, None);
        drop(client);
        assert_eq!(read_now(&mut watched).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_head_that_hyper_does_not_take_for_whole_ends_the_connection() {
        let (mut client, mut watched, _link) = pair();
        client.write_all(SECOND).await.unwrap();
        assert_eq!(read_now(&mut watched).await.unwrap(), SECOND);
        let mut room = [0; 16];
        let read = std::future::poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut room);
            Pin::new(&mut watched).poll_read(cx, &mut buffer)
        });
        assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_client_that_is_still_sending_is_read_out_after_the_end() {
        let (mut client, mut watched, link) = pair();
        client.write_all(FIRST).await.unwrap();
        read_now(&mut watched).await.unwrap();
        link.begin(Framing::Length(5));
        link.finish();
        let end = async {
            std::future::poll_fn(|cx| Pin::new(&mut watched).poll_shutdown(cx)).await.unwrap();
        };
        let send = async {
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            client.write_all(&[0; 200_000]).await.unwrap();
            client.shutdown().await.unwrap();
        };
        tokio::join!(end, send);
        assert_eq!(link.stage(), Stage::Lingering);
    }
}
