//! Machines: names and passwords by Basic, and API keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common::{Gateway, Recorder, Request, Response, Setup, Wire, get, password_of, post, until};

const ROUTES: &str = r#"
    [[routes]]
    name = "public"
    path = "/public/**"
    allow = "anyone"
    upstream = "app"
    accept = ["bearer", "cookie", "basic", "api-key"]

    [[routes]]
    name = "plain"
    path = "/plain/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    name = "cookies"
    path = "/cookies/**"
    allow = "signed-in"
    upstream = "app"
    accept = ["cookie"]

    [[routes]]
    name = "staff"
    path = "/staff/**"
    allow = { groups = ["staff"] }
    upstream = "app"
    accept = ["bearer", "cookie", "basic", "api-key"]

    [[routes]]
    name = "scoped"
    path = "/scoped/**"
    allow = { scopes = ["write"], methods_of_sign_in = ["api-key"] }
    upstream = "app"
    accept = ["api-key"]

    [[routes]]
    name = "fresh"
    path = "/fresh/**"
    allow = { methods_of_sign_in = ["basic"], signed_in_within = "1h" }
    upstream = "app"
    accept = ["basic"]

    [[routes]]
    name = "typed"
    path = "/typed/**"
    allow = { methods_of_sign_in = ["password"], signed_in_within = "1h" }
    upstream = "app"
    accept = ["bearer", "cookie", "basic", "api-key"]

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
    accept = ["bearer", "cookie", "basic", "api-key"]
    forward_token = true
"#;

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).routes(ROUTES).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn with_basic(target: &str, name: &str, password: &str) -> Request {
    get(target).header("Authorization", &basic(name, password))
}

fn add_key(gateway: &Gateway, args: &[&str]) -> (String, String) {
    let mut all = vec!["apikey", "add"];
    all.extend(args);
    all.push("--json");
    let ran = gateway.command(&all).succeeded();
    let document: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    let text = |member: &str| document[member].as_str().expect("a text").to_owned();
    (text("id"), text("key"))
}

#[track_caller]
fn assert_refused(answer: &Response, detail: &str, what: &str) {
    answer.assert_status(401, what);
    assert_eq!(answer.json()["detail"], detail, "{what}");
    assert!(answer.header("location").is_none(), "{what}");
}

/// The answer's challenges, one text.
fn challenges(answer: &Response) -> String {
    answer.all("www-authenticate").iter().fold(String::new(), |mut all, value| {
        let _infallible = writeln!(all, "{value}");
        all
    })
}

#[test]
fn a_name_and_password_come_with_a_request_and_stay_here() {
    let (app, gateway) = gateway();
    for name in ["alice", "ALICE", "Alice"] {
        gateway.send(&with_basic("/x", name, &password_of("alice"))).assert_status(200, name);
        let seen = app.only(name);
        assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
        assert_eq!(seen.header("authorization"), None, "forward_token passes a Bearer only");
    }
    gateway.send(&with_basic("/fresh/x", "bob", &password_of("bob"))).assert_status(200, "a rule about Basic");
    app.only("a rule about Basic");
}

#[test]
fn what_is_no_name_and_password_is_refused_and_challenged() {
    let (app, gateway) = gateway();
    for value in ["Basic", "Basic !", "Basic YWxpY2U=", "Basic YWxpY2U6/w==", "Basic YTpiAA=="] {
        let answer = gateway.send(&get("/x").header("Authorization", value));
        assert_refused(&answer, "Invalid credentials", value);
    }
    let cookie = gateway.cookie("alice");
    for (name, password) in [("alice", "wrong"), ("nobody", "wrong"), ("alice", "")] {
        let answer = gateway.send(&with_basic("/x", name, password).cookie(&cookie));
        assert_refused(&answer, "Invalid credentials", name);
        let challenges = challenges(&answer);
        assert!(challenges.contains("Bearer realm=") && challenges.contains(CHALLENGE), "{challenges}");
    }
    let page = gateway.send(&with_basic("/x", "alice", "wrong").page_load());
    page.assert_status(401, "never a redirect");
    assert!(!challenges(&page).contains("Basic"), "no window of the browser's own");
    app.assert_untouched("wrong passwords");
}

const CHALLENGE: &str = r#"Basic realm="portcullis", charset="UTF-8""#;

