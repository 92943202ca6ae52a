//! A gateway in this process, asked over a socket; its sessions are made in its store.

mod issuers;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Gateway;
use crate::clock::Clock;
use crate::config;
use crate::identity::UserName;
use crate::secret::{Random, Secret};
use crate::session::refresh::RefreshKey;
use crate::session::{Carrier, NewSession, Sessions};
use crate::store::{NewUser, Store};

struct Bench {
    gateway: Gateway,
    store: Store,
    sessions: Sessions,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// A gateway with alice in front of an application that nobody runs.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = "[server]\nlisten = [\"127.0.0.1:0\"]\npublic_url = \"http://sign-in.example\"\nworkers = 1\n\
                    [log]\naccess = \"off\"\n[upstreams]\napp = \"http://127.0.0.1:1\"\n\
                    [[routes]]\npath = \"/public/**\"\nallow = \"anyone\"\nupstream = \"app\"\n\
                    [[routes]]\npath = \"/.well-known/**\"\nallow = \"anyone\"\nupstream = \"app\"\n\
                    [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
        let loaded = config::load_text(&directory.path().join("gateway.toml"), text.to_owned(), &|_| None);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
        let store = Store::open(&config.store, Clock::system(), Random::system()).unwrap();
        let name = UserName::parse("alice").unwrap();
        let alice = NewUser { name, hash: None, groups: vec![], email: None, full_name: None };
        store.add_user(alice).await.unwrap();
        let refresh = RefreshKey::new(&Secret::new([7; 32]));
        let sessions = Sessions::new(store.clone(), Random::system(), refresh, config.sessions.clone());
        let gateway = Gateway::start(config).await.unwrap();
        Self { gateway, store, sessions, _directory: directory }
    }

    /// A session of alice, as the field that shows its cookie.
    async fn cookie(&self) -> String {
        let user = UserName::parse("alice").unwrap();
        let password_version = self.store.user(&user).await.unwrap().unwrap().password_version;
        let carrier = Carrier::Cookie { key: self.sessions.new_key(), remember: false };
        let client = String::new();
        let new = NewSession { user: &user, password_version, method: "password", client, agent: "", carrier };
        let opened = self.sessions.open(new, Clock::system().now()).await.unwrap().unwrap();
        format!("Cookie: portcullis={}\r\n", opened.key.expose())
    }

    /// The head of the answer.
    async fn ask(&self, request: &str, host: &str, fields: &str) -> String {
        let address: SocketAddr = self.gateway.addresses()[0];
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split("\r\n\r\n").next().unwrap().to_lowercase()
    }

    async fn status(&self, request: &str, host: &str, fields: &str) -> u16 {
        self.ask(request, host, fields).await.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn log_out_ends_every_session_whose_cookie_it_clears() {
    let bench = Bench::new().await;
    let (one, two) = (bench.cookie().await, bench.cookie().await);
    for cookie in [&one, &two] {
        assert_eq!(bench.status("GET /", "h", cookie).await, 502);
    }
    assert_eq!(bench.status("GET /", "h", &format!("{one}{two}")).await, 401);
    assert_eq!(bench.status("POST /logout", "h", &format!("{one}{two}")).await, 204);
    for cookie in [&one, &two] {
        assert_eq!(bench.status("GET /", "h", cookie).await, 401);
    }
}

#[tokio::test]
async fn a_bad_cookie_is_cleared_on_a_public_route() {
    let bench = Bench::new().await;
    let stale = format!("Cookie: portcullis={}\r\n", "A".repeat(43));
    let answer = bench.ask("GET /public", "h", &stale).await;
    assert!(answer.contains("set-cookie: portcullis=; ") && answer.contains("max-age=0"), "{answer}");
    let cookie = bench.cookie().await;
    assert!(!bench.ask("GET /public", "h", &cookie).await.contains("set-cookie"));
}

#[tokio::test]
async fn keys_and_metadata_are_the_gateways_own_on_its_own_host() {
    let bench = Bench::new().await;
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/%6awks.json"] {
        assert_eq!(bench.status(&format!("GET {path}"), "sign-in.example", "").await, 200, "{path}");
        assert_eq!(bench.status(&format!("GET {path}"), "apps.example", "").await, 502, "{path}");
    }
    assert_eq!(bench.status("GET /.well-known/other", "sign-in.example", "").await, 502);
}

