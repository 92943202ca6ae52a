//! The pages of `docs/howto` with the real programs that they name: nginx and Caddy in front of the gateway, `htpasswd`, and
//! a users file of Authelia's. `scripts/test` brings them, and says where they are in `PORTCULLIS_NGINX` and
//! `PORTCULLIS_CADDY`; curl is the client, from an address of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use super::howto::{block, replaced, start};
use crate::common::lines::Lines;
use crate::common::recorder::reply;
use crate::common::setup::{Ran, run};
use crate::common::{Answer, Gateway, Recorded, Recorder, password_of};

/// The host of the pages.
const HOST: &str = "apps.example.com";

/// Where the client of these tests comes from; the proxies are at 127.0.0.1.
const CLIENT: &str = "127.0.0.2";

/// Another server in front of the gateway, ended when dropped.
struct Front {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Neither server takes port 0, so the system is asked for one that is free.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A directory with `c.pem` and `k.pem` for the host.
fn with_certificate() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([HOST.to_owned()]).unwrap();
    fs::write(dir.path().join("c.pem"), cert.pem()).unwrap();
    fs::write(dir.path().join("k.pem"), signing_key.serialize_pem()).unwrap();
    dir
}

fn tool(variable: &str) -> Command {
    Command::new(std::env::var(variable).unwrap_or_else(|_| panic!("scripts/test sets {variable}")))
}

