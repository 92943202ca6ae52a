//! Tokens of other issuers from outside: whom they come to, where they count, how they end, and an issuer that fails.

use serde_json::json;

use crate::common::issuer::{Issuer, IssuerKey, with};
use crate::common::recorder::reply;
use crate::common::{Answer, Gateway, Recorder, Request, Setup, command, get, post, token};

const ROUTES: &str = r#"
    [[routes]]
    name = "public"
    path = "/public/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    name = "own"
    path = "/own/**"
    issuers = ["self"]
    allow = "signed-in"
    upstream = "app"

    [[routes]]
    name = "corp"
    path = "/corp/**"
    issuers = ["corp"]
    allow = "signed-in"
    upstream = "app"

    [[routes]]
    name = "forwarded"
    path = "/forwarded/**"
    allow = "signed-in"
    forward_token = true
    upstream = "app"

    [[routes]]
    name = "cookies"
    path = "/cookies/**"
    accept = ["cookie"]
    allow = "anyone"
    upstream = "app"

    [[routes]]
    name = "ops"
    path = "/ops/**"
    allow = { groups = ["ops"], methods_of_sign_in = ["issuer"] }
    upstream = "app"

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

fn setup(app: &Recorder, sections: &str) -> Setup {
    Setup::new(app.address()).routes(&format!("{sections}{ROUTES}"))
}

struct Bench {
    app: Recorder,
    corp: Issuer,
    key: IssuerKey,
    gateway: Gateway,
}

impl Bench {
    fn new(more: &str) -> Self {
        let (app, key) = (Recorder::start(), IssuerKey::new("1"));
        let corp = Issuer::publishing(&[&key]);
        let gateway = setup(&app, &corp.section("corp", more)).start();
        Self { app, corp, key, gateway }
    }

    fn token(&self, subject: &str) -> String {
        self.key.sign(&self.corp.claims(subject))
    }

    /// The status for `path` with `token`; what is refused reaches nobody.
    #[track_caller]
    fn status(&self, path: &str, token: &str) -> u16 {
        let answer = self.gateway.send(&get(path).bearer(token));
        match answer.status {
            200 => drop(self.app.only(path)),
            _ => self.app.assert_untouched(path),
        }
        answer.status
    }
}

#[test]
fn the_application_is_told_the_person_and_never_the_token() {
    let bench = Bench::new("user_prefix = \"corp:\"");
    bench.gateway.send(&get("/x").bearer(&bench.token("bob"))).assert_status(200, "bob");
    let seen = bench.app.only("bob");
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("corp:bob"));
    assert_eq!(seen.header("x-forwarded-groups").as_deref(), Some("ops"), "a group with a comma is left out");
    assert_eq!(seen.header("x-forwarded-email"), None, "not verified");
    let name = seen.header("x-forwarded-preferred-username").expect("a name");
    assert_eq!(name.chars().map(|c| c as u8).collect::<Vec<_>>(), "Bo Ø".as_bytes(), "UTF-8 as it is");
    assert_eq!(seen.header("authorization"), None);
    // Twice, so that the second is found in memory.
    for _ in 0..2 {
        assert_eq!(bench.status("/ops/x", &bench.token("bob")), 200);
    }
    let poor = with(bench.corp.claims("eve"), json!({ "groups": ["dev"] }));
    assert_eq!(bench.status("/ops/x", &bench.key.sign(&poor)), 403);
    let info = bench.gateway.send(&get("/.gateway/userinfo").bearer(&bench.token("bob")));
    info.assert_status(200, "userinfo");
    assert_eq!((&info.json()["sub"], &info.json()["groups"]), (&json!("corp:bob"), &json!(["ops"])));
    let raw = bench.token("bob");
    bench.gateway.send(&get("/forwarded/x").bearer(&raw)).assert_status(200, "forwarded");
    assert_eq!(bench.app.only("forwarded").header("authorization"), Some(format!("Bearer {raw}")));
    bench.app.assert_untouched("nothing else");
}

