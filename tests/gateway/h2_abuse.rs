//! One stream that goes wrong among others, many at once, and what a client can have the gateway hold.

use std::io::Write as _;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::common::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, basic, frame, literals,
};
use crate::common::recorder::reply;
use crate::common::{Answer, DEADLINE, Gateway, Recorder};
use crate::forwarding::resident;
use crate::h2::clear;

/// That another client is served as ever.
#[track_caller]
fn assert_serves(gateway: &Gateway) {
    let mut other = Raw::connect(gateway.address, &[]);
    other.get(1, "/public/other");
    assert_eq!(other.outcome(1), "200");
}

#[test]
fn no_field_becomes_two_and_no_name_is_read_as_another() {
    let app = Recorder::start();
    let gateway = clear(&app).start();
    let bad: [(&str, &[u8]); 9] = [
        ("x-note", b"a\r\nx-forwarded-user: root"),
        ("x-note", b"a\nx-forwarded-user: root"),
        ("x-note", b"a\rb"),
        ("x-note", b"a\0b"),
        ("x-note: 1\r\nx-forwarded-user", b"root"),
        ("x-note:", b"a"),
        ("x note", b"a"),
        ("x-note\0", b"a"),
        ("", b"a"),
    ];
    for field in bad {
        let mut client = Raw::connect(gateway.address, &[]);
        client.request(1, &[basic("GET", "h", "/public/a"), vec![field]].concat());
        let outcome = client.outcome(1);
        assert!(["400", "reset", "goaway"].contains(&outcome.as_str()), "{field:?}: {outcome}");
        app.assert_untouched(field.0);
        // The same after a body.
        let mut client = Raw::connect(gateway.address, &[]);
        client.send(HEADERS, END_HEADERS, 1, &literals(&basic("POST", "h", "/public/a")));
        client.send(DATA, 0, 1, b"hello");
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &literals(&[field]));
        let outcome = client.outcome(1);
        assert!(["400", "502", "reset", "goaway"].contains(&outcome.as_str()), "{field:?}: {outcome}");
        for seen in app.take() {
            assert!(!seen.complete && seen.trailers.is_empty(), "{field:?}: {:?}", seen.trailers);
        }
    }
    assert_serves(&gateway);
}

#[test]
fn a_stream_that_goes_wrong_touches_no_other_of_its_connection() {
    let (arrived, arrives) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (arrived, released) = (Mutex::new(arrived), Mutex::new(released));
    let app = Recorder::answering(move |request| {
        if request.target().ends_with("slow") {
            arrived.lock().unwrap().send(()).unwrap();
            released.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        }
        Answer::Keep(reply("200 OK", "", "hello"))
    });
    let gateway = clear(&app).key("server.limits.body_bytes", "\"1KiB\"").start();
    let mut client = Raw::connect(gateway.address, &[]);
    client.get(1, "/public/slow");
    arrives.recv_timeout(DEADLINE).expect("in flight");
    // Longer than it says, larger than it may be, taken back, not HTTP, a tunnel to nowhere, a refused one.
    let post = |more: &[(&'static str, &'static [u8])]| literals(&[&basic("POST", "h", "/public/a"), more].concat());
    client.send(HEADERS, END_HEADERS, 3, &post(&[("content-length", b"1")]));
    client.send(DATA, END_STREAM, 3, b"hello");
    assert!(["400", "reset"].contains(&client.outcome(3).as_str()));
    client.send(HEADERS, END_HEADERS, 5, &post(&[]));
    client.send(DATA, 0, 5, &[b'x'; 4096]);
    assert_eq!(client.outcome(5), "413");
    client.send(HEADERS, END_HEADERS, 7, &post(&[]));
    client.send(RST_STREAM, 0, 7, &[0, 0, 0, 8]);
    client.request(9, &[basic("GET", "h", "/public/a"), vec![("connection", b"close")]].concat());
    assert_eq!(client.outcome(9), "reset");
    client.request(11, &[(":method", b"CONNECT"), (":authority", b"h:1")]);
    assert_eq!(client.outcome(11), "405");
    client.request(13, &[basic("CONNECT", "h", "/private"), vec![(":protocol", b"websocket")]].concat());
    assert_eq!(client.outcome(13), "401");
    // The rest is served, and what was under way ends well.
    client.get(15, "/public/next");
    assert_eq!(client.outcome(15), "200");
    assert_eq!(client.next_of(DATA, 15).expect("a body").payload, b"hello");
    release.send(()).unwrap();
    assert_eq!(client.outcome(1), "200");
    assert_eq!(client.next_of(DATA, 1).expect("a body").payload, b"hello");
}

#[test]
fn five_hundred_at_once_are_a_hundred_to_the_application_and_cost_little() {
    let app = Recorder::serving(|mut wire| {
        if wire.read_head().is_ok() {
            // Nothing is answered while the client is there.
            wire.is_closed();
        }
    });
    let gateway = clear(&app).start();
    let before = resident(&gateway);
    let mut client = Raw::connect(gateway.address, &[]);
    let path = format!("/public/{}", "a".repeat(100));
    let one = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &literals(&basic("GET", "h", &path)));
    let all: Vec<u8> = (0..500).flat_map(|number| one(2 * number + 1)).collect();
    // Whoever is cut off while it still sends may see that as an error.
    let _cut_off = client.0.try_write(&all);
    let (mut refused, mut goes) = (0, false);
    while let Some(found) = client.next() {
        match found.kind {
            RST_STREAM => {
                assert_eq!(found.payload, [0, 0, 0, 7], "REFUSED_STREAM");
                refused += 1;
            }
            GOAWAY => goes = true,
            other => panic!("a frame of type {other}"),
        }
    }
    assert!(goes && (1..=400).contains(&refused), "{refused} are refused, and a client that goes on is told to go");
    assert!(app.connections() <= 100, "{}", app.connections());
    let grown = resident(&gateway).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

#[test]
fn floods_and_answers_that_nobody_reads_are_not_held_in_memory() {
    let (told, tells) = mpsc::channel();
    let told = Mutex::new(told);
    // It sends until nothing more is taken.
    let app = Recorder::serving(move |mut wire| {
        if wire.read_head().is_err() {
            return;
        }
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let mut stream = wire.stream();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        while stream.write(&[b'x'; 65536]).is_ok() {}
        told.lock().unwrap().send(()).unwrap();
        wire.is_closed();
    });
    let gateway = clear(&app).key("server.limits.body_timeout", "\"60s\"").start();
    let before = resident(&gateway);
    // No stream has room at the client.
    let mut client = Raw::connect(gateway.address, &[(4, 0)]);
    for stream in 0..STREAMS {
        client.get(2 * stream + 1, "/public/large");
    }
    for _ in 0..STREAMS {
        tells.recv_timeout(DEADLINE).expect("the application is held back");
    }
    let grown = resident(&gateway).saturating_sub(before);
    assert!(grown < (512 << 10) * STREAMS as usize, "{grown} bytes more for {STREAMS} answers");
    // One that sends what costs an answer, and reads none of them.
    let held = resident(&gateway);
    for one in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])] {
        let mut flood = Raw::connect(gateway.address, &[]);
        let _cut_off = flood.0.try_write(&one.repeat(100_000));
        assert!(flood.0.read_to_end().is_ok(), "the connection ends");
    }
    let grown = resident(&gateway).saturating_sub(held);
    assert!(grown < 8 << 20, "{grown} bytes more after the floods");
}

/// Answers at the same time.
const STREAMS: u32 = 50;
