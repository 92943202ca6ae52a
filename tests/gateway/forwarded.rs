//! Other fields of a request: where the client is, what is for one hop only, what goes on as it came.

use super::headers::gateway;
use crate::common::{Recorder, Setup, get};

#[test]
fn the_application_is_told_the_truth_about_the_client() {
    let (app, gateway) = gateway();
    let host = gateway.address.to_string();
    let plain = get("/public/x");
    let lying = plain
        .clone()
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.example");
    let lying = lying
        .header("Forwarded", "for=1.2.3.4;proto=https")
        .header("X-Real-IP", "1.2.3.4")
        .header("X-Forwarded-Port", "443");
    for request in [plain, lying] {
        gateway.send(&request).assert_status(200, "a stranger");
        let seen = app.only("a stranger");
        assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(seen.header("x-forwarded-host").as_deref(), Some(host.as_str()));
        assert_eq!(seen.header("forwarded"), None);
        assert!(!String::from_utf8_lossy(&seen.head).contains("1.2.3.4"), "{:?}", seen.headers());
    }
}

#[test]
fn a_trusted_proxy_is_believed_as_far_as_it_goes() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).behind_a_proxy().start();
    let request = get("/public/x").host("apps.example.com").header("X-Forwarded-For", "9.9.9.9, 203.0.113.7");
    let request = request
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.example")
        .header("Forwarded", "for=8.8.8.8");
    gateway.send(&request).assert_status(200, "a proxy");
    let seen = app.only("a proxy");
    let list = seen.header("x-forwarded-for").unwrap();
    assert_eq!(list.replace(' ', ""), "9.9.9.9,203.0.113.7,127.0.0.1", "extended");
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("apps.example.com"), "not read unless named");
    assert_eq!(seen.header("forwarded"), None);
    for bad in ["not an address", "203.0.113.7, x", "203.0.113.7:99999"] {
        let answer = gateway.send(&get("/public/x").header("X-Forwarded-For", bad));
        assert!(matches!(answer.status, 200 | 400), "{bad}: {}", answer.status);
        app.take();
    }
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let (app, gateway) = gateway();
    let request = get("/public/x").header("Connection", "X-Private, keep-alive").header("X-Private", "gone");
    let request =
        request.header("Keep-Alive", "timeout=5").header("TE", "gzip").header("Proxy-Authorization", "Basic forged");
    let request = request
        .header("Proxy-Connection", "keep-alive")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABk")
        .header("X-Kept", "a");
    gateway.send(&request).assert_status(200, "hop by hop");
    let seen = app.only("hop by hop");
    for name in [
        "x-private",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "trailer",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-kept").as_deref(), Some("a"));
}

#[test]
fn ordinary_fields_go_on_as_they_came() {
    let (app, gateway) = gateway();
    let fields = [
        ("User-Agent", "curl/8"),
        ("Accept-Encoding", "gzip, br"),
        ("Range", "bytes=0-5"),
        ("If-None-Match", "\"a\", W/\"b\""),
        ("X-Empty", ""),
        ("Via", "1.1 other"),
        ("X-Request-Id", "abc"),
        ("Origin", "https://evil.example"),
        ("X-Two", "a"),
        ("X-Two", "b"),
    ];
    let request = fields.iter().fold(get("/public/x"), |request, (name, value)| request.header(name, value));
    gateway.send(&request).assert_status(200, "ordinary");
    let seen = app.only("ordinary");
    for name in ["User-Agent", "Accept-Encoding", "Range", "If-None-Match", "X-Empty", "Origin"] {
        let sent = fields.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(seen.header(name), sent, "{name}");
    }
    assert_eq!(seen.all("x-two"), ["a", "b"]);
}

#[test]
fn a_peer_that_is_not_trusted_is_told_of_once_with_the_key_to_set() {
    let (app, gateway) = gateway();
    for number in 0..5 {
        let forwarded = get("/public/x").header("X-Forwarded-For", &format!("192.0.2.{number}"));
        gateway.send(&forwarded).assert_status(200, "a stranger");
    }
    drop(app);
    let log = gateway.stop().stderr;
    let told: Vec<&str> = log.lines().filter(|line| line.contains("forwarded headers of a peer")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("127.0.0.1") && told[0].contains("server.trusted_proxies"), "{}", told[0]);
}
