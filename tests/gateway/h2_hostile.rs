//! Clients of HTTP/2 that mean ill: floods, silence, windows that never open. Others must not notice.

use crate::common::frames::{
    DATA, END_HEADERS, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, basic, frame,
    literals,
};
use crate::common::recorder::reply;
use crate::common::{Answer, Gateway, Recorder, Wire};
use crate::h2::clear;

/// That another client is served as ever.
#[track_caller]
fn assert_serves(gateway: &Gateway, app: &Recorder, context: &str) {
    let mut other = Raw::connect(gateway.address, &[]);
    other.get(1, "/public/other");
    assert_eq!(other.outcome(1), "200", "{context}");
    app.take();
}

#[test]
fn floods_of_frames_that_say_nothing_end_the_connection() {
    let app = Recorder::start();
    let gateway = clear(&app).start();
    let setting = [0, 3, 0, 0, 0, 100];
    let floods: [(&str, Vec<u8>); 6] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &setting)),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x42, 0, 0, &[])),
        ("unknown and long", frame(0x42, 0, 0, &[0; 500])),
    ];
    for (what, one) in floods {
        let mut client = Raw::connect(gateway.address, &[]);
        // Whoever is cut off while it still sends may see that as an error.
        let _cut_off = client.0.try_write(&one.repeat(20_000));
        let mut answers = 0;
        let ended = loop {
            match client.0.read_exact(9) {
                Ok(head) => {
                    let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                    answers += 1;
                    if client.0.read_exact(length).is_err() {
                        break true;
                    }
                }
                Err(error) => {
                    break !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                }
            }
        };
        assert!(ended, "{what}: the connection lives on");
        assert!(answers < 2000, "{what}: {answers} answers");
        assert_serves(&gateway, &app, what);
    }
}

#[test]
fn requests_that_are_taken_back_at_once_reach_the_application_in_small_number() {
    let app = Recorder::start();
    let gateway = clear(&app).start();
    let mut client = Raw::connect(gateway.address, &[]);
    let mut bytes = Vec::new();
    for stream in (1..6000).step_by(2) {
        bytes.extend(frame(HEADERS, END_HEADERS | 1, stream, &literals(&basic("GET", "h", "/public/a"))));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let _cut_off = client.0.try_write(&bytes);
    while client.next().is_some_and(|frame| frame.kind != GOAWAY) {}
    let seen = app.take().len();
    assert!(seen <= 100, "{seen} requests at the application");
    assert_serves(&gateway, &app, "after the resets");
}

#[test]
fn at_most_a_hundred_requests_are_in_progress() {
    let app = Recorder::serving(|mut wire| {
        if wire.read_head().is_ok() {
            // Nothing is answered while the client is there.
            wire.is_closed();
        }
    });
    let gateway = clear(&app).start();
    let mut client = Raw::connect(gateway.address, &[]);
    for stream in (1..400).step_by(2) {
        client.get(stream, "/public/a");
    }
    let mut refused = 0;
    while refused < 100 {
        let frame = client.next().expect("the connection lives");
        assert_eq!((frame.kind, frame.payload.as_slice()), (RST_STREAM, &[0, 0, 0, 7][..]), "REFUSED_STREAM");
        refused += 1;
    }
    assert!(app.connections() <= 100, "{}", app.connections());
}

#[test]
fn who_says_nothing_or_half_is_closed_in_time() {
    let app = Recorder::start();
    let times = |setup: crate::common::Setup| {
        setup.key("server.limits.header_timeout", "\"1s\"").key("server.limits.idle_timeout", "\"1s\"")
    };
    let gateway = times(clear(&app)).start();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = frame(SETTINGS, 0, 0, &[]);
    let half = frame(HEADERS, 0, 1, &literals(&basic("GET", "h", "/public/a")));
    let silent = [
        ("nothing", Vec::new()),
        ("half a preface", preface[..10].to_vec()),
        ("HTTP/1.1", b"GET /public/a HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        ("no settings", preface.to_vec()),
        ("no request", [&preface[..], &settings].concat()),
        ("half a head", [&preface[..], &settings, &half].concat()),
        ("half a frame", [&preface[..], &settings, &half[..15]].concat()),
    ];
    let wires = silent.map(|(what, bytes)| {
        let mut wire = Wire::connect(gateway.address);
        wire.write(bytes);
        (what, wire)
    });
    for (what, mut wire) in wires {
        wire.read_to_end().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    app.assert_untouched("no request was whole");
    let mut client = Raw::connect(gateway.address, &[]);
    client.get(1, "/public/a");
    assert_eq!(client.outcome(1), "200");
    assert!(client.next_of(GOAWAY, 0).is_some(), "an idle client is told to go");
    while client.next().is_some() {}
}

#[test]
fn an_answer_that_is_not_taken_is_given_up_and_no_other() {
    let app = Recorder::answering(|request| {
        let length = if request.target().ends_with("large") { 3_000_000 } else { 5 };
        Answer::Keep(reply("200 OK", "", &"x".repeat(length)))
    });
    let gateway = clear(&app).key("server.limits.body_timeout", "\"1s\"").start();
    // Every stream begins without room.
    let mut client = Raw::connect(gateway.address, &[(4, 0)]);
    client.get(1, "/public/large");
    assert_eq!(client.outcome(1), "200");
    let reset = client.next_of(RST_STREAM, 1).expect("the stream is reset, the connection lives");
    assert_eq!(reset.payload.len(), 4);
    client.get(3, "/public/small");
    client.send(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 100]);
    assert_eq!(client.outcome(3), "200");
    assert_eq!(client.next_of(DATA, 3).expect("its body").payload, b"xxxxx");
}
