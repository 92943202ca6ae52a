//! A client's side of an extended CONNECT (RFC 8441): asking for it, and the bytes that pass once it is open.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Request, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gateway::address_in;
use super::{Gateway, Setup};

/// `setup` with two listeners, of which the second speaks HTTP/2 in the clear.
pub(crate) fn both(setup: Setup) -> Setup {
    setup.key("server.listen", r#"["127.0.0.1:0", { address = "127.0.0.1:0", h2c = true }]"#)
}

/// The second of them.
pub(crate) fn clear(gateway: &Gateway) -> SocketAddr {
    let other = |line: &str| address_in(line).filter(|address| *address != gateway.address);
    gateway.stderr.wait("the second address", |line| line.contains("listening").then(|| other(line))?)
}

/// What is asked with a CONNECT for `protocol`, at the host that the gateway is for.
pub(crate) fn connect(path: &str, protocol: &'static str, fields: &[(&'static str, String)]) -> Request<()> {
    let request = Request::builder().method("CONNECT").uri(format!("http://127.0.0.1:8080{path}"));
    let mut request = request.version(Version::HTTP_2).header("sec-websocket-version", "13").body(()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

/// Asks for a WebSocket: the head of the answer, and the stream either way.
pub(crate) async fn open(
    client: &mut SendRequest<Bytes>,
    path: &str,
    fields: &[(&'static str, String)],
) -> (http::response::Parts, Tunnel) {
    let (answer, send) = client.send_request(connect(path, "websocket", fields), false).unwrap();
    let answer = tokio::time::timeout(super::DEADLINE, answer).await.expect("an answer in time").unwrap();
    let (head, recv) = answer.into_parts();
    (head, Tunnel { send, recv, held: Bytes::new() })
}

/// The bytes of one stream.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) send: SendStream<Bytes>,
    recv: RecvStream,
    held: Bytes,
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.held.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.held = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = self.held.len().min(into.remaining());
        into.put_slice(&self.held[..count]);
        self.held.advance(count);
        // A stream that has ended has no window any more.
        drop(self.recv.flow_control().release_capacity(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(bytes.len());
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = self.send.capacity().min(bytes.len());
        let sent = self.send.send_data(Bytes::copy_from_slice(&bytes[..count]), false);
        Poll::Ready(sent.map(|()| count).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
