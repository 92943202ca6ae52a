//! Connections that wait without hyper: when they do, and that nobody can tell. Time goes on only when a test says so.

use std::sync::mpsc;
use std::time::Duration;

use portcullis::config::Limits;
use portcullis::message::connection::Stop;
use tokio::time::advance;

use crate::support::{Gateway, Peer, gateway_with, limits, recorder, settings, upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
/// How long after its last answer a connection is parked.
const AFTER: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(5);

/// Time that does not go on by itself: the runtime leaves it alone while a blocking task is there.
pub(crate) struct Stopped(
    #[expect(dead_code, reason = "what ends the blocking task when it is dropped")] mpsc::Sender<()>,
);

pub(crate) fn stop_time() -> Stopped {
    let (held, released) = mpsc::channel();
    tokio::task::spawn_blocking(move || released.recv());
    tokio::time::pause();
    Stopped(held)
}

/// Has all tasks do what they can do now.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn pass(time: Duration) {
    advance(time).await;
    settle().await;
}

/// How often the connection that asked last has waited without hyper.
fn parkings(gateway: &Gateway) -> u32 {
    gateway.link.lock().unwrap().as_ref().unwrap().parkings()
}

async fn start(limits: Limits) -> Gateway {
    let (upstream, _) = recorder(OK).await;
    gateway_with(upstream, limits, settings()).await
}

async fn ask(client: &mut Peer) {
    client.send(GET).await;
    assert!(client.message().await.starts_with("HTTP/1.1 200 "));
    settle().await;
}

#[tokio::test]
async fn a_connection_is_parked_soon_after_its_last_answer_and_answers_again() {
    let gateway = start(limits()).await;
    let _stopped = stop_time();
    let mut client = Peer::connect(gateway.address).await;
    for round in 0..3 {
        ask(&mut client).await;
        pass(AFTER - MOMENT).await;
        assert_eq!(parkings(&gateway), round, "too early");
        // What it does meanwhile puts it off.
        ask(&mut client).await;
        pass(AFTER - MOMENT).await;
        assert_eq!(parkings(&gateway), round, "it is not idle for long enough yet");
        pass(MOMENT * 2).await;
        assert_eq!(parkings(&gateway), round + 1);
        pass(SECOND * 3).await;
        assert_eq!(parkings(&gateway), round + 1, "nothing wakes it");
    }
    assert_eq!(gateway.census.open(), 1, "all the same connection");
}

#[tokio::test]
async fn the_idle_time_counts_from_the_last_answer_whatever_wakes_a_parked_connection() {
    let gateway = start(Limits { idle_timeout: SECOND * 10, ..limits() }).await;
    let _stopped = stop_time();
    let mut client = Peer::connect(gateway.address).await;
    ask(&mut client).await;
    for woken in 1..=4 {
        pass(SECOND * 2).await;
        assert_eq!(parkings(&gateway), woken);
        client.send("\r\n").await;
        settle().await;
    }
    pass(SECOND * 2 - MOMENT).await;
    assert_eq!(gateway.census.open(), 1);
    pass(MOMENT * 2).await;
    assert_eq!(client.rest().await, (String::new(), true));
    assert_eq!(gateway.census.open(), 0);
}

#[tokio::test]
async fn empty_lines_before_and_after_it_is_parked_are_part_of_no_request() {
    let gateway = start(limits()).await;
    let _stopped = stop_time();
    let mut client = Peer::connect(gateway.address).await;
    ask(&mut client).await;
    for (before, after) in [("\r\n", ""), ("", "\r\n"), ("\r", "\n"), ("\r\n\r\n\r", "\n\r\n")] {
        let so_far = parkings(&gateway);
        client.send(before).await;
        settle().await;
        pass(SECOND * 2).await;
        assert_eq!(parkings(&gateway), so_far + 1, "{before:?}");
        client.send(after).await;
        settle().await;
        ask(&mut client).await;
    }
}

#[tokio::test]
async fn a_head_has_its_deadline_from_its_first_byte_after_a_pause() {
    let gateway = start(Limits { header_timeout: SECOND * 3, ..limits() }).await;
    let _stopped = stop_time();
    let mut client = Peer::connect(gateway.address).await;
    ask(&mut client).await;
    pass(SECOND * 5).await;
    assert_eq!(parkings(&gateway), 1);
    client.send("GET /a HT").await;
    settle().await;
    pass(SECOND * 3 - MOMENT).await;
    assert_eq!(gateway.census.open(), 1);
    pass(MOMENT * 2).await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 408 "));
    assert_eq!(parkings(&gateway), 1, "a head that has begun is not parked");
}

