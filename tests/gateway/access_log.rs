//! What is written down: one access line for each request, sign-ins and refusals, and nothing secret.

use serde_json::Value;

use super::answers::gateway;
use crate::common::{Recorder, Request, Setup, get, password_of, post};

/// The members of an access line.
const MEMBERS: &[&str] = &[
    "time",
    "request_id",
    "client",
    "method",
    "host",
    "path",
    "status",
    "user",
    "route",
    "decision",
    "reason",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
    "upstream",
];

/// A request and what its line must say.
struct Outcome {
    path: &'static str,
    request: Request,
    status: u16,
    user: Option<&'static str>,
    route: Option<&'static str>,
}

fn outcomes(token: &str) -> Vec<Outcome> {
    let of = |path: &'static str, request: Request, status, user, route| Outcome { path, request, status, user, route };
    vec![
        of("/public/one", get("/public/one?q=hidden-query"), 200, None, Some("public")),
        of("/two", get("/two").bearer(token), 200, Some("bob"), Some("rest")),
        of("/three", get("/three"), 401, None, Some("rest")),
        of("/admin/four", get("/admin/four").bearer(token), 403, Some("bob"), Some("admin")),
        of("/.gateway/five", get("/.gateway/five"), 404, None, None),
        of("/six", get("/six").bearer("broken"), 401, None, Some("rest")),
        of("/seven", get("/seven").page_load(), 303, None, Some("rest")),
    ]
}

/// Whether `line` is an access line of a path that starts so.
fn is_of(line: &Value, path: &str) -> bool {
    line["path"].as_str().is_some_and(|seen| seen.starts_with(path))
}

/// The text of a member, if there is any.
fn text<'a>(line: &'a Value, member: &str) -> Option<&'a str> {
    line[member].as_str().filter(|text| !text.is_empty())
}

#[test]
fn each_outcome_has_one_access_line() {
    let (_app, gateway) = gateway();
    let token = gateway.token("bob");
    let outcomes = outcomes(&token);
    for outcome in &outcomes {
        let answer = gateway.send(&outcome.request);
        answer.assert_status(outcome.status, outcome.path);
        let line = gateway.access_line(outcome.path, |line| is_of(line, outcome.path));
        for member in MEMBERS {
            assert!(line.get(member).is_some(), "{member} in {line}");
        }
        assert_eq!(line["status"], outcome.status, "{line}");
        assert_eq!(line["method"], "GET");
        assert!(text(&line, "client").is_some_and(|client| client.starts_with("127.0.0.1")), "{line}");
        assert_eq!(text(&line, "user"), outcome.user, "{line}");
        assert_eq!(text(&line, "route"), outcome.route, "{line}");
        assert!(line["duration_ms"].is_number() && line["bytes_out"].is_number(), "{line}");
        assert_eq!(text(&line, "upstream").is_some(), outcome.status == 200, "{line}");
        if outcome.status >= 400 {
            assert_eq!(line["request_id"], answer.json()["request_id"], "{line}");
            assert!(text(&line, "reason").is_some(), "{line}");
        }
    }
    let ended = gateway.stop();
    for outcome in &outcomes {
        let lines = ended.stdout.lines().filter_map(|line| serde_json::from_str(line).ok());
        assert_eq!(lines.filter(|line| is_of(line, outcome.path)).count(), 1, "{}", outcome.path);
    }
    for line in ended.stdout.lines().chain(ended.stderr.lines()).filter(|line| !line.trim().is_empty()) {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[test]
fn nothing_secret_is_written_down() {
    for (format, level) in [("json", "info"), ("text", "info"), ("text", "trace")] {
        let app = Recorder::start();
        let setup = Setup::new(app.address())
            .key("log.format", &format!("\"{format}\""))
            .key("log.level", &format!("\"{level}\""));
        let gateway = setup.shared_secret().start();
        let (token, cookie) = (gateway.token("alice"), gateway.cookie("alice"));
        let mut secrets = vec![
            password_of("alice"),
            cookie.split_once('=').unwrap().1.to_owned(),
            crate::common::token::SECRET.to_owned(),
        ];
        secrets.extend(token.split('.').map(str::to_owned).skip(1));
        secrets.extend(["wrong-but-secret", "in-the-query", "theirs-too", "YXBwOnNlY3JldA"].map(str::to_owned));
        gateway.send(&get("/x").bearer(&token)).assert_status(200, "bearer");
        gateway
            .send(&get("/x?token=in-the-query").cookie(&format!("{cookie}; app=theirs-too")))
            .assert_status(200, "cookie");
        gateway.send(&get("/x").header("Authorization", "Basic YXBwOnNlY3JldA==")).assert_status(401, "basic");
        gateway.send(&get("/x").bearer(&format!("{token}x"))).assert_status(401, "bad token");
        gateway.sign_in("alice", "wrong-but-secret").assert_status(403, "wrong");
        gateway.sign_in("wrong-but-secret", "x").assert_status(403, "a password typed as name");
        gateway.send(&post("/login").body("application/json", "{\"password\":\"wrong-but-secret\"")).status.to_string();
        gateway.send(&post("/logout").cookie(&cookie)).assert_status(204, "log-out");
        let ended = gateway.stop();
        let all = format!("{}\n{}", ended.stdout, ended.stderr);
        assert!(all.contains("alice"), "there is a log at all");
        for secret in &secrets {
            let shown = all.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(shown, None, "{format} at {level} shows {secret}");
        }
    }
}

#[test]
fn nothing_that_a_client_sends_makes_a_line_of_its_own() {
    let (_app, gateway) = gateway();
    let esc = "\u{1b}[31m";
    for request in [
        get("/public/a%0d%0aforged:%20line"),
        get("/public/%1b%5b31m"),
        get("/public/x").header("User-Agent", "forged line é"),
        get("/public/x").host("forged.line"),
    ] {
        gateway.send(&request);
    }
    gateway.sign_in(&format!("forged\nline{esc}"), "x").assert_status(403, "a name with a line break");
    let ended = gateway.stop();
    let all = format!("{}\n{}", ended.stdout, ended.stderr);
    assert!(!all.contains('\u{1b}'), "an escape sequence");
    assert!(all.lines().all(|line| !line.starts_with("forged") && !line.starts_with("line")), "{all}");
}

#[test]
fn sign_ins_and_refusals_are_in_the_log() {
    let (_app, gateway) = gateway();
    gateway.sign_in("alice", &password_of("alice")).assert_status(200, "right");
    gateway.sign_in("alice", "wrong").assert_status(403, "wrong");
    let ended = gateway.stop();
    assert!(ended.stderr.lines().filter(|line| line.contains("alice")).count() >= 2, "audit events: {}", ended.stderr);
}

#[test]
fn the_access_log_can_be_turned_off_or_go_to_a_file() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("log.access", "\"off\"").start();
    gateway.send(&get("/public/x")).assert_status(200, "off");
    assert_eq!(gateway.stop().stdout.trim(), "");
    let gateway = Setup::new(app.address()).key("log.access", "\"access.log\"").start();
    gateway.send(&get("/public/into-the-file")).assert_status(200, "file");
    let file = gateway.dir().join("access.log");
    crate::common::until("the line in the file", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains("into-the-file"))
    });
}