#[test]
fn only_a_route_that_accepts_basic_challenges_it() {
    let (_app, gateway) = gateway();
    assert!(challenges(&gateway.send(&get("/x"))).contains(CHALLENGE));
    assert!(!challenges(&gateway.send(&get("/x").header("Sec-Fetch-Mode", "cors"))).contains("Basic"));
    assert!(!challenges(&gateway.send(&get("/cookies/x"))).contains("Basic"));
    gateway.send(&get("/x").page_load()).assert_status(303, "a browser signs in on the page");
}

#[test]
fn basic_that_a_route_does_not_accept_is_the_applications() {
    let (app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let theirs = basic("theirs", "secret");
    gateway.send(&get("/cookies/x").cookie(&cookie).header("Authorization", &theirs)).assert_status(200, "theirs");
    assert_eq!(app.only("theirs").header("authorization"), Some(theirs));
}

#[test]
fn on_a_public_route_a_good_password_names_and_a_bad_one_is_removed() {
    let (app, gateway) = gateway();
    gateway.send(&with_basic("/public/x", "bob", &password_of("bob"))).assert_status(200, "good");
    assert_eq!(app.only("good").header("x-forwarded-user").as_deref(), Some("bob"));
    gateway.send(&with_basic("/public/x", "bob", "wrong")).assert_status(200, "bad");
    let seen = app.only("bad");
    assert_eq!((seen.header("x-forwarded-user"), seen.header("authorization")), (None, None));
}

#[test]
fn a_wrong_password_on_a_public_route_is_told_to_the_auditor_with_its_request() {
    let (_app, gateway) = gateway();
    let audited = |event: &str, what: &str| {
        let line = |line: &str| (line.contains(event) && line.contains(what)).then(|| line.to_owned());
        let line = gateway.stderr.wait(what, line);
        let (_, id) = line.split_once("request_id=\"").unwrap_or_else(|| panic!("no request_id: {line}"));
        let id = id.split('"').next().unwrap_or_default().to_owned();
        gateway.stdout.wait("its access line", |line| line.contains(&format!("id={id}")).then_some(()));
        line
    };
    gateway.send(&with_basic("/public/x", "bob", "wrong")).assert_status(200, "without a name");
    let line = audited("sign-in-failed", "wrong password");
    assert!(line.contains("user=\"bob\"") && line.contains("method=\"basic\""), "{line}");
    gateway.send(&with_basic("/public/x", "nobody-here", "wrong")).assert_status(200, "without a name");
    audited("sign-in-failed", "no such account");
    for _ in 0..12 {
        gateway.send(&with_basic("/public/x", "bob", "wrong")).assert_status(200, "without a name");
    }
    audited("sign-in-throttled", "retry_after");
    gateway.token("alice");
    audited("signed-in", "alice");
    gateway.sign_in("alice", "wrong").assert_status(403, "wrong");
    audited("sign-in-failed", "alice");
}

#[test]
fn form_and_basic_share_their_counters() {
    let (app, gateway) = gateway();
    // Three of each: six failures of one account, and more than the five that cost nothing.
    for name in ["BOB", "bob", "Bob"] {
        gateway.send(&with_basic("/x", name, "wrong")).assert_status(401, "a guess");
        gateway.sign_in(name, "wrong").assert_status(403, "another");
    }
    let blocked = gateway.send(&with_basic("/x", "bob", &password_of("bob")));
    blocked.assert_status(429, "six failures of an account");
    assert!(blocked.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait >= 1)));
    gateway.sign_in("bob", &password_of("bob")).assert_status(429, "the form too");
    app.assert_untouched("guesses");
}

#[test]
fn what_is_remembered_is_no_way_around_the_throttle() {
    let (app, gateway) = gateway();
    gateway.send(&with_basic("/x", "bob", &password_of("bob"))).assert_status(200, "remembered");
    for number in 0..12 {
        let answer = gateway.send(&with_basic("/x", "bob", &format!("guess {number}")));
        assert!(matches!(answer.status, 401 | 429), "{}", answer.status);
    }
    gateway.send(&with_basic("/x", "bob", &password_of("bob"))).assert_status(429, "the right one is not told apart");
    app.only("the first one alone");
}

