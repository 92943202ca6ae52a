//! TCP and unix sockets as one: what is listened on, and what comes of it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::conn::ClientStream;
use crate::message::connection::ConnInfo;

/// A socket that listens and belongs to no runtime yet.
#[derive(Debug)]
pub enum Door {
    /// TCP.
    Tcp(StdTcpListener),
    /// A unix socket.
    Unix(StdUnixListener),
}

impl Door {
    /// Another handle of the same socket, which does not block.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                socket.try_clone().map(Self::Tcp)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                socket.try_clone().map(Self::Unix)
            }
        }
    }

    /// Its address, where it is one of the network.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Whether it listens: one that is connected is somebody's connection.
    pub(super) fn listens(&self) -> bool {
        let listens = match self {
            Self::Tcp(socket) => rustix::net::sockopt::socket_acceptconn(socket),
            Self::Unix(socket) => rustix::net::sockopt::socket_acceptconn(socket),
        };
        listens.unwrap_or(false)
    }

    /// The same in the runtime that this is called in.
    pub(super) fn open(self) -> io::Result<OpenDoor> {
        match self {
            Self::Tcp(socket) => TcpListener::from_std(socket).map(OpenDoor::Tcp),
            Self::Unix(socket) => UnixListener::from_std(socket).map(OpenDoor::Unix),
        }
    }
}

impl From<StdTcpListener> for Door {
    fn from(socket: StdTcpListener) -> Self {
        Self::Tcp(socket)
    }
}

/// A socket that accepts.
#[derive(Debug)]
pub(super) enum OpenDoor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl OpenDoor {
    /// The next connection, and what is known of it.
    pub(super) async fn accept(&self) -> io::Result<(ClientSocket, ConnInfo)> {
        match self {
            Self::Tcp(socket) => loop {
                let (stream, peer) = socket.accept().await?;
                if let Some(accepted) = tcp(stream, peer) {
                    return Ok(accepted);
                }
            },
            Self::Unix(socket) => {
                socket.accept().await.map(|(stream, _)| (ClientSocket::Unix(stream), ConnInfo::unix()))
            }
        }
    }

    /// The connections that stand already and were not accepted yet. The socket is closed behind them.
    pub(super) fn into_waiting(self) -> io::Result<Vec<(ClientSocket, ConnInfo)>> {
        let mut found = Vec::new();
        // Nobody waits here: the sockets do not block.
        match self {
            Self::Tcp(socket) => {
                let socket = socket.into_std()?;
                while let Ok((stream, peer)) = socket.accept() {
                    stream.set_nonblocking(true)?;
                    found.extend(tcp(TcpStream::from_std(stream)?, peer));
                }
            }
            Self::Unix(socket) => {
                let socket = socket.into_std()?;
                while let Ok((stream, _)) = socket.accept() {
                    stream.set_nonblocking(true)?;
                    found.push((ClientSocket::Unix(UnixStream::from_std(stream)?), ConnInfo::unix()));
                }
            }
        }
        Ok(found)
    }
}

/// `None`: the connection is gone already.
fn tcp(stream: TcpStream, peer: SocketAddr) -> Option<(ClientSocket, ConnInfo)> {
    // Small answers must not wait for an acknowledgement; a socket that refuses this is gone already.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().ok()?;
    Some((ClientSocket::Tcp(stream), ConnInfo::plain(peer, local)))
}

/// A client's connection.
#[derive(Debug)]
pub enum ClientSocket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl ClientSocket {
    /// Writes what fits at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Reads what is there already.
    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Unix(stream) => stream.try_read(into),
        }
    }

    /// Waits for the first byte, and leaves it where it is; `None`: that can't be seen on a unix socket.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let Self::Tcp(stream) = self else { return Ok(None) };
        let mut first = [0];
        let count = stream.peek(&mut first).await?;
        Ok((count == 1).then_some(first[0]))
    }
}

impl ClientStream for ClientSocket {
    fn break_off(self) {
        match self {
            Self::Tcp(stream) => stream.break_off(),
            // Closed with bytes unread the other end gets a reset; without, there is nothing that tells one end from another.
            Self::Unix(stream) => drop(SockRef::from(&stream).shutdown(std::net::Shutdown::Both)),
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => stream.poll_readable(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx).map(drop),
        }
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
