//! `portcullis config show`: what it prints comes to the same configuration, and has no secret in it.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis::config::{Changes, Config, HIDDEN, Show, load, load_text};

const SECRET: &str = "kT8!vN2#qR5@wX9$zB4%yC7^uD1&eF6*";

fn environment(name: &str) -> Option<String> {
    (name == "GOOD_SECRET").then(|| SECRET.to_owned())
}

fn loaded(path: &Path) -> Config {
    let loaded = load(path, &environment);
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)))
}

/// The configuration of `text` in another directory, so that only what is written from the root is found again.
fn read_back(text: &str) -> Config {
    let loaded = load_text(Path::new("/elsewhere/shown.toml"), text.to_owned(), &|_| None);
    loaded.config.unwrap_or_else(|| panic!("{}\n{text}", loaded.diagnostics.render(false)))
}

/// What is shown of `config`, read again with its secrets put back, differs in nothing.
fn assert_same(config: &Config, what: &Path) {
    let shown = Show::of(config).toml();
    let again = read_back(&shown.replace(HIDDEN, SECRET));
    let changes = Changes::between(config, &again);
    assert!(changes.is_empty(), "{}: {changes}\n{shown}", what.display());
    assert_eq!(config.tests.len(), again.tests.len(), "{}", what.display());
    for (one, other) in config.tests.iter().zip(&again.tests) {
        assert_eq!(
            (&one.request, &one.person, one.from, one.expect),
            (&other.request, &other.person, other.from, other.expect)
        );
    }
    assert_eq!(Show::of(&again).toml(), shown, "shown again it is the same");
}

#[test]
fn what_is_shown_of_every_good_file_comes_to_the_same() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/good");
    let files: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = files.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    assert!(files.len() >= 9, "{files:?}");
    for file in &files {
        assert_same(&loaded(file), file);
    }
}

#[test]
fn every_key_with_another_value_than_its_default_comes_back() {
    let file = Path::new("/etc/gate/gateway.toml");
    let directory = tempfile::tempdir().unwrap();
    let jwks = directory.path().join("jwks.json");
    fs::write(&jwks, r#"{ "keys": [{ "kty": "OKP" }] }"#).unwrap();
    let loaded = load_text(file, OTHER.replace("JWKS", &jwks.display().to_string()), &environment);
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
    assert_same(&config, file);
    let shown = Show::of(&config);
    for line in [
        "url           = \"sqlite:/etc/gate/data/users.db\"",
        "listen  = \"unix:/etc/gate/admin.sock\"",
        "control = \"/etc/gate/data/portcullis.sock\"",
        "access = \"/etc/gate/./access.log\"",
        "body_timeout   = \"90s\"",
        "body_bytes     = \"1500B\"",
        "idle     = \"30m\"",
        "cookie   = \"gate\"",
        "servers  = [\"http://[::1]:3000\"]",
        "servers  = [\"http://10.0.0.1:1\", { url = \"http://10.0.0.2:1\", weight = 3 }]",
        "hash     = \"cookie:SID\"",
        "health   = { path = \"/up\", interval = \"1s\", timeout = \"2s\", healthy = 2, unhealthy = 3, status = [\"200-299\", \"401\"], faults = 0, out = \"10s\", out_most = \"5m\", slow_start = \"0s\" }",
        "retries         = { attempts = 2, on = [\"503\", \"reset\"] }",
        "identity        = { user = \"x-api-user\", email = false }",
        "timeouts        = { connect = \"250ms\", response = \"5m\", between = \"1m\", idle = \"90s\" }",
        "# hosts: every host",
    ] {
        assert!(shown.toml().lines().any(|shown| shown == line), "{line}\n{}", shown.toml());
    }
    let document = shown.json();
    assert_eq!(document["server"]["limits"]["body_bytes"], "1500B");
    assert_eq!(document["routes"][1]["hosts"], serde_json::Value::Null);
    assert_eq!(document["routes"][0]["allow"][0]["claims"]["a.b"], serde_json::json!([1, true, "x"]));
    assert_eq!(document["trace"]["sample"], 1.0);
}

#[test]
fn sections_and_keys_stand_in_the_order_of_the_documentation() {
    let documentation = include_str!("../docs/configuration.md");
    let (_, example) = documentation.split_once("## Everything at once").unwrap();
    let example = example.split("```").nth(1).unwrap().trim_start_matches("toml whole");
    let keys = |text: &str| -> Vec<String> {
        let key = |line: &str| {
            let line = line.trim_start_matches("# ");
            let end = line.find([' ', ':'])?;
            Some(line[..end].to_owned())
        };
        text.lines().filter_map(|line| if line.starts_with('[') { Some(header(line)) } else { key(line) }).collect()
    };
    let shown = Show::of(&read_back(example)).toml();
    let mut there = keys(&shown).into_iter();
    let wanted = keys(example);
    assert!(wanted.len() > 50, "{wanted:?}");
    for key in wanted.iter().filter(|key| *key != "app") {
        assert!(there.any(|shown| shown == *key), "{key} is not where it stands in the documentation\n{shown}");
    }
}

fn header(line: &str) -> String {
    line.split('#').next().unwrap_or_default().trim().to_owned()
}

#[test]
fn no_secret_is_shown_wherever_it_came_from() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("from-file", "canary-file-8&2!jQ0zX4#mP7@wL9$vB5^t");
    let key = "-----BEGIN PRIVATE KEY-----\\ncanaryPEMcanaryPEM\\n-----END PRIVATE KEY-----";
    let env = |name: &str| match name {
        "CANARY" => Some("canary-env-8&2!jQ0zX4#mP7@wL9$vB5^tK".to_owned()),
        _ => None,
    };
    let secrets = "secret = [{ env = \"CANARY\" }, { file = \"from-file\" }, \"canary-plain-8&2!jQ0zX4#mP7@wL9$vB5\"]";
    let issuer =
        format!("[[issuers]]\nname = \"batch\"\nissuer = \"batch\"\naudience = [\"apps\"]\n{secrets}\n{SMALLEST}");
    for (section, hidden) in [
        (format!("[tokens]\nalgorithm = \"HS256\"\n{secrets}\n{SMALLEST}"), 3),
        (format!("[tokens]\nkey = \"{key}\"\n{SMALLEST}"), 1),
        (format!("[tokens]\nkey = [\"{key}\", {{ env = \"KEY\", default = \"{key}\" }}]\n{SMALLEST}"), 2),
        (issuer, 3),
        (format!("{SMALLEST}{HEADERS}"), 3),
    ] {
        let loaded = load_text(&directory.path().join("gateway.toml"), section.clone(), &env);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
        let show = Show::of(&config);
        for said in [show.toml(), show.json().to_string(), format!("{show:?}")] {
            assert!(!said.contains("canary"), "{said}");
            assert_eq!(said.matches(HIDDEN).count(), hidden, "{said}");
        }
        let copied = load_text(Path::new("/etc/gate/gateway.toml"), show.toml(), &env);
        assert!(copied.config.is_none(), "a placeholder is never taken for a secret: {}", show.toml());
    }
}

