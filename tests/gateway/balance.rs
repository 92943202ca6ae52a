//! An upstream of several servers: how requests are spread, and what becomes of them when one of the servers is away.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::common::recorder::reply;
use crate::common::{Answer, Client, Gateway, Recorder, Setup, Wire, get, post, until};

/// One public route to the upstream `pool`.
const ROUTE: &str = "[[routes]]\nname = \"all\"\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"pool\"\n";

/// A gateway in front of `servers`.
pub(crate) fn pool(servers: &[SocketAddr]) -> Setup {
    let urls: Vec<String> = servers.iter().map(|address| format!("\"http://{address}\"")).collect();
    let setup = Setup::new(servers[0]).without_users().routes(ROUTE);
    setup.key("upstreams.pool.servers", &format!("[{}]", urls.join(", "))).key("log.format", "\"json\"")
}

pub(crate) fn addresses(servers: &[Recorder]) -> Vec<SocketAddr> {
    servers.iter().map(Recorder::address).collect()
}

/// Where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Sends so many requests, one after the other, each of which is to be answered with `status`.
#[track_caller]
pub(crate) fn asks(client: &mut Client, count: usize, status: u16, context: &str) {
    for _ in 0..count {
        client.send(&get("/x")).assert_status(status, context);
    }
}

fn counts(servers: &[Recorder]) -> Vec<usize> {
    servers.iter().map(|server| server.take().len()).collect()
}

/// A server that answers nothing until it is told to.
fn held() -> (Recorder, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let server = Recorder::serving(move |mut wire| {
        while wire.read_head().is_ok() {
            released.lock().unwrap().recv().unwrap();
            wire.write(reply("200 OK", "", "held"));
        }
    });
    (server, release)
}

#[test]
fn requests_are_spread_evenly_and_by_weight() {
    for balance in ["least-requests", "round-robin"] {
        let servers = [Recorder::start(), Recorder::start(), Recorder::start()];
        let all = addresses(&servers);
        let heavy = format!(
            "[\"http://{}\", {{ url = \"http://{}\" }}, {{ url = \"http://{}\", weight = 2 }}]",
            all[0], all[1], all[2]
        );
        let setup = || pool(&all).key("upstreams.pool.balance", &format!("\"{balance}\""));
        let gateway = setup().start();
        let mut client = gateway.client();
        asks(&mut client, 30, 200, balance);
        assert_eq!(counts(&servers), [10, 10, 10], "{balance}");
        gateway.reload(&setup().key("upstreams.pool.servers", &heavy));
        asks(&mut client, 40, 200, balance);
        assert_eq!(counts(&servers), [10, 10, 20], "{balance}");
        let connections: Vec<_> = servers.iter().map(Recorder::connections).collect();
        assert_eq!(connections, [1, 1, 1], "{balance}: connections are kept over a reload");
    }
}

#[test]
fn a_slow_server_is_avoided() {
    let (slow, release) = held();
    let quick = [Recorder::start(), Recorder::start()];
    let gateway = pool(&[slow.address(), quick[0].address(), quick[1].address()]).start();
    let mut waiting = Wire::connect(gateway.address);
    waiting.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    // Whichever is first, the slow one comes within three.
    let mut client = gateway.client();
    until("a request at the slow server", || (slow.connections() > 0).then_some(()));
    asks(&mut client, 30, 200, "the others are free");
    assert_eq!((counts(&quick), slow.connections()), (vec![15, 15], 1));
    release.send(()).unwrap();
    assert_eq!(waiting.read_answer("GET").unwrap().text(), "held");
}

