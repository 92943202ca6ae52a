//! Listeners that come and go while the gateway runs.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};

use crate::common::recorder::reply;
use crate::common::{Client, DEADLINE, Gateway, Recorder, Setup, Wire, get, until};

/// The addresses that the log has named so far, in order.
pub(crate) fn named(gateway: &Gateway) -> Vec<SocketAddr> {
    let text = gateway.stderr.text();
    let lines = text.lines().filter(|line| line.contains(" listening") && !line.contains("admin"));
    let address = |line: &str| {
        let (_, after) = line.split_once("address=")?;
        after.split_whitespace().next()?.parse::<SocketAddr>().ok()
    };
    lines.filter(|line| !line.contains("no longer")).filter_map(address).collect()
}

#[test]
fn a_listener_is_added_and_removed_and_the_others_are_not_touched() {
    let (arrived, arrives) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let (arrived, released) = (Mutex::new(arrived), Mutex::new(released));
    let app = Recorder::serving(move |mut wire| {
        while let Ok(head) = wire.read_head() {
            if head.starts_with(b"GET /public/slow") {
                arrived.lock().unwrap().send(()).unwrap();
                let _: Result<(), _> = released.lock().unwrap().recv_timeout(DEADLINE);
            }
            wire.write(reply("200 OK", "", "finished"));
        }
    });
    let setup = |listen: &str| Setup::new(app.address()).key("server.workers", "2").key("server.listen", listen);
    let gateway = setup(r#"["127.0.0.1:0"]"#).start();
    let mut first = gateway.client();
    first.send(&get("/public/x")).assert_status(200, "before");
    gateway.reload(&setup(r#"["127.0.0.1:0", "127.0.0.1:0"]"#));
    let second = until("a second listener", || named(&gateway).get(1).copied());
    let mut idle = Client::of(second);
    idle.send(&get("/public/x")).assert_status(200, "on the added listener");
    let mut busy = Wire::connect(second);
    busy.write("GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n");
    arrives.recv_timeout(DEADLINE).expect("in flight");
    gateway.reload(&setup(r#"["127.0.0.1:0"]"#));
    until("nobody listens there", || TcpStream::connect(second).is_err().then_some(()));
    release.send(()).unwrap();
    assert_eq!(busy.read_answer("GET").expect("what was in flight ends").text(), "finished");
    assert!(busy.is_closed(), "and its connection with it");
    first.send(&get("/public/x")).assert_status(200, "after");
    assert_eq!((first.opened, named(&gateway).len()), (1, 2), "the first was not opened anew");
}

#[test]
fn an_address_that_is_taken_refuses_the_whole_file() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let listen = format!("[\"127.0.0.1:0\", \"127.0.0.1:0\", \"{}\"]", app.address());
    gateway.rewrite(&Setup::new(app.address()).key("server.listen", &listen).key("login.title", "\"Other\""));
    let ran = gateway.command(&["reload"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains(&app.address().to_string()), "{}", ran.stderr);
    assert_eq!(named(&gateway).len(), 1, "nor is it listened on what could be bound");
    assert!(!gateway.send(&get("/login").page_load()).text().contains("Other"));
}

#[test]
fn the_admin_listener_moves() {
    let app = Recorder::start();
    let setup = |listen: &str| Setup::new(app.address()).key("admin.listen", listen);
    let gateway = setup("\"127.0.0.1:0\"").start();
    let before = gateway.admin();
    Client::of(before).send(&get("/readyz")).assert_status(200, "before");
    gateway.reload(&setup("\"127.0.0.1:0\""));
    gateway.rewrite(&setup("7"));
    assert_eq!(gateway.command(&["reload"]).code, Some(1));
    let page = Client::of(before).send(&get("/metrics")).text();
    let counted = |result: &str| {
        page.lines().any(|line| {
            line.starts_with(&format!("portcullis_reloads_total{{result=\"{result}\"}} ")) && !line.ends_with(" 0")
        })
    };
    assert!(counted("success") && counted("failure"), "{page}");
    assert!(page.contains("portcullis_reload_last_successful 0"), "{page}");
    gateway.reload(&setup("\"unix:./admin.sock\""));
    until("nobody is there any more", || TcpStream::connect(before).is_err().then_some(()));
    let socket = gateway.dir().join("admin.sock");
    std::os::unix::net::UnixStream::connect(&socket).expect("it is here now");
    gateway.reload(&Setup::new(app.address()));
    assert!(!socket.exists(), "and nowhere at last");
}
