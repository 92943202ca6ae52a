//! Sending a request to a backend, in the version of HTTP that it speaks, and what can go wrong with that.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::time::Instant;

use super::answer::Fault;
use super::backend::Backend;
use super::connect::{ConnectError, Parked, Stale};
use super::http1::Http1;
use super::interim::TooManyInterim;
use super::multiplex::{Multiplex, Outcome};
use super::{Outgoing, Reply};
use crate::config::ServerAddr;
use crate::message::added::Added;

/// One worker's connections to one backend.
#[derive(Debug)]
pub(super) struct Sender {
    http1: Http1,
    versions: Versions,
}

/// Which versions of HTTP the backend speaks.
#[derive(Debug)]
enum Versions {
    Http1,
    Http2(Multiplex),
    /// What the server chooses; whether it chose HTTP/1.1 the last time.
    Either(Multiplex, AtomicBool),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection came about.
    Connect(Arc<ConnectError>),
    /// TLS broke under a connection for HTTP/2 that stood, and on which the request may have been read.
    Tls(Arc<ConnectError>),
    /// Over HTTP/1.1, in an exchange of our own.
    Exchange(Fault),
    /// Over HTTP/1.1, where hyper sent a body that was still to come, or asked for another protocol.
    Http1(hyper::Error),
    /// Over HTTP/2; `reused`: on a connection that had answered before.
    Http2 { source: hyper::Error, reused: bool },
    /// The server changed its mind about HTTP/2 while the request was under way.
    NotSpoken,
}

impl Sender {
    /// Connections to `backend`, of which `keep` are kept unused.
    pub(super) fn new(backend: &Arc<Backend>, keep: usize) -> Self {
        let parked = Parked::default();
        let http1 = Http1::new(Arc::clone(backend), keep, parked.clone());
        let multiplex = || Multiplex::new(Arc::clone(backend), keep, parked);
        let versions = match backend.address() {
            ServerAddr::Http(_) | ServerAddr::Unix(_) => Versions::Http1,
            ServerAddr::H2c(_) => Versions::Http2(multiplex()),
            ServerAddr::Https(_) => Versions::Either(multiplex(), AtomicBool::new(false)),
        };
        Self { http1, versions }
    }

    /// Sends `outgoing`, over a connection that is there or a new one.
    pub(super) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Reply, SendError> {
        match &self.versions {
            Versions::Http1 => self.http1.send(outgoing).await,
            Versions::Http2(multiplex) => match Box::pin(multiplex.send(outgoing.into_request())).await? {
                Outcome::Answer(reply) => Ok(reply),
                Outcome::NotSpoken(_) => Err(SendError::NotSpoken),
            },
            Versions::Either(multiplex, speaks_http1) => {
                Box::pin(self.send_as_agreed(multiplex, speaks_http1, outgoing)).await
            }
        }
    }

    /// Sends `outgoing` in the version that the server chooses.
    async fn send_as_agreed(
        &self,
        multiplex: &Multiplex,
        speaks_http1: &AtomicBool,
        outgoing: Outgoing<'_>,
    ) -> Result<Reply, SendError> {
        // Only HTTP/1.1 can be upgraded here (RFC 9113, section 8.6).
        let answer = if outgoing.switches || speaks_http1.load(Relaxed) {
            self.http1.send(outgoing).await
        } else {
            let (method, target) = (outgoing.method, outgoing.target);
            match multiplex.send(outgoing.into_request()).await? {
                Outcome::Answer(reply) => return Ok(reply),
                Outcome::NotSpoken(request) => {
                    speaks_http1.store(true, Relaxed);
                    let (mut head, body) = request.into_parts();
                    let headers = &mut head.headers;
                    let (added, now) = (&Added::default(), &Instant::now());
                    self.http1
                        .send(Outgoing { method, target, headers, added, switches: false, is_kept: false, body, now })
                        .await
                }
            }
        };
        if answer.as_ref().is_err_and(SendError::is_connect) {
            // Whatever takes its place is asked anew.
            speaks_http1.store(false, Relaxed);
        }
        answer
    }
}

impl SendError {
    /// Whether no connection came about.
    pub(crate) fn is_connect(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Exchange(_) | Self::Http1(_) | Self::Tls(_) | Self::Http2 { .. } | Self::NotSpoken => false,
        }
    }

    /// Whether it is this process that has no descriptors left, which says nothing of the server.
    pub(crate) fn is_own(&self) -> bool {
        matches!(beneath::<ConnectError>(self), Some(ConnectError::NoDescriptors { .. }))
    }

    /// Whether a used connection closed before a byte of an answer.
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Exchange(fault) => beneath::<Stale>(fault).is_some(),
            Self::Http1(error) => beneath::<Stale>(error).is_some(),
            Self::Http2 { source, reused } => *reused && (source.is_closed() || is_cut(source)),
            Self::Connect(_) | Self::Tls(_) | Self::NotSpoken => false,
        }
    }

    /// Whether the server says that it has done nothing with the request, whatever its method (RFC 9113, section 8.7).
    pub(crate) fn is_unprocessed(&self) -> bool {
        let Self::Http2 { source, .. } = self else { return matches!(self, Self::NotSpoken) };
        beneath::<h2::Error>(source).is_some_and(|error| {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            // h2 gives this error to streams above the last that the server names, and to no other.
            error.is_remote() && (refused || error.is_go_away())
        })
    }

    /// Whether what came is not HTTP, or not such that it can be read.
    pub(crate) fn is_malformed(&self) -> bool {
        match self {
            Self::Http2 { source, .. } => {
                let of_h2 = |error: &h2::Error| error.is_library() || (!error.is_remote() && error.reason().is_some());
                beneath::<h2::Error>(source).is_some_and(of_h2)
            }
            Self::Exchange(fault) => fault.is_malformed() || beneath::<TooManyInterim>(fault).is_some(),
            Self::Http1(error) => {
                error.is_parse() || error.is_parse_status() || beneath::<TooManyInterim>(error).is_some()
            }
            Self::Connect(_) | Self::Tls(_) | Self::NotSpoken => false,
        }
    }
}

/// Whether the connection beneath ended; hyper takes the `io::Error` out of h2's.
fn is_cut(error: &hyper::Error) -> bool {
    beneath::<std::io::Error>(error).is_some() || beneath::<h2::Error>(error).is_some_and(h2::Error::is_io)
}

/// The first `E` beneath `error`.
pub(crate) fn beneath<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An `io::Error` shows what it wraps here only, not as its source.
        if let Some(found) =
            error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<E>())
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("no connection came about"),
            Self::Tls(_) => f.write_str("TLS with the upstream broke"),
            Self::Exchange(source) => write!(f, "{source}"),
            Self::Http1(source) => write!(f, "{source}"),
            Self::Http2 { source, .. } => write!(f, "{source}"),
            Self::NotSpoken => f.write_str("the upstream does not speak HTTP/2 any longer"),
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(source) | Self::Tls(source) => Some(source.as_ref()),
            // Shown above, so that each says what it adds.
            Self::Exchange(source) => source.source(),
            Self::Http1(source) => source.source(),
            Self::Http2 { source, .. } => source.source(),
            Self::NotSpoken => None,
        }
    }
}
