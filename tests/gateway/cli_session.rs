//! `portcullis session …` and `portcullis token …` beside a running gateway.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::recorder::reply;
use crate::common::token::{claims_of, claims_with, mint};
use crate::common::{Answer, Gateway, Recorder, Setup, Wire, command, get, until};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

fn listed(gateway: &Gateway, args: &[&str]) -> Vec<Value> {
    let args = [&["session", "list", "--json"], args].concat();
    let ran = gateway.command(&args).succeeded();
    let document: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    document["sessions"].as_array().expect("sessions").clone()
}

#[test]
fn sessions_are_listed_with_what_they_are_used_with() {
    let (_app, gateway) = gateway();
    assert!(listed(&gateway, &[]).is_empty());
    let empty = gateway.command(&["session", "list"]).succeeded();
    assert!(empty.stdout.contains("nobody"), "{}", empty.stdout);
    let (cookie, token) = (gateway.cookie("alice"), gateway.token("bob"));
    let all = listed(&gateway, &[]);
    assert_eq!(all.len(), 2);
    let of_bob = listed(&gateway, &["--user", "BOB"]);
    assert_eq!((of_bob.len(), &of_bob[0]["user"], &of_bob[0]["kind"]), (1, &"bob".into(), &"tokens".into()));
    assert_eq!(of_bob[0]["id"], claims_of(&token)["sid"]);
    assert_eq!(of_bob[0]["client"], "127.0.0.1");
    let plain = gateway.command(&["session", "list"]).succeeded();
    assert!(plain.stdout.contains("alice") && plain.stdout.contains("browser"), "{}", plain.stdout);
    let secret = cookie.split_once('=').unwrap().1;
    assert!(!plain.stdout.contains(secret) && !format!("{all:?}").contains(secret));
    assert_eq!(gateway.command(&["session", "list", "--user", "nobody"]).code, Some(1));
}

#[test]
fn a_revoked_session_is_refused_at_once_and_its_stream_closed() {
    let app = Recorder::answering(|request| match request.target().as_str() {
        "/stream" => Answer::Keep(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
        _ => Answer::Keep(reply("200 OK", "", "x")),
    });
    let gateway = Setup::new(app.address()).user("bob", &[]).start();
    let (token, other) = (gateway.token("bob"), gateway.token("bob"));
    let mut wire = Wire::connect(gateway.address);
    wire.write(get("/stream").bearer(&token).bytes(gateway.address));
    assert_eq!(wire.read_answer_head().unwrap().status, 200);
    assert_eq!(wire.read_chunk(&mut Vec::new()).unwrap(), b"hello");
    let id = claims_of(&token)["sid"].as_str().unwrap().to_owned();
    gateway.command(&["session", "revoke", &id]).succeeded();
    let started = Instant::now();
    until("the refusal", || (gateway.send(&get("/x").bearer(&token)).status == 401).then_some(()));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(wire.read_chunk(&mut Vec::new()).is_err(), "the stream is cut");
    gateway.send(&get("/x").bearer(&other)).assert_status(200, "the other session");
    let again = gateway.command(&["session", "revoke", &id]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("no session"), "{again:?}");
}

#[test]
fn all_sessions_of_a_user_end_at_once() {
    let (_app, gateway) = gateway();
    let (cookie, token, alices) = (gateway.cookie("bob"), gateway.token("bob"), gateway.token("alice"));
    let ran = gateway.command(&["session", "revoke", "--user", "bob"]).succeeded();
    assert!(ran.stdout.contains("ended 2 sessions of bob"), "{}", ran.stdout);
    until("the refusal", || (gateway.send(&get("/x").bearer(&token)).status == 401).then_some(()));
    gateway.send(&get("/x").cookie(&cookie)).assert_status(401, "the cookie");
    gateway.send(&get("/x").bearer(&alices)).assert_status(200, "alice");
    for wrong in [&["session", "revoke"][..], &["session", "revoke", "x", "--user", "bob"], &["session"]] {
        assert_eq!(gateway.command(wrong).code, Some(2), "{wrong:?}");
    }
    assert_eq!(gateway.command(&["session", "revoke", "--user", "nobody"]).code, Some(1));
    let dashed = gateway.command(&["session", "revoke", "-hAbCdEfGhIjKlMnOpQrSt"]);
    assert_eq!(dashed.code, Some(1), "an id may begin with a dash: {dashed:?}");
}

#[test]
fn a_token_is_inspected_and_judged() {
    let (_app, gateway) = gateway();
    let token = gateway.token("bob");
    let good = command(gateway.dir(), &["token", "inspect", "-"], &format!("{token}\n")).succeeded();
    for part in ["good", "alg", "ES256", "sub", "bob", "in 14 minutes"] {
        assert!(good.stdout.contains(part), "{part} in {}", good.stdout);
    }
    assert!(!good.stdout.contains(&token), "the token itself is not repeated");
    let document = gateway.command(&["token", "inspect", "--json", &token]).succeeded();
    let document: Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!((&document["verdict"], &document["reason"]), (&"good".into(), &Value::Null));
    assert_eq!((&document["claims"]["sub"], &document["header"]["alg"]), (&"bob".into(), &"ES256".into()));
    let refused = |token: &str, reason: &str| {
        let ran = command(gateway.dir(), &["token", "inspect", "--json"], token);
        assert_eq!(ran.code, Some(1), "{reason}: {ran:?}");
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["verdict"], "refused");
        assert!(document["reason"].as_str().unwrap().contains(reason), "{reason} in {document}");
    };
    refused("x", "three parts");
    // Of the last characters both are canonical, and one of them is not this token's.
    let other = if token.ends_with('A') { 'Q' } else { 'A' };
    refused(&format!("{}{other}", &token[..token.len() - 1]), "signature");
    refused(&mint(&claims_with("bob", serde_json::json!({}))), "gateway.test");
    gateway.command(&["session", "revoke", "--user", "bob"]).succeeded();
    refused(&token, "session ended");
    let other = gateway.token("bob");
    gateway.command(&["user", "delete", "bob"]).succeeded();
    refused(&other, "session ended");
    let empty = command(gateway.dir(), &["token", "inspect", "-"], "");
    assert_eq!((empty.code, empty.stderr.contains("no token")), (Some(1), true), "{empty:?}");
}

