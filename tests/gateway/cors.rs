//! `cors`: true preflights, what answers say to scripts of other sites, and all that only looks like a preflight.

use crate::common::recorder::reply;
use crate::common::{Answer, Gateway, Recorder, Request, Response, Setup, get, post};

const APP: &str = "https://app.example.com";

const ROUTES: &str = r#"
    [[routes]]
    name = "write"
    path = "/data/**"
    methods = ["PUT", "DELETE"]
    fall_through = true
    allow = { groups = ["admin"] }
    upstream = "app"
    cors = { origins = ["https://app.example.com"], methods = ["PUT"], headers = ["Content-Type", "Authorization"], credentials = true, max_age = "10m" }

    [[routes]]
    name = "read"
    path = "/data/**"
    allow = "signed-in"
    upstream = "app"
    cors = { origins = ["https://App.Example.com:443", "https://other.example"], expose = ["X-Total"] }

    [[routes]]
    name = "all"
    path = "/all/**"
    allow = "anyone"
    upstream = "app"
    cors = { origins = ["*"] }

    [[routes]]
    name = "inner"
    path = "/own/inner/**"
    allow = "signed-in"
    upstream = "app"

    [[routes]]
    name = "own"
    path = "/own/**"
    allow = "signed-in"
    upstream = "app"
    cors = "upstream"

    [[routes]]
    name = "never"
    path = "/never/**"
    allow = "nobody"
    upstream = "app"
    cors = "upstream"

    [[routes]]
    name = "office"
    path = "/office/**"
    allow = { groups = ["admin"], from = ["10.0.0.0/8"] }
    upstream = "app"
    cors = "upstream"

    [[routes]]
    name = "closed"
    path = "/closed"
    allow = "anyone"
    respond = { status = 503, body = "closed" }
    cors = { origins = ["https://app.example.com"] }

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::answering(|_| {
        let fields = "Access-Control-Allow-Origin: https://evil.example\r\nAccess-Control-Allow-Credentials: true\r\n\
                      Access-Control-Allow-Private-Network: true\r\nVary: Accept\r\nX-Total: 3\r\n";
        Answer::Keep(reply("200 OK", fields, "x"))
    });
    let setup = Setup::new(app.address()).routes(ROUTES).user("bob", &[]).key("log.format", "\"json\"");
    let gateway = setup.start();
    (app, gateway)
}

