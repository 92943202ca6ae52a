//! Clients that vanish amid an upload or a download: the application learns of it at once, and nothing of them is left.

use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::frames::{DATA, END_HEADERS, HEADERS, RST_STREAM, Raw, basic, literals};
use crate::common::{DEADLINE, Gateway, Recorder, Setup, Wire, until};
use crate::h2::clear;
use crate::tls::{Secure, client_config, issue};

/// What the application sees of each request.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// All that is sent for now was there.
    Begun,
    /// It is over, and whether it came to its end.
    Over { is_whole: bool },
}

/// An application that takes uploads and sends downloads, neither of which ends by itself.
fn endless() -> (Recorder, Receiver<Seen>) {
    let (tell, seen) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = Recorder::serving(move |mut wire| {
        let say = |seen| drop(tell.lock().unwrap().send(seen));
        let Ok(head) = wire.read_head() else { return };
        if head.starts_with(b"POST") {
            let piece = wire.read_exact(b"5\r\nhello\r\n".len());
            assert_eq!(piece.unwrap(), b"5\r\nhello\r\n");
            say(Seen::Begun);
            let rest = wire.read_to_end();
            return say(Seen::Over { is_whole: rest.is_ok_and(|rest| rest.ends_with(b"0\r\n\r\n")) });
        }
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        say(Seen::Begun);
        let is_closed = wire.is_closed();
        say(Seen::Over { is_whole: !is_closed });
    });
    (app, seen)
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

/// Lets `begin` be a client so many times; what it returns is dropped amid its request.
fn vanish<C>(gateway: &Gateway, seen: &Receiver<Seen>, times: usize, begin: impl Fn(usize) -> C) {
    let one = |number| {
        let client = begin(number);
        assert_eq!(seen.recv_timeout(DEADLINE).unwrap(), Seen::Begun);
        drop(client);
        let left = Instant::now();
        assert_eq!(seen.recv_timeout(DEADLINE).unwrap(), Seen::Over { is_whole: false });
        assert!(left.elapsed() < Duration::from_secs(1), "number {number} took {:?}", left.elapsed());
    };
    (0..4).for_each(one);
    let base = descriptors(gateway);
    (4..times).for_each(one);
    // Each has its line, whatever came of it.
    let lines = |word: &str| gateway.stdout.text().lines().filter(|line| line.contains(word)).count();
    until("a line for each download", || (lines(", cut)") == times / 2).then_some(()));
    until("a line for each upload", || {
        (lines("code=body_broken") + lines("code=client_gone") == times / 2).then_some(())
    });
    until("no descriptor to be left of them", || (descriptors(gateway) <= base).then_some(()));
}

/// An upload that goes on, or a request for a download.
fn head(number: usize) -> &'static str {
    if number.is_multiple_of(2) {
        "POST /public/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    } else {
        "GET /public/down HTTP/1.1\r\nHost: a\r\n\r\n"
    }
}

#[test]
fn over_http_1_a_thousand_leave_nothing_behind() {
    let (app, seen) = endless();
    let gateway = Setup::new(app.address()).start();
    vanish(&gateway, &seen, 1000, |number| {
        let mut wire = Wire::connect(gateway.address);
        wire.write(head(number));
        if !number.is_multiple_of(2) {
            wire.read_answer_head().unwrap();
            wire.read_exact(b"5\r\nhello\r\n".len()).unwrap();
        }
        wire
    });
}

#[test]
fn over_tls_as_well() {
    let (app, seen) = endless();
    let tls = r#"[{ cert = "own.pem", key = "own.key" }]"#;
    let dir = Setup::new(app.address()).without_users().key("server.tls", tls).prepare();
    let root = issue(dir.path(), "own", &["app.example"]);
    let gateway = Gateway::serve(dir);
    let config = Arc::new(client_config(&[&root], &[]));
    vanish(&gateway, &seen, 200, |number| {
        let mut client = Secure::connect(gateway.address, &config, "app.example").0;
        client.write_all(head(number).as_bytes()).unwrap();
        if !number.is_multiple_of(2) {
            let mut some = [0; 16];
            client.read_exact(&mut some).unwrap();
            assert!(some.starts_with(b"HTTP/1.1 200"));
        }
        client
    });
}

#[test]
fn over_http_2_as_well() {
    let (app, seen) = endless();
    let gateway = clear(&app).start();
    vanish(&gateway, &seen, 600, |number| {
        let mut client = Raw::connect(gateway.address, &[]);
        if number.is_multiple_of(2) {
            client.send(HEADERS, END_HEADERS, 1, &literals(&basic("POST", "h", "/public/up")));
            client.send(DATA, 0, 1, b"hello");
        } else {
            client.get(1, "/public/down");
            assert_eq!(client.next_of(DATA, 1).expect("its first piece").payload, b"hello");
        }
        client
    });
}

#[test]
fn who_leaves_before_an_answer_is_told_of() {
    let (tell, seen) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = Recorder::serving(move |mut wire| {
        let Ok(head) = wire.read_head() else { return };
        let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap().to_owned();
        drop(tell.lock().unwrap().send((target.clone(), false)));
        drop(tell.lock().unwrap().send((target, wire.is_closed())));
    });
    let gateway = clear(&app).key("admin.listen", "\"127.0.0.1:0\"").start();
    let plain = Setup::new(app.address()).without_users().start();
    let arrives = |path: &str| assert_eq!(seen.recv_timeout(DEADLINE), Ok((path.to_owned(), false)));
    let ends = |path: &str, gateway: &Gateway| {
        assert_eq!(seen.recv_timeout(DEADLINE), Ok((path.to_owned(), true)), "the application learns of it");
        let line = gateway.stdout.wait(path, |line| line.contains(path).then(|| line.to_owned()));
        assert!(line.contains(" 499 route=public permit ") && line.contains("code=client_gone"), "{line}");
        assert!(line.contains("tries=1"), "{line}");
    };
    let mut wire = Wire::connect(plain.address);
    wire.write("GET /public/one HTTP/1.1\r\nHost: a\r\n\r\n");
    arrives("/public/one");
    drop(wire);
    ends("/public/one", &plain);

    let mut client = Raw::connect(gateway.address, &[]);
    client.get(1, "/public/two");
    arrives("/public/two");
    client.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    ends("/public/two", &gateway);
    client.get(3, "/public/three");
    arrives("/public/three");
    drop(client);
    ends("/public/three", &gateway);
    let page = crate::common::Client::of(gateway.admin()).send(&crate::common::get("/metrics")).text();
    let counted = "portcullis_requests_total{route=\"public\",outcome=\"bad-request\"} 2";
    assert!(page.lines().any(|line| line == counted), "{page}");
}
