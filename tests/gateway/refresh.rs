//! `/.gateway/token`: passwords and refresh tokens, rotation, reuse, races, and every event that ends a family.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::Connection;
use serde_json::Value;

use crate::common::token::claims_of;
use crate::common::{Gateway, Recorder, Request, Response, Setup, command, get, password_of, post, until};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

fn password_grant(name: &str, password: &str) -> Request {
    post("/.gateway/token").form(&[("grant_type", "password"), ("username", name), ("password", password)])
}

fn refresh_grant(token: &str) -> Request {
    post("/.gateway/token").form(&[("grant_type", "refresh_token"), ("refresh_token", token)])
}

fn text(answer: &Response, member: &str) -> String {
    answer.json()[member].as_str().unwrap_or_else(|| panic!("no {member} in {}", answer.text())).to_owned()
}

#[track_caller]
fn tokens(answer: &Response) -> (String, String) {
    answer.assert_status(200, "tokens");
    (text(answer, "access_token"), text(answer, "refresh_token"))
}

#[track_caller]
fn assert_error(answer: &Response, status: u16, code: &str) {
    answer.assert_status(status, code);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(text(answer, "error"), code, "{}", answer.text());
    assert_eq!(answer.header("set-cookie"), None);
}

/// Makes the last use of a refresh token look `seconds` older than it is.
fn age(gateway: &Gateway, seconds: u32) {
    let store = Connection::open(gateway.dir().join("portcullis.db")).unwrap();
    store.busy_timeout(crate::common::DEADLINE).unwrap();
    let aged = store.execute("UPDATE sessions SET refreshed_at = refreshed_at - ?1", [seconds * 1000]).unwrap();
    assert!(aged > 0);
}

