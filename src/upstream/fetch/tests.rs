//! Documents from servers that are good, false, slow or full of themselves, over real sockets and real TLS.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const LIMITS: Limits = Limits { bytes: 1000, time: Duration::from_secs(5) };

/// A server that says `answer` to everyone, and its address.
async fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _request = stream.read(&mut head).await;
            let _client_may_be_gone = stream.write_all(answer).await;
        }
    });
    format!("http://{address}/keys?x=y")
}

async fn of(answer: &'static [u8]) -> Result<Document, FetchError> {
    get(&server(answer).await, None, LIMITS).await
}

#[tokio::test]
async fn a_document_comes_whole_or_not_at_all() {
    let good = of(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!((&good.body[..], good.max_age), (&b"hi"[..], Some(Duration::from_secs(60))));
    let chunked = of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(&chunked.body[..], b"hi");
    let trailers =
        of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nX: y\r\n\r\n").await.unwrap();
    assert_eq!(&trailers.body[..], b"hi");
    let hinted =
        of(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!(&hinted.body[..], b"hi");
    let upgraded = of(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    assert!(upgraded.is_err(), "{upgraded:?}");
    let two = of(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi").await;
    assert!(matches!(two, Err(FetchError::Http(_))), "{two:?}");
    let cut = of(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi").await;
    assert!(matches!(cut, Err(FetchError::Http(_))), "{cut:?}");
    let large = of(&[b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 1001]].concat().leak()[..]).await;
    assert!(matches!(large, Err(FetchError::TooLarge { most: 1000 })), "{large:?}");
    let moved = of(b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(moved, Err(FetchError::Redirected { status }) if status == 301), "{moved:?}");
    let missing = of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(missing, Err(FetchError::Status { status }) if status == 404), "{missing:?}");
    let other = of(b"+OK POP3 ready\r\n").await;
    assert!(matches!(other, Err(FetchError::Http(_))), "{other:?}");
    let head = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 100_000], b"\r\n\r\n"].concat();
    assert!(matches!(of(head.leak()).await, Err(FetchError::Http(_))), "a head without end");
    assert!(matches!(get("http://127.0.0.1:1/", None, LIMITS).await, Err(FetchError::Connect(_))));
    assert!(matches!(get("nowhere", None, LIMITS).await, Err(FetchError::NotAUrl)));
}

#[tokio::test]
async fn a_server_that_says_nothing_or_never_ends_is_given_up() {
    let limits = Limits { time: Duration::from_millis(50), ..LIMITS };
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serve => unreachable!(),
            got = get(&url, None, limits) => assert!(matches!(got, Err(FetchError::TimedOut { .. })), "{got:?}"),
        }
    }
}

/// An authority and a server's certificate of its own for `name`, both as files' text would be.
fn certified(name: &str) -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (authority.pem(), config)
}

async fn tls_server(config: ServerConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 1024];
            let _request = stream.read(&mut head).await;
            let _client_may_be_gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
            let _closed = stream.shutdown().await;
        }
    });
    format!("https://localhost:{port}/")
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate_only() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (authority, config) = certified("localhost");
    let (ca, url) = (file("ca.pem", &authority), tls_server(config).await);
    assert_eq!(&get(&url, Some(&ca), LIMITS).await.unwrap().body[..], b"hi");
    assert!(matches!(get(&url, None, LIMITS).await, Err(FetchError::Connect(_))), "nobody knows its authority");
    let (other, config) = certified("elsewhere.example");
    let (other, elsewhere) = (file("other.pem", &other), tls_server(config).await);
    assert!(matches!(get(&url, Some(&other), LIMITS).await, Err(FetchError::Connect(_))), "another authority");
    assert!(matches!(get(&elsewhere, Some(&other), LIMITS).await, Err(FetchError::Connect(_))), "another name");
    let plain = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.replace("http:", "https:");
    assert!(matches!(get(&plain, Some(&ca), LIMITS).await, Err(FetchError::Connect(_))), "no TLS at all");
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    assert!(matches!(get(&url, Some(&broken), LIMITS).await, Err(FetchError::Certificates { .. })));
    let empty = file("empty.pem", "");
    assert!(matches!(get(&url, Some(&empty), LIMITS).await, Err(FetchError::Certificates { .. })));
}

#[test]
fn says_how_long_a_document_is_good_for() {
    let of = |lines: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        max_age(&headers).map(|age| age.as_secs())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&["public, max-age=22222, must-revalidate"]), Some(22_222));
    assert_eq!(of(&["Max-Age = \"60\""]), Some(60));
    assert_eq!(of(&["max-age=60", "no-store"]), Some(0));
    assert_eq!(of(&["max-age=60, max-age=1"]), Some(60));
    assert_eq!(of(&["max-age=-1"]), None);
    assert_eq!(of(&["s-maxage=9"]), None);
    let aged = |age: &'static str| {
        let fields = [(CACHE_CONTROL, "max-age=600".parse().unwrap()), (AGE, age.parse().unwrap())];
        max_age(&fields.into_iter().collect()).map(|age| age.as_secs())
    };
    assert_eq!((aged("500"), aged("601"), aged("-1"), aged("x")), (Some(100), Some(0), Some(600), Some(600)));
}
