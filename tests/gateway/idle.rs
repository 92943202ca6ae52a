//! Ten thousand connections that do nothing, which `scripts/test` runs: those that do something are served meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::process::{Resource, Rlimit};

use crate::common::{Gateway, Recorder, Setup, Wire, get, until};

/// As many as `server.limits.connections` is by itself, the one that works included.
const CONNECTIONS: usize = 10_000;

/// A field of `/proc/…/status` in KiB.
fn memory(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    fields["VmRSS"].trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

#[test]
#[ignore = "needs 20,000 descriptors; scripts/test runs it"]
fn ten_thousand_connections_that_do_nothing_are_no_burden_to_the_one_that_works() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("server.limits.idle_timeout", "\"5m\"").start();
    let mut works = gateway.client();
    works.send(&get("/public/before")).assert_status(200, "alone");
    let (memory_before, descriptors_before) = (memory(&gateway), descriptors(&gateway));

    let started = Instant::now();
    let mut idle = Vec::with_capacity(CONNECTIONS);
    while idle.len() < CONNECTIONS - 1 {
        // No more at once than wait in the socket's queue.
        let count = 500.min(CONNECTIONS - 1 - idle.len());
        let mut some: Vec<_> = (0..count).map(|_| Wire::connect(gateway.address)).collect();
        // The gateway answers this itself, so that the application is no part of what is measured.
        some.iter_mut().for_each(|wire| wire.write("GET /data/x HTTP/1.1\r\nHost: a\r\n\r\n"));
        for wire in &mut some {
            assert_eq!(wire.read_answer("GET").expect("an answer").status, 401);
        }
        idle.extend(some);
    }
    let opened = started.elapsed();
    let each = (memory(&gateway) - memory_before) as f64 / (CONNECTIONS - 1) as f64;
    println!("{CONNECTIONS} connections in {opened:?}, {each:.1} KiB each, {} MiB in all", memory(&gateway) / 1024);

    let mut slowest = std::time::Duration::ZERO;
    for number in 0..200 {
        let sent = Instant::now();
        works.send(&get(&format!("/public/{number}"))).assert_status(200, "among ten thousand");
        slowest = slowest.max(sent.elapsed());
    }
    println!("the slowest of 200 requests meanwhile: {slowest:?}");
    assert_eq!(works.opened, 1);
    gateway.send(&get("/public/x")).assert_status(503, "one too many");
    // A program without optimisation keeps several times what the released one does; this is for what grows without end.
    assert!(each < 96.0, "{each} KiB for a connection that does nothing");
    idle[CONNECTIONS / 2].write("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle[CONNECTIONS / 2].read_answer("GET").expect("an answer").status, 200, "one of them wakes up");

    drop(idle);
    until("all of them to be gone", || (descriptors(&gateway) <= descriptors_before + 1).then_some(()));
    gateway.send(&get("/public/after")).assert_status(200, "room again");
}
