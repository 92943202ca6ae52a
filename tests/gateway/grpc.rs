//! What a call of gRPC is answered when it may not go on, and who is answered in HTTP all the same.

use crate::common::tunnel::{both, clear};
use crate::common::{Gateway, Recorder, Setup, post};
use crate::h2::{answer, connect, request};
use crate::websocket::blocking;

/// The head of the answer to a request of these fields, and whether it has a body or trailers.
async fn ask(
    gateway: &Gateway,
    method: &str,
    path: &str,
    fields: &[(&'static str, String)],
) -> (http::response::Parts, bool) {
    let mut client = connect(clear(gateway)).await;
    let mut asked = request(method, &format!("http://127.0.0.1:8080{path}"));
    for (name, value) in fields {
        asked.headers_mut().append(*name, value.parse().unwrap());
    }
    // The call has begun and has not ended, as one that streams.
    let (response, _call) = client.send_request(asked, method == "GET").unwrap();
    let (head, body, trailers) = answer(response).await;
    (head, !body.is_empty() || trailers.is_some())
}

fn routes() -> String {
    let route = |path: &str, rest: &str| format!("[[routes]]\npath = \"{path}\"\nupstream = \"app\"\n{rest}\n");
    route("/in.Test/**", "allow = \"signed-in\"")
        + &route("/staff.Test/**", "allow = { groups = [\"others\"] }")
        + &route("/few.Test/**", "allow = \"anyone\"\nrate_limit = { per = \"network\", rate = \"1/h\", burst = 1 }")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_call_is_a_head_with_a_status_and_is_logged_as_what_it_is() {
    let app = Recorder::start();
    let setup = both(Setup::new(app.address()).routes(&routes())).key("log.format", "\"json\"");
    let gateway = std::sync::Arc::new(blocking(move || setup.start()).await);
    let inner = std::sync::Arc::clone(&gateway);
    let token = blocking(move || format!("Bearer {}", inner.token("alice"))).await;
    let grpc = ("content-type", "application/grpc+proto".to_owned());
    let bearer = ("authorization", token);
    drop(ask(&gateway, "GET", "/few.Test/Call", &[]).await);
    app.take();
    for (path, fields, code, message, status) in [
        ("/in.Test/Call", vec![grpc.clone()], "16", "Not authenticated", 401),
        ("/in.Test/Broken", vec![grpc.clone(), ("authorization", "Bearer x".to_owned())], "16", "Invalid token", 401),
        ("/staff.Test/Call", vec![grpc.clone(), bearer.clone()], "7", "Not allowed", 403),
        ("/none.Test/Call", vec![grpc.clone()], "12", "Not found", 404),
        ("/few.Test/Again", vec![grpc.clone()], "14", "Too many requests", 429),
    ] {
        let (head, has_more) = ask(&gateway, "POST", path, &fields).await;
        assert_eq!((head.status.as_u16(), has_more), (200, false), "{path}");
        let field = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(field("content-type").as_deref(), Some("application/grpc"));
        assert_eq!((field("grpc-status").as_deref(), field("grpc-message").as_deref()), (Some(code), Some(message)));
        assert_eq!(field("www-authenticate").is_some(), status == 401, "{path}");
        assert!(field("x-request-id").is_some() && field("location").is_none());
        let line = gateway.access_line(path, |line| line["path"] == path);
        assert_eq!(line["status"], status, "{path}");
    }
    app.assert_untouched("all were refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_call_is_answered_in_http() {
    let app = Recorder::start();
    let setup = both(Setup::new(app.address()).routes(&routes()));
    let gateway = blocking(move || setup.start()).await;
    let kind = |kind: &str| vec![("content-type", kind.to_owned())];
    for (method, path, fields, status) in [
        ("POST", "/in.Test/Call", kind("application/grpc-web"), 401),
        ("POST", "/in.Test/Call", kind("application/json"), 401),
        ("GET", "/in.Test/Call", kind("application/grpc"), 401),
        // A malformed request is no call, and the gateway's own paths have none.
        ("POST", "/in.Test/../Call", kind("application/grpc"), 400),
        ("POST", "/login", kind("application/grpc"), 415),
        ("POST", "/.gateway/nothing", kind("application/grpc"), 404),
    ] {
        let (head, _) = ask(&gateway, method, path, &fields).await;
        assert_eq!(head.status, status, "{method} {path} {fields:?}");
        assert!(!head.headers.contains_key("grpc-status"));
    }
    let old = post("/in.Test/Call").body("application/grpc", "x");
    let status = blocking(move || gateway.send(&old).status).await;
    assert_eq!(status, 401, "over HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_proxy_that_asks_about_a_call_never_hears_a_success() {
    let app = Recorder::start();
    for (family, path, fields) in [
        ("envoy", "/.gateway/check/in.Test/Call", vec![]),
        ("envoy", "/.gateway/check/in.Test/../Call", vec![]),
        ("envoy", "/.gateway/check/none.Test/Call", vec![]),
        (
            "traefik",
            "/.gateway/check",
            vec![
                ("x-forwarded-method", "POST".to_owned()),
                ("x-forwarded-host", "127.0.0.1:8080".to_owned()),
                ("x-forwarded-proto", "http".to_owned()),
                ("x-forwarded-uri", "/in.Test/Call".to_owned()),
            ],
        ),
    ] {
        let setup = both(Setup::new(app.address()).routes(&routes()).behind_a_proxy());
        let setup = setup.key("server.forward_auth", &format!("\"{family}\""));
        let gateway = blocking(move || setup.start()).await;
        let fields = [fields, vec![("content-type", "application/grpc".to_owned())]].concat();
        let (head, _) = ask(&gateway, "POST", path, &fields).await;
        assert!(head.status.is_client_error(), "{family} {path}: {}", head.status);
    }
}
