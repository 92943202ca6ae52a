//! `/.gateway/check` itself, asked as each family of proxies asks. `forward_auth_real.rs` has the proxies.

use crate::common::{Gateway, Recorder, Request, Response, Setup, get, password_of};

/// Routes with everything that the answer can tell.
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
    name = "near"
    path = "/near/**"
    allow = { from = ["203.0.113.0/24"] }
    upstream = "app"

    [[routes]]
    name = "read"
    path = "/data/**"
    methods = ["GET"]
    allow = "signed-in"
    upstream = "app"

    [[routes]]
    name = "write"
    path = "/data/**"
    allow = { groups = ["admin"] }
    upstream = "app"

    [[routes]]
    name = "basic"
    path = "/basic/**"
    allow = "signed-in"
    accept = ["basic"]
    upstream = "app"

    [[routes]]
    name = "rest"
    hosts = ["apps.example.com"]
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

fn setup(app: &Recorder, family: &str) -> Setup {
    Setup::new(app.address())
        .behind_a_proxy()
        .key("server.forward_auth", &format!("\"{family}\""))
        .key("server.public_url", "\"http://apps.example.com\"")
        .key("log.format", "\"json\"")
        .key("admin.listen", "\"127.0.0.1:0\"")
        .key("identity.assertion", "\"X-Portcullis-Assertion\"")
        .key("identity.claims", "{ \"X-Tenant\" = \"tenant\" }")
        .key("identity.strip", "[\"X-WEBAUTH-USER\"]")
        .routes(ROUTES)
        .user("bob", &["--groups", "staff"])
}

fn gateway(family: &str) -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = setup(&app, family).start();
    (app, gateway)
}

/// The question about `method target`, as a proxy of `family` asks it.
fn asked(family: &str, method: &str, target: &str) -> Request {
    let host = "apps.example.com";
    match family {
        "nginx" => get("/.gateway/check")
            .header("X-Original-Method", method)
            .header("X-Original-Host", host)
            .header("X-Original-URI", target),
        "traefik" => get("/.gateway/check")
            .header("X-Forwarded-Method", method)
            .header("X-Forwarded-Host", host)
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Uri", target),
        _ => Request::new(method, &format!("/.gateway/check{target}")).host(host),
    }
}

const FAMILIES: [&str; 3] = ["nginx", "traefik", "envoy"];

#[track_caller]
fn assert_told(answer: &Response, name: &str, value: &str) {
    assert_eq!(answer.header(name), Some(value), "{name}");
}

#[test]
fn what_may_pass_is_200_with_every_identity_header_and_the_application_sees_nothing() {
    for family in FAMILIES {
        let (app, gateway) = gateway(family);
        let cookie = gateway.cookie("alice");
        let named = gateway.send(&asked(family, "GET", "/admin/x?y=//").cookie(&format!("theirs=1; {cookie}")));
        named.assert_status(200, family);
        assert_told(&named, "x-forwarded-user", "alice");
        assert_told(&named, "x-forwarded-groups", "admin,staff");
        assert_told(&named, "x-forwarded-email", "");
        assert_told(&named, "x-forwarded-preferred-username", "");
        assert_told(&named, "x-tenant", "");
        assert_told(&named, "x-webauth-user", "");
        assert!(named.header("x-portcullis-assertion").unwrap().starts_with("ey"), "{family}");
        assert_eq!(named.header("cookie"), (family != "nginx").then_some("theirs=1"));

        let forged = asked(family, "GET", "/public/x").header("X-Forwarded-User", "root").cookie("portcullis=stale");
        let nobody = gateway.send(&forged);
        nobody.assert_status(200, family);
        assert_told(&nobody, "x-forwarded-user", "");
        assert_told(&nobody, "x-portcullis-assertion", "");
        assert!(nobody.header("set-cookie").unwrap().contains("Max-Age=0"));
        app.assert_untouched(family);
    }
}

