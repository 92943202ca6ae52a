//! Signing in that is refused: wrong, malformed, from another site, too often.

use serde_json::json;

use crate::common::{Gateway, Recorder, Request, Setup, get, password_of, post};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

fn json_body(name: &str, password: &str) -> Request {
    post("/login").json(&json!({ "username": name, "password": password }))
}

#[test]
fn wrong_and_unknown_get_the_same_answer() {
    let (_app, gateway) = gateway();
    let long = "a".repeat(65);
    let mut shapes = Vec::new();
    for name in ["alice", "nobody", "", "-x", "a b", "alice\u{0}", "ålice", &long] {
        let answer = gateway.sign_in(name, "wrong");
        answer.assert_status(403, name);
        assert_eq!(answer.detail(), "Invalid credentials", "{name:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("set-cookie"), None);
        let mut body = answer.json();
        body.as_object_mut().unwrap().remove("request_id");
        let names: Vec<_> = answer.headers.iter().map(|(key, _)| key.to_ascii_lowercase()).collect();
        shapes.push((body, names));
    }
    assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]), "{shapes:?}");
}

#[test]
fn a_wrong_password_shows_the_page_again() {
    let (_app, gateway) = gateway();
    let fields = [("username", "al\"><b>"), ("password", "wrong secret"), ("next", "/board/7")];
    let answer = gateway.send(&post("/login").form(&fields).page_load());
    answer.assert_status(403, "wrong");
    let page = answer.text();
    assert!(answer.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.contains("Invalid credentials") && page.contains("name=\"password\""), "{page}");
    assert!(!page.contains("\"><b>") && !page.contains("wrong secret"), "{page}");
    assert!(page.contains("/board/7") || page.contains("&#x2F;board"), "next is kept: {page}");
    assert_eq!(answer.header("set-cookie"), None);
}

#[test]
fn a_disabled_account_is_as_good_as_unknown() {
    let (_app, gateway) = gateway();
    gateway.command(&["user", "disable", "bob"]).succeeded();
    let answer = gateway.sign_in("bob", &password_of("bob"));
    assert_eq!(answer.assert_status(403, "disabled").detail(), "Invalid credentials");
    gateway.command(&["user", "enable", "bob"]).succeeded();
    gateway.sign_in("bob", &password_of("bob")).assert_status(200, "enabled again");
}