#[test]
fn a_password_gives_tokens_and_a_refresh_token_gives_the_next() {
    let (_app, gateway) = gateway();
    let answer = gateway.send(&password_grant("bob", &password_of("bob")));
    let (access, refresh) = tokens(&answer);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!((text(&answer, "token_type").as_str(), &answer.json()["expires_in"]), ("Bearer", &Value::from(900)));
    assert_eq!(answer.json().get("scope"), None, "none was asked for");
    gateway.send(&get("/x").bearer(&access)).assert_status(200, "the access token");
    gateway.send(&get("/x").bearer(&refresh)).assert_status(401, "a refresh token is no access token");
    assert_error(&gateway.send(&refresh_grant(&access)), 400, "invalid_grant");
    let (second, next) = tokens(&gateway.send(&refresh_grant(&refresh)));
    assert_ne!((&second, &next), (&access, &refresh));
    let (before, after) = (claims_of(&access), claims_of(&second));
    for same in ["sid", "auth_time", "amr", "sub", "iss", "aud"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_ne!(before["jti"], after["jti"]);
    gateway.send(&get("/x").bearer(&second)).assert_status(200, "the second access token");
    gateway.send(&get("/x").bearer(&access)).assert_status(200, "the first lives until it expires");
}

#[test]
fn the_tokens_of_a_json_sign_in_are_refreshed_too_and_say_the_groups_of_now() {
    let (_app, gateway) = gateway();
    let (access, refresh) = tokens(&gateway.sign_in("bob", &password_of("bob")));
    gateway.command(&["user", "groups", "bob", "--groups", "admin"]).succeeded();
    let (second, _) = tokens(&gateway.send(&refresh_grant(&refresh)));
    assert_eq!(claims_of(&access)["groups"], serde_json::json!(["staff"]));
    assert_eq!(claims_of(&second)["groups"], serde_json::json!(["admin"]));
    gateway.send(&get("/admin/x").bearer(&second)).assert_status(200, "by the new groups");
}

#[test]
fn a_repeat_at_once_gets_the_same_token_and_a_late_one_ends_the_session() {
    let (app, gateway) = gateway();
    let (_, first) = tokens(&gateway.sign_in("bob", &password_of("bob")));
    let (_, second) = tokens(&gateway.send(&refresh_grant(&first)));
    let (access, again) = tokens(&gateway.send(&refresh_grant(&first)));
    assert_eq!(second, again, "a family never forks");
    age(&gateway, 9);
    assert_eq!(tokens(&gateway.send(&refresh_grant(&first))).1, second, "a lost answer, asked for again");
    gateway.send(&get("/x").bearer(&access)).assert_status(200, "before");
    age(&gateway, 2);
    app.take();
    assert_error(&gateway.send(&refresh_grant(&first)), 400, "invalid_grant");
    assert_error(&gateway.send(&refresh_grant(&second)), 400, "invalid_grant");
    gateway.send(&get("/x").bearer(&access)).assert_status(401, "the session is over");
    app.assert_untouched("after the reuse");
    let logged = gateway.stderr.wait("the reuse", |line| line.contains("refresh-reused").then(|| line.to_owned()));
    assert!(logged.contains("bob") && !logged.contains(&first), "{logged}");
}

#[test]
fn an_older_generation_ends_the_session_at_once() {
    let (_app, gateway) = gateway();
    let (_, first) = tokens(&gateway.sign_in("bob", &password_of("bob")));
    let (_, second) = tokens(&gateway.send(&refresh_grant(&first)));
    let (_, third) = tokens(&gateway.send(&refresh_grant(&second)));
    assert_error(&gateway.send(&refresh_grant(&first)), 400, "invalid_grant");
    assert_error(&gateway.send(&refresh_grant(&third)), 400, "invalid_grant");
}

#[test]
fn eight_refreshes_at_once_leave_one_family() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("server.workers", "2").start();
    let (_, mut current) = tokens(&gateway.sign_in("alice", &password_of("alice")));
    for round in 0..5 {
        let barrier = std::sync::Barrier::new(8);
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let ask = || {
                let mut client = gateway.client();
                client.send(&get("/public/x"));
                barrier.wait();
                client.send(&refresh_grant(&current))
            };
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: Vec<_> = answers.iter().map(tokens).collect();
        let next: BTreeSet<_> = all.iter().map(|(_, refresh)| refresh.clone()).collect();
        assert_eq!(next.len(), 1, "round {round}");
        let sessions: BTreeSet<_> = all.iter().map(|(access, _)| claims_of(access)["sid"].to_string()).collect();
        assert_eq!(sessions.len(), 1);
        for (access, _) in &all {
            gateway.send(&get("/x").bearer(access)).assert_status(200, "each access token");
        }
        current = next.into_iter().next().unwrap();
    }
}

#[test]
fn whatever_ends_the_session_ends_its_refresh_token() {
    let (_app, gateway) = gateway();
    let ends: [(&str, &[&str]); 5] = [
        ("log-out", &[]),
        ("session revoke", &["session", "revoke", "--user", "bob"]),
        ("passwd", &["user", "passwd", "bob", "--password-stdin"]),
        ("disable", &["user", "disable", "bob"]),
        ("delete", &["user", "delete", "bob"]),
    ];
    for (what, args) in ends {
        let (access, refresh) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
        if args.is_empty() {
            gateway.send(&post("/logout").bearer(&access)).assert_status(204, what);
        } else {
            command(gateway.dir(), args, &format!("{}\n", password_of("bob"))).succeeded();
        }
        assert_error(&gateway.send(&refresh_grant(&refresh)), 400, "invalid_grant");
        gateway.send(&get("/x").bearer(&access)).assert_status(401, what);
        if what == "disable" {
            gateway.command(&["user", "enable", "bob"]).succeeded();
            assert_error(&gateway.send(&refresh_grant(&refresh)), 400, "invalid_grant");
        }
    }
}

