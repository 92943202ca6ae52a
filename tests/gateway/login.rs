//! Signing in that works: the JSON answer, the form, the cookie, `next`, and what is new at each sign-in.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::token::{claims_of, header_of, now};
use crate::common::{Gateway, Recorder, Request, Response, Setup, get, password_of, post};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    (app, gateway)
}

fn form(fields: &[(&str, &str)]) -> Request {
    let password = password_of("alice");
    let mut all = vec![("username", "alice"), ("password", password.as_str())];
    all.extend(fields);
    post("/login").form(&all)
}

/// The attributes of a cookie, lower-case, sorted, without its value.
fn attributes(response: &Response) -> (String, BTreeSet<String>) {
    let cookie = response.header("set-cookie").expect("a cookie is set");
    let mut parts = cookie.split(';').map(str::trim);
    let (name, value) = parts.next().unwrap().split_once('=').unwrap();
    assert!(value.len() >= 43, "256 bits take 43 characters, this has {value:?}");
    (name.to_owned(), parts.map(str::to_ascii_lowercase).collect())
}

/// Whether a browser that follows `location` from a page of the gateway stays on its host.
pub(super) fn stays_here(location: &str) -> bool {
    let kept: String = location.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    let kept = kept.trim_matches(|c: char| c <= ' ');
    kept == location && kept.starts_with('/') && !kept[1..].starts_with(['/', '\\'])
}

#[test]
fn answers_json_with_a_token_and_exactly_these_members() {
    let (_app, gateway) = gateway();
    let answer = gateway.sign_in("alice", &password_of("alice"));
    answer.assert_status(200, "right password");
    let body = answer.json();
    let members: BTreeSet<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    let always = ["access_token", "expires_in", "message", "token_type", "username"];
    let missing: Vec<_> = always.iter().filter(|name| !members.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {members:?}");
    let extra: Vec<_> = members.iter().filter(|name| !always.contains(name)).collect();
    assert!(extra.iter().all(|name| **name == "refresh_token"), "{extra:?}");
    assert_eq!(body["message"], "Login successful");
    assert_eq!(body["username"], "alice");
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 900);
    assert_eq!(answer.header("set-cookie"), None, "a JSON sign-in sets no cookie");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
}

#[test]
fn issues_a_token_with_the_claims_of_the_contract() {
    let (_app, gateway) = gateway();
    let token = gateway.token("alice");
    let claims = claims_of(&token);
    assert_eq!(claims["iss"], "http://127.0.0.1:8080");
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["aud"], "portcullis");
    assert_eq!(claims["groups"], json!(["admin", "staff"]));
    let (issued, expires) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert_eq!(expires - issued, 900);
    assert!((now() - issued).abs() <= 10, "issued now");
    assert!((now() - claims["auth_time"].as_i64().unwrap()).abs() <= 10, "signed in now");
    for name in ["jti", "sid"] {
        assert!(!claims[name].as_str().unwrap().is_empty(), "{name}");
    }
    assert!(claims["amr"].is_array() && claims.get("scope").is_some(), "{claims}");
    assert_eq!(header_of(&token)["alg"], "ES256");
    let again = claims_of(&gateway.token("alice"));
    assert_ne!(claims["jti"], again["jti"]);
    assert_ne!(claims["sid"], again["sid"]);
}

#[test]
fn signs_with_every_algorithm_that_needs_no_file() {
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256", "PS256"] {
        let app = Recorder::start();
        let setup = Setup::new(app.address()).key("tokens.algorithm", &format!("\"{algorithm}\""));
        let gateway = setup.start();
        let token = gateway.token("alice");
        assert_eq!(header_of(&token)["alg"], algorithm);
        gateway.send(&get("/x").bearer(&token)).assert_status(200, algorithm);
        assert_eq!(app.only(algorithm).header("x-forwarded-user").as_deref(), Some("alice"));
    }
}

#[test]
fn a_name_is_matched_without_regard_to_case() {
    let (app, gateway) = gateway();
    let answer = gateway.sign_in("ALICE", &password_of("alice"));
    let token = answer.assert_status(200, "upper case").json()["access_token"].clone();
    assert_eq!(answer.json()["username"], "alice");
    gateway.send(&get("/x").bearer(token.as_str().unwrap())).assert_status(200, "the token");
    assert_eq!(app.only("upper case").header("x-forwarded-user").as_deref(), Some("alice"));
}

