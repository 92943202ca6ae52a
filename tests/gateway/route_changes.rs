//! What a route changes on the way: `rewrite`, `set_host`, `request_headers`, `response_headers`, `upgrade`.

use crate::common::recorder::{Recorded, reply};
use crate::common::{Answer, Gateway, Recorder, Setup, command, get};

fn with_routes(app: &Recorder, routes: &str) -> Gateway {
    Setup::new(app.address()).routes(routes).start()
}

/// Answers with the `Location` that the query asks for.
fn redirecting() -> Recorder {
    Recorder::answering(|request| {
        let target = request.target();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let to = percent_encoding::percent_decode_str(query).decode_utf8_lossy().into_owned();
        Answer::Keep(reply("302 Found", &format!("Location: {to}\r\n"), ""))
    })
}

const REWRITES: &str = r#"
    [[routes]]
    path = "/old/secret/**"
    allow = "nobody"
    upstream = "app"

    [[routes]]
    path = "/old/**"
    allow = "anyone"
    upstream = "app"
    rewrite = "/new/site/**"

    [[routes]]
    path = "/u/*/page/*"
    allow = "anyone"
    upstream = "app"
    rewrite = "/pages/*/*"

    [[routes]]
    path = "/top/**"
    allow = "anyone"
    upstream = "app"
    rewrite = "/**"
"#;

#[test]
fn a_rewritten_path_is_the_operators_with_whole_segments_of_the_clients() {
    let app = Recorder::start();
    let gateway = with_routes(&app, REWRITES);
    for (asked, sent) in [
        ("/old/a/b", "/new/site/a/b"),
        ("/old", "/new/site"),
        ("/old/", "/new/site/"),
        ("/old/a?x=/old/&y=%2F..%0d%0a", "/new/site/a?x=/old/&y=%2F..%0d%0a"),
        ("/%6fld/%61", "/new/site/a"),
        ("/old//a;b%2Fc", "/new/site//a;b%2Fc"),
        ("/u/ann/page/7", "/pages/ann/7"),
        ("/u/ann/page/7/", "/pages/ann/7/"),
        ("/top", "/"),
        ("/top/x", "/x"),
    ] {
        gateway.send(&get(asked)).assert_status(200, asked);
        assert_eq!(app.only(asked).target(), sent, "{asked}");
    }
}

#[test]
fn a_rewritten_path_is_judged_as_it_came() {
    let app = Recorder::start();
    let gateway = with_routes(&app, REWRITES);
    for (asked, status) in [
        ("/old/../x", 400),
        ("/old/%2e%2e/x", 400),
        ("/old/..;/x", 400),
        ("/old/x%0d%0aX-Forwarded-User:%20root", 400),
        ("/old/%5c..%5cx", 400),
        ("/old/secret/x", 403),
        ("/old//secret/x", 403),
        ("/old/%2Fsecret", 403),
        ("/old/SECRET/x", 403),
        ("/new/site/x", 404),
    ] {
        gateway.send(&get(asked)).assert_status(status, asked);
    }
    app.assert_untouched("none of them");
}

#[test]
fn a_location_is_put_back_where_the_way_leads_back() {
    let app = redirecting();
    let gateway = with_routes(&app, REWRITES);
    let own = format!("http://{}/new/site/x", app.address());
    for (asked, location, arrives) in [
        ("/old/x", "/new/site/login?a=%2Fb#c", "/old/login?a=%2Fb#c"),
        ("/old/x", "/new/site", "/old"),
        ("/old/x", "/new/sitemap", "/new/sitemap"),
        ("/old/x", "/elsewhere", "/elsewhere"),
        ("/old/x", "relative", "relative"),
        ("/old/x", "//elsewhere.example/new/site/x", "//elsewhere.example/new/site/x"),
        ("/old/x", "https://elsewhere.example/new/site/x", "https://elsewhere.example/new/site/x"),
        ("/old/x", own.as_str(), "/old/x"),
        ("/u/a/page/b", "/pages/c/d", "/u/c/page/d"),
        ("/top/x", "/y", "/top/y"),
    ] {
        let query: String = form_urlencoded::byte_serialize(location.as_bytes()).collect();
        let answer = gateway.send(&get(&format!("{asked}?{query}")));
        assert_eq!(answer.assert_status(302, location).header("location"), Some(arrives), "{location}");
    }
}

#[test]
fn the_upstream_is_told_another_host_and_the_clients_beside_it() {
    let app = Recorder::start();
    let own = app.address().to_string();
    let gateway = with_routes(
        &app,
        r#"
        [[routes]]
        path = "/named"
        allow = "anyone"
        upstream = "app"
        set_host = "Internal.Example:8443"

        [[routes]]
        path = "/own"
        allow = "anyone"
        upstream = "app"
        set_host = true

        [[routes]]
        path = "/**"
        allow = "anyone"
        upstream = "app"
        set_host = false
    "#,
    );
    for (path, host) in [("/named", "internal.example:8443"), ("/own", own.as_str()), ("/x", "apps.example.com")] {
        gateway.send(&get(path).host("apps.example.com").header("X-Forwarded-Host", "evil.example"));
        let seen = app.only(path);
        assert_eq!(seen.header("host").as_deref(), Some(host), "{path}");
        assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("apps.example.com"), "{path}");
    }
}