impl Front {
    fn run(mut command: Command, dir: TempDir, port: u16, ready: &str) -> Self {
        command
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env("XDG_DATA_HOME", dir.path())
            .env("XDG_CONFIG_HOME", dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let lines = Lines::of(child.stderr.take().unwrap());
        lines.wait_for(Duration::from_secs(30), ready, |line| line.contains(ready).then_some(()));
        Self { child, port, dir }
    }

    /// nginx with these servers in its `http` block; `PORT` is where it is to listen.
    fn nginx(servers: &str) -> Self {
        let (dir, port) = (with_certificate(), free_port());
        let mut text = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr notice;\nevents {}\n\
                        http {\naccess_log off;\n"
            .to_owned();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            text.push_str(&format!("{kind}_temp_path {kind};\n"));
        }
        text.push_str(&format!("{}\n}}\n", replaced(servers, "PORT", &port.to_string())));
        fs::write(dir.path().join("nginx.conf"), text).unwrap();
        let mut command = tool("PORTCULLIS_NGINX");
        command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
        Self::run(command, dir, port, "using the \"epoll\" event method")
    }

    fn caddy(site: &str, gateway: SocketAddr) -> Self {
        let (dir, port) = (with_certificate(), free_port());
        let site = replaced(
            site,
            &format!("{HOST} {{"),
            &format!("https://{HOST}:{port} {{\n bind 127.0.0.1\n tls c.pem k.pem"),
        );
        let site = replaced(&site, "127.0.0.1:8080", &gateway.to_string());
        let text = format!("{{\n admin off\n auto_https disable_redirects\n}}\n{site}");
        fs::write(dir.path().join("Caddyfile"), text).unwrap();
        let mut command = tool("PORTCULLIS_CADDY");
        command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
        Self::run(command, dir, port, "serving initial configuration")
    }

    /// What curl says to `path` of the host, asked through this server over TLS.
    fn curl(&self, path: &str, args: &[&str]) -> Ran {
        let mut command = Command::new("curl");
        command.args(["-sk", "--path-as-is", "--max-time", "10", "--interface", CLIENT]).current_dir(self.dir.path());
        command.args(["--resolve", &format!("{HOST}:{}:127.0.0.1", self.port)]).args(args);
        command.arg(format!("https://{HOST}:{}{path}", self.port));
        run(command, "")
    }
}

/// The page's nginx with its addresses and files replaced.
fn nginx_of_the_page(gateway: SocketAddr) -> String {
    let page = block("behind-a-proxy", "nginx", 0);
    let page = replaced(&page, "listen 443 ssl;", "listen 127.0.0.1:PORT ssl;");
    let page = replaced(&page, "/etc/ssl/apps.example.com.pem", "c.pem");
    let page = replaced(&page, "/etc/ssl/private/apps.example.com.key", "k.pem");
    replaced(&page, "127.0.0.1:8080", &gateway.to_string())
}

fn gateway_of_the_page(app: &Recorder, edit: impl Fn(&str) -> String) -> Gateway {
    let page = block("behind-a-proxy", "toml whole", 0);
    start(&edit(&page), &[(3000, app.address())], &[("alice", "staff")])
}

/// The client in the access line of `path`.
fn client_of(gateway: &Gateway, path: &str) -> String {
    let end = format!("{path}\" ");
    gateway.stdout.wait(path, |line| line.contains(&end).then(|| line.split(' ').nth(1).unwrap().to_owned()))
}

/// An application that changes to a WebSocket's protocol where it is asked to, and then hangs up.
fn application() -> Recorder {
    Recorder::answering(|request: &Recorded| match request.header("upgrade") {
        Some(_) => Answer::Close(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_vec(),
        ),
        None => Answer::Keep(reply("200 OK", "", &request.line())),
    })
}

/// What holds behind every proxy that is set up as its page says.
fn assert_behind(front: &Front, gateway: &Gateway, app: &Recorder) {
    let refused = front.curl("/first", &["-H", "X-Forwarded-User: alice"]).succeeded().stdout;
    assert!(refused.contains("\"login_url\":\"https://apps.example.com/login\""), "{refused}");
    app.assert_untouched("a stranger");
    assert_eq!(client_of(gateway, "/first"), CLIENT);

    let password = format!("password={}", password_of("alice"));
    let form = ["-D", "-", "-c", "jar", "-d", "username=alice", "--data-urlencode", &password];
    // As a browser says it at port 443.
    let origin = format!("Origin: https://{HOST}");
    let signed_in = front.curl("/login", &[&form[..], &["-H", &origin]].concat()).succeeded().stdout.to_lowercase();
    assert!(signed_in.contains("set-cookie: __host-portcullis="), "{signed_in}");
    assert!(signed_in.contains("; secure"), "{signed_in}");

    let lies = ["-b", "jar", "-H", "X-Forwarded-User: root", "-H", "X-Forwarded-For: 203.0.113.66"];
    let more =
        ["-H", "X-Forwarded-Proto: http", "-H", "X-Forwarded-Host: evil.example", "-H", "X_Forwarded_User: root"];
    front.curl("/a%2Fb//c?d=%2F", &[lies, more].concat()).succeeded();
    let seen = app.only("signed in");
    assert_eq!(seen.target(), "/a%2Fb//c?d=%2F", "the path goes on as it came");
    assert_eq!(seen.taken_for("x-forwarded-user"), [("x-forwarded-user".to_owned(), "alice".to_owned())]);
    let chain = seen.header("x-forwarded-for").unwrap();
    assert!(chain.ends_with(&format!("{CLIENT}, 127.0.0.1")), "{chain}");
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    let host = seen.header("x-forwarded-host").unwrap();
    assert_eq!(host.split(':').next(), Some(HOST));
    assert_eq!(client_of(gateway, "/a%2Fb//c"), CLIENT, "and not the one that the client wrote");

    let upgrade = ["-b", "jar", "-i", "--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    let key = ["-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "-H", &origin];
    // curl speaks no WebSocket and complains at its end; the head is what counts.
    let changed = front.curl("/socket", &[&upgrade[..], &key].concat()).stdout;
    assert!(changed.starts_with("HTTP/1.1 101 "), "{changed}");
    assert_eq!(app.only("a WebSocket").header("upgrade").as_deref(), Some("websocket"));
}

#[test]
#[ignore = "needs nginx, which scripts/test brings"]
fn behind_nginx_client_and_scheme_are_known_and_names_are_not_forged() {
    let app = application();
    let gateway = gateway_of_the_page(&app, str::to_owned);
    let front = Front::nginx(&nginx_of_the_page(gateway.address));
    assert_behind(&front, &gateway, &app);
}

#[test]
#[ignore = "needs Caddy, which scripts/test brings"]
fn behind_caddy_client_and_scheme_are_known_and_names_are_not_forged() {
    let app = application();
    let gateway = gateway_of_the_page(&app, str::to_owned);
    let front = Front::caddy(&block("behind-a-proxy", "caddyfile", 0), gateway.address);
    assert_behind(&front, &gateway, &app);
}

#[test]
#[ignore = "needs nginx, which scripts/test brings"]
fn a_careless_nginx_gives_away_addresses_and_no_names() {
    let app = application();
    let gateway = gateway_of_the_page(&app, str::to_owned);
    let careless = format!(
        "server {{ listen 127.0.0.1:PORT ssl; ssl_certificate c.pem; ssl_certificate_key k.pem;\n\
         underscores_in_headers on; ignore_invalid_headers off;\n\
         location / {{ proxy_pass http://{}; }} }}",
        gateway.address
    );
    let front = Front::nginx(&careless);
    let names = ["X-Forwarded-User: alice", "X_Forwarded_User: alice", "X-Forwarded.User: alice", "Remote-User: alice"];
    let flags: Vec<&str> = names.iter().flat_map(|name| ["-H", *name]).collect();
    let refused =
        front.curl("/first", &[&flags[..], &["-H", "X-Forwarded-For: 203.0.113.66"]].concat()).succeeded().stdout;
    assert!(refused.contains("Not authenticated"), "{refused}");
    app.assert_untouched("forged names");
    // What the page warns of.
    let line = gateway.stdout.wait("the line", |line| line.contains("/first\" ").then(|| line.to_owned()));
    assert!(line.contains(" 203.0.113.66 - \"GET 127.0.0.1/first\" 401 "), "{line}");
}

#[test]
#[ignore = "needs nginx, which scripts/test brings"]
fn behind_a_proxy_that_is_not_trusted_everyone_is_the_proxy() {
    let app = application();
    let trusted = "trusted_proxies = [\"127.0.0.1\", \"::1\"]";
    let gateway = gateway_of_the_page(&app, |page| replaced(page, trusted, "trusted_proxies = []"));
    let front = Front::nginx(&nginx_of_the_page(gateway.address));
    front.curl("/first", &[]).succeeded();
    assert_eq!(client_of(&gateway, "/first"), "127.0.0.1");
    let status = |name: &str, password: &str| {
        let fields = [format!("username={name}"), format!("password={password}")];
        let args = ["-o", "/dev/null", "-w", "%{http_code}", "-d", &fields[0], "--data-urlencode", &fields[1]];
        front.curl("/login", &args).succeeded().stdout
    };
    let mut guesses = (0..20).map(|number| status(&format!("nobody{number}"), "not that one"));
    assert!(guesses.any(|status| status == "429"), "the one counter is full");
    assert_eq!(status("alice", &password_of("alice")), "429", "and alice shares it");
}

#[test]
#[ignore = "needs htpasswd, which scripts/test installs"]
fn what_htpasswd_writes_is_imported_or_named() {
    let app = application();
    let page = block("from-nginx-basic-auth", "toml whole", 0);
    let gateway = start(&page, &[(3000, app.address())], &[]);
    let htpasswd = |flags: &str, name: &str, password: &str| {
        let mut command = Command::new("htpasswd");
        command.args([flags, name, password]);
        run(command, "").succeeded().stdout.trim_end().to_owned()
    };
    let file = gateway.dir().join("users.htpasswd");
    let import = || gateway.command(&["user", "import", file.to_str().unwrap(), "--groups", "staff"]);
    let bcrypt = htpasswd("-nbB", "Bob", "correct horse battery");
    assert!(bcrypt.starts_with("Bob:$2y$"), "{bcrypt}");
    for (flags, kind) in
        [("-nb", "an MD5 hash"), ("-nbs", "a SHA-1 hash"), ("-nbd", "crypt hash"), ("-nbp", "plain password")]
    {
        fs::write(&file, format!("{bcrypt}\n{}\n", htpasswd(flags, "carol", "hunter2x"))).unwrap();
        let ran = import();
        assert_eq!(ran.code, Some(1), "{flags}: {ran:?}");
        assert!(ran.stderr.contains("line 2: ") && ran.stderr.contains(kind), "{flags}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2x"), "{}", ran.stderr);
    }
    gateway.sign_in("bob", "correct horse battery").assert_status(403, "nothing of a bad file is taken");
    fs::write(&file, format!("{bcrypt}\n{}\n", htpasswd("-nbB", "dora", "an older pass phrase"))).unwrap();
    assert_eq!(import().succeeded().stdout, "imported 2 of 2 accounts\n");
    gateway.sign_in("dora", "not that one").assert_status(403, "a wrong one");
    gateway.sign_in("dora", "an older pass phrase").assert_status(200, "dora");

