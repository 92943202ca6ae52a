//! HTTP/2 as ordinary clients speak it: over TLS by ALPN, or in the clear where a listener says so.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Version};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::common::frames::{DATA, END_STREAM, GOAWAY, HEADERS, Raw, basic, literals};
use crate::common::recorder::reply;
use crate::common::{Answer, DEADLINE, Gateway, Recorder, Setup};
use crate::tls::{client_config, issue};

/// The fields of a request as they are written.
type Fields<'a> = Vec<(&'static str, &'a [u8])>;

/// A gateway that speaks HTTP/2 in the clear.
pub(crate) fn clear(app: &Recorder) -> Setup {
    Setup::new(app.address()).key("server.listen", r#"[{ address = "127.0.0.1:0", h2c = true }]"#)
}

pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

pub(crate) fn request(method: &str, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).version(Version::HTTP_2).body(()).unwrap()
}

/// The answer's head, body and trailers.
pub(crate) async fn answer(
    response: h2::client::ResponseFuture,
) -> (http::response::Parts, Vec<u8>, Option<HeaderMap>) {
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend(data);
    }
    (head, all, body.trailers().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_chosen_in_the_handshake_and_the_application_hears_of_none_of_it() {
    let app = Recorder::answering(|request| {
        let fields = "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-App: yes\r\n";
        Answer::Keep(reply("200 OK", fields, &request.line()))
    });
    let tls = r#"[{ cert = "first.pem", key = "first.key" }]"#;
    let setup = Setup::new(app.address()).key("server.tls", tls).key("server.hsts", "\"1d\"");
    let setup = setup.key("server.public_url", r#""https://app.example""#);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
    let root = issue(dir.path(), "first", &["app.example"]);
    let gateway = Gateway::serve(dir);
    let connector = TlsConnector::from(Arc::new(client_config(&[&root], &["h2", "http/1.1"])));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let stream = connector.connect(ServerName::try_from("app.example").unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut asked = request("GET", "https://app.example/public/a?b=c");
    for crumb in ["one=1", "two=2"] {
        asked.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    asked.headers_mut().insert("x-forwarded-user", "root".parse().unwrap());
    asked.headers_mut().insert("x_forwarded_user", "root".parse().unwrap());
    let (first, _) = client.send_request(asked, true).unwrap();
    let (second, _) = client.send_request(request("GET", "https://app.example/private"), true).unwrap();
    let (head, body, _) = answer(first).await;
    assert_eq!((head.status.as_u16(), head.headers["x-app"].as_bytes()), (200, &b"yes"[..]));
    assert_eq!(body, b"GET /public/a?b=c HTTP/1.1");
    assert_eq!(head.headers["strict-transport-security"], "max-age=86400");
    for name in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert!(!head.headers.contains_key(name), "{name} is for one hop of HTTP/1.1");
    }
    let (head, ..) = answer(second).await;
    assert_eq!(head.status.as_u16(), 401);
    let seen = app.only("one of them may pass");
    assert_eq!(seen.all("host"), ["app.example"]);
    assert_eq!(seen.all("cookie"), ["one=1; two=2"]);
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert!(seen.taken_for("x-forwarded-user").is_empty(), "the names are stripped in either spelling");
    // A client that knows HTTP/1.1 only has it.
    let connector = TlsConnector::from(Arc::new(client_config(&[&root], &["http/1.1"])));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let stream = connector.connect(ServerName::try_from("app.example").unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_pass_both_ways_without_names_of_ours() {
    let app = Recorder::answering(|_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status, X-Forwarded-User\r\n\r\n";
        Answer::Keep(format!("{head}5\r\nhello\r\n0\r\ngrpc-status: 0\r\nX-Sum: 7\r\n\r\n").into_bytes())
    });
    let gateway = clear(&app).start();
    let mut client = connect(gateway.address).await;
    let mut asked = request("POST", "http://h/public/a");
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, mut body) = client.send_request(asked, false).unwrap();
    body.send_data(Bytes::from(vec![b'x'; 3000]), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "9".parse().unwrap());
    trailers.insert("x-forwarded-user", "root".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    let (head, body, trailers) = answer(response).await;
    assert_eq!((head.status.as_u16(), body.as_slice()), (200, &b"hello"[..]));
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    let seen = app.only("the upload");
    assert_eq!((seen.body.len(), seen.complete), (3000, true));
    assert!(
        !seen.trailers.iter().any(|line| line.to_lowercase().starts_with("x-forwarded-user")),
        "{:?}",
        seen.trailers
    );
}

#[test]
fn a_request_has_one_host_one_path_and_a_method_that_is_one() {
    let app = Recorder::start();
    let gateway = clear(&app).start();
    let with = |fields: Vec<(&'static str, &'static [u8])>, more: &[(&'static str, &'static [u8])]| {
        [fields, more.to_vec()].concat()
    };
    let get = |authority: &'static str, path: &'static str| basic("GET", authority, path);
    let cases: Vec<(&str, Fields<'_>, &[&str])> = vec![
        ("one that is good", get("h", "/public/a"), &["200"]),
        ("the same host twice", with(get("h", "/public/a"), &[("host", b"H.")]), &["200"]),
        ("a host that differs", with(get("h", "/public/a"), &[("host", b"evil")]), &["400"]),
        ("a port that differs", with(get("h:1", "/public/a"), &[("host", b"h")]), &["400"]),
        ("two hosts", with(get("h", "/public/a"), &[("host", b"h"), ("host", b"h")]), &["400"]),
        ("a user", get("u@h", "/public/a"), &["400"]),
        ("no host", vec![(":method", b"GET"), (":scheme", b"http"), (":path", b"/public/a")], &["400"]),
        ("a star", get("h", "*"), &["400", "reset"]),
        ("bytes that are not ASCII", get("h", "/public/ä"), &["400", "reset"]),
        ("a path above", get("h", "/public/../admin"), &["400"]),
        ("no path", get("h", ""), &["400", "reset"]),
        ("a line break", get("h", "/public/a\r\nX: y"), &["400", "reset"]),
        ("another case", basic("get", "h", "/public/a"), &["405"]),
        ("TRACE", basic("TRACE", "h", "/public/a"), &["405"]),
        ("CONNECT", vec![(":method", b"CONNECT"), (":authority", b"h:1")], &["405"]),
        ("a connection field", with(get("h", "/public/a"), &[("connection", b"close")]), &["400", "reset"]),
        ("a coding", with(get("h", "/public/a"), &[("transfer-encoding", b"chunked")]), &["400", "reset"]),
        ("TE", with(get("h", "/public/a"), &[("te", b"gzip")]), &["400", "reset"]),
        ("a length", with(get("h", "/public/a"), &[("content-length", b"5")]), &["400", "reset"]),
        ("capitals", with(get("h", "/public/a"), &[("X-Y", b"1")]), &["400", "reset", "goaway"]),
        ("a late pseudo field", with(vec![("x", b"1")], &[(":method", b"GET")]), &["400", "reset", "goaway"]),
    ];
    for (what, fields, expected) in cases {
        let mut client = Raw::connect(gateway.address, &[]);
        client.request(1, &fields);
        let outcome = client.outcome(1);
        assert!(expected.contains(&outcome.as_str()), "{what}: {outcome}");
        match outcome.as_str() {
            "200" => drop(app.only(what)),
            _ => app.assert_untouched(what),
        }
    }
    let too_many: Vec<_> = (0..101).map(|_| ("x", &b"1"[..])).collect();
    let mut client = Raw::connect(gateway.address, &[]);
    client.request(1, &[get("h", "/public/a"), too_many].concat());
    assert_eq!(client.outcome(1), "431");
    app.assert_untouched("more fields than limits.headers");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_head_has_the_head_alone() {
    let app = Recorder::answering(|_| Answer::Keep(reply("200 OK", "", "")));
    let gateway = clear(&app).start();
    let mut client = connect(gateway.address).await;
    for (path, status) in [("/private", 401), ("/login", 200), ("/.gateway/unknown", 404), ("/public/a", 200)] {
        let uri = format!("http://apps.example.com{path}");
        let (asked, _) = client.send_request(request("GET", &uri), true).unwrap();
        let (head, whole, _) = answer(asked).await;
        assert_eq!(head.status.as_u16(), status, "{path}");
        let (asked, _) = client.send_request(request("HEAD", &uri), true).unwrap();
        let (head, body) = asked.await.unwrap().into_parts();
        assert_eq!(head.status.as_u16(), status, "{path}");
        assert!(body.is_end_stream(), "{path}: no client expects more");
        if !whole.is_empty() {
            let length = head.headers["content-length"].to_str().unwrap().parse::<usize>().unwrap();
            // Nonces and ids are as long as ever.
            assert_eq!(length, whole.len(), "{path}: as long as the body of a GET");
        }
    }
}

/// Streams of one connection may name different hosts (RFC 9113, section 9.1.1).
#[tokio::test(flavor = "multi_thread")]
async fn every_stream_is_judged_for_its_own_host() {
    let app = Recorder::start();
    let route = |host: &str, allow: &str| {
        format!("[[routes]]\nhosts = [\"{host}\"]\npath = \"/**\"\nallow = \"{allow}\"\nupstream = \"app\"\n")
    };
    let routes = route("open.example.com", "anyone") + &route("app.example.com", "signed-in");
    let gateway = clear(&app).routes(&routes).start();
    let mut client = connect(gateway.address).await;
    for (host, status) in [
        ("open.example.com", 200),
        ("app.example.com", 401),
        ("other.example", 404),
        ("open.example.com:81", 200),
        ("app.example.com:81", 401),
        ("open.example.com", 200),
    ] {
        let (answer, _) = client.send_request(request("GET", &format!("http://{host}/x")), true).unwrap();
        assert_eq!(answer.await.unwrap().status().as_u16(), status, "{host}");
        if status == 200 {
            assert_eq!(app.only(host).header("x-forwarded-host").as_deref(), Some(host));
        }
        app.assert_untouched(host);
    }
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_never_looks_whole() {
    let app = Recorder::start();
    let gateway = clear(&app).start();
    for (length, sent) in [(&b"5"[..], &b"hello, and a second request"[..]), (b"9", b"short"), (b"0", b"x")] {
        let mut client = Raw::connect(gateway.address, &[]);
        let fields = [basic("POST", "h", "/public/a"), vec![("content-length", length)]].concat();
        client.send(HEADERS, 4, 1, &literals(&fields));
        client.send(DATA, END_STREAM, 1, sent);
        let outcome = client.outcome(1);
        assert!(["400", "reset", "goaway"].contains(&outcome.as_str()), "{outcome}");
        for seen in app.take() {
            assert!(!seen.complete, "{}", String::from_utf8_lossy(&seen.head));
        }
    }
}

#[test]
fn the_drain_lets_requests_end_and_says_goodbye() {
    let (arrived, arrives) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let (arrived, released) = (Mutex::new(arrived), Mutex::new(released));
    let app = Recorder::serving(move |mut wire| {
        if wire.read_head().is_ok() {
            arrived.lock().unwrap().send(()).unwrap();
            let _: Result<(), _> = released.lock().unwrap().recv_timeout(DEADLINE);
            wire.write(reply("200 OK", "", "finished"));
        }
    });
    let mut gateway = clear(&app).start();
    let mut busy = Raw::connect(gateway.address, &[]);
    busy.get(1, "/public/slow");
    arrives.recv_timeout(DEADLINE).expect("in flight");
    let mut idle = Raw::connect(gateway.address, &[]);
    idle.request(1, &basic("TRACE", "h", "/"));
    assert_eq!(idle.outcome(1), "405");
    gateway.signal(rustix::process::Signal::TERM);
    assert!(idle.next_of(GOAWAY, 0).is_some(), "an idle client is told");
    assert!(busy.next_of(GOAWAY, 0).is_some(), "and so is one with a request");
    release.send(()).unwrap();
    assert!(busy.next_of(HEADERS, 1).is_some(), "the answer");
    assert_eq!(busy.next_of(DATA, 1).expect("the body").payload, b"finished");
    gateway.ended().succeeded();
}
