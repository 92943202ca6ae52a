//! Paths: what no application should see, what goes on byte for byte, and what is judged under every reading.

use serde_json::json;

use crate::common::token::{claims_with, mint};
use crate::common::{Gateway, Recorder, Request, Setup, Wire, get};

/// A public site around one protected part, as most of the bypasses had it; each route reads paths in full.
pub(super) const ROUTES: &str = r#"
    [[routes]]
    name = "admin"
    path = "/admin/**"
    allow = { groups = ["admin"] }
    upstream = "app"
    [[routes]]
    name = "own"
    path = "/user/own/**"
    allow = "signed-in"
    upstream = "app"
    [[routes]]
    name = "as-written"
    path = "/raw/**"
    allow = "anyone"
    upstream = "app"
    readings = "as-written"
    [[routes]]
    name = "rest"
    path = "/**"
    allow = "anyone"
    upstream = "app"
"#;

pub(super) fn gateway_with(routes: &str) -> (Recorder, Gateway) {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).shared_secret().routes(routes);
    let gateway = setup.user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

pub(super) fn token(name: &str) -> String {
    mint(&claims_with(name, json!({})))
}

/// Paths that are 400 whatever the rules say.
const NEVER: &[&str] = &[
    // dot segments, plain
    "/public/../admin",
    "/..",
    "/../",
    "/.",
    "/./admin",
    "/public/.",
    "/public/..",
    "/admin/..",
    "/a/./b",
    "/public/.././admin",
    "//../admin",
    "/public//../admin",
    // encoded
    "/public/%2e%2e/admin",
    "/public/%2E%2E/admin",
    "/public/.%2e/admin",
    "/public/%2e./admin",
    "/%2e/admin",
    "/public/%2e",
    "/public/%2e%2e",
    "/public%2f..%2fadmin",
    "/public/..%2fadmin",
    "/public/%2e%2e%2fadmin",
    "/public%2F%2E%2E%2Fadmin",
    // doubly encoded
    "/public/%252e%252e/admin",
    "/public/%252E%252e/admin",
    "/public/%252e/admin",
    "/public/.%252e/admin",
    "/public/%252e%252e%252fadmin",
    "/public/..%252fadmin",
    "/public%252f..%252fadmin",
    // behind parameters
    "/api/..;/admin",
    "/user/..;x=y/admin",
    "/api/.;/admin",
    "/api/..;",
    "/api/%2e%2e;/admin",
    "/api/..%3b/admin",
    "/api/..%3B/admin",
    "/api/..%253b/admin",
    "/api/.%2e;x/admin",
    "/api/%252e%252e;/admin",
    // behind a backslash, and backslashes at all
    r"/api\..\admin",
    r"/api/..\admin",
    r"/..\admin",
    r"/\admin",
    r"/admin\",
    "/%5Cadmin",
    "/%5cadmin",
    "/api/..%5cadmin",
    "/api%5c..%5cadmin",
    "/api/..%255cadmin",
    "/%255Cadmin",
    "/a%5cb",
    // controls
    "/admin%00",
    "/admin%00.css",
    "/%00admin",
    "/a%0ab",
    "/a%0d%0ab",
    "/admin%09",
    "/a%1fb",
    "/a%7fb",
    "/admin%2500",
    "/a%250a",
    "/a%257f",
    "/a%C2%80b",
    "/a%C2%85b",
    // invalid escapes
    "/%",
    "/a%",
    "/a%f",
    "/%zz/admin",
    "/%u002e%u002e/admin",
    "/a%2",
    "/%%32%65",
    "/a%2g",
    "/a%-1",
    // escapes that are not UTF-8
    "/%c0%ae%c0%ae/admin",
    "/%c0%af",
    "/%e0%80%af",
    "/%ff",
    "/a%80",
    "/%ed%a0%80",
    "/%f8%88%80%80%80",
    "/%c3",
    "/%f4%90%80%80",
    "/%C0%2E",
    "/%e2%82",
    // raw characters that no path has
    "/public#/../admin",
    "/admin#",
    "/#",
    "/a\"b",
    "/a<b",
    "/a>b",
    "/caf\u{e9}",
    "/\u{2025}/admin",
];

