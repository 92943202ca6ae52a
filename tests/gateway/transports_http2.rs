//! Applications that speak HTTP/2 in the clear: shared connections, streams and trailers both ways, and what goes wrong.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use http::{HeaderMap, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt as _;

use crate::common::application::{Application, Over, frames, text, whole};
use crate::common::{DEADLINE, Gateway, Recorder, Setup, Wire, get, post, until};

fn setup(server: &str, timeouts: &str) -> Setup {
    Setup::new("127.0.0.1:9".parse().unwrap())
        .key("upstreams.grpc.servers", &format!("[\"{server}\"]"))
        .key("upstreams.grpc.timeouts", &format!("{{ {timeouts} }}"))
        .key("upstreams.app", "\"http://127.0.0.1:9\"")
        .routes("[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"grpc\"\n")
}

fn before(server: &str, timeouts: &str) -> Gateway {
    setup(server, timeouts).start()
}

fn trailers(fields: &[(&'static str, &'static str)]) -> Frame<Bytes> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    Frame::trailers(map)
}

/// An application of raw HTTP/2: `serve` has the number of each connection, and its requests.
fn raw<F, A>(serve: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(usize, h2::server::Connection<tokio::net::TcpStream, Bytes>) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("h2c://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, SeqCst) + 1;
                if let Ok(connection) = h2::server::handshake(stream).await {
                    tokio::spawn(serve(number, connection));
                }
            }
        });
    });
    (server, connections)
}

#[test]
fn a_call_passes_with_its_trailers_both_ways() {
    let (tell, told) = mpsc::channel();
    let app = Application::start(Over::H2c, move |request| {
        let tell = tell.clone();
        async move {
            drop(tell.send(whole(request).await));
            let (sender, body) = frames();
            sender.send(Frame::data(Bytes::from_static(b"answer"))).unwrap();
            let last = [("grpc-status", "0"), ("x-forwarded-user", "mallory"), ("set-cookie", "portcullis=x")];
            sender.send(trailers(&last)).unwrap();
            Response::builder().header("trailer", "grpc-status").body(body).unwrap()
        }
    });
    let gateway = before(&app.server, "");
    let mut wire = Wire::connect(gateway.address);
    wire.write(
        "POST /pkg.Service/Call HTTP/1.1\r\nHost: grpc.example.com\r\nTE: trailers\r\nConnection: TE\r\n\
         Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, x-forwarded-user\r\n\r\n\
         4\r\ncall\r\n0\r\nX-Sum: 5\r\nX-Forwarded-User: mallory\r\n\r\n",
    );
    let answer = wire.read_answer("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "answer"));
    assert_eq!(answer.trailers, ["grpc-status: 0"]);
    let seen = told.recv_timeout(DEADLINE).unwrap();
    assert_eq!((seen.version, &seen.body[..]), (Version::HTTP_2, &b"call"[..]));
    assert_eq!(seen.uri.to_string(), "http://grpc.example.com/pkg.Service/Call");
    assert_eq!(
        (&seen.headers["te"], &seen.headers["content-type"]),
        (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
    );
    for gone in ["host", "connection", "transfer-encoding"] {
        assert!(!seen.headers.contains_key(gone), "{gone}: {:?}", seen.headers);
    }
    let names: Vec<_> = seen.trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-sum"]);
}

#[test]
fn an_answer_of_trailers_only_is_whole() {
    let app = Application::start(Over::H2c, |request| async move {
        drop(whole(request).await);
        let (_, body) = frames();
        Response::builder().header("grpc-status", "12").body(body).unwrap()
    });
    let gateway = before(&app.server, "");
    let answer = gateway.send(&post("/x").body("application/grpc", "call"));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("12")));
}

#[test]
fn both_sides_stream_at_once() {
    let app = Application::start(Over::H2c, |request| async move {
        let (sender, body) = frames();
        let mut incoming = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = incoming.frame().await {
                if let Ok(data) = frame.into_data() {
                    drop(sender.send(Frame::data(data)));
                }
            }
        });
        Response::new(body)
    });
    let gateway = before(&app.server, "");
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = wire.read_answer_head().expect("a head before the body's end");
    assert_eq!(head.status, 200);
    for word in ["one", "two", "three"] {
        wire.write(format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(wire.read_chunk(&mut Vec::new()).unwrap(), word.as_bytes());
    }
    wire.write("0\r\n\r\n");
    assert!(wire.read_chunk(&mut Vec::new()).unwrap().is_empty());
}