#[test]
fn an_upload_in_progress_ends_with_the_session_behind_it_and_no_other_does() {
    let (seen, heads) = std::sync::mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let (cut, ends) = std::sync::mpsc::channel();
    let cut = std::sync::Mutex::new(cut);
    let app = Recorder::serving(move |mut wire| {
        let Ok(head) = wire.read_head() else { return };
        seen.lock().unwrap().send(head).unwrap();
        let rest = wire.read_to_end();
        cut.lock().unwrap().send(rest.map_or(0, |bytes| bytes.len())).unwrap();
    });
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff"]).start();
    let upload = |path: &str, credential: &str| {
        let mut wire = Wire::connect(gateway.address);
        wire.write(format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{credential}Content-Length: 100000\r\n\r\nbegun",
            gateway.address
        ));
        heads.recv_timeout(crate::common::DEADLINE).expect("the head arrives");
        wire
    };
    let by_cookie = upload("/x", &format!("Cookie: {}\r\n", gateway.cookie("alice")));
    let by_token = upload("/x", &format!("Authorization: Bearer {}\r\n", gateway.token("alice")));
    let mut of_bob = upload("/x", &format!("Cookie: {}\r\n", gateway.cookie("bob")));
    let mut of_nobody = upload("/public/x", "");
    gateway.command(&["session", "revoke", "--user", "alice"]).succeeded();
    for (mut wire, what) in [(by_cookie, "cookie"), (by_token, "token")] {
        let answer = wire.read_answer("POST").expect("an answer");
        answer.assert_status(401, what);
        assert!(answer.closes && answer.header("www-authenticate").is_some(), "{what}");
        assert!(ends.recv_timeout(crate::common::DEADLINE).expect("cut upstream too") < 100_000);
    }
    gateway.stdout.wait("the reason", |line| line.contains("lease_ended").then_some(()));
    for wire in [&mut of_bob, &mut of_nobody] {
        wire.write("more");
    }
    assert!(ends.try_recv().is_err(), "the others go on");
}

#[test]
fn a_minted_token_says_when_and_how_its_user_signed_in_as_it_is_told() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address())
        .routes(
            "[[routes]]\npath = \"/**\"\nupstream = \"app\"\n\
             allow = { methods_of_sign_in = [\"password\"], signed_in_within = \"10m\" }\n",
        )
        .start();
    for (args, status) in [
        (&[][..], 401),
        (&["--signed-in-ago", "0s"], 401),
        (&["--method", "password"], 401),
        (&["--signed-in-ago", "9m", "--method", "otp,password"], 200),
        (&["--signed-in-ago", "9m", "--method-of-sign-in", "otp"], 401),
        (&["--signed-in-ago", "11m", "--method", "password"], 401),
    ] {
        let ran = gateway.command(&[&["token", "mint", "--user", "alice"], args].concat()).succeeded();
        let token = ran.stdout.trim_end();
        let claims = claims_of(token);
        let told = |option: &str| args.iter().any(|arg| arg.starts_with(option));
        assert_eq!(claims.get("auth_time").is_some(), told("--signed-in-ago"), "{claims}");
        let methods = claims.get("amr").and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(methods > 0, told("--method"), "{claims}");
        gateway.send(&get("/x").bearer(token)).assert_status(status, &format!("{args:?}"));
    }
}

#[test]
fn a_minted_token_works_and_has_no_session() {
    let (app, gateway) = gateway();
    let minted = |args: &[&str]| {
        let ran = gateway.command(&[&["token", "mint", "--user", "bob"], args].concat()).succeeded();
        let token = ran.stdout.trim_end().to_owned();
        assert_eq!(token.lines().count(), 1, "the token only");
        token
    };
    let token = minted(&[]);
    let claims = claims_of(&token);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert_eq!((claims.get("sid"), &claims["groups"]), (None, &serde_json::json!(["staff"])));
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "it works");
    assert_eq!(app.only("minted").header("x-forwarded-user").as_deref(), Some("bob"));
    let long = minted(&["--lifetime", "2h", "--groups", "admin,ops"]);
    let claims = claims_of(&long);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7200);
    assert_eq!(claims["groups"], serde_json::json!(["admin", "ops"]));
    gateway.send(&get("/x").bearer(&long)).assert_status(200, "longer than tokens.lifetime");
    gateway.send(&get("/admin/x").bearer(&long)).assert_status(403, "the account's groups count");
    gateway.command(&["session", "revoke", "--user", "bob"]).succeeded();
    until("the refusal", || (gateway.send(&get("/x").bearer(&token)).status == 401).then_some(()));
    for (args, code) in [
        (&["--user", "nobody"][..], 1),
        (&["--user", "bob", "--lifetime", "2d"], 1),
        (&["--user", "bob", "--lifetime", "0s"], 1),
        (&["--user", "bob", "--lifetime", "soon"], 2),
        (&["--user", "bob", "--signed-in-ago", "yesterday"], 2),
        (&["--user", "bob", "--method", "pass word"], 2),
        (&["--user", "bob", "--method", ""], 2),
        (&[], 2),
    ] {
        let ran = gateway.command(&[&["token", "mint"], args].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{args:?}: {ran:?}");
    }
}