#[test]
fn what_may_not_pass_is_refused_as_the_proxy_can_take_it() {
    for family in FAMILIES {
        let (app, gateway) = gateway(family);
        let (bob, is_nginx) = (gateway.cookie("bob"), family == "nginx");
        let script = gateway.send(&asked(family, "GET", "/a"));
        script.assert_status(401, "a script");
        assert_eq!(script.header("location"), None);
        assert!(script.header("www-authenticate").unwrap().starts_with("Bearer "));
        for method in ["GET", "HEAD"] {
            let page = gateway.send(&asked(family, method, "/a?b=c").page_load());
            page.assert_status(if is_nginx { 401 } else { 303 }, "a page load");
            assert_eq!(page.header("location"), Some("/login?next=%2Fa%3Fb%3Dc"));
        }
        let posted = gateway.send(&asked(family, "POST", "/a").page_load());
        posted.assert_status(401, "what can't come back");
        assert_eq!(posted.header("location"), None);
        let signed_in = |method: &str, target: &str| asked(family, method, target).cookie(&bob);
        gateway.send(&signed_in("GET", "/admin/x")).assert_status(403, "a rule");
        gateway.send(&signed_in("GET", "/data/x")).assert_status(200, "reading");
        gateway.send(&signed_in("HEAD", "/data/x")).assert_status(200, "reading");
        let writing = signed_in("POST", "/data/x").header("Origin", "http://apps.example.com");
        gateway.send(&writing).assert_status(403, "writing");
        for path in ["//admin/x", "/ADMIN/x", "/admin;a=b/x", "/%61dmin/x", "/public/%2Fadmin/..x//admin"] {
            let status = gateway.send(&signed_in("GET", path)).status;
            let allowed = path.starts_with("/public");
            assert_eq!(status == 200, allowed, "{family} {path}: {status}");
        }
        for path in ["/public/..%2fadmin", "/public/../admin", "/public/%252e%252e/admin", "/a%00", "/a%5cb", "/%zz"] {
            let answer = gateway.send(&signed_in("GET", path));
            answer.assert_status(if is_nginx { 403 } else { 400 }, path);
        }
        for path in ["/login", "/logout", "/.gateway/check", "/.gateway/userinfo", "/.well-known/jwks.json"] {
            let answer = gateway.send(&signed_in("GET", path));
            answer.assert_status(if is_nginx { 403 } else { 404 }, path);
        }
        app.assert_untouched(family);
    }
}

#[test]
fn a_header_that_is_missing_or_stands_twice_or_is_of_another_family_is_400() {
    let names = [
        ("nginx", &["X-Original-Method", "X-Original-Host", "X-Original-URI"][..]),
        ("traefik", &["X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Uri"]),
    ];
    for (family, names) in names {
        let (app, gateway) = gateway(family);
        let value = |name: &str| match name.rsplit('-').next().unwrap() {
            "Method" => "GET",
            "Host" => "apps.example.com",
            "Proto" => "http",
            _ => "/public/x",
        };
        let with = |left_out: Option<&str>, twice: Option<&str>| {
            let mut request = get("/.gateway/check");
            for name in names.iter().filter(|name| Some(**name) != left_out) {
                request = request.header(name, value(name));
                if Some(*name) == twice {
                    request = request.header(name, value(name));
                }
            }
            gateway.send(&request)
        };
        with(None, None).assert_status(200, "whole");
        for name in names {
            with(Some(name), None).assert_status(400, name);
            with(None, Some(name)).assert_status(400, name);
        }
        for other in FAMILIES.iter().filter(|other| **other != family) {
            let answer = gateway.send(&asked(other, "GET", "/public/x"));
            assert!(matches!(answer.status, 400 | 404), "{family} asked as {other}: {}", answer.status);
        }
        app.assert_untouched(family);
    }
    let (app, gateway) = gateway("envoy");
    let target = "/.gateway/check";
    for request in [get(target), asked("nginx", "GET", "/public/x"), asked("traefik", "GET", "/public/x")] {
        gateway.send(&request).assert_status(404, "no path after the prefix");
    }
    gateway.send(&get("/.gat%65way/check/public/x")).assert_status(400, "another spelling of the prefix");
    app.assert_untouched("envoy");
}

