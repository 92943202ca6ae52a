//! Framing on the client's side: what is refused, what goes on, and that one request is never two.

use crate::support::{Peer, gateway, gateway_with, limits, recorder, settings, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_ambiguous_request_is_refused_and_reaches_nobody() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let heads = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 18446744073709551616",
        "Content-Length: 0x5",
        "Content-Length: ",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: x",
        "Transfer-Encoding : chunked",
        "A: b\r\n folded: c",
        " A: b",
        ": empty",
        "no colon",
        "A: b\rC: d",
        "A: \x01",
    ];
    for head in heads {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}")).await;
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer:?}");
    }
    for line in [
        "GET /a#b HTTP/1.1",
        "GET #/../admin HTTP/1.1",
        "GET /public#/../admin HTTP/1.1",
        "GET /a HTTP/1.2",
        "get  /a HTTP/1.1",
    ] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("{line}\r\nHost: a\r\n\r\n{smuggled}")).await;
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{line:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{line:?}: {answer:?}");
    }
    let mut client = Peer::connect(gateway.address).await;
    client.send("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert!(client.rest().await.0.starts_with("HTTP/1.1 400 "));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_broken_chunk_is_the_clients_fault_and_never_a_whole_request() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(70_000));
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\rhello\r0\r\r",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        &long,
    ] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
        let (answer, _) = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{:?}: {answer:?}", body.get(..40).unwrap_or(body));
        assert!(!String::from_utf8_lossy(&seen.lock().unwrap()).contains("0\r\n\r\n"), "{body:?}");
        seen.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn what_goes_on_is_framed_anew() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let mut client = Peer::connect(gateway.address).await;
    client
        .send(
            "POST /a?b=%zz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: x-forwarded-user\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
             5;ext=1\r\nhello\r\n0\r\nX-Forwarded-User: mallory\r\n\r\n",
        )
        .await;
    assert!(client.message().await.ends_with("\r\n\r\nok"));
    let sent = String::from_utf8(std::mem::take(&mut *seen.lock().unwrap())).unwrap();
    assert!(sent.starts_with("POST /a?b=%zz HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{sent}");
    assert_eq!(sent.to_lowercase().matches("transfer-encoding: chunked").count(), 1, "{sent}");
    for gone in ["ext", "mallory", "x-hop", "trailer"] {
        assert!(!sent.to_lowercase().contains(gone), "{gone} in {sent}");
    }
    client.send("GET /c HTTP/1.1\nHost: a\n\n").await;
    assert!(client.message().await.starts_with("HTTP/1.1 200 "));
    assert!(seen.lock().unwrap().starts_with(b"GET /c HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_length_beside_chunked_closes_after_the_answer() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let mut client = Peer::connect(gateway.address).await;
    client
        .send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let (answer, _) = client.rest().await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(!sent.contains("smuggled") && !sent.to_lowercase().contains("content-length"), "{sent}");
}

#[tokio::test]
async fn an_early_answer_is_seen_although_a_megabyte_is_not_read() {
    let (upstream, _) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    for head in ["Content-Length: 1048576", "Transfer-Encoding: chunked"] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("POST /denied HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).await;
        if head.starts_with('T') {
            client.send("100000\r\n").await;
        }
        client.send(vec![b'x'; 1_048_576]).await;
        assert!(client.message().await.contains(" 401 "), "{head}");
    }
}

#[tokio::test]
async fn a_request_behind_an_unread_body_gets_its_own_answer() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    for body in [
        "Content-Length: 60\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX-Pad: 0123456789012345\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("POST /denied HTTP/1.1\r\nHost: a\r\n{body}GET /own HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(client.message().await.contains(" 401 "));
        assert!(client.message().await.starts_with("HTTP/1.1 200 "), "{body}");
    }
    let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert_eq!((sent.matches("GET /own").count(), sent.contains("smuggled")), (2, false), "{sent}");
}

#[tokio::test]
async fn who_expects_a_100_gets_none_where_the_body_is_not_wanted() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let head = "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut client = Peer::connect(gateway.address).await;
    client.send(format!("POST /denied HTTP/1.1\r\nHost: a\r\n{head}")).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close"), "{answer}");
    drop(client);
    let mut client = Peer::connect(gateway.address).await;
    client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{head}")).await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert!(client.message().await.starts_with("HTTP/1.1 200 "));
    assert!(!String::from_utf8_lossy(&seen.lock().unwrap()).to_lowercase().contains("expect"));
}

#[tokio::test]
async fn a_hundred_pipelined_requests_are_answered_one_by_one() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let mut client = Peer::connect(gateway.address).await;
    let all: String = (0..100).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(all).await;
    for _ in 0..100 {
        assert!(client.message().await.ends_with("\r\n\r\nok"));
    }
    let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    let order: Vec<u32> =
        sent.lines().filter_map(|line| line.strip_prefix("GET /")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(order, (0..100).collect::<Vec<u32>>());
}

#[tokio::test]
async fn a_fragment_in_a_pipelined_request_is_seen_too() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    for first in [
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("{first}GET /b#c HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(client.message().await.starts_with("HTTP/1.1 200 "));
        assert!(client.message().await.starts_with("HTTP/1.1 400 "));
    }
    assert!(!String::from_utf8_lossy(&seen.lock().unwrap()).contains("/b"));
}

#[tokio::test]
async fn limits_have_clear_answers() {
    let (upstream, _) = recorder(OK).await;
    let mut limits = limits();
    limits.body_bytes = Some(10);
    limits.header_bytes = 8192;
    limits.headers = 20;
    let gateway = gateway_with(upstream, limits, settings()).await;
    let many: String = (0..30).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("A: {}\r\n", "x".repeat(10_000));
    for (head, body, status) in [
        ("Content-Length: 11\r\n", "hello world", "413"),
        ("Transfer-Encoding: chunked\r\n", "b\r\nhello world\r\n0\r\n\r\n", "413"),
        ("Content-Length: 10\r\n", "hello worl", "200"),
        (&many, "", "431"),
        (&large, "", "431"),
    ] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{head}\r\n{body}")).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let (upstream, _) = recorder(OK).await;
    let mut limits = limits();
    limits.connections = 1;
    let gateway = gateway_with(upstream, limits, settings()).await;
    let mut first = Peer::connect(gateway.address).await;
    first.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.message().await;
    let mut second = Peer::connect(gateway.address).await;
    assert!(second.rest().await.0.starts_with("HTTP/1.1 503 "));
    drop(first);
    until("the end", || gateway.census.open() == 0).await;
    let mut third = Peer::connect(gateway.address).await;
    third.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(third.message().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn answers_come_in_order_wherever_the_stream_of_requests_is_cut() {
    let (upstream, seen) = recorder(OK).await;
    let gateway = gateway(upstream).await;
    let requests = [
        ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        ("POST /denied HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /no HTTP/1.1\r\nA: b\r\n\r\n", "401"),
        ("POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: u\r\n\r\n", "200"),
        ("\r\nGET /3 HTTP/1.1\nHost: a\n\n", "200"),
        ("POST /denied HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "401"),
        ("GET /4#5 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ];
    let stream: String = requests.iter().map(|(request, _)| *request).collect();
    for cut in 0..stream.len() {
        seen.lock().unwrap().clear();
        let mut client = Peer::connect(gateway.address).await;
        let (first, second) = stream.split_at(cut);
        client.send(first).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        client.send(second).await;
        for (request, status) in requests {
            let answer = client.message().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "cut at {cut}, {request:?}: {answer:?}");
        }
        let sent = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
        assert!(!sent.contains("/no") && !sent.contains("/4"), "cut at {cut}: {sent}");
    }
}
