//! A gateway as a child process: where it listens, what it wrote, how it ended.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::lines::Lines;
use super::setup::{Ran, Setup, program};
use super::{Client, Request, Response, command, password_of, post};

/// A running gateway; it is ended when dropped.
pub(crate) struct Gateway {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Standard output: the access log.
    pub(crate) stdout: Lines,
    /// Standard error: the log.
    pub(crate) stderr: Lines,
    dir: Option<TempDir>,
}

impl Gateway {
    /// Starts the real program with the `gateway.toml` in `dir`, and waits until it listens.
    pub(crate) fn serve(dir: TempDir) -> Self {
        Self::serve_by(program(dir.path()), dir)
    }

    /// Starts it through another program, which becomes it.
    pub(crate) fn serve_by(mut program: Command, dir: TempDir) -> Self {
        program.stdin(Stdio::null());
        Self::serve_with(program, dir)
    }

    /// The same through a program that has use for its standard input.
    pub(crate) fn serve_with(mut program: Command, dir: TempDir) -> Self {
        program.arg("serve").arg("--config").arg(dir.path().join("gateway.toml"));
        program.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().expect("the program starts");
        let stdout = Lines::of(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Lines::of(child.stderr.take().expect("stderr is a pipe"));
        let of_clients =
            |line: &str| (line.contains("listening") && !line.contains("admin")).then(|| address_in(line))?;
        let address = stderr.wait("the address", of_clients);
        Self { child, address, stdout, stderr, dir: Some(dir) }
    }

    /// Where the admin listener is.
    pub(crate) fn admin(&self) -> SocketAddr {
        let of_admin = |line: &str| line.contains("admin").then(|| address_in(line))?;
        self.stderr.wait("the admin address", of_admin)
    }

    /// The directory with `gateway.toml` and the store.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.as_ref().expect("only a restart takes it").path()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command of the program beside this gateway.
    pub(crate) fn command(&self, args: &[&str]) -> Ran {
        command(self.dir(), args, "")
    }

    /// Puts the configuration of `setup` in place of the file, whole, as a deployment does. It is not read yet.
    pub(crate) fn rewrite(&self, setup: &Setup) {
        let fresh = self.dir().join("gateway.toml.new");
        std::fs::write(&fresh, setup.toml()).unwrap();
        std::fs::rename(&fresh, self.dir().join("gateway.toml")).unwrap();
    }

    /// Has it go on with the configuration of `setup`, which is in force when this returns.
    #[track_caller]
    pub(crate) fn reload(&self, setup: &Setup) -> Ran {
        self.rewrite(setup);
        self.command(&["reload"]).succeeded()
    }

    /// Sends one request over a connection of its own.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Response {
        self.client().send(request)
    }

    /// A client with a connection that is kept.
    pub(crate) fn client(&self) -> Client {
        Client::of(self.address)
    }

    /// Signs in with JSON.
    pub(crate) fn sign_in(&self, name: &str, password: &str) -> Response {
        self.send(&post("/login").json(&json!({ "username": name, "password": password })))
    }

    /// An access token of `name`.
    pub(crate) fn token(&self, name: &str) -> String {
        let answer = self.sign_in(name, &password_of(name));
        answer.assert_status(200, "signing in");
        answer.json()["access_token"].as_str().expect("an access token").to_owned()
    }

    /// A session cookie of `name`, as `name=value`.
    pub(crate) fn cookie(&self, name: &str) -> String {
        let password = password_of(name);
        let form = post("/login").form(&[("username", name), ("password", &password)]);
        let answer = self.send(&form);
        answer.assert_status(303, "signing in with a form");
        let cookie = answer.header("set-cookie").expect("a cookie");
        cookie.split(';').next().unwrap_or_default().to_owned()
    }

    /// The first access line (JSON) for which `found` holds.
    pub(crate) fn access_line(&self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        self.stdout.wait(what, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value.get("duration_ms").is_some() && found(&value)).then_some(value)
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the gateway runs");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> Ran {
        self.stdout.wait_for_end();
        self.stderr.wait_for_end();
        let status = self.child.wait().expect("the gateway ends");
        Ran { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// The directory of a gateway that has ended.
    pub(crate) fn into_dir(mut self) -> TempDir {
        self.dir.take().expect("only a restart takes it")
    }

    /// Ends it with SIGTERM, and asserts that it ended well.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Ran {
        self.signal(Signal::TERM);
        self.ended().succeeded()
    }
}

impl Gateway {
    /// Ends it with SIGTERM and starts another in the same directory.
    #[track_caller]
    pub(crate) fn restart(mut self) -> Self {
        self.signal(Signal::TERM);
        self.ended().succeeded();
        Self::serve(self.dir.take().expect("the directory is there"))
    }

    /// Kills it, so that it can do nothing more, and starts another in the same directory.
    pub(crate) fn kill_and_restart(mut self) -> Self {
        self.signal(Signal::KILL);
        drop(self.child.wait());
        Self::serve(self.dir.take().expect("the directory is there"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the gateway wrote:\n{}\n{}", self.stderr.text(), self.stdout.text());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The value of the field `address` in a log line, text or JSON.
pub(crate) fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("address")?;
    let start = after.find(|c: char| c.is_ascii_digit() || c == '[')?;
    let value = &after[start..];
    let end = value.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    value[..end.unwrap_or(value.len())].parse().ok()
}
