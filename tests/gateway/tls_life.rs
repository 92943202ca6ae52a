//! TLS connections under slow clients, reloads and the end of the gateway.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use rustix::process::Signal;
use rustls::ClientConfig;

use crate::common::frames::Raw;
use crate::common::recorder::reply;
use crate::common::{DEADLINE, Gateway, Recorder, Setup, until};
use crate::reload_listeners::named;
use crate::tls::{Secure, client_config, issue};

fn setup(app: &Recorder) -> Setup {
    Setup::new(app.address()).without_users().key("server.tls", r#"[{ cert = "own.pem", key = "own.key" }]"#)
}

fn start(setup: &Setup) -> (Gateway, Arc<ClientConfig>) {
    let dir = setup.prepare();
    let root = issue(dir.path(), "own", &["app.example"]);
    (Gateway::serve(dir), Arc::new(client_config(&[&root], &[])))
}

#[test]
fn slow_clients_are_let_go() {
    let app = Recorder::start();
    let limits = ["header_timeout", "idle_timeout", "body_timeout"];
    let setup = limits.iter().fold(setup(&app), |setup, key| setup.key(&format!("server.limits.{key}"), "\"1s\""));
    let (gateway, config) = start(&setup);
    let starts = [
        ("", ""),
        ("GET", "HTTP/1.1 408"),
        ("GET /public/x HTTP/1.1\r\nHost: app.example\r\nX-A", "HTTP/1.1 408"),
        ("POST /public/x HTTP/1.1\r\nHost: app.example\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 408"),
        ("GET /public/x HTTP/1.1\r\nHost: app.example\r\n\r\n", "HTTP/1.1 200"),
    ];
    let clients = starts.map(|(sent, answer)| {
        let mut client = Secure::connect(gateway.address, &config, "app.example").0;
        client.write_all(sent.as_bytes()).unwrap();
        (sent, answer, client)
    });
    for (sent, answer, mut client) in clients {
        let mut all = Vec::new();
        client
            .read_to_end(&mut all)
            .unwrap_or_else(|error| panic!("{sent:?}: closed in time and with a word: {error}"));
        let text = String::from_utf8_lossy(&all).into_owned();
        assert!(text.starts_with(answer) && text.is_empty() == answer.is_empty(), "{sent:?}: {text}");
    }
}

#[test]
fn a_reader_that_stalls_is_let_go_and_so_is_the_application() {
    let (tell, ended) = mpsc::channel();
    let tell = Mutex::new(tell);
    let app = Recorder::serving(move |mut wire| {
        drop(wire.read_head());
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 64 * 1024];
        while wire.try_write(&piece).is_ok() {}
        let _test_over = tell.lock().unwrap().send(());
    });
    let (gateway, config) = start(&setup(&app).key("server.limits.body_timeout", "\"1s\""));
    let mut client = Secure::connect(gateway.address, &config, "app.example").0;
    client.write_all(b"GET /public/x HTTP/1.1\r\nHost: app.example\r\n\r\n").unwrap();
    ended.recv_timeout(DEADLINE).expect("the application is let go of, though nobody reads");
    let mut all = Vec::new();
    let _reset = client.read_to_end(&mut all);
    assert!(all.starts_with(b"HTTP/1.1 200") && all.len() < 100_000_000, "{} bytes", all.len());
}

#[test]
fn no_request_over_tls_or_http_2_fails_during_reloads() {
    let app = Recorder::start();
    let both = r#"["127.0.0.1:0", { address = "127.0.0.1:0", h2c = true }]"#;
    let (secure, config) = start(&setup(&app));
    let clear = Setup::new(app.address()).without_users().key("server.listen", both).start();
    let http2 = until("both listeners", || named(&clear).get(1).copied());
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut client = Secure::connect(secure.address, &config, "app.example");
            (0..).take_while(|_| !over.load(Ordering::SeqCst)).fold(0, |sent, number| {
                let head = client.get("app.example", &format!("/public/{number}"));
                assert!(head.starts_with("http/1.1 200"), "{head}");
                sent + 1
            })
        });
        let second = scope.spawn(|| {
            // New connections all the time.
            (0..).take_while(|_| !over.load(Ordering::SeqCst)).fold(0, |sent, _| {
                let head = Secure::connect(secure.address, &config, "app.example").get("app.example", "/public/new");
                assert!(head.starts_with("http/1.1 200"), "{head}");
                sent + 1
            })
        });
        let third = scope.spawn(|| {
            let mut client = Raw::connect(http2, &[(1, 0)]);
            (0..).take_while(|_| !over.load(Ordering::SeqCst)).fold(0, |sent, number| {
                client.get(2 * number + 1, "/public/x");
                assert_eq!(client.outcome(2 * number + 1), "200", "on the one connection");
                sent + 1
            })
        });
        for number in 0..5 {
            let title = format!("\"{number}\"");
            secure.reload(&setup(&app).key("login.title", &title));
            let next = Setup::new(app.address()).without_users().key("server.listen", both);
            clear.reload(&next.key("login.title", &title));
        }
        over.store(true, Ordering::SeqCst);
        [first, second, third].map(|client| client.join().unwrap())
    });
    assert!(sent.iter().all(|sent| *sent >= 5), "{sent:?}");
}

#[test]
fn the_drain_lets_a_request_end_and_closes_with_a_word() {
    let (arrived, arrives) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (arrived, released) = (Mutex::new(arrived), Mutex::new(released));
    let app = Recorder::serving(move |mut wire| {
        if wire.read_head().is_ok() {
            arrived.lock().unwrap().send(()).unwrap();
            let _released = released.lock().unwrap().recv_timeout(DEADLINE);
            wire.write(reply("200 OK", "", "finished"));
        }
    });
    let (mut gateway, config) = start(&setup(&app));
    let mut idle = Secure::connect(gateway.address, &config, "app.example");
    assert!(idle.get("app.example", "/").starts_with("http/1.1 401"), "answered by the gateway");
    let mut busy = Secure::connect(gateway.address, &config, "app.example").0;
    busy.write_all(b"GET /public/x HTTP/1.1\r\nHost: app.example\r\n\r\n").unwrap();
    arrives.recv_timeout(DEADLINE).expect("in flight");
    gateway.signal(Signal::TERM);
    let mut all = Vec::new();
    idle.0.read_to_end(&mut all).expect("close_notify on an idle connection");
    assert!(all.is_empty());
    release.send(()).unwrap();
    busy.read_to_end(&mut all).expect("close_notify after the answer");
    assert!(all.ends_with(b"finished"), "{}", String::from_utf8_lossy(&all));
    gateway.ended().succeeded();
    let refused = std::net::TcpStream::connect(gateway.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
