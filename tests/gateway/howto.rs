//! The pages of `docs/howto` as an operator follows them: the configuration of each runs, only its addresses are others,
//! and answers as the page says. What needs nginx, Caddy or Python is in `howto_real.rs`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::common::issuer::{IssuerKey, with};
use crate::common::recorder::reply;
use crate::common::setup::run;
use crate::common::{Answer, Client, Gateway, Recorded, Recorder, command, get, password_of, post, token};

/// The block number `nth` with these words behind its backticks on a page.
pub(crate) fn block(page: &str, info: &str, nth: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/howto/{page}.md"));
    let text = std::fs::read_to_string(path).unwrap();
    let start = format!("\n```{info}\n");
    let found = text.split(&start).nth(nth + 1).unwrap_or_else(|| panic!("{page} has no block {nth} of {info}"));
    let (block, _) = found.split_once("\n```\n").expect("the block is closed");
    format!("{block}\n")
}

/// `text` with one thing in place of another, which must be there.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "no {old} in\n{text}");
    text.replace(old, new)
}

/// The gateway of a page, on a free port and in front of `apps`, by the ports on the page; with these users and groups.
pub(crate) fn start(configuration: &str, apps: &[(u16, SocketAddr)], users: &[(&str, &str)]) -> Gateway {
    let mut text = configuration.to_owned();
    for (port, address) in apps {
        text = replaced(&text, &format!("\"http://127.0.0.1:{port}\""), &format!("\"http://{address}\""));
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("listen ") && *line != "[server]").collect();
    // What a page says of `[server]` stands first on it.
    let dir = tempfile::Builder::new().prefix("howto").tempdir().unwrap();
    let text = format!("[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n{}\n", lines.join("\n"));
    std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
    for (name, groups) in users {
        let mut args = vec!["user", "add", name, "--password-stdin"];
        if !groups.is_empty() {
            args.extend(["--groups", groups]);
        }
        command(dir.path(), &args, &format!("{}\n", password_of(name))).succeeded();
    }
    Gateway::serve(dir)
}

/// An application that says whom it was told of in `header`.
fn greeting(name: &'static str, header: &'static str) -> Recorder {
    Recorder::answering(move |request: &Recorded| {
        let user = request.header(header).unwrap_or_else(|| "stranger".to_owned());
        Answer::Keep(reply("200 OK", "", &format!("{name}: Hello, {user}")))
    })
}

/// The configuration of a page with its `[[tests]]`, without which the gateway does not start.
fn tested(page: &str) -> String {
    format!("{}\n{}", block(page, "toml whole", 0), block(page, "toml", 0))
}

