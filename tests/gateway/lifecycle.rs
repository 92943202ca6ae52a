//! Start, end and everything that is wrong before either.

use std::sync::Mutex;
use std::sync::mpsc;

use rustix::process::Signal;

use crate::common::recorder::reply;
use crate::common::setup::{program, run};
use crate::common::{Client, DEADLINE, Recorder, Setup, Wire, command, get, until};

/// An application that tells when a request is there and answers when it is told to.
fn waiting_application() -> (Recorder, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (arrived, arrives) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let (arrived, released) = (Mutex::new(arrived), Mutex::new(released));
    let app = Recorder::serving(move |mut wire| {
        if wire.read_head().is_err() {
            return;
        }
        arrived.lock().unwrap().send(()).unwrap();
        let _: Result<(), _> = released.lock().unwrap().recv_timeout(DEADLINE);
        wire.write(reply("200 OK", "", "finished"));
    });
    (app, arrives, release)
}

#[test]
fn sigterm_lets_a_request_finish_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let (app, arrives, release) = waiting_application();
        let mut gateway = Setup::new(app.address()).start();
        let mut wire = Wire::connect(gateway.address);
        wire.write("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
        arrives.recv_timeout(DEADLINE).expect("in flight");
        gateway.signal(signal);
        until("no new connections", || std::net::TcpStream::connect(gateway.address).is_err().then_some(()));
        release.send(()).unwrap();
        assert_eq!(wire.read_answer("GET").expect("the request finishes").text(), "finished");
        assert!(wire.is_closed(), "the connection is not kept");
        assert_eq!(gateway.ended().code, Some(0));
    }
}

#[test]
fn an_idle_connection_does_not_hold_the_end_up() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let mut client = gateway.client();
    client.send(&get("/public/x")).assert_status(200, "kept");
    let _silent = Wire::connect(gateway.address);
    let started = std::time::Instant::now();
    gateway.stop();
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "it waited for idle connections");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (app, arrives, _release) = waiting_application();
    let mut gateway = Setup::new(app.address()).start();
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    arrives.recv_timeout(DEADLINE).expect("in flight");
    gateway.signal(Signal::TERM);
    until("no new connections", || std::net::TcpStream::connect(gateway.address).is_err().then_some(()));
    let started = std::time::Instant::now();
    gateway.signal(Signal::TERM);
    gateway.ended();
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "at once");
}

#[test]
fn the_drain_has_an_end() {
    let (app, arrives, _release) = waiting_application();
    let mut gateway = Setup::new(app.address()).key("server.limits.drain_timeout", "\"300ms\"").start();
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    arrives.recv_timeout(DEADLINE).expect("in flight");
    gateway.signal(Signal::TERM);
    let started = std::time::Instant::now();
    assert_eq!(gateway.ended().code, Some(0));
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn readyz_fails_while_draining_and_connections_are_still_taken() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).key("admin.listen", "\"127.0.0.1:0\"");
    let gateway = setup.key("server.limits.drain_delay", "\"5s\"").start();
    let admin = gateway.admin();
    gateway.signal(Signal::TERM);
    until("not ready", || (Client::of(admin).send(&get("/readyz")).status == 503).then_some(()));
    Client::of(admin).send(&get("/livez")).assert_status(200, "alive");
    gateway.send(&get("/public/x")).assert_status(200, "still accepting");
}

#[test]
fn without_users_it_starts_and_says_how_to_add_one() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).without_users().start();
    gateway.stderr.wait("how to add a user", |line| line.contains("user add").then_some(()));
    for (name, password) in [
        ("admin", "admin"),
        ("admin", "password"),
        ("admin", ""),
        ("portcullis", "portcullis"),
        ("root", "root"),
        ("demo", "demo"),
    ] {
        let status = gateway.sign_in(name, password).status;
        assert!(matches!(status, 400 | 403 | 422), "{name}: {status}");
    }
    let listed = gateway.command(&["user", "list", "--json"]).succeeded();
    assert!(!listed.stdout.contains("admin"), "{}", listed.stdout);
}

