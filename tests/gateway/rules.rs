//! The routes: which one decides, and what each form of `allow` lets through.

use serde_json::json;

use crate::common::token::{claims_with, mint, now};
use crate::common::{Gateway, Recorder, Request, Setup, get, post};

pub(super) fn gateway_with(routes: &str) -> (Recorder, Gateway) {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).shared_secret().routes(routes);
    let gateway = setup.user("bob", &["--groups", "staff"]).user("carol", &[]).start();
    (app, gateway)
}

pub(super) fn token(name: &str) -> String {
    mint(&claims_with(name, json!({})))
}

/// Asks as each of these and compares the status; the application must see exactly what is 200.
pub(super) fn judge(gateway: &Gateway, app: &Recorder, cases: &[(&str, &str, Option<&str>, u16)]) {
    assert!(!cases.is_empty());
    for (method, path, who, status) in cases {
        let request = Request::new(method, path);
        let request = who.map_or(request.clone(), |name| request.bearer(&token(name)));
        let context = format!("{method} {path} as {who:?}");
        gateway.send(&request).assert_status(*status, &context);
        assert_eq!(app.take().len(), usize::from(*status == 200), "{context}: at the application");
    }
}

#[test]
fn the_first_that_matches_decides_and_nothing_is_404() {
    let routes = r#"
        [[routes]]
        path = "/a/open"
        allow = "anyone"
        upstream = "app"
        [[routes]]
        path = "/a/shut"
        allow = "nobody"
        upstream = "app"
        [[routes]]
        path = "/a/**"
        allow = { groups = ["admin"] }
        upstream = "app"
        [[routes]]
        path = "/b/*/c"
        allow = "signed-in"
        upstream = "app"
        [[routes]]
        path = "/exact"
        allow = "anyone"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    judge(
        &gateway,
        &app,
        &[
            ("GET", "/a/open", None, 200),
            ("GET", "/a/open/", None, 200),
            ("GET", "/a/open/x", None, 401),
            ("GET", "/a/openx", None, 401),
            ("GET", "/a/shut", None, 403),
            ("GET", "/a/shut", Some("alice"), 403),
            ("GET", "/a", None, 401),
            ("GET", "/a/", None, 401),
            ("GET", "/a", Some("alice"), 200),
            ("GET", "/a/x/y/z", Some("alice"), 200),
            ("GET", "/a/x", Some("bob"), 403),
            ("GET", "/ab", Some("alice"), 404),
            ("GET", "/b/x/c", Some("bob"), 200),
            ("GET", "/b/x/c/", Some("bob"), 200),
            ("GET", "/b/x/y/c", Some("bob"), 404),
            ("GET", "/b//c", Some("bob"), 404),
            ("GET", "/b/c", Some("bob"), 404),
            ("GET", "/exact", None, 200),
            ("GET", "/exact/", None, 200),
            ("GET", "/exact/x", None, 404),
            ("GET", "/", Some("alice"), 404),
            ("GET", "/nothing", None, 404),
            ("POST", "/nothing", None, 404),
        ],
    );
}

#[test]
fn a_trailing_slash_goes_on_as_it_came() {
    let routes = "[[routes]]\npath = \"/exact\"\nallow = \"anyone\"\nupstream = \"app\"\n";
    let (app, gateway) = gateway_with(routes);
    for path in ["/exact", "/exact/", "/exact/?x"] {
        gateway.send(&get(path)).assert_status(200, path);
        assert_eq!(app.only(path).target(), path);
    }
}

#[test]
fn users_groups_and_lists_of_tables() {
    let routes = r#"
        [[routes]]
        path = "/users"
        allow = { users = ["alice", "carol"] }
        upstream = "app"
        [[routes]]
        path = "/both"
        allow = { users = ["alice", "bob"], groups = ["staff"] }
        upstream = "app"
        [[routes]]
        path = "/either"
        allow = [{ users = ["carol"] }, { groups = ["admin"] }]
        upstream = "app"
        [[routes]]
        path = "/nobody"
        allow = "nobody"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    judge(
        &gateway,
        &app,
        &[
            ("GET", "/users", Some("alice"), 200),
            ("GET", "/users", Some("bob"), 403),
            ("GET", "/users", Some("carol"), 200),
            ("GET", "/users", None, 401),
            ("GET", "/both", Some("alice"), 200),
            ("GET", "/both", Some("bob"), 200),
            ("GET", "/both", Some("carol"), 403),
            ("GET", "/either", Some("alice"), 200),
            ("GET", "/either", Some("bob"), 403),
            ("GET", "/either", Some("carol"), 200),
            ("GET", "/either", None, 401),
            ("GET", "/nobody", None, 403),
            ("GET", "/nobody", Some("alice"), 403),
        ],
    );
    let refused = gateway.send(&get("/users").bearer(&token("bob")));
    assert_eq!(refused.detail(), "Not allowed");
    assert!(!refused.json()["request_id"].as_str().unwrap().is_empty());
    let page = gateway.send(&get("/nobody").page_load());
    page.assert_status(403, "no sign-in could satisfy it, so a page load is not sent to sign in");
}