#[test]
fn what_is_not_good_is_401_and_on_a_public_route_removed() {
    let bench = Bench::new("");
    let claims = bench.corp.claims("bob");
    let stranger = IssuerKey::new("1");
    let bad = [
        (bench.key.sign(&with(claims.clone(), json!({ "exp": 1_700_000_000 }))), "Token has expired"),
        (bench.key.sign(&with(claims.clone(), json!({ "aud": "other" }))), "Invalid token"),
        (bench.key.sign(&with(claims.clone(), json!({ "iss": "https://elsewhere.example" }))), "Invalid token"),
        (bench.key.sign(&with(claims.clone(), json!({ "sub": "a\r\nX: y" }))), "Invalid token"),
        (bench.key.sign(&with(claims.clone(), json!({ "iss": null }))), "Invalid token"),
        (stranger.sign(&claims), "Invalid token"),
        (IssuerKey::new("2").sign(&claims), "Invalid token"),
    ];
    for (token, detail) in &bad {
        let answer = bench.gateway.send(&get("/x").bearer(token));
        answer.assert_status(401, detail);
        assert_eq!(answer.json()["detail"], *detail);
        assert!(answer.header("www-authenticate").unwrap_or_default().contains("error=\"invalid_token\""));
        bench.app.assert_untouched(detail);
        bench.gateway.send(&get("/public/x").bearer(token)).assert_status(200, "public");
        let seen = bench.app.only("public");
        assert_eq!((seen.header("authorization"), seen.header("x-forwarded-user")), (None, None));
    }
}

#[test]
fn a_route_takes_the_issuers_that_it_names_and_memory_changes_nothing() {
    let bench = Bench::new("");
    let (foreign, own) = (bench.token("bob"), bench.gateway.token("alice"));
    for _ in 0..2 {
        assert_eq!(bench.status("/corp/x", &foreign), 200);
        assert_eq!(bench.status("/own/x", &foreign), 401);
        assert_eq!(bench.status("/own/x", &own), 200);
        assert_eq!(bench.status("/corp/x", &own), 401);
        assert_eq!((bench.status("/x", &own), bench.status("/x", &foreign)), (200, 200));
    }
    let cookie = bench.gateway.cookie("alice");
    bench.gateway.send(&get("/corp/x").cookie(&cookie)).assert_status(401, "a cookie is this gateway's own");
    let page = bench.gateway.send(&get("/corp/x").page_load());
    page.assert_status(401, "nobody can sign in for it");
    bench.app.assert_untouched("none of them");
}

#[test]
fn a_local_account_of_the_same_name_is_another_person_unless_it_is_shared() {
    let bench = Bench::new("");
    assert_eq!(bench.status("/x", &bench.token("bob")), 200);
    assert_eq!(bench.status("/x", &bench.token("Alice")), 401, "alice has an account here");
    let bob = bench.token("bob");
    assert_eq!(bench.status("/x", &bob), 200);
    let add = ["user", "add", "bob", "--password-stdin"];
    command(bench.gateway.dir(), &add, "a long pass phrase of bob\n").succeeded();
    assert_eq!(bench.status("/x", &bob), 401, "the name is taken now, although the token was good a moment ago");
    bench.gateway.command(&["user", "delete", "bob"]).succeeded();

    let bench = Bench::new("accounts = \"shared\"");
    let token = bench.token("Alice");
    bench.gateway.send(&get("/x").bearer(&token)).assert_status(200, "alice");
    let seen = bench.app.only("alice");
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
    assert_eq!(seen.header("x-forwarded-groups").as_deref(), Some("admin,staff"), "the account's, not the token's");
    assert_eq!(bench.status("/x", &bench.token("carol")), 200, "who has no account comes with what the token says");
    bench.gateway.command(&["user", "disable", "alice"]).succeeded();
    assert_eq!(bench.status("/x", &token), 401);
    bench.gateway.command(&["user", "enable", "alice"]).succeeded();
    assert_eq!(bench.status("/x", &token), 401, "what was issued before stays ended");
}