#[test]
fn serve_is_the_default_command_and_the_file_is_found_beside() {
    let app = Recorder::start();
    let dir = Setup::new(app.address()).without_users().prepare();
    let mut program = program(dir.path());
    program.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = program.spawn().unwrap();
    let lines = crate::common::lines::Lines::of(child.stderr.take().unwrap());
    lines.wait("listening", |line| line.contains("listening").then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_bad_configuration_is_refused_with_every_problem() {
    let app = Recorder::start();
    let routes = r#"
        [[routes]]
        path = "/a/**/b"
        allow = "anyone"
        upstream = "app"
        [[routes]]
        pth = "/b"
        allow = "everybody"
        upstream = "nowhere"
        [[routes]]
        path = "/c"
        upstream = "app"
    "#;
    let setup = Setup::new(app.address())
        .without_users()
        .routes(routes)
        .key("sessions.lifetime", "\"soon\"")
        .key("tokns.lifetime", "\"1m\"");
    let dir = setup.prepare();
    for args in [&["serve"][..], &["check"]] {
        let ran = command(dir.path(), args, "");
        assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.stderr);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        for problem in ["/a/**/b", "pth", "everybody", "nowhere", "soon", "tokns", "gateway.toml:"] {
            assert!(all.contains(problem), "{args:?} says nothing of {problem}: {all}");
        }
        assert!(all.contains("tokens"), "the nearest known name: {all}");
    }
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let texts = [
        "",
        "[",
        "routes = 1",
        "[server]\nlisten = 7\n",
        "[server]\n[server]\n",
        "\u{feff}[[",
        "[upstreams]\napp = \"http://127.0.0.1:1\"\n",
    ];
    for text in texts {
        std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
        let ran = command(dir.path(), &["serve"], "");
        assert_eq!(ran.code, Some(1), "{text:?}: {}", ran.stderr);
        assert!(!ran.stderr.trim().is_empty() && !ran.stderr.contains("panicked"), "{text:?}: {}", ran.stderr);
    }
    std::fs::write(dir.path().join("gateway.toml"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(command(dir.path(), &["serve"], "").code, Some(1), "not UTF-8");
    std::fs::remove_file(dir.path().join("gateway.toml")).unwrap();
    let ran = command(dir.path(), &["serve"], "");
    assert_eq!(ran.code, Some(1), "missing");
    assert!(ran.stderr.contains("gateway.toml"), "{}", ran.stderr);
}

#[test]
fn weak_and_short_secrets_are_refused() {
    let app = Recorder::start();
    for secret in ["", "secret", "short-of-32-bytes-by-a-few-ones"] {
        let setup = Setup::new(app.address()).without_users().shared_secret();
        let dir = setup.key("tokens.secret", &format!("\"{secret}\"")).prepare();
        let ran = command(dir.path(), &["serve"], "");
        assert_eq!(ran.code, Some(1), "{secret:?}: {}", ran.stderr);
        assert!(secret.is_empty() || secret == "secret" || !ran.stderr.contains(secret), "{}", ran.stderr);
    }
    let dir = Setup::new(app.address())
        .without_users()
        .shared_secret()
        .key("tokens.secret", "{ env = \"PORTCULLIS_TEST_UNSET\" }")
        .prepare();
    let ran = command(dir.path(), &["serve"], "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("PORTCULLIS_TEST_UNSET"), "{}", ran.stderr);
}

#[test]
fn an_address_in_use_is_said() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).without_users();
    let dir = setup.key("server.listen", &format!("[\"{}\"]", app.address())).prepare();
    let ran = command(dir.path(), &["serve"], "");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains(&app.address().to_string()), "{}", ran.stderr);
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["nonsense"][..],
        &["serve", "--nonsense"],
        &["user"],
        &["user", "nonsense"],
        &["user", "add"],
        &["--config"],
        &["check", "x", "y"],
    ] {
        let mut program = program(dir.path());
        program.args(args);
        let ran = run(program, "");
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["user", "--help"]] {
        let mut program = program(dir.path());
        program.args(args);
        let ran = run(program, "").succeeded();
        assert!(ran.stdout.contains("portcullis"), "{args:?}: {}", ran.stdout);
    }
}

#[test]
fn the_demo_prints_what_is_needed_and_lets_that_user_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = program(dir.path());
    program
        .arg("demo")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = program.spawn().unwrap();
    let lines = crate::common::lines::Lines::of(child.stdout.take().unwrap());
    let _errors = crate::common::lines::Lines::of(child.stderr.take().unwrap());
    lines.wait("an address", |line| line.contains("http://").then_some(()));
    lines.wait("a password", |line| line.to_lowercase().contains("password").then_some(()));
    lines.wait("a curl line", |line| line.contains("curl ").then_some(()));
    drop(child.kill());
    drop(child.wait());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}
