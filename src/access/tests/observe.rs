//! Routes that are observed: what passes, in whose name, and what is refused all the same.

use super::*;
use crate::identity::api_key::{self, ApiKeyText};
use crate::store::ApiKeyRecord;

/// Observed routes, and below them one that is not.
const OBSERVED: &str = r#"
    [upstreams]
    app = "http://127.0.0.1:1"
    [[routes]]
    name = "strict"
    path = "/strict/**"
    allow = { groups = ["admin"] }
    upstream = "app"
    [[routes]]
    name = "loose"
    path = "/loose/**"
    allow = "nobody"
    observe = true
    upstream = "app"
    [[routes]]
    name = "admin"
    path = "/admin/**"
    allow = { groups = ["admin"] }
    accept = ["bearer", "cookie", "basic", "api-key"]
    observe = true
    upstream = "app"
    [[routes]]
    name = "other"
    path = "/other/**"
    allow = "signed-in"
    accept = ["api-key"]
    upstream = "app"
    [[routes]]
    name = "enforced"
    path = "/enforced/**"
    allow = "signed-in"
    upstream = "app"
    [[routes]]
    name = "fresh"
    path = "/fresh/**"
    allow = { signed_in_within = "5m" }
    observe = true
    upstream = "app"
    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    observe = true
    upstream = "app"
"#;

async fn bench() -> Bench {
    let bench = Bench::new("").await;
    bench.reload("", OBSERVED).await;
    bench
}

/// What is decided, and what would have been.
async fn both(bench: &Bench, method: Method, path: &str, fields: &[&str]) -> (String, String) {
    let decision = bench.decide(method, path, fields).await;
    let instead = match &decision {
        Decision::Permit(permit) => permit.instead().map(say).unwrap_or_default(),
        _ => String::new(),
    };
    (say(&decision), instead)
}

#[tokio::test]
async fn what_would_be_refused_passes_in_the_name_of_a_good_credential_only() {
    let bench = bench().await;
    let (alice, _) = bench.cookie("alice", false).await;
    let (bob, _) = bench.bearer("bob").await;
    let stale = format!("cookie: portcullis={}", "A".repeat(43));
    let table: [(&str, &[&str], &str, &str); 10] = [
        ("/admin", &[&alice], "alice", ""),
        ("/admin", &[&bob], "bob, kept", "denied"),
        ("/admin", &[], "nobody", "sign in"),
        ("/admin", &["authorization: Bearer x.y.z"], "nobody, kept", "invalid"),
        ("/admin", &["authorization: Basic eDp5"], "nobody, kept", "wrong"),
        ("/admin", &[&stale], "nobody, cleared", "sign in, cleared"),
        ("/loose", &[&alice], "alice", "denied"),
        ("/loose", &["authorization: Bearer x", &alice], "nobody, kept", "invalid"),
        ("/rest", &[], "nobody", "sign in"),
        ("/enforced", &[], "sign in", ""),
    ];
    for (path, fields, decided, instead) in table {
        let found = both(&bench, Method::GET, path, fields).await;
        assert_eq!(found, (decided.to_owned(), instead.to_owned()), "{path} {fields:?}");
    }
    bench.pass(301).await;
    assert_eq!(both(&bench, Method::GET, "/fresh", &[&alice]).await, ("alice".to_owned(), "sign in again".to_owned()));
    bench.pass(600).await;
    assert_eq!(both(&bench, Method::GET, "/rest", &[&bob]).await, ("nobody, kept".to_owned(), "expired".to_owned()));
}