#[test]
fn networks_count_by_the_clients_address() {
    let app = Recorder::start();
    let routes = r#"
        [[routes]]
        path = "/inside"
        allow = { groups = ["admin"], from = ["10.0.0.0/8", "2001:db8::/32"] }
        upstream = "app"
        [[routes]]
        path = "/open-inside"
        allow = { anyone = true, from = ["10.0.0.0/8"] }
        upstream = "app"
        [[routes]]
        path = "/either"
        allow = [{ anyone = true, from = ["10.0.0.0/8"] }, { groups = ["admin"] }]
        upstream = "app"
    "#;
    let setup = Setup::new(app.address()).shared_secret().routes(routes).behind_a_proxy();
    let gateway = setup.user("bob", &[]).start();
    let cases: &[(&str, &str, Option<&str>, u16)] = &[
        ("/inside", "10.1.2.3", Some("alice"), 200),
        ("/inside", "2001:db8::1", Some("alice"), 200),
        ("/inside", "11.1.2.3", Some("alice"), 403),
        ("/inside", "10.1.2.3", Some("bob"), 403),
        ("/inside", "10.1.2.3", None, 401),
        ("/inside", "11.1.2.3", None, 403),
        ("/inside", "10.1.2.3, 11.1.2.3", Some("alice"), 403),
        ("/inside", "11.1.2.3, 10.1.2.3", Some("alice"), 200),
        ("/inside", "11.1.2.3, 10.1.2.3, 127.0.0.9", Some("alice"), 200),
        ("/inside", "::ffff:10.1.2.3", Some("alice"), 200),
        ("/open-inside", "10.1.2.3", None, 200),
        ("/open-inside", "10.1.2.3", Some("bob"), 200),
        ("/open-inside", "11.1.2.3", None, 403),
        ("/open-inside", "11.1.2.3", Some("alice"), 403),
        ("/either", "10.1.2.3", None, 200),
        ("/either", "11.1.2.3", None, 401),
        ("/either", "11.1.2.3", Some("alice"), 200),
    ];
    for (path, from, who, status) in cases {
        let request = get(path).header("X-Forwarded-For", from);
        let request = who.map_or(request.clone(), |name| request.bearer(&token(name)));
        let context = format!("{path} from {from} as {who:?}");
        gateway.send(&request).assert_status(*status, &context);
        assert_eq!(app.take().len(), usize::from(*status == 200), "{context}");
    }
}

#[test]
fn strangers_cannot_say_where_they_are() {
    let routes = r#"
        [[routes]]
        path = "/inside"
        allow = { anyone = true, from = ["10.0.0.0/8"] }
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    for (name, value) in [
        ("X-Forwarded-For", "10.1.2.3"),
        ("Forwarded", "for=10.1.2.3"),
        ("X-Real-IP", "10.1.2.3"),
        ("X-Client-IP", "10.1.2.3"),
        ("True-Client-IP", "10.1.2.3"),
        ("CF-Connecting-IP", "10.1.2.3"),
        ("User-Agent", "GoogleHC/1.0"),
    ] {
        gateway.send(&get("/inside").header(name, value)).assert_status(403, name);
    }
    app.assert_untouched("claimed addresses");
}

