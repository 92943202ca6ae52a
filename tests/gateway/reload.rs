//! Another configuration while the gateway runs: without losing a request, a connection or a session.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Gateway, Recorder, Setup, command, get, post, token};

/// The default routes and one more before them.
fn routes(first: &str) -> String {
    let rest = ["public", "admin"].map(|name| {
        let allow = if name == "public" { "\"anyone\"" } else { "{ groups = [\"admin\"] }" };
        format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}/**\"\nallow = {allow}\nupstream = \"app\"\n")
    });
    format!(
        "{first}\n{}[[routes]]\nname = \"rest\"\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n",
        rest.concat()
    )
}

fn closed(name: &str) -> String {
    routes(&format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}/**\"\nallow = \"nobody\"\nupstream = \"app\"\n"))
}

#[test]
fn no_request_fails_while_the_configuration_changes_again_and_again() {
    let app = Recorder::start();
    let (address, workers) = (app.address(), "2");
    let setup = || Setup::new(address).key("server.workers", workers);
    let gateway = setup().start();
    let (token, cookie) = (gateway.token("alice"), gateway.cookie("alice"));
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let busy: Vec<_> = (0..4)
            .map(|number| {
                let (gateway, over, token, cookie) = (&gateway, &over, &token, &cookie);
                scope.spawn(move || {
                    let mut client = gateway.client();
                    let mut sent = 0;
                    while !over.load(Ordering::SeqCst) {
                        let request = match (number + sent) % 3 {
                            0 => get("/public/x"),
                            1 => get("/data/x").bearer(token),
                            _ => post("/data/x").cookie(cookie).body("text/plain", "some content"),
                        };
                        client.send(&request).assert_status(200, "during reloads");
                        sent += 1;
                    }
                    assert_eq!(client.opened, 1, "every connection is kept");
                    sent
                })
            })
            .collect();
        for number in 0..8 {
            let next = setup().routes(&closed(&format!("closed{number}"))).key("login.title", &format!("\"{number}\""));
            gateway.reload(&next);
            let path = format!("/closed{number}/x");
            gateway.send(&get(&path).bearer(&token)).assert_status(403, "the new rule counts once the command is back");
        }
        over.store(true, Ordering::SeqCst);
        busy.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    assert!(sent > 100, "only {sent} requests");
}

#[test]
fn connections_on_both_sides_are_kept_and_sessions_too() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address());
    let gateway = setup().start();
    let (cookie, token) = (gateway.cookie("alice"), gateway.token("alice"));
    let mut client = gateway.client();
    client.send(&get("/x").cookie(&cookie)).assert_status(200, "before");
    assert_eq!(app.connections(), 1);
    gateway.reload(&setup().routes(&closed("closed")).key("server.limits.body_bytes", "\"4B\""));
    client.send(&get("/x").cookie(&cookie)).assert_status(200, "the session goes on");
    client.send(&get("/x").bearer(&token)).assert_status(200, "and the token");
    client.send(&get("/closed/x").cookie(&cookie)).assert_status(403, "by the new rules, on the same connection");
    assert_eq!((client.opened, app.connections()), (1, 1));
    client.send(&post("/x").bearer(&token).body("text/plain", "12345")).assert_status(413, "by the new limit");
    gateway.reload(&setup().key(
        "upstreams.app",
        &format!("{{ servers = [\"http://{}\"], timeouts = {{ response = \"7s\" }} }}", app.address()),
    ));
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "to an upstream that has changed");
    assert_eq!(app.connections(), 2, "which has connections of its own");
}

#[test]
fn what_is_revoked_stays_so_and_the_gateway_s_own_paths_move() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address());
    let gateway = setup().start();
    let (kept, ended, cookie) = (gateway.token("alice"), gateway.token("alice"), gateway.cookie("alice"));
    gateway.send(&post("/.gateway/revoke").form(&[("token", &ended)])).assert_status(200, "revoked");
    gateway.send(&post("/logout").cookie(&cookie)).assert_status(204, "signed out");
    gateway.reload(&setup().key("login.path", "\"/sign-in\"").key("login.logout_path", "\"/sign-out\""));
    gateway.send(&get("/x").bearer(&kept)).assert_status(200, "kept");
    gateway.send(&get("/x").bearer(&ended)).assert_status(401, "revoked");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(401, "signed out");
    gateway.send(&get("/sign-in").page_load()).assert_status(200, "the page is where it is now");
    gateway.send(&get("/login").bearer(&kept)).assert_status(200, "and this one is the application's");
}

#[test]
fn what_an_application_is_told_changes_with_the_file() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address());
    let gateway = setup().start();
    let token = gateway.token("alice");
    let told = |name: &str| {
        app.take();
        gateway.send(&get("/x").bearer(&token).header("X-WEBAUTH-USER", "root")).assert_status(200, name);
        app.only(name).header(name)
    };
    assert_eq!((told("X-Forwarded-User").as_deref(), told("X-WEBAUTH-USER")), (Some("alice"), None));
    let keys =
        || gateway.send(&get("/.well-known/jwks.json").host("127.0.0.1:8080")).json()["keys"].as_array().unwrap().len();
    let before = keys();
    gateway.reload(&setup().key("identity.user", "\"X-WEBAUTH-USER\"").key("identity.assertion", "\"X-Assertion\""));
    assert_eq!((told("X-Forwarded-User"), told("X-WEBAUTH-USER").as_deref()), (None, Some("alice")));
    assert!(told("X-Assertion").is_some_and(|assertion| assertion.matches('.').count() == 2));
    assert_eq!(keys(), before + 1, "and its key is published");
    gateway.reload(&setup().key("server.trusted_proxies", "[\"127.0.0.0/8\"]"));
    let from = get("/public/x").header("X-Forwarded-For", "192.0.2.7");
    gateway.send(&from).assert_status(200, "through a proxy");
    let line = gateway.stdout.wait("the client behind it", |line| line.contains("192.0.2.7").then(|| line.to_owned()));
    assert!(line.contains("/public/x"), "{line}");
}

#[test]
fn a_symbolic_link_that_is_swapped_far_up_the_path_is_a_change() {
    let app = Recorder::start();
    let dir = Setup::new(app.address()).prepare();
    let at = |name: &str| dir.path().join(name);
    for (version, text) in
        [("..1", Setup::new(app.address())), ("..2", Setup::new(app.address()).routes(&closed("closed")))]
    {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("gateway.toml"), text.toml()).unwrap();
    }
    std::fs::remove_file(at("gateway.toml")).unwrap();
    symlink("..1", at("..data")).unwrap();
    symlink("..data/gateway.toml", at("gateway.toml")).unwrap();
    symlink("..2", at("..data_tmp")).unwrap();
    let (from, to) = (at("..data_tmp"), at("..data"));
    let gateway = Gateway::serve(dir);
    let token = gateway.token("alice");
    gateway.send(&get("/closed/x").bearer(&token)).assert_status(200, "before");
    std::fs::rename(from, to).unwrap();
    let line = gateway.stderr.wait("a reload", |line| line.contains("configuration reloaded").then(|| line.to_owned()));
    assert!(line.contains("cause=\"file\""), "{line}");
    gateway.send(&get("/closed/x").bearer(&token)).assert_status(403, "after");
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_is_shown_whole() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("log.level", "\"debug\"").start();
    let token = gateway.token("alice");
    let good = std::fs::read_to_string(gateway.dir().join("gateway.toml")).unwrap();
    let bad = Setup::new(app.address())
        .routes("[[routes]]\npth = \"/b\"\nallow = \"everybody\"\nupstream = \"nowhere\"\n")
        .key("sessions.lifetime", "\"soon\"");
    gateway.rewrite(&bad);
    let ran = gateway.command(&["reload"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for problem in ["pth", "everybody", "nowhere", "soon", "gateway.toml:", "former configuration stays in force"] {
        assert!(ran.stderr.contains(problem), "nothing of {problem}: {}", ran.stderr);
    }
    let ran = gateway.command(&["reload", "--json"]);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &document["result"]), (Some(1), &json!("refused")));
    assert!(document["findings"]["errors"].as_u64().unwrap() >= 4, "{document:#}");
    let of_place = |line: &str| (line.contains("configuration error") && line.contains("place=")).then_some(());
    gateway.stderr.wait("each error in the log", of_place);
    gateway.stderr.wait("the refusal", |line| line.contains("configuration refused").then_some(()));
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "the former rules");
    // Not even the file: what holds is what was loaded.
    std::fs::remove_file(gateway.dir().join("gateway.toml")).unwrap();
    assert_eq!(gateway.command(&["reload"]).code, Some(1));
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "the former rules");
    std::fs::write(gateway.dir().join("gateway.toml"), good).unwrap();
    gateway.command(&["reload"]).succeeded();
}

#[test]
fn a_hang_up_reloads_and_while_draining_it_is_nothing() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("server.limits.drain_delay", "\"5s\"").start();
    let token = gateway.token("alice");
    gateway.rewrite(&Setup::new(app.address()).routes(&closed("closed")).key("server.limits.drain_delay", "\"5s\""));
    gateway.signal(Signal::HUP);
    gateway.stderr.wait("a reload", |line| line.contains("configuration reloaded").then_some(()));
    gateway.send(&get("/closed/x").bearer(&token)).assert_status(403, "the new rules");
    gateway.signal(Signal::TERM);
    gateway.stderr.wait("draining", |line| line.contains("draining").then_some(()));
    gateway.rewrite(&Setup::new(app.address()).routes(&closed("other")));
    gateway.signal(Signal::HUP);
    let ran = gateway.command(&["reload"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("ending"), "{}", ran.stderr);
    gateway.send(&get("/other/x").bearer(&token)).assert_status(200, "still the rules of before");
}

#[test]
fn a_secret_is_rotated_without_ending_what_the_old_one_signed() {
    let app = Recorder::start();
    let setup =
        |secrets: &[&str]| Setup::new(app.address()).shared_secret().key("tokens.secret", &format!("{secrets:?}"));
    let other = "another secret, which is as long as it has to be for any of the hashes there are";
    let gateway = setup(&[token::SECRET]).start();
    let (own, minted) = (gateway.token("alice"), token::mint(&token::claims("alice")));
    let of_other = || {
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        token::mint_with(hmac::HMAC_SHA256, other.as_bytes(), header, &token::claims("alice"))
    };
    let status = |token: &str| gateway.send(&get("/x").bearer(token)).status;
    assert_eq!((status(&own), status(&minted), status(&of_other())), (200, 200, 401));
    gateway.reload(&setup(&[other, token::SECRET]));
    assert_eq!((status(&own), status(&minted), status(&of_other())), (200, 200, 200));
    let signed = gateway.token("alice");
    gateway.reload(&setup(&[other]));
    assert_eq!((status(&own), status(&minted), status(&of_other()), status(&signed)), (401, 401, 200, 200));
    gateway.reload(&setup(&[other]).key("tokens.audience", "\"others\""));
    assert_eq!((status(&of_other()), status(&signed)), (401, 401), "verified before, and for another audience");
}

#[test]
fn the_log_and_the_access_log_change_while_it_runs() {
    let app = Recorder::start();
    let setup = |level: &str, format: &str| {
        Setup::new(app.address()).key("log.level", &format!("{level:?}")).key("log.format", &format!("{format:?}"))
    };
    let gateway = setup("info", "text").start();
    let token = gateway.token("alice");
    gateway.reload(&setup("error", "text").routes(&closed("closed")));
    gateway.send(&get("/closed/quiet").bearer(&token)).assert_status(403, "not told");
    gateway.reload(&setup("info", "json").routes(&closed("closed")));
    gateway.send(&get("/closed/told").bearer(&token)).assert_status(403, "told");
    let event = gateway.stderr.wait("the denial as JSON", |line| {
        serde_json::from_str::<Value>(line).ok().filter(|event| event["event"] == "denied")
    });
    assert_eq!(event["user"], "alice");
    let denials = gateway.stderr.text().lines().filter(|line| line.contains("denied")).count();
    assert_eq!(denials, 1, "only what came under level = \"info\"");
    gateway.access_line("an access line as JSON", |line| line["path"] == "/closed/told");
    gateway.reload(&setup("info", "json").key("log.access", "\"./access.log\""));
    gateway.send(&get("/public/file")).assert_status(200, "into the file");
    crate::common::until("a line in the file", || {
        std::fs::read_to_string(gateway.dir().join("access.log")).ok().filter(|text| text.contains("/public/file"))
    });
    assert!(!gateway.stdout.text().contains("/public/file"));
}

#[test]
fn what_needs_a_restart_is_said() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address()).key("admin.control", "\"./portcullis.sock\"");
    let gateway = setup().start();
    gateway.rewrite(&setup().key("store.url", "\"sqlite:other.db\"").routes(&closed("closed")));
    let ran = gateway.command(&["reload"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("`store.url` can't change while the gateway runs"), "{}", ran.stderr);
    let token = gateway.token("alice");
    gateway.send(&get("/closed/x").bearer(&token)).assert_status(200, "nothing of it is in force");
    let ran = gateway.reload(&setup().key("server.workers", "2").routes(&closed("closed")));
    assert!(ran.stderr.contains("`server.workers` takes effect at the next start"), "{}", ran.stderr);
    gateway.send(&get("/closed/x").bearer(&token)).assert_status(403, "all else of it is");
}

#[test]
fn without_a_running_gateway_there_is_nothing_to_reload() {
    let app = Recorder::start();
    let dir = Setup::new(app.address()).without_users().prepare();
    let ran = command(dir.path(), &["reload"], "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("no gateway is running"), "{}", ran.stderr);
}

#[test]
fn who_asks_at_once_is_answered_at_once() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let token = gateway.token("alice");
    gateway.rewrite(&Setup::new(app.address()).routes(&closed("closed")));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                gateway.command(&["reload"]).succeeded();
                gateway.send(&get("/closed/x").bearer(&token)).assert_status(403, "in force for whoever asked");
            });
        }
    });
}