const EDITS: &str = r#"
    [[routes]]
    path = "/**"
    allow = "signed-in"
    upstream = "app"
    forward_token = true
    [routes.request_headers]
    set    = { "X-Api-Version" = "2", Authorization = { file = "upstream-auth" }, Accept = "application/json" }
    add    = { Via = "portcullis" }
    remove = ["X-Debug", "Referer"]
    [routes.response_headers]
    set    = { "Strict-Transport-Security" = "max-age=63072000", "Cache-Control" = "public, max-age=60" }
    add    = { "Set-Cookie" = "theme=dark", Vary = "Accept-Language" }
    remove = ["Server", "X-Powered-By"]
"#;

const AUTH: &str = "Basic dXBzdHJlYW06aHVudGVyMg==";

/// All that an application may take for `name`.
fn values(seen: &Recorded, name: &str) -> Vec<String> {
    seen.taken_for(name).into_iter().map(|(_, value)| value).collect()
}

fn edited() -> (Recorder, Gateway) {
    let app = Recorder::answering(|_| {
        let fields = "Server: Leaky/1.0\r\nX-POWERED-BY: php\r\nVary: Accept\r\nCache-Control: no-cache\r\n\
                      Set-Cookie: app=1\r\nSet-Cookie: portcullis=stolen\r\n";
        Answer::Keep(reply("200 OK", fields, "x"))
    });
    let setup = Setup::new(app.address()).key("log.level", "\"debug\"");
    // Accounts are made before the configuration names a file that is not there yet.
    let dir = setup.prepare();
    std::fs::write(dir.path().join("gateway.toml"), setup.routes(EDITS).toml()).unwrap();
    let secret = dir.path().join("upstream-auth");
    std::fs::write(&secret, format!("{AUTH}\n")).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (app, Gateway::serve(dir))
}

#[test]
fn fields_of_a_request_are_changed_in_every_spelling_and_before_the_gateways_own() {
    let (app, gateway) = edited();
    let token = gateway.token("alice");
    let request = get("/x")
        .bearer(&token)
        .header("X_Api_Version", "1")
        .header("x-api-version", "1")
        .header("X.Debug", "on")
        .header("X-Debug", "on")
        .header("Referer", "https://secret.example/")
        .header("Via", "1.1 client")
        .header("Accept", "text/plain")
        .header("X-Forwarded-User", "root");
    gateway.send(&request).assert_status(200, "edited");
    let seen = app.only("edited");
    assert_eq!(values(&seen, "x-api-version"), ["2"]);
    assert_eq!(values(&seen, "x-debug"), [""; 0]);
    assert_eq!(seen.header("referer"), None);
    assert_eq!(seen.all("via"), ["1.1 client", "portcullis"]);
    assert_eq!(seen.header("accept").as_deref(), Some("application/json"));
    assert_eq!(seen.header("authorization").as_deref(), Some(AUTH), "and not the token");
    assert_eq!(values(&seen, "x-forwarded-user"), ["alice"]);
    assert!(seen.headers().iter().all(|(_, value)| !value.contains(&token)), "the token stays here");
}

