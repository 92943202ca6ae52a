//! `portcullis config show`, beside a running gateway and without one.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::common::{Gateway, Recorder, Setup, command, program, run};

#[test]
fn what_is_in_force_is_shown_and_not_what_the_file_has_become() {
    let app = Recorder::start();
    let setup = || Setup::new(app.address());
    let gateway = setup().start();
    let shown = gateway.command(&["config", "show"]).succeeded();
    assert!(shown.stderr.starts_with("in force in the running gateway (control socket "), "{shown:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("gateway.toml"), &shown.stdout).unwrap();
    command(elsewhere.path(), &["check"], "").succeeded();
    gateway.rewrite(&setup().key("login.title", "broken"));
    assert_eq!(gateway.command(&["config", "show"]).succeeded().stdout, shown.stdout, "a broken file changes nothing");
    gateway.reload(&setup().key("login.title", "\"Another\"").key("log.level", "\"warn\""));
    gateway.command(&["log-level", "error"]).succeeded();
    let document: Value =
        serde_json::from_str(&gateway.command(&["config", "show", "--json"]).succeeded().stdout).unwrap();
    assert_eq!((&document["login"]["title"], &document["log"]["level"]), (&"Another".into(), &"error".into()));
    assert!(document["store"]["url"].as_str().unwrap().starts_with("sqlite:/"), "{document:#}");
}

#[test]
fn without_a_gateway_it_is_what_the_file_comes_to() {
    let setup = Setup::new("127.0.0.1:1".parse().unwrap()).without_users();
    let dir = setup.prepare();
    let shown = command(dir.path(), &["config", "show"], "").succeeded();
    assert!(
        shown.stderr.contains("no gateway runs here") && shown.stderr.contains("gateway.toml comes to"),
        "{shown:?}"
    );
    assert!(shown.stdout.contains("header_timeout = \"10s\"\n"), "{shown:?}");
    std::fs::write(dir.path().join("gateway.toml"), "[server]\nworker = 1\n").unwrap();
    let broken = command(dir.path(), &["config", "show", "--json"], "");
    assert_eq!((broken.code, broken.stdout.as_str()), (Some(1), ""));
    assert!(broken.stderr.contains("unknown-key"), "{broken:?}");
}

#[test]
fn no_secret_crosses_the_socket() {
    let app = Recorder::start();
    let dir = Setup::new(app.address())
        .without_users()
        .key("tokens.algorithm", "\"HS256\"")
        .key("tokens.secret", "[{ env = \"CANARY\" }, { file = \"secret\" }, \"canary-plain-8&2!jQ0zX4#mP7@wL9$vB5\"]")
        .prepare();
    let file = dir.path().join("secret");
    std::fs::write(&file, "canary-file-8&2!jQ0zX4#mP7@wL9$vB5^t").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let with_canary = |dir: &std::path::Path| {
        let mut with_canary = program(dir);
        with_canary.env("CANARY", "canary-env-8&2!jQ0zX4#mP7@wL9$vB5^tK");
        with_canary
    };
    let alone: Vec<String> = [&["config", "show"][..], &["config", "show", "--json"]]
        .map(|args| {
            let mut asking = with_canary(dir.path());
            asking.args(args);
            run(asking, "").succeeded().stdout
        })
        .into();
    let serving = with_canary(dir.path());
    let gateway = Gateway::serve_by(serving, dir);
    let mut said = alone;
    for question in ["config\n", "config json\n"] {
        let mut socket = UnixStream::connect(gateway.dir().join("portcullis.sock")).unwrap();
        socket.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("ok "), "{answer}");
        said.push(answer);
    }
    for said in said {
        assert!(!said.contains("canary"), "{said}");
        assert_eq!(said.matches("(hidden)").count(), 3, "{said}");
    }
}
