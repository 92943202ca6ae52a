//! Framing: the application sees exactly the requests that were judged, whatever the bytes said.

use crate::common::{Gateway, Numbers, Recorder, Setup, Wire};

pub(super) fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).without_users().start();
    (app, gateway)
}

/// A second request that hides in the body of a first; it must never be seen alone.
pub(super) const HIDDEN: &str = "GET /admin/hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends `head` (without the empty line) and `body`, and gives the status; asserts that the connection closes.
#[track_caller]
fn refused(gateway: &Gateway, head: &[u8], body: &[u8]) -> u16 {
    let shown = String::from_utf8_lossy(head).into_owned();
    let mut wire = Wire::connect(gateway.address);
    wire.write([head, b"\r\n\r\n", body].concat());
    let answer = wire.read_answer("POST").unwrap_or_else(|error| panic!("{error} for {shown:?}"));
    assert!(wire.is_closed(), "{shown:?}: the connection stays open after {}", answer.status);
    answer.status
}

/// Statements of the length that contradict themselves or the grammar.
const LENGTHS: &[&str] = &[
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 6\r\nX-A: b\r\ncontent-length: 5",
    "Content-Length: 5, 6",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: -1",
    "Content-Length: 0x5",
    "Content-Length: 5a",
    "Content-Length: 5 5",
    "Content-Length: 5.0",
    "Content-Length: \"5\"",
    "Content-Length: 18446744073709551616",
    "Content-Length: 99999999999999999999999",
    "Content-Length: ٥",
    "Content-Length: five",
    "Content-Length:",
    "Content-Length : 5",
    "Content-Length\t: 5",
    "Content-Length: 5\r\n ",
    "Content-Length: 5\r\n 6",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: chunked;a=b",
    "Transfer-Encoding: chunked; q=1",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chun ked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding:",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X-A: b\r\n Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip\r\nContent-Length: 5",
    "Transfer-Encoding: xchunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nTransfer-Encoding: chunked, identity",
];

#[test]
fn a_doubtful_length_is_400_and_the_end_of_the_connection() {
    let (app, gateway) = gateway();
    for length in LENGTHS {
        for method in ["POST", "GET"] {
            let head = format!("{method} /public/x HTTP/1.1\r\nHost: a\r\n{length}");
            let body = format!("0\r\n\r\n{HIDDEN}");
            let status = refused(&gateway, head.as_bytes(), body.as_bytes());
            assert!(status == 400 || (status == 501 && length.contains("ransfer")), "{length:?}: {status}");
            app.assert_untouched(length);
        }
    }
}

#[test]
fn codings_in_http_1_0_are_refused() {
    let (app, gateway) = gateway();
    let head = b"POST /public/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked";
    assert_eq!(refused(&gateway, head, format!("0\r\n\r\n{HIDDEN}").as_bytes()), 400);
    app.assert_untouched("chunked in HTTP/1.0");
}

/// Lines that no field is written like.
const LINES: &[&[u8]] = &[
    b"X-A : b",
    b"X-A\t: b",
    b" X-A: b",
    b"\tX-A: b",
    b": b",
    b"no colon",
    b"X-A: b\r\n folded",
    b"X-A: b\r\n\tfolded",
    b"X-A: a\rb",
    b"X-A: a\r\rb",
    b"X-A: a\0b",
    b"X-A: a\x01b",
    b"X-A: a\x7fb",
    b"X A: b",
    b"X-A\0: b",
    b"X-\xc3\xa9: b",
    b"X[A]: b",
    b"X-A\r: b",
    b"X(A): b",
];

#[test]
fn a_malformed_line_is_400_and_the_end_of_the_connection() {
    let (app, gateway) = gateway();
    for line in LINES {
        for head in [
            [b"GET /public/x HTTP/1.1\r\nHost: a\r\n".as_slice(), line].concat(),
            [b"GET /public/x HTTP/1.1\r\n", *line, b"\r\nHost: a"].concat(),
        ] {
            let shown = String::from_utf8_lossy(&head).into_owned();
            assert_eq!(refused(&gateway, &head, b""), 400, "{shown:?}");
            app.assert_untouched(&shown);
        }
    }
}