#[test]
fn a_session_ends_by_lifetime_and_by_idle_and_tokens_never_outlive_it() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("sessions.lifetime", "\"2s\"").key("sessions.idle", "\"2s\"").start();
    let answer = gateway.send(&password_grant("alice", &password_of("alice")));
    let (access, mut refresh) = tokens(&answer);
    assert!(answer.json()["expires_in"].as_u64().unwrap() <= 2);
    let claims = claims_of(&access);
    assert!(claims["exp"].as_u64().unwrap() <= claims["iat"].as_u64().unwrap() + 2);
    // Kept in use, it ends all the same.
    let last = until("the end", || {
        let answer = gateway.send(&refresh_grant(&refresh));
        if answer.status == 200 {
            refresh = text(&answer, "refresh_token");
        }
        (answer.status != 200).then_some(answer)
    });
    assert_error(&last, 400, "invalid_grant");
    drop(gateway);
    let gateway = Setup::new(app.address()).start();
    let (_, refresh) = tokens(&gateway.send(&password_grant("alice", &password_of("alice"))));
    let store = Connection::open(gateway.dir().join("portcullis.db")).unwrap();
    store.busy_timeout(crate::common::DEADLINE).unwrap();
    store.execute("UPDATE sessions SET last_seen = last_seen - 3600 * 1000", []).unwrap();
    assert_error(&gateway.send(&refresh_grant(&refresh)), 400, "invalid_grant");
}

#[test]
fn the_use_of_an_access_token_is_a_use_of_its_session() {
    let (_app, gateway) = gateway();
    let (access, refresh) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    let store = Connection::open(gateway.dir().join("portcullis.db")).unwrap();
    store.busy_timeout(crate::common::DEADLINE).unwrap();
    let seen = || store.query_row("SELECT last_seen FROM sessions", [], |row| row.get::<_, u64>(0)).unwrap();
    store.execute("UPDATE sessions SET last_seen = last_seen - 3590 * 1000", []).unwrap();
    let before = seen();
    gateway.send(&get("/x").bearer(&access)).assert_status(200, "in use");
    until("the note", || (seen() > before).then_some(()));
    tokens(&gateway.send(&refresh_grant(&refresh)));
}

#[test]
fn refresh_tokens_survive_a_restart_and_so_does_their_end() {
    let (_app, gateway) = gateway();
    let (_, kept) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    let (access, ended) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    let (_, next) = tokens(&gateway.send(&refresh_grant(&kept)));
    gateway.send(&post("/logout").bearer(&access)).assert_status(204, "log-out");
    let gateway = gateway.restart();
    assert_eq!(tokens(&gateway.send(&refresh_grant(&kept))).1, next, "the same successor");
    tokens(&gateway.send(&refresh_grant(&next)));
    assert_error(&gateway.send(&refresh_grant(&ended)), 400, "invalid_grant");
    gateway.send(&get("/x").bearer(&access)).assert_status(401, "revocations are known from the start");
}

#[test]
fn killed_between_persisting_and_answering_nobody_is_locked_out() {
    let (_app, gateway) = gateway();
    let (_, first) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    // The answer is never read: as far as the client knows, it was lost.
    let mut wire = crate::common::Wire::connect(gateway.address);
    wire.write(refresh_grant(&first).bytes(gateway.address));
    let store = Connection::open(gateway.dir().join("portcullis.db")).unwrap();
    let generation =
        || store.query_row("SELECT refresh_generation FROM sessions", [], |row| row.get::<_, u32>(0)).unwrap();
    until("the rotation", || (generation() == 1).then_some(()));
    let gateway = gateway.kill_and_restart();
    let (_, second) = tokens(&gateway.send(&refresh_grant(&first)));
    let (_, third) = tokens(&gateway.send(&refresh_grant(&second)));
    assert_error(&gateway.send(&refresh_grant(&first)), 400, "invalid_grant");
    assert_error(&gateway.send(&refresh_grant(&third)), 400, "invalid_grant");
}

