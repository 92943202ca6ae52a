//! Unix sockets, names, trailers and informational answers over HTTP/1.1.

use crate::common::application::{Application, Over};
use crate::common::recorder::reply;
use crate::common::{Answer, DEADLINE, Gateway, Recorder, Setup, Wire, get, post};
use crate::transports_tls::{echo, echoes};

fn before(server: &str, timeouts: &str) -> Gateway {
    Setup::new("127.0.0.1:9".parse().unwrap())
        .key("upstreams.near.servers", &format!("[\"{server}\"]"))
        .key("upstreams.near.timeouts", &format!("{{ {timeouts} }}"))
        .key("upstreams.app", "\"http://127.0.0.1:9\"")
        .routes("[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"near\"\n")
        .start()
}

#[test]
fn a_unix_socket_is_an_upstream_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let (app, asked) = Application::recording(Over::Unix(dir.path().join("app.sock")));
    let gateway = before(&app.server, "");
    let mut client = gateway.client();
    for _ in 0..3 {
        let answer = client.send(&post("/x").host("apps.example.com").body("text/plain", "hello"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "/x"));
        let seen = asked.recv_timeout(DEADLINE).unwrap();
        assert_eq!((&seen.headers["host"], &seen.body[..]), (&"apps.example.com".parse().unwrap(), &b"hello"[..]));
    }
    assert_eq!(app.connections(), 1, "its connection is kept");
    let ran = gateway.command(&["doctor"]);
    assert!(ran.stdout.contains(&format!("{} takes connections", app.server)), "{}", ran.stdout);
}

#[test]
fn a_socket_that_nobody_listens_on_is_502() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    for path in [path, dir.path().join("none.sock")] {
        let gateway = before(&format!("unix:{}", path.display()), "");
        gateway.send(&get("/x")).assert_status(502, "nobody listens");
        let ran = gateway.command(&["doctor"]);
        assert!(ran.stdout.contains("takes none"), "{}", ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let app = Application::start(Over::Unix(dir.path().join("app.sock")), echo);
    let server = app.server.clone();
    let gateway = tokio::task::spawn_blocking(move || before(&server, "")).await.unwrap();
    echoes(&gateway).await;
}

#[test]
fn a_name_is_looked_up_and_one_that_is_nobodys_is_502() {
    let app = Recorder::start();
    let gateway = before(&format!("http://localhost:{}", app.address().port()), "");
    gateway.send(&get("/x")).assert_status(200, "localhost");
    let gateway = before("http://nobody.invalid", "");
    gateway.send(&get("/x")).assert_status(502, "RFC 6761 keeps .invalid free");
}

#[test]
fn trailers_pass_both_ways_without_those_that_are_the_gateways() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n2\r\nok\r\n0\r\n\
                  X-Sum: 7\r\nSet-Cookie: portcullis=x\r\nContent-Length: 3\r\n\r\n";
    let app = Recorder::answering(move |_| Answer::Keep(answer.as_bytes().to_vec()));
    let gateway = before(&format!("http://{}", app.address()), "");
    for (te, expected) in [("TE: trailers\r\nConnection: TE\r\n", vec!["x-sum: 7".to_owned()]), ("", Vec::new())] {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!(
            "POST /x HTTP/1.1\r\nHost: a\r\n{te}Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-Forwarded-User\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Sum: 5\r\nX-Forwarded-User: mallory\r\nX_Forwarded_User: mallory\r\n\r\n"
        ));
        let answer = wire.read_answer("POST").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        let trailers: Vec<_> = answer.trailers.iter().map(|trailer| trailer.to_lowercase()).collect();
        assert_eq!(trailers, expected, "{te}");
        let seen = app.only("one request");
        let trailers: Vec<_> = seen.trailers.iter().map(|trailer| trailer.to_lowercase()).collect();
        assert_eq!(trailers, ["x-sum: 5"]);
        assert_eq!(seen.header("trailer").as_deref(), Some("X-Sum"));
        // The connection is in order for the next.
        wire.write("GET /y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(wire.read_answer("GET").unwrap().status, 200);
        app.take();
    }
}

#[test]
fn informational_answers_are_dropped_and_one_more_than_a_hundred_is_502() {
    let few = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(50);
    for (early, status) in [(few.clone(), 200), (few + "HTTP/1.1 102 Processing\r\n\r\n", 502)] {
        let bytes = [early.into_bytes(), reply("200 OK", "", "whole")].concat();
        let app = Recorder::answering(move |_| Answer::Keep(bytes.clone()));
        let gateway = before(&format!("http://{}", app.address()), "");
        let mut client = gateway.client();
        for _ in 0..2 {
            let answer = client.send(&post("/x").body("text/plain", "hello"));
            assert_eq!(answer.status, status);
            assert!(answer.header("link").is_none() && (answer.text() == "whole") == (status == 200));
        }
    }
    let endless = Recorder::serving(|mut wire| {
        drop(wire.read_head());
        while wire.try_write(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_ok() {}
    });
    let gateway = before(&format!("http://{}", endless.address()), "");
    gateway.send(&get("/x")).assert_status(502, "endless");
    gateway.stderr.wait("why", |line| line.contains("more than a hundred interim answers").then_some(()));
}