#[test]
fn headers_of_another_family_count_for_nothing() {
    for family in FAMILIES {
        let (_app, gateway) = gateway(family);
        let others = FAMILIES.iter().filter(|other| **other != family && **other != "envoy");
        for other in others {
            let lies = match *other {
                "nginx" => [("X-Original-Method", "GET"), ("X-Original-Host", "x"), ("X-Original-URI", "/public/x")],
                _ => [("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "x"), ("X-Forwarded-Uri", "/public/x")],
            };
            let mut request = asked(family, "POST", "/admin/x");
            for (name, value) in lies {
                request = request.header(name, value);
            }
            gateway.send(&request).assert_status(401, family);
        }
    }
}

#[test]
fn only_a_trusted_peer_may_ask_and_with_off_nobody() {
    let app = Recorder::start();
    for family in FAMILIES {
        let stranger = setup(&app, family).key("server.trusted_proxies", "[\"192.0.2.1\"]").start();
        let answer = stranger.send(&asked(family, "GET", "/public/x"));
        answer.assert_status(403, "a stranger");
        assert_eq!(answer.header("x-forwarded-user"), None);
        let off = setup(&app, "off").start();
        off.send(&asked(family, "GET", "/public/x")).assert_status(404, "off");
    }
    app.assert_untouched("the gateway's own path");
}

#[test]
fn the_client_is_the_one_that_the_proxy_names() {
    for family in FAMILIES {
        let (_app, gateway) = gateway(family);
        let cookie = gateway.cookie("alice");
        let from = |addresses: &str| {
            let request = asked(family, "GET", "/near/x").cookie(&cookie).header("X-Forwarded-For", addresses);
            gateway.send(&request).status
        };
        assert_eq!((from("203.0.113.9"), from("203.0.113.9, 198.51.100.1")), (200, 403), "{family}");
    }
}

#[test]
fn what_another_site_sends_is_refused_also_where_the_proxy_hides_the_upgrade() {
    for family in FAMILIES {
        let (_app, gateway) = gateway(family);
        let cookie = gateway.cookie("alice");
        let ask = |method: &str| asked(family, method, "/a").cookie(&cookie);
        let evil = ("Origin", "https://evil.example");
        gateway.send(&ask("POST").header(evil.0, evil.1)).assert_status(403, "a form");
        gateway.send(&ask("POST").header("Sec-Fetch-Site", "cross-site")).assert_status(403, "a form");
        gateway.send(&ask("POST").header("Origin", "http://apps.example.com")).assert_status(200, "its own");
        for name in ["Upgrade", "Sec-WebSocket-Key"] {
            let value = if name == "Upgrade" { "websocket" } else { "dGhlIHNhbXBsZSBub25jZQ==" };
            let socket = || ask("GET").header(name, value);
            gateway.send(&socket().header(evil.0, evil.1)).assert_status(403, name);
            gateway.send(&socket().header("Origin", "http://apps.example.com")).assert_status(200, name);
        }
        gateway.send(&ask("GET").header(evil.0, evil.1)).assert_status(200, "a safe request");
    }
}

#[test]
fn what_the_proxy_would_not_remove_is_refused() {
    for family in FAMILIES {
        let (_app, gateway) = gateway(family);
        let cookie = gateway.cookie("alice");
        let status = if family == "nginx" { 403 } else { 400 };
        for name in ["X_Forwarded_User", "X.Forwarded.Groups", "xtenant", "X-WEBAUTH_USER", "HTTP_X_FORWARDED_USER"] {
            let answer = gateway.send(&asked(family, "GET", "/public/x").header(name, "root"));
            answer.assert_status(status, name);
        }
        let overridden = |path: &str| {
            gateway.send(&asked(family, "GET", path).cookie(&cookie).header("X-HTTP-Method-Override", "DELETE")).status
        };
        assert_eq!((overridden("/data/x"), overridden("/admin/x")), (status, 200), "{family}");
    }
}

#[test]
fn credentials_of_ours_are_cut_out_and_others_left() {
    let (_app, gateway) = gateway("traefik");
    let token = gateway.token("alice");
    let with_token = gateway.send(&asked("traefik", "GET", "/admin/x").bearer(&token));
    assert_told(with_token.assert_status(200, "a token"), "authorization", "");
    let theirs = asked("traefik", "GET", "/public/x").header("Authorization", "Custom abc").header("X-API-Key", "k");
    let theirs = gateway.send(&theirs);
    assert_told(theirs.assert_status(200, "theirs"), "authorization", "Custom abc");
    assert_told(&theirs, "x-api-key", "k");
    assert_eq!(theirs.header("cookie"), None);
    let pair = |password: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("bob:{password}"));
        gateway.send(&asked("traefik", "GET", "/basic/x").header("Authorization", &format!("Basic {pair}")))
    };
    assert_told(pair(&password_of("bob")).assert_status(200, "basic"), "x-forwarded-user", "bob");
    pair("wrong").assert_status(401, "basic");
    let expired = gateway.send(&asked("traefik", "GET", "/a").bearer("ey.not.one"));
    assert!(expired.assert_status(401, "a bad token").header("www-authenticate").unwrap().contains("invalid_token"));
    let basic = gateway.send(&asked("traefik", "GET", "/basic/x"));
    assert!(basic.all("www-authenticate").iter().any(|value| value.starts_with("Basic ")));
}

