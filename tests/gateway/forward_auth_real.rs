//! The examples of `examples/forward-auth` with the real programs: nginx, Caddy and HAProxy of Debian, Traefik and Envoy from
//! PyPI. Each runs its very files, only ports are others. `scripts/test` brings the programs, and says where they are.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::howto::replaced;
use crate::common::lines::Lines;
use crate::common::recorder::{folded, reply};
use crate::common::setup::run;
use crate::common::{Answer, Client, Gateway, Recorded, Recorder, Request, command, get, password_of, post, until};

/// A proxy that asks the gateway, the gateway that it asks, and the application that it serves.
struct Asking {
    child: Child,
    errors: Lines,
    address: SocketAddr,
    gateway: Gateway,
    app: Recorder,
    _dir: TempDir,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the proxy wrote:\n{}", self.errors.text());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How each program is run beside its files.
fn program(name: &str) -> Command {
    let variable = format!("PORTCULLIS_{}", name.to_uppercase());
    let mut command = Command::new(std::env::var(&variable).unwrap_or_else(|_| panic!("scripts/test sets {variable}")));
    match name {
        "nginx" => command.args(["-p", ".", "-c", "nginx.conf"]),
        "caddy" => command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]),
        "haproxy" => command.args(["-db", "-f", "haproxy.cfg"]),
        "traefik" => command.arg("--configFile=traefik.yml"),
        _ => command.args(["-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1"]),
    };
    command
}

/// An application that changes to a WebSocket's protocol where it is asked to.
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

/// Neither takes port 0, so the system is asked for one that is free.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Asking {
    fn start(name: &str) -> Self {
        Self::edited(name, |_, text| text)
    }

    /// The example with each of its files as `edit` has it, by name.
    fn edited(name: &str, edit: impl Fn(&str, String) -> String) -> Self {
        let asking = Self::unready(name, edit);
        // Some listen before they have read their routes.
        until("its routes", || (asking.send(&get("/public/ready")).0 == 200).then_some(()));
        asking.app.take();
        asking
    }

    /// The same, of which nothing is known but that it listens.
    fn unready(name: &str, edit: impl Fn(&str, String) -> String) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/forward-auth").join(name);
        let (app, port) = (application(), free_port().to_string());
        let app_port = app.address().port().to_string();
        let text = fs::read_to_string(example.join("gateway.toml")).unwrap();
        let text = replaced(&text, "\"127.0.0.1:8080\"", "\"127.0.0.1:0\"");
        let text = replaced(&replaced(&text, ":8000", &format!(":{port}")), ":3000", &format!(":{app_port}"));
        let gate = tempfile::Builder::new().prefix("forward-auth").tempdir().unwrap();
        let text = format!("{}\n[log]\nformat = \"json\"\n", replaced(&text, "[server]\n", "[server]\nworkers = 1\n"));
        fs::write(gate.path().join("gateway.toml"), text).unwrap();
        for (user, groups) in [("alice", "admin,staff"), ("bob", "staff")] {
            let args = ["user", "add", user, "--password-stdin", "--groups", groups, "--email", "someone@example.com"];
            command(gate.path(), &args, &format!("{}\n", password_of(user))).succeeded();
        }
        let gateway = Gateway::serve(gate);

        let dir = tempfile::Builder::new().prefix("asking").tempdir().unwrap();
        let mut copied = 0;
        for entry in fs::read_dir(&example).unwrap().map(|entry| entry.unwrap().path()) {
            let file = entry.file_name().unwrap().to_str().unwrap();
            if matches!(file, "gateway.toml" | "README.md") {
                continue;
            }
            let text = edit(file, fs::read_to_string(&entry).unwrap());
            let text = text.replace("8080", &gateway.address.port().to_string()).replace("3000", &app_port);
            fs::write(dir.path().join(file), text.replace("8000", &port)).unwrap();
            copied += 1;
        }
        assert!(copied > 0, "{name} has files");
        let mut command = program(name);
        command.current_dir(dir.path()).env("HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
        command.env("XDG_DATA_HOME", dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the proxy starts");
        let errors = Lines::of(child.stderr.take().unwrap());
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let asking = Self { child, errors, address, gateway, app, _dir: dir };
        until("the proxy", || std::net::TcpStream::connect(address).ok());
        asking
    }

    /// Status and fields of the answer to `request`.
    #[track_caller]
    fn send(&self, request: &Request) -> (u16, Vec<(String, String)>) {
        let answer = Client::of(self.address).send(request);
        (answer.status, answer.headers)
    }

    #[track_caller]
    fn status(&self, request: &Request) -> u16 {
        self.send(request).0
    }

    /// A cookie by the sign-in page, as a browser at the proxy gets it.
    #[track_caller]
    fn cookie(&self, name: &str) -> String {
        let form = post("/login").form(&[("username", name), ("password", &password_of(name)), ("next", "/a?b=c")]);
        let (status, fields) = self.send(&form.header("Origin", &format!("http://{}", self.address)));
        assert_eq!((status, field(&fields, "location").as_deref()), (303, Some("/a?b=c")), "{fields:?}");
        let cookie = field(&fields, "set-cookie").expect("a cookie");
        cookie.split(';').next().unwrap().to_owned()
    }
}