#[test]
fn a_token_is_ended_by_its_id_and_one_without_only_by_its_issuer() {
    let bench = Bench::new("");
    let (one, two) = (with(bench.corp.claims("bob"), json!({ "jti": "one" })), bench.token("bob"));
    let one = bench.key.sign(&one);
    assert_eq!((bench.status("/x", &one), bench.status("/x", &two)), (200, 200));
    bench.gateway.send(&post("/.gateway/revoke").form(&[("token", &one)])).assert_status(200, "revoked");
    assert_eq!((bench.status("/x", &one), bench.status("/x", &two)), (401, 200));
    bench.gateway.send(&post("/logout").bearer(&two)).assert_status(204, "signed out");
    assert_eq!(bench.status("/x", &two), 401);
    // An id of theirs is none of ours, whatever it is called.
    let own = bench.gateway.token("alice");
    let named = token::claims_of(&own)["jti"].clone();
    let same = bench.key.sign(&with(bench.corp.claims("bob"), json!({ "jti": named })));
    bench.gateway.send(&post("/.gateway/revoke").form(&[("token", &same)])).assert_status(200, "revoked");
    assert_eq!((bench.status("/x", &same), bench.status("/x", &own)), (401, 200));
    let nameless = bench.key.sign(&with(bench.corp.claims("bob"), json!({ "jti": null })));
    let answer = bench.gateway.send(&post("/.gateway/revoke").form(&[("token", &nameless)]));
    answer.assert_status(400, "no name");
    assert_eq!(answer.json()["error"], "unsupported_token_type");
    bench.gateway.send(&post("/logout").bearer(&nameless)).assert_status(400, "no name");
    assert_eq!(bench.status("/x", &nameless), 200);
    let gateway = bench.gateway.restart();
    gateway.send(&get("/x").bearer(&two)).assert_status(401, "after a restart");
}

#[test]
fn only_people_of_this_gateway_may_look_into_tokens() {
    let bench = Bench::new("");
    let token = bench.token("bob");
    let ask = |request: Request| bench.gateway.send(&request.form(&[("token", &token)]));
    ask(post("/.gateway/introspect").bearer(&token)).assert_status(401, "a stranger");
    let answer = ask(post("/.gateway/introspect").bearer(&bench.gateway.token("alice")));
    answer.assert_status(200, "alice");
    assert_eq!(answer.json(), json!({ "active": false }), "not her own");
    bench.gateway.send(&get("/.gateway/account").bearer(&token).page_load()).assert_status(403, "no page of theirs");
}

#[test]
fn their_tokens_hide_under_no_other_scheme_where_they_count() {
    let bench = Bench::new("");
    let token = bench.token("bob");
    let basic = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("x:{token}"))
    };
    for value in [format!("junk Bearer {token}"), format!("Token {token}"), format!("Basic {basic}")] {
        bench.gateway.send(&get("/public/x").header("Authorization", &value)).assert_status(200, "public");
        assert_eq!(bench.app.only("public").header("authorization"), None, "{value:.20}");
        bench.gateway.send(&get("/cookies/x").header("Authorization", &value)).assert_status(200, "cookies");
        assert_eq!(bench.app.only("cookies").header("authorization"), Some(value), "the application's own tokens");
    }
}

#[test]
fn keys_are_found_by_discovery_and_from_a_file() {
    let (app, key) = (Recorder::start(), IssuerKey::new("1"));
    let corp = Issuer::publishing(&[&key]);
    let found = format!("[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\naudience = [\"apps\"]\n", corp.name());
    let gateway = setup(&app, &found).start();
    gateway.send(&get("/x").bearer(&key.sign(&corp.claims("bob")))).assert_status(200, "by discovery");

    let filed =
        "[[issuers]]\nname = \"corp\"\nissuer = \"urn:corp\"\naudience = [\"apps\"]\njwks = { file = \"jwks.json\" }\n";
    let setup = setup(&app, filed).without_users();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
    std::fs::write(dir.path().join("jwks.json"), json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    let gateway = Gateway::serve(dir);
    let token = key.sign(&with(corp.claims("bob"), json!({ "iss": "urn:corp" })));
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "from a file");
    let good = gateway.command(&["token", "inspect", &token]);
    assert!(good.stdout.starts_with("good"), "{}{}", good.stdout, good.stderr);
    let stranger = IssuerKey::new("1").sign(&with(corp.claims("bob"), json!({ "iss": "urn:corp" })));
    let refused = gateway.command(&["token", "inspect", &stranger]);
    assert!(refused.stdout.starts_with("refused: signature does not hold"), "{}{}", refused.stdout, refused.stderr);
}