#[test]
fn a_question_is_logged_counted_and_explained_as_a_request() {
    for family in FAMILIES {
        let (_app, gateway) = gateway(family);
        let cookie = gateway.cookie("bob");
        gateway.send(
            &asked(family, "DELETE", "/admin/gone?secret").cookie(&cookie).header("Origin", "http://apps.example.com"),
        );
        let line = gateway.access_line("the line", |line| line["path"] == "/admin/gone");
        assert_eq!(line["host"], "apps.example.com");
        let told = ["method", "user", "route", "decision", "code"].map(|key| line[key].as_str().unwrap().to_owned());
        assert_eq!(told, ["DELETE", "bob", "admin", "deny", "group"]);
        let id = line["request_id"].as_str().unwrap();
        let why = gateway.command(&["why", id]).succeeded();
        assert!(why.stdout.contains("DELETE") && why.stdout.contains("/admin/gone"), "{}", why.stdout);
        gateway.send(&asked(family, "GET", "/data/seen").cookie(&cookie));
        let mut client = crate::common::Client::of(gateway.admin());
        let metrics = client.send(&get("/metrics")).text();
        for expected in ["route=\"admin\",outcome=\"deny\"} 1", "route=\"read\",outcome=\"permit\"} 1"] {
            assert!(metrics.contains(expected), "{family}: no {expected} in\n{metrics}");
        }
        gateway.command(&["session", "revoke", "--user", "bob"]).succeeded();
        let over = gateway.send(&asked(family, "GET", "/data/seen").cookie(&cookie));
        over.assert_status(401, "a session that was revoked");
    }
}

