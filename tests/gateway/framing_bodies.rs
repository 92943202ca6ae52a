//! Bodies: good ones are framed anew, bad and cut ones are never whole for the application.

use super::framing::{HIDDEN, gateway};
use crate::common::{Wire, get};

/// Bodies that are no chunks.
const CHUNKS: &[&[u8]] = &[
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5_0\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"g\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n",
    b";a\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"11111111111111111\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff0\r\nhello\r\n0\r\n\r\n",
    b"5;a=\n\r\nhello\r\n0\r\n\r\n",
    b"5;a\0b\r\nhello\r\n0\r\n\r\n",
];

#[test]
fn bad_chunks_never_make_a_whole_request() {
    let (app, gateway) = gateway();
    for chunks in CHUNKS {
        let mut wire = Wire::connect(gateway.address);
        wire.write(b"POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.write([*chunks, HIDDEN.as_bytes()].concat());
        let shown = String::from_utf8_lossy(chunks).into_owned();
        let answer = wire.read_answer("POST").unwrap_or_else(|error| panic!("{error} for {shown:?}"));
        let tolerated = chunks.starts_with(b"5;a\0b") && answer.status == 200;
        assert!(answer.status == 400 || tolerated, "{shown:?}: {}", answer.status);
        if tolerated {
            // A control in an extension ends here like every extension: what goes on is framed anew.
            assert!(app.take().iter().all(|seen| seen.body == b"hello" || seen.body.is_empty()), "{shown:?}");
            continue;
        }
        let rest = wire.read_to_end().expect("the connection closes");
        for seen in app.take() {
            assert_eq!(seen.target(), "/public/x", "{shown:?}");
            assert!(!seen.complete, "{shown:?} arrived whole");
        }
        assert!(rest.is_empty(), "{shown:?}: a second answer {}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn a_length_beside_chunked_is_read_as_chunked_and_ends_the_connection() {
    let (app, gateway) = gateway();
    for fields in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 400"]
    {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{HIDDEN}"));
        let answer = wire.read_answer("POST").expect("an answer");
        assert!(matches!(answer.status, 200 | 400), "{fields}: {}", answer.status);
        let rest = wire.read_to_end().expect("the connection closes");
        assert!(rest.is_empty(), "{fields}: {}", String::from_utf8_lossy(&rest));
        for seen in app.take() {
            assert_eq!((seen.target().as_str(), seen.body.as_slice()), ("/public/x", b"hello".as_slice()));
            assert_eq!(seen.header("content-length").is_some(), seen.header("transfer-encoding").is_none());
        }
    }
}

#[test]
fn what_goes_on_is_framed_by_us() {
    let (app, gateway) = gateway();
    let cases: &[(&str, &str, &str)] = &[
        ("Content-Length: 5", "hello", "hello"),
        ("Content-Length: 0", "", ""),
        ("Content-Length: 5\r\nContent-Length: 5", "hello", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: Chunked", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("transfer-encoding:   CHUNKED  ", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "5;ext=\"forged\"\r\nhello\r\n0;x\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "0000005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("Transfer-Encoding: chunked", "0\r\n\r\n", ""),
    ];
    for (field, body, content) in cases {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}"));
        let answer = wire.read_answer("POST").expect("an answer");
        if field.matches("Content-Length").count() == 2 && answer.status == 400 {
            app.assert_untouched(field);
            continue;
        }
        answer.assert_status(200, field);
        let seen = app.only(field);
        assert_eq!(String::from_utf8_lossy(&seen.body), *content, "{field} {body:?}");
        assert!(seen.complete);
        let raw = String::from_utf8_lossy(&seen.raw_body).into_owned();
        assert!(!raw.contains("forged"), "chunk extensions are for one hop: {raw:?}");
        assert!(seen.all("content-length").len() + seen.all("transfer-encoding").len() <= 1);
    }
}

#[test]
fn a_cut_request_is_never_whole_for_the_application() {
    let (app, gateway) = gateway();
    for (field, body) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}"));
        drop(wire);
        // A later request over another connection shows that the gateway has gone on.
        gateway.send(&get("/public/later")).assert_status(200, "later");
        for seen in app.take() {
            assert!(!seen.complete || seen.target() == "/public/later", "{field}: {}", seen.line());
        }
    }
}

#[test]
fn an_early_answer_is_seen_and_the_rest_of_the_body_is_no_request() {
    let (app, gateway) = gateway();
    for size in [10_000, 200_000, 1_000_000, 8_000_000] {
        let mut wire = Wire::connect(gateway.address);
        let filler = HIDDEN.repeat(size / HIDDEN.len() + 1);
        wire.write(format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", filler.len()));
        wire.write(&filler);
        wire.write("GET /public/after HTTP/1.1\r\nHost: a\r\n\r\n");
        match wire.read_answer("POST") {
            Ok(answer) => assert_eq!(answer.status, 401, "before the body"),
            // Beyond what the gateway drops, the connection may be reset under the answer.
            Err(error) => assert!(size > 256 << 10, "no early answer at {size}: {error}"),
        }
        // Either the connection ends here, or the next answer is the one to the next request.
        if let Ok(second) = wire.read_answer("GET") {
            assert_eq!(second.text(), "GET /public/after HTTP/1.1", "{size}");
        }
        for seen in app.take() {
            assert_eq!(seen.target(), "/public/after", "{size}");
        }
    }
}