/// A cookie that the sign-in page of `host` gives.
fn cookie(gateway: &Gateway, host: &str, name: &str) -> String {
    let form = post("/login").host(host).form(&[("username", name), ("password", &password_of(name))]);
    let answer = gateway.send(&form);
    let cookie = answer.assert_status(303, "signing in").header("set-cookie").expect("a cookie");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn one_path_is_protected_under_every_spelling_and_the_rest_is_open() {
    let app = greeting("app", "x-forwarded-user");
    let gateway = start(&tested("protect-one-path"), &[(3000, app.address())], &[("alice", "admin"), ("bob", "staff")]);
    for target in ["/", "/administrators", "/a//b"] {
        let answer = gateway.send(&get(target).header("X-Forwarded-User", "alice"));
        assert_eq!(answer.assert_status(200, target).text(), "app: Hello, stranger");
        app.only(target);
    }
    let refused = [
        ("/admin/users", 401),
        ("/admin", 401),
        ("//admin/users", 401),
        ("/ADMIN/users", 401),
        ("/admin;x=y/users", 401),
        ("/%61dmin/", 401),
        ("/public/..%2Fadmin", 400),
    ];
    for (target, status) in refused {
        gateway.send(&get(target)).assert_status(status, target);
        gateway.send(&post(target).header("X-Forwarded-User", "alice")).assert_status(status, target);
    }
    app.assert_untouched("what is refused");
    let page_load = gateway.send(&get("/admin/users").header("Accept", "text/html"));
    assert_eq!(page_load.assert_status(303, "a page load").header("location"), Some("/login?next=%2Fadmin%2Fusers"));
    gateway.send(&get("/admin/users").bearer(&gateway.token("bob"))).assert_status(403, "bob");
    gateway.stdout.wait("why", |line| line.contains("(the user is in none of `groups`)").then_some(()));
    app.assert_untouched("bob");
    let answer = gateway.send(&get("/admin/users").bearer(&gateway.token("alice")));
    assert_eq!(answer.assert_status(200, "alice").text(), "app: Hello, alice");
}

#[test]
fn two_hosts_share_one_sign_in_and_not_their_rules() {
    let (wiki, files) = (greeting("wiki", "x-forwarded-user"), greeting("files", "x-forwarded-user"));
    let apps = [(3000, wiki.address()), (3001, files.address())];
    let gateway = start(&block("two-apps", "toml whole", 0), &apps, &[("alice", "staff"), ("bob", "guests")]);
    let alice = cookie(&gateway, "wiki.example.com", "alice");
    assert!(alice.starts_with("__Secure-portcullis="), "{alice}");
    let bob = cookie(&gateway, "files.example.com", "bob");
    let ask = |host: &str, cookie: &str| gateway.send(&get("/").host(host).cookie(cookie));
    for (host, cookie, status, text) in [
        ("wiki.example.com", &alice, 200, "wiki: Hello, alice"),
        ("files.example.com", &alice, 200, "files: Hello, alice"),
        ("wiki.example.com", &bob, 200, "wiki: Hello, bob"),
        ("files.example.com", &bob, 403, "Not allowed"),
        ("mail.example.com", &alice, 404, "Not found"),
        ("127.0.0.1:8080", &alice, 404, "Not found"),
    ] {
        let answer = ask(host, cookie);
        assert!(answer.assert_status(status, host).text().contains(text), "{host}: {}", answer.text());
    }
    gateway.send(&post("/logout").host("files.example.com").cookie(&alice)).assert_status(204, "signing out");
    ask("wiki.example.com", &alice).assert_status(401, "after a sign-out on the other host");
}

/// Takes a request as Grafana with `auth.proxy` does: the name in the one header is believed, else its API is 401, its
/// pages lead to its own sign-in page, and a token of its own counts.
fn grafana(request: &Recorded) -> Answer {
    let target = request.target();
    let person = request.header("X-WEBAUTH-USER").filter(|name| !name.is_empty());
    let program = request.header("authorization").filter(|value| value == "Bearer glsa_token").map(|_| "a program");
    let open = matches!(target.as_str(), "/api/health" | "/metrics");
    let Some(login) = person.or(program.map(str::to_owned)).or(open.then(|| "nobody".to_owned())) else {
        let refusal = if target.starts_with("/api/") {
            reply("401 Unauthorized", "", r#"{"message":"Unauthorized"}"#)
        } else {
            reply("302 Found", "Location: /login\r\n", "")
        };
        return Answer::Keep(refusal);
    };
    let groups = request.header("X-WEBAUTH-GROUPS").unwrap_or_default();
    let teams: Vec<&str> = groups.split(',').filter(|team| !team.is_empty()).collect();
    // Header values are bytes, and Go takes them for UTF-8.
    let utf8 = |header: &str| {
        let bytes =
            request.header(header).unwrap_or_default().chars().map(|byte| u8::try_from(byte).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    };
    let [name, email] = ["X-WEBAUTH-NAME", "X-WEBAUTH-EMAIL"].map(utf8);
    let known = json!({ "login": login, "name": name, "email": email, "teams": teams });
    Answer::Keep(reply("200 OK", "Content-Type: application/json\r\n", &known.to_string()))
}

#[test]
fn grafana_is_told_who_is_there_and_nobody_else_can_tell_it() {
    let app = Recorder::answering(grafana);
    // The stand-in believes whoever reaches it, as Grafana does.
    let direct = Client::of(app.address()).send(&get("/api/user").header("X-WEBAUTH-USER", "admin"));
    assert_eq!(direct.json()["login"], "admin");
    app.take();
    let ini = block("front-grafana", "ini", 0);
    for line in [
        "[auth.proxy]",
        "enabled = true",
        "header_name = X-WEBAUTH-USER",
        "headers = Name:X-WEBAUTH-NAME Email:X-WEBAUTH-EMAIL Groups:X-WEBAUTH-GROUPS",
    ] {
        assert!(ini.lines().any(|found| found == line), "{line}");
    }
    let page = block("front-grafana", "toml whole", 0);
    let gateway = start(&page, &[(3000, app.address())], &[("admin", "admin"), ("alice", "staff,ops")]);
    gateway.command(&["user", "set", "alice", "--email", "alice@example.com", "--name", "Alice Exämple"]).succeeded();
    for (target, status) in [("/api/user", 401), ("/metrics", 401), ("/", 401)] {
        let forged = get(target).header("X-WEBAUTH-USER", "admin").header("X-Webauth_User", "admin");
        gateway.send(&forged).assert_status(status, target);
    }
    app.assert_untouched("forged names");
    let health = gateway.send(&get("/api/health").header("X-WEBAUTH-USER", "admin"));
    assert_eq!(health.assert_status(200, "health").json()["login"], "nobody");
    let alice = gateway.cookie("alice");
    let seen = gateway.send(&get("/api/user").cookie(&alice).header("X-WEBAUTH-GROUPS", "admins")).json();
    let expected =
        json!({ "login": "alice", "name": "Alice Exämple", "email": "alice@example.com", "teams": ["staff", "ops"] });
    assert_eq!(seen, expected);
    gateway.send(&get("/metrics").cookie(&alice)).assert_status(403, "metrics");
    // Grafana's own sign-in page and the end of its session are the gateway's.
    let returns = gateway.send(&get("/login").cookie(&alice).page_load());
    assert_eq!(returns.assert_status(303, "signed in already").header("location"), Some("/"));
    assert!(gateway.send(&get("/logout").cookie(&alice).page_load()).text().contains("<form"));
}

#[test]
fn programs_reach_grafana_with_its_own_tokens_from_their_network_only() {
    let app = Recorder::answering(grafana);
    let whole = block("front-grafana", "toml whole", 0);
    let part = replaced(&block("front-grafana", "toml", 0), "\"app\"", "\"grafana\"");
    let last = "[[routes]]\nname     = \"grafana\"";
    for (network, program, stranger) in [("127.0.0.0/8", 200, 401), ("10.1.0.0/16", 401, 401)] {
        let part = replaced(&part, "10.1.0.0/16", network);
        let text = replaced(&whole, last, &format!("{part}\n{last}"));
        let gateway = start(&text, &[(3000, app.address())], &[("alice", "")]);
        let with_token = get("/api/user").bearer("glsa_token").header("X-WEBAUTH-USER", "admin");
        let answer = gateway.send(&with_token);
        answer.assert_status(program, network);
        assert!(program != 200 || answer.json()["login"] == "a program", "{}", answer.text());
        gateway.send(&get("/api/user").header("X-WEBAUTH-USER", "admin")).assert_status(stranger, network);
        let person = gateway.send(&get("/api/user").cookie(&gateway.cookie("alice")));
        assert_eq!(person.assert_status(200, network).json()["login"], "alice");
    }
}

#[test]
fn what_oauth2_proxy_let_pass_passes_and_the_people_come_over() {
    let app = greeting("app", "x-forwarded-user");
    let (key, keys) = (IssuerKey::new("1"), tempfile::tempdir().unwrap());
    let file = keys.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    // The page finds the keys by discovery; no test asks the network.
    let prefix = "user_prefix = \"id:\"";
    let local = format!("{prefix}\njwks = {{ file = \"{}\" }}", file.display());
    let text = replaced(&block("from-oauth2-proxy", "toml whole", 0), prefix, &local);
    let gateway = start(&text, &[(3000, app.address())], &[]);
    gateway.send(&get("/health")).assert_status(200, "health");
    gateway.send(&post("/health")).assert_status(401, "health by another method");
    let html = |target: &str| gateway.send(&get(target).header("Accept", "text/html"));
    html("/api/x").assert_status(401, "an API");
    assert_eq!(html("/").assert_status(303, "a page").header("location"), Some("/login?next=%2F"));
    let now = token::now();
    let claims = json!({ "iss": "https://id.example", "sub": "build", "aud": "apps", "iat": now, "exp": now + 600 });
    for target in ["/api/x", "/x"] {
        let answer = gateway.send(&get(target).bearer(&key.sign(&claims)));
        assert_eq!(answer.assert_status(200, target).text(), "app: Hello, id:build");
        let other = with(claims.clone(), json!({ "aud": "others" }));
        gateway.send(&get(target).bearer(&key.sign(&other))).assert_status(401, "another audience");
    }

    std::fs::write(gateway.dir().join("emails.txt"), "dora@example.com\nemil@example.com\n").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    shell.args(["-euc", &block("from-oauth2-proxy", "sh", 0)]).current_dir(gateway.dir()).env("PATH", path);
    let told = run(shell, "").succeeded().stdout;
    let lines: Vec<_> = told.lines().filter_map(|line| line.split_once("@example.com ")).collect();
    assert_eq!(lines.len(), 2, "{told}");
    for (name, password) in lines {
        gateway.sign_in(&format!("{name}@example.com"), password).assert_status(200, name);
    }
}

#[test]
fn rules_of_authelia_hold_and_its_header_names_are_the_gateways() {
    let (www, app) = (greeting("www", "remote-user"), greeting("app", "remote-user"));
    let apps = [(3000, www.address()), (3001, app.address())];
    let gateway = start(&tested("from-authelia"), &apps, &[("john", "admins,dev"), ("harry", "dev")]);
    let ask = |host: &str, target: &str| get(target).host(&format!("{host}.example.com")).header("Remote-User", "john");
    let open = gateway.send(&ask("www", "/"));
    assert_eq!(open.assert_status(200, "bypass").text(), "www: Hello, stranger");
    gateway.send(&ask("app", "/")).assert_status(401, "one_factor");
    gateway.send(&ask("other", "/")).assert_status(404, "deny by default");
    app.assert_untouched("forged names");
    let [john, harry] = ["john", "harry"].map(|name| cookie(&gateway, "app.example.com", name));
    for (target, cookie, status) in [("/", &john, 200), ("/", &harry, 200), ("/admin/x", &john, 200)] {
        gateway.send(&ask("app", target).cookie(cookie)).assert_status(status, target);
    }
    assert_eq!(app.take().last().unwrap().header("remote-groups").as_deref(), Some("admins,dev"));
    for target in ["/admin/x", "/admin", "//admin", "/Admin/x"] {
        gateway.send(&ask("app", target).cookie(&harry)).assert_status(403, target);
    }
    app.assert_untouched("harry");
}

#[test]
fn a_script_goes_on_with_basic_and_a_browser_gets_the_page() {
    let app = greeting("app", "x-forwarded-user");
    let page = block("from-nginx-basic-auth", "toml whole", 0);
    let gateway = start(&page, &[(3000, app.address())], &[("bob", "")]);
    let basic = |password: &str| {
        let pair = STANDARD.encode(format!("bob:{password}"));
        get("/").header("Authorization", &format!("Basic {pair}"))
    };
    let right = gateway.send(&basic(&password_of("bob")));
    assert_eq!(right.assert_status(200, "the right one").text(), "app: Hello, bob");
    assert_eq!(app.only("forwarded").header("authorization"), None);
    gateway.send(&basic("wrong")).assert_status(401, "a wrong one");
    gateway.send(&get("/").page_load()).assert_status(303, "a browser");
}

#[test]
fn the_mistakes_that_the_pages_name_are_found_by_check() {
    let one_path = block("protect-one-path", "toml whole", 0);
    let (upstreams, routes) = one_path.split_once("\n\n").unwrap();
    let (admin, rest) = routes.split_once("\n\n").unwrap();
    let two = block("two-apps", "toml whole", 0);
    let for_every_host = "[[routes]]\nname = \"all\"\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"wiki\"\n\n";
    let (before, after) = two.split_once("[[routes]]").unwrap();
    let proxy = block("behind-a-proxy", "toml whole", 0);
    for (text, code, finding) in [
        (format!("{upstreams}\n\n{rest}\n\n{admin}\n"), 0, "never-matches"),
        (one_path.replace("/admin/**\"", "/admin/**\"\nmethods = [\"POST\"]"), 1, "falls-through"),
        (format!("{before}{for_every_host}[[routes]]{after}"), 0, "never-matches"),
        (two.replace("domain = \"example.com\"", "domain = \"example.org\""), 1, "example.org"),
        (proxy.replace("\"127.0.0.1\", \"::1\"", "\"0.0.0.0/0\""), 0, "trusts"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gateway.toml"), &text).unwrap();
        let ran = command(dir.path(), &["check"], "");
        assert_eq!(ran.code, Some(code), "{text}\n{ran:?}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(finding), "{finding}: {said}");
    }
}
