//! `portcullis explain`, and the `[[tests]]` of a configuration: what they say is what a request meets.

use serde_json::Value;

use super::answers::gateway;
use crate::common::setup::Ran;
use crate::common::{Gateway, Request, Setup, command, get};

fn explained(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("one JSON document: {ran:?}"))
}

fn explain(gateway: &Gateway, args: &[&str]) -> (Option<i32>, Value) {
    let ran = gateway.command(&[&["explain", "--json"], args].concat());
    (ran.code, explained(&ran))
}

/// Each way to ask, beside the request that it is about.
#[test]
fn what_is_explained_is_what_a_request_meets() {
    let (_app, gateway) = gateway();
    let (alice, bob) = (gateway.token("alice"), gateway.token("bob"));
    let paths = ["/public/x", "/admin/x", "//ADMIN/x", "/admin%2Fx", "/x", "/public/..;/admin", "/x\\y", "/.gateway/x"];
    let mut seen = std::collections::BTreeSet::new();
    for path in paths {
        for (token, name) in [(None, None), (Some(&alice), Some("alice")), (Some(&bob), Some("bob"))] {
            let request = token.map_or_else(|| get(path), |token| get(path).bearer(token));
            let status = gateway.send(&request).status;
            let expected = match status {
                200 => "allow",
                401 => "sign-in",
                403 => "deny",
                404 => "not-found",
                400 => "bad-request",
                other => panic!("{other} for {path}"),
            };
            seen.insert(expected);
            let (code, by_name) =
                explain(&gateway, &[&["GET", path], &name.map_or(vec![], |name| vec!["--as", name])[..]].concat());
            assert_eq!(
                (code, &by_name["outcome"]),
                (Some(i32::from(status != 200)), &expected.into()),
                "{path} {name:?}"
            );
            let (_, by_token) = explain(
                &gateway,
                &[&["GET", path], &token.map_or(vec![], |token| vec!["--token", token.as_str()])[..]].concat(),
            );
            for member in ["outcome", "code", "reason", "route", "reading", "readings", "routes"] {
                // The cookie's person and the token's differ in nothing that these rules ask.
                assert_eq!(by_token[member], by_name[member], "{member} of {path} as {name:?}");
            }
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn the_headers_that_are_said_are_those_that_arrive() {
    let app = crate::common::Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff,b c", "--email", "b@example.com"]).start();
    let token = gateway.token("bob");
    let (code, said) = explain(&gateway, &["GET", "/x?y", "--as", "bob"]);
    assert_eq!(code, Some(0));
    let forged = ["X-Forwarded-User", "X-Forwarded-Groups", "Remote-User", "X-Original-URL"];
    let request = forged.iter().fold(get("/x?y").bearer(&token), |request, name| request.header(name, "forged"));
    gateway.send(&request).assert_status(200, "bob");
    let seen = app.only("bob");
    assert_eq!(said["sent"]["target"], seen.target());
    let added = said["sent"]["added"].as_array().unwrap();
    assert!(added.len() >= 6, "{added:?}");
    for header in added {
        let name = header["name"].as_str().unwrap();
        let value = seen.header(name);
        // The command does not know on which port the gateway listens.
        let expected = if name == "X-Forwarded-Host" {
            gateway.address.to_string()
        } else {
            header["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(value, Some(expected), "{name}");
    }
    assert!(!String::from_utf8_lossy(&seen.head).contains("forged"));
}

#[test]
fn invented_people_need_no_store() {
    let setup = Setup::new("127.0.0.1:1".parse().unwrap()).without_users();
    let dir = setup.prepare();
    let run = |args: &[&str]| command(dir.path(), &[&["explain"], args].concat(), "");
    let ran = run(&["GET", "/admin/x", "--as", "Bob", "--groups", "admin"]).succeeded();
    assert!(
        ran.stdout.starts_with("GET 127.0.0.1/admin/x\nas bob, groups admin, by cookie, from 127.0.0.1\n"),
        "{ran:?}"
    );
    assert!(!ran.stdout.contains('\u{1b}'), "no colours where there is no terminal");
    assert_eq!(run(&["GET", "/admin/x", "--groups", "a,b"]).code, Some(1));
    assert_eq!(run(&["GET", "/admin/x", "--as", "bob", "--groups", ""]).code, Some(1));
    let none = run(&["GET", "/admin/x", "--as", "bob"]);
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("the store is not there yet"), "{none:?}");
    assert!(!dir.path().join("portcullis.db").exists(), "looking makes no store");
    for wrong in [
        &["GET"][..],
        &["G T", "/x"],
        &["GET", "x"],
        &["GET", "ftp://h/x"],
        &["GET", "/x", "--from", "10.0.0.0/8"],
        &["GET", "/x", "--signed-in-ago", "1h"],
        &["GET", "/x", "--token", "x", "--as", "bob"],
        &["GET", "/x", "--claims", "[]", "--groups", "a"],
    ] {
        let ran = run(wrong);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{wrong:?}: {ran:?}");
    }
}

#[test]
fn a_credential_is_judged_with_the_real_keys() {
    let (_app, gateway) = gateway();
    let token = gateway.token("bob");
    let of = |token: &str, path: &str| {
        let ran = command(gateway.dir(), &["explain", "--json", "GET", path, "--token", "-"], token);
        let said = explained(&ran);
        assert!(!ran.stdout.contains(token.trim()), "the token is not repeated");
        (said["code"].clone(), said["notes"].to_string())
    };
    assert_eq!(of(&token, "/x").0, "signed-in");
    assert_eq!(of("broken", "/x").0, "bad-credential");
    assert_eq!(of("broken", "/public/x").0, "public");
    gateway.command(&["session", "revoke", "--user", "bob"]).succeeded();
    let (code, notes) = of(&token, "/x");
    assert_eq!(code, "bad-credential");
    assert!(notes.contains("session ended"), "{notes}");
    gateway.command(&["user", "disable", "bob"]).succeeded();
    let (_, disabled) = explain(&gateway, &["GET", "/x", "--as", "bob"]);
    assert_eq!(disabled["code"], "not-authenticated");
    assert!(disabled["notes"].to_string().contains("disabled"), "{disabled}");
    let nobody = gateway.command(&["explain", "GET", "/x", "--as", "nobody"]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(1), ""));
}

#[test]
fn an_api_key_is_judged_where_it_counts() {
    let app = crate::common::Recorder::start();
    let route = |name: &str, accept: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\npath = \"/{name}/**\"\naccept = {accept}\nallow = \"signed-in\"\nupstream = \"app\"\n"
        )
    };
    let routes =
        [route("one", "[\"api-key\"]"), route("two", "[\"api-key\"]"), route("three", "[\"bearer\"]")].concat();
    let gateway = Setup::new(app.address()).routes(&routes).start();
    let added = gateway.command(&["apikey", "add", "bot", "--user", "alice", "--routes", "one", "--json"]);
    let text = if added.code == Some(0) { added.stdout } else { panic!("{added:?}") };
    let start = text.find("pck_").expect("a key");
    let key: String = text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    for (path, code, status) in
        [("/one/x", "signed-in", 200), ("/two/x", "key-elsewhere", 403), ("/three/x", "bad-credential", 401)]
    {
        gateway.send(&get(path).bearer(&key)).assert_status(status, path);
        let (_, said) = explain(&gateway, &["GET", path, "--token", &key]);
        assert_eq!(said["code"], code, "{path}: {said}");
    }
}

#[test]
fn a_failing_test_keeps_the_gateway_from_starting() {
    let mut setup = Setup::new("127.0.0.1:1".parse().unwrap());
    let test = |expect: &str| {
        format!("{}\n[[tests]]\nrequest = \"GET /admin/x\"\nas = {{ user = \"bob\" }}\nexpect = \"{expect}\"\n", ROUTES)
    };
    setup = setup.routes(&test("allow"));
    let dir = setup.prepare();
    let served = command(dir.path(), &["serve"], "");
    assert_eq!(served.code, Some(1), "{served:?}");
    assert!(served.stderr.contains("error[test-failed]"), "{served:?}");
    assert!(!served.stderr.contains("listening"), "{served:?}");
    let checked = command(dir.path(), &["check"], "");
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("denied by route `admin`: the user is in none of `groups`"), "{checked:?}");
    // Whoever looks into the rules must be able to: only what would run refuses.
    let explained = command(dir.path(), &["explain", "GET", "/admin/x", "--as", "bob", "--groups", ""], "");
    assert_eq!((explained.code, explained.stderr.as_str()), (Some(1), ""));
    let good = Setup::new("127.0.0.1:1".parse().unwrap()).routes(&test("deny")).start();
    good.send(&Request::new("GET", "/admin/x")).assert_status(401, "it runs");
}

const ROUTES: &str = r#"
[[routes]]
name = "admin"
path = "/admin/**"
allow = { groups = ["admin"] }
upstream = "app"
"#;