#[test]
fn a_form_gets_a_session_cookie_and_no_token() {
    let (app, gateway) = gateway();
    let answer = gateway.send(&form(&[("next", "/board?a=b%20c&d=%2F")]));
    answer.assert_status(303, "right password");
    assert_eq!(answer.header("location"), Some("/board?a=b%20c&d=%2F"));
    let (name, attributes) = attributes(&answer);
    assert_eq!(name, "portcullis");
    let expected = ["httponly", "path=/", "samesite=lax"].map(str::to_owned);
    assert_eq!(attributes, BTreeSet::from(expected), "no Max-Age, no Domain, no Secure over http");
    assert!(!answer.text().contains("eyJ"), "no token in the answer to a form");
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "the cookie");
    assert_eq!(app.only("the cookie").header("x-forwarded-user").as_deref(), Some("alice"));
}

#[test]
fn a_form_without_next_goes_to_the_root() {
    let (_app, gateway) = gateway();
    let answer = gateway.send(&form(&[]));
    assert_eq!(answer.assert_status(303, "no next").header("location"), Some("/"));
}

#[test]
fn remember_sets_a_max_age() {
    let (_app, gateway) = gateway();
    let answer = gateway.send(&form(&[("remember", "on")]));
    let (_, attributes) = attributes(answer.assert_status(303, "remember"));
    assert!(attributes.contains("max-age=2592000"), "{attributes:?}");
}

#[test]
fn https_makes_the_cookie_secure_and_host_bound() {
    let app = Recorder::start();
    let url = "\"https://apps.example.com\"";
    let gateway = Setup::new(app.address()).key("server.public_url", url).start();
    let (name, attributes) = attributes(&gateway.send(&form(&[]).host("apps.example.com")));
    assert_eq!(name, "__Host-portcullis");
    let expected = ["httponly", "path=/", "samesite=lax", "secure"].map(str::to_owned);
    assert_eq!(attributes, BTreeSet::from(expected));
}

#[test]
fn a_domain_makes_the_cookie_secure_prefixed() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).key("sessions.domain", "\"example.com\"");
    let gateway = setup.key("server.public_url", "\"https://apps.example.com\"").start();
    let (name, attributes) = attributes(&gateway.send(&form(&[]).host("apps.example.com")));
    assert_eq!(name, "__Secure-portcullis");
    assert!(attributes.contains("domain=example.com") && attributes.contains("secure"));
}

#[test]
fn a_sign_in_replaces_the_session_that_was_there() {
    let (_app, gateway) = gateway();
    let old = gateway.cookie("alice");
    let answer = gateway.send(&form(&[]).cookie(&old));
    let cookie = answer.assert_status(303, "again").header("set-cookie").unwrap();
    let new = cookie.split(';').next().unwrap().to_owned();
    assert_ne!(old, new);
    gateway.send(&get("/x").cookie(&new)).assert_status(200, "the new session");
    gateway.send(&get("/x").cookie(&old)).assert_status(401, "the old session");
}

#[test]
fn a_session_key_is_never_taken_from_the_client() {
    let (app, gateway) = gateway();
    let planted = "A".repeat(43);
    let many = vec![format!("portcullis={planted}"); 50].join("; ");
    for cookie in [format!("portcullis={planted}"), many] {
        let answer = gateway.send(&form(&[]).cookie(&cookie));
        let set = answer.assert_status(303, "planted").header("set-cookie").unwrap().to_owned();
        assert!(!set.contains(&planted), "{set}");
        gateway.send(&get("/x").cookie(&cookie)).assert_status(401, "the planted cookie");
    }
    app.assert_untouched("planted cookies");
}

/// Spellings that some browser reads as another place, or that would split the header.
const ELSEWHERE: &[&str] = &[
    "//evil.example",
    "///evil.example",
    "////evil.example/..",
    r"/\evil.example",
    r"\\evil.example",
    r"\/evil.example",
    r"/\/evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "\t//evil.example",
    " //evil.example",
    "\u{1}//evil.example",
    "/%09/evil.example",
    "/%5cevil.example",
    "/%5Cevil.example",
    "/%2fevil.example",
    "%2f%2fevil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https://evil.example/",
    "HTTPS://EVIL.EXAMPLE",
    "http://good@evil.example",
    "//good@evil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,x",
    "evil.example",
    ".evil.example",
    "@evil.example",
    "/x\r\nSet-Cookie: a=b",
    "/x%0d%0aSet-Cookie:%20a=b",
    "/..//evil.example",
    "/.//evil.example",
    "/./\\evil.example",
    "/a/..//evil.example",
    "/%2e%2e//evil.example",
    "/\u{3000}/evil.example",
    "http://127.0.0.1:1/",
    "?next=//evil.example",
    "#//evil.example",
    "",
    "\0",
    "/\0/evil.example",
];

