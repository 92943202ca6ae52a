//! Getting one small document over HTTP, as the keys of an issuer: with a limit to its size, a deadline for all of it, and
//! no redirect followed. Not for forwarding, and not on the path of a request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AGE, CACHE_CONTROL, HOST, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What was asked for.
#[derive(Debug)]
pub struct Document {
    /// All of it.
    pub body: Bytes,
    /// How long it is good for, as `Cache-Control` says (RFC 9111 section 5.2.2.1).
    pub max_age: Option<Duration>,
}

/// What may be fetched, and how.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the document.
    pub bytes: usize,
    /// From the first step to the last byte.
    pub time: Duration,
}

/// Gets the document at `url`, which is `http` or `https`. `ca` is a PEM file of the certificates that the server is
/// believed by, in place of the system's.
///
/// # Errors
/// Why there is no document.
pub async fn get(url: &str, ca: Option<&Path>, limits: Limits) -> Result<Document, FetchError> {
    match timeout(limits.time, fetch(url, ca, limits)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(FetchError::TimedOut { after: limits.time }),
    }
}

async fn fetch(url: &str, ca: Option<&Path>, Limits { bytes: most, time }: Limits) -> Result<Document, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::NotAUrl)?;
    let host = uri.host().ok_or(FetchError::NotAUrl)?;
    let is_https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(FetchError::NotAUrl),
    };
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let stream = connect(host.trim_matches(['[', ']']), port, time / 2).await.map_err(FetchError::Connect)?;
    if !is_https {
        return ask(stream, &uri, most).await;
    }
    let stream = over_tls(stream, host.trim_matches(['[', ']']), ca).await?;
    ask(stream, &uri, most).await
}

/// Begins TLS on `stream` with the server `host`, which is believed by the certificates in `ca`, else by the system's.
///
/// # Errors
/// When its certificate is not believed, or those of authorities can't be read.
pub async fn over_tls(stream: TcpStream, host: &str, ca: Option<&Path>) -> Result<TlsStream<TcpStream>, FetchError> {
    let roots = trusted(ca.map(Path::to_path_buf)).await?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(FetchError::Tls)?.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(FetchError::Name)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(FetchError::Connect)
}

/// Tries one address after the other, each with its share of `time`, so that one that says nothing hides no other.
async fn connect(host: &str, port: u16, time: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let share = time / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

async fn ask<S>(stream: S, uri: &Uri, most: usize) -> Result<Document, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MOST_HEAD).handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(async move {
        // What goes wrong with it the request is told too.
        let _told_to_the_request = connection.await;
    }));
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(target)
        .header(HOST, authority)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::NotAUrl)?;
    let response = sender.send_request(request).await?;
    let (head, mut body) = response.into_parts();
    if head.status.is_redirection() {
        return Err(FetchError::Redirected { status: head.status });
    }
    if head.status != StatusCode::OK {
        return Err(FetchError::Status { status: head.status });
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if read.len() + data.len() > most {
            return Err(FetchError::TooLarge { most });
        }
        read.extend_from_slice(&data);
    }
    drop(connection);
    Ok(Document { body: read.freeze(), max_age: max_age(&head.headers) })
}

/// The certificates that a server is believed by. Read anew each time, so that a change of the system's is seen, and apart
/// from the runtime, because they are hundreds of files' worth.
async fn trusted(ca: Option<PathBuf>) -> Result<RootCertStore, FetchError> {
    let read = move || {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let unreadable = |reason: String| FetchError::Certificates { reason };
                let certificates =
                    CertificateDer::pem_file_iter(&path).map_err(|error| unreadable(error.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                    roots.add(certificate).map_err(FetchError::Tls)?;
                }
            }
            // One bad certificate among the system's is no reason to believe nobody.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(FetchError::Certificates { reason: "there are none".to_owned() });
        }
        Ok(roots)
    };
    let panicked = |_| FetchError::Certificates { reason: "they could not be read".to_owned() };
    tokio::task::spawn_blocking(read).await.map_err(panicked)?
}

/// RFC 9111 section 4.2: how long it is fresh, less the time that a cache on the way had it; nothing at all where it may not
/// be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    for directive in lines.flat_map(|line| line.split(',')).map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.trim().eq_ignore_ascii_case("max-age")
            && let Ok(seconds) = value.trim().trim_matches('"').parse::<u64>()
        {
            found.get_or_insert(Duration::from_secs(seconds));
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
    found.map(|fresh| fresh.saturating_sub(age.unwrap_or_default()))
}

/// The connection ends with whoever asked, also when that is given up half-way.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no document.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they hold")]
pub enum FetchError {
    /// It can't be asked for at that address.
    NotAUrl,
    /// The server can't be reached, or its certificate is not believed.
    Connect(io::Error),
    /// The server has no name that a certificate could be for.
    Name(InvalidDnsNameError),
    /// TLS can't be set up.
    Tls(rustls::Error),
    /// The certificates that servers are believed by can't be read.
    Certificates { reason: String },
    /// What came is not HTTP, or it broke off.
    Http(hyper::Error),
    /// It is somewhere else. Following would let whoever answers choose where keys come from.
    Redirected { status: StatusCode },
    /// The server says no.
    Status { status: StatusCode },
    /// It is larger than anything of its kind.
    TooLarge { most: usize },
    /// It did not come in time.
    TimedOut { after: Duration },
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAUrl => f.write_str("not a URL"),
            Self::Connect(source) => write!(f, "no connection: {source}"),
            Self::Name(source) => write!(f, "{source}"),
            Self::Tls(source) => write!(f, "{source}"),
            Self::Certificates { reason } => write!(f, "certificates of authorities can't be read: {reason}"),
            Self::Http(source) => write!(f, "{source}"),
            Self::Redirected { status } => write!(f, "the answer is {status}, and redirects are not followed"),
            Self::Status { status } => write!(f, "the answer is {status}"),
            Self::TooLarge { most } => write!(f, "the answer is larger than {} KiB", most >> 10),
            Self::TimedOut { after } => write!(f, "no whole answer within {} s", after.as_secs()),
        }
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(source) => Some(source),
            Self::Name(source) => Some(source),
            Self::Tls(source) => Some(source),
            Self::Http(source) => Some(source),
            Self::NotAUrl
            | Self::Certificates { .. }
            | Self::Redirected { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::TimedOut { .. } => None,
        }
    }
}

impl From<hyper::Error> for FetchError {
    fn from(source: hyper::Error) -> Self {
        Self::Http(source)
    }
}

/// Bytes of an answer's head.
const MOST_HEAD: usize = 32 << 10;

const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
