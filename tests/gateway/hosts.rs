//! Hosts: one name, however it is written; anything doubtful is 400, anything unknown 404.

use serde_json::json;

use crate::common::token::{claims_with, mint};
use crate::common::{Gateway, Recorder, Setup, Wire, get};

const ROUTES: &str = r#"
    [[routes]]
    hosts = ["app.example.com"]
    path = "/**"
    allow = { groups = ["admin"] }
    upstream = "app"
    [[routes]]
    hosts = ["open.example.com"]
    path = "/**"
    allow = "anyone"
    upstream = "app"
    [[routes]]
    hosts = ["*.wild.example.com"]
    path = "/**"
    allow = "anyone"
    upstream = "app"
"#;

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).shared_secret().routes(ROUTES).start();
    (app, gateway)
}

#[test]
fn a_host_is_compared_without_case_port_or_trailing_dot() {
    let (app, gateway) = gateway();
    let alice = mint(&claims_with("alice", json!({})));
    for host in
        ["app.example.com", "APP.Example.com", "app.example.com.", "app.example.com:443", "App.Example.COM.:8080"]
    {
        gateway.send(&get("/x").host(host)).assert_status(401, host);
        app.assert_untouched(host);
        gateway.send(&get("/x").host(host).bearer(&alice)).assert_status(200, host);
        app.only(host);
    }
    for host in ["open.example.com", "OPEN.example.com:1", "a.wild.example.com", "a.b.wild.example.com"] {
        gateway.send(&get("/x").host(host)).assert_status(200, host);
        let seen = app.only(host);
        assert_eq!(seen.header("host").unwrap().to_lowercase(), host.to_lowercase());
    }
}

#[test]
fn unknown_hosts_are_404() {
    let (app, gateway) = gateway();
    let alice = mint(&claims_with("alice", json!({})));
    for host in [
        "other.example",
        "example.com",
        "xapp.example.com",
        "app.example.com.evil.example",
        "wild.example.com",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "xn--pp-via.example.com",
        "app-example.com",
        "app.example.co",
    ] {
        gateway.send(&get("/x").host(host).bearer(&alice)).assert_status(404, host);
    }
    app.assert_untouched("unknown hosts");
}

/// What a connection was asked for first says nothing of what it is asked for next.
#[test]
fn every_request_of_a_connection_is_judged_for_its_own_host() {
    let (app, gateway) = gateway();
    let mut client = gateway.client();
    for (host, status) in [
        ("open.example.com", 200),
        ("app.example.com", 401),
        ("open.example.com:8080", 200),
        ("other.example", 404),
        ("OPEN.example.com.", 200),
        ("app.example.com", 401),
        ("open.example.com", 200),
    ] {
        client.send(&get("/x").host(host)).assert_status(status, host);
        if status == 200 {
            let seen = app.only(host);
            assert_eq!(seen.header("host").as_deref(), Some(host));
            let told = host.to_lowercase().trim_end_matches('.').to_owned();
            assert_eq!(seen.header("x-forwarded-host"), Some(told));
        }
        app.assert_untouched(host);
    }
    assert_eq!(client.opened, 1);
}