#[tokio::test]
async fn a_drain_and_an_end_close_parked_connections_at_once() {
    let gateways = [(start(limits()).await, Stop::Drain), (start(limits()).await, Stop::Now)];
    let _stopped = stop_time();
    for (gateway, stop) in gateways {
        let mut client = Peer::connect(gateway.address).await;
        ask(&mut client).await;
        pass(SECOND * 2).await;
        assert_eq!(parkings(&gateway), 1);
        gateway.stop.send(stop).unwrap();
        assert_eq!(client.rest().await, (String::new(), true), "{stop:?}");
        drop(client);
        settle().await;
        assert_eq!(gateway.census.open(), 0, "{stop:?}");
        gateway.accepting.await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_its_connection_is_parked_is_noticed() {
    let gateway = start(limits()).await;
    let _stopped = stop_time();
    for is_reset in [false, true] {
        let mut client = Peer::connect(gateway.address).await;
        ask(&mut client).await;
        pass(SECOND * 2).await;
        assert_eq!((parkings(&gateway), gateway.census.open()), (1, 1));
        if is_reset {
            socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        settle().await;
        assert_eq!(gateway.census.open(), 0);
    }
}

#[tokio::test]
async fn nothing_is_parked_that_is_in_progress() {
    let (go, went) = tokio::sync::watch::channel(false);
    let address = upstream(move |mut peer, _| {
        let mut went = went.clone();
        async move {
            peer.until("\r\n\r\n").await;
            went.wait_for(|go| *go).await.unwrap();
            peer.send(OK).await;
            peer.rest().await;
        }
    })
    .await;
    let gateway = gateway_with(address, limits(), settings()).await;
    let _stopped = stop_time();
    let mut waiting = Peer::connect(gateway.address).await;
    waiting.send(GET).await;
    settle().await;
    pass(SECOND * 5).await;
    assert_eq!(parkings(&gateway), 0, "a request in progress");
    go.send(true).unwrap();
    assert!(waiting.message().await.starts_with("HTTP/1.1 200 "));

    // Refused without its body, of which the rest does not come.
    let mut uploading = Peer::connect(gateway.address).await;
    uploading.send("POST /denied HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await;
    assert!(uploading.message().await.starts_with("HTTP/1.1 401 "));
    settle().await;
    pass(SECOND * 2).await;
    assert_eq!(parkings(&gateway), 0, "a body that is not whole");
}

#[tokio::test]
async fn an_answer_that_is_not_taken_yet_keeps_its_connection_awake() {
    const LONG: usize = 16 << 20;
    let address = upstream(|mut peer, _| async move {
        peer.until("\r\n\r\n").await;
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")).await;
        peer.send(vec![b'x'; LONG]).await;
        peer.rest().await;
    })
    .await;
    let gateway = gateway_with(address, limits(), settings()).await;
    let _stopped = stop_time();
    let mut client = Peer::connect(gateway.address).await;
    client.send(GET).await;
    client.until("\r\n\r\n").await;
    settle().await;
    pass(SECOND * 5).await;
    assert_eq!(parkings(&gateway), 0);
    let mut left = LONG - client.read.len();
    client.read.clear();
    while left > 0 {
        left -= tokio::io::AsyncReadExt::read_buf(&mut client.stream, &mut client.read).await.unwrap();
        client.read.clear();
    }
    settle().await;
    pass(SECOND * 2).await;
    assert_eq!(parkings(&gateway), 1);
}

pub(crate) const ROUNDS: usize = 600;

/// Sends `bytes` around the moment when a connection that was just used is parked: each round in another way.
pub(crate) async fn send_around_parking(round: usize, bytes: &[u8], mut send: impl AsyncFnMut(&[u8])) {
    let (first, second) = bytes.split_at(round * 7 % (bytes.len() + 1));
    match round % 6 {
        // A moment before it.
        0 => {
            advance(AFTER - Duration::from_millis(1)).await;
            send(bytes).await;
        }
        // Between the timer and the last of what it leads to.
        1 | 2 => {
            advance(AFTER + Duration::from_millis(1)).await;
            for _ in 0..round / 3 % 6 {
                tokio::task::yield_now().await;
            }
            send(bytes).await;
        }
        // To one that is parked, in two pieces.
        3 => {
            pass(AFTER + MOMENT).await;
            send(first).await;
            settle().await;
            send(second).await;
        }
        // There already when the time has come, whole or in part.
        4 => {
            send(bytes).await;
            advance(AFTER).await;
        }
        _ => {
            send(first).await;
            advance(AFTER).await;
            send(second).await;
        }
    }
}

/// A request may come at any moment around the one when its connection is parked: before it, with it, after it, in pieces
/// on both sides, and two at once.
#[tokio::test]
async fn no_request_is_lost_around_the_moment_of_parking() {
    let address = upstream(|mut peer, _| async move {
        loop {
            let head = peer.until("\r\n\r\n").await;
            let path = head.split(' ').nth(1).unwrap().to_owned();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let gateway = gateway_with(address, limits(), settings()).await;
    let _stopped = stop_time();
    let mut client = Peer::connect(gateway.address).await;
    ask(&mut client).await;
    let mut number = 0;
    let mut parked = 0;
    for round in 0..ROUNDS {
        let two = [number + 1, number + 2].map(|each| format!("GET /{each} HTTP/1.1\r\nHost: a\r\n\r\n")).concat();
        number += 2;
        send_around_parking(round, two.as_bytes(), async |bytes| client.send(bytes).await).await;
        for each in [number - 1, number] {
            let answer = client.message().await;
            assert!(answer.ends_with(&format!("\r\n\r\n/{each}")), "round {round}: {answer}");
        }
        settle().await;
        parked = parkings(&gateway);
    }
    assert!(parked > ROUNDS as u32 / 4, "{parked} of {ROUNDS} times parked");
    assert_eq!(gateway.census.open(), 1, "all the same connection");
}
