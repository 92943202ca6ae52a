//! Real, unmodified applications behind the gateway, used by real clients. `scripts/test` installs them and
//! runs these; the Python interpreter that has them is named in `PORTCULLIS_TEST_PYTHON`.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::lines::Lines;
use crate::common::{Recorder, Setup, get, password_of, token};

/// An application as a child process, ended when dropped.
pub(crate) struct Application {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn python() -> Command {
    let path = std::env::var("PORTCULLIS_TEST_PYTHON").expect("scripts/test names the interpreter");
    Command::new(path)
}

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// Starts a Python module and waits for the address that it says it listens on.
fn start(dir: &Path, args: &[&str]) -> Application {
    launch(dir, &[&["-m"], args].concat())
}

/// Starts Python with `args`, and waits for the address that it says it listens on.
pub(crate) fn launch(dir: &Path, args: &[&str]) -> Application {
    let mut command = python();
    command.args(args).current_dir(dir).env("HOME", dir).env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the application starts");
    let lines = Lines::of(child.stderr.take().unwrap());
    let found = |line: &str| {
        let (_, after) = line.split_once("127.0.0.1:")?;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let port: u16 = digits.parse().ok().filter(|port| *port > 0)?;
        Some(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    // Importing a large application takes long on a busy machine.
    let address = lines.wait_for(Duration::from_secs(60), "an address", found);
    Application { child, address }
}

/// Runs a script to its end and gives what it printed; its last words are shown when it fails.
pub(crate) fn run(name: &str, args: &[&str]) -> String {
    let output = python().arg(script(name)).args(args).stdin(Stdio::null()).output().expect("Python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.status.success(), "{name}:\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Lets a client use the gateway as alice; it says so when it came to its end.
fn drive(name: &str, gateway: SocketAddr) {
    let said = run(name, &[&format!("http://{gateway}"), "alice", &password_of("alice")]);
    assert!(said.ends_with("done"), "{name} did not come to its end: {said}");
}

#[test]
#[ignore = "needs Radicale and caldav, which scripts/test installs"]
fn radicale_believes_the_header_and_a_caldav_client_works_with_a_bearer() {
    let dir = tempfile::tempdir().unwrap();
    // Radicale takes no port 0, so the system is asked for one that is free.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = "[auth]\ntype = http_x_remote_user\n[rights]\ntype = owner_only\n\
                  [storage]\nfilesystem_folder = collections\n[web]\ntype = none\n[logging]\nlevel = info\n";
    std::fs::write(dir.path().join("radicale.conf"), config).unwrap();
    let radicale = start(dir.path(), &["radicale", "--config", "radicale.conf", "--hosts", &free.to_string()]);
    let setup = Setup::new(radicale.address).key("identity.user", "\"X-Remote-User\"").user("bob", &[]);
    let gateway = setup.routes("[[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n").start();
    gateway.send(&get("/alice/").header("X-Remote-User", "alice")).assert_status(401, "a forged name");
    drive("caldav_client.py", gateway.address);
    let stored = std::fs::read_dir(dir.path().join("collections/collection-root")).expect("a store").flatten();
    let owners: Vec<_> = stored.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(owners.contains(&"alice".to_owned()), "{owners:?}");
    // Someone else's calendar is refused by Radicale itself, because it is told who asks.
    let token = gateway.token("bob");
    gateway.send(&get("/alice/").bearer(&token)).assert_status(403, "bob at alice's");
}

#[test]
#[ignore = "needs JupyterLab, Playwright and Chromium, which scripts/test installs"]
fn a_cell_is_executed_in_jupyterlab_over_its_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        "--ServerApp.root_dir=.",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ];
    let jupyter = start(dir.path(), &args);
    let gateway = Setup::new(jupyter.address).start();
    gateway.send(&get("/api/kernels")).assert_status(401, "no kernel for strangers");
    drive("jupyterlab_browser.py", gateway.address);
}

#[test]
#[ignore = "needs PyJWT and cryptography, which scripts/test installs"]
fn another_implementation_verifies_our_tokens_and_we_verify_its() {
    let algorithms =
        ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    for algorithm in algorithms {
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("key");
        let path = file.to_str().unwrap();
        let shared = algorithm.starts_with("HS");
        if shared {
            std::fs::write(&file, token::SECRET).unwrap();
        } else {
            run("pyjwt_peer.py", &["key", algorithm, path]);
        }
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let app = Recorder::start();
        let setup = Setup::new(app.address()).key("tokens.algorithm", &format!("\"{algorithm}\""));
        let key = if shared { "tokens.secret" } else { "tokens.key" };
        let gateway = setup.key(key, &format!("{{ file = \"{path}\" }}")).start();
        let ours = gateway.token("alice");
        let theirs = run("pyjwt_peer.py", &["exchange", algorithm, path, "http://127.0.0.1:8080", &ours]);
        gateway.send(&get("/x").bearer(&theirs)).assert_status(200, algorithm);
        assert_eq!(app.only(algorithm).header("x-forwarded-user").as_deref(), Some("alice"));
    }
}

#[test]
#[ignore = "needs PyJWT, which scripts/test installs"]
fn tokens_that_another_implementation_issues_come_to_their_person_by_its_key_set() {
    let algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("jwks.json");
    let path = file.to_str().unwrap();
    let mut args = vec!["issue", path, "https://id.example", "apps"];
    args.extend(algorithms);
    let tokens = run("pyjwt_peer.py", &args);
    let app = Recorder::start();
    let issuer = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"https://id.example\"\naudience = [\"apps\"]\n\
         jwks = {{ file = \"{path}\" }}\nuser_prefix = \"corp:\"\n"
    );
    let route = "[[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
    let gateway = Setup::new(app.address()).routes(&format!("{issuer}{route}")).start();
    let mut count = 0;
    for (token, algorithm) in tokens.lines().zip(algorithms) {
        gateway.send(&get("/x").bearer(token)).assert_status(200, algorithm);
        let seen = app.only(algorithm);
        assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("corp:bob"));
        assert_eq!(seen.header("x-forwarded-groups").as_deref(), Some(algorithm));
        count += 1;
    }
    assert_eq!(count, algorithms.len());
}

/// Runs jose (npm) as `run` does PyJWT.
fn jose(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/jose_peer.mjs");
    let output = Command::new("node").arg(script).args(args).stdin(Stdio::null()).output().expect("Node.js runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.status.success(), "jose:\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
#[ignore = "needs PyJWT and jose, which scripts/test installs"]
fn others_verify_our_tokens_by_the_published_keys_alone_before_and_after_a_rotation() {
    let issuer = "http://127.0.0.1:8080";
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"] {
        let app = Recorder::start();
        let setup = Setup::new(app.address()).key("tokens.algorithm", &format!("\"{algorithm}\""));
        let gateway = setup.start();
        let url = format!("http://{}/.well-known/jwks.json", gateway.address);
        let early = gateway.token("alice");
        let old = run("pyjwt_peer.py", &["jwks", &url, algorithm, issuer, "portcullis", "JWT", &early]);
        assert_eq!(jose(&[&url, algorithm, issuer, "portcullis", &early]), old, "{algorithm}");
        gateway.command(&["key", "rotate"]).succeeded();
        let late = gateway.token("alice");
        let both = run("pyjwt_peer.py", &["jwks", &url, algorithm, issuer, "portcullis", "JWT", &late, &early]);
        assert_eq!(jose(&[&url, algorithm, issuer, "portcullis", &late, &early]), both, "{algorithm}");
        let (new, still) = both.split_once('\n').expect("two keys");
        assert!(new != old && still == old, "{algorithm}: {both}");
    }
}

#[test]
#[ignore = "needs PyJWT, which scripts/test installs"]
fn an_application_verifies_the_assertion_that_it_is_sent() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address())
        .key("tokens.algorithm", "\"HS256\"")
        .key("identity.assertion", "\"X-Portcullis-Assertion\"")
        .start();
    let token = gateway.token("alice");
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "signed in");
    let assertion = app.only("forwarded").header("x-portcullis-assertion").expect("an assertion");
    let url = format!("http://{}/.well-known/jwks.json", gateway.address);
    run("pyjwt_peer.py", &["jwks", &url, "ES256", "http://127.0.0.1:8080", "app", "assertion+jwt", &assertion]);
}
