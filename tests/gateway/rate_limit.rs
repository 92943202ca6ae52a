//! `rate_limit`: who is counted as one, what is counted, and what is said of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Gateway, Recorder, Request, Setup, command, get, password_of, post};

fn route(path: &str, rest: &str) -> String {
    let name = match path.trim_matches(['/', '*']) {
        "" => "all",
        name => name,
    };
    format!("[[routes]]\nname = \"{name}\"\npath = \"{path}\"\nupstream = \"app\"\n{rest}\n")
}

fn routes() -> String {
    [
        route("/user/**", "allow = \"signed-in\"\naccept = [\"bearer\", \"cookie\", \"basic\", \"api-key\"]\nrate_limit = { per = \"user\", rate = \"4/h\" }"),
        route("/key/**", "allow = \"signed-in\"\naccept = [\"bearer\", \"cookie\", \"api-key\"]\nrate_limit = { per = \"key\", rate = \"4/h\" }"),
        route("/net/**", "allow = \"anyone\"\nrate_limit = { per = \"network\", rate = \"60/h\", burst = 3 }"),
        route("/open/**", "allow = \"anyone\"\nrate_limit = { per = \"user\", rate = \"2/h\" }"),
        route("/admin/**", "allow = { groups = [\"admin\"] }\nrate_limit = { per = \"user\", rate = \"2/h\" }"),
        route("/watched/**", "allow = \"anyone\"\nobserve = true\nrate_limit = { per = \"network\", rate = \"1/h\" }"),
        "[[routes]]\nname = \"closed\"\npath = \"/closed\"\nallow = \"anyone\"\nrespond = { status = 503 }\nrate_limit = { per = \"network\", rate = \"1/h\" }\n".to_owned(),
    ]
    .concat()
}

fn setup(app: &Recorder) -> Setup {
    let setup = Setup::new(app.address()).routes(&routes()).user("bob", &[]).key("log.format", "\"json\"");
    setup.behind_a_proxy()
}

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    (app, gateway)
}

/// How many of `requests` came through before the first that did not.
#[track_caller]
fn come_through(gateway: &Gateway, requests: impl Iterator<Item = Request>) -> usize {
    let mut came = 0;
    for request in requests {
        match gateway.send(&request).status {
            200 => came += 1,
            429 => return came,
            status => panic!("answered {status}"),
        }
    }
    came
}

fn basic(name: &str) -> String {
    use base64::Engine as _;
    let text = format!("{name}:{}", password_of(&name.to_lowercase()));
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

#[test]
fn a_user_is_one_whatever_they_show_and_however_their_name_is_spelled() {
    let (app, gateway) = gateway();
    let (token, cookie) = (gateway.token("alice"), gateway.cookie("alice"));
    let requests = [
        get("/user/a").bearer(&token),
        get("/user/b?x").cookie(&cookie),
        get("/user/c").header("Authorization", &basic("alice")),
        get("/user/d").header("Authorization", &basic("ALICE")),
        get("/user/e").header("Authorization", &basic("Alice")),
        get("/%75ser/f").bearer(&gateway.token("alice")),
    ];
    assert_eq!(come_through(&gateway, requests.into_iter()), 4);
    assert_eq!(app.take().len(), 4, "the fifth does not get there");
    gateway.send(&get("/user/a").bearer(&gateway.token("bob"))).assert_status(200, "bob is another one");
}

#[test]
fn a_key_is_a_session_and_not_each_of_its_tokens() {
    let (_app, gateway) = gateway();
    let signed_in = gateway.sign_in("alice", &password_of("alice")).json();
    let (token, refresh) = (signed_in["access_token"].as_str().unwrap(), signed_in["refresh_token"].as_str().unwrap());
    assert_eq!(come_through(&gateway, (0..2).map(|_| get("/key/x").bearer(token))), 2);
    let form = post("/.gateway/token").form(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]);
    let renewed = gateway.send(&form).json();
    let renewed = renewed["access_token"].as_str().unwrap();
    assert_ne!(renewed, token);
    assert_eq!(
        come_through(&gateway, (0..9).map(|_| get("/key/x").bearer(renewed))),
        2,
        "a new token of the same session"
    );
    let other = gateway.token("alice");
    assert_eq!(come_through(&gateway, (0..9).map(|_| get("/key/x").bearer(&other))), 4, "another session");
}

#[test]
fn a_network_is_an_ipv4_address_or_an_ipv6_64() {
    let (_app, gateway) = gateway();
    let from = |address: &str| get("/net/x").header("X-Forwarded-For", address);
    let of_one_64 = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:DB8:1:2:0:0:0:3", "2001:db8:1:2::4"];
    assert_eq!(come_through(&gateway, of_one_64.iter().map(|address| from(address))), 3);
    assert_eq!(come_through(&gateway, std::iter::once(from("2001:db8:1:3::1"))), 1, "the next /64");
    let spellings = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"];
    assert_eq!(come_through(&gateway, spellings.iter().map(|address| from(address))), 3);
    assert_eq!(come_through(&gateway, std::iter::once(from("192.0.2.2"))), 1, "the next address");
    let signed_in = from("192.0.2.1").bearer(&gateway.token("alice"));
    gateway.send(&signed_in).assert_status(429, "a name does not help where networks are counted");
}