fn preflight(path: &str, origin: &str, method: &str) -> Request {
    Request::new("OPTIONS", path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization,content-type")
        .header("Sec-Fetch-Mode", "cors")
        .header("Sec-Fetch-Site", "cross-site")
}

/// Names of the protocol's fields on an answer.
fn fields(answer: &Response) -> Vec<String> {
    let names = [
        "allow-origin",
        "allow-credentials",
        "allow-methods",
        "allow-headers",
        "max-age",
        "expose-headers",
        "allow-private-network",
    ];
    let names = names.iter().map(|name| format!("access-control-{name}"));
    names.filter(|name| answer.header(name).is_some()).collect()
}

#[test]
fn a_true_preflight_is_answered_by_the_route_of_the_method_that_it_announces() {
    let (app, gateway) = gateway();
    let answer = gateway.send(&preflight("/data/1", APP, "PUT"));
    assert!(answer.assert_status(204, "PUT").body.is_empty());
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type, authorization"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    let read = gateway.send(&preflight("/data/1", APP, "GET"));
    assert_eq!(read.assert_status(204, "GET").header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(
        fields(&read),
        ["access-control-allow-origin", "access-control-allow-methods", "access-control-expose-headers"]
    );
    let all = gateway.send(&preflight("/all/x", "null", "POST"));
    assert_eq!(all.assert_status(204, "every site").header("access-control-allow-origin"), Some("*"));
    app.assert_untouched("the gateway answers");
    let line = gateway.access_line("the line", |line| line["code"] == "preflight");
    assert_eq!((&line["decision"], &line["route"]), (&"own".into(), &"write".into()));
}

#[test]
fn a_site_that_is_not_named_is_told_no() {
    let (app, gateway) = gateway();
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://APP.example.com",
        "https://app.example.com:444",
        "https://app.example.com/",
        "https://app.example.com, https://evil.example",
        "*",
    ] {
        let answer = gateway.send(&preflight("/data/1", origin, "PUT"));
        answer.assert_status(403, origin);
        assert_eq!((fields(&answer), answer.header("vary")), (Vec::new(), Some("Origin")), "{origin}");
    }
    app.assert_untouched("none of them");
    let line = gateway.access_line("the line", |line| line["code"] == "cors-origin");
    assert_eq!(line["decision"], "deny");
}

#[test]
fn every_answer_to_a_named_site_says_so_refusals_too() {
    let (_app, gateway) = gateway();
    let bob = gateway.token("bob");
    let put = |request: Request| request.header("Origin", APP);
    let cases = [
        ("nobody", put(Request::new("PUT", "/data/1")), 401),
        ("a bad token", put(Request::new("PUT", "/data/1")).bearer("x"), 401),
        ("not allowed", put(Request::new("PUT", "/data/1")).bearer(&bob), 403),
        ("two credentials", put(Request::new("PUT", "/data/1")).bearer(&bob).bearer(&bob), 400),
        ("allowed", put(Request::new("PUT", "/data/1")).bearer(&gateway.token("alice")), 200),
    ];
    for (context, request, status) in cases {
        let answer = gateway.send(&request);
        answer.assert_status(status, context);
        assert_eq!(answer.all("access-control-allow-origin"), [APP], "{context}");
        assert_eq!(answer.all("access-control-allow-credentials"), ["true"], "{context}");
        assert!(answer.all("vary").contains(&"Origin"), "{context}");
        assert_eq!(answer.header("access-control-allow-private-network"), None, "{context}: the application's go");
    }
    let read = gateway.send(&get("/data/1").header("Origin", "https://other.example").bearer(&bob));
    assert_eq!(read.assert_status(200, "read").header("access-control-expose-headers"), Some("x-total"));
    assert_eq!((read.header("access-control-allow-credentials"), read.all("vary")), (None, vec!["Accept", "Origin"]));
    let closed = gateway.send(&get("/closed").header("Origin", APP));
    assert_eq!(closed.assert_status(503, "its own").header("access-control-allow-origin"), Some(APP));
}

#[test]
fn others_are_told_nothing_whatever_the_application_says() {
    let (_app, gateway) = gateway();
    let bob = gateway.token("bob");
    let origins: [&[&str]; 4] = [&[], &["https://evil.example"], &["null"], &[APP, "https://evil.example"]];
    for origins in origins {
        let request =
            origins.iter().fold(get("/data/1").bearer(&bob), |request, origin| request.header("Origin", origin));
        let answer = gateway.send(&request);
        assert!(fields(&answer).is_empty(), "{origins:?}: {:?}", fields(&answer));
        assert_eq!(answer.assert_status(200, "read").all("vary"), ["Accept", "Origin"], "{origins:?}");
    }
    let other = gateway.send(&get("/x").bearer(&bob).header("Origin", APP));
    assert_eq!(other.header("access-control-allow-origin"), Some("https://evil.example"), "a route without `cors`");
}

/// Requests that carry more than the question: each is judged as any other.
fn false_preflights(path: &str, token: &str) -> Vec<(&'static str, Request)> {
    let asked = || preflight(path, APP, "GET");
    let plain = || Request::new("OPTIONS", path);
    vec![
        ("no method", plain().header("Origin", APP)),
        ("no origin", plain().header("Access-Control-Request-Method", "GET")),
        ("another method", get(path).header("Origin", APP).header("Access-Control-Request-Method", "GET")),
        ("a POST", post(path).header("Origin", APP).header("Access-Control-Request-Method", "GET")),
        ("a body", asked().body("text/plain", "delete everything")),
        ("a cookie", asked().cookie("portcullis=x")),
        ("a bad credential", asked().bearer(&format!("{token}x"))),
        ("a key", asked().header("X-API-Key", "pcl_x_y")),
        ("two origins", asked().header("Origin", "https://evil.example")),
        ("two methods", asked().header("Access-Control-Request-Method", "PUT")),
        ("an override", asked().header("X-HTTP-Method-Override", "DELETE")),
        ("an override in another spelling", asked().header("X_Method.Override", "DELETE")),
        ("an upgrade", asked().header("Connection", "Upgrade").header("Upgrade", "websocket")),
        (
            "a page load",
            plain()
                .header("Origin", APP)
                .header("Access-Control-Request-Method", "GET")
                .header("Sec-Fetch-Mode", "navigate"),
        ),
    ]
}

#[test]
fn a_false_preflight_gains_nothing() {
    let (app, gateway) = gateway();
    let token = gateway.token("bob");
    for path in ["/own/x", "/data/x", "/x"] {
        for (context, request) in false_preflights(path, &token) {
            let answer = gateway.send(&request);
            assert!([401, 303].contains(&answer.status), "{path} {context}: {}", answer.status);
            app.assert_untouched(context);
        }
    }
    let chunked = "OPTIONS /own/x HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n\
                   Access-Control-Request-Method: GET\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut wire = crate::common::Wire::connect(gateway.address);
    wire.write(chunked);
    assert_eq!(wire.read_answer("OPTIONS").unwrap().status, 401);
    app.assert_untouched("a chunked body");
}

#[test]
fn a_preflight_over_http_2_has_no_body_either() {
    use crate::common::frames::{DATA, END_STREAM, HEADERS, Raw, basic, literals};
    let app = Recorder::start();
    let listen = r#"[{ address = "127.0.0.1:0", h2c = true }]"#;
    let gateway = Setup::new(app.address()).without_users().key("server.listen", listen).routes(ROUTES).start();
    let asked: [(&str, &[u8]); 2] = [("origin", APP.as_bytes()), ("access-control-request-method", b"GET")];
    for path in ["/own/x", "/data/x"] {
        // A body needs neither a length nor a coding there.
        let mut client = Raw::connect(gateway.address, &[]);
        let fields = [basic("OPTIONS", "h", path), asked.to_vec()].concat();
        client.send(HEADERS, 4, 1, &literals(&fields));
        client.send(DATA, END_STREAM, 1, b"delete everything");
        assert_eq!(client.outcome(1), "401", "{path}");
        app.assert_untouched(path);
    }
    let mut client = Raw::connect(gateway.address, &[]);
    client.request(1, &[basic("OPTIONS", "h", "/own/x"), asked.to_vec()].concat());
    assert_eq!(client.outcome(1), "200", "a true one");
    app.only("a true one");
}

#[test]
fn an_application_that_answers_itself_gets_true_preflights_without_a_name() {
    let (app, gateway) = gateway();
    let request = preflight("/own/x?a=b", "https://evil.example", "DELETE").header("X-Forwarded-User", "root");
    let answer = gateway.send(&request);
    assert_eq!(
        answer.assert_status(200, "the application's").header("access-control-allow-origin"),
        Some("https://evil.example")
    );
    let seen = app.only("the preflight");
    assert_eq!(seen.line(), "OPTIONS /own/x?a=b HTTP/1.1");
    assert!(seen.taken_for("x-forwarded-user").is_empty());
    assert_eq!(seen.header("access-control-request-method").as_deref(), Some("DELETE"));
    gateway.send(&Request::new("DELETE", "/own/x").header("Origin", APP)).assert_status(401, "the request itself");
    app.assert_untouched("the request itself");
    let ordinary = Request::new("OPTIONS", "/own/x").bearer(&gateway.token("bob"));
    gateway.send(&ordinary).assert_status(200, "any other OPTIONS");
    assert_eq!(app.only("ordinary").header("x-forwarded-user").as_deref(), Some("bob"));
}

#[test]
fn preflights_go_on_only_where_every_reading_leads_to_such_a_route() {
    let (app, gateway) = gateway();
    for (path, status) in [
        ("/own/inner/x", 401),
        ("/own//inner/x", 401),
        ("/own/%2Finner/x", 401),
        ("/own/INNER/x", 401),
        ("/own/;/inner/x", 401),
        ("//own/x", 401),
        ("/own/../x", 400),
        ("/never/x", 403),
        ("/office/x", 401),
    ] {
        let answer = gateway.send(&preflight(path, APP, "GET"));
        assert!(answer.status == status || (path == "/office/x" && answer.status == 403), "{path}: {}", answer.status);
        app.assert_untouched(path);
    }
}

#[test]
fn a_site_whose_scripts_may_use_the_cookie_may_send_unsafe_requests_on_it() {
    let (app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let from = |method: &str, origin: &str| {
        let request = Request::new(method, "/data/1").cookie(&cookie).header("Origin", origin);
        request.header("Sec-Fetch-Site", "cross-site").header("Sec-Fetch-Mode", "cors")
    };
    gateway.send(&from("PUT", APP)).assert_status(200, "named, with credentials");
    app.only("named");
    for (method, origin) in [("PUT", "https://evil.example"), ("POST", APP), ("POST", "https://other.example")] {
        gateway.send(&from(method, origin)).assert_status(403, origin);
        app.assert_untouched("without credentials, or not named");
    }
}
