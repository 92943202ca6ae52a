//! An application on a real HTTP library: HTTP/1.1 or HTTP/2, over TLS, a unix socket, or in the clear.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc as channel;
use tokio_rustls::TlsAcceptor;

use super::DEADLINE;

/// What the application listens on and speaks.
pub(crate) enum Over {
    H2c,
    Tls(Box<ServerConfig>),
    Unix(PathBuf),
}

/// A request as it came, whole.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) uri: http::Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// The body of an answer, frame by frame.
pub(crate) struct Frames(channel::UnboundedReceiver<Frame<Bytes>>);

/// The running application.
pub(crate) struct Application {
    /// Where it is, as a server of an upstream.
    pub(crate) server: String,
    connections: Arc<AtomicUsize>,
}

impl Application {
    /// An application of which every request is told to the receiver, and answered with its path.
    pub(crate) fn recording(over: Over) -> (Self, mpsc::Receiver<Asked>) {
        let (tell, told) = mpsc::channel();
        let app = Self::start(over, move |request| {
            let tell = tell.clone();
            async move {
                let asked = whole(request).await;
                let path = asked.uri.path().to_owned();
                drop(tell.send(asked));
                Response::new(text(&path))
            }
        });
        (app, told)
    }

    /// An application that answers as `handle` does.
    pub(crate) fn start<F, A>(over: Over, handle: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Frames>> + Send + 'static,
    {
        let (connections, handle) = (Arc::new(AtomicUsize::new(0)), Arc::new(handle));
        let counter = Arc::clone(&connections);
        let (ready, server) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listen(over, ready, counter, handle));
        });
        Self { server: server.recv_timeout(DEADLINE).expect("the application listens"), connections }
    }

    /// How often someone connected.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn listen<F, A>(over: Over, ready: mpsc::Sender<String>, connections: Arc<AtomicUsize>, handle: Arc<F>)
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Frames>> + Send + 'static,
{
    if let Over::Unix(path) = &over {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        ready.send(format!("unix:{}", path.display())).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, SeqCst);
            tokio::spawn(serve(stream, false, Arc::clone(&handle)));
        }
        return;
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (scheme, is_http2, acceptor) = match over {
        Over::Tls(config) => ("https", false, Some(TlsAcceptor::from(Arc::new(*config)))),
        Over::H2c => ("h2c", true, None),
        Over::Unix(_) => ("http", false, None),
    };
    ready.send(format!("{scheme}://{address}")).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, SeqCst);
        let handle = Arc::clone(&handle);
        match acceptor.clone() {
            None => drop(tokio::spawn(serve(stream, is_http2, handle))),
            Some(acceptor) => drop(tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, is_http2, handle).await;
                }
            })),
        }
    }
}

async fn serve<F, A>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool, handle: Arc<F>)
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Frames>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // A connection that the gateway drops is no failure of a test.
    if is_http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(server.serve_connection(TokioIo::new(stream), service).await);
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        drop(server.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
    }
}

/// A request with all of its body.
pub(crate) async fn whole(request: Request<Incoming>) -> Asked {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    Asked { version: head.version, uri: head.uri, headers: head.headers, body: body.to_bytes(), trailers }
}

/// A body that goes on as long as someone holds the sender.
pub(crate) fn frames() -> (channel::UnboundedSender<Frame<Bytes>>, Frames) {
    let (sender, receiver) = channel::unbounded_channel();
    (sender, Frames(receiver))
}

/// A body of one piece.
pub(crate) fn text(text: &str) -> Frames {
    let (sender, body) = frames();
    drop(sender.send(Frame::data(Bytes::from(text.to_owned()))));
    body
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

/// An authority that only a test believes.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // By its name a certificate is told from another's.
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("authority {}", NUMBER.fetch_add(1, SeqCst));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `name`, which holds until the end of `year`.
    pub(crate) fn sign(&self, name: &str, year: i32) -> Signed {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 12, 31));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// TLS with a certificate for `name`, and these protocols; `clients` signs those that are let in.
    pub(crate) fn server(
        &self,
        name: &str,
        year: i32,
        protocols: &[&str],
        clients: Option<&Self>,
    ) -> Box<ServerConfig> {
        use rustls::pki_types::pem::PemObject as _;
        let signed = self.sign(name, year);
        let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Box::new(config)
    }
}
