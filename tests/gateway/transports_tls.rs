//! Applications behind TLS: believed or not, with HTTP/1.1 or HTTP/2, with a certificate of our own, with one that changes.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{Response, Version};
use rustls::ServerConfig;
use tokio_tungstenite::tungstenite::Message;

use crate::common::application::{Application, Authority, Over, text};
use crate::common::{DEADLINE, Gateway, Recorder, Setup, get, post};

/// Where nothing listens that a test asks for.
fn nowhere() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

/// A gateway before `server`, with `tls` and files of these names and contents.
fn before(server: &str, tls: &str, files: &[(&str, &str)]) -> Gateway {
    let dir = setup(server, tls).prepare();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    Gateway::serve(dir)
}

fn setup(server: &str, tls: &str) -> Setup {
    // Accounts are made before the files of a test are there.
    Setup::new(nowhere())
        .without_users()
        .key("upstreams.secure.servers", &format!("[\"{server}\"]"))
        .key("upstreams.secure.tls", &format!("{{ {tls} }}"))
        .key("upstreams.secure.timeouts", r#"{ connect = "2s" }"#)
        .key("upstreams.app", "\"http://127.0.0.1:9\"")
        .key("admin.listen", "\"127.0.0.1:0\"")
        .routes("[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"secure\"\n")
}

fn over(config: Box<ServerConfig>) -> (Application, std::sync::mpsc::Receiver<crate::common::application::Asked>) {
    Application::recording(Over::Tls(config))
}

#[test]
fn a_server_of_a_private_authority_is_spoken_to_in_the_version_that_it_chooses() {
    let authority = Authority::new();
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&["h2"], Version::HTTP_2),
        (&[], Version::HTTP_11),
    ] {
        let (app, asked) = over(authority.server("127.0.0.1", 2099, protocols, None));
        let gateway = before(&app.server, "ca = \"ca.pem\"", &[("ca.pem", &authority.pem())]);
        let mut client = gateway.client();
        for number in 1..=3 {
            let request = post("/x?y=%2F").host("apps.example.com").body("text/plain", "hello");
            let answer = client.send(&request.header("X-Forwarded-User", "mallory"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "/x"), "{protocols:?}");
            let seen = asked.recv_timeout(DEADLINE).unwrap();
            assert_eq!((seen.version, &seen.body[..]), (version, &b"hello"[..]));
            assert_eq!(seen.uri.path_and_query().unwrap(), "/x?y=%2F");
            let host = match version {
                Version::HTTP_2 => seen.uri.authority().map(ToString::to_string),
                _ => seen.headers.get("host").map(|host| host.to_str().unwrap().to_owned()),
            };
            assert_eq!(host.as_deref(), Some("apps.example.com"), "the client's, once");
            assert_eq!(seen.headers.contains_key("host"), version == Version::HTTP_11);
            assert!(!seen.headers.contains_key("x-forwarded-user") && !seen.headers.contains_key("connection"));
            assert_eq!(seen.headers["content-length"], "5");
            assert_eq!(app.connections(), 1, "{protocols:?}: request {number} uses the connection again");
        }
    }
}

#[test]
fn a_certificate_that_is_not_believed_is_502_and_found_in_log_and_metrics() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = |name, year| over(authority.server(name, year, &["h2", "http/1.1"], None)).0;
    let (good, elsewhere, expired) =
        (server("127.0.0.1", 2099), server("other.internal", 2099), server("127.0.0.1", 2021));
    let ca = "ca = \"ca.pem\"";
    for (app, tls, pem, why) in [
        (&good, ca, stranger.pem(), "UnknownIssuer"),
        (&good, "server_name = \"127.0.0.1\"", String::new(), "UnknownIssuer"),
        (&elsewhere, ca, authority.pem(), "not valid for name"),
        (&expired, ca, authority.pem(), "expired"),
    ] {
        let gateway = before(&app.server, tls, &[("ca.pem", &pem)]);
        let answer = gateway.send(&get("/x"));
        answer.assert_status(502, why);
        assert!(!answer.text().contains("ertificate"), "the client learns no cause: {}", answer.text());
        let admin = crate::common::Client::of(gateway.admin()).send(&get("/metrics")).text();
        for line in [
            r#"portcullis_upstream_connects_total{upstream="secure",result="tls"} 1"#,
            r#"portcullis_upstream_errors_total{upstream="secure",reason="tls"} 1"#,
        ] {
            assert!(admin.lines().any(|found| found == line), "{line}\n{admin}");
        }
        gateway.stderr.wait("the cause", |line| line.contains(why).then_some(()));
    }
}