#[test]
fn a_hashed_request_stays_with_its_server_and_few_move_when_one_goes() {
    let servers: Vec<Recorder> = (0..4)
        .map(|number| Recorder::answering(move |_| Answer::Keep(reply("200 OK", "", &number.to_string()))))
        .collect();
    let all = addresses(&servers);
    let setup = |servers: &[SocketAddr]| {
        pool(servers).key("upstreams.pool.balance", "\"hash\"").key("upstreams.pool.hash", "\"header:X-Tenant\"")
    };
    let gateway = setup(&all).start();
    let mut client = gateway.client();
    let mut places = || -> BTreeMap<String, String> {
        let tenants = (0..60).map(|number| format!("tenant {number}"));
        tenants
            .map(|tenant| {
                let answer = client.send(&get("/x").header("X-Tenant", &tenant));
                (tenant, answer.assert_status(200, "hashed").text())
            })
            .collect()
    };
    let before = places();
    assert_eq!(places(), before);
    let used: std::collections::BTreeSet<_> = before.values().collect();
    assert_eq!(used.len(), 4, "all servers are used: {before:?}");
    gateway.reload(&setup(&all[..3]));
    for (tenant, after) in places() {
        assert!(before[&tenant] == after || before[&tenant] == "3", "{tenant}: {} to {after}", before[&tenant]);
        assert_ne!(after, "3", "{tenant}");
    }
}

#[test]
fn explain_and_why_name_the_server() {
    let servers = [Recorder::start(), Recorder::start(), Recorder::start()];
    let setup = || pool(&addresses(&servers)).key("upstreams.pool.balance", "\"hash\"");
    let gateway = setup().start();
    let explained = gateway.command(&["explain", "GET", "/x"]).succeeded().stdout;
    assert!(explained.contains("  server   the first of these that is well, by hash of client\n"), "{explained}");
    let (_, list) = explained.split_once("sent to pool (http://").expect("where it goes");
    gateway.send(&get("/x")).assert_status(200, "hashed");
    let asked = servers.iter().find(|server| !server.take().is_empty()).expect("one was asked");
    assert!(list.starts_with(&format!("{},", asked.address())), "{} in {explained}", asked.address());

    let dead = [nobody(), nobody(), servers[0].address()];
    gateway.reload(&pool(&dead).key("upstreams.pool.balance", "\"round-robin\""));
    gateway.send(&get("/x")).assert_status(200, "the third");
    let line = gateway.access_line("three tries", |line| line["tries"] == 3);
    let why = gateway.command(&["why", line["request_id"].as_str().unwrap()]).succeeded().stdout;
    assert!(why.contains(&format!("  went to pool, server {}, after 3 tries\n", dead[2])), "{why}");
    assert!(why.contains("  server   any of these that is well, by round-robin\n"), "{why}");
}

#[test]
fn a_dead_server_among_three_loses_no_request() {
    let servers = [Recorder::start(), Recorder::start()];
    let gateway = pool(&[servers[0].address(), nobody(), servers[1].address()])
        .key("upstreams.pool.balance", "\"round-robin\"")
        .key("admin.listen", "\"127.0.0.1:0\"")
        .start();
    let mut client = gateway.client();
    let body = "a body that goes on once";
    for number in 0..30 {
        client.send(&get(&format!("/get/{number}"))).assert_status(200, "GET");
        client.send(&post(&format!("/post/{number}")).body("text/plain", body)).assert_status(200, "POST");
    }
    let mut seen: Vec<_> = servers.iter().flat_map(Recorder::take).collect();
    seen.sort_by_key(|request| request.target());
    assert_eq!(seen.len(), 60);
    seen.dedup_by_key(|request| request.target());
    assert_eq!(seen.len(), 60, "none came twice");
    assert!(seen.iter().filter(|request| request.line().starts_with("POST")).all(|post| post.body == body.as_bytes()));
    let page = Client::of(gateway.admin()).send(&get("/metrics")).text();
    // Five in a row, and then nobody is sent there any more.
    assert!(page.contains("portcullis_upstream_retries_total{upstream=\"pool\",reason=\"connect\"} 5\n"), "{page}");
    assert!(page.contains("portcullis_upstream_errors_total{upstream=\"pool\",reason=\"connect\"} 0\n"), "{page}");
    let line = gateway.access_line("a second try", |line| line["tries"] == 2);
    let of_server = |server: &Recorder| line["server"] == server.address().to_string();
    assert!(servers.iter().any(of_server), "{line}");
}

