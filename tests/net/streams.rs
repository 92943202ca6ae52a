//! Streams: large bodies both ways, events as they come, upgrades.

use portcullis::message::body::End;
use portcullis::message::connection::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Peer, gateway, recorder, upstream};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const LARGE: usize = 64 << 20;

#[tokio::test]
async fn a_large_download_passes_whole() {
    let address = upstream(|mut peer, _| async move {
        peer.until("\r\n\r\n").await;
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..LARGE >> 20 {
            peer.send(&piece).await;
        }
        peer.rest().await;
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("\r\n\r\n").await;
    let mut left = LARGE - client.read.len();
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let count = client.stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{left} bytes short");
        left -= count;
    }
    drop(client);
    while gateway.ends.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.ends.lock().unwrap()[..], [(End::Whole, LARGE as u64)]);
}

#[tokio::test]
async fn a_large_upload_passes_whole_framed_either_way() {
    let address = upstream(|mut peer, _| async move {
        loop {
            let head = peer.until("\r\n\r\n").await.to_lowercase();
            let mut last = std::mem::take(&mut peer.read);
            let mut count = last.len();
            let mut buffer = vec![0; 1 << 16];
            while !(last.ends_with(b"0\r\n\r\n") || (head.contains("content-length") && count == LARGE)) {
                let read = peer.stream.read(&mut buffer).await.unwrap();
                assert!(read > 0);
                count += read;
                last.extend_from_slice(&buffer[..read]);
                last.drain(..last.len().saturating_sub(8));
            }
            assert!(count >= LARGE);
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole").await;
        }
    })
    .await;
    let gateway = gateway(address).await;
    let piece = vec![b'x'; 1 << 20];
    let mut client = Peer::connect(gateway.address).await;
    client.send(format!("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    for _ in 0..LARGE >> 20 {
        client.send(&piece).await;
    }
    assert!(client.message().await.ends_with("whole"));
    client = Peer::connect(gateway.address).await;
    client.send("PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..LARGE >> 20 {
        client.send("100000\r\n").await;
        client.send(&piece).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert!(client.message().await.ends_with("whole"));
}

#[tokio::test]
async fn events_pass_as_they_come() {
    let (tell, told) = tokio::sync::watch::channel(0);
    let address = upstream(move |mut peer, _| {
        let mut told = told.clone();
        async move {
            peer.until("\r\n\r\n").await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for number in 1..=3 {
                told.wait_for(|told| *told >= number).await.unwrap();
                peer.send(format!("9\r\ndata: {number}\n\n\r\n")).await;
            }
            peer.send("0\r\n\r\n").await;
            peer.rest().await;
        }
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("\r\n\r\n").await;
    for number in 1..=3 {
        tell.send(number).unwrap();
        client.until(&format!("data: {number}\n\n\r\n")).await;
    }
    client.until("0\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_of_an_answer_pass_to_who_asked_for_them() {
    let (address, _) = recorder(
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    client.until("2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n").await;
}

#[tokio::test]
async fn a_tunnel_passes_bytes_both_ways_but_none_before_the_101() {
    let (go, went) = tokio::sync::watch::channel(false);
    let address = upstream(move |mut peer, _| {
        let mut went = went.clone();
        async move {
            let head = peer.until("\r\n\r\n").await.to_lowercase();
            assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
            went.wait_for(|go| *go).await.unwrap();
            let early = peer.stream.try_read(&mut [0; 64]);
            assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            peer.send(SWITCH).await;
            peer.send("welcome").await;
            peer.until("early bird").await;
            peer.send("echo").await;
            peer.stream.shutdown().await.unwrap();
            assert_eq!(peer.rest().await.0, "last words");
        }
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(format!("{UPGRADE}early bird")).await;
    while gateway.backend.open() == 0 {
        tokio::task::yield_now().await;
    }
    go.send(true).unwrap();
    let head = client.until("\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: s3pplmbitxaq"), "{head}");
    client.until("welcomeecho").await;
    assert_eq!((gateway.tunnels.open(), gateway.census.open()), (1, 1));
    client.send("last words").await;
    client.stream.shutdown().await.unwrap();
    client.rest().await;
    gateway.tunnels.all_closed().await;
    while gateway.backend.open() + gateway.census.open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_drain_closes_tunnels() {
    let address = upstream(|mut peer, _| async move {
        peer.until("\r\n\r\n").await;
        peer.send(SWITCH).await;
        peer.rest().await;
    })
    .await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(UPGRADE).await;
    client.until("\r\n\r\n").await;
    gateway.stop.send(Stop::Drain).unwrap();
    client.rest().await;
    gateway.tunnels.all_closed().await;
    assert_eq!(gateway.tunnels.opened(), 1);
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_does_not_want_is_an_ordinary_answer() {
    let (address, seen) = recorder("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = gateway(address).await;
    let mut client = Peer::connect(gateway.address).await;
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    for _ in 0..2 {
        assert!(client.message().await.ends_with("\r\n\r\nok"));
    }
    client.send("GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n").await;
    assert!(client.message().await.ends_with("\r\n\r\nok"));
    let sent = String::from_utf8_lossy(&seen.lock().unwrap()).to_lowercase();
    let last = sent.split("/h2c").nth(1).unwrap();
    assert!(!last.contains("upgrade") && !last.contains("http2-settings"), "{last}");
    assert_eq!(gateway.tunnels.opened(), 0);
}
