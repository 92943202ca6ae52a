//! Routes that are only observed: who is let pass, under which name, and what is told of it.

use serde_json::Value;

use crate::common::{Recorder, Setup, get, post};

const ROUTES: &str = r#"
    [[routes]]
    name = "strict"
    path = "/strict/**"
    allow = { groups = ["admin"] }
    upstream = "app"

    [[routes]]
    name = "admin"
    path = "/admin/**"
    allow = { groups = ["admin"] }
    observe = true
    upstream = "app"

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    observe = true
    upstream = "app"
"#;

#[test]
fn what_would_be_denied_passes_and_is_told() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).routes(ROUTES).user("bob", &[]).key("log.format", "\"json\"");
    let gateway = setup.start();
    let (bob, cookie) = (gateway.token("bob"), gateway.cookie("bob"));
    let forged =
        |request: crate::common::Request| request.header("X-Forwarded-User", "root").header("X_Forwarded_User", "root");
    let table = [
        ("a", forged(get("/admin/a")).bearer(&bob), Some("bob"), "deny", Some("bob")),
        ("b", forged(get("/admin/b")), None, "challenge", None),
        ("c", forged(get("/c")).bearer("x.y.z"), None, "challenge", None),
        ("d", forged(get("/d")).page_load(), None, "challenge", None),
        ("e", forged(post("/e")).cookie(&cookie).header("Sec-Fetch-Site", "cross-site"), None, "deny", Some("bob")),
    ];
    for (name, request, named, instead, told) in table {
        gateway.send(&request).assert_status(200, name);
        let seen = app.only(name);
        let names: Vec<String> = seen.taken_for("X-Forwarded-User").into_iter().map(|(_, value)| value).collect();
        assert_eq!(names, named.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{name}");
        assert_eq!((seen.header("authorization"), seen.header("cookie")), (None, None), "{name}");
        let line = gateway.access_line(name, |line| line["path"].as_str().is_some_and(|path| path.ends_with(name)));
        assert_eq!((line["decision"].as_str(), line["observed"].as_str()), (Some("permit"), Some(instead)), "{name}");
        let id = line["request_id"].as_str().unwrap();
        let event = gateway.stderr.wait("what would be denied", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["event"] == "would-deny" && event["request_id"] == id).then_some(event)
        });
        assert_eq!(
            (event["message"].as_str(), event["user"].as_str()),
            (Some("request would be denied"), told),
            "{name}"
        );
        assert!(event["route"].is_string() && event["reason"] == line["reason"], "{name}: {event}");
    }
    gateway.send(&get("/allowed").bearer(&bob)).assert_status(200, "nothing to tell");
    let line = gateway.access_line("the allowed one", |line| line["path"] == "/allowed");
    assert_eq!((line["reason"].as_str(), line.get("observed")), (Some("signed in"), None));
    app.take();
    for (target, status) in [("/strict/x", 403), ("//strict/x", 403), ("/x/..%2fstrict/y", 400), ("/a/../b", 400)] {
        gateway.send(&get(target).bearer(&bob)).assert_status(status, target);
        app.assert_untouched(target);
    }
}

#[test]
fn check_says_that_a_route_is_only_observed() {
    let app = Recorder::start();
    let dir = Setup::new(app.address()).without_users().routes(ROUTES).prepare();
    let ran = crate::common::command(dir.path(), &["check"], "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("warning[observes]").count(), 2, "{}", ran.stderr);
    assert_eq!(crate::common::command(dir.path(), &["check", "--strict"], "").code, Some(1));
}
