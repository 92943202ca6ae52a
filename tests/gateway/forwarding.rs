//! Forwarding that works: bodies both ways without being collected, reuse, early answers, and what is
//! changed on the way back.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::common::recorder::reply;
use crate::common::{Answer, DEADLINE, Gateway, Recorder, Setup, Wire, get, post};

fn in_front_of(app: &Recorder) -> Gateway {
    Setup::new(app.address()).start()
}

/// Resident memory of the gateway in bytes.
pub(crate) fn resident(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// More than any buffer, and so much that it would show.
const LARGE: usize = 200 << 20;
const PIECE: usize = 64 << 10;

#[test]
fn a_large_download_flows_in_flat_memory() {
    let app = Recorder::serving(|mut wire| {
        drop(wire.read_head());
        wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let piece = vec![b'x'; PIECE];
        while wire.try_write(&piece).is_ok() {}
    });
    let gateway = in_front_of(&app);
    gateway.send(&get("/login")).assert_status(200, "warm");
    let before = resident(&gateway);
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.read_answer_head().expect("a head").assert_status(200, "large");
    let (mut left, mut most) = (LARGE, 0);
    while left > 0 {
        left -= wire.read_exact(left.min(1 << 20)).expect("the whole body").len();
        most = most.max(resident(&gateway));
    }
    assert!(most < before + (30 << 20), "{before} grew to {most}");
}

#[test]
fn a_large_upload_flows_in_flat_memory() {
    let (sender, total) = mpsc::channel();
    let sender = Mutex::new(sender);
    let app = Recorder::serving(move |mut wire| {
        drop(wire.read_head());
        let mut count = 0;
        while count < LARGE {
            count += wire.read_some().map_or(LARGE, |bytes| bytes.len());
        }
        sender.lock().unwrap().send(count).unwrap();
        wire.write(reply("200 OK", "", "thanks"));
    });
    let gateway = in_front_of(&app);
    gateway.send(&get("/login")).assert_status(200, "warm");
    let before = resident(&gateway);
    let mut wire = Wire::connect(gateway.address);
    wire.write(format!("POST /public/large HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
    let piece = vec![b'x'; 1 << 20];
    let mut most = 0;
    for _ in 0..LARGE >> 20 {
        wire.try_write(&piece).expect("the gateway takes it");
        most = most.max(resident(&gateway));
    }
    assert_eq!(wire.read_answer("POST").expect("an answer").text(), "thanks");
    assert_eq!(total.recv_timeout(DEADLINE).unwrap(), LARGE);
    assert!(most < before + (30 << 20), "{before} grew to {most}");
}

#[test]
fn a_reader_that_stalls_holds_the_application_back() {
    let (sender, written) = mpsc::channel();
    let sender = Mutex::new(sender);
    let app = Recorder::serving(move |mut wire| {
        drop(wire.read_head());
        wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        wire.stream().set_write_timeout(Some(std::time::Duration::from_millis(700))).unwrap();
        let (piece, mut count) = (vec![b'x'; PIECE], 0);
        while count < LARGE && wire.try_write(&piece).is_ok() {
            count += PIECE;
        }
        sender.lock().unwrap().send(count).unwrap();
    });
    let gateway = in_front_of(&app);
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.read_answer_head().expect("a head");
    let count = written.recv_timeout(DEADLINE).expect("the application is stopped");
    assert!(count < 40 << 20, "{count} bytes went into the gateway or the kernel");
}

#[test]
fn an_event_is_passed_on_at_once() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let app = Recorder::serving(move |mut wire| {
        drop(wire.read_head());
        wire.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            wire.write(format!("{:x}\r\n{event}\r\n", event.len()));
            // The next event is made only after the client has seen this one.
            if released.lock().unwrap().recv_timeout(DEADLINE).is_err() {
                return;
            }
        }
        wire.write("0\r\n\r\n");
    });
    let gateway = in_front_of(&app);
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /public/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    let head = wire.read_answer_head().expect("a head before the end");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let mut raw = Vec::new();
    for number in 0..3 {
        assert_eq!(wire.read_chunk(&mut raw).unwrap(), format!("data: {number}\n\n").into_bytes());
        release.send(()).unwrap();
    }
    assert!(wire.read_chunk(&mut raw).unwrap().is_empty());
}

#[test]
fn an_upload_is_passed_on_at_once() {
    let (seen, sees) = mpsc::channel();
    let seen = Mutex::new(seen);
    let app = Recorder::serving(move |mut wire| {
        drop(wire.read_head());
        let mut raw = Vec::new();
        while let Ok(piece) = wire.read_chunk(&mut raw) {
            let last = piece.is_empty();
            seen.lock().unwrap().send(piece).unwrap();
            if last {
                break;
            }
        }
        drop(wire.read_trailers(&mut raw));
        wire.write(reply("200 OK", "", "thanks"));
    });
    let gateway = in_front_of(&app);
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /public/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["one", "two", "three"] {
        wire.write(format!("{:x}\r\n{piece}\r\n", piece.len()));
        assert_eq!(sees.recv_timeout(DEADLINE).expect("piece by piece"), piece.as_bytes());
    }
    wire.write("0\r\n\r\n");
    assert_eq!(wire.read_answer("POST").unwrap().text(), "thanks");
}

#[test]
fn a_client_that_leaves_frees_the_application() {
    let (sender, ended) = mpsc::channel();
    let sender = Mutex::new(sender);
    let app = Recorder::serving(move |mut wire| {
        drop(wire.read_head());
        wire.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n",
        );
        let closed = wire.is_closed();
        sender.lock().unwrap().send(closed).unwrap();
    });
    let gateway = in_front_of(&app);
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /public/events HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.read_answer_head().expect("a head");
    drop(wire);
    assert!(ended.recv_timeout(DEADLINE).expect("the application learns of it"));
}

