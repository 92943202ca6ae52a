//! Faults of applications as every kind of client sees them, over every kind of connection to the application: an answer
//! of our own, or one that is visibly cut. What is cut never looks whole.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig, ServerConnection, StreamOwned};

use crate::common::application::Authority;
use crate::common::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, basic, literals, status};
use crate::common::recorder::reply;
use crate::common::{Gateway, Recorder, Setup, Wire, get, until};
use crate::h2::clear;
use crate::reload_listeners::named;
use crate::tls::{Secure, client_config, issue};

/// What an application sends before it closes, and whether a head of it may reach the client.
const FAULTS: &[(&[u8], bool)] = &[
    (b"", false),
    (b"junk\r\n\r\n", false),
    (b"HTTP/1.1 200 OK\r\nContent-Le", false),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", false),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", false),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", true),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n", true),
];

/// Without a length the end of the connection is the end, and over TLS only where it is said (RFC 8446, section 6.1).
const UNSAID: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello";

/// The number of a whole answer on a connection that could be used again, but is not there any more.
const KEPT: usize = 1000;

/// Reads a request, and answers with the fault that its path numbers.
fn fail(mut stream: impl Read + Write) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
    let number: usize = target.rsplit('/').next().unwrap().parse().unwrap();
    let bytes = match number {
        KEPT => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        _ => FAULTS.get(number).map_or(UNSAID, |fault| fault.0),
    };
    let _gateway_left = stream.write_all(bytes).and_then(|()| stream.flush());
}

/// The same application over TCP, a unix socket and TLS: the place of each.
fn applications(dir: &Path, tls: Arc<ServerConfig>) -> [String; 3] {
    let clear = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(dir.join("app.sock")).unwrap();
    let secure = TcpListener::bind("127.0.0.1:0").unwrap();
    let places = [
        format!("http://{}", clear.local_addr().unwrap()),
        format!("unix:{}", dir.join("app.sock").display()),
        format!("https://{}", secure.local_addr().unwrap()),
    ];
    std::thread::spawn(move || clear.incoming().flatten().for_each(fail));
    std::thread::spawn(move || unix.incoming().flatten().for_each(fail));
    std::thread::spawn(move || {
        for stream in secure.incoming().flatten() {
            // Dropped without a word: no close_notify.
            fail(StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream));
        }
    });
    places
}

/// What a client got.
#[derive(Debug)]
struct Got {
    status: u16,
    is_whole: bool,
}

fn over_http1(mut bytes: &[u8]) -> Got {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let head_end = text.find("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}")) + 4;
    bytes = &bytes[head_end..];
    let head = text[..head_end].to_lowercase();
    let length: Option<usize> = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let is_whole = match length {
        Some(length) => bytes.len() == length,
        None => {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            bytes.ends_with(b"0\r\n\r\n")
        }
    };
    Got { status: head.split(' ').nth(1).unwrap().parse().unwrap(), is_whole }
}

