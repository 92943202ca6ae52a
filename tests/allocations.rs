//! How often a request asks for memory: counted, and the same in every run. The numbers are kept in [`KEPT`]: whoever makes a request
//! cost more sees it here, and whoever makes it cost less writes the smaller number down.
//!
//! The gateway runs in this process with one worker. Client and application are threads here that ask for nothing while
//! they are counted, so that what is left is the worker's, and now and then that of the gateway's other threads: the least
//! of many batches is without those.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

#[path = "common/token.rs"]
#[expect(dead_code, reason = "shared with the other tests")]
mod token;

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use portcullis::clock::Clock;
use portcullis::config;
use portcullis::gateway::Gateway;
use portcullis::identity::UserName;
use portcullis::secret::Random;
use portcullis::store::{NewUser, Store};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often a warm request on a kept connection asks for memory, or for more of it.
const KEPT: &[(&str, usize)] = &[
    ("public route", 10),
    ("token", 12),
    ("token, access log", 13),
    ("no token", 13),
    ("bad token", 17),
    ("wrong group", 14),
    ("no route", 13),
];

#[test]
fn a_request_asks_for_memory_as_often_as_it_did() {
    let application = application();
    let (quiet, logging) = (Running::start(application, "off"), Running::start(application, "access.log"));
    let (good, bad) = (bearer(token::mint(&token::claims("alice"))), bearer("a.b.c".to_owned()));
    let counted = [
        ("public route", quiet.count("/public/page", "", "200")),
        ("token", quiet.count("/app/page", &good, "200")),
        ("token, access log", logging.count("/app/page", &good, "200")),
        ("no token", quiet.count("/app/page", "", "401")),
        ("bad token", quiet.count("/app/page", &bad, "401")),
        ("wrong group", quiet.count("/admin/page", &good, "403")),
        ("no route", quiet.count("/else", "", "404")),
    ];
    let differ = counted != KEPT;
    if differ {
        eprintln!("counted, to be compared with KEPT:");
        counted.iter().for_each(|(what, times)| eprintln!("    (\"{what}\", {times}),"));
    }
    assert!(
        !differ,
        "a request asks for memory more or less often than is kept in this file: if that is meant, write it down"
    );
}

#[test]
fn what_asks_for_memory_is_counted() {
    let before = ALLOCATOR.stats().allocations;
    let kept: Vec<_> = (0..100).map(|number: u32| Box::new(number)).collect();
    assert!(ALLOCATOR.stats().allocations - before > kept.len());
}

/// A gateway in this process, with alice who is in staff.
struct Running {
    gateway: Gateway,
    _directory: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start(application: SocketAddr, access: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (issuer, secret) = (token::ISSUER, token::SECRET);
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\npublic_url = \"http://apps.example.com\"\nworkers = 1\n\
             [log]\naccess = \"{access}\"\n[tokens]\nalgorithm = \"HS256\"\nissuer = \"{issuer}\"\nsecret = \"{secret}\"\n\
             [upstreams]\napp = \"http://{application}\"\n\
             [[routes]]\npath = \"/public/**\"\nallow = \"anyone\"\nupstream = \"app\"\n\
             [[routes]]\npath = \"/app/**\"\nallow = {{ groups = [\"staff\"] }}\nupstream = \"app\"\n\
             [[routes]]\npath = \"/admin/**\"\nallow = {{ groups = [\"admin\"] }}\nupstream = \"app\"\n"
        );
        let loaded = config::load_text(&directory.path().join("gateway.toml"), text, &|_| None);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let gateway = runtime.block_on(async {
            let store = Store::open(&config.store, Clock::system(), Random::system()).unwrap();
            let name = UserName::parse("alice").unwrap();
            let alice = NewUser { name, hash: None, groups: vec!["staff".to_owned()], email: None, full_name: None };
            store.add_user(alice).await.unwrap();
            Gateway::start(config).await.unwrap()
        });
        Self { gateway, _directory: directory, _runtime: runtime }
    }

    /// The least of many batches, by request.
    fn count(&self, path: &str, fields: &str, status: &str) -> usize {
        let mut client = TcpStream::connect(self.gateway.addresses()[0]).unwrap();
        client.set_nodelay(true).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: apps.example.com\r\nAccept: */*\r\n{fields}\r\n");
        let mut ask = |times: usize| (0..times).for_each(|_| answered(&mut client, head.as_bytes(), status.as_bytes()));
        ask(WARM);
        let batch = |_| {
            let before = ALLOCATOR.stats();
            ask(REQUESTS);
            let after = ALLOCATOR.stats();
            after.allocations + after.reallocations - before.allocations - before.reallocations
        };
        let batches: Vec<usize> = (0..BATCHES).map(batch).collect();
        let least = batches.iter().min().unwrap();
        // What a request does after its answer may be in the next batch.
        (least + REQUESTS / 2) / REQUESTS
    }
}

/// Asks, and reads the whole answer.
fn answered(client: &mut TcpStream, head: &[u8], status: &[u8]) {
    client.write_all(head).unwrap();
    let mut answer = [0; 8192];
    let (mut read, mut whole) = (0, None);
    while whole.is_none_or(|whole| read < whole) {
        let some = client.read(&mut answer[read..]).unwrap();
        assert!(some > 0, "the gateway has closed the connection");
        read += some;
        whole = whole.or_else(|| length(&answer[..read]));
    }
    assert_eq!(whole, Some(read), "more than one answer");
    assert!(answer[9..].starts_with(status), "{}", String::from_utf8_lossy(&answer[..read]));
}

/// How long an answer is, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|some| some.eq_ignore_ascii_case(what));
    let head = find(answer, b"\r\n\r\n")? + 4;
    let field = find(&answer[..head], b"\r\ncontent-length: ").unwrap() + 18;
    let digits = answer[field..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

/// An application that answers every request with 1 KiB.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            thread::spawn(move || serve(connection.unwrap()));
        }
    });
    address
}

fn serve(mut connection: TcpStream) {
    connection.set_nodelay(true).unwrap();
    let answer =
        [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n", [b'x'; 1024].as_slice()]
            .concat();
    let (mut request, mut read) = ([0; 8192], 0);
    loop {
        match connection.read(&mut request[read..]) {
            Ok(some) if some > 0 => read += some,
            _ => return,
        }
        if request[..read].ends_with(b"\r\n\r\n") {
            read = 0;
            if connection.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

fn bearer(token: String) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Requests before the first that are counted.
const WARM: usize = 30;
/// Requests in a batch, so few that on a busy machine, too, some batch is over before the store's events are looked at.
const REQUESTS: usize = 10;
/// Batches.
const BATCHES: usize = 80;