#[test]
fn connections_are_kept_on_both_sides() {
    let app = Recorder::start();
    let gateway = in_front_of(&app);
    let mut client = gateway.client();
    for number in 0..50 {
        client.send(&get(&format!("/public/{number}"))).assert_status(200, "kept");
    }
    assert_eq!(client.opened, 1, "the client's connection");
    assert_eq!(app.connections(), 1, "the application's connection");
    assert_eq!(app.take().len(), 50);
}

#[test]
fn http_1_0_and_close_end_the_clients_connection_only() {
    let app = Recorder::start();
    let gateway = in_front_of(&app);
    for head in
        ["GET /public/x HTTP/1.0\r\nHost: a\r\n\r\n", "GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
    {
        let answer = crate::common::raw(gateway.address, head);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.contains(" 200 ") && text.ends_with("GET /public/x HTTP/1.1"), "{text}");
        assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    }
    assert_eq!(app.connections(), 1);
}

#[test]
fn expect_is_answered_before_the_body_when_the_rule_says_no() {
    let app = Recorder::start();
    let gateway = in_front_of(&app);
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n");
    let head = String::from_utf8(wire.read_head().expect("an answer without a body sent")).unwrap();
    assert!(head.starts_with("HTTP/1.1 401"), "no interim answer: {head}");
    app.assert_untouched("refused");
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /public/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let head = String::from_utf8(wire.read_head().expect("an interim answer")).unwrap();
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    wire.write("hello");
    wire.read_answer("POST").expect("an answer").assert_status(200, "allowed");
    let seen = app.only("allowed");
    assert_eq!((seen.body.as_slice(), seen.header("expect")), (b"hello".as_slice(), None));
}

#[test]
fn an_early_answer_of_the_application_is_seen() {
    let app = Recorder::serving(|mut wire| {
        drop(wire.read_head());
        wire.write(reply("413 Payload Too Large", "Connection: close\r\n", "too much"));
        while wire.read_some().is_ok_and(|bytes| !bytes.is_empty()) {}
    });
    let gateway = in_front_of(&app);
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nstart");
    let answer = wire.read_answer("POST").expect("the early answer");
    assert_eq!((answer.status, answer.text().as_str()), (413, "too much"));
}

#[test]
fn a_body_over_the_limit_is_413() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("server.limits.body_bytes", "\"1KiB\"").start();
    gateway.send(&post("/public/x").body("text/plain", vec![b'x'; 1024])).assert_status(200, "just");
    app.only("just");
    gateway.send(&post("/public/x").body("text/plain", vec![b'x'; 1025])).assert_status(413, "over");
    app.assert_untouched("over");
    let mut wire = Wire::connect(gateway.address);
    wire.write("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.write(format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800)));
    wire.read_answer("POST").expect("an answer").assert_status(413, "over in chunks");
    assert!(app.take().iter().all(|seen| !seen.complete), "never whole");
}

