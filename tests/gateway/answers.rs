//! What the gateway itself answers: to a browser or a program, with which fields, and what it writes down.

use crate::common::{Gateway, Recorder, Request, Setup, get, password_of, post};

pub(super) fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).user("bob", &["--groups", "staff"]);
    let gateway = setup.key("log.format", "\"json\"").start();
    (app, gateway)
}

#[test]
fn a_page_load_is_told_apart_from_a_program() {
    let (app, gateway) = gateway();
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[], false),
        (&[("Accept", "*/*")], false),
        (&[("Accept", "application/json")], false),
        (&[("Accept", "text/*")], false),
        (&[("Accept", "text/html")], true),
        (&[("Accept", "application/xhtml+xml, TEXT/HTML;q=0.9, */*;q=0.1")], true),
        (&[("Sec-Fetch-Mode", "navigate")], true),
        (&[("Sec-Fetch-Mode", "navigate"), ("Accept", "*/*")], true),
        (&[("Sec-Fetch-Mode", "cors"), ("Accept", "text/html")], false),
        (&[("Sec-Fetch-Mode", "no-cors"), ("Accept", "text/html")], false),
        (&[("Sec-Fetch-Mode", "same-origin")], false),
        (&[("Sec-Fetch-Mode", "websocket"), ("Accept", "text/html")], false),
        (&[("X-Requested-With", "XMLHttpRequest")], false),
    ];
    for (headers, page) in cases {
        let with =
            |request: Request| headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let context = format!("{headers:?}");
        let answer = gateway.send(&with(get("/board?a=b%20c")));
        if *page {
            answer.assert_status(303, &context);
            assert_eq!(answer.header("location"), Some("/login?next=%2Fboard%3Fa%3Db%2520c"), "{context}");
            assert_eq!(answer.header("www-authenticate"), None);
            let head = gateway.send(&with(Request::new("HEAD", "/board")));
            head.assert_status(303, "HEAD");
            let posted = gateway.send(&with(post("/board")));
            posted.assert_status(401, "a POST is never turned into a GET");
            assert!(posted.header("content-type").unwrap().starts_with("text/html"));
            assert!(posted.text().contains("/login"), "a link");
        } else {
            answer.assert_status(401, &context);
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{context}");
        }
        let missing = gateway.send(&with(get("/.gateway/missing")));
        let kind = missing.assert_status(404, &context).header("content-type").unwrap();
        assert_eq!(kind.starts_with("text/html"), *page, "{context}");
    }
    app.assert_untouched("strangers");
}

/// Asserts what every answer of the gateway itself carries.
#[track_caller]
fn assert_own_fields(answer: &crate::common::Response, context: &str) {
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{context}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{context}");
    assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{context}");
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{context}: a CSP"));
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), "{context}: {policy}");
    assert!(!policy.contains("unsafe-"), "{context}: {policy}");
    assert_eq!(answer.header("server"), None, "{context}");
    assert_eq!(answer.header("x-powered-by"), None, "{context}");
}

#[test]
fn every_own_answer_carries_the_fields_of_a_sign_in_page() {
    let (_app, gateway) = gateway();
    let (cookie, token) = (gateway.cookie("bob"), gateway.token("bob"));
    let wrong = post("/login").form(&[("username", "bob"), ("password", "wrong")]);
    let password = password_of("bob");
    let right = post("/login").form(&[("username", "bob"), ("password", &password)]);
    let cases: Vec<(&str, Request, u16)> = vec![
        ("the page", get("/login").page_load(), 200),
        ("wrong password", wrong, 403),
        ("sign-in", right, 303),
        ("log-out page", get("/logout").page_load().cookie(&cookie), 200),
        ("malformed sign-in", post("/login").body("application/json", "{"), 400),
        ("other type", post("/login").body("text/plain", "x"), 415),
        ("other method", Request::new("PUT", "/login"), 405),
        ("to sign in", get("/x").page_load(), 303),
        ("not authenticated", get("/x"), 401),
        ("bad token", get("/x").bearer("x"), 401),
        ("not allowed", get("/admin/x").bearer(&token), 403),
        ("not allowed, page", get("/admin/x").page_load().cookie(&cookie), 403),
        ("unknown", get("/.gateway/x"), 404),
        ("ambiguous", get("/a/../b"), 400),
        ("TRACE", Request::new("TRACE", "/x"), 405),
        ("cross-site", post("/x").cookie(&cookie).header("Sec-Fetch-Site", "cross-site"), 403),
        ("log-out", post("/logout").bearer(&token), 204),
    ];
    for (context, request, status) in cases {
        let answer = gateway.send(&request);
        if context == "malformed sign-in" {
            assert!(matches!(answer.status, 400 | 422));
        } else {
            answer.assert_status(status, context);
        }
        assert_own_fields(&answer, context);
    }
}

