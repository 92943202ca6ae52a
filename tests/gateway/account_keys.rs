//! API keys on the page of one's own account: listed, made and shown once, revoked, and never those of someone else.

use serde_json::Value;

use crate::common::{Gateway, Recorder, Request, Response, Setup, get, password_of, post, until};

const PAGE: &str = "/.gateway/account";
const KEYS: &str = "/.gateway/account/keys";

const ROUTES: &str = r#"
    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
    accept = ["bearer", "cookie", "api-key"]
"#;

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).routes(ROUTES).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

fn add(password: &str, name: &str, expires: &str) -> Request {
    let fields = [("username", "alice"), ("password", password), ("name", name), ("expires", expires)];
    post(KEYS).page_load().form(&fields)
}

fn revoke(password: &str, id: &str) -> Request {
    post(KEYS).page_load().form(&[("username", "alice"), ("password", password), ("revoke", id)])
}

/// The key on the page that shows it.
#[track_caller]
fn shown(answer: &Response) -> String {
    answer.assert_status(200, "made");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let page = answer.text();
    assert_eq!(page.matches("pck_").count(), 1, "{page}");
    let (_, after) = page.split_once("<code>pck_").expect("the key");
    format!("pck_{}", after.split('<').next().unwrap_or_default())
}

fn page(gateway: &Gateway, cookie: &str, target: &str) -> String {
    let answer = gateway.send(&get(target).page_load().cookie(cookie));
    answer.assert_status(200, target);
    answer.text()
}

fn listed(gateway: &Gateway) -> Vec<Value> {
    let ran = gateway.command(&["apikey", "list", "--json"]).succeeded();
    let document: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    document["api_keys"].as_array().expect("keys").clone()
}

#[test]
fn a_key_is_made_shown_once_listed_and_revoked() {
    let (app, gateway) = gateway();
    let (cookie, password) = (gateway.cookie("alice"), password_of("alice"));
    assert!(page(&gateway, &cookie, PAGE).contains("You have no API keys."));
    assert!(page(&gateway, &cookie, &format!("{PAGE}?add=key")).contains("current-password"));
    let key = shown(&gateway.send(&add(&password, "backup", "90d").cookie(&cookie)));
    gateway.send(&get("/x").bearer(&key)).assert_status(200, "it works");
    let seen = app.only("it works");
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
    assert_eq!(seen.header("x-forwarded-groups").as_deref(), Some("admin,staff"), "all that its owner may");
    let key_of = listed(&gateway);
    assert_eq!((&key_of[0]["name"], &key_of[0]["scopes"]), (&"backup".into(), &serde_json::json!([])));
    let id = key_of[0]["id"].as_str().unwrap().to_owned();
    let text = page(&gateway, &cookie, PAGE);
    assert!(text.contains("backup") && text.contains("All that you may do") && text.contains(&id), "{text}");
    assert!(!text.contains(&key) && !text.contains(&key[20..]), "never again");
    until("the use to be written", || page(&gateway, &cookie, PAGE).contains("Just now").then_some(()));
    let question = page(&gateway, &cookie, &format!("{PAGE}?revoke={id}"));
    assert!(question.contains("Revoke this API key?") && question.contains("backup"), "{question}");
    gateway.send(&get("/x").bearer(&key)).assert_status(200, "a question revokes nothing");
    let done = gateway.send(&revoke(&password, &id).cookie(&cookie));
    done.assert_status(303, "revoked");
    assert_eq!(done.header("location"), Some("/.gateway/account?done=key"));
    gateway.send(&get("/x").bearer(&key)).assert_status(401, "its next request");
    assert!(page(&gateway, &cookie, "/.gateway/account?done=key").contains("The API key is revoked."));
    gateway.send(&revoke(&password, &id).cookie(&cookie)).assert_status(404, "twice");
    for event in ["api-key-added", "api-key-revoked"] {
        let line = gateway.stderr.wait(event, |line| line.contains(event).then(|| line.to_owned()));
        assert!(line.contains(&id) && line.contains("user=alice") && line.contains("request_id="), "{line}");
    }
    let ended = gateway.stop();
    let logs = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!logs.contains(&key[20..]) && !logs.contains(&password), "a secret in a log");
}