#[test]
fn no_request_is_lost_while_half_of_the_servers_come_and_go() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (served, _) = watch::channel(0_usize);
    let served = Arc::new(served);
    let start = |flaps: bool| {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::clone(&served), flaps));
        address
    };
    let servers = [start(true), start(false), start(true), start(false)];
    let gateway = pool(&servers)
        .key("upstreams.pool.health", "{ out = \"10ms\", out_most = \"50ms\", slow_start = \"0s\" }")
        .routes(&format!("{ROUTE}retries = {{ attempts = 2, on = [\"reset\"] }}\n"))
        .start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                asks(&mut client, 250, 200, "while servers come and go");
            });
        }
    });
    let text = gateway.stderr.text();
    assert!(text.contains("a server fails requests and is left out"), "a server was away: {text}");
}

/// A server that, where it `flaps`, is away half of the time: as counted by what all servers have `served`.
async fn serve(first: tokio::net::TcpListener, served: Arc<watch::Sender<usize>>, flaps: bool) {
    let (address, mut changes) = (first.local_addr().unwrap(), served.subscribe());
    let mut listener = Some(first);
    for phase in 1.. {
        let over = async {
            let end = if flaps { phase * 40 } else { usize::MAX };
            let _other_end_gone = changes.wait_for(|served| *served >= end).await;
        };
        tokio::pin!(over);
        let Some(open) = listener.take() else {
            over.await;
            listener = Some(tokio::net::TcpListener::bind(address).await.unwrap());
            continue;
        };
        // With it all its connections go.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut over => break,
                Ok((stream, _)) = open.accept() => drop(connections.spawn(answer(stream, Arc::clone(&served)))),
            }
        }
    }
}

async fn answer(mut stream: tokio::net::TcpStream, served: Arc<watch::Sender<usize>>) {
    let mut read = Vec::new();
    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            if stream.write_all(&reply("200 OK", "", "well")).await.is_err() {
                return;
            }
            served.send_modify(|served| *served += 1);
        }
    }
}

#[test]
fn more_than_all_servers_may_have_waits_and_one_more_is_503() {
    let servers = [held(), held()];
    let gateway = pool(&[servers[0].0.address(), servers[1].0.address()])
        .key("upstreams.pool.limits", "{ connections = 1, idle = 1, pending = 1 }")
        .key("admin.listen", "\"127.0.0.1:0\"")
        .start();
    let send = |gateway: &Gateway| {
        let mut wire = Wire::connect(gateway.address);
        wire.write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        wire
    };
    let admin = gateway.admin();
    let waits = |count: usize| {
        let line = format!("portcullis_upstream_requests_waiting{{upstream=\"pool\"}} {count}\n");
        until("requests that wait", || Client::of(admin).send(&get("/metrics")).text().contains(&line).then_some(()));
    };
    let mut sent: Vec<Wire> = (0..2).map(|_| send(&gateway)).collect();
    until("both servers at work", || servers.iter().all(|(server, _)| server.connections() == 1).then_some(()));
    sent.extend((0..2).map(|_| send(&gateway)));
    waits(2);
    let refused = send(&gateway).read_answer("GET").unwrap();
    refused.assert_status(503, "more than may wait");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // One server alone answers all: what waits takes whichever is free.
    let (_, release) = &servers[0];
    (0..3).for_each(|_| release.send(()).unwrap());
    until("three answers", || {
        let page = Client::of(admin).send(&get("/metrics")).text();
        page.contains("portcullis_upstream_requests_waiting{upstream=\"pool\"} 0\n").then_some(())
    });
    servers[1].1.send(()).unwrap();
    for wire in &mut sent {
        wire.read_answer("GET").unwrap().assert_status(200, "in its turn");
    }
}
