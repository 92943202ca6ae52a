//! Bugs that were found in a running gateway, each with a test of its name, through the real binary.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// A running `portcullis serve`, with the user `alice` of the group `writer`.
struct Gateway {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

impl Gateway {
    fn start(upstream: SocketAddr, rest: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("gateway.toml");
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\npublic_url = \"http://h\"\n[log]\naccess = \"off\"\n\
             [store]\nurl = \"sqlite:p.db\"\n[upstreams]\napp = \"http://{upstream}\"\n{rest}"
        );
        std::fs::write(&config, text).unwrap();
        let command = |arguments: &[&str]| {
            let mut command = Command::new(BINARY);
            command.args(arguments).arg("--config").arg(&config);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut add = command(&["user", "add", "alice", "--groups", "writer", "--password-stdin"]);
        add.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
        assert!(add.wait().unwrap().success());
        let mut child = command(&["serve"]);
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("address=")?.1.split(' ').next()?.parse().ok())
            .unwrap();
        thread::spawn(move || log.for_each(drop));
        Self { child, address, _directory: directory }
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The whole answer to a request that says `Connection: close`.
    fn ask(&self, request: &str) -> String {
        let mut answer = String::new();
        self.send(request).read_to_string(&mut answer).unwrap();
        answer
    }

    fn token(&self) -> String {
        let body = r#"{"username":"alice","password":"correct horse"}"#;
        let length = body.len();
        let answer = self.ask(&format!(
            "POST /login HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ));
        let (_, rest) = answer.split_once(r#""access_token":""#).unwrap_or_else(|| panic!("{answer}"));
        rest.split('"').next().unwrap().to_owned()
    }
}

/// An application that answers each connection with `answer` and keeps it open; the heads that it saw.
fn upstream(answer: &'static str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heads) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
                let _ = sender.send(String::from_utf8_lossy(&head).into_owned());
                stream.write_all(answer.as_bytes())?;
                stream.read_to_end(&mut Vec::new())
            });
        }
    });
    (address, heads)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn an_escaped_question_mark_hides_no_protected_path() {
    let (address, heads) = upstream(OK);
    let gateway = Gateway::start(
        address,
        "[[routes]]\npath = \"/admin/**\"\nallow = { groups = [\"admin\"] }\nupstream = \"app\"\n\
         [[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n",
    );
    for path in ["/;%3F/admin/x", "/;x=y%23/admin", "//;%3f/ADMIN"] {
        let answer = gateway.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }
    assert!(heads.try_recv().is_err());
}

#[test]
fn a_method_in_another_case_goes_past_no_rule() {
    let (address, heads) = upstream(OK);
    let gateway = Gateway::start(
        address,
        "[[routes]]\npath = \"/**\"\nmethods = [\"DELETE\"]\nallow = \"nobody\"\nfall_through = true\n\
         upstream = \"app\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n",
    );
    for method in ["delete", "Delete", "dELETE", "trace", "Connect", "get"] {
        let answer = gateway.ask(&format!("{method} /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
    assert!(heads.try_recv().is_err());
    let answer = gateway.ask("PROPFIND /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_length_goes_on_without_leading_zeros() {
    let (address, heads) = upstream(OK);
    let gateway = Gateway::start(address, "[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n");
    let answer =
        gateway.ask("POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 010\r\n\r\n0123456789");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let head = heads.recv().unwrap().to_ascii_lowercase();
    assert!(head.contains("content-length: 10\r\n"), "{head}");
}

#[test]
fn a_stream_on_a_token_ends_with_its_session() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (address, _heads) = upstream(switching);
    let gateway = Gateway::start(
        address,
        "[sessions]\nlifetime = \"3s\"\nidle = \"3s\"\n\
         [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n",
    );
    let token = gateway.token();
    let mut tunnel = gateway.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    // The close frame of RFC 6455, sections 5.5.1 and 7.4.1: what is going on is not allowed any more.
    let end = answer.windows(4).find(|bytes| bytes.starts_with(&[0x88])).map(|bytes| &bytes[2..]);
    assert_eq!(end, Some(&1008_u16.to_be_bytes()[..]), "{text}");
}