#[test]
fn scopes_claims_and_ways_of_signing_in() {
    let routes = r#"
        [[routes]]
        path = "/scopes"
        allow = { scopes = ["read", "write"] }
        upstream = "app"
        [[routes]]
        path = "/claims"
        allow = { claims = { "tenant.name" = ["a", "b"], level = 3 } }
        upstream = "app"
        [[routes]]
        path = "/password"
        allow = { methods_of_sign_in = ["password"] }
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    let cases = [
        ("/scopes", json!({ "scope": "read write" }), 200),
        ("/scopes", json!({ "scope": "write other read" }), 200),
        ("/scopes", json!({ "scope": "read" }), 403),
        ("/scopes", json!({ "scope": "readwrite" }), 403),
        ("/scopes", json!({}), 403),
        ("/claims", json!({ "tenant": { "name": "b" }, "level": 3 }), 200),
        ("/claims", json!({ "tenant": { "name": "c" }, "level": 3 }), 403),
        ("/claims", json!({ "tenant": { "name": "b" }, "level": 4 }), 403),
        ("/claims", json!({ "tenant": { "name": "b" } }), 403),
        ("/claims", json!({ "level": 3 }), 403),
    ];
    for (path, claims, status) in cases {
        let token = mint(&claims_with("alice", claims.clone()));
        gateway.send(&get(path).bearer(&token)).assert_status(status, &format!("{path} {claims}"));
        assert_eq!(app.take().len(), usize::from(status == 200));
    }
    let (issued, cookie) = (gateway.token("alice"), gateway.cookie("alice"));
    gateway.send(&get("/password").bearer(&issued)).assert_status(200, "a token by password");
    gateway.send(&get("/password").cookie(&cookie)).assert_status(200, "a cookie by password");
}

#[test]
fn an_old_sign_in_is_asked_to_sign_in_again() {
    let routes = r#"
        [[routes]]
        path = "/fresh"
        allow = { groups = ["admin"], signed_in_within = "1h" }
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    let of = |name: &str, ago: i64| mint(&claims_with(name, json!({ "auth_time": now() - ago })));
    gateway.send(&get("/fresh").bearer(&of("alice", 60))).assert_status(200, "fresh");
    gateway.send(&get("/fresh").bearer(&gateway.token("alice"))).assert_status(200, "just now");
    gateway.send(&get("/fresh").cookie(&gateway.cookie("alice"))).assert_status(200, "just now");
    app.take();
    for old in [of("alice", 3700), mint(&claims_with("alice", json!({})))] {
        let answer = gateway.send(&get("/fresh").bearer(&old));
        let challenge = answer.assert_status(401, "old").header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"insufficient_user_authentication\""), "{challenge}");
        app.assert_untouched("old");
    }
    gateway.send(&get("/fresh").bearer(&of("bob", 3700))).assert_status(403, "old, and not allowed anyway");
}

#[test]
fn unauthenticated_says_what_a_stranger_gets() {
    let routes = r#"
        [[routes]]
        path = "/auto"
        allow = "signed-in"
        upstream = "app"
        [[routes]]
        path = "/login-always"
        allow = "signed-in"
        upstream = "app"
        unauthenticated = "login"
        [[routes]]
        path = "/never"
        allow = "signed-in"
        upstream = "app"
        unauthenticated = "401"
        [[routes]]
        path = "/bearer-only"
        allow = "signed-in"
        upstream = "app"
        accept = ["bearer"]
    "#;
    let (app, gateway) = gateway_with(routes);
    let location = |path: &str| format!("/login?next=%2F{}", &path[1..]);
    for (path, page, api) in
        [("/auto", 303, 401), ("/login-always", 303, 303), ("/never", 401, 401), ("/bearer-only", 401, 401)]
    {
        let answer = gateway.send(&get(path).page_load());
        answer.assert_status(page, path);
        if page == 303 {
            assert_eq!(answer.header("location"), Some(location(path).as_str()));
        }
        gateway.send(&get(path)).assert_status(api, path);
        gateway.send(&post(path)).assert_status(401, path);
    }
    gateway.send(&get("/bearer-only").cookie(&gateway.cookie("alice"))).assert_status(401, "a cookie there");
    app.assert_untouched("strangers");
}

#[test]
fn a_long_table_is_found_through() {
    let mut routes = String::new();
    for number in 0..2000 {
        let allow = if number % 2 == 0 { "anyone" } else { "nobody" };
        routes.push_str(&format!("[[routes]]\npath = \"/r{number}/*/x\"\nallow = \"{allow}\"\nupstream = \"app\"\n"));
    }
    let (app, gateway) = gateway_with(&routes);
    let mut client = gateway.client();
    for number in (0..2000).step_by(37) {
        let status = if number % 2 == 0 { 200 } else { 403 };
        client.send(&get(&format!("/r{number}/a/x"))).assert_status(status, "one of many");
        assert_eq!(app.take().len(), usize::from(status == 200));
    }
}
