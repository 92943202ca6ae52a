//! The harness itself: a client that takes anything for an answer, or an upstream that forgets a request,
//! would make every other test here worthless.

use crate::common::recorder::{folded, reply};
use crate::common::{Answer, Client, Recorder, Wire, get, post};

#[test]
fn the_recorder_keeps_requests_byte_for_byte() {
    let app = Recorder::start();
    let mut client = Client::of(app.address());
    let answer = client.send(&get("/a?b").header("X_Forwarded-User", "x"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "GET /a?b HTTP/1.1"));
    let seen = app.only("one");
    let head = format!("GET /a?b HTTP/1.1\r\nHost: {}\r\nX_Forwarded-User: x\r\n\r\n", app.address());
    assert_eq!(seen.head, head.into_bytes());
    assert_eq!(seen.taken_for("x-forwarded-user").len(), 1);
    client.send(&post("/p").body("text/plain", "hello"));
    assert_eq!(app.only("two").body, b"hello");
    assert_eq!((client.opened, app.connections()), (1, 1));
    app.assert_untouched("nothing more");
}

#[test]
fn the_recorder_tells_chunks_trailers_and_cut_bodies() {
    let app = Recorder::start();
    let mut wire = Wire::connect(app.address());
    wire.write("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n");
    wire.read_answer("POST").expect("an answer");
    let seen = app.only("chunks");
    assert_eq!(
        (seen.body.as_slice(), seen.raw_body.as_slice()),
        (&b"hi"[..], &b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"[..])
    );
    assert!(seen.complete && seen.trailers == ["X-Sum: 1"]);
    let mut wire = Wire::connect(app.address());
    wire.write("POST /cut HTTP/1.1\r\nContent-Length: 10\r\n\r\nhello");
    drop(wire);
    assert!(!app.next().complete);
}

#[test]
#[should_panic(expected = "the upstream saw 1")]
fn a_request_that_arrived_is_noticed() {
    let app = Recorder::start();
    Client::of(app.address()).send(&get("/"));
    app.assert_untouched("it arrived");
}

#[test]
fn answers_that_are_not_exactly_framed_are_errors() {
    let bad: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
    ];
    for bytes in bad {
        let app = Recorder::answering(|_| Answer::Close(bytes.as_bytes().to_vec()));
        let mut wire = Wire::connect(app.address());
        wire.write("GET / HTTP/1.1\r\n\r\n");
        assert!(wire.read_answer("GET").is_err(), "{bytes:?}");
    }
}

#[test]
fn interim_answers_and_kept_connections_are_read_in_order() {
    let app = Recorder::answering(|_| {
        Answer::Keep([b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), reply("200 OK", "", "a")].concat())
    });
    let mut wire = Wire::connect(app.address());
    wire.write("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    assert_eq!(wire.read_answer("GET").unwrap().body, b"a");
    assert_eq!(wire.read_answer("GET").unwrap().body, b"a");
    assert_eq!(folded("X_Forwarded.User-"), "xforwardeduser");
}