#[test]
fn bare_line_feeds_do_not_smuggle() {
    let (app, gateway) = gateway();
    for bytes in [
        "GET /public/x HTTP/1.1\nHost: a\nConnection: close\n\n".to_owned(),
        format!(
            "POST /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: y\nContent-Length: {}\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        ),
        format!(
            "POST /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
        ),
    ] {
        let answer = crate::common::raw(gateway.address, &bytes);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.1 400"), "{bytes:?}: {text}");
        for seen in app.take() {
            assert_eq!(seen.target(), "/public/x", "{bytes:?}");
            assert!(
                !seen.head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'),
                "{bytes:?} went on with bare LF"
            );
        }
    }
}

#[test]
fn a_hundred_pipelined_requests_are_judged_one_by_one() {
    let (app, gateway) = gateway();
    let mut wire = Wire::connect(gateway.address);
    let mut bytes = String::new();
    for number in 0..100 {
        let place = if number % 3 == 0 { "admin" } else { "public" };
        bytes.push_str(&format!("GET /{place}/{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    wire.write(&bytes);
    for number in 0..100 {
        let answer = wire.read_answer("GET").expect("an answer for each");
        let expected = if number % 3 == 0 { 401 } else { 200 };
        answer.assert_status(expected, &format!("request {number}"));
        if expected == 200 {
            assert_eq!(answer.text(), format!("GET /public/{number} HTTP/1.1"));
        }
    }
    assert_eq!(app.take().len(), 66);
}

#[test]
fn a_head_that_is_too_large_gets_a_clear_status() {
    let (app, gateway) = gateway();
    let many = "X-A: b\r\n".repeat(101);
    let large = format!("X-A: {}\r\n", "a".repeat(40 << 10));
    let path = "a".repeat(70_000);
    for (head, statuses) in [
        (format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{many}\r\n"), &[431][..]),
        (format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{large}\r\n"), &[431]),
        (format!("GET /public/{path} HTTP/1.1\r\nHost: a\r\n\r\n"), &[414, 431]),
    ] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(&head);
        let answer = wire.read_answer("GET").expect("a clear status");
        assert!(statuses.contains(&answer.status), "{} for {:.40}", answer.status, head);
        app.assert_untouched("a large head");
    }
}

#[test]
fn generated_smuggling_shows_the_application_only_what_was_judged() {
    let (app, gateway) = gateway();
    let mut numbers = Numbers(443);
    let names = ["Content-Length", "content-length", "Content_Length", "Content-Length ", "X-Content-Length"];
    let codings = [
        "chunked",
        "Chunked",
        "gzip, chunked",
        "chunked, identity",
        "identity",
        ",chunked",
        "chunked;x",
        "xchunked",
        "\u{b}chunked",
        "chunked ",
    ];
    let encodings = [
        "Transfer-Encoding",
        "transfer-encoding",
        "Transfer_Encoding",
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "TE",
    ];
    let ends = ["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\n ", "\r", "\r\n\t"];
    let mut answered = 0;
    for number in 0..1500 {
        let mut head = format!("POST /public/{number} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive");
        let body = format!("{}0\r\n\r\n{HIDDEN}", numbers.pick(&["", "5\r\nhello\r\n", "1;x\r\na\r\n", "5\r\nhel"]));
        for _ in 0..=numbers.below(3) {
            head.push_str(numbers.pick(&ends));
            let length = numbers.pick(&[body.len(), 0, 5, body.len() - HIDDEN.len(), HIDDEN.len()]);
            if numbers.once_in(2) {
                head.push_str(&format!("{}: {length}", numbers.pick(&names)));
            } else {
                head.push_str(&format!("{}: {}", numbers.pick(&encodings), numbers.pick(&codings)));
            }
        }
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!("{head}\r\n\r\n{body}GET /public/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        drop(wire.stream().shutdown(std::net::Shutdown::Write));
        answered += usize::from(wire.read_to_end().is_ok_and(|bytes| !bytes.is_empty()));
        for seen in app.take() {
            let target = seen.target();
            assert!(
                target == format!("/public/{number}") || target == "/public/last" || target.starts_with("/public/"),
                "{head:?}: {target}"
            );
            assert!(!target.contains("hidden"), "{head:?}");
            assert!(seen.all("transfer-encoding").len() + seen.all("content-length").len() <= 1);
        }
    }
    assert!(answered > 100, "only {answered} were answered at all");
}