const SMALLEST: &str = "[upstreams]\napp = \"http://127.0.0.1:3000\"\n[[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";

const HEADERS: &str = r#"
[routes.request_headers]
set = { Authorization = { env = "CANARY" }, "X-Upstream-Key" = { file = "from-file" } }
add = { "X-Other-Key" = { env = "CANARY" } }
"#;

const OTHER: &str = r#"
[server]
listen = ["127.0.0.1:0", "[::1]:8443"]
public_url = "https://apps.example.com:8443"
trusted_proxies = ["10.0.0.0/8", "fd00::1"]
trusted_headers = ["Forwarded"]
workers = 3

[server.limits]
body_timeout = "1m30s"
drain_delay = "1500ms"
header_bytes = "1MiB"
headers = 7
body_bytes = "1500B"
connections = 12

[admin]
listen = "unix:admin.sock"

[log]
level = "info,portcullis::token=debug"
format = "json"
access = "./access.log"

[trace]
otlp = "https://[::1]:4318"
sample = 1
service = "a \"b\" \\ ü"

[store]
url = "sqlite:data/users.db"
max_staleness = "1ms"

[tokens]
issuer = "me"
audience = "apps"
algorithm = "EdDSA"
lifetime = "10m"
leeway = "5m"
max_lifetime = "24h"

[sessions]
lifetime = "30m"
remember = "45d"
cookie = "gate"
domain = "example.com"

[[issuers]]
name = "file"
issuer = "urn:file"
audience = ["a", "b"]
jwks = { file = "JWKS" }
accounts = "shared"
group_prefix = "file:"
algorithms = ["EdDSA"]

[login]
path = "/in"
logout_path = "/out"
title = "T\u0007"
failure_status = 401
failure_detail = "no"

[identity]
user = "X-U"
groups = false
assertion = "X-Assertion"
claims = { "X-Tenant" = "tenant.name" }
strip = ["X-S"]

[upstreams."a b"]
servers = ["http://[::1]:3000"]
timeouts = { connect = "250ms", between = "1m" }
limits = { connections = 1, idle = 0, pending = 0 }

[upstreams.several]
servers = ["http://10.0.0.1:1", { url = "http://10.0.0.2:1", weight = 3 }]
balance = "hash"
hash = "cookie:SID"
health = { path = "/up", interval = "1s", status = ["200-299", "401"], faults = 0, slow_start = "0s" }
timeouts = { total = "1m" }

[[routes]]
path = "/a/**"
hosts = ["*.example.com"]
methods = ["GET", "PUT"]
allow = [{ claims = { "a.b" = [1, true, "x"], c = "d" }, users = ["Zoë"], scopes = ["s", "t"] }, { anyone = true, from = ["192.0.2.0/24"] }, { signed_in_within = "1h30m", methods_of_sign_in = ["password"] }]
strip_prefix = "/a/"
accept = ["bearer"]
issuers = ["file", "self"]
unauthenticated = "401"
forward_token = true
readings = "as-written"
origins = ["https://other.example"]
body_bytes = "unlimited"
timeouts = { response = "5m" }
retries = { attempts = 2, on = ["503", "reset"] }
observe = true
fall_through = true
identity = { user = "X-API-User", email = false }
upstream = "a b"

[[routes]]
name = "rest"
path = "/**"
allow = "nobody"
unauthenticated = "login"
body_bytes = "2GB"
identity = { user = "X-API-User", email = false }
upstream = "a b"

[[tests]]
request = { env = "UNSET", default = "GET /b" }
as = { user = "z", claims = { n = 1.5, o = { "x.y" = ["z"] }, i = inf }, groups = ["g"], method_of_sign_in = "basic", signed_in_ago = "2h", from = "10.0.0.1" }
expect = { allow = false, route = "rest" }
"#;