    let curl = |password: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", &format!("bob:{password}")]);
        command.arg(format!("http://{}/report", gateway.address));
        run(command, "").succeeded().stdout
    };
    assert_eq!((curl("wrong"), curl("correct horse battery")), ("401".to_owned(), "200".to_owned()));
    let seen = app.only("a script");
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("bob"));
    assert_eq!((seen.header("x-forwarded-groups").as_deref(), seen.header("authorization")), (Some("staff"), None));
}

#[test]
#[ignore = "needs PyYAML and argon2-cffi, which scripts/test installs"]
fn people_of_authelias_file_come_over_with_their_passwords() {
    let (www, app) = (application(), application());
    let apps = [(3000, www.address()), (3001, app.address())];
    let gateway = start(&block("from-authelia", "toml whole", 0), &apps, &[]);
    let python = || Command::new(std::env::var("PORTCULLIS_TEST_PYTHON").expect("scripts/test names the interpreter"));
    let hash = |password: &str| {
        let mut command = python();
        let script = "import argon2, sys; print(argon2.PasswordHasher(3, 65536, 4).hash(sys.argv[1]))";
        command.args(["-c", script, password]);
        run(command, "").succeeded().stdout.trim().to_owned()
    };
    let [john, harry] = [hash("john's old password"), hash("harry's old password")];
    assert!(john.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{john}");
    let users = format!(
        "users:\n  john:\n    disabled: false\n    displayname: 'John O''Doe'\n    password: '{john}'\n    \
         email: 'john@example.com'\n    groups:\n      - 'admins'\n      - 'dev'\n  harry:\n    disabled: true\n    \
         displayname: 'Harry'\n    password: '{harry}'\n    email: 'harry@example.com'\n    groups: []\n"
    );
    fs::write(gateway.dir().join("users_database.yml"), users).unwrap();
    fs::write(gateway.dir().join("users.py"), block("from-authelia", "python", 0)).unwrap();
    let mut command = python();
    command.args(["users.py", "users_database.yml"]).current_dir(gateway.dir());
    let known = run(command, "").succeeded().stdout;
    gateway.command(&["user", "import", gateway.dir().join("users.htpasswd").to_str().unwrap()]).succeeded();
    let program = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", &known]).current_dir(gateway.dir());
    shell.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
    run(shell, "").succeeded();
    gateway.sign_in("john", "not that one").assert_status(403, "a wrong one");
    gateway.sign_in("john", "john's old password").assert_status(200, "john");
    gateway.sign_in("harry", "harry's old password").assert_status(403, "disabled there, disabled here");
    let shown = gateway.command(&["user", "show", "john", "--json"]).succeeded().stdout;
    for known in ["John O'Doe", "john@example.com", "admins", "dev"] {
        assert!(shown.contains(known), "{known}: {shown}");
    }
}