#[test]
fn problems_have_the_members_of_the_contract_and_differ_in_their_id() {
    let (_app, gateway) = gateway();
    let token = gateway.token("bob");
    let mut ids = std::collections::BTreeSet::new();
    let requests = [
        get("/x"),
        get("/x"),
        get("/admin/x").bearer(&token),
        get("/.gateway/x"),
        get("/a/../b"),
        Request::new("PUT", "/login"),
    ];
    for request in &requests {
        let answer = gateway.send(request);
        let body = answer.json();
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(body["status"], answer.status);
        for member in ["type", "title", "detail", "request_id"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        }
        ids.insert(body["request_id"].to_string());
    }
    assert_eq!(ids.len(), requests.len());
}

#[test]
fn other_methods_are_405_with_allow() {
    let (app, gateway) = gateway();
    for path in ["/login", "/logout"] {
        for method in ["PUT", "DELETE", "PATCH", "PROPFIND", "OPTIONS"] {
            let answer = gateway.send(&Request::new(method, path));
            let allow = answer.assert_status(405, &format!("{method} {path}")).header("allow").unwrap().to_owned();
            assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
        }
    }
    for path in ["/x", "/public/x", "/login"] {
        let request = Request::new("TRACE", path).bearer("secret-of-mine").cookie("a=secret-of-mine");
        let answer = gateway.send(&request);
        answer.assert_status(405, path);
        assert!(!answer.text().contains("secret-of-mine"));
    }
    app.assert_untouched("other methods");
}

#[test]
fn a_refusal_names_the_account_and_offers_another() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("bob");
    let page = gateway.send(&get("/admin/x").page_load().cookie(&cookie));
    let text = page.assert_status(403, "not allowed").text();
    assert!(text.contains("bob") && text.contains("again=1"), "{text}");
    let id = gateway.send(&get("/admin/x").cookie(&cookie)).json()["request_id"].clone();
    assert!(id.is_string());
}

#[test]
fn what_is_reflected_is_escaped() {
    let (_app, gateway) = gateway();
    for path in [
        "/<script>alert(1)</script>",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        "/.gateway/%3Cscript%3Ealert(1)%3C/script%3E?<script>alert(1)",
    ] {
        let answer = gateway.send(&get(path).page_load().header("X", "<script>alert(1)</script>"));
        assert!(!answer.text().contains("<script>alert"), "{path}: {}", answer.text());
    }
}

#[test]
fn a_browser_that_keeps_no_cookies_is_told_so() {
    let (_app, gateway) = gateway();
    let password = password_of("alice");
    let form = post("/login").page_load().form(&[("username", "alice"), ("password", &password), ("next", "/board")]);
    let answer = gateway.send(&form);
    let first = answer.assert_status(303, "signed in").header("location").unwrap().to_owned();
    // Follow without ever sending the cookie back: within a few steps there is a page that says why.
    let mut location = first;
    for _ in 0..4 {
        let answer = gateway.send(&get(&location).page_load());
        match answer.header("location") {
            Some(next) => next.clone_into(&mut location),
            None => {
                let text = answer.text().to_lowercase();
                assert!(text.contains("cookie") || text.contains("name=\"password\""), "{text}");
                return;
            }
        }
    }
    panic!("round and round: {location}");
}