#[test]
fn malformed_requests_are_told_apart_and_cost_no_attempt() {
    let (_app, gateway) = gateway();
    let form = |body: &str| post("/.gateway/token").body("application/x-www-form-urlencoded", body);
    let bodies = [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=password&username=bob", "invalid_request"),
        ("grant_type=password&username=bob&password=", "invalid_request"),
        ("grant_type=password&username=bob&username=bob&password=x", "invalid_request"),
        ("grant_type=password&grant_type=password&username=bob&password=x", "invalid_request"),
        ("grant_type=password&username=bob&password=x&other=1&other=2", "invalid_request"),
        ("grant_type=password&username=bob&password=%zz", "invalid_request"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=client_credentials", "unsupported_grant_type"),
        ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
        ("grant_type=PASSWORD&username=bob&password=x", "unsupported_grant_type"),
        ("grant_type=refresh_token&refresh_token=x", "invalid_grant"),
        ("grant_type=refresh_token&refresh_token=%00", "invalid_grant"),
    ];
    for (body, code) in bodies {
        assert_error(&gateway.send(&form(body)), 400, code);
    }
    let right = format!("grant_type=password&username=bob&password={}", password_of("bob").replace(' ', "+"));
    let in_the_url = post(&format!("/.gateway/token?{right}")).body("application/x-www-form-urlencoded", "");
    assert_error(&gateway.send(&in_the_url), 400, "invalid_request");
    assert_error(&gateway.send(&post("/.gateway/token").body("text/plain", right.as_str())), 400, "invalid_request");
    let json = serde_json::json!({ "grant_type": "password", "username": "bob", "password": password_of("bob") });
    assert_error(&gateway.send(&post("/.gateway/token").json(&json)), 400, "invalid_request");
    assert_error(&gateway.send(&form(&format!("x={}", "y".repeat(20_000)))), 413, "invalid_request");
    tokens(&gateway.send(&form(&right)));
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = gateway.send(&Request::new(method, "/.gateway/token"));
        assert_eq!(answer.assert_status(405, method).header("allow"), Some("POST"));
    }
}

#[test]
fn wrong_credentials_look_alike_and_share_the_counters() {
    let (_app, gateway) = gateway();
    let wrong = gateway.send(&password_grant("bob", "not that one"));
    let unknown = gateway.send(&password_grant("nobody", "not that one"));
    let impossible = gateway.send(&password_grant("No Body", "not that one"));
    for answer in [&wrong, &unknown, &impossible] {
        assert_error(answer, 400, "invalid_grant");
        assert_eq!(answer.text(), wrong.text());
    }
    for _ in 0..5 {
        gateway.sign_in("bob", "not that one");
    }
    let throttled = gateway.send(&password_grant("bob", &password_of("bob")));
    throttled.assert_status(429, "six failures by the form count here");
    assert!(throttled.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(throttled.header("content-type"), Some("application/json"));
}

#[test]
fn a_cookie_is_never_turned_into_a_token() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let key = cookie.split_once('=').unwrap().1;
    assert_error(&gateway.send(&refresh_grant(key).cookie(&cookie)), 400, "invalid_grant");
    let bare = post("/.gateway/token").form(&[("grant_type", "refresh_token")]).cookie(&cookie);
    assert_error(&gateway.send(&bare), 400, "invalid_request");
    let (access, _) = tokens(&gateway.send(&password_grant("bob", &password_of("bob")).cookie(&cookie)));
    assert_eq!(claims_of(&access)["sub"], "bob", "whoever gave the password");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "the cookie is left alone");
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example"), ("Origin", "null")] {
        let answer = gateway.send(&password_grant("bob", &password_of("bob")).header(name, value));
        assert_error(&answer, 403, "invalid_request");
    }
}

#[test]
fn a_scope_that_was_asked_for_and_not_given_is_said() {
    let (_app, gateway) = gateway();
    let form = [("grant_type", "password"), ("username", "bob"), ("password", &password_of("bob")), ("scope", "a b")];
    let answer = gateway.send(&post("/.gateway/token").form(&form).header("Authorization", "Basic Y2xpZW50Og=="));
    tokens(&answer);
    assert_eq!(text(&answer, "scope"), "");
}

