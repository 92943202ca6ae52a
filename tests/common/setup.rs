//! A configuration with safe defaults for tests, users made with the real command line, and the start.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Gateway, token};

/// What a gateway is started with.
pub(crate) struct Setup {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    routes: String,
    users: Vec<(String, Vec<String>)>,
}

/// Routes for tests that do not care: one public, one for administrators, the rest for whoever is signed in.
const ROUTES: &str = r#"
    [[routes]]
    name = "public"
    path = "/public/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    name = "admin"
    path = "/admin/**"
    allow = { groups = ["admin"] }
    upstream = "app"

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

impl Setup {
    /// A gateway in front of `app`, with the default routes, and alice who is an administrator and in staff.
    pub(crate) fn new(app: SocketAddr) -> Self {
        let empty = Self { sections: BTreeMap::new(), routes: ROUTES.to_owned(), users: Vec::new() };
        empty
            .key("server.listen", r#"["127.0.0.1:0"]"#)
            .key("server.workers", "1")
            .key("upstreams.app", &format!("\"http://{app}\""))
            .user("alice", &["--groups", "admin,staff"])
    }

    /// With `path` (`section.key`) set to a TOML value.
    pub(crate) fn key(mut self, path: &str, value: &str) -> Self {
        let (section, key) = path.rsplit_once('.').expect("a section and a key");
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With these `[[routes]]` in place of the default ones.
    pub(crate) fn routes(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.routes);
        self
    }

    /// With one more account; `flags` as `portcullis user add` takes them.
    pub(crate) fn user(mut self, name: &str, flags: &[&str]) -> Self {
        self.users.push((name.to_owned(), flags.iter().map(|flag| (*flag).to_owned()).collect()));
        self
    }

    /// Without any account.
    pub(crate) fn without_users(mut self) -> Self {
        self.users.clear();
        self
    }

    /// With HS256 under a secret that [`token::mint`] knows, so that a test can make tokens by hand.
    pub(crate) fn shared_secret(self) -> Self {
        self.key("tokens.algorithm", "\"HS256\"")
            .key("tokens.secret", &format!("\"{}\"", token::SECRET))
            .key("tokens.issuer", &format!("\"{}\"", token::ISSUER))
    }

    /// Behind a proxy on loopback whose `X-Forwarded-For` and `-Proto` count.
    pub(crate) fn behind_a_proxy(self) -> Self {
        self.key("server.trusted_proxies", r#"["127.0.0.0/8"]"#)
    }

    /// The configuration as a file.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.sections {
            text.push_str(&format!("[{section}]\n"));
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text + &self.routes
    }

    /// The file and its accounts in a directory of their own, nothing started.
    pub(crate) fn prepare(&self) -> TempDir {
        let dir = tempfile::Builder::new().prefix("gate").tempdir().expect("a directory");
        std::fs::write(dir.path().join("gateway.toml"), self.toml()).unwrap();
        for (name, flags) in &self.users {
            let mut args = vec!["user", "add", name, "--password-stdin"];
            args.extend(flags.iter().map(String::as_str));
            command(dir.path(), &args, &format!("{}\n", password_of(name))).succeeded();
        }
        dir
    }

    /// The running gateway.
    pub(crate) fn start(self) -> Gateway {
        Gateway::serve(self.prepare())
    }
}

/// The password that every test gives to `name`.
pub(crate) fn password_of(name: &str) -> String {
    format!("{name} has a long pass phrase")
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails unless the command ended with 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// The program with nothing of the caller's environment that could change it.
pub(crate) fn program(dir: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    program.current_dir(dir).env_remove("RUST_LOG").env_remove("NO_COLOR");
    program
}

/// Runs the real program beside the `gateway.toml` in `dir`.
pub(crate) fn command(dir: &Path, args: &[&str], stdin: &str) -> Ran {
    let mut program = program(dir);
    program.args(args).arg("--config").arg(dir.join("gateway.toml"));
    run(program, stdin)
}

/// Runs `program` to its end.
pub(crate) fn run(mut program: Command, stdin: &str) -> Ran {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("stdin is a pipe");
    // A command that does not read its input is no failure.
    drop(input.write_all(stdin.as_bytes()));
    drop(input);
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