fn plain(address: SocketAddr, target: &str) -> Got {
    let mut wire = Wire::connect(address);
    wire.write(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    over_http1(&wire.read_to_end().expect("an end"))
}

fn secure(address: SocketAddr, config: &Arc<ClientConfig>, target: &str) -> Got {
    let mut client = Secure::connect(address, config, "app.example").0;
    client
        .write_all(format!("GET {target} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut all = Vec::new();
    let _cut_or_not = client.read_to_end(&mut all);
    over_http1(&all)
}

fn streamed(address: SocketAddr, target: &str) -> Got {
    let mut client = Raw::connect(address, &[(1, 0)]);
    client.get(1, target);
    let mut found = None;
    loop {
        let frame = client.next().expect("the connection outlives a cut stream");
        assert_ne!(frame.kind, GOAWAY);
        let is_end = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS => found = Some(status(&frame.payload).parse().unwrap()),
            RST_STREAM => return Got { status: found.expect("a head before the cut"), is_whole: false },
            _ => {}
        }
        if is_end && [HEADERS, DATA].contains(&frame.kind) {
            return Got { status: found.unwrap(), is_whole: true };
        }
    }
}

#[test]
fn every_fault_over_every_way_is_seen_by_every_client() {
    let (authority, sockets) = (Authority::new(), tempfile::tempdir().unwrap());
    let tls = Arc::new(*authority.server("127.0.0.1", 2099, &["http/1.1"], None));
    let [clear, unix, secured] = applications(sockets.path(), tls);
    let ways = ["clear", "unix", "secured"];
    let routes: String = ways
        .iter()
        .map(|way| format!("[[routes]]\npath = \"/{way}/**\"\nallow = \"anyone\"\nupstream = \"{way}\"\n"))
        .collect();
    let setup = || {
        Setup::new("127.0.0.1:9".parse().unwrap())
            .without_users()
            .key("upstreams.app", &format!("\"{clear}\""))
            .key("upstreams.clear", &format!("\"{clear}\""))
            .key("upstreams.unix", &format!("\"{unix}\""))
            .key("upstreams.secured", &format!("{{ servers = [\"{secured}\"], tls = {{ ca = \"ca.pem\" }} }}"))
            .routes(&routes)
    };
    let start = |setup: Setup| {
        let dir = setup.prepare();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let root = issue(dir.path(), "own", &["app.example"]);
        (Gateway::serve(dir), root)
    };
    let (open, _) = start(setup().key("server.listen", r#"["127.0.0.1:0", { address = "127.0.0.1:0", h2c = true }]"#));
    let (closed, root) = start(setup().key("server.tls", r#"[{ cert = "own.pem", key = "own.key" }]"#));
    let config = Arc::new(client_config(&[&root], &[]));
    let http2 = until("both listeners", || named(&open).get(1).copied());
    let mut count = 0;
    for way in ways {
        for (number, (bytes, may_begin)) in FAULTS.iter().enumerate() {
            let target = format!("/{way}/{number}");
            let shown = String::from_utf8_lossy(bytes);
            let all = [
                ("HTTP/1.1", plain(open.address, &target)),
                ("TLS", secure(closed.address, &config, &target)),
                ("HTTP/2", streamed(http2, &target)),
            ];
            for (client, got) in all {
                let is_clear = (got.status, got.is_whole) == (502, true);
                let is_cut = *may_begin && (got.status, got.is_whole) == (200, false);
                assert!(is_clear || is_cut, "{client}, {way}, {shown:?}: {got:?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 81);
    open.stdout.wait("a line of an answer that was cut", |line| line.contains(", cut)").then_some(()));
    let mut client = open.client();
    for number in 0..30 {
        let target = format!("/{}/{KEPT}", ways[number % 3]);
        client.send(&get(&target)).assert_status(200, "a used connection that is gone is no fault of the client's");
    }
    let unsaid = format!("/secured/{}", FAULTS.len());
    for got in [plain(open.address, &unsaid), secure(closed.address, &config, &unsaid), streamed(http2, &unsaid)] {
        assert!(!got.is_whole || got.status == 502, "an end over TLS that nobody said: {got:?}");
    }
}

#[test]
fn over_http_2_an_early_answer_is_seen_and_a_stalled_upload_is_told_so() {
    let app = Recorder::serving(|mut wire| {
        let Ok(head) = wire.read_head() else { return };
        if head.starts_with(b"POST /public/early") {
            wire.write(reply("413 Content Too Large", "Connection: close\r\n", "no more"));
        }
        drop(wire.read_to_end());
    });
    let gateway = clear(&app).key("server.limits.body_timeout", "\"1s\"").start();
    let mut client = Raw::connect(gateway.address, &[(1, 0)]);
    for (stream, path, expected) in [(1, "/public/early", "413"), (3, "/public/stalls", "408")] {
        client.send(HEADERS, END_HEADERS, stream, &literals(&basic("POST", "h", path)));
        client.send(DATA, 0, stream, b"begun");
        assert_eq!(client.outcome(stream), expected, "{path}");
    }
    gateway.stdout.wait("the reason", |line| line.contains("code=body_stalled").then_some(()));
}
