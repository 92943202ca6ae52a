//! Exchanges over HTTP/1.1 with servers that answer byte for byte what a test says.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::header::UPGRADE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt as _, Collected};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::coop::poll_proceed;

use super::super::Came;
use super::*;
use crate::config::load_text;
use crate::message::added::Added;
use crate::message::headers::IdentityNames;
use crate::metrics::Metrics;

/// A server, and how many connections it has taken.
struct Server {
    http1: Http1,
    connections: Arc<AtomicUsize>,
}

/// The head of an answer whose end comes later.
const CHUNKED_HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// How long the first request in `came` is, if all of it is there.
fn length(came: &[u8]) -> Option<usize> {
    let head = came.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&came[..head]).to_ascii_lowercase();
    let body =
        text.split("content-length: ").nth(1).map_or(0, |rest| rest.split('\r').next().unwrap().parse().unwrap());
    (came.len() >= head + body).then_some(head + body)
}

/// A server that answers every request with `pieces`, each in a write of its own, and closes the connection then if `closes`
/// says so.
async fn server(pieces: &[&'static str], closes: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (pieces, count) = (pieces.to_vec(), Arc::clone(&connections));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            count.fetch_add(1, SeqCst);
            let pieces = pieces.clone();
            tokio::spawn(async move {
                let mut came = Vec::new();
                loop {
                    while length(&came).is_none() {
                        if stream.read_buf(&mut came).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    came.drain(..length(&came).unwrap());
                    assert!(came.is_empty(), "one request at a time");
                    for piece in &pieces {
                        stream.write_all(piece.as_bytes()).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    if closes {
                        return;
                    }
                }
            });
        }
    });
    Server { http1: to(address), connections }
}

/// Connections to the server at `address`.
fn to(address: std::net::SocketAddr) -> Http1 {
    let text = format!(
        "[upstreams]\napp = \"http://{address}\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n"
    );
    let config = load_text(Path::new("gateway.toml"), text, &|_| None).config.unwrap();
    let settings = &config.upstreams[0];
    let backend = Backend::new(settings, settings.servers[0].address.clone(), &Metrics::new(0), None).unwrap();
    Http1::new(backend, 8, Parked::default())
}

impl Server {
    async fn send(&self, method: Method, body: Body) -> Result<Reply, SendError> {
        self.send_at(Instant::now(), method, body).await
    }

    async fn send_at(&self, now: Instant, method: Method, body: Body) -> Result<Reply, SendError> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("app"));
        if let Some(length @ 1..) = body.size_hint().exact() {
            headers.insert("content-length", HeaderValue::from(length));
        }
        let (method, target) = (&method, &PathAndQuery::from_static("/x?y"));
        let (headers, added) = (&mut headers, &Added::default());
        let outgoing = Outgoing { method, target, headers, added, switches: false, is_kept: false, body, now: &now };
        self.http1.send(outgoing).await
    }

    async fn get(&self) -> Result<(http::Response<()>, Collected<Bytes>), String> {
        let reply = self.send(Method::GET, Body::empty()).await.map_err(|error| error.to_string())?;
        let body = body(reply.came).collect().await.map_err(|error| format!("{:?}", error))?;
        Ok((reply.head, body))
    }

    async fn text(&self) -> Result<String, String> {
        let (_, body) = self.get().await?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

fn body(came: Came) -> Body {
    match came {
        Came::Whole(body) => Body::full(body),
        Came::Coming(source) => Body::from_upstream(source, None, None, &Arc::new(IdentityNames::new([]))),
    }
}

#[tokio::test]
async fn a_body_ends_where_its_framing_says_and_the_next_request_has_the_connection() {
    for (pieces, text) in [
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"][..], "hello"),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", "\r\nhe", "llo"], "hello"),
        (&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], ""),
        (&["HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n"], ""),
        (&["HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"], ""),
        (&["HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"], "hello"),
        (
            &[
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "5;a=\"b\"\r",
                "\nhel",
                "lo\r",
                "\n00\r\nx: y\r\n\r",
                "\n",
            ],
            "hello",
        ),
        (&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n4 \r\nello\r\n0\r\n\r\n"], "hello"),
        (
            &[
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n",
                "\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
            ],
            "hi",
        ),
        (&["\r\n\r\nHTTP/1.1 200 OK\r\nempty:\r\n", "content-length:\t2 \r\n\r", "\nh", "i"], "hi"),
        (&["HTTP/1.0 200 OK\r\nconnection: x, Keep-Alive\r\ncontent-length: 2\r\n\r\nhi"], "hi"),
    ] {
        let server = server(pieces, false).await;
        for _ in 0..3 {
            assert_eq!(server.text().await.as_deref(), Ok(text), "{pieces:?}");
        }
        assert_eq!(server.connections(), 1, "{pieces:?}");
    }
}

