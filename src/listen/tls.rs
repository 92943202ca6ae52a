//! TLS with a client: the handshake, and what is done with one who speaks something else.
//!
//! When it has to be over the caller says: one deadline stands over it and the first head.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::conn::ClientStream;
use super::door::ClientSocket;
use crate::config::Tls;
use crate::message::certificate::{ClientCertificate, Facts};
use crate::message::connection::TlsInfo;

/// Why there is no TLS with a client.
#[derive(Debug)]
pub enum Failure {
    /// It speaks HTTP in the clear, and was told so.
    NotTls,
    /// The handshake failed, or it left.
    Handshake(io::Error),
}

impl Failure {
    /// The word for it in metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Handshake(_) => "refused",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotTls => f.write_str("the client speaks HTTP in the clear"),
            Self::Handshake(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

/// Begins TLS on `stream` with the certificate for the name that the client asks for.
///
/// # Errors
/// When the client speaks no TLS, or none that both sides know.
pub async fn accept(stream: ClientSocket, tls: &Tls) -> Result<(Secure, TlsInfo), Failure> {
    if stream.first_byte().await.map_err(Failure::Handshake)?.is_some_and(|first| first.is_ascii_uppercase()) {
        return Err(turn_away(stream).await);
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(Failure::Handshake)?;
    let server_name: Option<Arc<str>> = hello.client_hello().server_name().map(|name| name.to_ascii_lowercase().into());
    let certificate = tls.choose(server_name.as_deref());
    let Some(certificate) = certificate else {
        return Err(Failure::Handshake(io::Error::other("there is no certificate")));
    };
    let stream = hello.into_stream(Arc::clone(certificate.handshakes())).await.map_err(Failure::Handshake)?;
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(HTTP2);
    let client = match (&certificate.clients, session.peer_certificates().and_then(<[_]>::first)) {
        (Some(clients), Some(shown)) => {
            let unreadable = || Failure::Handshake(io::Error::other("the client's certificate can't be read"));
            let facts = Facts::read(shown).ok_or_else(unreadable)?;
            let (name, not_after) = (facts.common_name, facts.term.until);
            Some(Arc::new(ClientCertificate { name, not_after, trust: clients.trust }))
        }
        _ => None,
    };
    let info = TlsInfo { server_name, client, http2 };
    Ok((Box::new(stream), info))
}

/// Tells a client that speaks HTTP what to do instead, as other servers do.
async fn turn_away(mut stream: ClientSocket) -> Failure {
    let answer = async {
        stream.write_all(PLAIN_HTTP).await?;
        stream.shutdown().await?;
        // What it still sends must not meet a closed socket: it would lose the answer.
        let mut left = (&mut stream).take(MOST_DROPPED);
        tokio::io::copy(&mut left, &mut tokio::io::sink()).await
    };
    match answer.await {
        Ok(_) => Failure::NotTls,
        Err(error) => Failure::Handshake(error),
    }
}

/// A client's connection over TLS. Boxed, as all that serves it has a place for it in each of its steps.
pub type Secure = Box<TlsStream<ClientSocket>>;

impl ClientStream for Secure {
    fn break_off(self) {
        // Without a `close_notify` no client takes the end for a whole answer; the reset says it louder.
        (*self).into_inner().0.break_off();
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // A read that had to wait has left nothing decrypted or undecrypted behind but the beginning of a record.
        self.get_ref().0.poll_readable(cx)
    }
}

/// HTTP/2 in the words of ALPN (RFC 9113, section 3.2).
pub const HTTP2: &[u8] = b"h2";

const MOST_DROPPED: u64 = 64 << 10;

const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
connection: close\r\ncontent-length: 44\r\n\r\nThis port speaks https: write https:// here.";
