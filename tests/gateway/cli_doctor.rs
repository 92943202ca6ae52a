//! `portcullis doctor`, beside a running gateway and without one.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::common::setup::Ran;
use crate::common::{Gateway, Recorder, Setup, command, get};

/// The check called `name`.
fn check(ran: &Ran, name: &str) -> Value {
    let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let all = document["checks"].as_array().expect("a list");
    all.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name} in {document:#}")).clone()
}

#[test]
fn a_gateway_that_is_well_has_nothing_that_fails() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("admin.listen", "\"unix:admin.sock\"").start();
    let ran = gateway.command(&["doctor", "--json"]).succeeded();
    let listener = format!("listener {}", gateway.address);
    for name in [
        &*listener,
        "file",
        "gateway",
        "clock",
        "keys",
        "store",
        "control socket",
        "cookie",
        "upstream app",
        "admin listener",
    ] {
        assert_eq!(check(&ran, name)["result"], "ok", "{name}: {ran:?}");
    }
    let text = gateway.command(&["doctor"]).succeeded();
    assert!(text.stdout.starts_with("RESULT  CHECK") && text.stdout.contains("0 fail"), "{text:?}");
    drop(app);
    let store = gateway.dir().join("portcullis.db");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = gateway.command(&["doctor", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found = check(&ran, "store");
    assert_eq!(found["result"], "fail");
    assert!(found["help"].as_str().unwrap().contains("chmod 0600"), "{found:#}");
}

#[test]
fn an_upstream_where_nobody_listens_fails_and_without_a_gateway_that_is_said() {
    let dir = Setup::new("127.0.0.1:1".parse().unwrap()).prepare();
    let ran = command(dir.path(), &["doctor", "--json"], "");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(check(&ran, "upstream app")["result"], "fail");
    assert_eq!(check(&ran, "gateway")["result"], "warn");
    assert_eq!(check(&ran, "clients")["result"], "warn");
    let text = command(dir.path(), &["doctor"], "");
    assert!(text.stdout.contains("fail upstream app: start the application"), "{text:?}");
}

#[test]
fn a_proxy_that_is_not_trusted_is_named_until_it_is() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address());
    let gateway = setup().start();
    let forwarded = |number: usize| get("/public/x").header("X-Forwarded-For", &format!("192.0.2.{number}"));
    gateway.send(&get("/public/x")).assert_status(200, "from here");
    let ran = gateway.command(&["doctor", "--json"]).succeeded();
    assert_eq!((&check(&ran, "proxies")["result"], &check(&ran, "clients")["result"]), (&"ok".into(), &"ok".into()));
    for number in 0..51 {
        gateway.send(&forwarded(number)).assert_status(200, "through a proxy");
    }
    let ran = gateway.command(&["doctor", "--json"]).succeeded();
    let (proxies, clients) = (check(&ran, "proxies"), check(&ran, "clients"));
    assert_eq!((&proxies["result"], &clients["result"]), (&"warn".into(), &"warn".into()), "{ran:?}");
    assert!(proxies["found"].as_str().unwrap().contains("127.0.0.1 (51 times)"), "{proxies:#}");
    gateway.reload(&setup().behind_a_proxy());
    gateway.send(&forwarded(7)).assert_status(200, "through a trusted proxy");
    let ran = gateway.command(&["doctor", "--json"]).succeeded();
    assert_eq!((&check(&ran, "proxies")["result"], &check(&ran, "clients")["result"]), (&"ok".into(), &"ok".into()));
}

#[test]
fn what_is_in_force_counts_and_not_what_the_file_has_become() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address());
    let gateway = setup().start();
    gateway.rewrite(&setup().key("upstreams.nobody", "\"http://127.0.0.1:1\""));
    let ran = gateway.command(&["doctor", "--json"]);
    let file = check(&ran, "file");
    // The gateway looks at its file by itself, so that it may have taken it in meanwhile.
    if file["result"] != "ok" {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(file["help"].as_str().unwrap().contains("portcullis reload"), "{file:#}");
        assert!(!ran.stdout.contains("upstream nobody"), "{ran:?}");
    }
    std::fs::write(gateway.dir().join("gateway.toml"), "[server]\nlisten = 7\n").unwrap();
    let ran = gateway.command(&["doctor", "--json"]);
    assert_eq!((ran.code, &check(&ran, "file")["result"]), (Some(1), &"fail".into()), "{ran:?}");
    for name in ["gateway", "upstream app", &format!("listener {}", gateway.address)] {
        assert_eq!(check(&ran, name)["result"], "ok", "{name}: {ran:?}");
    }
}

#[test]
fn files_with_secrets_are_for_the_gateway_alone_and_issuers_are_asked_for() {
    let app = Recorder::start();
    let dir = Setup::new(app.address())
        .key("tokens.algorithm", "\"HS256\"")
        .key("tokens.secret", "{ file = \"jwt.secret\" }")
        .key("store.users", "{ file = \"users.htpasswd\" }")
        .without_users();
    let issuer = "[[issuers]]\nname = \"away\"\nissuer = \"https://127.0.0.1:1\"\naudience = [\"apps\"]\n";
    let toml = format!("{}\n{issuer}", dir.toml());
    let dir = tempfile::Builder::new().prefix("gate").tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), toml).unwrap();
    std::fs::write(dir.path().join("jwt.secret"), "a secret of at least thirty-two bytes").unwrap();
    std::fs::write(dir.path().join("users.htpasswd"), "").unwrap();
    let set = |name: &str, mode| {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("jwt.secret", 0o644);
    set("users.htpasswd", 0o640);
    let of_files = |ran: &Ran| {
        let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let all = document["checks"].as_array().expect("a list").iter();
        let named = all.filter(|check| check["check"] == "secret file");
        named.map(|check| check["result"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let ran = command(dir.path(), &["doctor", "--json"], "");
    let mut results = of_files(&ran);
    results.sort();
    assert_eq!((ran.code, results), (Some(1), vec!["fail".to_owned(), "ok".to_owned()]), "{ran:?}");
    assert_eq!(check(&ran, "issuer away")["result"], "warn", "{ran:?}");
    set("jwt.secret", 0o600);
    let gateway = Gateway::serve(dir);
    let ran = gateway.command(&["doctor", "--json"]);
    assert_eq!(of_files(&ran), ["ok", "ok"], "{ran:?}");
    let issuer = check(&ran, "issuer away");
    assert_eq!((ran.code, &issuer["result"]), (Some(1), &"fail".into()), "{issuer:#}");
}