#[test]
fn another_name_may_be_asked_for() {
    let authority = Authority::new();
    let (app, asked) = over(authority.server("api.internal", 2099, &["h2"], None));
    let tls = "ca = \"ca.pem\", server_name = \"api.internal\"";
    let gateway = before(&app.server, tls, &[("ca.pem", &authority.pem())]);
    gateway.send(&get("/x")).assert_status(200, "the certificate is for that name");
    let host = gateway.address.to_string();
    assert_eq!(
        asked.recv_timeout(DEADLINE).unwrap().uri.authority().unwrap().as_str(),
        host,
        "Host stays the client's"
    );
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_ours() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = clients.sign("gateway.internal", 2099);
    let files = [("ca.pem", authority.pem()), ("own.pem", own.certificate), ("own.key", own.key)];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let (app, _) = over(authority.server("127.0.0.1", 2099, protocols, Some(&clients)));
        let with = "ca = \"ca.pem\", cert = \"own.pem\", key = \"own.key\"";
        before(&app.server, with, &files).send(&get("/x")).assert_status(200, "a certificate");
        let without = before(&app.server, "ca = \"ca.pem\"", &files);
        without.send(&get("/x")).assert_status(502, "no certificate");
        without.stderr.wait("the cause", |line| line.contains("CertificateRequired").then_some(()));
        without.stdout.wait("its access line", |line| line.contains("code=tls").then_some(()));
    }
}

/// A server of HTTP/2 over TLS that reads a whole request, tells of it, and then writes what is no TLS.
fn goes_mad(config: Box<ServerConfig>, told: std::sync::mpsc::Sender<String>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(*config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut beneath = stream.try_clone().unwrap();
            runtime.block_on(async {
                stream.set_nonblocking(true).unwrap();
                let stream = acceptor.accept(tokio::net::TcpStream::from_std(stream).unwrap()).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let Some(Ok((request, _respond))) = connection.accept().await else { return };
                let method = request.method().clone();
                let mut body = request.into_body();
                let mut whole = Vec::new();
                let read = async {
                    while let Some(Ok(data)) = body.data().await {
                        whole.extend(data);
                    }
                };
                tokio::select! {
                    () = read => {}
                    _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => {}
                }
                told.send(format!("{method} {}", String::from_utf8_lossy(&whole))).unwrap();
                std::io::Write::write_all(&mut beneath, &[&b"\x17\x03\x03\x00\x20"[..], &[0; 32]].concat()).unwrap();
                drop(std::future::poll_fn(|cx| connection.poll_closed(cx)).await);
            });
        }
    });
    server
}

#[test]
fn what_a_server_has_read_before_tls_broke_is_not_sent_to_another() {
    let authority = Authority::new();
    let (tell, told) = std::sync::mpsc::channel();
    let server = || goes_mad(authority.server("127.0.0.1", 2099, &["h2"], None), tell.clone());
    let both = format!("{}\", \"{}", server(), server());
    let gateway = before(&both, "ca = \"ca.pem\"", &[("ca.pem", &authority.pem())]);
    let pay = post("/pay").body("text/plain", "7 crowns");
    for (request, read) in [(pay, "POST 7 crowns"), (crate::common::Request::new("DELETE", "/all"), "DELETE ")] {
        gateway.send(&request).assert_status(502, "no answer");
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), read);
        gateway.stdout.wait("its access line", |line| line.contains("tries=1 ").then_some(()));
        assert_eq!(told.try_recv().ok(), None, "it may have been done");
    }
}

#[test]
fn what_is_no_tls_is_502_and_a_handshake_without_end_504() {
    for junk in [&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], b"\x00\x01 no record of TLS"] {
        let app = Recorder::serving(move |mut wire| {
            wire.write(junk);
            wire.is_closed();
        });
        let gateway = before(&format!("https://{}", app.address()), "", &[]);
        gateway.send(&get("/x")).assert_status(502, "no TLS");
        gateway.stderr.wait("the cause", |line| line.contains("corrupt message").then_some(()));
    }
    let silent = Recorder::serving(|mut wire| drop(wire.read_to_end()));
    let setup = setup(&format!("https://{}", silent.address()), "");
    let gateway = setup.key("upstreams.secure.timeouts", r#"{ connect = "300ms" }"#).start();
    gateway.send(&get("/x")).assert_status(504, "the handshake is within the connect timeout");
}