#[tokio::test]
async fn what_may_not_be_used_again_is_not() {
    for (pieces, text) in [
        // More than the length says: an answer to a request that nobody sent.
        (&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"][..], "hi"),
        (&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"], "hi"),
        (&["HTTP/1.1 204 No Content\r\n\r\nevil"], ""),
        (&["HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nhi"], "hi"),
        (&["HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"], "hi"),
        (&["HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi"], "hi"),
        (&["HTTP/1.0 200 OK\r\nconnection: close, keep-alive\r\ncontent-length: 2\r\n\r\nhi"], "hi"),
    ] {
        let server = server(pieces, false).await;
        for number in 1..4 {
            assert_eq!(server.text().await.as_deref(), Ok(text), "{pieces:?}");
            assert_eq!(server.connections(), number, "{pieces:?}");
        }
    }
}

#[tokio::test]
async fn what_comes_behind_a_large_body_is_nobodys_either() {
    const STRAY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for size in [5_000, 8_000, 20_000, 200_000] {
        let text = "x".repeat(size);
        let by_length = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
        let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n");
        for pieces in [
            vec![format!("{by_length}{text}{STRAY}")],
            vec![by_length.clone(), format!("{text}{STRAY}")],
            vec![by_length.clone(), text[..size / 2].to_owned(), format!("{}{STRAY}", &text[size / 2..])],
            vec![format!("{chunked}{text}\r\n0\r\n\r\n{STRAY}")],
            vec![chunked.clone(), format!("{text}\r\n0\r\n\r\n{STRAY}")],
        ] {
            let pieces: Vec<&'static str> = pieces.into_iter().map(|piece| &*piece.leak()).collect();
            let server = server(&pieces, false).await;
            for number in 1..4 {
                assert!(server.text().await.unwrap() == text, "{size} in {}", pieces.len());
                assert_eq!(server.connections(), number, "{size} in {}", pieces.len());
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_before_it_has_read_all_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http1 = to(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(b"HTTP/1.1 431 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            // Open, and deaf: what is sent stays where it is.
            tokio::spawn(async move { stream.into_std().map(std::mem::forget) });
        }
    });
    let mut headers = HeaderMap::new();
    // More than goes into the buffers of both sides.
    for _ in 0..160 {
        headers.append("x", HeaderValue::from_maybe_shared(Bytes::from("x".repeat(64 * 1024))).unwrap());
    }
    for _ in 0..2 {
        let (method, target) = (&Method::GET, &PathAndQuery::from_static("/"));
        let (headers, added, body, now) = (&mut headers, &Added::default(), Body::empty(), Instant::now());
        let outgoing = Outgoing { method, target, headers, added, switches: false, is_kept: true, body, now: &now };
        let reply = http1.send(outgoing).await.unwrap();
        assert_eq!(reply.head.status(), 431);
        assert!(http1.unused.lock().connections.is_empty(), "the server still waits for the rest");
    }
}

#[tokio::test]
async fn without_a_length_a_body_ends_with_the_connection() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n",
        // What is in doubt is refused by its head; until then it ends with the connection.
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let server = server(&[head, "hel", "lo"], true).await;
        assert_eq!(server.text().await.as_deref(), Ok("hello"), "{head:?}");
        assert_eq!(server.text().await.as_deref(), Ok("hello"), "{head:?}");
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn what_breaks_off_is_no_end() {
    for pieces in [
        &["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello"][..],
        &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"],
        &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhell"],
        &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"],
    ] {
        let server = server(pieces, true).await;
        let reply = server.send(Method::GET, Body::empty()).await.unwrap();
        let mut body = body(reply.came);
        while let Some(frame) = body.frame().await {
            if let Err(error) = frame {
                assert!(format!("{error:?}").contains("Ended"), "{error:?}");
                assert!(!http_body::Body::is_end_stream(&body) || body.frame().await.is_none());
                break;
            }
        }
        let whole = server.text().await;
        assert!(whole.as_ref().is_err_and(|error| error.contains("UpstreamCut(Ended)")), "{pieces:?}: {whole:?}");
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_an_error() {
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "x\r\n",
        "\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 x\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\na b: c\r\n\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let server = server(&[answer.leak()], false).await;
        let text = server.text().await;
        assert!(text.as_ref().is_err_and(|error| error.contains("Chunks")), "{chunks:?}: {text:?}");
    }
    for endless in [format!("5;{}", "x".repeat(20_000)), format!("0\r\n{}", "a: b\r\n".repeat(4_000))] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{endless}");
        let text = server(&[answer.leak()], false).await.text().await;
        assert!(text.is_err_and(|error| error.contains("too l")), "{} bytes", endless.len());
    }
}

#[tokio::test]
async fn trailers_come_with_a_body_in_chunks() {
    let pieces = ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Sum:2\r\n\r\n"];
    let server = server(&pieces, false).await;
    let (_, body) = server.get().await.unwrap();
    let sums: Vec<_> = body.trailers().unwrap().get_all("x-sum").iter().collect();
    assert_eq!(sums, ["1", "2"]);
}

#[tokio::test]
async fn a_head_that_is_none_is_an_error() {
    for (head, fault) in [
        ("HTP/1.1 200 OK\r\n\r\n", "malformed"),
        ("HTTP/1.2 200 OK\r\n\r\n", "malformed"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\na : c\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", "malformed"),
        ("<html>\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", "too large"),
    ] {
        let text = server(&[head], false).await.text().await;
        assert!(text.as_ref().is_err_and(|error| error.contains(fault)), "{head:?}: {text:?}");
    }
    let wide = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(70_000));
    for head in [wide, long] {
        let text = server(&[head.leak()], false).await.text().await;
        assert!(text.as_ref().is_err_and(|error| error.contains("too large")), "{text:?}");
    }
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(101);
    let text = server(&[flood.leak()], false).await.text().await;
    assert!(text.as_ref().is_err_and(|error| error.contains("interim")), "{text:?}");
    let cut = server(&["HTTP/1.1 200 OK\r\n"], true).await.text().await;
    assert!(cut.as_ref().is_err_and(|error| error.contains("closed before")), "{cut:?}");
}

#[tokio::test]
async fn the_words_of_a_status_stay_and_values_are_bytes() {
    let server = server(&["HTTP/1.1 200 Fine So Far\r\nX: \u{e9}\r\nx: 2\r\ncontent-length: 0\r\n\r\n"], false).await;
    let (head, _) = server.get().await.unwrap();
    let reason = head.extensions().get::<hyper::ext::ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Fine So Far");
    let values: Vec<_> = head.headers().get_all("x").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(values, ["\u{e9}".as_bytes(), b"2"]);
}

#[tokio::test]
async fn head_has_no_body_and_a_connection_that_has_carried_one_is_used_again() {
    let head = server(&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"], false).await;
    for _ in 0..2 {
        let reply = head.send(Method::HEAD, Body::empty()).await.unwrap();
        assert!(matches!(reply.came, Came::Whole(body) if body.is_empty()));
    }
    assert_eq!(head.connections(), 1);

    let server = server(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"], false).await;
    for size in [1, 16 * 1024, 16 * 1024 + 1, 200_000] {
        // A large body is sent by a task, which gives the connection back in a moment.
        let carried = async {
            let reply = server.send(Method::POST, Body::full("x".repeat(size))).await.unwrap();
            assert_eq!(body(reply.came).collect().await.unwrap().to_bytes(), "hi");
            while server.http1.unused.lock().connections.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), carried).await.unwrap();
        assert_eq!(server.text().await.as_deref(), Ok("hi"));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_body_is_framed_by_what_it_is_and_not_by_what_its_fields_say() {
    let server = server(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"], false).await;
    for (fields, size) in [
        (&[][..], 5),
        (&[("content-length", "3")], 5),
        (&[("content-length", "30")], 5),
        (&[("content-length", "5"), ("content-length", "3")], 5),
        (&[("transfer-encoding", "chunked")], 5),
        (&[("content-length", "7")], 0),
        (&[("content-length", "0")], 0),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("app"));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let (method, target) = (&Method::POST, &PathAndQuery::from_static("/"));
        let body = Body::full("x".repeat(size));
        let (headers, added, now) = (&mut headers, &Added::default(), Instant::now());
        let outgoing = Outgoing { method, target, headers, added, switches: false, is_kept: true, body, now: &now };
        let reply = server.http1.send(outgoing).await.unwrap();
        assert!(matches!(reply.came, Came::Whole(body) if body == "hi"), "{fields:?}");
        assert_eq!(server.text().await.as_deref(), Ok("hi"), "{fields:?}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn one_that_was_unused_for_too_long_when_a_request_is_sent_is_not_used() {
    for pieces in [&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"][..], &[CHUNKED_HEAD, "2\r\nhi\r\n0\r\n\r\n"]] {
        let server = server(pieces, false).await;
        let idle = server.http1.unused.idle;
        assert_eq!(server.text().await.as_deref(), Ok("hi"));
        let over = Instant::now();
        for (later, connections) in
            [(Duration::ZERO, 1), (idle - Duration::from_secs(9), 1), (idle + Duration::from_secs(9), 2)]
        {
            let reply = server.send_at(over + later, Method::GET, Body::empty()).await.unwrap();
            // What stamps it is when it was over, whatever it was judged by.
            assert!(reply.back <= Instant::now() && reply.back >= over);
            assert_eq!(body(reply.came).collect().await.unwrap().to_bytes(), "hi");
            assert_eq!(server.connections(), connections, "{later:?} later");
        }
    }
}

#[tokio::test]
async fn one_that_closed_unused_is_not_used_and_one_that_closes_at_the_request_is_stale() {
    let server = server(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"], true).await;
    for number in 1..4 {
        // Whether its end has been heard of by now or not.
        let mut again = 0;
        while let Err(error) = server.send(Method::GET, Body::empty()).await {
            assert!(error.is_stale(), "{error}");
            again += 1;
            assert!(again < 2);
        }
        assert_eq!(server.connections(), number);
    }
}

#[tokio::test]
async fn a_large_body_comes_whole_and_leaves_no_large_room_behind() {
    let text: &'static str = "0123456789abcdef".repeat(64 * 1024).leak();
    let head: &'static str = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len()).leak();
    let server = server(&[head, text], false).await;
    for _ in 0..2 {
        assert!(server.text().await.unwrap() == text);
    }
    assert_eq!(server.connections(), 1);
    let kept = server.http1.unused.lock().connections.pop().unwrap().0;
    assert!(kept.room_kept() <= 16 * 1024, "{}", kept.room_kept());
}

#[tokio::test]
async fn a_task_that_has_had_its_turn_gets_its_answer_all_the_same() {
    let server = server(&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe", "llo"], false).await;
    // tokio gives a task 128 steps at a time: the turn ends at another one of them each time. Without a step none goes on.
    for spent in 80..128 {
        let mut whole = pin!(server.text());
        let spending = poll_fn(|cx| {
            for _ in 0..spent {
                let Poll::Ready(step) = poll_proceed(cx) else { break };
                step.made_progress();
            }
            whole.as_mut().poll(cx)
        });
        let body = tokio::time::timeout(Duration::from_secs(5), spending).await;
        assert_eq!(body.unwrap_or_else(|_| panic!("{spent}: nobody was woken")).as_deref(), Ok("hello"));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn whoever_leaves_before_the_answer_takes_the_connection_along() {
    let server = server(&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe"], false).await;
    let reply = server.send(Method::GET, Body::empty()).await.unwrap();
    drop(reply);
    let mut asking = Box::pin(server.send(Method::GET, Body::empty()));
    let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut asking).poll(cx).is_pending())).await;
    drop(asking);
    assert!(server.http1.unused.lock().connections.is_empty());
}

/// What the gateway says of who is there must be the only word of it, however the request goes out.
#[tokio::test]
async fn what_is_added_is_sent_in_the_place_of_what_was_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http1 = to(listener.local_addr().unwrap());
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = said.clone();
            tokio::spawn(async move {
                let mut came = Vec::new();
                while stream.read_buf(&mut came).await.unwrap_or(0) > 0 {
                    if let Some(length) = length(&came) {
                        said.send(String::from_utf8(came.drain(..length).collect()).unwrap()).unwrap();
                        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                    }
                }
            });
        }
    });
    let user = http::HeaderName::from_static("x-forwarded-user");
    let mut added = Added::with_room();
    added.set(&user, HeaderValue::from_static("alice"));
    let added = &added;
    // By the exchange of our own, and by hyper, which asks for another protocol.
    for asks in [None, Some("other")] {
        let mut headers = HeaderMap::new();
        headers.append(&user, HeaderValue::from_static("mallory"));
        headers.append(&user, HeaderValue::from_static("eve"));
        headers.insert("x-forwarded-uses", HeaderValue::from_static("1"));
        if let Some(asks) = asks {
            headers.insert(UPGRADE, HeaderValue::from_static(asks));
        }
        for is_kept in [true, false] {
            let (method, target) = (&Method::GET, &PathAndQuery::from_static("/"));
            let outgoing = Outgoing {
                method,
                target,
                headers: &mut headers,
                added,
                switches: asks.is_some(),
                is_kept,
                body: Body::empty(),
                now: &Instant::now(),
            };
            assert_eq!(http1.send(outgoing).await.unwrap().head.status(), 204);
            let request = heard.recv().await.unwrap();
            assert_eq!(request.matches("x-forwarded-user: ").count(), 1, "{request}");
            assert!(request.contains("\r\nx-forwarded-user: alice\r\n"), "{request}");
            assert!(request.contains("\r\nx-forwarded-uses: 1\r\n"), "{request}");
        }
    }
}
