//! Changes while the store takes none: a locked file, a full disk. Sign-in, refresh, revocation, log-out and the rotation
//! of keys say so, nobody is let in or out, and everything works again by itself.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rusqlite::Connection;

use crate::common::setup::{Ran, program, run};
use crate::common::{DEADLINE, Gateway, Recorder, Request, Response, Setup, command, get, password_of, post, until};

/// What was issued while all was well.
struct Issued {
    token: String,
    refresh: String,
    ends_by_revoke: String,
    ends_by_log_out: String,
}

impl Issued {
    fn by(gateway: &Gateway) -> Self {
        let answer = gateway.sign_in("alice", &password_of("alice"));
        let of = |member: &str| answer.json()[member].as_str().expect("a token").to_owned();
        let (token, refresh) = (of("access_token"), of("refresh_token"));
        let issued =
            Self { token, refresh, ends_by_revoke: gateway.token("alice"), ends_by_log_out: gateway.token("alice") };
        for token in [&issued.token, &issued.ends_by_revoke, &issued.ends_by_log_out] {
            gateway.send(&get("/x").bearer(token)).assert_status(200, "before");
        }
        issued
    }

    /// Each change, what it is called, and its status when it is done.
    fn changes(&self) -> Vec<(&'static str, Request, u16)> {
        let sign_in = serde_json::json!({ "username": "alice", "password": password_of("alice") });
        let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*self.refresh)];
        vec![
            ("sign-in", post("/login").json(&sign_in), 200),
            ("refresh", post("/.gateway/token").form(&refresh), 200),
            ("revocation", post("/.gateway/revoke").form(&[("token", &self.ends_by_revoke)]), 200),
            ("log-out", post("/logout").bearer(&self.ends_by_log_out), 204),
        ]
    }

    /// Every change is refused as an outage, and what was issued is as good as before.
    fn assert_no_change(&self, gateway: &Gateway) {
        let answers: Mutex<Vec<(&str, Response)>> = Mutex::default();
        std::thread::scope(|scope| {
            for (what, request, _) in self.changes() {
                let answers = &answers;
                scope.spawn(move || {
                    let answer = gateway.send(&request);
                    answers.lock().unwrap().push((what, answer));
                });
            }
        });
        let answers = answers.into_inner().unwrap();
        assert_eq!(answers.len(), 4);
        for (what, answer) in answers {
            answer.assert_status(503, what);
            assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()), "{what}");
        }
        for token in [&self.token, &self.ends_by_revoke, &self.ends_by_log_out] {
            gateway.send(&get("/x").bearer(token)).assert_status(200, "nothing has changed");
        }
    }

    /// Every change is made, and has effect.
    fn assert_changes(&self, gateway: &Gateway) {
        for (what, request, status) in self.changes() {
            let answer = until(what, || Some(gateway.send(&request)).filter(|answer| answer.status != 503));
            answer.assert_status(status, what);
        }
        for token in [&self.ends_by_revoke, &self.ends_by_log_out] {
            gateway.send(&get("/x").bearer(token)).assert_status(401, "it is over");
        }
        gateway.send(&get("/x").bearer(&self.token)).assert_status(200, "its session goes on");
    }
}

#[test]
fn a_locked_store_takes_no_change_says_so_and_takes_them_again() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let issued = Issued::by(&gateway);
    let lock = Connection::open(gateway.dir().join("portcullis.db")).expect("the store");
    lock.busy_timeout(DEADLINE).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    issued.assert_no_change(&gateway);
    gateway.stderr.wait("the reason", |line| line.contains("is locked by another process").then_some(()));
    for args in [&["key", "rotate"][..], &["session", "revoke", "--user", "alice"], &["user", "disable", "alice"]] {
        let ran = gateway.command(args);
        assert!(ran.code == Some(1) && ran.stdout.is_empty(), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("is locked by another process"), "{args:?}: {ran:?}");
    }
    lock.execute_batch("ROLLBACK").unwrap();
    issued.assert_changes(&gateway);
    gateway.command(&["key", "rotate"]).succeeded();
    gateway.send(&get("/x").bearer(&issued.token)).assert_status(200, "of the former key");
}

