//! What a client of a WebSocket is told when the gateway ends it: 1001 when the gateway goes, 1008 when it is no longer
//! allowed; and nothing where a frame of ours would fall into one of the application's.

use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, Stream, StreamExt as _};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::common::tunnel::{both, clear, open};
use crate::common::{DEADLINE, Gateway, Recorder, Setup, Wire, until};
use crate::h2_websocket::client_of;
use crate::websocket::{UPGRADE, blocking, echo_application};

trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

/// A gateway, and how its clients come to it.
struct Stage {
    over: &'static str,
    gateway: Gateway,
    root: Option<CertificateDer<'static>>,
    setup: Box<dyn Fn() -> Setup + Send>,
}

fn stages(app: std::net::SocketAddr) -> Vec<Stage> {
    let plain = move || Setup::new(app).without_users();
    let secure = move || plain().key("server.tls", r#"[{ cert = "own.pem", key = "own.key" }]"#);
    let http2 = move || both(plain());
    let dir = secure().prepare();
    let root = Some(crate::tls::issue(dir.path(), "own", &["app.example"]));
    vec![
        Stage { over: "HTTP/1.1", gateway: plain().start(), root: None, setup: Box::new(plain) },
        Stage { over: "TLS", gateway: Gateway::serve(dir), root, setup: Box::new(secure) },
        Stage { over: "HTTP/2", gateway: http2().start(), root: None, setup: Box::new(http2) },
    ]
}

impl Stage {
    /// A WebSocket through which a word has passed both ways.
    async fn socket(&self) -> WebSocketStream<Box<dyn Carrier>> {
        let mut socket = if self.over == "HTTP/2" {
            let mut client = client_of(clear(&self.gateway)).await;
            let (head, tunnel) = open(&mut client, "/public/socket", &[]).await;
            assert_eq!(head.status, 200);
            WebSocketStream::from_raw_socket(Box::new(tunnel) as Box<dyn Carrier>, Role::Client, None).await
        } else {
            let stream = tokio::net::TcpStream::connect(self.gateway.address).await.unwrap();
            let stream: Box<dyn Carrier> = match &self.root {
                Some(root) => {
                    let config = Arc::new(crate::tls::client_config(&[root], &["http/1.1"]));
                    let name = "app.example".try_into().unwrap();
                    Box::new(tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap())
                }
                None => Box::new(stream),
            };
            tokio_tungstenite::client_async("ws://app.example/public/socket", stream).await.unwrap().0
        };
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("||"));
        for message in [Message::text("word"), Message::binary(vec![7; 300_000])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket
    }
}

/// The code that ends the stream, behind which there is a clean end and nothing else.
pub(crate) async fn farewell(
    socket: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    what: &str,
) -> CloseCode {
    let end = async {
        let code = match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => frame.code,
            other => panic!("{what}: no farewell, but {other:?}"),
        };
        match socket.next().await {
            None => code,
            Some(other) => panic!("{what}: behind the farewell: {other:?}"),
        }
    };
    tokio::time::timeout(DEADLINE, end).await.expect("a farewell in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_goes_says_so() {
    let (app, _) = echo_application().await;
    for mut stage in blocking(move || stages(app)).await {
        let mut socket = stage.socket().await;
        stage.gateway.signal(Signal::TERM);
        assert_eq!(farewell(&mut socket, stage.over).await, CloseCode::Away, "{}", stage.over);
        blocking(move || drop(stage.gateway.ended().succeeded())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_allow_it_no_longer_say_so() {
    let (app, _) = echo_application().await;
    for stage in blocking(move || stages(app)).await {
        let (mut socket, over) = (stage.socket().await, stage.over);
        let stage = blocking(move || {
            let routes = "[[routes]]\npath = \"/**\"\nallow = \"nobody\"\nupstream = \"app\"\n";
            stage.gateway.reload(&(stage.setup)().routes(routes)).succeeded();
            stage
        })
        .await;
        assert_eq!(farewell(&mut socket, over).await, CloseCode::Policy, "{over}");
        drop(stage);
    }
}

/// An application that sends its upgrade and then what it is told to.
fn puppet() -> (Recorder, Sender<&'static [u8]>) {
    let (tell, told) = mpsc::channel::<&'static [u8]>();
    let told: Mutex<Receiver<_>> = Mutex::new(told);
    let app = Recorder::serving(move |mut wire| {
        if wire.read_head().is_err() {
            return;
        }
        wire.write("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        while let Ok(bytes) = told.lock().unwrap().recv_timeout(DEADLINE) {
            wire.write(bytes);
        }
    });
    (app, tell)
}

/// A client that has got the first half of a frame.
fn amid_a_frame(gateway: &Gateway, tell: &Sender<&'static [u8]>) -> Wire {
    let mut wire = Wire::connect(gateway.address);
    wire.write(UPGRADE);
    wire.read_head().unwrap();
    tell.send(b"\x81\x04ha").unwrap();
    assert_eq!(wire.read_exact(4).unwrap(), b"\x81\x04ha");
    wire
}

#[test]
fn a_gateway_that_goes_waits_for_the_end_of_a_frame_and_lets_no_other_begin() {
    let (app, tell) = puppet();
    let gateway = Setup::new(app.address()).without_users().start();
    let mut wire = amid_a_frame(&gateway, &tell);
    gateway.signal(Signal::TERM);
    until("the drain", || TcpStream::connect(gateway.address).is_err().then_some(()));
    tell.send(b"lf\x81\x03new").unwrap();
    assert_eq!(wire.read_to_end().unwrap(), b"lf\x88\x0c\x03\xe9going away");
}

#[test]
fn a_frame_that_does_not_end_is_cut() {
    let (app, tell) = puppet();
    let mut gateway = Setup::new(app.address()).without_users().start();
    let mut wire = amid_a_frame(&gateway, &tell);
    gateway.signal(Signal::TERM);
    assert_eq!(wire.read_to_end().unwrap(), b"");
    gateway.ended().succeeded();
}

#[test]
fn what_is_no_longer_allowed_is_cut_amid_a_frame_too() {
    let (app, tell) = puppet();
    let setup = || Setup::new(app.address()).without_users();
    let gateway = setup().start();
    let mut wire = amid_a_frame(&gateway, &tell);
    let routes = "[[routes]]\npath = \"/**\"\nallow = \"nobody\"\nupstream = \"app\"\n";
    gateway.reload(&setup().routes(routes)).succeeded();
    assert_eq!(wire.read_to_end().unwrap(), b"", "neither the rest of the frame nor a frame within it");
}

#[test]
fn an_application_that_has_said_its_own_farewell_gets_none_of_ours() {
    let (app, tell) = puppet();
    let mut gateway = Setup::new(app.address()).without_users().start();
    let mut wire = Wire::connect(gateway.address);
    wire.write(UPGRADE);
    wire.read_head().unwrap();
    tell.send(b"\x88\x02\x03\xe8").unwrap();
    assert_eq!(wire.read_exact(4).unwrap(), b"\x88\x02\x03\xe8");
    gateway.signal(Signal::TERM);
    assert_eq!(wire.read_to_end().unwrap(), b"");
    gateway.ended().succeeded();
}
