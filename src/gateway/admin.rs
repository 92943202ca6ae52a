//! The admin listener: `/livez` and `/readyz`, nothing else, and never on a public address by accident.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io, net};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::config::AdminListen;
use crate::session::Follower;

/// What `/readyz` says, and what it is judged by.
#[derive(Debug)]
pub(super) struct Readiness {
    follower: Arc<Follower>,
    max_staleness: Duration,
    is_draining: AtomicBool,
}

impl Readiness {
    pub(super) fn new(follower: Arc<Follower>, max_staleness: Duration) -> Self {
        Self { follower, max_staleness, is_draining: AtomicBool::new(false) }
    }

    /// From now on traffic should go elsewhere.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    fn problem(&self) -> Option<&'static str> {
        if self.is_draining.load(Ordering::SeqCst) {
            return Some("draining");
        }
        (!self.follower.is_fresh(self.max_staleness)).then_some("the store does not answer")
    }
}

/// The admin listener, bound.
#[derive(Debug)]
pub(super) enum Admin {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Admin {
    /// Binds where `listen` says.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    pub(super) fn bind(listen: &AdminListen) -> io::Result<Self> {
        match listen {
            AdminListen::Tcp(address) => {
                let listener = net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            AdminListen::Unix(path) => super::control::bind(path, 0o660).map(Self::Unix),
        }
    }

    /// The address, when it is one of TCP.
    pub(super) fn address(&self) -> Option<net::SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Answers until the task ends.
    pub(super) async fn serve(self, readiness: Arc<Readiness>) {
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, &readiness)),
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, &readiness)),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "admin listener can't accept");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn spawn(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, readiness: &Arc<Readiness>) {
    let readiness = Arc::clone(readiness);
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let answer = answer(&request, &readiness);
            async { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let _ended_is_ended = tokio::time::timeout(LIFETIME, connection).await;
    });
}

fn answer(request: &Request<Incoming>, readiness: &Readiness) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/livez" | "/readyz" if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, "method not allowed".to_owned())
        }
        "/livez" => (StatusCode::OK, "ok".to_owned()),
        "/readyz" => match readiness.problem() {
            None => (StatusCode::OK, "ok".to_owned()),
            Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {problem}")),
        },
        _ => (StatusCode::NOT_FOUND, "not found".to_owned()),
    };
    let mut response = Response::new(Full::from(text + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// How long a prober may take for its head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a prober's connection is kept.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How long accepting rests after it failed.
const BACK_OFF: Duration = Duration::from_millis(100);