/// Whole heads (without the empty line) that leave the host in doubt.
const DOUBTFUL: &[&str] = &[
    "GET /x HTTP/1.1",
    "GET /x HTTP/1.1\r\nHost:",
    "GET /x HTTP/1.1\r\nHost: open.example.com\r\nHost: open.example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com\r\nHost: app.example.com",
    "GET /x HTTP/1.1\r\nHost: app.example.com\r\nhost: open.example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com, app.example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com app.example.com",
    "GET /x HTTP/1.1\r\nHost: user@open.example.com",
    "GET /x HTTP/1.1\r\nHost: user:pass@open.example.com",
    "GET /x HTTP/1.1\r\nHost: @open.example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com/path",
    "GET /x HTTP/1.1\r\nHost: open.example.com?x",
    "GET /x HTTP/1.1\r\nHost: open.example.com#x",
    "GET /x HTTP/1.1\r\nHost: http://open.example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com:99999",
    "GET /x HTTP/1.1\r\nHost: open.example.com:80a",
    "GET /x HTTP/1.1\r\nHost: open.example.com:-1",
    "GET /x HTTP/1.1\r\nHost: open.example.com:80:80",
    "GET /x HTTP/1.1\r\nHost: [::1",
    "GET /x HTTP/1.1\r\nHost: ::1",
    "GET /x HTTP/1.1\r\nHost: [::1]x",
    "GET /x HTTP/1.1\r\nHost: [open.example.com]",
    "GET /x HTTP/1.1\r\nHost: .",
    "GET /x HTTP/1.1\r\nHost: .open.example.com",
    "GET /x HTTP/1.1\r\nHost: open..example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com..",
    "GET /x HTTP/1.1\r\nHost: open%2eexample.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com\\",
    "GET /x HTTP/1.1\r\nHost: \"open.example.com\"",
    "GET /x HTTP/1.1\r\nHost: öpen.example.com",
    "GET /x HTTP/1.1\r\nHost: open.example.com\u{1}",
    "GET http://app.example.com/x HTTP/1.1\r\nHost: open.example.com",
    "GET http://open.example.com/x HTTP/1.1\r\nHost: app.example.com",
    "GET http://open.example.com:81/x HTTP/1.1\r\nHost: open.example.com:82",
    "GET http://user@open.example.com/x HTTP/1.1\r\nHost: open.example.com",
    "GET http://u:p@open.example.com/x HTTP/1.1\r\nHost: open.example.com",
    "GET http://open.example.com/x HTTP/1.1",
    "GET http:///x HTTP/1.1\r\nHost: open.example.com",
];

#[test]
fn a_doubtful_host_is_400() {
    let (app, gateway) = gateway();
    for head in DOUBTFUL {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!("{head}\r\nX-Last: 1\r\n\r\n"));
        let answer = wire.read_answer("GET").unwrap_or_else(|error| panic!("{error} for {head:?}"));
        answer.assert_status(400, head);
        app.assert_untouched(head);
    }
}

#[test]
fn the_absolute_form_of_the_same_host_is_judged_and_sent_on_as_origin_form() {
    let (app, gateway) = gateway();
    let cases = [
        ("http://open.example.com/x?y", "open.example.com", 200),
        ("HTTP://OPEN.example.com/x?y", "open.example.com", 200),
        ("http://app.example.com/x?y", "app.example.com", 401),
        ("HTTP://APP.EXAMPLE.COM/x?y", "app.example.com", 401),
    ];
    for (target, host, status) in cases {
        gateway.send(&get(target).host(host)).assert_status(status, target);
        if status == 200 {
            let seen = app.only(target);
            assert_eq!(seen.target(), "/x?y");
            assert_eq!(seen.header("host").unwrap().to_lowercase(), host);
        } else {
            app.assert_untouched(target);
        }
    }
    for target in ["http://open.example.com", "http://open.example.com?y"] {
        let answer = gateway.send(&get(target).host("open.example.com"));
        assert!(matches!(answer.status, 200 | 400), "{target}: {}", answer.status);
        for seen in app.take() {
            assert!(seen.target().starts_with('/'), "{}", seen.target());
        }
    }
}

#[test]
fn http_1_0_without_a_host_finds_no_host() {
    let (app, gateway) = gateway();
    let answer = crate::common::raw(gateway.address, "GET /x HTTP/1.0\r\n\r\n");
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains(" 400 ") || text.contains(" 404 "), "{text}");
    app.assert_untouched("no host");
}

#[test]
fn a_forwarded_host_never_chooses_the_route() {
    let (app, gateway) = gateway();
    for name in ["X-Forwarded-Host", "X-Host", "X-Original-Host", "X-HTTP-Host-Override"] {
        let request = get("/x").host("app.example.com").header(name, "open.example.com");
        gateway.send(&request).assert_status(401, name);
    }
    app.assert_untouched("claimed hosts");
}
