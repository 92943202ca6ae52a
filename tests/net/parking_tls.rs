//! The same over TLS, where a socket with bytes may hold no request and a request may lie in a record that is half there.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use portcullis::listen::conn;
use portcullis::listen::door::ClientSocket;
use portcullis::message::connection::{ConnInfo, Link, Stop};
use portcullis::message::respond;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, crypto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::advance;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::parking::{ROUNDS, send_around_parking, settle, stop_time};
use crate::support::limits;

/// A client that puts its bytes into records itself, so that they can be cut anywhere.
struct Client {
    stream: TcpStream,
    session: ClientConnection,
}

impl Client {
    /// `text` in records.
    fn sealed(&mut self, text: &str) -> Vec<u8> {
        self.session.writer().write_all(text.as_bytes()).unwrap();
        let mut sealed = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut sealed).unwrap();
        }
        sealed
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads until `end` has come; `None`: the connection ended before, in order.
    async fn until(&mut self, end: &str) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.session.reader().read_to_string(&mut text) {
                Ok(_) => return None,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if text.ends_with(end) {
                return Some(text);
            }
            let mut room = [0; 4096];
            let count = self.stream.read(&mut room).await.unwrap();
            assert!(count > 0, "closed without a word after {text:?}");
            let mut read = &room[..count];
            while !read.is_empty() {
                self.session.read_tls(&mut read).unwrap();
                self.session.process_new_packets().unwrap();
            }
        }
    }
}

/// A client, its connection's link, and what stops the other side, which answers each path with itself.
async fn start() -> (Client, Arc<Mutex<Option<Arc<Link>>>>, watch::Sender<Stop>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let server =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(Stop::Run);
    let seen = Arc::new(Mutex::new(None));
    let last = Arc::clone(&seen);
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(server)).accept(ClientSocket::Tcp(stream)).await.unwrap();
        let service = |request: Request<Incoming>, link: Arc<Link>| {
            *last.lock().unwrap() = Some(link);
            async move { respond::full(StatusCode::OK, "text/plain", request.uri().path().to_owned()) }
        };
        let info = Arc::new(ConnInfo::plain(peer, address));
        conn::serve(Box::new(stream), info, &limits(), service, |_, _| {}, stopped).await;
    });
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let (stream, session) = stream.into_inner();
    (Client { stream, session }, seen, stop)
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[tokio::test]
async fn no_record_is_lost_around_the_moment_of_parking() {
    let (mut client, link, stop) = start().await;
    let _stopped = stop_time();
    let first = client.sealed(&request("/first"));
    client.send(&first).await;
    client.until("/first").await.unwrap();
    let mut parked = 0;
    for round in 0..ROUNDS {
        settle().await;
        let path = format!("/{round}");
        let sealed = client.sealed(&request(&path));
        send_around_parking(round, &sealed, async |bytes| client.send(bytes).await).await;
        let answer = client.until(&path).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "round {round}: {answer}");
        parked = link.lock().unwrap().as_ref().unwrap().parkings();
    }
    assert!(parked > ROUNDS as u32 / 4, "{parked} of {ROUNDS} times parked");
    // The end is one of TLS too.
    settle().await;
    advance(Duration::from_secs(2)).await;
    settle().await;
    assert!(link.lock().unwrap().as_ref().unwrap().parkings() > parked);
    stop.send(Stop::Drain).unwrap();
    assert_eq!(client.until("anything").await, None);
}
