//! Spans to a collector over real TLS, which is believed by its own authority only.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A collector for `localhost` that takes everything, its port, and the certificate of its authority.
async fn collector() -> (u16, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not believe it breaks off.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            assert!(head[..count].starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            let _closed_as_well = stream.shutdown().await;
        }
    });
    (port, authority.pem())
}

#[tokio::test]
async fn a_collector_is_reached_over_tls_if_its_authority_is_known() {
    let (port, authority) = collector().await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority).unwrap();
    let stranger = KeyPair::generate().unwrap();
    let other = directory.path().join("other.pem");
    let of_stranger = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&stranger).unwrap();
    std::fs::write(&other, of_stranger.pem()).unwrap();
    for (ca, taken) in [(&ca, 2), (&other, 0)] {
        let collector = HostPort { host: "localhost".to_owned(), port };
        let config =
            config::Trace { collector, https: true, ca: Some(ca.clone()), sample: 1.0, service: "s".to_owned() };
        let metrics = Arc::new(Metrics::new(0));
        let mut exporter = Exporter { config, metrics: Arc::clone(&metrics), is_failing: false };
        exporter.send(vec![json!({}), json!({})]).await;
        let dropped: u64 = metrics.spans_dropped.values().map(|(_, count)| count).sum();
        assert_eq!((metrics.spans_exported.value(), dropped), (taken, 2 - taken));
        assert_eq!(exporter.is_failing, taken == 0);
    }
}
