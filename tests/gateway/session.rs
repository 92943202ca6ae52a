//! The session cookie through its life: shown, ended, doubled, tampered with, and kept from the application.

use crate::common::recorder::reply;
use crate::common::{Answer, Gateway, Recorder, Setup, get, post, until};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

/// Asserts that `cookie` (a `Set-Cookie` value) takes the session cookie away.
#[track_caller]
fn assert_clears(cookie: Option<&str>) {
    let cookie = cookie.expect("the cookie is cleared").to_ascii_lowercase();
    assert!(cookie.starts_with("portcullis=;") || cookie.starts_with("portcullis=\"\";"), "{cookie}");
    assert!(cookie.contains("max-age=0") || cookie.contains("1970"), "{cookie}");
    assert!(cookie.contains("path=/"), "the attributes that it was set with: {cookie}");
}

#[test]
fn log_out_ends_a_session_everywhere_and_clears_the_cookie() {
    let (app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "before");
    app.take();
    let answer = gateway.send(&post("/logout").cookie(&cookie));
    answer.assert_status(204, "log-out");
    assert_clears(answer.header("set-cookie"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    gateway.send(&get("/x").cookie(&cookie)).assert_status(401, "after");
    app.assert_untouched("after log-out");
}

#[test]
fn log_out_as_a_page_load_goes_on_to_a_page() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let answer = gateway.send(&post("/logout").page_load().cookie(&cookie).form(&[]));
    let location = answer.assert_status(303, "a page load").header("location").unwrap();
    assert!(location.starts_with('/') && !location.starts_with("//"), "{location}");
    assert_clears(answer.header("set-cookie"));
    gateway.send(&get("/x").cookie(&cookie)).assert_status(401, "after");
}

#[test]
fn getting_the_log_out_page_ends_nothing() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let page = gateway.send(&get("/logout").page_load().cookie(&cookie));
    page.assert_status(200, "the page");
    assert!(page.text().contains("<button") && page.text().contains("method=\"post\""), "{}", page.text());
    assert_eq!(page.header("set-cookie"), None);
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "still signed in");
}

#[test]
fn log_out_from_another_site_is_refused() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let refused: &[(&str, &str)] = &[
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ];
    for (name, value) in refused {
        let answer = gateway.send(&post("/logout").cookie(&cookie).header(name, value));
        answer.assert_status(403, value);
        assert_eq!(answer.header("set-cookie"), None);
    }
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "still signed in");
}

#[test]
fn an_unsafe_method_on_a_cookie_must_come_from_the_same_site() {
    let (app, gateway) = gateway();
    let (cookie, token) = (gateway.cookie("alice"), gateway.token("alice"));
    let own = format!("http://{}", gateway.address);
    let cases: &[(&str, &str, u16)] = &[
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "none", 200),
        ("Origin", &own, 200),
        ("Origin", "http://127.0.0.1:8080", 200),
        ("X-Unrelated", "no Origin at all", 200),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
        for (name, value, status) in cases {
            let request = crate::common::Request::new(method, "/x").header(name, value);
            let context = format!("{method} {name}: {value}");
            gateway.send(&request.clone().cookie(&cookie)).assert_status(*status, &context);
            assert_eq!(app.take().len(), usize::from(*status == 200), "{context}");
            gateway.send(&request.bearer(&token)).assert_status(200, "a token is no cookie");
            app.take();
        }
    }
    let read = get("/x").cookie(&cookie).header("Sec-Fetch-Site", "cross-site");
    gateway.send(&read).assert_status(200, "a link from elsewhere");
}

#[test]
fn origins_of_a_route_may_send_unsafe_methods() {
    let app = Recorder::start();
    let routes = r#"
        [[routes]]
        path = "/**"
        allow = "signed-in"
        upstream = "app"
        origins = ["https://front.example"]
    "#;
    let gateway = Setup::new(app.address()).routes(routes).start();
    let cookie = gateway.cookie("alice");
    for (origin, status) in
        [("https://front.example", 200), ("https://front.example.evil", 403), ("http://front.example", 403)]
    {
        let request = post("/x").cookie(&cookie).header("Origin", origin);
        gateway.send(&request).assert_status(status, origin);
    }
}

#[test]
fn a_cookie_that_is_not_good_counts_as_none_and_is_cleared() {
    let (app, gateway) = gateway();
    let good = gateway.cookie("alice");
    let value = good.split_once('=').unwrap().1;
    let mut flipped = value.to_owned();
    let first = if flipped.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(..1, first);
    let longer = format!("{value}A");
    let long = "A".repeat(4000);
    for bad in ["", "x", &flipped, &value[1..], &longer, "%00", "null", &long, "../../etc/passwd"] {
        let cookie = format!("portcullis={bad}");
        let answer = gateway.send(&get("/x").cookie(&cookie));
        answer.assert_status(401, bad);
        assert_eq!(answer.detail(), "Not authenticated");
        assert_clears(answer.header("set-cookie"));
        let page = gateway.send(&get("/x").page_load().cookie(&cookie));
        page.assert_status(303, bad);
        app.assert_untouched(bad);
    }
}

#[test]
fn of_several_the_one_that_verifies_counts_and_two_sessions_count_as_none() {
    let (app, gateway) = gateway();
    let (alice, bob) = (gateway.cookie("alice"), gateway.cookie("bob"));
    let one_good = [
        format!("{alice}; portcullis=garbage"),
        format!("portcullis=garbage; {alice}"),
        format!("{alice}; {alice}"),
        format!("a=b; {alice}; portcullis=; c=d"),
    ];
    for cookie in &one_good {
        gateway.send(&get("/x").cookie(cookie)).assert_status(200, cookie);
        let seen = app.only(cookie);
        assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
        assert!(!seen.header("cookie").unwrap_or_default().contains("portcullis"), "{cookie}");
    }
    for (first, second) in [(&alice, &bob), (&bob, &alice)] {
        gateway.send(&get("/x").cookie(&format!("{first}; {second}"))).assert_status(401, "two sessions");
        let apart = get("/x").cookie(first).cookie(second);
        gateway.send(&apart).assert_status(401, "two sessions in two headers");
    }
    app.assert_untouched("two sessions");
}