#[test]
fn a_changed_file_of_authorities_is_taken_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (app, _) = over(authority.server("127.0.0.1", 2099, &["h2"], None));
    let gateway = before(&app.server, "ca = \"ca.pem\"", &[("ca.pem", &stranger.pem())]);
    gateway.send(&get("/x")).assert_status(502, "another authority");
    std::fs::write(gateway.dir().join("ca.pem.new"), authority.pem()).unwrap();
    std::fs::rename(gateway.dir().join("ca.pem.new"), gateway.dir().join("ca.pem")).unwrap();
    crate::common::until("the new file to count", || (gateway.send(&get("/x")).status == 200).then_some(()));
}

#[test]
fn the_doctor_shakes_hands() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (app, _) = over(authority.server("127.0.0.1", 2099, &["h2"], None));
    for (pem, verdict) in [(authority.pem(), "takes connections"), (stranger.pem(), "UnknownIssuer")] {
        let gateway = before(&app.server, "ca = \"ca.pem\"", &[("ca.pem", &pem)]);
        let ran = gateway.command(&["doctor"]);
        let line = ran.stdout.lines().find(|line| line.contains("upstream secure")).unwrap_or_default().to_owned();
        assert!(line.contains(&app.server) && line.contains(verdict), "{verdict}: {}", ran.stdout);
    }
}

#[test]
fn the_doctor_shows_our_certificate_and_says_until_when_it_holds() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = clients.sign("gateway.internal", 2099);
    let (app, _) = over(authority.server("127.0.0.1", 2099, &["http/1.1"], Some(&clients)));
    let files = [("ca.pem", authority.pem()), ("own.pem", own.certificate), ("own.key", own.key)];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let gateway = before(&app.server, "ca = \"ca.pem\", cert = \"own.pem\", key = \"own.key\"", &files);
    let look = || {
        let ran = gateway.command(&["doctor"]);
        let line = |name: &str| ran.stdout.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
        [line("certificate for secure"), line("upstream secure")]
    };
    let [certificate, upstream] = look();
    assert!(certificate.starts_with("ok") && certificate.contains("own.pem holds until 2099-"), "{certificate}");
    assert!(upstream.starts_with("ok") && upstream.contains("takes connections"), "{upstream}");
    std::fs::remove_file(gateway.dir().join("own.key")).unwrap();
    let [certificate, _] = look();
    assert!(certificate.starts_with("warn") && certificate.contains("own.key can't be read"), "{certificate}");
    let bare = before(&app.server, "ca = \"ca.pem\"", &files);
    let ran = bare.command(&["doctor"]);
    assert!(!ran.stdout.contains("certificate for"), "{}", ran.stdout);
}

#[test]
fn config_show_and_explain_name_the_server() {
    let authority = Authority::new();
    let (app, _) = over(authority.server("127.0.0.1", 2099, &["h2"], None));
    let gateway = before(&app.server, "ca = \"ca.pem\"", &[("ca.pem", &authority.pem())]);
    let shown = gateway.command(&["config", "show"]).succeeded().stdout;
    assert!(shown.contains(&app.server) && shown.contains("ca.pem"), "{shown}");
    let explained = gateway.command(&["explain", "GET", "/x"]).succeeded().stdout;
    assert!(explained.contains(&app.server), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_takes_http_1_where_http_2_is_offered_too() {
    let authority = Authority::new();
    let app = Application::start(Over::Tls(authority.server("127.0.0.1", 2099, &["h2", "http/1.1"], None)), echo);
    let server = app.server.clone();
    let pem = authority.pem();
    let started = tokio::task::spawn_blocking(move || {
        let gateway = before(&server, "ca = \"ca.pem\"", &[("ca.pem", &pem)]);
        // Over HTTP/2, so that such a connection is there already.
        gateway.send(&get("/x")).assert_status(200, "no WebSocket");
        gateway
    });
    let gateway = started.await.unwrap();
    echoes(&gateway).await;
    assert_eq!(app.connections(), 2);
}

/// Says over a WebSocket what it is told.
pub(crate) async fn echo(
    mut request: http::Request<hyper::body::Incoming>,
) -> Response<crate::common::application::Frames> {
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    use tokio_tungstenite::tungstenite::protocol::Role;
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        return Response::new(text("no WebSocket"));
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(upgraded.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let accept = derive_accept_key(key.as_bytes());
    let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
    answer.header("sec-websocket-accept", accept).body(text("")).unwrap()
}

/// A WebSocket through `gateway` gives back what it is told.
pub(crate) async fn echoes(gateway: &Gateway) {
    let connecting = tokio_tungstenite::connect_async(format!("ws://{}/socket", gateway.address));
    let (mut socket, _) = tokio::time::timeout(DEADLINE, connecting).await.expect("in time").unwrap();
    for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
        socket.send(message.clone()).await.unwrap();
        let back = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("in time");
        assert_eq!(back.unwrap().unwrap(), message);
    }
}
