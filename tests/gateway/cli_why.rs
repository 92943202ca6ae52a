//! `portcullis why` and `check --against-recent`, beside a running gateway.

use serde_json::Value;

use super::answers::gateway;
use crate::common::{Gateway, Recorder, Setup, command, get, password_of, post, token};

fn why(gateway: &Gateway, id: &str) -> Value {
    let ran = gateway.command(&["why", id, "--json"]).succeeded();
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

fn id_of(answer: &crate::common::Response) -> String {
    answer.header("x-request-id").expect("an id").to_owned()
}

#[test]
fn a_refusal_is_explained_by_its_id() {
    let (_app, gateway) = gateway();
    let token = gateway.token("bob");
    let denied = gateway.send(&get("/admin/users?secret=in-the-query").bearer(&token));
    denied.assert_status(403, "bob");
    let id = denied.json()["request_id"].as_str().unwrap().to_owned();
    let ran = gateway.command(&["why", &id]).succeeded();
    let (_, time) = ran.stdout.split_once("  time    ").expect("a time");
    let time = time.lines().next().unwrap();
    let expected = format!(
        "GET 127.0.0.1/admin/users\n\
         as bob, groups staff, by bearer, from 127.0.0.1\n\n\
         ✗ denied by route `admin`: the user is in none of `groups`\n  \
           answer  403 Forbidden\n  \
           reason  group\n  \
           time    {time}\n  \
           id      {id}\n\n\
         routes, in their order\n  \
           ✗ public  path /public/**\n  \
           ✓ admin\n      \
               ✓ path  /admin/**  (/admin/users)\n      \
               ✗ allow\n          \
                   ✓ signed in         (bob)\n          \
                   ✗ groups     admin  (staff)\n\n\
         readings of the path\n  \
           ✗ as-written  /admin/users  route `admin`: the user is in none of `groups`\n    \
             no reading can differ from it\n"
    );
    assert_eq!(ran.stdout, expected);
    // The same words stand in the access line.
    let line = gateway.access_line("bob's", |line| line["request_id"] == id.as_str());
    let said = why(&gateway, &id);
    for member in ["code", "reason", "route"] {
        assert_eq!(said[member], line[member], "{member}");
    }
    assert_eq!(said["recorded"]["time"], line["time"]);
    // The page says who is signed in and the id, and never the rule.
    let page = gateway.send(&get("/admin/users").cookie(&gateway.cookie("bob")).page_load());
    let (text, id) = (page.assert_status(403, "a page").text(), id_of(&page));
    assert!(text.contains("bob") && text.contains(&id), "{text}");
    for rule in ["group", "staff", "route"] {
        assert!(!text.contains(rule), "{rule} in {text}");
    }
    assert_eq!(why(&gateway, &id)["who"]["credential"], "cookie");
}

#[test]
fn every_kind_of_outcome_can_be_asked_about() {
    let (_app, gateway) = gateway();
    let token = gateway.token("bob");
    let cookie = gateway.cookie("bob");
    for (request, status, outcome, code) in [
        (get("/x"), 401, "sign-in", "not-authenticated"),
        (get("/x").page_load(), 303, "sign-in", "not-authenticated"),
        (get("/x").bearer("broken"), 401, "sign-in", "bad-credential"),
        (get("//ADMIN/x").bearer(&token), 403, "deny", "group"),
        (get("/public/..%2fadmin"), 400, "bad-request", "path"),
        (get("/.gateway/none"), 404, "own", "own"),
        (get("/x").host("a, b"), 400, "bad-request", "host"),
        (
            get("/x").header("Authorization", "Bearer a").header("Authorization", "Bearer b"),
            400,
            "bad-request",
            "twofold",
        ),
        (post("/x").cookie(&cookie).header("Sec-Fetch-Site", "cross-site"), 403, "deny", "cross-site"),
    ] {
        let answer = gateway.send(&request);
        answer.assert_status(status, code);
        let said = why(&gateway, &id_of(&answer));
        assert_eq!((&said["outcome"], &said["code"]), (&outcome.into(), &code.into()), "{said:#}");
        assert_eq!(said["recorded"]["status"], status, "{said:#}");
        assert!(!said["notes"].to_string().contains("in force now"), "nothing has changed: {said:#}");
    }
    gateway.send(&get("/allowed").bearer(&token)).assert_status(200, "bob");
    let line = gateway.access_line("what passed", |line| line["path"] == "/allowed");
    let said = why(&gateway, line["request_id"].as_str().unwrap());
    assert_eq!((&said["outcome"], &said["sent"]["upstream"]), (&"allow".into(), &"app".into()));
    assert_eq!(said["recorded"]["upstream"], "app");
}

#[test]
fn an_application_that_is_down_is_no_refusal() {
    let gateway = Setup::new("127.0.0.1:1".parse().unwrap()).start();
    let answer = gateway.send(&get("/public/x"));
    let id = id_of(answer.assert_status(502, "nobody listens"));
    let said = why(&gateway, &id);
    assert_eq!(
        (&said["outcome"], &said["code"], &said["reason"]),
        (&"allow".into(), &"connect".into(), &"public".into())
    );
    assert!(said["notes"].to_string().contains("no answer to pass on"), "{said:#}");
}

#[test]
fn an_id_that_is_not_remembered_says_how_far_the_memory_reaches() {
    let (_app, gateway) = gateway();
    let unknown = gateway.command(&["why", "00000000000000000000000000000000"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert!(unknown.stderr.contains("it remembers none that was refused"), "{unknown:?}");
    gateway.send(&get("/x")).assert_status(401, "a stranger");
    let unknown = gateway.command(&["why", "00000000000000000000000000000000"]);
    assert!(unknown.stderr.contains("refused it remembers all 1 since it started"), "{unknown:?}");
    for wrong in ["", "a b", "../x", "x\n"] {
        let ran = gateway.command(&["why", wrong]);
        assert_eq!(ran.code, Some(1), "{wrong:?}: {ran:?}");
    }
    assert_eq!(gateway.command(&["why"]).code, Some(2));
    let dir = Setup::new("127.0.0.1:1".parse().unwrap()).without_users().prepare();
    let alone = command(dir.path(), &["why", "0123"], "");
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.contains("no gateway runs here"), "{alone:?}");
}

#[test]
fn nothing_secret_is_remembered() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).shared_secret().start();
    let (token, cookie) = (gateway.token("alice"), gateway.cookie("alice"));
    gateway.send(&get("/x?key=in-the-query").bearer(&token)).assert_status(200, "bearer");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "cookie");
    gateway.send(&get("/x").bearer("not-a-token-but-secret")).assert_status(401, "bad");
    gateway.sign_in("alice", "wrong-but-secret").assert_status(403, "wrong");
    let mut socket = std::os::unix::net::UnixStream::connect(gateway.dir().join("portcullis.sock")).unwrap();
    std::io::Write::write_all(&mut socket, b"recent\n").unwrap();
    let mut all = String::new();
    std::io::Read::read_to_string(&mut socket, &mut all).unwrap();
    assert!(all.lines().count() >= 6 && all.contains("alice"), "{all}");
    let mut secrets = vec![cookie.split_once('=').unwrap().1.to_owned(), password_of("alice")];
    secrets.extend(token.split('.').map(str::to_owned));
    secrets.extend(["in-the-query", "not-a-token-but-secret", "wrong-but-secret"].map(str::to_owned));
    for secret in &secrets {
        assert!(!all.contains(secret.as_str()), "{secret} in {all}");
    }
}