#[test]
fn strangers_count_as_their_network_where_users_are_counted() {
    let (_app, gateway) = gateway();
    assert_eq!(come_through(&gateway, (0..5).map(|_| get("/open/x"))), 2);
    let token = gateway.token("alice");
    let mixed = (0..5).map(|_| get("/open/x").bearer(&token));
    assert_eq!(come_through(&gateway, mixed), 2, "whoever is signed in counts for themselves");
    let bad = get("/open/x").bearer("not.a.token");
    gateway.send(&bad).assert_status(429, "what is not good counts for nobody");
}

#[test]
fn what_is_refused_is_not_counted() {
    let (_app, gateway) = gateway();
    let (alice, bob) = (gateway.token("alice"), gateway.token("bob"));
    for _ in 0..5 {
        gateway.send(&get("/admin/x")).assert_status(401, "a stranger");
        gateway.send(&get("/admin/x").bearer(&bob)).assert_status(403, "bob");
        gateway.send(&get("/admin/../x").bearer(&alice)).assert_status(400, "malformed");
    }
    assert_eq!(come_through(&gateway, (0..5).map(|_| get("/admin/x").bearer(&alice))), 2);
    gateway.send(&get("/admin/x").bearer(&bob)).assert_status(403, "and bob is still told why");
}

#[test]
fn answers_say_how_many_more_may_come() {
    let (app, gateway) = gateway();
    for left in [2, 1, 0] {
        let answer = gateway.send(&get("/net/x"));
        answer.assert_status(200, "let through");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"gateway\";q=3;w=180"));
        let state = answer.header("ratelimit").unwrap();
        assert!(state.starts_with(&format!("\"gateway\";r={left};t=")), "{state}");
        app.only("let through");
    }
    let refused = gateway.send(&get("/net/x"));
    refused.assert_status(429, "one too many");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.json()["detail"], "Too many requests");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"gateway\";r=0;t={wait}").as_str()));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"gateway\";q=3;w=180"));
    let page = gateway.send(&get("/net/x").page_load());
    assert!(page.assert_status(429, "a page").header("content-type").unwrap().starts_with("text/html"));
    let head = gateway.send(&Request::new("HEAD", "/net/x"));
    assert!(head.assert_status(429, "HEAD").body.is_empty());
    app.assert_untouched("the fourth and later");
    let line = gateway.access_line("the line", |line| line["status"] == 429);
    assert_eq!((&line["decision"], &line["code"]), (&"rate-limited".into(), &"rate-limited".into()));
    assert!(line["upstream"].is_null());
    let why = gateway.command(&["why", line["request_id"].as_str().unwrap()]);
    assert!(why.stdout.contains("rate limit"), "{}", why.stdout);
}

#[test]
fn a_route_that_answers_itself_has_a_limit_too() {
    let (_app, gateway) = gateway();
    gateway.send(&get("/closed")).assert_status(503, "the first");
    gateway.send(&get("/closed")).assert_status(429, "the second");
}

#[test]
fn a_limit_that_is_only_observed_is_told_and_refuses_nobody() {
    let (app, gateway) = gateway();
    for _ in 0..2 {
        gateway.send(&get("/watched/x")).assert_status(200, "observed");
        app.only("let through");
    }
    let line = gateway.access_line("the line", |line| line["observed"] == "rate-limited");
    assert_eq!((&line["decision"], &line["status"]), (&"permit".into(), &200.into()));
}

#[test]
fn workers_count_together_to_the_very_number() {
    let app = Recorder::start();
    let limited = route("/**", "allow = \"anyone\"\nrate_limit = { per = \"network\", rate = \"40/d\" }");
    let gateway = Setup::new(app.address()).key("server.workers", "4").routes(&limited).start();
    let came = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let is_through = gateway.send(&get("/x")).status == 200;
                    came.fetch_add(usize::from(is_through), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(came.into_inner(), 40);
}

#[test]
fn a_reload_keeps_the_count_of_limits_that_did_not_change() {
    let app = Recorder::start();
    let limited = |rate: &str, title: &str| {
        let route =
            route("/**", &format!("allow = \"anyone\"\nrate_limit = {{ per = \"network\", rate = \"{rate}\" }}"));
        Setup::new(app.address()).key("login.title", title).routes(&route)
    };
    let gateway = limited("2/d", "\"one\"").start();
    assert_eq!(come_through(&gateway, (0..5).map(|_| get("/x"))), 2);
    gateway.reload(&limited("2/d", "\"two\""));
    gateway.send(&get("/x")).assert_status(429, "the same limit");
    gateway.reload(&limited("3/d", "\"two\""));
    assert_eq!(come_through(&gateway, (0..5).map(|_| get("/x"))), 3, "another limit");
}

#[test]
fn explain_shows_the_limit() {
    let dir = Setup::new(([127, 0, 0, 1], 1).into()).without_users().routes(&routes()).prepare();
    let ran = command(dir.path(), &["explain", "GET", "/net/x"], "").succeeded();
    assert!(ran.stdout.contains("at most 60/h per network, 3 at once; one more is answered 429"), "{}", ran.stdout);
}