#[test]
fn keys_of_the_command_line_stand_there_with_their_limits() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let args =
        ["apikey", "add", "narrow", "--user", "alice", "--groups", "staff", "--scopes", "read", "--routes", "rest"];
    gateway.command(&args).succeeded();
    gateway.command(&["apikey", "add", "theirs", "--user", "bob"]).succeeded();
    let text = page(&gateway, &cookie, PAGE);
    assert!(text.contains("Only route rest; group staff; scope read"), "{text}");
    assert!(!text.contains("theirs"), "nothing of bob's");
}

#[test]
fn nobody_revokes_or_sees_a_key_of_someone_else() {
    let (_app, gateway) = gateway();
    let (alice, bob) = (gateway.cookie("alice"), gateway.cookie("bob"));
    let key = shown(&gateway.send(&add(&password_of("alice"), "backup", "never").cookie(&alice)));
    let id = listed(&gateway)[0]["id"].as_str().unwrap().to_owned();
    for id in [id.as_str(), key.as_str(), "", "' OR 1=1 --"] {
        gateway.send(&revoke(&password_of("bob"), id).cookie(&bob)).assert_status(404, id);
    }
    let question = page(&gateway, &bob, &format!("{PAGE}?revoke={id}"));
    assert!(!question.contains("backup") && question.contains("no such API key"), "{question}");
    gateway.send(&get("/x").bearer(&key)).assert_status(200, "it lives");
}

#[test]
fn what_is_not_confirmed_or_not_clear_makes_and_revokes_nothing() {
    let (_app, gateway) = gateway();
    let (cookie, password) = (gateway.cookie("alice"), password_of("alice"));
    let wrong = gateway.send(&add("wrong", "backup", "90d").cookie(&cookie));
    wrong.assert_status(403, "a wrong password");
    assert!(wrong.text().contains("value=\"backup\"") && !wrong.text().contains("wrong"), "{}", wrong.text());
    for (name, expires, status) in [
        ("", "90d", 422),
        ("a\nb", "90d", 422),
        (&*"x".repeat(65), "90d", 422),
        ("backup", "91d", 422),
        ("backup", "", 422),
    ] {
        gateway.send(&add(&password, name, expires).cookie(&cookie)).assert_status(status, name);
    }
    let both = [("password", &*password), ("name", "x"), ("expires", "90d"), ("revoke", "y")];
    gateway.send(&post(KEYS).cookie(&cookie).form(&both)).assert_status(422, "two things at once");
    gateway.send(&post(KEYS).cookie(&cookie).form(&[("password", &password)])).assert_status(422, "nothing");
    gateway.send(&add(&password, "backup", "90d")).assert_status(401, "nobody");
    let cross = post(KEYS).cookie(&cookie).header("Sec-Fetch-Site", "cross-site");
    let fields = [("password", &*password), ("name", "backup"), ("expires", "90d")];
    gateway.send(&cross.form(&fields)).assert_status(403, "another site");
    let token = gateway.token("alice");
    gateway.send(&add(&password, "backup", "90d").bearer(&token)).assert_status(403, "a token");
    gateway.send(&get(KEYS).cookie(&cookie)).assert_status(405, "GET");
    assert!(listed(&gateway).is_empty());
    let key = shown(&gateway.send(&add(&password, " backup ", "365d").cookie(&cookie)));
    gateway.send(&add(&password, "backup", "90d").cookie(&cookie)).assert_status(409, "its name is taken");
    gateway.send(&add(&password, "by a key", "90d").header("X-API-Key", &key)).assert_status(403, "a key");
    assert_eq!(listed(&gateway).len(), 1);
}

#[test]
fn where_no_application_accepts_keys_none_is_offered() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let cookie = gateway.cookie("alice");
    assert!(!page(&gateway, &cookie, PAGE).contains("API key"));
    gateway.command(&["apikey", "add", "backup", "--user", "alice"]).succeeded();
    let text = page(&gateway, &cookie, PAGE);
    assert!(text.contains("backup") && !text.contains("Make an API key"), "one that is there can be revoked: {text}");
}