#[test]
fn a_password_is_verified_once_and_forgotten_with_any_change_of_the_account() {
    let (_app, gateway) = gateway();
    let verified = || gateway.stderr.text().lines().filter(|line| line.contains("signed in")).count();
    let send = || gateway.send(&with_basic("/staff/x", "bob", &password_of("bob"))).status;
    for _ in 0..5 {
        assert_eq!(send(), 200);
    }
    assert_eq!(verified(), 1, "{}", gateway.stderr.text());
    gateway.command(&["user", "groups", "bob", "--groups", "guests"]).succeeded();
    assert_eq!(send(), 403, "groups are judged as they are");
    gateway.command(&["user", "groups", "bob", "--groups", "staff"]).succeeded();
    assert_eq!(send(), 200);
    gateway.command(&["user", "disable", "bob"]).succeeded();
    assert_eq!(send(), 401, "disabled");
    gateway.command(&["user", "enable", "bob"]).succeeded();
    assert_eq!(send(), 200);
    let args = ["user", "passwd", "bob", "--password-stdin"];
    crate::common::command(gateway.dir(), &args, "another pass phrase\n").succeeded();
    assert_eq!(send(), 401, "the old password");
    gateway.send(&with_basic("/staff/x", "bob", "another pass phrase")).assert_status(200, "the new one");
    gateway.command(&["user", "delete", "bob"]).succeeded();
    gateway.send(&with_basic("/staff/x", "bob", "another pass phrase")).assert_status(401, "deleted");
}

#[test]
fn requests_at_once_share_one_hashing() {
    let (app, gateway) = gateway();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                gateway.send(&with_basic("/x", "bob", &password_of("bob"))).assert_status(200, "one of eight");
            });
        }
    });
    assert_eq!(app.take().len(), 8);
    let text = gateway.stop().stderr;
    assert_eq!(text.lines().filter(|line| line.contains("signed in")).count(), 1, "{text}");
}

#[test]
fn an_api_key_acts_as_its_user_either_way_and_stays_here() {
    let (app, gateway) = gateway();
    let (_, key) = add_key(&gateway, &["backup", "--user", "Bob"]);
    for request in [
        get("/staff/x").bearer(&key),
        get("/staff/x").header("X-API-Key", &key),
        get("/staff/x").bearer(&key).header("x-api-key", &key),
        post("/x").header("X-API-Key", &key).header("Origin", "https://elsewhere.example").body("text/plain", "x"),
        get("/x").header("X-API-Key", &key).cookie(&gateway.cookie("alice")),
        get("/x").bearer(&key),
    ] {
        gateway.send(&request).assert_status(200, "a key");
        let seen = app.only("a key");
        assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("bob"));
        assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (None, None));
    }
}

#[test]
fn a_bad_key_is_refused_and_never_redirected() {
    let (app, gateway) = gateway();
    let (id, key) = add_key(&gateway, &["backup", "--user", "bob"]);
    let (_, other) = add_key(&gateway, &["other", "--user", "bob"]);
    let mixed = format!("{}{}", &key[..16], &other[16..]);
    let cookie = gateway.cookie("alice");
    for bad in ["pck_", "pck_x", mixed.as_str(), &key[..60], &format!("{key}x")] {
        for request in [get("/x").bearer(bad), get("/x").header("X-API-Key", bad)] {
            let answer = gateway.send(&request.clone().cookie(&cookie));
            assert_refused(&answer, "Invalid token", bad);
            assert!(challenges(&answer).contains("invalid_token"));
            gateway.send(&request.page_load()).assert_status(401, "no redirect");
        }
    }
    let two = gateway.send(&get("/x").bearer(&key).header("X-API-Key", &other));
    two.assert_status(400, "two keys");
    app.assert_untouched("bad keys");
    gateway.send(&get("/x").bearer(&key)).assert_status(200, "before");
    gateway.command(&["apikey", "revoke", &id]).succeeded();
    assert_refused(&gateway.send(&get("/x").bearer(&key)), "Invalid token", "revoked");
    gateway.send(&get("/x").bearer(&other)).assert_status(200, "the other one lives");
    assert_eq!(gateway.command(&["apikey", "revoke", &id]).code, Some(1), "twice");
}

#[test]
fn the_sign_in_page_is_left_by_a_browser_with_its_cookie_only() {
    let (_app, gateway) = gateway();
    let (_, key) = add_key(&gateway, &["backup", "--user", "bob"]);
    let (token, cookie) = (gateway.token("bob"), gateway.cookie("bob"));
    let page = || get("/login?next=%2Fx").page_load();
    for request in [page().bearer(&key), page().header("X-API-Key", &key), page().bearer(&token)] {
        let answer = gateway.send(&request);
        answer.assert_status(200, "the page");
        assert!(answer.text().contains("current-password") && !answer.text().contains("bob"), "{}", answer.text());
    }
    assert_eq!(gateway.send(&page().cookie(&cookie)).header("location"), Some("/x"));
}