#[test]
fn a_flood_of_unknown_keys_asks_the_issuer_once() {
    let bench = Bench::new("");
    assert_eq!(bench.status("/x", &bench.token("bob")), 200);
    assert_eq!(bench.corp.fetches(), 1, "at the start");
    let started = std::time::Instant::now();
    let mut client = bench.gateway.client();
    for number in 0..300 {
        let token = IssuerKey::new(&format!("unknown-{number}")).sign(&bench.corp.claims("bob"));
        client.send(&get("/x").bearer(&token)).assert_status(401, "unknown");
    }
    let windows = usize::try_from(started.elapsed().as_secs() / 5).unwrap() + 1;
    assert!(bench.corp.fetches() <= windows, "at most one in five seconds");
    assert_eq!(bench.status("/x", &bench.token("bob")), 200);
}

/// An issuer that answers nonsense, or none, throws nobody out for good: 503, and a word in the log.
#[test]
fn an_issuer_that_fails_is_a_503_and_is_told_in_the_log() {
    let (app, key) = (Recorder::start(), IssuerKey::new("1"));
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(600_000));
    let failures: Vec<(Vec<u8>, &str)> = vec![
        (reply("302 Found", "Location: /jwks.json\r\n", ""), "redirects are not followed"),
        (reply("500 Internal Server Error", "", ""), "the answer is 500"),
        (reply("200 OK", "", "<html>"), "not JSON"),
        (reply("200 OK", "", "{\"keys\":[]}"), "has no keys"),
        (reply("200 OK", "", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"), "no key of the set can be used"),
        (reply("200 OK", "", &huge), "larger than 512 KiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(), "jwks.json"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "jwks.json"),
    ];
    for (answer, told) in failures {
        let server = Recorder::answering(move |_| Answer::Close(answer.clone()));
        let name = format!("http://{}", server.address());
        let section = format!(
            "[[issuers]]\nname = \"corp\"\nissuer = \"{name}\"\naudience = [\"apps\"]\njwks = \"{name}/jwks.json\"\n"
        );
        let gateway = setup(&app, &section).start();
        let claims = with(Issuer::publishing(&[]).claims("bob"), json!({ "iss": name }));
        let refused = gateway.send(&get("/x").bearer(&key.sign(&claims)));
        refused.assert_status(503, told);
        assert!(refused.header("retry-after").is_some());
        gateway.stderr.wait(told, |line| line.contains(told).then_some(()));
        gateway.send(&get("/x").bearer(&gateway.token("alice"))).assert_status(200, "own people don't notice");
        app.only("alice");
    }
    // Nobody listens there at all.
    let section = "[[issuers]]\nname = \"corp\"\nissuer = \"http://127.0.0.1:1\"\naudience = [\"apps\"]\n";
    let gateway = setup(&app, section).start();
    let claims = with(Issuer::publishing(&[]).claims("bob"), json!({ "iss": "http://127.0.0.1:1" }));
    gateway.send(&get("/x").bearer(&key.sign(&claims))).assert_status(503, "nobody listens");
    app.assert_untouched("none of them");
}

#[test]
fn explain_says_of_their_tokens_what_the_gateway_does() {
    let bench = Bench::new("");
    let claims = bench.corp.claims("bob");
    let stranger = IssuerKey::new("1").sign(&claims);
    let expired = bench.key.sign(&with(claims.clone(), json!({ "exp": 1_700_000_000 })));
    let of_alice = bench.token("alice");
    for (token, path, words) in [
        (&bench.token("bob"), "/ops/x", "allowed by route `ops`"),
        (&bench.key.sign(&with(claims, json!({ "groups": ["dev"] }))), "/ops/x", "denied by route `ops`"),
        (&bench.token("bob"), "/own/x", "the route does not take tokens of this issuer"),
        (&bench.token("bob"), "/corp/x", "allowed by route `corp`"),
        (&stranger, "/x", "signature does not hold"),
        (&expired, "/x", "the token has expired"),
        (&of_alice, "/x", "a local account has this name"),
    ] {
        let said = bench.gateway.command(&["explain", "GET", path, "--token", token]);
        assert!(said.stdout.contains(words), "{words}:\n{}{}", said.stdout, said.stderr);
        let is_let_in = bench.status(path, token) == 200;
        assert_eq!(said.code, Some(i32::from(!is_let_in)), "{words}");
        let inspected = bench.gateway.command(&["token", "inspect", token]);
        let is_good = ![&stranger, &expired, &of_alice].contains(&token);
        assert_eq!(inspected.stdout.starts_with("good"), is_good, "{}{}", inspected.stdout, inspected.stderr);
    }
}
