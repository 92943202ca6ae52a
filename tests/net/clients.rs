//! Clients that are slow, silent or gone, and the drain.

use std::time::Duration;

use portcullis::message::body::End;
use portcullis::message::connection::Stop;
use tokio::sync::mpsc;

use crate::support::{Peer, gateway, gateway_with, limits, pass, recorder, settings, until, upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn each_slow_client_is_closed_in_its_own_time() {
    let upstream = upstream(|mut peer, _| async move {
        while peer.until("\r\n\r\n").await.starts_with("GET ") {
            peer.send(OK).await;
        }
        peer.rest().await;
    })
    .await;
    for (sent, dribble, answer) in [
        ("", "", ""),
        ("\r\n", "\r\n", ""),
        ("GET /a HT", "", "HTTP/1.1 408 "),
        ("GET /a HTTP/1.1\r\nHost: a\r\n", "X", "HTTP/1.1 408 "),
        ("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", "", "HTTP/1.1 408 "),
        ("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "", "HTTP/1.1 408 "),
        (GET, "", "HTTP/1.1 200 "),
        (GET, "\r\n", "HTTP/1.1 200 "),
    ] {
        let mut limits = limits();
        (limits.header_timeout, limits.idle_timeout, limits.body_timeout) = (SHORT, SHORT, SHORT);
        let gateway = gateway_with(upstream, limits, settings()).await;
        let started = tokio::time::Instant::now();
        let mut client = Peer::connect(gateway.address).await;
        client.send(sent).await;
        if !dribble.is_empty() {
            for _ in 0..20 {
                pass(SHORT / 6).await;
                client.send(dribble).await;
            }
        }
        let (got, _) = client.rest().await;
        assert!(got.starts_with(answer) && (answer.is_empty() == got.is_empty()), "{sent:?}: {got:?}");
        assert!(started.elapsed() >= SHORT, "{sent:?}");
        assert!(started.elapsed() < SHORT * 20, "{sent:?}");
    }
}

#[tokio::test]
async fn a_second_head_has_its_own_deadline() {
    let (upstream, _) = recorder(OK).await;
    let mut limits = limits();
    limits.header_timeout = SHORT;
    let gateway = gateway_with(upstream, limits, settings()).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(GET).await;
    client.message().await;
    pass(SHORT * 2).await;
    client.send(GET).await;
    assert!(client.message().await.starts_with("HTTP/1.1 200 "), "between requests only idle_timeout counts");
    client.send("GET /a").await;
    assert!(client.rest().await.0.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_holds_the_upstream_back_meanwhile() {
    let (sent, mut progress) = mpsc::unbounded_channel();
    let address = upstream(move |mut peer, _| {
        let sent = sent.clone();
        async move {
            peer.until("\r\n\r\n").await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n").await;
            let piece = vec![b'x'; 65536];
            for _ in 0..1024 {
                if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &piece).await.is_err() {
                    return;
                }
                sent.send(piece.len()).unwrap();
            }
        }
    })
    .await;
    let mut limits = limits();
    limits.body_timeout = SHORT * 4;
    let gateway = gateway_with(address, limits, settings()).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(GET).await;
    client.until("\r\n\r\n").await;
    until("the end of both", || gateway.census.open() + gateway.backend.open() == 0).await;
    let mut taken = 0;
    while let Ok(count) = progress.try_recv() {
        taken += count;
    }
    // What sockets buffer, and no more: the gateway's own share is a few hundred KiB.
    assert!(taken < 32 << 20, "{taken}");
    assert!(matches!(gateway.ends.lock().unwrap()[..], [(End::Cut, _)]));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_request_along() {
    let (left, mut gone) = mpsc::unbounded_channel();
    let address = upstream(move |mut peer, _| {
        let left = left.clone();
        async move {
            let head = peer.until("\r\n\r\n").await;
            left.send("head").unwrap();
            if head.contains("/streaming") {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
            }
            let (rest, _) = peer.rest().await;
            assert!(!rest.ends_with("0\r\n\r\n"), "a cut upload is not whole: {rest:?}");
            left.send("gone").unwrap();
        }
    })
    .await;
    let gateway = gateway(address).await;
    for request in [
        "GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /streaming HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(request).await;
        assert_eq!(gone.recv().await, Some("head"));
        if request.contains("streaming") {
            client.until("hello").await;
        }
        drop(client);
        assert_eq!(gone.recv().await, Some("gone"), "{request}");
    }
    until("the end of both", || gateway.census.open() + gateway.backend.open() == 0).await;
}

#[tokio::test]
async fn the_drain_lets_requests_end_and_closes_the_rest() {
    let (go, went) = tokio::sync::watch::channel(false);
    let address = upstream(move |mut peer, _| {
        let mut went = went.clone();
        async move {
            while peer.until("\r\n\r\n").await.contains("/quick") {
                peer.send(OK).await;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
            went.wait_for(|go| *go).await.unwrap();
            peer.send("k").await;
            peer.rest().await;
        }
    })
    .await;
    let gateway = gateway(address).await;
    let mut idle = Peer::connect(gateway.address).await;
    idle.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.message().await;
    let mut busy = Peer::connect(gateway.address).await;
    busy.send(GET).await;
    busy.until("\r\n\r\no").await;
    gateway.stop.send(Stop::Drain).unwrap();
    assert_eq!(idle.rest().await, (String::new(), true));
    gateway.accepting.await.unwrap();
    go.send(true).unwrap();
    assert_eq!(busy.rest().await, ("k".into(), true));
    until("the end", || gateway.census.open() == 0).await;
}

#[tokio::test]
async fn a_second_signal_ends_everything() {
    let address = upstream(|mut peer, _| async move {
        peer.rest().await;
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(GET).await;
    while gateway.backend.open() == 0 {
        tokio::task::yield_now().await;
    }
    gateway.stop.send(Stop::Now).unwrap();
    assert_eq!(client.rest().await.0, "");
    assert_eq!(gateway.census.open(), 0);
}