#[test]
fn who_cannot_be_helped_by_a_sign_in_is_not_asked_for_one() {
    let (app, gateway) = gateway();
    let (_, key) = add_key(&gateway, &["backup", "--user", "bob"]);
    for request in [get("/typed/x").bearer(&key), get("/typed/x").header("X-API-Key", &key).page_load()] {
        let answer = gateway.send(&request);
        answer.assert_status(403, "a key is no sign-in");
        assert!(answer.header("www-authenticate").is_none() && answer.header("location").is_none());
    }
    gateway.send(&get("/fresh/x").bearer(&key)).assert_status(401, "not accepted there");
    let basic = gateway.send(&with_basic("/typed/x", "bob", &password_of("bob")));
    basic.assert_status(401, "the same password on the sign-in page would do");
    let challenges = challenges(&basic);
    assert!(challenges.contains("insufficient_user_authentication") && !challenges.contains("Basic"), "{challenges}");
    app.assert_untouched("refused");
    gateway.send(&get("/typed/x").cookie(&gateway.cookie("bob"))).assert_status(200, "typed just now");
}

#[test]
fn our_keys_reach_no_application_and_foreign_ones_do() {
    let (app, gateway) = gateway();
    let (_, key) = add_key(&gateway, &["backup", "--user", "bob"]);
    let cookie = gateway.cookie("alice");
    for target in ["/plain/x", "/cookies/x", "/public/x"] {
        for shown in [key.as_str(), "pck_bad"] {
            for (name, value) in [
                ("X-API-Key", shown.to_owned()),
                ("X_Api_Key", shown.to_owned()),
                ("X-API-Key", format!("theirs, {shown}")),
                ("Authorization", format!("Bearer {shown}")),
                ("Authorization", format!("Token {shown}")),
            ] {
                gateway.send(&get(target).cookie(&cookie).header(name, &value)).assert_status(200, target);
                let seen = app.only(target);
                let head = String::from_utf8_lossy(&seen.head).into_owned();
                assert!(!head.contains("pck_"), "{target}: {head}");
            }
        }
        gateway.send(&get(target).cookie(&cookie).header("X-API-Key", "sk_theirs")).assert_status(200, "foreign");
        assert_eq!(app.only("foreign").header("x-api-key").as_deref(), Some("sk_theirs"));
    }
    gateway.send(&get("/cookies/x").bearer(&key)).assert_status(401, "not accepted there");
    gateway.send(&get("/public/x").bearer(&key)).assert_status(200, "named");
    assert_eq!(app.only("named").header("x-forwarded-user").as_deref(), Some("bob"));
}

#[test]
fn a_key_is_no_more_than_it_was_made_for() {
    let (app, gateway) = gateway();
    let (_, guest) = add_key(&gateway, &["guest", "--user", "alice", "--groups", "guests"]);
    gateway.send(&get("/x").bearer(&guest)).assert_status(200, "signed in");
    assert_eq!(app.only("signed in").header("x-forwarded-groups").as_deref().unwrap_or(""), "");
    gateway.send(&get("/staff/x").bearer(&guest)).assert_status(403, "a group it may not use");
    let (_, elsewhere) = add_key(&gateway, &["elsewhere", "--user", "alice", "--routes", "scoped", "--scopes", "read"]);
    gateway.send(&get("/staff/x").bearer(&elsewhere)).assert_status(403, "another route");
    gateway.send(&get("/scoped/x").bearer(&elsewhere)).assert_status(403, "another scope");
    gateway.send(&get("/public/x").bearer(&elsewhere)).assert_status(200, "public");
    assert_eq!(app.only("public").header("x-forwarded-user"), None);
    let (_, writer) = add_key(&gateway, &["writer", "--user", "bob", "--scopes", "read,write", "--groups", "staff"]);
    gateway.send(&get("/scoped/x").bearer(&writer)).assert_status(200, "its scope");
    gateway.send(&get("/staff/x").bearer(&writer)).assert_status(200, "its group");
    gateway.command(&["user", "groups", "bob", "--groups", "x"]).succeeded();
    gateway.send(&get("/staff/x").bearer(&writer)).assert_status(403, "groups count as they are now");
    gateway.command(&["user", "disable", "bob"]).succeeded();
    gateway.send(&get("/scoped/x").bearer(&writer)).assert_status(401, "disabled");
    gateway.command(&["user", "enable", "bob"]).succeeded();
    gateway.send(&get("/scoped/x").bearer(&writer)).assert_status(200, "enabled");
    let (_, short) = add_key(&gateway, &["short", "--user", "alice", "--expires", "1ms"]);
    gateway.send(&get("/x").bearer(&short)).assert_status(401, "expired");
}