#[test]
fn names_that_only_look_like_ours_are_not_ours() {
    let (app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let value = cookie.split_once('=').unwrap().1;
    for name in ["Portcullis", "PORTCULLIS", "portcullis2", "xportcullis", "__Host-portcullis", "__Secure-portcullis"] {
        gateway.send(&get("/x").cookie(&format!("{name}={value}"))).assert_status(401, name);
    }
    gateway.send(&get(&format!("/x?portcullis={value}"))).assert_status(401, "in the query");
    app.assert_untouched("other names");
}

#[test]
fn other_cookies_go_on_byte_for_byte() {
    let (app, gateway) = gateway();
    let ours = gateway.cookie("alice");
    let cases = [
        (ours.clone(), None),
        (format!("a=1; {ours}"), Some("a=1")),
        (format!("{ours}; a=1"), Some("a=1")),
        (format!("a=1; {ours}; b=\"q q\"; c=%zz"), Some("a=1; b=\"q q\"; c=%zz")),
        (format!("sid=abc==; {ours}; e=; =v; flag"), Some("sid=abc==; e=; =v; flag")),
        (format!("{ours}; portcullis_theme=dark"), Some("portcullis_theme=dark")),
    ];
    for (cookie, expected) in cases {
        gateway.send(&get("/x").cookie(&cookie)).assert_status(200, &cookie);
        assert_eq!(app.only(&cookie).header("cookie").as_deref(), expected, "{cookie}");
    }
    for untouched in ["a=1;b=2", "a=1;  b=2", "a=1; a=1", "x=\"y;z\""] {
        gateway.send(&get("/public/x").cookie(untouched)).assert_status(200, untouched);
        assert_eq!(app.only(untouched).header("cookie").as_deref(), Some(untouched));
    }
}

#[test]
fn an_application_cannot_set_our_cookie() {
    let app = Recorder::answering(|_| {
        let fields = "Set-Cookie: portcullis=planted; Path=/\r\nSet-Cookie: theme=dark; Path=/\r\n\
                      set-cookie:portcullis=again\r\nSet-Cookie:  portcullis =spaced\r\nSet-Cookie: portcullis2=theirs\r\n";
        Answer::Keep(reply("200 OK", fields, "hello"))
    });
    let gateway = Setup::new(app.address()).start();
    let cookie = gateway.cookie("alice");
    for request in [get("/public/x"), get("/x").cookie(&cookie)] {
        let answer = gateway.send(&request);
        answer.assert_status(200, "Set-Cookie from the application");
        assert_eq!(answer.all("set-cookie"), ["theme=dark; Path=/", "portcullis2=theirs"]);
    }
}

#[test]
fn a_proxied_answer_never_renews_the_cookie() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.send(&get("/x").cookie(&cookie)).header("set-cookie"), None);
    }
}

#[test]
fn a_session_ends_with_its_lifetime_or_unused() {
    for key in ["sessions.lifetime", "sessions.idle"] {
        let app = Recorder::start();
        let gateway = Setup::new(app.address()).key(key, "\"1s\"").start();
        let cookie = gateway.cookie("alice");
        if key == "sessions.idle" {
            // Each attempt is a use; so the session is left alone for longer than it may be.
            std::thread::park_timeout(std::time::Duration::from_millis(2500));
            gateway.send(&get("/x").cookie(&cookie)).assert_status(401, key);
        } else {
            until("the end of the session", || (gateway.send(&get("/x").cookie(&cookie)).status == 401).then_some(()));
        }
    }
}

#[test]
fn events_on_a_user_end_sessions_at_once() {
    let (app, gateway) = gateway();
    let cookie = gateway.cookie("bob");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "before");
    gateway.command(&["user", "disable", "bob"]).succeeded();
    until("the refusal", || (gateway.send(&get("/x").cookie(&cookie)).status == 401).then_some(()));
    gateway.command(&["user", "enable", "bob"]).succeeded();
    gateway.sign_in("bob", &crate::common::password_of("bob")).assert_status(200, "enabled");
    app.take();
    gateway.send(&get("/x").cookie(&cookie)).assert_status(401, "the old session stays ended");
    app.assert_untouched("the old session");
}

#[test]
fn sessions_survive_a_restart_and_log_out_does_too() {
    let (_app, gateway) = gateway();
    let (kept, ended) = (gateway.cookie("alice"), gateway.cookie("alice"));
    gateway.send(&post("/logout").cookie(&ended)).assert_status(204, "log-out");
    let gateway = gateway.restart();
    gateway.send(&get("/x").cookie(&kept)).assert_status(200, "the kept one");
    gateway.send(&get("/x").cookie(&ended)).assert_status(401, "the ended one");
}

#[test]
fn the_key_is_not_in_the_store_as_it_is() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let value = cookie.split_once('=').unwrap().1.to_owned();
    let password = crate::common::password_of("alice");
    let mut files = 0;
    for entry in std::fs::read_dir(gateway.dir()).unwrap().flatten() {
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        files += 1;
        let bytes = std::fs::read(entry.path()).unwrap();
        for secret in [value.as_bytes(), password.as_bytes()] {
            let found = bytes.windows(secret.len()).any(|part| part == secret);
            assert!(!found, "{:?} holds a secret", entry.path());
        }
    }
    assert!(files >= 2, "the configuration and the store");
}
