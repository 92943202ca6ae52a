//! Routes that answer themselves: `respond` and `redirect`. Nothing of them reaches an application.

use crate::common::{Gateway, Recorder, Request, Setup, command, get, post};

const ROUTES: &str = r#"
    [[routes]]
    name = "shop"
    path = "/shop/**"
    allow = "anyone"
    respond = { status = 503, body = "<h1>Back at noon</h1>", content_type = "text/html; charset=utf-8", retry_after = "10m" }
    response_headers = { set = { "X-Shop" = "closed" } }

    [[routes]]
    name = "gone"
    path = "/gone/**"
    allow = "anyone"
    respond = { status = 410, retry_after = "1m" }

    [[routes]]
    name = "ok"
    path = "/ok"
    allow = "anyone"
    respond = { status = 204 }

    [[routes]]
    name = "staff"
    path = "/staff/**"
    allow = { groups = ["staff"] }
    respond = { status = 503, body = "closed for staff" }

    [[routes]]
    name = "notes"
    path = "/notes/**"
    allow = "signed-in"
    respond = { status = 200, body = "for those who are signed in" }
    response_headers = { set = { "Cache-Control" = "public, max-age=60" } }

    [[routes]]
    name = "moved"
    path = "/moved/**"
    allow = "anyone"
    redirect = { to = "https://New.Example.com/site/**" }

    [[routes]]
    name = "renamed"
    path = "/renamed/**"
    allow = "anyone"
    redirect = { to = "/**", status = 302 }

    [[routes]]
    name = "user"
    path = "/u/*/old"
    allow = "anyone"
    redirect = { to = "/users/*", status = 307 }

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).routes(ROUTES).user("bob", &[]);
    let gateway = setup.key("log.format", "\"json\"").start();
    (app, gateway)
}