#[test]
fn a_store_that_is_locked_is_no_verdict_on_a_refresh_token() {
    let (_app, gateway) = gateway();
    let (_, refresh) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    let store = Connection::open(gateway.dir().join("portcullis.db")).unwrap();
    store.busy_timeout(crate::common::DEADLINE).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = gateway.send(&refresh_grant(&refresh));
    assert_error(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    store.execute_batch("ROLLBACK").unwrap();
    until("an answer", || (gateway.send(&refresh_grant(&refresh)).status == 200).then_some(()));
}

#[test]
fn nothing_of_a_refresh_token_is_in_the_store_or_the_log() {
    let (_app, gateway) = gateway();
    let (access, first) = tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    let (_, second) = tokens(&gateway.send(&refresh_grant(&first)));
    let dir = gateway.dir().to_owned();
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            files += 1;
            let bytes = std::fs::read(entry.path()).unwrap();
            for secret in [&access, &first, &second] {
                assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{:?}", entry.path());
            }
        }
    }
    assert!(files >= 2);
    let ran = gateway.stop();
    for secret in [&access, &first, &second] {
        assert!(!ran.stdout.contains(secret.as_str()) && !ran.stderr.contains(secret.as_str()));
    }
}

#[test]
fn what_is_no_refresh_token_of_this_gateway_is_refused_and_ends_nothing() {
    let (app, gateway) = gateway();
    let other = Setup::new(app.address()).user("bob", &[]).start();
    let of = |gateway: &Gateway| tokens(&gateway.send(&password_grant("bob", &password_of("bob"))));
    let ((access, good), (_, foreign)) = (of(&gateway), of(&other));
    let cookie = gateway.cookie("bob");
    let ran = gateway.command(&["apikey", "add", "backup", "--user", "bob"]).succeeded();
    let key = ran.stdout.lines().next().expect("a key").to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(&good).expect("base64url");
    assert_eq!(bytes.len(), 52);
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        encoded(&bytes)
    };
    let mut bad = vec![
        foreign,
        key,
        cookie.split_once('=').expect("a cookie").1.to_owned(),
        String::from("x"),
        good.to_uppercase(),
        format!("{good}="),
        format!("{good}A"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\0"),
        format!("{good}.{good}"),
        format!("Bearer {good}"),
        encoded(&[bytes.as_slice(), &[0]].concat()),
        encoded(&[0; 52]),
        encoded(&[255; 52]),
        "A".repeat(12_000),
        "\u{e9}".repeat(100),
    ];
    // Cut at every length, and a bit of session, generation and tag changed.
    bad.extend((1..good.len()).map(|length| good[..length].to_owned()));
    bad.extend([0, 15, 16, 19, 20, 51].map(flipped));
    assert_error(&gateway.send(&refresh_grant(&access)), 400, "invalid_grant");
    let mut client = gateway.client();
    for token in &bad {
        let shown = token.chars().take(80).collect::<String>();
        let answer = client.send(&refresh_grant(token));
        assert_eq!(answer.status, 400, "{shown}");
        assert_error(&answer, 400, "invalid_grant");
        client.send(&post("/.gateway/revoke").form(&[("token", token)])).assert_status(200, &shown);
        if token.len() < 200 && token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.starts_with("pck_") {
            assert_ne!(client.send(&get("/x").bearer(token)).status, 200, "{shown}");
        }
    }
    let huge = client.send(&refresh_grant(&"A".repeat(1 << 20)));
    assert_error(&huge, 413, "invalid_request");
    app.take();
    gateway.send(&get("/x").bearer(&good)).assert_status(401, "a refresh token is no access token");
    gateway.send(&get("/x").cookie(&format!("portcullis={good}"))).assert_status(401, "nor a cookie");
    app.assert_untouched("a refresh token");
    assert_error(&gateway.send(&refresh_grant("")), 400, "invalid_request");
    gateway.send(&get("/x").bearer(&access)).assert_status(200, "its session lives");
    gateway.send(&refresh_grant(&good)).assert_status(200, "and so does its refresh token");
}
