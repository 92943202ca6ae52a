//! Listeners that are no TCP address: unix sockets, sockets that are handed over, and load balancers that send PROXY headers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Gateway, Recorder, Setup, Wire, command, get, program};

/// Routes that say whom they see, and one for a single network.
const ROUTES: &str = r#"
    [[routes]]
    path = "/public/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    path = "/near"
    allow = { anyone = true, from = ["192.0.2.0/24"] }
    upstream = "app"

    [[routes]]
    path = "/network"
    allow = { anyone = true, from = ["0.0.0.0/0", "::/0"] }
    upstream = "app"
"#;

fn setup(app: &Recorder) -> Setup {
    Setup::new(app.address()).without_users().routes(ROUTES).key("log.format", "\"json\"")
}

/// The answer to `request` over the unix socket `path`.
fn over(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const PLAIN: &str = "GET /public/x HTTP/1.1\r\nhost: apps.example.com\r\nconnection: close\r\n";

#[test]
fn a_unix_socket_serves_with_its_mode_and_goes_with_the_gateway() {
    let app = Recorder::start();
    let listen = r#"["127.0.0.1:0", { address = "unix:gateway.sock", mode = "0600" }]"#;
    let gateway = setup(&app).key("server.listen", listen).start();
    let path = gateway.dir().join("gateway.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = over(&path, &format!("{PLAIN}x-forwarded-for: 192.0.2.7\r\nx-real-ip: 192.0.2.7\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = app.only("a client of whom nothing is known");
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-real-ip")), (None, None));
    let near = over(&path, "GET /near HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-forwarded-for: 192.0.2.7\r\n\r\n");
    assert!(!near.starts_with("HTTP/1.1 200 "), "{near}");
    let nowhere = over(&path, "GET /network HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    assert!(!nowhere.starts_with("HTTP/1.1 200 "), "{nowhere}");
    gateway.send(&get("/network")).assert_status(200, "somebody of the network");
    app.only("somebody of the network");
    app.assert_untouched("what a stranger says of its network");
    // Only the mode is another one: the socket stays.
    let listen = r#"["127.0.0.1:0", { address = "unix:gateway.sock", mode = "0666" }]"#;
    let mut held = UnixStream::connect(&path).unwrap();
    gateway.reload(&setup(&app).key("server.listen", listen));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    held.write_all(format!("{PLAIN}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    held.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    gateway.reload(&setup(&app));
    assert!(!path.exists(), "no longer listened on");
    gateway.reload(&setup(&app).key("server.listen", listen));
    assert!(over(&path, &format!("{PLAIN}\r\n")).starts_with("HTTP/1.1 200 "));
    gateway.signal(Signal::TERM);
    let mut gateway = gateway;
    gateway.ended().succeeded();
    assert!(!path.exists());
}

#[test]
fn a_proxy_on_a_unix_socket_is_believed_where_it_is_trusted() {
    let app = Recorder::start();
    let listen = r#"["127.0.0.1:0", "unix:gateway.sock"]"#;
    let trusting = setup(&app).key("server.listen", listen).key("server.trusted_proxies", r#"["unix"]"#);
    let gateway = trusting.start();
    let path = gateway.dir().join("gateway.sock");
    let near = "GET /near HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-forwarded-for: 198.51.100.9, 192.0.2.7\r\n\r\n";
    assert!(over(&path, near).starts_with("HTTP/1.1 200 "));
    assert_eq!(app.only("a trusted proxy").header("x-forwarded-for").as_deref(), Some("198.51.100.9, 192.0.2.7"));
    let line = gateway.access_line("its line", |line| line["path"] == "/near");
    assert_eq!(line["client"], "192.0.2.7");
    // What says to be that peer is no proxy.
    for spoof in ["192.0.2.7, 0.0.0.0", "0.0.0.0"] {
        let near = format!("GET /near HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-forwarded-for: {spoof}\r\n\r\n");
        assert!(!over(&path, &near).starts_with("HTTP/1.1 200 "), "{spoof}");
    }
    app.assert_untouched("an address that nobody has");
    // TCP is not trusted with it.
    gateway.send(&get("/near").header("X-Forwarded-For", "192.0.2.7")).assert_status(403, "a stranger");
    app.assert_untouched("a stranger");
}

#[test]
fn a_socket_that_lives_is_not_taken() {
    let app = Recorder::start();
    let gateway = setup(&app).key("server.listen", r#"["127.0.0.1:0", "unix:gateway.sock"]"#).start();
    let other = setup(&app).key("server.listen", r#"["unix:gateway.sock"]"#).key("admin.control", "\"other.sock\"");
    std::fs::write(gateway.dir().join("other.toml"), other.toml()).unwrap();
    let mut second = program(gateway.dir());
    second.args(["serve", "--config", "other.toml"]);
    let ran = crate::common::run(second, "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("gateway.sock: another program does"), "{}", ran.stderr);
    assert!(over(&gateway.dir().join("gateway.sock"), &format!("{PLAIN}\r\n")).starts_with("HTTP/1.1 200 "));
}

/// A version 2 header from 192.0.2.7.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&[192, 0, 2, 7, 198, 51, 100, 1, 0xdb, 0x2e, 0x01, 0xbb]);
    header
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56110 443\r\n";

#[test]
fn a_load_balancer_names_the_client() {
    let app = Recorder::start();
    let gateway = setup(&app).behind_a_proxy().key("server.proxy_protocol", "true").start();
    for header in [LINE.to_vec(), binary()] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(&header);
        // Two on one connection, the second with a lie of the client's.
        for lie in ["", "x-forwarded-for: 10.0.0.1\r\n"] {
            wire.write(format!("GET /near HTTP/1.1\r\nhost: h\r\n{lie}\r\n"));
            wire.read_answer("GET").unwrap().assert_status(200, "its network");
            assert_eq!(app.only("its network").header("x-forwarded-for").as_deref(), Some("192.0.2.7"));
        }
    }
    let line = gateway.access_line("its line", |line| line["path"] == "/near");
    assert_eq!(line["client"], "192.0.2.7");
    // It speaks for itself.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let mut wire = Wire::connect(gateway.address);
    wire.write([&local[..], b"GET /public/x HTTP/1.1\r\nhost: h\r\n\r\n"].concat());
    wire.read_answer("GET").unwrap().assert_status(200, "a health check");
    assert_eq!(app.only("a health check").header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
}

#[test]
fn a_client_whom_the_load_balancer_does_not_know_is_not_believed_in_its_place() {
    let app = Recorder::start();
    let setup = setup(&app).behind_a_proxy().key("server.proxy_protocol", "true");
    let gateway = setup.key("server.forward_auth", "\"traefik\"").start();
    let unspecified = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
    let lies = "host: h\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\n\r\n";
    for header in [&b"PROXY UNKNOWN\r\n"[..], unspecified] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(header);
        wire.write(format!("GET /public/x HTTP/1.1\r\n{lies}"));
        wire.read_answer("GET").unwrap().assert_status(200, "served all the same");
        let seen = app.only("a client of whom nothing is known");
        assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
        wire.write(format!("GET /near HTTP/1.1\r\n{lies}"));
        assert_ne!(wire.read_answer("GET").unwrap().status, 200, "its word for its network");
        wire.write(format!("GET /.gateway/check HTTP/1.1\r\n{lies}"));
        wire.read_answer("GET").unwrap().assert_status(403, "only a proxy asks for others");
    }
    app.assert_untouched("the rest is refused");
    // Nobody has that address: it stands for who has none.
    let mut wire = Wire::connect(gateway.address);
    wire.write(b"PROXY TCP4 0.0.0.0 192.0.2.1 1 2\r\nGET /public/x HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(wire.read_to_end().unwrap_or_default().is_empty());
}

#[test]
fn a_trusted_peer_without_a_header_is_closed_and_said_to_be_so_once() {
    let app = Recorder::start();
    let setup =
        setup(&app).behind_a_proxy().key("server.proxy_protocol", "true").key("admin.listen", "\"127.0.0.1:0\"");
    let gateway = setup.start();
    for bytes in [
        &b"GET /public/x HTTP/1.1\r\nhost: h\r\n\r\n"[..],
        b"PROXY TCP4 1.2.3.4 x 1 2\r\nGET /public/x HTTP/1.1\r\nhost: h\r\n\r\n",
    ] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(bytes);
        // Closed with bytes unread the end is a reset.
        let answer = wire.read_to_end().unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
    app.assert_untouched("no header");
    let page = crate::common::Client::of(gateway.admin()).send(&get("/metrics")).text();
    let counted = format!("portcullis_connections_unintroduced_total{{listener=\"{}\"}} 2", gateway.address);
    assert!(page.contains(&counted), "{page}");
    let log = gateway.stop().stderr;
    assert_eq!(log.matches("server.proxy_protocol is on").count(), 1, "{log}");
}

#[test]
fn a_header_that_does_not_come_ends_the_connection() {
    let app = Recorder::start();
    let setup = setup(&app).behind_a_proxy().key("server.proxy_protocol", "true");
    let gateway = setup.key("server.limits.header_timeout", "\"300ms\"").start();
    for begun in [&b""[..], b"PROXY TCP4 192.0.2.7", &binary()[..14]] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(begun);
        assert!(wire.read_to_end().unwrap_or_default().is_empty());
    }
    app.assert_untouched("half a header");
}

#[test]
fn a_stranger_can_not_say_who_he_is() {
    let app = Recorder::start();
    let setup = setup(&app).key("server.trusted_proxies", r#"["203.0.113.0/24"]"#).key("server.proxy_protocol", "true");
    let gateway = setup.start();
    for header in [LINE.to_vec(), binary()] {
        let mut wire = Wire::connect(gateway.address);
        wire.write([&header[..], b"GET /near HTTP/1.1\r\nhost: h\r\n\r\n"].concat());
        wire.read_answer("GET").unwrap().assert_status(400, "no request line");
    }
    app.assert_untouched("a stranger's header");
    gateway.send(&get("/public/x")).assert_status(200, "a client without a load balancer");
}

/// The program with `socket` handed over as systemd does, under the name `http`.
fn handed(socket: &TcpListener, dir: &Path) -> Command {
    let own = program(dir);
    let mut shell = Command::new("sh");
    shell.current_dir(dir);
    // The process must be the one that LISTEN_PID names.
    let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$0" "$@""#;
    shell.arg("-c").arg(script).arg(own.get_program());
    shell.stdin(OwnedFd::from(socket.try_clone().unwrap()));
    shell
}

#[test]
fn a_new_gateway_takes_over_the_socket_and_nobody_is_refused() {
    let app = Recorder::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let dir = setup(&app).key("server.listen", r#"["fd:http"]"#).prepare();
    let mut gateway = Gateway::serve_with(handed(&socket, dir.path()), dir);
    assert_eq!(gateway.address, address);
    let (going, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (going, asked) = (Arc::clone(&going), Arc::clone(&asked));
            std::thread::spawn(move || {
                while going.load(Ordering::Relaxed) {
                    let answer = crate::common::raw(address, format!("{PLAIN}\r\n"));
                    let answer = String::from_utf8_lossy(&answer);
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = asked.load(Ordering::Relaxed);
        crate::common::until("load", || (asked.load(Ordering::Relaxed) > before + 50).then_some(()));
        gateway.signal(Signal::TERM);
        gateway.ended().succeeded();
        let dir = gateway.into_dir();
        gateway = Gateway::serve_with(handed(&socket, dir.path()), dir);
    }
    let before = asked.load(Ordering::Relaxed);
    crate::common::until("load", || (asked.load(Ordering::Relaxed) > before + 50).then_some(()));
    going.store(false, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_name_that_was_not_handed_over_is_told_with_those_that_were() {
    let app = Recorder::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = setup(&app).key("server.listen", r#"["fd:https"]"#).prepare();
    let mut shell = handed(&socket, dir.path());
    let ran = shell.arg("serve").output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(said.contains("can't listen on fd:https: no socket of that name was handed over, but: http"), "{said}");
    let ran = command(dir.path(), &["serve"], "");
    assert!(ran.stderr.contains("no socket was handed over"), "{}", ran.stderr);
}

#[test]
fn the_supervisor_learns_when_it_is_ready_and_when_it_ends() {
    let app = Recorder::start();
    let dir = setup(&app).prepare();
    let path = dir.path().join("notify.sock");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let hears = || {
        let mut buffer = [0; 256];
        let count = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let mut own = program(dir.path());
    own.env("NOTIFY_SOCKET", &path);
    let gateway = Gateway::serve_by(own, dir);
    assert_eq!(hears().trim(), "READY=1");
    gateway.send(&get("/public/x")).assert_status(200, "ready");
    gateway.stop();
    assert_eq!(hears().trim(), "STOPPING=1");
}

/// The real one of systemd, where it is installed.
#[test]
#[ignore = "needs systemd-socket-activate"]
fn systemd_hands_over_its_socket() {
    let app = Recorder::start();
    // A port that was free a moment ago: the program binds it by itself.
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = setup(&app).key("server.listen", r#"["fd:http"]"#).prepare();
    let mut activate = Command::new("systemd-socket-activate");
    activate.current_dir(dir.path()).arg(format!("--listen={address}")).arg("--fdname=http");
    activate.arg(program(dir.path()).get_program());
    activate.args(["serve", "--config", "gateway.toml"]);
    activate.stderr(std::process::Stdio::piped());
    let mut child = activate.spawn().expect("systemd-socket-activate is installed");
    let log = crate::common::lines::Lines::of(child.stderr.take().unwrap());
    log.wait("its socket", |line| line.contains("Listening on").then_some(()));
    // The first connection starts it.
    let answer = crate::common::raw(address, format!("{PLAIN}\r\n"));
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    child.kill().unwrap();
    child.wait().unwrap();
}
