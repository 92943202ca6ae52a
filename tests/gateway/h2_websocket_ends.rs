//! How a WebSocket over HTTP/2 ends, what holds it back, and what is written down of it.

use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::common::frames::{GOAWAY, Raw, basic};
use crate::common::tunnel::{Tunnel, both, clear, open};
use crate::common::{Client, DEADLINE, Gateway, Recorder, Setup, Wire, get, post};
use crate::h2::{answer, request};
use crate::h2_websocket::{client_of, frames, next};
use crate::websocket::{blocking, echo_application};
use crate::websocket_farewell::farewell;

/// An application that agrees to every WebSocket, and then does as `serve` says.
fn agreeing(serve: impl Fn(Wire) + Send + Sync + 'static) -> Recorder {
    Recorder::serving(move |mut wire| {
        let Ok(head) = wire.read_head() else { return };
        let head = String::from_utf8(head).unwrap();
        let Some((_, after)) = head.split_once("sec-websocket-key: ") else {
            return wire.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        };
        let accept = derive_accept_key(after.split("\r\n").next().unwrap().as_bytes());
        wire.write(format!(
            "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        serve(wire);
    })
}

async fn start(setup: Setup) -> Arc<Gateway> {
    blocking(move || Arc::new(both(setup).start())).await
}

async fn to_end(tunnel: &mut Tunnel) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let read = tunnel.read_to_end(&mut all);
    tokio::time::timeout(DEADLINE, read).await.expect("an end in time").map(|_| all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_can_end_it_and_a_client_that_has_said_all_still_hears() {
    let app = agreeing(|mut wire| {
        if wire.read_exact(3).unwrap() == b"end" {
            return wire.write("the end");
        }
        let rest = wire.read_to_end().unwrap();
        wire.write([b"heard: ", &rest[..]].concat());
    });
    let gateway = start(Setup::new(app.address())).await;
    let mut client = client_of(clear(&gateway)).await;
    let (_, mut tunnel) = open(&mut client, "/public/a", &[]).await;
    tunnel.write_all(b"end").await.unwrap();
    assert_eq!(to_end(&mut tunnel).await.unwrap(), b"the end");
    let (_, mut tunnel) = open(&mut client, "/public/a", &[]).await;
    tunnel.write_all(b"all that there is").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(to_end(&mut tunnel).await.unwrap(), b"heard:  that there is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_it_off_or_is_gone_ends_it_at_the_application() {
    let (told, tells) = mpsc::channel();
    let told = Mutex::new(told);
    let app = agreeing(move |mut wire| {
        assert_eq!(wire.read_exact(5).unwrap(), b"hello");
        wire.write("hello");
        told.lock().unwrap().send(wire.read_to_end().map(|rest| rest.len())).unwrap();
    });
    let gateway = start(Setup::new(app.address())).await;
    for is_gone in [false, true] {
        let stream = tokio::net::TcpStream::connect(clear(&gateway)).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let (refused, _) = client.send_request(request("TRACE", "http://h/"), true).unwrap();
        answer(refused).await;
        let (_, mut tunnel) = open(&mut client, "/public/a", &[]).await;
        tunnel.write_all(b"hello").await.unwrap();
        tunnel.read_exact(&mut [0; 5]).await.unwrap();
        if is_gone {
            driving.abort();
        } else {
            tunnel.send.send_reset(h2::Reason::CANCEL);
        }
        let left = tells.recv_timeout(DEADLINE).expect("the application's connection ends");
        assert_eq!(left.unwrap(), 0, "gone: {is_gone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_what_allowed_it_and_the_connection_goes_on() {
    let (app, _) = echo_application().await;
    for way in ["log out", "disable", "reload"] {
        let gateway = start(Setup::new(app)).await;
        let inner = Arc::clone(&gateway);
        let cookie = blocking(move || inner.cookie("alice")).await;
        let mut client = client_of(clear(&gateway)).await;
        let (head, tunnel) = open(&mut client, "/socket", &[("cookie", cookie.clone())]).await;
        assert_eq!(head.status, 200);
        let (_, open_to_all) = open(&mut client, "/public/socket", &[]).await;
        let (mut socket, mut other) = (frames(tunnel).await, frames(open_to_all).await);
        next(&mut socket).await;
        next(&mut other).await;
        let inner = Arc::clone(&gateway);
        blocking(move || match way {
            "log out" => drop(inner.send(&post("/logout").cookie(&cookie))),
            "disable" => drop(inner.command(&["user", "disable", "alice"]).succeeded()),
            _ => {
                let routes = "[[routes]]\npath = \"/public/**\"\nallow = \"anyone\"\nupstream = \"app\"\n\
                              [[routes]]\npath = \"/**\"\nallow = { groups = [\"others\"] }\nupstream = \"app\"\n";
                drop(inner.reload(&both(Setup::new(app)).routes(routes)));
            }
        })
        .await;
        // The promise is a second; a busy machine gets two.
        let ends = tokio::time::timeout(Duration::from_secs(2), farewell(&mut socket, way)).await;
        assert_eq!(ends.unwrap_or_else(|_| panic!("{way}: still open")), CloseCode::Policy, "{way}");
        other.send(Message::text("still")).await.unwrap();
        assert_eq!(next(&mut other).await, Message::text("still"), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_does_not_end_it_although_the_connection_has_no_other_request() {
    let (app, _) = echo_application().await;
    let gateway = start(Setup::new(app).key("server.limits.idle_timeout", "\"1s\"")).await;
    let address = clear(&gateway);
    let mut client = client_of(address).await;
    let (_, tunnel) = open(&mut client, "/public/socket", &[]).await;
    let mut socket = frames(tunnel).await;
    next(&mut socket).await;
    // A connection that falls idle later is closed before.
    blocking(move || {
        let mut idle = Raw::connect(address, &[]);
        idle.request(1, &basic("TRACE", "h", "/"));
        assert_eq!(idle.outcome(1), "405");
        assert!(idle.next_of(GOAWAY, 0).is_some());
        while idle.next().is_some() {}
    })
    .await;
    socket.send(Message::text("still")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_read_holds_the_other_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let (told, tells) = mpsc::channel();
    let told = Mutex::new(told);
    // It sends until nothing more is taken, and reads nothing.
    let app = agreeing(move |wire| {
        let mut stream = wire.stream();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        loop {
            match stream.write(&[b'x'; 65536]) {
                Ok(count) => drop(counter.fetch_add(count, SeqCst)),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                    break;
                }
            }
            assert!(counter.load(SeqCst) < MOST, "nothing holds the application back");
        }
        told.lock().unwrap().send(()).unwrap();
        // Open until the client has gone.
        let mut wire = wire;
        while wire.read_some().is_ok_and(|bytes| !bytes.is_empty()) {}
    });
    let gateway = start(Setup::new(app.address())).await;
    let mut client = client_of(clear(&gateway)).await;
    let (_, mut tunnel) = open(&mut client, "/public/a", &[]).await;
    blocking(move || tells.recv_timeout(DEADLINE).expect("the application is held back")).await;
    // Nobody is harmed by it.
    let (other, _) = client.send_request(request("GET", "http://h/public/b"), true).unwrap();
    assert_eq!(answer(other).await.0.status, 200);
    let mut all = vec![0; sent.load(SeqCst)];
    tokio::time::timeout(DEADLINE, tunnel.read_exact(&mut all)).await.expect("in time").unwrap();
    assert!(all.iter().all(|byte| *byte == b'x'));

    let app = agreeing(|mut wire| {
        // Nothing is read while the client is there.
        let _: std::io::Result<()> = wire.stream().set_read_timeout(None);
        wire.write("ready");
        std::thread::park_timeout(DEADLINE);
    });
    let gateway = start(Setup::new(app.address())).await;
    let mut client = client_of(clear(&gateway)).await;
    let (_, mut tunnel) = open(&mut client, "/public/a", &[]).await;
    tunnel.read_exact(&mut [0; 5]).await.unwrap();
    let mut sent = 0;
    let piece = vec![b'y'; 65536];
    while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(500), tunnel.write(&piece)).await {
        sent += wrote.unwrap();
        assert!(sent < MOST, "nothing holds the client back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_counted_and_written_down_as_any_other_tunnel() {
    let (app, _) = echo_application().await;
    let gateway = start(Setup::new(app).key("admin.listen", "\"127.0.0.1:0\"").key("log.format", "\"json\"")).await;
    let mut client = client_of(clear(&gateway)).await;
    let (_, tunnel) = open(&mut client, "/public/socket", &[]).await;
    let mut socket = frames(tunnel).await;
    next(&mut socket).await;
    let inner = Arc::clone(&gateway);
    let counts = move || {
        let text = Client::of(inner.admin()).send(&get("/metrics")).text();
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        (of("portcullis_tunnels_open "), of("portcullis_tunnels_opened_total "))
    };
    let (counts, open_now) = blocking(move || {
        let now = counts();
        (counts, now)
    })
    .await;
    assert_eq!(open_now, (Some(1), Some(1)));
    drop(socket);
    blocking(move || crate::common::until("its end", || (counts() == (Some(0), Some(1))).then_some(()))).await;
    let line = gateway.access_line("the socket", |line| line["path"] == "/public/socket");
    assert_eq!((&line["method"], &line["status"], &line["decision"]), (&"GET".into(), &101.into(), &"permit".into()));
}

/// More than all buffers on the way hold together.
const MOST: usize = 64 << 20;
