//! Real, unmodified applications behind the gateway, used by real clients. `scripts/test` installs them and
//! runs these; the Python interpreter that has them is named in `PORTCULLIS_TEST_PYTHON`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::lines::Lines;
use crate::common::{Setup, get, password_of};

/// An application as a child process, ended when dropped.
struct Application {
    child: Child,
    address: SocketAddr,
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

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name)
}

/// Starts a Python module and waits for the address that it says it listens on.
fn start(dir: &Path, args: &[&str]) -> Application {
    let mut command = python();
    command.arg("-m").args(args).current_dir(dir).env("HOME", dir).env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the application starts");
    let lines = Lines::of(child.stderr.take().unwrap());
    let found = |line: &str| {
        let (_, after) = line.split_once("127.0.0.1:")?;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let port: u16 = digits.parse().ok().filter(|port| *port > 0)?;
        Some(SocketAddr::from(([127, 0, 0, 1], port)))
    };
    // Importing a large application takes longer than one wait on a busy machine.
    let waited = (0..6)
        .find_map(|_| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lines.wait("an address", found))).ok());
    Application { child, address: waited.expect("the application listens") }
}

/// Runs a client script to its end; its last words are shown when it fails.
fn drive(name: &str, gateway: SocketAddr) {
    let mut command = python();
    command.arg(script(name)).arg(format!("http://{gateway}")).arg("alice").arg(password_of("alice"));
    let output = command.stdin(Stdio::null()).output().expect("the client runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{name}:\n{}\n{}", text(&output.stdout), text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.trim_end().ends_with("done"), "{name} did not come to its end: {said}");
}

#[test]
#[ignore = "needs Radicale and caldav, which scripts/test installs"]
fn radicale_believes_the_header_and_a_caldav_client_works_with_a_bearer() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[server]\nhosts = 127.0.0.1:0\n[auth]\ntype = http_x_remote_user\n[rights]\ntype = owner_only\n\
                  [storage]\nfilesystem_folder = collections\n[web]\ntype = none\n[logging]\nlevel = info\n";
    std::fs::write(dir.path().join("radicale.conf"), config).unwrap();
    let radicale = start(dir.path(), &["radicale", "--config", "radicale.conf"]);
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