#[tokio::test]
async fn a_route_that_is_not_observed_refuses_under_every_reading() {
    let bench = bench().await;
    let (bob, _) = bench.cookie("bob", false).await;
    for path in ["/x//strict/y", "/%2Fstrict/y", "//strict/y", "/strict;a=b/y", "/STRICT/y"] {
        let (decided, instead) = both(&bench, Method::GET, path, &[&bob]).await;
        let is_of_rest = path.starts_with("/x");
        let expected = if is_of_rest { ("bob", "") } else { ("denied", "") };
        assert_eq!((decided.as_str(), instead.as_str()), expected, "{path}");
    }
    for (fields, expected) in [(&[][..], "sign in"), (&["authorization: Bearer x"], "invalid")] {
        let (decided, _) = both(&bench, Method::GET, "//strict/y", fields).await;
        assert_eq!(decided, expected, "{fields:?}");
    }
    // The other way round: what the enforced route lets pass, an observed one below a reading does not stop.
    let (decided, instead) = both(&bench, Method::GET, "//loose", &[&bob]).await;
    assert_eq!((decided.as_str(), instead.as_str()), ("bob", "denied"));
}

#[tokio::test]
async fn what_another_site_sends_passes_without_the_name() {
    let bench = bench().await;
    let (alice, _) = bench.cookie("alice", false).await;
    let foreign = [alice.as_str(), "sec-fetch-site: cross-site"];
    let found = both(&bench, Method::POST, "/admin", &foreign).await;
    assert_eq!(found, ("nobody".to_owned(), "cross-site".to_owned()));
    assert_eq!(both(&bench, Method::POST, "/enforced", &foreign).await.0, "cross-site");
    let (decided, _) = both(&bench, Method::POST, "//enforced", &foreign).await;
    assert_eq!(decided, "sign in", "without the name the enforced route says no");
    for fields in [&["authorization: Bearer x", "authorization: Bearer y"][..]] {
        assert_eq!(both(&bench, Method::GET, "/admin", fields).await.0, "malformed");
    }
}

#[tokio::test]
async fn a_key_for_other_routes_gives_no_name_here() {
    let bench = bench().await;
    let text = api_key::generate(&Random::system());
    let parsed = ApiKeyText::parse(text.expose()).unwrap();
    let record = ApiKeyRecord {
        id: parsed.id().to_owned(),
        key_hash: parsed.digest(),
        name: "robot".to_owned(),
        user: user("alice"),
        groups: None,
        scopes: Vec::new(),
        routes: Some(vec!["other".to_owned()]),
        created_at: bench.now(),
        expires_at: None,
        last_used: None,
    };
    assert!(bench.store.add_api_key(record).await.unwrap());
    bench.catch_up().await;
    let field = format!("x-api-key: {}", text.expose());
    assert_eq!(both(&bench, Method::GET, "/other", &[&field]).await.0, "alice");
    let found = both(&bench, Method::GET, "/admin", &[&field]).await;
    assert_eq!(found, ("nobody".to_owned(), "denied".to_owned()), "though alice is an administrator");
}

#[tokio::test]
async fn a_stream_ends_when_the_route_is_observed_no_more() {
    let bench = bench().await;
    let (bob, opened) = bench.cookie("bob", false).await;
    let (nobody, named) = (bench.lease("/rest", &[]).await, bench.lease("/admin", &[&bob]).await);
    assert!(!ends_soon(&nobody).await && !ends_soon(&named).await);
    bench.store.end_session(&opened.id).await.unwrap();
    bench.catch_up().await;
    assert!(ends_soon(&named).await, "the name does not hold any more");
    assert!(!ends_soon(&nobody).await);
    bench.reload("", &OBSERVED.replace("observe = true", "")).await;
    assert!(ends_soon(&nobody).await);
}

#[tokio::test]
async fn a_store_that_is_down_stops_no_observed_request_and_names_nobody() {
    let bench = bench().await;
    let (bearer, _) = bench.bearer("alice").await;
    bench.hand.advance(Duration::from_secs(31));
    let found = both(&bench, Method::GET, "/admin", &[&bearer]).await;
    assert_eq!(found, ("nobody, kept".to_owned(), "unavailable".to_owned()));
    assert_eq!(both(&bench, Method::GET, "/enforced", &[&bearer]).await.0, "unavailable");
}