#[test]
fn what_no_application_should_see_is_400_whatever() {
    let (app, gateway) = gateway_with(ROUTES);
    let alice = token("alice");
    assert!(!NEVER.is_empty());
    for path in NEVER {
        let plain = get(path);
        for request in [plain.clone(), plain.clone().bearer(&alice), Request::new("POST", path).bearer(&alice)] {
            let answer = gateway.send(&request);
            answer.assert_status(400, path);
            app.assert_untouched(path);
        }
        // Inside a route that is judged as written only, the same holds.
        let inside = format!("/raw{path}");
        gateway.send(&get(&inside)).assert_status(400, &inside);
        app.assert_untouched(&inside);
    }
}

#[test]
fn bytes_that_are_not_a_request_line_are_refused() {
    let (app, gateway) = gateway_with(ROUTES);
    let lines: &[&[u8]] = &[
        b"GET /a b HTTP/1.1",
        b"GET /admin\xc0\xaf HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /a\x00b HTTP/1.1",
        b"GET /a\x7fb HTTP/1.1",
        b"GET /a\tb HTTP/1.1",
        b"GET admin HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET ?x HTTP/1.1",
        b"GET u@h:443 HTTP/1.1",
        b"GET /admin",
        b"GET /admin HTTP/1.2",
        b"GET /admin HTTP/2.0",
        b"GET /admin http/1.1",
        b"GET /admin HTTP/1",
        b"GET /admin HTTP/1.1 x",
        b"/admin HTTP/1.1",
        b"G\xc3\x89T / HTTP/1.1",
        b"GET \"/admin\" HTTP/1.1",
        b"CONNECT h:1 HTTP/1.1",
        b"CONNECT /admin HTTP/1.1",
        b"GET http:///admin HTTP/1.1",
    ];
    for line in lines {
        let mut wire = Wire::connect(gateway.address);
        wire.write([*line, b"\r\nHost: a\r\nConnection: close\r\n\r\n"].concat());
        let answer = wire.read_to_end().expect("the connection ends");
        let shown = String::from_utf8_lossy(line).into_owned();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let refused = answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 505");
        assert!(refused, "{shown}: {text}");
        app.assert_untouched(&shown);
    }
    let mut wire = Wire::connect(gateway.address);
    wire.write("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let status = wire.read_answer("OPTIONS").expect("an answer").status;
    assert!(status < 500, "OPTIONS *: {status}");
    app.assert_untouched("OPTIONS *");
}

/// What is sent, and what arrives.
const FORWARDED: &[(&str, &str)] = &[
    ("/", "/"),
    ("/public", "/public"),
    ("/public/", "/public/"),
    ("/public//x", "/public//x"),
    ("//public", "//public"),
    ("/public/%61bc", "/public/abc"),
    ("/public/%7Euser%2D%5F%2e5", "/public/~user-_.5"),
    ("/%70ublic", "/public"),
    ("/public/a%2Fb", "/public/a%2Fb"),
    ("/public/a%2fb", "/public/a%2fb"),
    ("/public/a%20b", "/public/a%20b"),
    ("/public/a+b", "/public/a+b"),
    ("/public/a%2Bb", "/public/a%2Bb"),
    ("/public/%E2%82%AC", "/public/%E2%82%AC"),
    ("/public/%e2%82%ac", "/public/%e2%82%ac"),
    ("/public/100%25", "/public/100%25"),
    ("/public/a%23b", "/public/a%23b"),
    ("/public/a%3Fb", "/public/a%3Fb"),
    ("/public/a;b=c", "/public/a;b=c"),
    ("/public/a%3bb", "/public/a%3bb"),
    ("/public/a!$&'()*,:=@b", "/public/a!$&'()*,:=@b"),
    ("/public/a%21%24b", "/public/a%21%24b"),
    ("/public/a|b", "/public/a%7Cb"),
    ("/public/a^b", "/public/a%5Eb"),
    ("/public/[x]", "/public/%5Bx%5D"),
    ("/public/{x}", "/public/%7Bx%7D"),
    ("/public/...", "/public/..."),
    ("/public/..a", "/public/..a"),
    ("/public/.hidden", "/public/.hidden"),
    ("/public/UPPER", "/public/UPPER"),
    ("/public/x?", "/public/x?"),
    ("/public/x?a=b", "/public/x?a=b"),
    ("/public/x?a=%zz&b=%00&c=%61", "/public/x?a=%zz&b=%00&c=%61"),
    ("/public/x?../../admin", "/public/x?../../admin"),
    ("/public/x?/../..//;\\|^{}[]`'!*+~", "/public/x?/../..//;\\|^{}[]`'!*+~"),
    ("/public/x?a?b?c", "/public/x?a?b?c"),
    ("/public/x?next=http://h/%2e%2e/", "/public/x?next=http://h/%2e%2e/"),
    ("/public/x?%", "/public/x?%"),
];

#[test]
fn what_is_allowed_goes_on_byte_for_byte() {
    let (app, gateway) = gateway_with(ROUTES);
    for (sent, arrives) in FORWARDED {
        gateway.send(&get(sent)).assert_status(200, sent);
        assert_eq!(&app.only(sent).target(), arrives, "{sent}");
    }
}

#[test]
fn a_stripped_prefix_is_cut_from_what_was_matched() {
    let routes = r#"
        [[routes]]
        path = "/api/**"
        allow = "anyone"
        upstream = "app"
        strip_prefix = "/api"
    "#;
    let (app, gateway) = gateway_with(routes);
    let cases = [
        ("/api/x", "/x"),
        ("/api", "/"),
        ("/api/", "/"),
        ("/%61pi/x", "/x"),
        ("/api?a=b", "/?a=b"),
        ("/api/x%2Fy?q=%zz", "/x%2Fy?q=%zz"),
        ("/api/api/x", "/api/x"),
        ("/api/%7Eu", "/~u"),
    ];
    for (sent, arrives) in cases {
        gateway.send(&get(sent)).assert_status(200, sent);
        let seen = app.only(sent);
        assert_eq!(seen.target(), arrives, "{sent}");
        assert_eq!(seen.header("x-forwarded-prefix").as_deref(), Some("/api"));
    }
    for path in ["/api../admin", "/api%2e%2e/admin", "/api..;/admin", "/apix", "/api%2Fx/..", "/api/../x"] {
        let answer = gateway.send(&get(path));
        assert!(matches!(answer.status, 400 | 403 | 404), "{path}: {}", answer.status);
        app.assert_untouched(path);
    }
    // Whatever is left may never read as another host's address.
    for path in ["/api//evil.example", "/api/%2Fevil.example", "/API/x", "/api%2Fx"] {
        let answer = gateway.send(&get(path));
        for seen in app.take() {
            assert!(seen.target().starts_with('/'), "{path} went on as {}", seen.target());
        }
        assert!(answer.status < 500, "{path}: {}", answer.status);
    }
}

#[test]
fn the_gateways_own_paths_are_its_own_in_every_spelling() {
    let (app, gateway) = gateway_with(ROUTES);
    for (method, path, status) in [
        ("GET", "/login", 200),
        ("GET", "/%6cogin", 200),
        ("PUT", "/login", 405),
        ("DELETE", "/%6Cogin", 405),
        ("GET", "/.gateway/x", 404),
        ("GET", "/.gateway", 404),
        ("GET", "/.gateway/", 404),
        ("POST", "/%2Egateway/x", 404),
        ("GET", "/.gatewa%79/x", 404),
        ("DELETE", "/logout", 405),
    ] {
        gateway.send(&Request::new(method, path)).assert_status(status, &format!("{method} {path}"));
        app.assert_untouched(path);
    }
}
