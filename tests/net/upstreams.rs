//! Upstreams that are down, slow, broken or malicious: the client always gets an answer, and no cut body as if
//! it were whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portcullis::message::body::End;
use tokio::net::TcpListener;

use crate::support::{Peer, gateway, gateway_with, limits, pass, settings, upstream};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn an_upstream_that_is_down_is_a_502_and_the_client_may_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    for request in [GET, POST, GET] {
        client.send(request).await;
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_a_504_and_never_tried_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    let address = upstream(move |mut peer, _| {
        let count = count.clone();
        async move {
            peer.until("\r\n\r\n").await;
            count.fetch_add(1, SeqCst);
            peer.rest().await;
        }
    })
    .await;
    let mut settings = settings();
    settings.timeouts.response = SHORT;
    let gateway = gateway_with(address, limits(), settings).await;
    for request in [GET, POST] {
        let mut client = Peer::connect(gateway.address).await;
        client.send(request).await;
        assert!(client.message().await.starts_with("HTTP/1.1 504 "));
    }
    assert_eq!(tries.load(SeqCst), 2);
}

#[tokio::test]
async fn a_client_that_is_slow_to_send_is_not_the_upstreams_fault() {
    let (arrived, mut arrives) = tokio::sync::mpsc::unbounded_channel();
    let address = upstream(move |mut peer, _| {
        let arrived = arrived.clone();
        async move {
            peer.until("\r\n\r\n").await;
            for byte in ["h", "e", "l", "l", "o"] {
                peer.until(byte).await;
                arrived.send(byte).unwrap();
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            peer.rest().await;
        }
    })
    .await;
    let mut settings = settings();
    settings.timeouts.response = SHORT;
    let gateway = gateway_with(address, limits(), settings).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    for byte in ["h", "e", "l", "l", "o"] {
        pass(SHORT / 2).await;
        client.send(byte).await;
        assert_eq!(arrives.recv().await, Some(byte));
    }
    assert!(client.message().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn what_comes_of_a_body_with_its_head_goes_on_before_the_rest_comes() {
    let (arrived, mut arrives) = tokio::sync::mpsc::unbounded_channel();
    let address = upstream(move |mut peer, _| {
        let arrived = arrived.clone();
        async move {
            for _ in 0..2 {
                peer.until("\r\n\r\nhe").await;
                arrived.send(()).unwrap();
                peer.until("llo").await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
            peer.rest().await;
        }
    })
    .await;
    let gateway = gateway_with(address, limits(), settings()).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await;
    arrives.recv().await.unwrap();
    client.send("llo").await;
    assert!(client.message().await.starts_with("HTTP/1.1 200 "));
    // Whole with its head, over the connection that is there now.
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    arrives.recv().await.unwrap();
    assert!(client.message().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_a_502_and_its_connection_goes() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(2000));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: foo\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 099 No\r\n\r\n",
        "HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 1000 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "hello\r\n\r\n",
        "\0\0\0\0",
        "",
        &long,
        &many,
    ] {
        let bytes = answer.to_owned();
        let address = upstream(move |mut peer, number| {
            let bytes = bytes.clone();
            async move {
                peer.until("\r\n\r\n").await;
                if number > 0 {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
                    peer.rest().await;
                    return;
                }
                peer.send(bytes).await;
            }
        })
        .await;
        let gateway = gateway(address).await;
        let mut client = Peer::connect(gateway.address).await;
        client.send(GET).await;
        let shown = answer.get(..60).unwrap_or(answer);
        let got = client.message().await;
        assert!(got.starts_with("HTTP/1.1 502 "), "{shown:?}: {got:?}");
        client.send(GET).await;
        assert!(client.message().await.ends_with("\r\n\r\ngood"), "{shown:?}");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_never_reach_the_next_client() {
    for first in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let address = upstream(move |mut peer, number| async move {
            peer.until("\r\n\r\n").await;
            peer.send(if number == 0 { first } else { "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" }).await;
            peer.rest().await;
        })
        .await;
        let gateway = gateway(address).await;
        let mut client = Peer::connect(gateway.address).await;
        client.send(GET).await;
        let head = client.until("\r\n\r\n").await;
        if head.contains("content-length: 2") {
            client.until("ok").await;
        }
        assert!(!head.contains("204") || !head.contains("content-length"), "{head}");
        client.send(GET).await;
        assert!(client.message().await.ends_with("\r\n\r\ngood"), "{first:?}");
    }
}

#[tokio::test]
async fn a_cut_body_never_ends_as_if_it_were_whole() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let address = upstream(move |mut peer, _| async move {
            peer.until("\r\n\r\n").await;
            peer.send(head).await;
            peer.send("hel").await;
        })
        .await;
        let gateway = gateway(address).await;
        let mut client = Peer::connect(gateway.address).await;
        client.send(GET).await;
        let (answer, _) = client.rest().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(!answer.contains("0\r\n\r\n") || answer.contains("content-length: 100"), "{head:?}: {answer:?}");
        assert!(matches!(gateway.ends.lock().unwrap()[..], [(End::Cut, _)]), "{head:?}");
    }
}

#[tokio::test]
async fn a_client_that_knows_no_framing_sees_a_cut_as_a_reset() {
    for (body, in_order) in [("5\r\nhello\r\n0\r\n\r\n", true), ("5\r\nhello\r\n", false)] {
        let address = upstream(move |mut peer, _| async move {
            peer.until("\r\n\r\n").await;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            peer.send(body).await;
        })
        .await;
        let gateway = gateway(address).await;
        let mut client = Peer::connect(gateway.address).await;
        client.send("GET /a HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let (answer, ended_in_order) = client.rest().await;
        assert_eq!(ended_in_order, in_order, "{answer:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_amid_its_body_is_cut_where_a_limit_is_set() {
    let address = upstream(|mut peer, _| async move {
        peer.until("\r\n\r\n").await;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        peer.rest().await;
    })
    .await;
    let mut settings = settings();
    settings.timeouts.between = Some(SHORT);
    let gateway = gateway_with(address, limits(), settings).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(GET).await;
    let (answer, _) = client.rest().await;
    assert!(answer.ends_with("5\r\nhello\r\n"), "{answer:?}");
}

#[tokio::test]
async fn a_used_connection_that_closes_is_replaced_for_a_safe_request_only() {
    for (method, status, connections) in [("GET", 200, 2), ("HEAD", 200, 2), ("DELETE", 502, 1), ("POST", 502, 1)] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let address = upstream(move |mut peer, _| {
            let count = count.clone();
            async move {
                count.fetch_add(1, SeqCst);
                peer.until("\r\n\r\n").await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                // The next request is read, and the connection closed without an answer.
                peer.until("\r\n\r\n").await;
            }
        })
        .await;
        let gateway = gateway(address).await;
        let mut client = Peer::connect(gateway.address).await;
        client.send(GET).await;
        client.message().await;
        client.send(format!("{method} /a HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.message().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method}: {answer}");
        assert_eq!(seen.load(SeqCst), connections, "{method}");
    }
}

#[tokio::test]
async fn a_new_connection_that_closes_is_not_tried_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let address = upstream(move |mut peer, _| {
        let count = count.clone();
        async move {
            peer.until("\r\n\r\n").await;
            count.fetch_add(1, SeqCst);
        }
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(GET).await;
    assert!(client.message().await.starts_with("HTTP/1.1 502 "));
    assert_eq!(seen.load(SeqCst), 1);
}

#[tokio::test]
async fn what_comes_before_an_answer_is_not_the_answer() {
    let address = upstream(|mut peer, _| async move {
        loop {
            peer.until("\r\n\r\n").await;
            peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            peer.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(98)).await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    for _ in 0..2 {
        client.send(GET).await;
        let answer = client.message().await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    }
}

#[tokio::test]
async fn more_requests_than_may_wait_are_a_503() {
    let address = upstream(|mut peer, _| async move {
        peer.until("\r\n\r\n").await;
        peer.rest().await;
    })
    .await;
    let mut settings = settings();
    settings.limits.connections = 1;
    settings.limits.pending = 0;
    let gateway = gateway_with(address, limits(), settings).await;
    let mut first = Peer::connect(gateway.address).await;
    first.send(GET).await;
    while gateway.backend.open() == 0 {
        tokio::task::yield_now().await;
    }
    let mut second = Peer::connect(gateway.address).await;
    second.send(GET).await;
    let answer = second.message().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn a_head_answer_keeps_the_length_it_names() {
    let address = upstream(|mut peer, _| async move {
        loop {
            peer.until("\r\n\r\n").await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    for _ in 0..2 {
        client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await;
        assert!(head.contains("content-length: 12345") && head.contains("01 Jan 1970"), "{head}");
    }
}