#[test]
fn many_requests_share_a_connection_and_an_unused_one_ends() {
    let (arrived, all) = mpsc::channel();
    let go_on = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go_on);
    let app = Application::start(Over::H2c, move |request| {
        let (arrived, gate) = (arrived.clone(), Arc::clone(&gate));
        async move {
            drop(whole(request).await);
            let _ = arrived.send(());
            drop(gate.acquire().await);
            Response::new(text("ok"))
        }
    });
    let gateway = setup(&app.server, "idle = \"300ms\"").key("admin.listen", "\"127.0.0.1:0\"").start();
    let mut wires: Vec<_> = (0..50).map(|_| Wire::connect(gateway.address)).collect();
    for wire in &mut wires {
        wire.write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for _ in 0..50 {
        all.recv_timeout(DEADLINE).expect("all are there at once");
    }
    assert_eq!(app.connections(), 1);
    go_on.add_permits(1);
    for wire in &mut wires {
        assert_eq!(wire.read_answer("GET").unwrap().text(), "ok");
    }
    let open = || {
        let metrics = crate::common::Client::of(gateway.admin()).send(&get("/metrics")).text();
        metrics.contains("portcullis_upstream_connections_open{upstream=\"grpc\"} 0").then_some(())
    };
    until("the unused connection to end", open);
    gateway.send(&get("/x")).assert_status(200, "a new one");
    assert_eq!(app.connections(), 2);
}

#[test]
fn more_than_a_connection_takes_go_over_another() {
    let (arrived, all) = mpsc::channel();
    let app = Application::start(Over::H2c, move |request| {
        let arrived = arrived.clone();
        async move {
            drop(whole(request).await);
            let _ = arrived.send(());
            std::future::pending().await
        }
    });
    let gateway = before(&app.server, "");
    let mut wires: Vec<_> = (0..120).map(|_| Wire::connect(gateway.address)).collect();
    for wire in &mut wires {
        wire.write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for _ in 0..120 {
        all.recv_timeout(DEADLINE).expect("all are there at once");
    }
    assert_eq!(app.connections(), 2);
}

#[test]
fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let (tell, told) = mpsc::channel();
    let app = Application::start(Over::H2c, move |request| {
        let tell = tell.clone();
        async move {
            if request.uri().path() == "/other" {
                return Response::new(text("fine"));
            }
            let (sender, body) = frames();
            sender.send(Frame::data(Bytes::from_static(b"first"))).unwrap();
            tokio::spawn(async move {
                sender.closed().await;
                let _ = tell.send(());
            });
            Response::new(body)
        }
    });
    let gateway = before(&app.server, "");
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.read_answer_head().unwrap();
    assert_eq!(wire.read_chunk(&mut Vec::new()).unwrap(), b"first");
    drop(wire);
    told.recv_timeout(DEADLINE).expect("the stream is reset");
    gateway.send(&get("/other")).assert_status(200, "the connection goes on");
    assert_eq!(app.connections(), 1);
}

/// Frames of RFC 9113 as a server sends them: empty SETTINGS, an answer 200 on the first stream, a GOAWAY that names no
/// stream, a RST_STREAM of the first with REFUSED_STREAM.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const OK: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x01\x88";
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
const REFUSED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";

/// The same answer on the second stream of a connection.
const OK_AGAIN: &[u8] = b"\0\0\x01\x01\x05\0\0\0\x03\x88";

/// Reads up to a request: HEADERS with END_STREAM and END_HEADERS.
fn read_request(wire: &mut Wire) -> bool {
    let mut read = Vec::new();
    while !read.windows(2).any(|bytes| bytes == b"\x01\x05") {
        match wire.read_some() {
            Ok(more) if !more.is_empty() => read.extend(more),
            _ => return false,
        }
    }
    true
}

#[test]
fn what_a_server_never_looked_at_is_sent_once_more_whatever_its_method() {
    for first in [GOAWAY, REFUSED] {
        let connections = AtomicUsize::new(0);
        let app = Recorder::serving(move |mut wire| {
            let is_first = connections.fetch_add(1, SeqCst) == 0;
            wire.write(SETTINGS);
            assert!(read_request(&mut wire));
            wire.write(if is_first { first } else { OK });
            if read_request(&mut wire) {
                wire.write(OK_AGAIN);
                drop(wire.read_to_end());
            }
        });
        let gateway = before(&format!("h2c://{}", app.address()), "response = \"5s\"");
        gateway.send(&crate::common::Request::new("DELETE", "/x")).assert_status(200, "sent anew");
        assert_eq!(app.connections(), if first == GOAWAY { 2 } else { 1 });
    }
}

#[test]
fn what_was_reset_after_a_look_is_not_sent_again() {
    let (server, _) = raw(|_, mut connection| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_ne!(request.uri().path(), "/again");
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    });
    before(&server, "").send(&get("/x")).assert_status(502, "reset");
}