#[test]
fn a_forwarded_field_that_the_gateway_does_not_write_is_the_routes() {
    let app = Recorder::start();
    let gateway = with_routes(
        &app,
        r#"
        [[routes]]
        path = "/**"
        allow = "anyone"
        upstream = "app"
        request_headers = { set = { "X-Forwarded-Port" = "443" }, add = { "X-Forwarded-Server" = "edge" } }
        "#,
    );
    let request = get("/x").header("X_Forwarded_Port", "1").header("X-Forwarded-Server", "mallory");
    gateway.send(&request.header("X-Real-IP", "192.0.2.7")).assert_status(200, "edited");
    let seen = app.only("edited");
    assert_eq!(values(&seen, "x-forwarded-port"), ["443"]);
    assert_eq!(values(&seen, "x-forwarded-server"), ["edge"], "and not the client's");
    assert_eq!(values(&seen, "x-real-ip"), [""; 0]);
    assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn fields_of_an_answer_are_changed_and_what_is_private_stays_private() {
    let (_app, gateway) = edited();
    let answer = gateway.send(&get("/x").bearer(&gateway.token("alice")));
    answer.assert_status(200, "edited");
    assert_eq!((answer.header("server"), answer.header("x-powered-by")), (None, None));
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=63072000"));
    assert_eq!(answer.all("vary"), ["Accept", "Accept-Language"]);
    assert_eq!(answer.all("set-cookie"), ["app=1", "theme=dark"], "and not ours");
    assert_eq!(answer.all("cache-control"), ["max-age=60, private"], "no shared cache, whatever the route says");
    let refused = gateway.send(&get("/x"));
    assert_eq!(refused.assert_status(401, "our own").header("strict-transport-security"), None);
}

#[test]
fn a_secret_of_a_route_is_shown_nowhere() {
    let (_app, gateway) = edited();
    gateway.send(&get("/x").bearer(&gateway.token("alice")));
    let explained = gateway.command(&["explain", "GET", "/x", "--as", "alice"]);
    let shown = gateway.command(&["config", "show"]).succeeded();
    assert!(shown.stdout.contains("authorization = \"(hidden)\""), "{}", shown.stdout);
    assert!(explained.stdout.contains("(hidden)"), "{}", explained.stdout);
    let ended = gateway.stop();
    for text in [&explained.stdout, &shown.stdout, &ended.stdout, &ended.stderr] {
        assert!(!text.contains("dXBzdHJlYW06aHVudGVyMg"), "{text}");
    }
}

#[test]
fn names_that_are_the_gateways_are_refused_in_every_spelling() {
    let route = |key: &str| {
        let setup = Setup::new(([127, 0, 0, 1], 1).into()).without_users();
        let dir = setup.routes(&format!("[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n{key}\n"));
        let ran = command(dir.prepare().path(), &["check"], "");
        (ran.code, ran.stdout + &ran.stderr)
    };
    let requests = [
        "X-Forwarded-User",
        "x-FORWARDED-user",
        "X-Forwarded.User",
        "HTTP-X-Forwarded-User",
        "Remote-User",
        "X-WEBAUTH-Foo",
        "Connection",
        "CONTENT-length",
        "Transfer-Encoding",
        "Host",
        "X-Forwarded-For",
        "X.Forwarded.For",
        "HTTP-X-Forwarded-Proto",
        "Forwarded",
        "Proxy-Authorization",
        "Sec-WebSocket-Key",
        "X_Forwarded_User",
        "Upgrade",
        "TE",
    ];
    for name in requests {
        for edit in [
            format!("set = {{ {name:?} = \"x\" }}"),
            format!("add = {{ {name:?} = \"x\" }}"),
            format!("remove = [{name:?}]"),
        ] {
            let ran = route(&format!("request_headers = {{ {edit} }}"));
            assert_eq!(ran.0, Some(1), "{edit}\n{}", ran.1);
            assert!(ran.1.contains("error[bad-header]") && ran.1.contains("help:"), "{edit}\n{}", ran.1);
        }
    }
    for edit in [
        "set = { \"Content-Length\" = \"0\" }",
        "set = { \"set-COOKIE\" = \"portcullis=x; Path=/\" }",
        "add = { \"Set-Cookie\" = \"=portcullis=x\" }",
        "set = { \"X-A\" = \"a\\r\\nSet-Cookie: portcullis=x\" }",
        "set = { \"X-A\" = \" a\" }",
        "set = { \"X-A\\r\\nX-B\" = \"a\" }",
    ] {
        let ran = route(&format!("response_headers = {{ {edit} }}"));
        assert!(ran.0 == Some(1) && ran.1.contains("error[bad-header]"), "{edit}\n{}", ran.1);
    }
    let ran = route("request_headers = { set = { Cookie = { env = \"NONE\", default = \"a=1; portcullis=x\" } } }");
    assert!(ran.0 == Some(1) && ran.1.contains("the cookie"), "{}", ran.1);
}

#[test]
fn a_route_without_upgrades_passes_the_request_on_as_an_ordinary_one() {
    let app = Recorder::start();
    let route = |path: &str, upgrade: &str| {
        format!("[[routes]]\npath = \"{path}\"\nallow = \"anyone\"\nupstream = \"app\"\n{upgrade}\n")
    };
    let routes = [route("/plain", "upgrade = []"), route("/**", "upgrade = [\"websocket\"]")].concat();
    let gateway = with_routes(&app, &routes);
    let opening = |path: &str| {
        get(path)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    gateway.send(&opening("/plain")).assert_status(200, "an ordinary answer");
    let seen = app.only("ordinary");
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None));
    gateway.send(&opening("/socket"));
    assert_eq!(app.only("upgrade").header("upgrade").as_deref(), Some("websocket"));
}

#[test]
fn an_application_that_switches_without_leave_is_no_answer() {
    let app = Recorder::answering(|_| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        Answer::Keep(switch.as_bytes().to_vec())
    });
    let gateway =
        with_routes(&app, "[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\nupgrade = []\n");
    let opening = get("/x").header("Connection", "Upgrade").header("Upgrade", "websocket");
    gateway.send(&opening).assert_status(502, "it was not asked to");
}

#[test]
fn explain_shows_what_a_route_changes() {
    let dir = Setup::new(([127, 0, 0, 1], 1).into()).routes(REWRITES).prepare();
    let ran = command(dir.path(), &["explain", "GET", "/old/a?b"], "").succeeded();
    assert!(ran.stdout.contains("target   /new/site/a?b"), "{}", ran.stdout);
}
