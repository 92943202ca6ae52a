//! TLS towards an upstream: whom its certificate is believed from, what the gateway shows, and which protocol is agreed on.
//!
//! A certificate is always verified. There is no way to switch that off; a private authority is named in the configuration.

use std::fmt;
use std::io;
use std::net::TcpStream as BlockingStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::pki_types::{InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::UpstreamTls;

/// What connections to one server need.
#[derive(Debug)]
pub(super) struct Tls {
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

/// Which protocols the server may choose from (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/1.1, which alone can be upgraded.
    Http1,
    /// HTTP/2 rather, else HTTP/1.1.
    Either,
}

/// Why no connection to a server could ever come about.
#[derive(Debug)]
pub enum TlsFault {
    /// No certificate can be for its name.
    Name(InvalidDnsNameError),
    /// This machine believes nobody.
    NoAuthorities,
    /// What the configuration names can't be used.
    Unusable(rustls::Error),
}

impl Tls {
    /// What connections to `host` need as `settings` say.
    pub(super) fn new(settings: &UpstreamTls, host: &str) -> Result<Self, TlsFault> {
        let name = settings.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(TlsFault::Name)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsFault::Unusable)?;
        let builder = builder.with_root_certificates(roots(settings)?);
        let mut http1 = match &settings.client {
            Some(client) => {
                let unusable = |error: &str| TlsFault::Unusable(rustls::Error::General(error.to_owned()));
                let key = PrivateKeyDer::try_from(client.key.expose().clone()).map_err(unusable)?;
                builder.with_client_auth_cert(client.chain.certificates.clone(), key).map_err(TlsFault::Unusable)?
            }
            None => builder.with_no_client_auth(),
        };
        http1.alpn_protocols = vec![HTTP1.to_vec()];
        let mut either = http1.clone();
        either.alpn_protocols.insert(0, HTTP2.to_vec());
        Ok(Self { name, http1: Arc::new(http1), either: Arc::new(either) })
    }

    /// Shakes hands over `stream`.
    pub(super) async fn connect(&self, stream: TcpStream, offer: Offer) -> io::Result<TlsStream<TcpStream>> {
        let config = match offer {
            Offer::Http1 => &self.http1,
            Offer::Either => &self.either,
        };
        TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), stream).await
    }
}

/// Whether the server behind `stream` shows a certificate that is believed, for `portcullis doctor`. Waits as long as the
/// stream's own deadlines say.
///
/// # Errors
/// Why it is not believed, or what else goes wrong.
pub fn verify(settings: &UpstreamTls, host: &str, mut stream: BlockingStream) -> io::Result<()> {
    let tls = Tls::new(settings, host).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(tls.either, tls.name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(())
}

/// Whether the server chose HTTP/2.
pub(super) fn chose_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

fn roots(settings: &UpstreamTls) -> Result<Arc<RootCertStore>, TlsFault> {
    let Some(ca) = &settings.ca else { return system_roots() };
    let mut roots = RootCertStore::empty();
    for certificate in &ca.certificates {
        roots.add(certificate.clone()).map_err(TlsFault::Unusable)?;
    }
    Ok(Arc::new(roots))
}

/// The system's authorities: hundreds, which all servers share for as long as there is one that needs them.
fn system_roots() -> Result<Arc<RootCertStore>, TlsFault> {
    static SYSTEM: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());
    let mut shared = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = shared.upgrade() {
        return Ok(roots);
    }
    let mut roots = RootCertStore::empty();
    // One bad certificate among the system's is no reason to believe nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsFault::NoAuthorities);
    }
    let roots = Arc::new(roots);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(_) => f.write_str("no certificate can be for its name; set `tls.server_name`"),
            Self::NoAuthorities => {
                f.write_str("this machine has no certificates of authorities; install ca-certificates, or set `tls.ca`")
            }
            Self::Unusable(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for TlsFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Name(source) => Some(source),
            Self::Unusable(source) => Some(source),
            Self::NoAuthorities => None,
        }
    }
}

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";