#[test]
fn answers_go_back_as_they_are_but_for_one_hop() {
    let app = Recorder::answering(|_| {
        let fields = "Content-Type: text/html\r\nConnection: X-Private\r\nX-Private: gone\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
                      ETag: \"a\"\r\nX-Two: a\r\nX-Two: b\r\nServer: theirs\r\nContent-Encoding: br\r\nX-Frame-Options: ALLOWALL\r\n";
        Answer::Keep(reply("299 Odd", fields, "\u{1}\u{2}"))
    });
    let gateway = in_front_of(&app);
    let answer = gateway.send(&get("/public/x"));
    answer.assert_status(299, "any status");
    for name in ["x-private", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    for (name, value) in [
        ("etag", "\"a\""),
        ("server", "theirs"),
        ("content-encoding", "br"),
        ("x-frame-options", "ALLOWALL"),
        ("content-type", "text/html"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert_eq!(answer.all("x-two"), ["a", "b"]);
    assert_eq!(answer.body, [1, 2]);
}

#[test]
fn answers_without_a_body_stay_without() {
    for (status, fields) in
        [("204 No Content", ""), ("304 Not Modified", "ETag: \"a\"\r\n"), ("200 OK", "Content-Length: 1234\r\n")]
    {
        let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
        let app = Recorder::answering(move |_| Answer::Keep(head.clone().into_bytes()));
        let gateway = in_front_of(&app);
        let mut client = gateway.client();
        let method = if status.starts_with("200") { "HEAD" } else { "GET" };
        for _ in 0..2 {
            let answer = client.send(&crate::common::Request::new(method, "/public/x"));
            assert!(answer.body.is_empty() && status.starts_with(&answer.status.to_string()));
            if method == "HEAD" {
                assert_eq!(answer.header("content-length"), Some("1234"));
            }
        }
        assert_eq!(client.opened, 1);
    }
}

#[test]
fn trailers_of_an_answer_pass() {
    let app = Recorder::answering(|_| {
        let bytes =
            b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
        Answer::Keep(bytes.to_vec())
    });
    let gateway = in_front_of(&app);
    let answer = gateway.send(&get("/public/x").header("TE", "trailers").header("Connection", "TE"));
    assert_eq!(answer.body, b"ok");
    let lower: Vec<_> = answer.trailers.iter().map(|line| line.to_lowercase()).collect();
    assert_eq!(lower, ["x-sum: 7"]);
}

#[test]
fn interim_answers_do_not_disturb_the_final_one() {
    let app = Recorder::answering(|_| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n".as_bytes();
        Answer::Keep([hints, &reply("200 OK", "", "final")].concat())
    });
    let gateway = in_front_of(&app);
    let mut client = gateway.client();
    for _ in 0..2 {
        assert_eq!(client.send(&get("/public/x")).text(), "final");
    }
}

#[test]
fn a_stripped_prefix_is_put_back_into_locations() {
    let app = Recorder::answering(|request| {
        let target = request.target();
        let to = percent_encoding::percent_decode_str(target.trim_start_matches("/?")).decode_utf8_lossy().into_owned();
        Answer::Keep(reply("302 Found", &format!("Location: {to}\r\n"), ""))
    });
    let routes = r#"
        [[routes]]
        path = "/tool/**"
        allow = "anyone"
        upstream = "app"
        strip_prefix = "/tool"
    "#;
    let gateway = Setup::new(app.address()).routes(routes).start();
    let own = format!("http://{}/login", app.address());
    for (location, arrives) in [
        ("/login", "/tool/login"),
        ("/login?a=%2Fb#c", "/tool/login?a=%2Fb#c"),
        ("/", "/tool/"),
        ("relative", "relative"),
        ("?query", "?query"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("//elsewhere.example/x", "//elsewhere.example/x"),
        (own.as_str(), "/tool/login"),
    ] {
        let query: String = form_urlencoded::byte_serialize(location.as_bytes()).collect();
        let answer = gateway.send(&get(&format!("/tool?{query}")));
        let seen = answer.assert_status(302, location).header("location").unwrap();
        let absolute = format!("http://{}{arrives}", gateway.address);
        assert!(seen == arrives || (location == own && seen == absolute), "{location} came as {seen}");
    }
}

#[test]
fn what_was_given_to_a_name_goes_to_no_shared_cache() {
    let app = Recorder::answering(|request| {
        let value = request.header("x-cache").unwrap_or_default();
        let field = if value.is_empty() { String::new() } else { format!("Cache-Control: {value}\r\n") };
        Answer::Keep(reply("200 OK", &field, "x"))
    });
    let gateway = in_front_of(&app);
    let token = gateway.token("alice");
    for (sent, kept, gone) in [
        ("", "", ""),
        ("public, max-age=300", "max-age=300", "public"),
        ("s-maxage=60, max-age=5", "max-age=5", "s-maxage"),
        ("PUBLIC, S-MaxAge=60", "", "public"),
        ("no-store", "no-store", "public"),
        ("private, no-cache", "no-cache", "public"),
        ("immutable, max-age=31536000", "immutable", "public"),
    ] {
        let request = get("/x").bearer(&token).header("X-Cache", sent);
        let answer = gateway.send(&request);
        let value = answer.all("cache-control").join(", ").to_lowercase();
        assert!(value.contains("private") || value.contains("no-store"), "{sent:?} became {value:?}");
        assert!(value.contains(kept), "{sent:?} became {value:?}");
        assert!(gone.is_empty() || !value.contains(gone), "{sent:?} became {value:?}");
        let named = gateway.send(&get("/public/x").bearer(&token).header("X-Cache", sent));
        let value = named.all("cache-control").join(", ").to_lowercase();
        assert!(value.contains("private") || value.contains("no-store"), "a name on a public route: {value:?}");
        let public = gateway.send(&get("/public/x").header("X-Cache", sent));
        assert_eq!(public.all("cache-control").join(", "), sent, "a public answer is the application's");
    }
}