/// Bodies that are not a sign-in at all.
const MALFORMED: &[(&str, &str)] = &[
    ("application/json", ""),
    ("application/json", "{"),
    ("application/json", "[]"),
    ("application/json", "null"),
    ("application/json", "\"alice\""),
    ("application/json", "{}"),
    ("application/json", r#"{"username":"alice"}"#),
    ("application/json", r#"{"password":"x"}"#),
    ("application/json", r#"{"username":1,"password":"x"}"#),
    ("application/json", r#"{"username":"alice","password":null}"#),
    ("application/json", r#"{"username":["alice"],"password":"x"}"#),
    ("application/json", r#"{"username":"alice","password":{"$ne":""}}"#),
    ("application/json", r#"{"username":"alice","username":"bob","password":"x"}"#),
    ("application/json", r#"{"username":"alice","password":"x","password":"y"}"#),
    ("application/json", r#"{"username":"alice","\u0075sername":"bob","password":"x"}"#),
    ("application/json", r#"{"username":"alice","password":"x"} trailing"#),
    ("application/json", r#"{"username":"alice","password":"x"}{}"#),
    ("application/json", "username=alice&password=x"),
    ("application/x-www-form-urlencoded", ""),
    ("application/x-www-form-urlencoded", "username=alice"),
    ("application/x-www-form-urlencoded", "password=x"),
    ("application/x-www-form-urlencoded", "username=alice&username=bob&password=x"),
    ("application/x-www-form-urlencoded", "username=alice&password=x&password=y"),
    ("application/x-www-form-urlencoded", "username=alice&user%6eame=bob&password=x"),
    ("application/x-www-form-urlencoded", "username=alice&password=x&next=/a&next=/b"),
    ("application/x-www-form-urlencoded", r#"{"username":"alice","password":"x"}"#),
];

#[test]
fn malformed_is_said_to_be_so_and_never_counted() {
    let (app, gateway) = gateway();
    let mut client = gateway.client();
    assert!(!MALFORMED.is_empty());
    for (kind, body) in MALFORMED {
        let answer = client.send(&post("/login").body(kind, *body));
        assert!(matches!(answer.status, 400 | 422), "{} for {kind} {body:?}", answer.status);
        assert_eq!(answer.header("set-cookie"), None);
    }
    gateway.sign_in("alice", &password_of("alice")).assert_status(200, "nothing was counted");
    app.assert_untouched("malformed sign-ins");
}

#[test]
fn bytes_that_are_not_text_are_malformed() {
    let (_app, gateway) = gateway();
    let json = b"{\"username\":\"al\xffice\",\"password\":\"x\"}".to_vec();
    let form = b"username=al%ffice&password=x".to_vec();
    for (kind, body) in [("application/json", json), ("application/x-www-form-urlencoded", form)] {
        let answer = gateway.send(&post("/login").body(kind, body));
        assert!(matches!(answer.status, 400 | 403 | 422), "{kind}: {}", answer.status);
    }
}

#[test]
fn other_content_types_are_415_and_never_counted() {
    let (_app, gateway) = gateway();
    let good = json!({ "username": "alice", "password": password_of("alice") }).to_string();
    for kind in ["text/plain", "multipart/form-data; boundary=x", "application/xml", "json", "text/json"] {
        gateway.send(&post("/login").body(kind, good.clone())).assert_status(415, kind);
    }
    let untyped =
        format!("POST /login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{good}", good.len());
    let answer = crate::common::raw(gateway.address, untyped);
    assert!(answer.starts_with(b"HTTP/1.1 415"), "{}", String::from_utf8_lossy(&answer));
    let parameter = post("/login").body("application/json; charset=utf-8", good);
    gateway.send(&parameter).assert_status(200, "a parameter is no other type");
}

#[test]
fn a_sign_in_of_megabytes_is_413() {
    let (_app, gateway) = gateway();
    let password = "x".repeat(2 << 20);
    gateway.send(&json_body("alice", &password)).assert_status(413, "two megabytes");
    let form = post("/login").form(&[("username", "alice"), ("password", &password)]);
    gateway.send(&form).assert_status(413, "two megabytes as a form");
    gateway.sign_in("alice", &password_of("alice")).assert_status(200, "nothing was counted");
}

#[test]
fn a_password_counts_to_its_last_byte() {
    let (_app, gateway) = gateway();
    let long = "p".repeat(100);
    let add = ["user", "add", "long", "--password-stdin"];
    crate::common::command(gateway.dir(), &add, &format!("{long}\n")).succeeded();
    gateway.sign_in("long", &long[..72]).assert_status(403, "its first 72 bytes");
    gateway.sign_in("long", &format!("{}q", &long[..99])).assert_status(403, "another end");
    gateway.sign_in("long", &long).assert_status(200, "all of it");
    let spaced = ["user", "add", "spaced", "--password-stdin"];
    crate::common::command(gateway.dir(), &spaced, " Päss 🗝 wörd \n").succeeded();
    gateway.sign_in("spaced", "Päss 🗝 wörd").assert_status(403, "without its spaces");
    gateway.sign_in("spaced", " Päss 🗝 wörd ").assert_status(200, "with its spaces");
}

#[test]
fn credentials_in_the_query_are_not_looked_at() {
    let (app, gateway) = gateway();
    let secret = password_of("alice").replace(' ', "+");
    let query = format!("/login?username=alice&password={secret}");
    for request in [get(&query), get(&query).page_load()] {
        let answer = gateway.send(&request);
        answer.assert_status(200, "the page");
        assert_eq!(answer.header("set-cookie"), None);
        assert!(!answer.text().contains(&secret));
    }
    let answer = gateway.send(&post(&query).form(&[]));
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
    app.assert_untouched("credentials in a query");
    let ended = gateway.stop();
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(&secret), "it was logged");
}

#[test]
fn a_sign_in_from_another_site_is_refused() {
    let (_app, gateway) = gateway();
    let own = format!("http://{}", gateway.address);
    let https = format!("https://{}", gateway.address);
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[], true),
        (&[("Origin", &own)], true),
        (&[("Origin", "http://127.0.0.1:8080")], true),
        (&[("Sec-Fetch-Site", "same-origin")], true),
        (&[("Sec-Fetch-Site", "none")], true),
        (&[("Sec-Fetch-Site", "same-origin"), ("Origin", &own)], true),
        (&[("Origin", "https://evil.example")], false),
        (&[("Origin", "null")], false),
        (&[("Origin", "http://127.0.0.1")], false),
        (&[("Origin", "http://127.0.0.1:8080.evil.example")], false),
        (&[("Origin", &https)], false),
        (&[("Origin", "")], false),
        (&[("Sec-Fetch-Site", "cross-site")], false),
        (&[("Sec-Fetch-Site", "same-site")], false),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", &own)], false),
        (&[("Sec-Fetch-Site", "nonsense")], false),
        (&[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], false),
        (&[("Origin", &own), ("Origin", "https://evil.example")], false),
    ];
    let password = password_of("alice");
    for (headers, allowed) in cases {
        let form = post("/login").form(&[("username", "alice"), ("password", &password)]);
        for (request, success) in [(form, 303), (json_body("alice", &password), 200)] {
            let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
            let answer = gateway.send(&request);
            let status = if *allowed { success } else { 403 };
            answer.assert_status(status, &format!("{headers:?}"));
            assert!(*allowed || answer.header("set-cookie").is_none());
        }
    }
}

/// Answers to attempts until one is 429, and what that said.
fn attempts_until_throttled(mut attempt: impl FnMut(usize) -> crate::common::Response) -> (usize, u64) {
    for count in 0..40 {
        let answer = attempt(count);
        if answer.status == 429 {
            let after = answer.header("retry-after").expect("429 says when").parse().unwrap();
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            return (count, after);
        }
        answer.assert_status(403, "not yet throttled");
    }
    panic!("40 failures and no 429")
}

#[test]
fn an_account_is_slowed_down_after_five_failures_known_or_not() {
    for name in ["bob", "nobody-of-that-name"] {
        let (_app, gateway) = gateway();
        let mut client = gateway.client();
        let (free, after) = attempts_until_throttled(|_| client.send(&json_body(name, "wrong")));
        assert!((5..=6).contains(&free), "{free} free failures of {name}");
        assert!((1..=2).contains(&after), "the first delay is a second, not {after}");
        let right = client.send(&json_body(name, &password_of(name)));
        right.assert_status(429, "before any hashing, whatever the password");
        let form = post("/login").form(&[("username", name), ("password", "wrong")]);
        client.send(&form).assert_status(429, "a form shares the counters");
        client.send(&json_body(&name.to_uppercase(), "x")).assert_status(429, "so does another case");
        client.send(&json_body("alice", &password_of("alice"))).assert_status(200, "someone else");
    }
}

#[test]
fn a_network_is_slowed_down_after_ten_failures() {
    let (_app, gateway) = gateway();
    let mut client = gateway.client();
    let spray = |count: usize| json_body(&format!("user{count}"), "Winter2026");
    let (free, after) = attempts_until_throttled(|count| client.send(&spray(count)));
    assert!((10..=11).contains(&free), "{free} free failures");
    assert!((1..=2).contains(&after), "{after}");
}

#[test]
fn forwarded_addresses_of_strangers_do_not_reset_the_count() {
    let (_app, gateway) = gateway();
    let mut client = gateway.client();
    let spray = |count: usize| {
        let address = format!("198.51.100.{count}");
        json_body(&format!("user{count}"), "x").header("X-Forwarded-For", &address)
    };
    let (free, _) = attempts_until_throttled(|count| client.send(&spray(count)));
    assert!((10..=11).contains(&free), "{free} free failures");
}

#[test]
fn a_stranger_cannot_lock_anyone_out() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).behind_a_proxy().start();
    let mut client = gateway.client();
    let from = |request: Request, address: &str| request.header("X-Forwarded-For", address);
    let right = json_body("alice", &password_of("alice"));
    client.send(&from(right.clone(), "192.0.2.7")).assert_status(200, "alice at home");
    let wrong = |_| client.send(&from(json_body("alice", "wrong"), "198.51.100.1"));
    let (free, _) = attempts_until_throttled(wrong);
    assert!((5..=6).contains(&free), "{free}");
    let mut client = gateway.client();
    client.send(&from(right, "192.0.2.7")).assert_status(200, "alice at home, still");
}

#[test]
fn an_ipv6_network_is_a_64() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).behind_a_proxy().start();
    let mut client = gateway.client();
    let spray = |count: usize| {
        let address = format!("2001:db8:1:2:{count:x}::9");
        json_body(&format!("user{count}"), "x").header("X-Forwarded-For", &address)
    };
    let (free, _) = attempts_until_throttled(|count| client.send(&spray(count)));
    assert!((10..=11).contains(&free), "{free} free failures");
    let other = json_body("someone", "x").header("X-Forwarded-For", "2001:db8:1:3::9");
    client.send(&other).assert_status(403, "another /64");
}

#[test]
fn unlock_clears_the_counters_of_a_running_gateway() {
    let (_app, gateway) = gateway();
    let mut client = gateway.client();
    attempts_until_throttled(|_| client.send(&json_body("bob", "wrong")));
    gateway.command(&["user", "unlock", "bob"]).succeeded();
    gateway.sign_in("bob", &password_of("bob")).assert_status(200, "unlocked");
}

#[test]
fn counts_survive_a_restart() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &[]).start();
    let mut client = gateway.client();
    attempts_until_throttled(|_| client.send(&json_body("bob", "wrong")));
    let gateway = gateway.restart();
    let mut client = gateway.client();
    let (free, _) = attempts_until_throttled(|_| client.send(&json_body("bob", "wrong")));
    assert!(free <= 1, "{free} failures were free after the restart");
}