fn field(fields: &[(String, String)], name: &str) -> Option<String> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
}

/// Everything that a client could say in the place of the proxy, or of the gateway.
fn lying(request: Request) -> Request {
    let lies = [
        ("X-Original-URI", "/public/x"),
        ("X-Original-Method", "GET"),
        ("X-Original-Host", "evil.example"),
        ("X-Forwarded-Uri", "/public/x"),
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-User", "root"),
        ("X-Forwarded-Groups", "root"),
        ("X-Forwarded-Email", "root"),
        ("X-Forwarded-Preferred-Username", "root"),
    ];
    lies.into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// What the application is told under every spelling of `name`, empty values aside.
fn told(seen: &Recorded, name: &str) -> Vec<String> {
    let fields = seen.headers().into_iter().filter(|(known, _)| folded(known).ends_with(&folded(name)));
    fields.map(|(_, value)| value).filter(|value| !value.is_empty()).collect()
}

/// Whoever is not signed in, and what of them the application sees.
fn assert_strangers(proxy: &Asking) {
    assert_eq!(proxy.status(&lying(get("/a"))), 401, "a script");
    let (status, fields) = proxy.send(&lying(get("/a?b=c")).page_load());
    assert_eq!((status, field(&fields, "location").as_deref()), (303, Some("/login?next=%2Fa%3Fb%3Dc")), "{fields:?}");
    for path in ["/.gateway/check", "/.gateway/check/public/x"] {
        assert_eq!(proxy.status(&lying(get(path))), 404, "{path} is closed to clients");
    }
    proxy.app.assert_untouched("strangers");
    assert_eq!(proxy.status(&lying(get("/public/x"))), 200);
    let seen = proxy.app.only("a public page");
    for name in ["user", "groups", "email", "preferred-username"] {
        let name = format!("x-forwarded-{name}");
        assert_eq!(told(&seen, &name), Vec::<String>::new(), "{name}");
    }
    for name in ["X_Forwarded_User", "X.Forwarded.User", "X-Forwarded_Groups", "HTTP_X_FORWARDED_USER"] {
        let status = proxy.status(&get("/public/x").header(name, "root"));
        let seen = proxy.app.take();
        let names: Vec<_> = seen.iter().flat_map(|seen| told(seen, name.trim_start_matches("HTTP_"))).collect();
        assert!(names.is_empty() && (status == 200) == (seen.len() == 1), "{name}: {status} {names:?}");
    }
}

/// Who is signed in by the page behind the proxy, and what the application is told.
fn assert_signed_in(proxy: &Asking) -> String {
    let cookie = proxy.cookie("alice");
    let request = lying(get("/a%20b?b=%2F")).cookie(&format!("one=1; {cookie}; two=2"));
    assert_eq!(proxy.status(&request), 200);
    let seen = proxy.app.only("alice");
    assert_eq!(seen.target(), "/a%20b?b=%2F");
    assert_eq!(told(&seen, "x-forwarded-user"), ["alice"]);
    assert_eq!(told(&seen, "x-forwarded-groups"), ["admin,staff"]);
    assert_eq!(told(&seen, "x-forwarded-email"), ["someone@example.com"]);
    assert_eq!(told(&seen, "x-forwarded-preferred-username"), Vec::<String>::new());
    let cookies = seen.all("cookie").join("; ");
    assert!(cookies.contains("one=1") && cookies.contains("two=2") && !cookies.contains("portcullis"), "{cookies}");

    let own = format!("http://{}", proxy.address);
    let form = post("/admin/x").cookie(&cookie).header("Origin", &own).body("text/plain", "the whole body");
    assert_eq!(proxy.status(&form), 200);
    assert_eq!(proxy.app.only("a form").body, b"the whole body");
    let evil = lying(post("/a").cookie(&cookie).header("Origin", "https://evil.example").body("text/plain", "x"));
    assert_eq!(proxy.status(&evil), 403, "a form of another site");

    let token = proxy.gateway.token("alice");
    assert_eq!(proxy.status(&get("/admin/x").bearer(&token)), 200);
    let seen = proxy.app.only("a token");
    assert_eq!((told(&seen, "x-forwarded-user"), told(&seen, "authorization")), (vec!["alice".to_owned()], vec![]));
    cookie
}

/// Whom the rules refuse, whatever is said and however the path is written.
fn assert_refused(proxy: &Asking) {
    let bob = proxy.cookie("bob");
    let tricks = [
        "/admin/x",
        "//admin/x",
        "/public/..%2fadmin",
        "/public/%2e%2e/admin/x",
        "/public/%252e%252e/admin",
        "/public/..;/admin",
        "/ADMIN/x",
        "/admin;x=y/z",
        "/%61dmin/x",
        "/public%2f..%2fadmin",
    ];
    for path in tricks {
        for request in [get(path).cookie(&bob), lying(get(path)).cookie(&bob)] {
            let status = proxy.status(&request);
            assert!(matches!(status, 400 | 403 | 404), "{path}: {status}");
        }
    }
    assert_eq!(proxy.status(&get("/admin/x").cookie(&bob)), 403);
    proxy.app.assert_untouched("bob");
    assert_eq!(proxy.status(&get("/a").cookie(&bob)), 200);
    assert_eq!(told(&proxy.app.only("bob"), "x-forwarded-user"), ["bob"]);
}

/// A WebSocket opens, and not for another site.
fn assert_sockets(proxy: &Asking, cookie: &str) {
    let open = |origin: &str| {
        let mut command = Command::new("curl");
        command.args(["-si", "--http1.1", "--max-time", "10", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"]);
        command.args(["-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]);
        command.args(["-H", &format!("Cookie: {cookie}"), "-H", &format!("Origin: {origin}")]);
        command.arg(format!("http://{}/socket", proxy.address));
        run(command, "").stdout
    };
    let refused = open("https://evil.example");
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    proxy.app.assert_untouched("a WebSocket of another site");
    let changed = open(&format!("http://{}", proxy.address));
    assert!(changed.starts_with("HTTP/1.1 101 "), "{changed}");
    assert_eq!(told(&proxy.app.only("a WebSocket"), "x-forwarded-user"), ["alice"]);
}

/// Log, client address and sign-out are those of a proxied request.
fn assert_as_proxied(proxy: &Asking, cookie: &str) {
    let mut command = Command::new("curl");
    command.args(["-s", "-o", "/dev/null", "--max-time", "10", "--interface", "127.0.0.2"]);
    command.args(["-H", &format!("Cookie: {cookie}"), "-H", "X-Forwarded-For: 203.0.113.66", "-X", "PATCH"]);
    command.args(["-H", &format!("Origin: http://{}", proxy.address)]);
    command.arg(format!("http://{}/admin/logged?secret", proxy.address));
    run(command, "").succeeded();
    proxy.app.only("curl");
    let line = proxy.gateway.access_line("the line", |line| line["path"] == "/admin/logged");
    let said = ["client", "method", "host", "user", "route", "decision"].map(|key| line[key].clone());
    assert_eq!(said, ["127.0.0.2", "PATCH", "127.0.0.1", "alice", "admin", "permit"].map(Value::from));

    let out = post("/logout").cookie(cookie).header("Origin", &format!("http://{}", proxy.address));
    let (status, fields) = proxy.send(&out);
    assert_eq!(status, 204, "{fields:?}");
    let (status, fields) = proxy.send(&get("/a").cookie(cookie));
    assert_eq!(status, 401, "after signing out");
    let cleared = field(&fields, "set-cookie").unwrap_or_default();
    assert!(cleared.starts_with("portcullis=;"), "{fields:?}");
    proxy.app.assert_untouched("after signing out");
}

fn assert_example(name: &str) {
    let proxy = Asking::start(name);
    assert_strangers(&proxy);
    let cookie = assert_signed_in(&proxy);
    assert_refused(&proxy);
    assert_sockets(&proxy, &cookie);
    assert_as_proxied(&proxy, &cookie);
}

#[test]
#[ignore = "needs nginx, which scripts/test brings"]
fn nginx_asks_with_auth_request() {
    assert_example("nginx");
}

#[test]
#[ignore = "needs nginx, which scripts/test brings"]
fn a_careless_nginx_that_takes_every_spelling_gives_nothing_away() {
    let proxy = Asking::edited("nginx", |file, text| match file {
        "nginx.conf" => {
            let careless = "http {\n    underscores_in_headers on;\n    ignore_invalid_headers off;\n";
            replaced(&text, "http {\n", careless)
        }
        _ => text,
    });
    assert_strangers(&proxy);
    let bob = proxy.cookie("bob");
    let spellings = ["X_Original_URI", "X.Original.URI", "X-Original_URI", "X_Original_Method", "X_Original_Host"];
    for name in spellings {
        let value = match name.to_lowercase() {
            method if method.ends_with("method") => "GET",
            host if host.ends_with("host") => "evil.example",
            _ => "/public/x",
        };
        for method in ["GET", "POST"] {
            let request = Request::new(method, "/admin/x").cookie(&bob).header(name, value);
            let status = proxy.status(&request.header("Origin", &format!("http://{}", proxy.address)));
            assert_eq!(status, 403, "{method} {name}");
        }
    }
    proxy.app.assert_untouched("bob");
    let as_root = get("/a").cookie(&bob).header("X_Forwarded_User", "root");
    assert_eq!(proxy.status(&as_root), 403, "nginx would pass it on beside the true one");
    proxy.app.assert_untouched("a second name");
}

#[test]
#[ignore = "needs nginx, which scripts/test brings"]
fn an_nginx_that_does_not_say_everything_lets_nobody_in() {
    for name in ["X-Original-Method", "X-Original-Host", "X-Original-URI"] {
        let proxy = Asking::unready("nginx", |file, text| match file {
            "nginx.conf" => text.replace(&format!("proxy_set_header {name}"), "# "),
            _ => text,
        });
        let cookie = proxy.cookie("alice");
        for path in ["/public/x", "/a"] {
            assert_eq!(proxy.status(&get(path).cookie(&cookie)), 500, "{name}: {path}");
        }
        proxy.app.assert_untouched(name);
    }
}

#[test]
#[ignore = "needs Caddy, which scripts/test brings"]
fn caddy_asks_with_forward_auth() {
    assert_example("caddy");
}

#[test]
#[ignore = "needs HAProxy, which scripts/test brings"]
fn haproxy_asks_from_lua() {
    assert_example("haproxy");
}

#[test]
#[ignore = "needs Traefik, which scripts/test brings"]
fn traefik_asks_with_forward_auth() {
    assert_example("traefik");
}

#[test]
#[ignore = "needs Envoy, which scripts/test brings"]
fn envoy_asks_with_ext_authz() {
    assert_example("envoy");
}
