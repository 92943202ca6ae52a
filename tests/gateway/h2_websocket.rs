//! WebSockets over HTTP/2 (RFC 8441): who may open one, what the application hears, and what is no success.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::common::application::{Application, Authority, Over};
use crate::common::recorder::reply;
use crate::common::tunnel::{Tunnel, both, clear, connect as asks, open};
use crate::common::{Answer, DEADLINE, Gateway, Recorder, Setup};
use crate::h2::{answer, connect, request};
use crate::transports_tls::echo;
use crate::websocket::{blocking, echo_application};

type Socket = WebSocketStream<Tunnel>;

async fn gateway(setup: Setup) -> Arc<Gateway> {
    blocking(move || Arc::new(both(setup).start())).await
}

/// A client that has heard of the gateway's settings.
pub(crate) async fn client_of(address: SocketAddr) -> SendRequest<Bytes> {
    let mut client = connect(address).await;
    let (refused, _) = client.send_request(request("TRACE", "http://127.0.0.1:8080/"), true).unwrap();
    assert_eq!(answer(refused).await.0.status, 405);
    assert!(client.is_extended_connect_protocol_enabled());
    client
}

/// The frames of a WebSocket over an open stream.
pub(crate) async fn frames(tunnel: Tunnel) -> Socket {
    WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await
}