#[test]
fn a_safe_request_that_meets_the_end_of_a_used_connection_is_sent_once_more() {
    let (server, connections) = raw(|number, mut connection| async move {
        let mut streams = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            streams += 1;
            if (number, streams) == (1, 2) {
                return;
            }
            drop(respond.send_response(Response::new(()), true));
        }
    });
    let gateway = before(&server, "");
    gateway.send(&get("/one")).assert_status(200, "the first");
    gateway.send(&get("/two")).assert_status(200, "over another connection");
    assert_eq!(connections.load(SeqCst), 2);
}

#[test]
fn an_early_answer_is_seen_while_the_body_is_still_sent() {
    let app =
        Application::start(
            Over::H2c,
            |_| async move { Response::builder().status(413).body(text("too much")).unwrap() },
        );
    let gateway = before(&app.server, "");
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nthe beginning");
    let answer = wire.read_answer("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "too much"));
}

#[test]
fn what_is_no_http_2_is_502_and_silence_504() {
    for junk in [
        &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..],
        b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x02\x88",
        b"",
    ] {
        let app = Recorder::serving(move |mut wire| {
            drop(wire.try_write(junk));
            if !junk.is_empty() {
                drop(wire.read_to_end());
            }
        });
        before(&format!("h2c://{}", app.address()), "response = \"5s\"").send(&get("/x")).assert_status(502, "junk");
    }
    let silent = Recorder::serving(|mut wire| drop(wire.read_to_end()));
    let gateway = before(&format!("h2c://{}", silent.address()), "response = \"1100ms\"");
    gateway.send(&get("/x")).assert_status(504, "silence");
    gateway.send(&get("/x")).assert_status(504, "silence again");
    assert_eq!(silent.connections(), 2, "a connection on which nothing came takes no more requests");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("h2c://{}", nobody.local_addr().unwrap());
    drop(nobody);
    before(&server, "").send(&get("/x")).assert_status(502, "nobody listens");
}

#[test]
fn heads_that_are_too_large_or_malformed_are_502() {
    let app = Application::start(Over::H2c, |request| async move {
        let answer = Response::builder();
        match request.uri().path() {
            "/large" => answer.header("x-a", "a".repeat(100_000)),
            _ => answer.header("content-length", "5"),
        }
        .body(text("hello, and more"))
        .unwrap()
    });
    let gateway = before(&app.server, "");
    gateway.send(&get("/large")).assert_status(502, "100 KB of head");
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /length HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = wire.read_answer("GET");
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 502), "a length that is not the body's");
}

#[test]
fn a_cut_body_is_never_passed_on_as_whole() {
    let (server, _) = raw(|_, mut connection| async move {
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                body.send_reset(h2::Reason::INTERNAL_ERROR);
            });
        }
    });
    let gateway = before(&server, "");
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!wire.read_answer("GET").is_ok_and(|answer| answer.status == 200), "half as whole");
}

#[test]
fn a_body_that_a_client_breaks_off_is_not_whole_to_the_application() {
    let (tell, told) = mpsc::channel();
    let app = Application::start(Over::H2c, move |request| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(request.into_body().collect().await.is_ok());
            Response::new(text("ok"))
        }
    });
    let gateway = before(&app.server, "");
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    wire.write("nonsense\r\n");
    assert_eq!(wire.read_answer("POST").unwrap().status, 400);
    assert!(!told.recv_timeout(DEADLINE).unwrap());
}

#[test]
fn requests_in_progress_are_bounded_as_with_http_1() {
    let app = Application::start(Over::H2c, |_| async move { std::future::pending().await });
    let limits = "{ connections = 2, idle = 1, pending = 0 }";
    let gateway = setup(&app.server, "").key("upstreams.grpc.limits", limits).start();
    let mut waiting: Vec<_> = (0..3).map(|_| Wire::connect(gateway.address)).collect();
    for wire in &mut waiting {
        wire.write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let (found, refused) = mpsc::channel();
    for mut wire in waiting {
        let found = found.clone();
        std::thread::spawn(move || drop(found.send(wire.read_answer("GET").map(|answer| answer.status))));
    }
    assert_eq!(refused.recv_timeout(DEADLINE).unwrap().unwrap(), 503);
}

#[test]
fn a_websocket_is_asked_for_without_its_upgrade() {
    let (app, asked) = Application::recording(Over::H2c);
    let gateway = before(&app.server, "");
    let request = get("/x").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let request = request.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").header("Sec-WebSocket-Version", "13");
    gateway.send(&request).assert_status(200, "an ordinary answer");
    let seen = asked.recv_timeout(DEADLINE).unwrap();
    assert!(!seen.headers.contains_key("upgrade") && !seen.headers.contains_key("connection"));
}
