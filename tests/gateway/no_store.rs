//! `store.url = "none"`: tokens of other issuers and nothing else, and nothing is written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::issuer::{Issuer, IssuerKey};
use crate::common::{Client, Gateway, Recorder, Setup, get, post, token};

const ROUTES: &str = r#"
    [[routes]]
    name = "public"
    path = "/public/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    name = "ops"
    path = "/ops/**"
    allow = { groups = ["ops"] }
    upstream = "app"

    [[routes]]
    name = "nobody"
    path = "/nobody/**"
    allow = "nobody"
    upstream = "app"

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

struct Bench {
    app: Recorder,
    corp: Issuer,
    key: IssuerKey,
    gateway: Gateway,
}

impl Bench {
    fn new(edit: impl Fn(Setup) -> Setup) -> Self {
        let (app, key) = (Recorder::start(), IssuerKey::new("1"));
        let corp = Issuer::publishing(&[&key]);
        let setup = Setup::new(app.address()).without_users().key("store.url", "\"none\"");
        let setup = setup.key("log.format", "\"json\"").key("admin.listen", "\"127.0.0.1:0\"");
        let setup = edit(setup.routes(&format!("{}{ROUTES}", corp.section("corp", ""))));
        let dir = setup.prepare();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let gateway = Gateway::serve(dir);
        Self { app, corp, key, gateway }
    }

    fn token(&self, subject: &str) -> String {
        self.key.sign(&self.corp.claims(subject))
    }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn tokens_of_others_count_and_nothing_is_written() {
    let bench = Bench::new(|setup| setup);
    let ask = |path: &str| bench.gateway.send(&get(path).bearer(&bench.token("bob")));
    for path in ["/x", "/ops/x", "/public/x"] {
        ask(path).assert_status(200, path);
        assert_eq!(bench.app.only(path).header("x-forwarded-user").as_deref(), Some("bob"));
    }
    ask("/nobody/x").assert_status(403, "nobody");
    let userinfo = ask("/.gateway/userinfo");
    assert_eq!(userinfo.assert_status(200, "userinfo").json()["sub"], "bob");
    let mut admin = Client::of(bench.gateway.admin());
    for path in ["/livez", "/readyz", "/metrics"] {
        admin.send(&get(path)).assert_status(200, path);
    }
    let forged = token::mint(&token::claims("alice"));
    for bad in [forged.as_str(), "pk_nothing", "a.b.c"] {
        bench.gateway.send(&get("/x").bearer(bad)).assert_status(401, bad);
    }
    bench.app.assert_untouched("bad tokens");
    assert_eq!(files(bench.gateway.dir()), ["gateway.toml"]);
    let ran = bench.gateway.stop();
    assert!(!ran.stderr.contains("no users yet") && !ran.stderr.contains("ERROR"), "{}", ran.stderr);
}

#[test]
fn there_is_no_sign_in_and_nothing_leads_to_one() {
    let bench = Bench::new(|setup| setup);
    let host = bench.gateway.address.to_string();
    let page = bench.gateway.send(&get("/x").page_load());
    assert_eq!(page.assert_status(401, "a page load").header("location"), None);
    assert!(!page.text().contains("/login"), "{}", page.text());
    let script = bench.gateway.send(&get("/x"));
    assert_eq!(script.assert_status(401, "a script").json().get("login_url"), None);
    let cookie = bench.gateway.send(&get("/x").cookie("portcullis=abc; theirs=1"));
    cookie.assert_status(401, "a cookie is no credential");
    let own = ["/login", "/logout", "/.gateway/account", "/.well-known/jwks.json"];
    let metadata = ["/.well-known/oauth-authorization-server", "/.gateway/check"];
    for path in own.into_iter().chain(metadata) {
        // `public_url` is at its default.
        let request = get(path).host("127.0.0.1:8080").bearer(&bench.token("bob"));
        bench.gateway.send(&request).assert_status(404, path);
    }
    let form = [("username", "bob"), ("password", "x"), ("grant_type", "password"), ("token", "x")];
    for path in ["/login", "/logout", "/.gateway/token", "/.gateway/revoke", "/.gateway/introspect"] {
        bench.gateway.send(&post(path).host(&host).form(&form)).assert_status(404, path);
    }
    bench.app.assert_untouched("the gateway's own");
    bench.gateway.send(&get("/public/x").cookie("portcullis=abc; theirs=1")).assert_status(200, "a public page");
    assert_eq!(bench.app.only("a public page").header("cookie").as_deref(), Some("theirs=1"));
}

#[test]
fn commands_say_that_there_is_no_store() {
    let bench = Bench::new(|setup| setup);
    for args in [
        &["user", "list"][..],
        &["user", "add", "bob", "--password-stdin"],
        &["session", "list"],
        &["apikey", "list"],
        &["key", "list"],
        &["key", "rotate"],
        &["token", "mint", "--user", "bob"],
    ] {
        let ran = bench.gateway.command(args);
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("there is no store") && ran.stderr.contains("help: "), "{args:?}: {}", ran.stderr);
    }
    for args in [&["reload"][..], &["why", "abc"], &["log-level", "debug"]] {
        let ran = bench.gateway.command(args);
        assert!(ran.code != Some(0) && ran.stderr.contains("has no control socket"), "{args:?}: {ran:?}");
    }
    let inspected = bench.gateway.command(&["token", "inspect", &token::mint(&token::claims("alice"))]);
    assert_eq!(inspected.code, Some(1), "{inspected:?}");
    bench.gateway.command(&["check"]).succeeded();
    bench.gateway.command(&["explain", "GET", "/ops/x", "--as", "bob", "--groups", "ops"]).succeeded();
    bench.gateway.command(&["config", "show"]).succeeded();
    assert_eq!(files(bench.gateway.dir()), ["gateway.toml"]);
}

#[test]
fn a_control_socket_that_is_named_works() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("control.sock");
    let bench = Bench::new(|setup| setup.key("admin.control", &format!("\"{}\"", socket.display())));
    bench.gateway.send(&get("/ops/why").bearer(&bench.token("bob"))).assert_status(200, "bob");
    let line = bench.gateway.access_line("the line", |line| line["path"] == "/ops/why");
    bench.gateway.command(&["why", line["request_id"].as_str().unwrap()]).succeeded();
    bench.gateway.command(&["reload"]).succeeded();
    bench.gateway.send(&get("/ops/x").bearer(&bench.token("bob"))).assert_status(200, "after a reload");
    assert_eq!(
        (files(bench.gateway.dir()), files(place.path())),
        (vec!["gateway.toml".to_owned()], vec!["control.sock".to_owned()])
    );
}

#[test]
fn another_proxy_may_ask() {
    let bench = Bench::new(|setup| setup.behind_a_proxy().key("server.forward_auth", "\"nginx\""));
    let ask = |target: &str, bearer: Option<&str>| {
        let request = get("/.gateway/check").header("X-Original-Method", "GET").header("X-Original-URI", target);
        let request = request.header("X-Original-Host", "apps.example.com").header("Accept", "text/html");
        let request = bearer.map_or_else(|| request.clone(), |bearer| request.clone().bearer(bearer));
        bench.gateway.send(&request)
    };
    let bob = bench.token("bob");
    let named = ask("/ops/x", Some(&bob));
    assert_eq!(named.assert_status(200, "bob").header("x-forwarded-user"), Some("bob"));
    let nobody = ask("/ops/x", None);
    assert_eq!(nobody.assert_status(401, "nobody").header("location"), None);
    ask("/nobody/x", Some(&bob)).assert_status(403, "the rules");
}