#[test]
fn a_request_that_no_route_takes_is_refused() {
    let (_app, gateway) = gateway("traefik");
    let elsewhere = get("/.gateway/check")
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Host", "other.example")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Uri", "/x");
    gateway.send(&elsewhere).assert_status(404, "another host");
    for (name, value, status) in [
        ("X-Forwarded-Uri", "*", 400),
        ("X-Forwarded-Uri", "http://apps.example.com/public/x", 400),
        ("X-Forwarded-Uri", "/public/x#y", 400),
        ("X-Forwarded-Host", "a@b", 400),
        ("X-Forwarded-Proto", "ftp", 400),
        ("X-Forwarded-Method", "GET, POST", 400),
        ("X-Forwarded-Method", "TRACE", 405),
        ("X-Forwarded-Method", "post", 405),
    ] {
        let mut request = get("/.gateway/check");
        for (known, good) in [
            ("X-Forwarded-Method", "OPTIONS"),
            ("X-Forwarded-Host", "apps.example.com"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Uri", "/public/x"),
        ] {
            request = request.header(known, if known == name { value } else { good });
        }
        gateway.send(&request).assert_status(status, &format!("{name}: {value}"));
    }
}

#[test]
fn limits_of_a_route_hold_for_questions_too() {
    for family in FAMILIES {
        let app = Recorder::start();
        let routes = "[[routes]]\nname = \"few\"\npath = \"/few/**\"\nallow = \"anyone\"\nupstream = \"app\"\n\
                      upgrade = []\nrate_limit = { per = \"network\", rate = \"2/h\" }\n";
        let gateway = setup(&app, family).routes(routes).start();
        let (late, refused) = if family == "nginx" { (403, 403) } else { (429, 400) };
        let socket = asked(family, "GET", "/few/x").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        gateway.send(&socket).assert_status(refused, "a WebSocket where there are none");
        gateway.send(&asked(family, "GET", "/few/x")).assert_status(200, "the second");
        gateway.send(&asked(family, "GET", "/few/x")).assert_status(late, "one too many");
        app.assert_untouched(family);
    }
}

/// Routes that answer preflights, and that leave it to the application.
const CORS_ROUTES: &str = r#"
    [[routes]]
    name = "listed"
    path = "/listed/**"
    allow = "signed-in"
    cors = { origins = ["https://site.example"], methods = ["PUT"] }
    upstream = "app"

    [[routes]]
    name = "theirs"
    path = "/theirs/**"
    allow = "signed-in"
    cors = "upstream"
    upstream = "app"
"#;

#[test]
fn a_true_preflight_is_treated_as_its_route_says() {
    for family in ["nginx", "traefik", "envoy"] {
        let app = Recorder::start();
        let gateway = setup(&app, family).routes(CORS_ROUTES).start();
        let preflight = |path: &str, origin: &str| {
            asked(family, "OPTIONS", path).header("Origin", origin).header("Access-Control-Request-Method", "PUT")
        };
        let site = "https://site.example";
        let theirs = gateway.send(&preflight("/theirs/x", "https://any.example"));
        assert_told(theirs.assert_status(200, family), "x-forwarded-user", "");
        for more in [("Cookie", "a=b"), ("Authorization", "Bearer x"), ("X-API-Key", "k")] {
            let asks = preflight("/theirs/x", site).header(more.0, more.1);
            gateway.send(&asks).assert_status(401, "whatever carries more is no preflight");
        }
        let foreign = gateway.send(&preflight("/listed/x", "https://other.example"));
        foreign.assert_status(403, family);
        assert_eq!(foreign.header("access-control-allow-origin"), None);
        let listed = gateway.send(&preflight("/listed/x", site));
        // A success would be leave to go on, to everyone but Envoy.
        listed.assert_status(if family == "envoy" { 204 } else { 401 }, family);
        assert_eq!(listed.header("access-control-allow-origin"), Some(site), "{family}");
        let methods = (family == "envoy").then_some("PUT");
        assert_eq!(listed.header("access-control-allow-methods"), methods);
        let nobody = gateway.send(&asked(family, "PUT", "/listed/x").header("Origin", site));
        nobody.assert_status(401, family);
        assert_eq!(nobody.header("access-control-allow-origin"), Some(site), "a script may read the refusal");
        gateway.send(&asked(family, "OPTIONS", "/theirs/x")).assert_status(401, "no preflight at all");
        app.assert_untouched("nothing is forwarded");
    }
}