/// The same gateway with another rule for `/admin`, and an upstream of another name.
fn candidate(gateway: &Gateway, from: &str, to: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(gateway.dir().join("gateway.toml")).unwrap();
    assert!(text.contains(from), "{text}");
    let path = gateway.dir().join("candidate.toml");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path
}

fn compared(gateway: &Gateway, path: &std::path::Path, more: &[&str]) -> crate::common::setup::Ran {
    let mut program = crate::common::setup::program(gateway.dir());
    program.args(["check", "--against-recent", "--config"]).arg(path).args(more);
    crate::common::setup::run(program, "")
}

#[test]
fn a_candidate_is_judged_by_what_was_asked_lately() {
    let (_app, gateway) = gateway();
    let (bob, alice) = (gateway.token("bob"), gateway.token("alice"));
    gateway.send(&get("/admin/one?q=1").bearer(&bob)).assert_status(403, "bob");
    gateway.send(&get("/admin/two").bearer(&alice)).assert_status(200, "alice");
    gateway.send(&get("//ADMIN/three").bearer(&bob)).assert_status(403, "bob, under a reading");
    gateway.send(&get("/public/four")).assert_status(200, "nobody");
    gateway.send(&get("/five").bearer("broken")).assert_status(401, "a bad token");
    gateway.send(&get("/six")).assert_status(401, "nobody");
    gateway.send(&get("/public/..;/seven")).assert_status(400, "malformed");
    let same = compared(&gateway, &gateway.dir().join("gateway.toml"), &["--strict"]).succeeded();
    assert!(same.stdout.contains("none of the last 6 requests would come out differently"), "{same:?}");

    // What they were in then counts, whatever they are in now.
    gateway.command(&["user", "groups", "bob", "--groups", "other"]).succeeded();
    let path = candidate(&gateway, r#"groups = ["admin"]"#, r#"groups = ["staff"], users = ["bob"]"#);
    let ran = compared(&gateway, &path, &[]).succeeded();
    assert!(ran.stdout.contains("3 of the last 6 requests would come out differently"), "{ran:?}");
    let was = "was      denied by route `admin`: the user is in none of `groups`, read with together";
    for part in ["//ADMIN/three", "bob (staff), ", was, "would be allowed by route `rest`: signed in"] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    assert_eq!(compared(&gateway, &path, &["--strict"]).code, Some(1));
    let document: Value = serde_json::from_str(&compared(&gateway, &path, &["--json"]).succeeded().stdout).unwrap();
    let compared_with = &document["against_recent"];
    assert_eq!((&compared_with["differ"], &compared_with["judged"]), (&3.into(), &6.into()), "{document:#}");
    let what: Vec<_> = compared_with["examples"].as_array().unwrap().iter().map(|example| &example["what"]).collect();
    assert_eq!(what, ["GET 127.0.0.1//ADMIN/three", "GET 127.0.0.1/admin/two", "GET 127.0.0.1/admin/one"]);

    // What is open now would let in a bad credential too; what goes elsewhere differs as well.
    let path = candidate(&gateway, r#"allow = "signed-in""#, r#"allow = "anyone""#);
    let ran = compared(&gateway, &path, &[]).succeeded();
    assert!(ran.stdout.contains("2 of the last 6 requests"), "{ran:?}");
    let path = candidate(&gateway, "app = ", "other = \"http://127.0.0.1:2\"\napp = ");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("upstream = \"app\"", "upstream = \"other\"", 1)).unwrap();
    let ran = compared(&gateway, &path, &[]).succeeded();
    assert!(ran.stdout.contains("1 of the last 6 requests"), "{ran:?}");
    assert!(ran.stdout.contains("would be allowed by route `public`: public, to upstream `other`"), "{ran:?}");
}

#[test]
fn without_a_gateway_there_is_nothing_to_compare_with() {
    let dir = Setup::new("127.0.0.1:1".parse().unwrap()).without_users().prepare();
    let ran = command(dir.path(), &["check", "--against-recent"], "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("no gateway runs here to compare with"), "{ran:?}");
}

#[test]
fn people_of_another_issuer_are_remembered_as_such() {
    let app = Recorder::start();
    let route = |name: &str, issuers: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\npath = \"/{name}/**\"\nallow = \"signed-in\"\nissuers = {issuers}\nupstream = \"app\"\n"
        )
    };
    let issuer = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\naudience = [\"portcullis\"]\nsecret = \"{}\"\nuser = \"sub\"\n",
        token::ISSUER,
        token::SECRET
    );
    let routes = [issuer, route("own", "[\"self\"]"), route("corp", "[\"corp\"]")].concat();
    let gateway = Setup::new(app.address()).key("log.format", "\"json\"").routes(&routes).start();
    let theirs = token::mint(&token::claims_with("carol", serde_json::json!({ "groups": ["staff"] })));
    gateway.send(&get("/corp/x").bearer(&theirs)).assert_status(200, "carol");
    let refused = gateway.send(&get("/own/x").bearer(&theirs));
    refused.assert_status(401, "carol, where only own people may");
    let said = why(&gateway, &id_of(&refused));
    assert_eq!((&said["outcome"], &said["code"]), (&"sign-in".into(), &"issuer".into()), "{said:#}");
    assert_eq!((&said["who"]["user"], &said["who"]["issuer"]), (&"carol".into(), &"corp".into()));
    let own = gateway.send(&get("/corp/x").bearer(&gateway.token("alice")));
    own.assert_status(401, "alice, where only theirs may");
    assert_eq!(why(&gateway, &id_of(&own))["code"], "issuer");
    let same = compared(&gateway, &gateway.dir().join("gateway.toml"), &[]).succeeded();
    assert!(same.stdout.contains("none of the last 3 requests"), "{same:?}");
    // Their place among the issuers may change: they are known by name.
    let before = "[[issuers]]\nname = \"first\"\nissuer = \"http://first.test\"\naudience = [\"x\"]\nsecret = \"";
    let path = candidate(&gateway, "[[issuers]]", &format!("{before}{}\"\n[[issuers]]", token::SECRET));
    let text =
        std::fs::read_to_string(&path).unwrap().replace("issuers = [\"self\"]", "issuers = [\"self\", \"corp\"]");
    std::fs::write(&path, text).unwrap();
    let ran = compared(&gateway, &path, &[]).succeeded();
    assert!(ran.stdout.contains("1 of the last 3 requests"), "{ran:?}");
    assert!(ran.stdout.contains("would be allowed by route `own`: signed in"), "{ran:?}");
}
