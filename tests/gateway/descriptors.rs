//! A gateway with few descriptors, and one whose connections are all taken: it says so, does not spin, and goes on by itself.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::common::frames::{HEADERS, Raw};
use crate::common::recorder::reply;
use crate::common::{Client, DEADLINE, Gateway, Recorder, Setup, Wire, get, raw, until};
use crate::h2::clear;
use crate::tls::{Secure, client_config, issue};

/// GOAWAY after empty settings (RFC 9113, section 6.8).
const GOODBYE: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";

/// A gateway that may have this many descriptors.
fn with_descriptors(count: u32, setup: &Setup) -> Gateway {
    let dir = setup.prepare();
    let mut shell = Command::new("sh");
    shell.current_dir(dir.path()).env_remove("RUST_LOG").env_remove("NO_COLOR");
    shell.args(["-c", &format!("ulimit -n {count}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_portcullis")]);
    Gateway::serve_by(shell, dir)
}

/// Processor time of the gateway so far, in hundredths of a second.
fn ticks(gateway: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn lines_with(gateway: &Gateway, words: &str) -> usize {
    gateway.stderr.text().lines().filter(|line| line.contains(words)).count()
}

fn metric(gateway: &Gateway, series: &str) -> f64 {
    let page = Client::of(gateway.admin()).send(&get("/metrics")).text();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

#[test]
fn clients_beyond_the_descriptors_are_told_so_and_those_that_are_there_go_on() {
    let app = Recorder::start();
    let gateway = with_descriptors(64, &Setup::new(app.address()).key("admin.listen", "\"127.0.0.1:0\""));
    gateway.stderr.wait("a warning at the start", |line| line.contains("raise LimitNOFILE").then_some(()));
    let mut there = gateway.client();
    there.send(&get("/public/before")).assert_status(200, "the first");
    let mut many: Vec<_> = (0..200).map(|_| Wire::connect(gateway.address)).collect();
    for wire in &mut many {
        wire.write("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let statuses: Vec<u16> = many.iter_mut().map(|wire| wire.read_answer("GET").expect("an answer").status).collect();
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!(count(200) + count(503), 200, "{statuses:?}");
    assert!((5..=16).contains(&count(200)), "{}", count(200));
    there.send(&get("/public/meanwhile")).assert_status(200, "the first, among all the others");
    assert_eq!(there.opened, 1);
    drop(many);
    until("room for new clients", || (gateway.send(&get("/public/after")).status == 200).then_some(()));
    assert!(metric(&gateway, "portcullis_connections_refused_total") >= 150.0);
    gateway.stop();
}

enum Event {
    Arrived,
    Answered(Vec<u8>),
}

/// Two servers that answer only when the gate is opened.
fn held(tell: &Sender<Event>) -> ([Recorder; 2], Arc<(Mutex<bool>, Condvar)>) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let server = || {
        let (tell, gate) = (Mutex::new(tell.clone()), Arc::clone(&gate));
        Recorder::serving(move |mut wire| {
            if wire.read_head().is_err() {
                return;
            }
            drop(tell.lock().unwrap().send(Event::Arrived));
            let closed = gate.0.lock().unwrap();
            drop(gate.1.wait_timeout_while(closed, DEADLINE, |is_open| !*is_open).unwrap());
            wire.write(reply("200 OK", "Connection: close\r\n", "held"));
        })
    };
    ([server(), server()], gate)
}

/// Sends so many requests over one connection, and tells of each answer.
fn ask(address: SocketAddr, count: u32, tell: Sender<Event>) {
    // No table of fields, so that every answer says its status in full.
    let mut client = Raw::connect(address, &[(1, 0)]);
    for number in 0..count {
        client.get(2 * number + 1, "/public/x");
    }
    std::thread::spawn(move || {
        while let Some(frame) = client.next() {
            if frame.kind == HEADERS && tell.send(Event::Answered(frame.payload)).is_err() {
                return;
            }
        }
    });
}

fn statuses(events: &Receiver<Event>, count: usize) -> (usize, Vec<String>) {
    let (mut arrived, mut statuses) = (0, Vec::new());
    while arrived + statuses.len() < count {
        match events.recv_timeout(DEADLINE).expect("every request gets somewhere") {
            Event::Arrived => arrived += 1,
            Event::Answered(fields) => statuses.push(crate::common::frames::status(&fields)),
        }
    }
    (arrived, statuses)
}

#[test]
fn without_a_descriptor_left_requests_and_clients_are_turned_away_and_no_server_is_blamed() {
    let (tell, events) = mpsc::channel();
    let (servers, gate) = held(&tell);
    let [first, second] = servers.each_ref().map(Recorder::address);
    let setup = clear(&servers[0])
        .key("upstreams.app", &format!("{{ servers = [\"http://{first}\", \"http://{second}\"] }}"))
        .key("admin.listen", "\"127.0.0.1:0\"");
    let gateway = with_descriptors(64, &setup);
    ask(gateway.address, 60, tell);
    let (arrived, refused) = statuses(&events, 60);
    assert!(arrived >= 5 && refused.len() >= 10, "{arrived} arrived, {} refused", refused.len());
    assert!(refused.iter().all(|status| status == "503"), "{refused:?}");
    gateway.stdout.wait("the reason", |line| line.contains("code=no_descriptors").then_some(()));

    let (started, before) = (Instant::now(), ticks(&gateway));
    for _ in 0..5 {
        assert_eq!(raw(gateway.address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), GOODBYE, "told, and closed");
    }
    let (hundredths, used) = (started.elapsed().as_millis() / 10, u128::from(ticks(&gateway) - before));
    assert!(used <= 5 + hundredths / 4, "{used} of {hundredths} hundredths of a second: it spins");
    let told = lines_with(&gateway, "can't accept connections");
    assert!(told >= 1 && told as u128 <= 2 + hundredths / 100, "{told} times in {hundredths}");

    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let (_, answers) = statuses(&events, arrived);
    assert!(answers.iter().all(|status| status == "200"), "those that got there are not lost: {answers:?}");
    let recovered = || {
        let mut client = Raw::connect(gateway.address, &[(1, 0)]);
        client.get(1, "/public/x");
        (client.outcome(1) == "200").then_some(())
    };
    until("the next client to be served", recovered);
    let connects = r#"portcullis_upstream_connects_total{upstream="app",result="no_descriptors"}"#;
    assert!(metric(&gateway, connects) >= 10.0);
    for server in [first, second] {
        let series = format!("portcullis_backend_ejections_total{{upstream=\"app\",server=\"{server}\"}}");
        assert_eq!(metric(&gateway, &series), 0.0, "{server} has done nothing wrong");
    }
    gateway.stop();
}

#[test]
fn one_connection_too_many_is_told_so_in_what_the_listener_speaks() {
    let app = Recorder::start();
    let gateway = clear(&app).key("server.limits.connections", "1").start();
    let mut there = Raw::connect(gateway.address, &[(1, 0)]);
    there.get(1, "/public/x");
    assert_eq!(there.outcome(1), "200");
    assert_eq!(raw(gateway.address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), GOODBYE);
    there.get(3, "/public/x");
    assert_eq!(there.outcome(3), "200", "still served");

    let setup = Setup::new(app.address())
        .without_users()
        .key("server.tls", r#"[{ cert = "own.pem", key = "own.key" }]"#)
        .key("server.limits.connections", "1");
    let dir = setup.prepare();
    let root = issue(dir.path(), "own", &["app.example"]);
    let gateway = Gateway::serve(dir);
    let config = Arc::new(client_config(&[&root], &[]));
    let connect = || Secure::try_connect(gateway.address, &config, "app.example");
    let there = connect().expect("the one that there may be");
    let error = connect().err().expect("one too many");
    assert!(error.to_string().contains("InternalError"), "{error}");
    drop(there);
    until("room for another", || connect().ok().map(drop));
}
