//! The admin listener: `/livez`, `/readyz` and `/metrics`, nothing else, and never on a public address by accident.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use std::{io, net};

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use super::StartError;
use super::readiness::Readiness;
use super::scrape::Scrape;
use crate::config::AdminListen;
use crate::listen::unix::Claim;
use crate::metrics::Format;

/// Where the admin listener is, over reloads: `admin.listen` as it is written, and the task behind it.
#[derive(Debug)]
pub(super) struct AdminPlace {
    desk: Arc<Desk>,
    written: Option<AdminListen>,
    serving: Option<AbortHandle>,
}

/// A place for the admin listener that is bound already, but not served yet.
#[derive(Debug)]
pub(super) struct NextPlace {
    written: Option<AdminListen>,
    admin: Option<Admin>,
}

impl AdminPlace {
    /// Serves at the first place.
    pub(super) fn begin(desk: Desk, first: NextPlace) -> Self {
        let mut place = Self { desk: Arc::new(desk), written: None, serving: None };
        place.move_to(first);
        place
    }

    /// What `/readyz` says.
    pub(super) fn readiness(&self) -> &Arc<Readiness> {
        &self.desk.readiness
    }

    /// Binds where `wanted` says; `None`: that is where it is.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    pub(super) fn next(&self, wanted: Option<&AdminListen>) -> Result<Option<NextPlace>, StartError> {
        if self.written.as_ref() == wanted { Ok(None) } else { NextPlace::bind(wanted).map(Some) }
    }

    /// Serves there from now on, and no longer where it was.
    pub(super) fn move_to(&mut self, next: NextPlace) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
        // The task that is to end still has the claim: nobody is to find the file meanwhile.
        if let Some(AdminListen::Unix(path)) = &self.written {
            let _gone_already = std::fs::remove_file(path);
        }
        let NextPlace { written, admin } = next;
        self.written = written;
        let Some(admin) = admin else { return };
        if let Some(address) = admin.address() {
            tracing::info!(%address, "admin listening");
        }
        self.serving = Some(tokio::spawn(admin.serve(Arc::clone(&self.desk))).abort_handle());
    }
}

impl NextPlace {
    /// Binds where `wanted` says.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    pub(super) fn bind(wanted: Option<&AdminListen>) -> Result<Self, StartError> {
        let admin = wanted.map(Admin::bind).transpose().map_err(StartError::Admin)?;
        Ok(Self { written: wanted.cloned(), admin })
    }

    /// The address, when it is one of TCP.
    pub(super) fn address(&self) -> Option<net::SocketAddr> {
        self.admin.as_ref().and_then(Admin::address)
    }
}

/// The admin listener, bound.
#[derive(Debug)]
enum Admin {
    Tcp(TcpListener),
    /// The file goes with it.
    Unix {
        listener: UnixListener,
        _claim: Claim,
    },
}

impl Admin {
    /// Binds where `listen` says.
    ///
    /// # Errors
    /// When the address is taken or may not be used.
    fn bind(listen: &AdminListen) -> io::Result<Self> {
        match listen {
            AdminListen::Tcp(address) => {
                let listener = net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            AdminListen::Unix(path) => {
                super::control::bind(path, 0o660).map(|(listener, claim)| Self::Unix { listener, _claim: claim })
            }
        }
    }

    /// The address, when it is one of TCP.
    fn address(&self) -> Option<net::SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    /// Answers until the task ends.
    async fn serve(self, desk: Arc<Desk>) {
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, &desk)),
                Self::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| spawn(stream, &desk)),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "admin listener can't accept");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// What the answers are made of.
#[derive(Debug)]
pub(super) struct Desk {
    /// For `/readyz`.
    pub(super) readiness: Arc<Readiness>,
    /// For `/metrics`.
    pub(super) scrape: Scrape,
}

fn spawn(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, desk: &Arc<Desk>) {
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let desk = Arc::clone(&desk);
            async move { Ok::<_, Infallible>(answer(&request, &desk).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let _ended_is_ended = tokio::time::timeout(LIFETIME, connection).await;
    });
}

async fn answer(request: &Request<Incoming>, desk: &Desk) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if matches!(path, "/livez" | "/readyz" | "/metrics") && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => {
            let problem = desk.readiness.problem();
            let status = if problem.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let last = problem.map_or_else(|| "ok\n".to_owned(), |problem| format!("not ready: {problem}\n"));
            let wants_all = request
                .uri()
                .query()
                .is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
            text(status, if wants_all { desk.readiness.list() + &last } else { last })
        }
        "/metrics" => metrics(request, desk).await,
        _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

/// The page of metrics, written beside the control thread, which has revocations to follow.
async fn metrics(request: &Request<Incoming>, desk: &Desk) -> Response<Full<Bytes>> {
    let accept: Vec<&str> = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::wanted(&accept.join(","));
    let scrape = desk.scrape.clone();
    match tokio::task::spawn_blocking(move || scrape.page(format)).await {
        Ok(page) => {
            let mut response = text(StatusCode::OK, page);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
            headers.insert(VARY, HeaderValue::from_static("Accept"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the page of metrics could not be written");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be read\n".to_owned())
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How long a prober may take for its head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a prober's connection is kept.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How long accepting rests after it failed.
const BACK_OFF: Duration = Duration::from_millis(100);