#[test]
fn an_introspecting_key_is_told_of_every_token_and_another_of_its_own_users() {
    let (_app, gateway) = gateway();
    let token = gateway.token("alice");
    let (_, service) = add_key(&gateway, &["service", "--user", "bob", "--scopes", "introspect"]);
    let (_, plain) = add_key(&gateway, &["plain", "--user", "bob"]);
    let (_, limited) = add_key(&gateway, &["limited", "--user", "bob", "--scopes", "introspect", "--routes", "rest"]);
    let ask = |key: &str| gateway.send(&post("/.gateway/introspect").bearer(key).form(&[("token", &token)]));
    assert_eq!(ask(&service).json()["active"], true);
    assert_eq!(ask(&plain).json()["active"], false);
    ask(&limited).assert_status(401, "a key for some routes counts on no other path");
    ask("pck_bad").assert_status(401, "a bad key");
    gateway.send(&get("/.gateway/userinfo").header("X-API-Key", &plain)).assert_status(200, "who it is");
}

#[test]
fn the_command_line_lists_what_there_is_and_refuses_what_cannot_be() {
    let (_app, gateway) = gateway();
    let (id, key) = add_key(&gateway, &["backup", "--user", "bob", "--expires", "90d"]);
    gateway.send(&get("/x").bearer(&key)).assert_status(200, "used");
    let used = until("the use is written", || {
        let ran = gateway.command(&["apikey", "list", "--json"]).succeeded();
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        document["api_keys"][0]["last_used"].is_string().then_some(ran.stdout)
    });
    let plain = gateway.command(&["apikey", "list", "--user", "bob"]).succeeded().stdout;
    for text in [&used, &plain] {
        assert!(text.contains(&id) && text.contains("backup") && !text.contains(&key[20..]), "{text}");
    }
    assert!(!gateway.command(&["apikey", "list", "--user", "alice"]).succeeded().stdout.contains(&id));
    for args in [
        &["apikey", "add", "backup", "--user", "bob"][..],
        &["apikey", "add", "x", "--user", "nobody"],
        &["apikey", "add", "", "--user", "bob"],
        &["apikey", "add", "x", "--user", "bob", "--routes", "stafff"],
        &["apikey", "add", "x", "--user", "bob", "--expires", "soon"],
        &["apikey", "add", "x", "--user", "bob", "--scopes", "a\"b"],
        &["apikey", "revoke", "nothing"],
    ] {
        let ran = gateway.command(args);
        assert!(ran.code == Some(1) && ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_websocket_ends_with_its_key_or_password() {
    let app = Recorder::answering(|_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        crate::common::Answer::Keep(head.as_bytes().to_vec())
    });
    let gateway = Setup::new(app.address()).routes(ROUTES).user("bob", &["--groups", "staff"]).start();
    let (id, key) = add_key(&gateway, &["socket", "--user", "bob"]);
    let open = |authorization: &str| {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!(
            "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: {authorization}\r\n\r\n"
        ));
        wire.read_answer_head().expect("an answer").assert_status(101, authorization);
        wire
    };
    let mut by_key = open(&format!("Bearer {key}"));
    gateway.command(&["apikey", "revoke", &id]).succeeded();
    by_key.read_to_end().expect("closed with the key");
    let mut by_password = open(&basic("bob", &password_of("bob")));
    let args = ["user", "passwd", "bob", "--password-stdin"];
    crate::common::command(gateway.dir(), &args, "another pass phrase\n").succeeded();
    by_password.read_to_end().expect("closed with the password");
}

#[test]
fn nothing_secret_is_logged() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).routes(ROUTES).key("log.level", "\"debug\"");
    let gateway = setup.user("bob", &["--groups", "staff"]).start();
    let (_, key) = add_key(&gateway, &["backup", "--user", "bob"]);
    gateway.send(&get("/x").bearer(&key)).assert_status(200, "good");
    gateway.send(&get("/x").bearer(&format!("{key}x"))).assert_status(401, "bad");
    gateway.send(&with_basic("/x", "bob", &password_of("bob"))).assert_status(200, "good");
    gateway.send(&with_basic("/x", "typed into the wrong field", "s3cret-guess")).assert_status(401, "bad");
    let ran = gateway.stop();
    let encoded = basic("bob", &password_of("bob"));
    for secret in [&key[20..], &password_of("bob"), &encoded[6..], "s3cret-guess", "wrong field"] {
        assert!(
            !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
            "{secret} in\n{}\n{}",
            ran.stdout,
            ran.stderr
        );
    }
}