pub(crate) async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(DEADLINE, socket.next()).await.expect("something in time").unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_both_ways_with_either_credential_on_one_connection() {
    let (app, connections) = echo_application().await;
    let gateway = gateway(Setup::new(app)).await;
    let inner = Arc::clone(&gateway);
    let (token, cookie) = blocking(move || (inner.token("alice"), inner.cookie("alice"))).await;
    let own = "http://127.0.0.1:8080".to_owned();
    let ways = [
        vec![("authorization", format!("Bearer {token}"))],
        vec![("cookie", cookie.clone()), ("cookie", "theirs=1".to_owned()), ("origin", own.clone())],
        vec![("cookie", cookie.clone()), ("sec-fetch-site", "same-origin".to_owned()), ("origin", own)],
        vec![("cookie", cookie)],
    ];
    let mut client = client_of(clear(&gateway)).await;
    let mut sockets = Vec::new();
    for (number, fields) in ways.iter().enumerate() {
        let forged = [("x-forwarded-user", "root".to_owned()), ("x_forwarded_user", "root".to_owned())];
        let (head, tunnel) = open(&mut client, "/socket", &[fields.clone(), forged.to_vec()].concat()).await;
        assert_eq!(head.status, 200, "{number}");
        for name in ["sec-websocket-accept", "upgrade", "connection", "content-length", "transfer-encoding"] {
            assert!(!head.headers.contains_key(name), "{name} is HTTP/1.1's");
        }
        let mut socket = frames(tunnel).await;
        let theirs = if number == 1 { "theirs=1" } else { "" };
        let greeting = next(&mut socket).await.into_text().unwrap();
        assert_eq!(greeting.as_str(), format!("alice|{theirs}|"), "who came, and no credential of ours");
        sockets.push(socket);
    }
    for socket in &mut sockets {
        for message in [Message::text("hello"), Message::binary(vec![7; 2 << 20]), Message::text("ü".repeat(70_000))] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(next(socket).await, message);
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }
    assert_eq!(connections.load(SeqCst), ways.len(), "each has a connection to the application");
    let (refused, _) = client.send_request(request("GET", "http://127.0.0.1:8080/x"), true).unwrap();
    assert_eq!(answer(refused).await.0.status, 401, "the client's connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_before_the_application_hears_of_it() {
    let (app, connections) = echo_application().await;
    let gateway = gateway(Setup::new(app)).await;
    let inner = Arc::clone(&gateway);
    let cookie = blocking(move || inner.cookie("alice")).await;
    let evil = "https://evil.example".to_owned();
    let cases = [
        ("/socket", vec![], 401),
        ("/socket", vec![("cookie", "portcullis=wrong".to_owned())], 401),
        ("/socket", vec![("authorization", "Bearer wrong".to_owned()), ("cookie", cookie.clone())], 401),
        ("/socket", vec![("cookie", cookie.clone()), ("origin", evil)], 403),
        ("/socket", vec![("cookie", cookie.clone()), ("origin", "null".to_owned())], 403),
        ("/socket", vec![("cookie", cookie.clone()), ("sec-fetch-site", "cross-site".to_owned())], 403),
        ("/socket", vec![("cookie", cookie.clone()), ("sec-fetch-site", "same-site".to_owned())], 403),
        ("/public/../socket", vec![("cookie", cookie.clone())], 400),
        ("/.gateway/nothing", vec![("cookie", cookie.clone())], 404),
        // Pages of the gateway's own are no WebSockets, and a success would look like one.
        ("/login", vec![], 501),
        ("/.well-known/jwks.json", vec![], 501),
    ];
    let mut client = client_of(clear(&gateway)).await;
    for (path, fields, status) in cases {
        assert_eq!(open(&mut client, path, &fields).await.0.status, status, "{path} {fields:?}");
    }
    for protocol in ["connect-udp", "connect-ip", "x"] {
        let (response, _) =
            client.send_request(asks("/socket", protocol, &[("cookie", cookie.clone())]), true).unwrap();
        assert_eq!(answer(response).await.0.status, 501, "{protocol}");
    }
    let mut plain = request("CONNECT", "http://127.0.0.1:8080/");
    *plain.uri_mut() = "127.0.0.1:8080".parse().unwrap();
    let (response, _) = client.send_request(plain, true).unwrap();
    let (head, ..) = answer(response).await;
    assert_eq!((head.status.as_u16(), head.headers.contains_key("allow")), (405, true));
    assert_eq!(connections.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_is_asked_in_http_1_with_a_key_of_ours_whose_answer_is_checked() {
    let accepts = |fields: &str| format!("HTTP/1.1 101 x\r\nConnection: upgrade\r\n{fields}\r\n");
    let wrong = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let answers = [
        ("wrong", accepts(&format!("Upgrade: websocket\r\n{wrong}")), 502),
        ("none", accepts("Upgrade: websocket\r\n"), 502),
        ("other", accepts("Upgrade: h2c\r\n"), 502),
        ("refused", "HTTP/1.1 403 No\r\nContent-Length: 4\r\nX-Why: so\r\n\r\nnope".to_owned(), 403),
        ("moved", "HTTP/1.1 302 No\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_owned(), 302),
        ("page", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage".to_owned(), 501),
        ("empty", "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), 501),
        ("endless", "HTTP/1.1 200 OK\r\n\r\nso".to_owned(), 501),
    ];
    let texts = answers.clone();
    let app = Recorder::answering(move |request| {
        let of = |(path, ..): &&(&str, String, u16)| request.target().contains(path);
        Answer::Keep(texts.iter().find(of).expect("an answer").1.clone().into_bytes())
    });
    let gateway = gateway(Setup::new(app.address())).await;
    let mut client = client_of(clear(&gateway)).await;
    let mut keys = Vec::new();
    for (path, _, status) in answers {
        let fields = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".to_owned()), ("x-mine", "1".to_owned())];
        let request = asks(&format!("/public/{path}?a=b"), "websocket", &fields);
        let (response, _send) = client.send_request(request, false).unwrap();
        let (head, body, _) = answer(response).await;
        assert_eq!(head.status, status, "{path}");
        match path {
            "refused" => assert_eq!((&head.headers["x-why"], &body[..]), (&"so".parse().unwrap(), &b"nope"[..])),
            "moved" => assert_eq!(head.headers["location"], "/other"),
            _ => assert_eq!(head.headers["content-type"], "application/problem+json", "{path}"),
        }
        let seen = app.next();
        assert_eq!(seen.line(), format!("GET /public/{path}?a=b HTTP/1.1"));
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("x-mine", "1"),
            ("host", "127.0.0.1:8080"),
        ] {
            assert_eq!(seen.header(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(seen.header(":protocol"), None);
        keys.push(seen.header("sec-websocket-key").expect("a key"));
    }
    keys.push("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "each handshake has its own, and none the client's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_without_websockets_opens_none() {
    let app = Recorder::answering(|request| {
        let status = if request.target().ends_with("refused") { "426 Upgrade Required" } else { "200 OK" };
        Answer::Keep(reply(status, "", "hello"))
    });
    let routes = "[[routes]]\npath = \"/no/**\"\nallow = \"anyone\"\nupstream = \"app\"\nupgrade = []\n\
                  [[routes]]\npath = \"/own\"\nallow = \"anyone\"\nrespond = { status = 200, body = \"x\" }\n";
    let gateway = gateway(Setup::new(app.address()).routes(routes)).await;
    let mut client = client_of(clear(&gateway)).await;
    for (path, status) in [("/no/page", 501), ("/no/refused", 426), ("/own", 501)] {
        assert_eq!(open(&mut client, path, &[]).await.0.status, status, "{path}");
    }
    for seen in [app.next(), app.next()] {
        for name in ["upgrade", "connection", "sec-websocket-key"] {
            assert_eq!(seen.header(name), None, "{}", seen.line());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_opens_at_applications_over_tls_and_over_a_socket() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let secure = Application::start(Over::Tls(authority.server("127.0.0.1", 2099, &["h2", "http/1.1"], None)), echo);
    let near = Application::start(Over::Unix(dir.path().join("app.sock")), echo);
    for app in [secure, near] {
        let (server, pem) = (app.server.clone(), authority.pem());
        let gateway = blocking(move || {
            let setup = both(Setup::new("127.0.0.1:9".parse().unwrap()).without_users());
            let tls = if server.starts_with("https") { "tls = { ca = \"ca.pem\" }" } else { "" };
            let routes = "[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"real\"\n";
            let upstream = format!("[upstreams.real]\nservers = [\"{server}\"]\n{tls}\n");
            let dir = setup.routes(&format!("{upstream}{routes}")).prepare();
            std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
            Arc::new(Gateway::serve(dir))
        })
        .await;
        let mut client = client_of(clear(&gateway)).await;
        let (head, tunnel) = open(&mut client, "/socket", &[]).await;
        assert_eq!(head.status, 200, "{}", app.server);
        let mut socket = frames(tunnel).await;
        for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(next(&mut socket).await, message);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_over_tls_opens_one_too_and_a_subprotocol_passes() {
    let (app, _) = echo_application().await;
    let (gateway, root) = blocking(move || {
        let setup = Setup::new(app).key("server.tls", r#"[{ cert = "first.pem", key = "first.key" }]"#);
        let dir = tempfile::tempdir().unwrap();
        let setup = setup.key("server.public_url", "\"https://app.example\"");
        std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
        let root = crate::tls::issue(dir.path(), "first", &["app.example"]);
        (Gateway::serve(dir), root)
    })
    .await;
    let config = crate::tls::client_config(&[&root], &["h2"]);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let stream = connector.connect("app.example".try_into().unwrap(), stream).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (head, tunnel) = open(&mut client, "/public/socket", &[("sec-websocket-protocol", "chat.v1".to_owned())]).await;
    assert_eq!((head.status.as_u16(), &head.headers["sec-websocket-protocol"]), (200, &"chat.v1".parse().unwrap()));
    let mut socket = frames(tunnel).await;
    assert_eq!(next(&mut socket).await, Message::text("||"));
}