#[test]
fn a_maintenance_answer_is_what_the_operator_wrote() {
    let (app, gateway) = gateway();
    for request in [get("/shop"), post("/shop/cart").body("text/plain", "x"), get("/shop/x").page_load()] {
        let answer = gateway.send(&request);
        answer.assert_status(503, "closed");
        assert_eq!(answer.text(), "<h1>Back at noon</h1>");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("retry-after"), Some("600"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-shop"), Some("closed"));
        assert!(answer.header("x-request-id").is_some());
    }
    let head = gateway.send(&Request::new("HEAD", "/shop"));
    head.assert_status(503, "HEAD");
    assert_eq!((head.header("content-length"), head.body.len()), (Some("21"), 0));
    let line = gateway.access_line("the line", |line| line["path"] == "/shop/cart");
    assert_eq!((&line["decision"], &line["route"]), (&"permit".into(), &"shop".into()));
    assert!(line["upstream"].is_null(), "{line}");
    app.assert_untouched("the gateway answers");
}

#[test]
fn without_a_body_it_is_a_problem_or_a_page() {
    let (_app, gateway) = gateway();
    let problem = gateway.send(&get("/gone/x"));
    assert_eq!(problem.assert_status(410, "gone").header("content-type"), Some("application/problem+json"));
    assert_eq!((problem.json()["detail"].as_str(), problem.header("retry-after")), (Some("Gone"), Some("60")));
    let page = gateway.send(&get("/gone/x").page_load());
    assert!(page.assert_status(410, "gone").header("content-type").unwrap().starts_with("text/html"));
    assert!(gateway.send(&get("/ok")).assert_status(204, "nothing to say").body.is_empty());
}

#[test]
fn the_rule_decides_before_a_route_answers() {
    let (app, gateway) = gateway();
    gateway.send(&get("/staff/x")).assert_status(401, "nobody");
    gateway.send(&get("/staff/x").bearer(&gateway.token("bob"))).assert_status(403, "bob");
    let alice = gateway.send(&get("/staff/x").bearer(&gateway.token("alice")));
    assert_eq!(alice.assert_status(503, "alice").text(), "closed for staff");
    assert_eq!(alice.header("content-type"), Some("text/plain; charset=utf-8"));
    gateway.send(&get("//staff/x").bearer(&gateway.token("bob"))).assert_status(403, "another reading");
    app.assert_untouched("none of them");
}

#[test]
fn what_is_for_some_goes_to_no_shared_cache_whatever_the_route_says() {
    let (_app, gateway) = gateway();
    let token = gateway.token("alice");
    let answer = gateway.send(&get("/notes/x").bearer(&token));
    answer.assert_status(200, "signed in");
    assert_eq!(answer.header("cache-control"), Some("max-age=60, private"));
}

#[test]
fn a_redirect_leads_where_the_operator_says() {
    let (app, gateway) = gateway();
    for (asked, status, location) in [
        ("/moved", 308, "https://new.example.com/site"),
        ("/moved/", 308, "https://new.example.com/site/"),
        ("/moved/a%20b/c?x=//evil&y=%0d%0a", 308, "https://new.example.com/site/a%20b/c?x=//evil&y=%0d%0a"),
        ("/moved/@evil.example", 308, "https://new.example.com/site/@evil.example"),
        ("/moved//evil.example", 308, "https://new.example.com/site//evil.example"),
        ("/moved/%2F%2Fevil.example", 308, "https://new.example.com/site/%2F%2Fevil.example"),
        ("/renamed/a?b", 302, "/a?b"),
        ("/renamed", 302, "/"),
        ("/u/ann/old", 307, "/users/ann"),
    ] {
        let answer = gateway.send(&get(asked).host("apps.example.com"));
        assert_eq!(answer.assert_status(status, asked).header("location"), Some(location), "{asked}");
        assert!(answer.body.is_empty());
        let head = gateway.send(&Request::new("HEAD", asked));
        assert_eq!(head.assert_status(status, asked).header("location"), Some(location), "{asked}");
    }
    app.assert_untouched("the gateway answers");
}

#[test]
fn a_redirect_to_a_path_never_leaves_the_site() {
    let (app, gateway) = gateway();
    for asked in [
        "/renamed//evil.example",
        "/renamed///evil.example/x",
        "/renamed/%2Fevil.example",
        "/renamed/%2f%2fevil.example",
        "/renamed/;/evil.example",
        "/renamed/https:evil.example",
        "/renamed/@evil.example",
        "/u/https:evil.example/old",
        "/u/@evil.example/old",
    ] {
        let request = get(asked).host("evil.example").header("X-Forwarded-Host", "evil.example");
        let answer = gateway.send(&request);
        let location = answer.header("location").unwrap_or_else(|| panic!("{asked}: {}", answer.status)).to_owned();
        // A path of this site to every browser: one slash, and then neither another nor a backslash.
        let rest = location.strip_prefix('/').unwrap_or_else(|| panic!("{asked} leads to {location}"));
        assert!(!rest.starts_with(['/', '\\', '\t']), "{asked} leads to {location}");
    }
    for asked in [
        "/renamed/\\evil.example",
        "/renamed/%5c%5cevil",
        "/renamed/%09/evil",
        "/renamed/%0d%0aSet-Cookie:x",
        "/renamed/..//evil",
    ] {
        let answer = gateway.send(&get(asked));
        assert_eq!(answer.assert_status(400, asked).header("location"), None);
    }
    app.assert_untouched("none of them");
}

#[test]
fn tests_and_explain_know_routes_without_an_upstream() {
    let tests = r#"
        [[tests]]
        request = "GET /shop/x"
        expect = { allow = true, route = "shop" }

        [[tests]]
        request = "GET /moved/x"
        expect = "allow"

        [[tests]]
        request = "GET /staff/x"
        as = { user = "bob" }
        expect = "deny"
    "#;
    let setup =
        |tests: &str| Setup::new(([127, 0, 0, 1], 1).into()).without_users().routes(&format!("{ROUTES}{tests}"));
    let dir = setup(tests).prepare();
    command(dir.path(), &["check"], "").succeeded();
    let explained = |path: &str| command(dir.path(), &["explain", "GET", path], "").succeeded().stdout;
    assert!(
        explained("/shop/x").contains("503 Service Unavailable, which the route answers itself"),
        "{}",
        explained("/shop/x")
    );
    assert!(explained("/moved/x").contains("308 Permanent Redirect to https://new.example.com/site/**"));
    assert!(!explained("/moved/x").contains("sent to"));
    let wrong = "[[tests]]\nrequest = \"GET /shop/x\"\nexpect = { upstream = \"app\" }\n";
    let ran = command(setup(wrong).prepare().path(), &["check"], "");
    assert!(ran.code == Some(1) && (ran.stdout + &ran.stderr).contains("was expected to go to `app` and goes nowhere"));
}

#[test]
fn a_page_from_a_file_is_read_anew_with_the_configuration() {
    let app = Recorder::start();
    let page =
        "[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nrespond = { status = 503, body = { file = \"down.html\" } }\n";
    let setup = Setup::new(app.address());
    let dir = setup.prepare();
    let setup = setup.routes(page);
    std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
    std::fs::write(dir.path().join("down.html"), "<p>down</p>").unwrap();
    let gateway = Gateway::serve(dir);
    let answer = gateway.send(&get("/x"));
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("<p>down</p>", Some("text/html; charset=utf-8"))
    );
    std::fs::write(gateway.dir().join("down.html"), "<p>still down</p>").unwrap();
    gateway.reload(&setup);
    assert_eq!(gateway.send(&get("/x")).text(), "<p>still down</p>");
    app.assert_untouched("the gateway answers");
}