#[test]
fn next_never_leads_to_another_host() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    assert!(!ELSEWHERE.is_empty());
    for next in ELSEWHERE {
        let answer = gateway.send(&form(&[("next", next)]));
        if !matches!(answer.status, 400 | 422) {
            let location = answer.assert_status(303, next).header("location").unwrap();
            assert!(stays_here(location), "{next:?} leads to {location:?}");
            assert!(leads_home(location), "{next:?} leads to {location:?}");
            assert!(!location.contains(['\r', '\n']) && answer.all("set-cookie").len() == 1);
        }
        let query: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let answer = gateway.send(&get(&format!("/login?next={query}")).page_load().cookie(&cookie));
        if answer.status != 400 {
            let location = answer.assert_status(303, next).header("location").unwrap();
            assert!(stays_here(location) && leads_home(location), "{next:?} leads to {location:?}");
        }
    }
}

/// Whether the path of `location`, its dot segments resolved as a browser does, still has a single slash in front.
fn leads_home(location: &str) -> bool {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    kept.len() < 2 || !kept[0].is_empty()
}

#[test]
fn next_is_kept_by_the_page_and_escaped() {
    let (_app, gateway) = gateway();
    let answer = gateway.send(&get("/login?next=%2Fboard%3Fa%3D%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E"));
    let page = answer.assert_status(200, "the page").text();
    assert!(!page.contains("<script>alert"), "{page}");
    let page = gateway.send(&get("/login?next=%2Fboard%2F7")).text();
    assert!(page.contains("/board/7") || page.contains("&#x2F;board"), "{page}");
}

#[test]
fn neither_host_nor_forwarded_host_gets_into_a_location() {
    let (_app, gateway) = gateway();
    for request in [form(&[]), form(&[("next", "/a")]), get("/x").page_load()] {
        let hostile = request.host("evil.example").header("X-Forwarded-Host", "evil.example");
        let answer = gateway.send(&hostile.header("Forwarded", "host=evil.example"));
        let location = answer.assert_status(303, "hostile host").header("location").unwrap();
        assert!(stays_here(location), "{location}");
    }
}

#[test]
fn the_page_posts_to_itself_and_works_without_script() {
    let (_app, gateway) = gateway();
    let answer = gateway.send(&get("/login").page_load());
    let page = answer.assert_status(200, "the page").text();
    assert!(answer.header("content-type").unwrap().starts_with("text/html"));
    for needed in ["method=\"post\"", "name=\"username\"", "name=\"password\"", "current-password", "lang="] {
        assert!(page.contains(needed), "{needed} in {page}");
    }
    let head = gateway.send(&Request::new("HEAD", "/login").page_load());
    head.assert_status(200, "HEAD");
}

#[test]
fn someone_who_is_signed_in_is_sent_on_unless_asked_again() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let answer = gateway.send(&get("/login?next=%2Fboard").page_load().cookie(&cookie));
    assert_eq!(answer.assert_status(303, "signed in").header("location"), Some("/board"));
    let again = get("/login?again=1&next=%2Fboard").page_load().cookie(&cookie);
    gateway.send(&again).assert_status(200, "again");
    let stale = get("/login").page_load().cookie("portcullis=0000000000000000000000000000000000000000000");
    gateway.send(&stale).assert_status(200, "a stale cookie");
}

#[test]
fn the_path_and_the_answer_to_wrong_passwords_can_be_set() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).key("login.path", "\"/in\"").key("login.logout_path", "\"/out\"");
    let setup = setup.key("login.failure_status", "401").key("login.failure_detail", "\"Nope\"");
    let gateway = setup.key("login.title", "\"Example <apps>\"").start();
    let wrong = json!({ "username": "alice", "password": "wrong" });
    let answer = gateway.send(&post("/in").json(&wrong));
    assert_eq!(answer.assert_status(401, "wrong").detail(), "Nope");
    let page = gateway.send(&get("/in").page_load()).text();
    assert!(page.contains("Example &lt;apps&gt;"), "{page}");
    let location = gateway.send(&get("/board").page_load());
    assert_eq!(location.header("location"), Some("/in?next=%2Fboard"));
    gateway.send(&get("/login")).assert_status(401, "an ordinary path now");
}