/// What a stranger, and someone with a bad credential, gets where a sign-in is needed.
#[tokio::test]
async fn a_page_load_is_sent_to_the_sign_in_page_and_a_program_is_not() {
    let bench = Bench::new().await;
    let (page, navigates) = ("Accept: text/html,*/*;q=0.8\r\n", "Sec-Fetch-Mode: navigate\r\n");
    let stale = format!("Cookie: portcullis={}\r\n", "A".repeat(43));
    let table = [
        ("GET /a?b=c", String::new(), 401, "bearer realm="),
        ("GET /a", "Accept: */*\r\n".to_owned(), 401, "application/problem+json"),
        ("GET /a?b=c", page.to_owned(), 303, "location: /login?next=%2fa%3fb%3dc"),
        ("HEAD /a", navigates.to_owned(), 303, "location: /login?next=%2fa"),
        ("GET /a", format!("Sec-Fetch-Mode: cors\r\n{page}"), 401, "application/problem+json"),
        ("POST /a", page.to_owned(), 401, "text/html"),
        ("GET /a", format!("{page}{stale}"), 303, "max-age=0"),
        ("GET /a", format!("{page}Authorization: Basic eDp5\r\n"), 401, "text/html"),
        ("GET /a", format!("{page}Authorization: Bearer x\r\n"), 401, "error=\"invalid_token\""),
        ("POST /a", stale.clone(), 401, "max-age=0"),
        ("TRACE /a", String::new(), 405, "allow: "),
        ("PUT /login", String::new(), 405, "allow: get, head, post"),
        ("GET /.gateway/userinfo", page.to_owned(), 401, "bearer realm="),
        ("GET /.gateway/other", page.to_owned(), 404, "cache-control: no-store"),
    ];
    for (request, fields, status, holds) in table {
        let answer = bench.ask(request, "h", &fields).await;
        let found = answer.split(' ').nth(1) == Some(&status.to_string()) && answer.contains(holds);
        assert!(found, "{request} {fields:?}: {answer}");
    }
}

/// A program that has a gateway inside meets the tests of its configuration too.
#[tokio::test]
async fn a_configuration_whose_tests_fail_starts_no_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[server]\nlisten = [\"127.0.0.1:0\"]\n[upstreams]\napp = \"http://127.0.0.1:1\"\n\
                [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n\
                [[tests]]\nrequest = \"GET /x\"\nexpect = \"allow\"\n";
    let loaded = config::load_text(&directory.path().join("gateway.toml"), text.to_owned(), &|_| None);
    let refused = Gateway::start(loaded.config.unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("a test of the configuration fails: `GET /x` as `anonymous`"), "{refused}");
    assert!(!directory.path().join("portcullis.db").exists(), "nothing was made");
}

#[tokio::test]
async fn a_reload_says_what_changes_before_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let route = |name: &str| {
        format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nallow = \"anyone\"\nupstream = \"app\"\n")
    };
    let write = |more: &str, routes: &[&str]| {
        let routes: String = routes.iter().map(|name| route(name)).collect();
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n[log]\naccess = \"off\"\n{more}\n\
             [upstreams]\napp = \"http://127.0.0.1:1\"\n{routes}"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("", &["a", "b", "c"]);
    let gateway = Gateway::start(config::load(&file, &|_| None).config.unwrap()).await.unwrap();
    let reload = async || gateway.reload().await.unwrap();
    assert_eq!(reload().await.changes.to_string(), "nothing has changed\n");
    write("[login]\ntitle = \"Other\"", &["c", "a", "new"]);
    let reloaded = reload().await;
    assert!(reloaded.is_applied && reloaded.findings.is_empty());
    assert_eq!(reloaded.changes.to_string(), "routes: added new; removed b; changed c\nkeys: login.title\n");
    write("[login]\ntitel = \"Other\"", &["c"]);
    let reloaded = reload().await;
    assert!(!reloaded.is_applied && reloaded.changes.is_empty() && reloaded.findings.errors() == 1);
    write("[login]\ntitle = \"Other\"", &["c", "a", "new"]);
    assert_eq!(reload().await.changes.to_string(), "nothing has changed\n", "the refused one was never in force");
    gateway.drain();
    assert!(gateway.reload().await.is_none(), "what ends does not reload");
    gateway.join().await;
}
