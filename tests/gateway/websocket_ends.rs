//! How WebSockets end, in the clear and over TLS: with the application, with the client, with the gateway, and not with a
//! reload. In raw bytes, of which the gateway makes nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::ClientConfig;

use crate::common::{DEADLINE, Gateway, Recorder, Setup};
use crate::tls::{Secure, client_config, issue};

/// An application that echoes, dies of the byte `!`, and tells how each socket ended.
fn echo() -> (Recorder, Receiver<&'static str>) {
    let (tell, ended) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = Recorder::serving(move |mut wire| {
        if wire.read_head().is_err() {
            return;
        }
        wire.write("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let how = loop {
            match wire.read_some() {
                Ok(bytes) if bytes.contains(&b'!') => break "died",
                Ok(bytes) if !bytes.is_empty() => wire.write(bytes),
                Ok(_) => break "closed",
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break "closed",
                Err(_) => break "left open",
            }
        };
        let _test_over = tell.lock().unwrap().send(how);
    });
    (app, ended)
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A gateway, and how clients come to it.
struct Stage {
    gateway: Gateway,
    tls: Option<Arc<ClientConfig>>,
    setup: Box<dyn Fn() -> Setup>,
}

fn stages(app: &Recorder) -> [Stage; 2] {
    let address = app.address();
    let clear = move || Setup::new(address).without_users();
    let secure = move || clear().key("server.tls", r#"[{ cert = "own.pem", key = "own.key" }]"#);
    let dir = secure().prepare();
    let root = issue(dir.path(), "own", &["app.example"]);
    let tls = Some(Arc::new(client_config(&[&root], &[])));
    [
        Stage { gateway: clear().start(), tls: None, setup: Box::new(clear) },
        Stage { gateway: Gateway::serve(dir), tls, setup: Box::new(secure) },
    ]
}

impl Stage {
    /// A WebSocket through which a word has passed both ways.
    fn open(&self) -> Box<dyn Stream> {
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(config) => Box::new(Secure::connect(self.gateway.address, config, "app.example").0),
            None => {
                let stream = TcpStream::connect(self.gateway.address).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                Box::new(stream)
            }
        };
        let head = "GET /public/s HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a head");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        says(&mut *stream, "first");
        stream
    }
}

fn says(stream: &mut dyn Stream, word: &str) {
    stream.write_all(word.as_bytes()).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).expect("the word comes back");
    assert_eq!(back, word.as_bytes());
}

/// Whether the stream ends within a second.
fn ends_at_once(stream: &mut dyn Stream) {
    let since = Instant::now();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{error}");
    }
    assert!(rest.is_empty() && since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn it_ends_with_the_application_and_with_the_client() {
    let (app, ended) = echo();
    for stage in stages(&app) {
        let mut socket = stage.open();
        socket.write_all(b"!").unwrap();
        assert_eq!(ended.recv_timeout(DEADLINE), Ok("died"));
        ends_at_once(&mut *socket);
        let socket = stage.open();
        drop(socket);
        assert_eq!(ended.recv_timeout(DEADLINE), Ok("closed"), "the application learns that the client has gone");
    }
}

#[test]
fn it_goes_on_over_reloads() {
    let (app, ended) = echo();
    for stage in stages(&app) {
        let mut socket = stage.open();
        for title in ["\"one\"", "\"two\""] {
            stage.gateway.reload(&(stage.setup)().key("login.title", title));
            says(&mut *socket, title);
        }
        drop(socket);
        assert_eq!(ended.recv_timeout(DEADLINE), Ok("closed"));
    }
}

#[test]
fn it_ends_with_the_gateway_which_waits_for_none() {
    let (app, ended) = echo();
    for mut stage in stages(&app) {
        let mut socket = stage.open();
        let since = Instant::now();
        stage.gateway.signal(Signal::TERM);
        ends_at_once(&mut *socket);
        assert_eq!(ended.recv_timeout(DEADLINE), Ok("closed"));
        stage.gateway.ended().succeeded();
        assert!(since.elapsed() < Duration::from_secs(5), "it waited for a WebSocket");
    }
}