/// A gateway whose store lies on a small disk of its own, in a mount namespace.
fn on_a_small_disk(app: &Recorder) -> (Gateway, PathBuf) {
    let namespace = ["--user", "--map-root-user", "--mount"];
    let mut allowed = Command::new("unshare");
    allowed.args(namespace).args(["sh", "-c", "mount -t tmpfs -o size=64k none /tmp"]);
    let ran = allowed.output().expect("unshare, of util-linux");
    let why = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "this test needs user and mount namespaces, which the system does not allow: {why}");
    let dir = Setup::new(app.address()).key("store.url", "\"sqlite:disk/portcullis.db\"").without_users().prepare();
    std::fs::create_dir(dir.path().join("disk")).unwrap();
    let args = ["user", "add", "alice", "--password-stdin"];
    command(dir.path(), &args, &format!("{}\n", password_of("alice"))).succeeded();
    let serve = program(dir.path());
    let mut unshare = Command::new("unshare");
    unshare.current_dir(dir.path()).env_remove("RUST_LOG").env_remove("NO_COLOR").args(namespace);
    let script = "cp -a disk seed && mount -t tmpfs -o size=2m none disk && cp -a seed/. disk/ && exec \"$0\" \"$@\"";
    unshare.args(["sh", "-c", script]).arg(serve.get_program());
    let gateway = Gateway::serve_by(unshare, dir);
    let disk = Path::new("/proc").join(gateway.pid().to_string()).join("root");
    let disk = disk.join(gateway.dir().strip_prefix("/").expect("an absolute path"));
    (gateway, disk)
}

/// Begins a command where the gateway sees its disk.
fn enter(gateway: &Gateway) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["--user", "--preserve-credentials", "--mount", "--target"]).arg(gateway.pid().to_string());
    enter
}

/// Runs a command of the program there.
fn inside(gateway: &Gateway, args: &[&str]) -> Ran {
    let mut enter = enter(gateway);
    enter.arg(program(gateway.dir()).get_program()).args(args).arg("--config").arg(gateway.dir().join("gateway.toml"));
    run(enter, "")
}

/// Fills the disk to its last byte.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("disk/filler");
    let mut filler = File::create(&path).expect("room for a file");
    for size in [4096, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[test]
fn a_full_disk_takes_no_change_says_so_and_takes_them_again() {
    let app = Recorder::start();
    let (gateway, disk) = on_a_small_disk(&app);
    let issued = Issued::by(&gateway);
    let filler = fill(&disk);
    let request = post("/login").form(&[("username", "alice"), ("password", &*password_of("alice"))]);
    until("the last gap to be full", || (gateway.send(&request).status == 503).then_some(()));
    issued.assert_no_change(&gateway);
    gateway.stderr.wait("the reason", |line| line.contains("has no space left on its disk").then_some(()));
    let ran = inside(&gateway, &["key", "rotate"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("has no space left on its disk"), "{ran:?}");
    assert!(ran.stderr.contains("free space"), "{ran:?}");
    std::fs::remove_file(filler).unwrap();
    issued.assert_changes(&gateway);
    inside(&gateway, &["key", "rotate"]).succeeded();
    gateway.send(&get("/x").bearer(&issued.token)).assert_status(200, "of the former key");
}

#[test]
fn a_disk_that_is_read_only_takes_no_change_says_so_and_takes_them_again() {
    let app = Recorder::start();
    let (gateway, disk) = on_a_small_disk(&app);
    let shell = |script: &str| {
        let mut sh = enter(&gateway);
        sh.args(["sh", "-c", script]).arg(gateway.dir().join("disk")).arg(gateway.dir().join("copy"));
        run(sh, "").succeeded();
    };
    let issued = Issued::by(&gateway);
    // The same files on a mount that nobody may write, put in place in one step.
    shell("cp -a $0 $1 && mount --bind $1 $1 && mount -o remount,bind,ro $1 && mount --move $1 $0");
    assert!(File::create(disk.join("disk/x")).is_err(), "it is read-only");
    issued.assert_no_change(&gateway);
    gateway.stderr.wait("the reason", |line| line.contains("portcullis.db can't be written").then_some(()));
    let ran = inside(&gateway, &["key", "rotate"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("make the file and its directory writable"), "{ran:?}");
    shell("umount --lazy $0");
    issued.assert_changes(&gateway);
    inside(&gateway, &["key", "rotate"]).succeeded();
}
