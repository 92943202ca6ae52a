//! WebSockets: opened with a credential, refused before the application hears of them, closed with the session.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async};

use crate::common::{DEADLINE, Gateway, Recorder, Setup, Wire, get, password_of, post, token};
use crate::websocket_farewell::farewell;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An application that says who came, and then echoes.
pub(crate) async fn echo_application() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::spawn(echo(stream));
        }
    });
    (address, count)
}

#[expect(clippy::result_large_err, reason = "the library's own signature")]
async fn echo(stream: TcpStream) {
    let mut greeting = String::new();
    let accepted = accept_hdr_async(stream, |request: &Request, mut response: Response| {
        let of = |name: &str| {
            request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(",")
        };
        greeting = format!("{}|{}|{}", of("x-forwarded-user"), of("cookie"), of("authorization"));
        if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
        }
        Ok(response)
    });
    let Ok(mut socket) = accepted.await else {
        return;
    };
    socket.send(Message::text(greeting)).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        let ends = message.is_close();
        if !(message.is_text() || message.is_binary()) {
            continue;
        }
        if socket.send(message).await.is_err() || ends {
            return;
        }
    }
}

async fn open(gateway: &Gateway, headers: &[(&'static str, String)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{}/socket", gateway.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let connecting = tokio::time::timeout(DEADLINE, connect_async(request));
    connecting.await.expect("an answer in time").map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    tokio::time::timeout(DEADLINE, socket.next()).await.expect("something in time")
}

fn status_of(refused: Result<Socket, Error>) -> u16 {
    match refused {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    }
}

/// Runs blocking work of the harness beside the application's tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn gateway_for(address: std::net::SocketAddr) -> std::sync::Arc<Gateway> {
    blocking(move || std::sync::Arc::new(Setup::new(address).start())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_both_ways_with_either_credential() {
    let (app, _) = echo_application().await;
    let gateway = gateway_for(app).await;
    let inner = std::sync::Arc::clone(&gateway);
    let (token, cookie) = blocking(move || (inner.token("alice"), inner.cookie("alice"))).await;
    let own = format!("http://{}", gateway.address);
    let ways = [
        vec![("authorization", format!("Bearer {token}"))],
        vec![("cookie", format!("{cookie}; theirs=1")), ("origin", own.clone())],
        vec![("cookie", cookie.clone()), ("sec-fetch-site", "same-origin".to_owned()), ("origin", own)],
        vec![("cookie", cookie)],
    ];
    for (number, headers) in ways.iter().enumerate() {
        let mut socket = open(&gateway, headers).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        let greeting = next(&mut socket).await.unwrap().unwrap().into_text().unwrap();
        let theirs = if number == 1 { "theirs=1" } else { "" };
        assert_eq!(greeting.as_str(), format!("alice|{theirs}|"), "who came, and no credential of ours");
        for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20]), Message::text("ü".repeat(70_000))] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(next(&mut socket).await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = next(&mut socket).await {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_before_the_application_hears_of_it() {
    let (app, connections) = echo_application().await;
    let gateway = gateway_for(app).await;
    let inner = std::sync::Arc::clone(&gateway);
    let cookie = blocking(move || inner.cookie("alice")).await;
    let evil = "https://evil.example".to_owned();
    let cases = [
        (vec![], 401),
        (vec![("cookie", "portcullis=wrong".to_owned())], 401),
        (vec![("authorization", "Bearer wrong".to_owned()), ("cookie", cookie.clone())], 401),
        (vec![("cookie", cookie.clone()), ("origin", evil)], 403),
        (vec![("cookie", cookie.clone()), ("origin", "null".to_owned())], 403),
        (vec![("cookie", cookie.clone()), ("sec-fetch-site", "cross-site".to_owned())], 403),
        (vec![("cookie", cookie), ("sec-fetch-site", "same-site".to_owned())], 403),
    ];
    for (headers, status) in cases {
        assert_eq!(status_of(open(&gateway, &headers).await), status, "{headers:?}");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_session_ends_the_socket_within_a_second() {
    let (app, _) = echo_application().await;
    for way in ["log out", "disable", "restrict", "end it elsewhere"] {
        let routes = r#"
            [[routes]]
            path = "/**"
            allow = { groups = ["staff"] }
            upstream = "app"
        "#;
        let gateway = blocking(move || std::sync::Arc::new(Setup::new(app).routes(routes).start())).await;
        let inner = std::sync::Arc::clone(&gateway);
        let cookie = blocking(move || inner.cookie("alice")).await;
        let mut socket = open(&gateway, &[("cookie", cookie.clone())]).await.unwrap();
        next(&mut socket).await.unwrap().unwrap();
        let inner = std::sync::Arc::clone(&gateway);
        blocking(move || match way {
            "log out" => drop(inner.send(&post("/logout").cookie(&cookie))),
            "end it elsewhere" => {
                let form = [("password", &*password_of("alice")), ("end", "others")];
                let end = post("/.gateway/account/sessions").cookie(&inner.cookie("alice")).form(&form);
                inner.send(&end).assert_status(303, "ended");
            }
            "disable" => drop(inner.command(&["user", "disable", "alice"]).succeeded()),
            _ => drop(inner.command(&["user", "groups", "alice", "--groups", "guests"]).succeeded()),
        })
        .await;
        // The promise is a second; a busy machine gets two.
        let ends = tokio::time::timeout(Duration::from_secs(2), farewell(&mut socket, way)).await;
        assert_eq!(ends.unwrap_or_else(|_| panic!("{way}: still open")), CloseCode::Policy, "{way}");
    }
}

/// Routes for sockets of a group, and of whoever is signed in at all.
fn sockets_of(group: &str, other: &str) -> String {
    let route =
        |path: &str, allow: &str| format!("[[routes]]\npath = \"{path}\"\nallow = {allow}\nupstream = \"app\"\n");
    let of_group = route("/socket", &format!("{{ groups = [\"{group}\"] }}"));
    route(other, "\"anyone\"") + &of_group
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_ends_a_socket_only_where_the_new_rules_refuse_it() {
    let (app, _) = echo_application().await;
    let setup = move |routes: &str| Setup::new(app).routes(routes);
    for credential in ["cookie", "token"] {
        let gateway = blocking(move || std::sync::Arc::new(setup(&sockets_of("staff", "/a")).start())).await;
        let inner = std::sync::Arc::clone(&gateway);
        let header = blocking(move || match credential {
            "cookie" => ("cookie", inner.cookie("alice")),
            _ => ("authorization", format!("Bearer {}", inner.token("alice"))),
        })
        .await;
        let mut socket = open(&gateway, &[header]).await.unwrap();
        next(&mut socket).await.unwrap().unwrap();
        for other in ["/b", "/c"] {
            let inner = std::sync::Arc::clone(&gateway);
            blocking(move || inner.reload(&setup(&sockets_of("staff", other)))).await;
            socket.send(Message::text(other)).await.unwrap();
            assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text(other), "{credential}");
        }
        let inner = std::sync::Arc::clone(&gateway);
        blocking(move || inner.reload(&setup(&sockets_of("others", "/c")))).await;
        let ends = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(Duration::from_secs(2), ends).await.unwrap_or_else(|_| panic!("{credential}: still open"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_ends_with_the_secret_that_its_token_was_signed_with() {
    let (app, _) = echo_application().await;
    let other = "another secret, which is as long as it has to be for any of the hashes there are";
    let setup = move |secrets: &[&str]| Setup::new(app).shared_secret().key("tokens.secret", &format!("{secrets:?}"));
    let gateway = blocking(move || std::sync::Arc::new(setup(&[token::SECRET]).start())).await;
    let bearer = format!("Bearer {}", token::mint(&token::claims("alice")));
    let mut socket = open(&gateway, &[("authorization", bearer)]).await.unwrap();
    next(&mut socket).await.unwrap().unwrap();
    let inner = std::sync::Arc::clone(&gateway);
    blocking(move || inner.reload(&setup(&[other, token::SECRET]))).await;
    socket.send(Message::text("still")).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text("still"));
    let inner = std::sync::Arc::clone(&gateway);
    blocking(move || inner.reload(&setup(&[other]))).await;
    let ends = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(Duration::from_secs(2), ends).await.expect("the socket of a withdrawn secret ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subprotocol_passes() {
    let (app, _) = echo_application().await;
    let gateway = gateway_for(app).await;
    let inner = std::sync::Arc::clone(&gateway);
    let token = blocking(move || inner.token("alice")).await;
    let headers = [("authorization", format!("Bearer {token}")), ("sec-websocket-protocol", "chat.v1".to_owned())];
    let mut socket = open(&gateway, &headers).await.expect("the client checks the chosen protocol");
    next(&mut socket).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_opens_over_tls_by_the_same_rules() {
    let (app, connections) = echo_application().await;
    let (gateway, root) = blocking(move || {
        let setup = Setup::new(app).key("server.tls", r#"[{ cert = "first.pem", key = "first.key" }]"#);
        let dir = tempfile::tempdir().unwrap();
        let setup = setup.key("server.public_url", "\"https://app.example\"");
        std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
        let root = crate::tls::issue(dir.path(), "first", &["app.example"]);
        (Gateway::serve(dir), root)
    })
    .await;
    let config = std::sync::Arc::new(crate::tls::client_config(&[&root], &["http/1.1"]));
    for (path, expected) in [("/socket", 401), ("/public/socket", 101)] {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&config));
        let stream = connector.connect("app.example".try_into().unwrap(), stream).await.unwrap();
        let opened = tokio_tungstenite::client_async(format!("wss://app.example{path}"), stream).await;
        match opened {
            Err(Error::Http(response)) => assert_eq!(response.status(), expected),
            Err(other) => panic!("{other}"),
            Ok((mut socket, response)) => {
                assert_eq!(response.status(), expected);
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("||"));
                for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
                    socket.send(message.clone()).await.unwrap();
                    assert_eq!(socket.next().await.unwrap().unwrap(), message);
                }
            }
        }
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// An upgrade of a public route, as bytes.
pub(crate) const UPGRADE: &str = "GET /public/socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn an_application_that_refuses_the_upgrade_answers_as_usual() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let mut wire = Wire::connect(gateway.address);
    wire.write(UPGRADE);
    wire.read_answer("GET").expect("an ordinary answer").assert_status(200, "refused upgrade");
    wire.write("GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.read_answer("GET").expect("HTTP goes on").assert_status(200, "the next request");
}

#[test]
fn bytes_before_the_101_are_not_passed_on_as_a_request() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let mut wire = Wire::connect(gateway.address);
    wire.write(format!("{UPGRADE}GET /admin/hidden HTTP/1.1\r\nHost: a\r\n\r\n"));
    wire.read_answer("GET").expect("an answer").assert_status(200, "refused upgrade");
    if let Ok(second) = wire.read_answer("GET") {
        second.assert_status(401, "the bytes behind it are judged as a request");
    }
    for seen in app.take() {
        assert_eq!(seen.target(), "/public/socket");
    }
}

#[test]
fn other_upgrades_are_not_passed_on() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    for upgrade in ["h2c", "TLS/1.0", "tcp", "websocket2", "h2c, websocket"] {
        let request = get("/public/x")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", upgrade)
            .header("HTTP2-Settings", "AAMAAABk");
        let answer = gateway.send(&request);
        assert!(matches!(answer.status, 200 | 400), "{upgrade}: {}", answer.status);
        for seen in app.take() {
            let passed = seen.header("upgrade").unwrap_or_default();
            assert!(
                !passed.contains("h2c") && !passed.contains("TLS") && passed != "tcp",
                "{upgrade} went on as {passed}"
            );
        }
    }
}

#[test]
fn a_socket_is_told_the_same_identity_as_any_request() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let token = gateway.token("alice");
    let mut wire = Wire::connect(gateway.address);
    let bytes = UPGRADE.replace("/public/socket", "/socket").replace(
        "Host: a\r\n",
        &format!(
            "Host: a\r\nAuthorization: Bearer {token}\r\nX-Forwarded-User: forged\r\nX_Forwarded_User: forged\r\n"
        ),
    );
    wire.write(bytes);
    wire.read_answer("GET").expect("an answer").assert_status(200, "an upgrade");
    let seen = app.only("an upgrade");
    assert_eq!(seen.taken_for("X-Forwarded-User").len(), 1);
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
    assert_eq!(seen.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(seen.header("authorization"), None);
}
