//! What a change of the configuration does to whoever is there already.

use super::*;

#[tokio::test]
async fn a_reload_takes_in_other_rules_and_keeps_who_is_known() {
    let bench = Bench::new("").await;
    let ((cookie, _), (bearer, _)) = (bench.cookie("alice", false).await, bench.bearer("alice").await);
    for field in [&cookie, &bearer] {
        assert!(bench.get("/any", &[field]).await.starts_with("alice"));
    }
    let (stays, ends) = (bench.lease("/any", &[&bearer]).await, bench.lease("/token", &[&bearer]).await);
    let narrowed = ROUTES.replacen(
        "path = \"/token/**\"\n    allow = \"signed-in\"",
        "path = \"/token/**\"\n    allow = \"nobody\"",
        1,
    );
    assert_ne!(narrowed, ROUTES);
    bench.reload("", &narrowed).await;
    assert!(ends_soon(&ends).await && !ends_soon(&stays).await);
    assert_eq!(bench.get("/token", &[&bearer]).await, "denied");
    bench.store.set_disabled(&user("alice"), true).await.unwrap();
    bench.catch_up().await;
    bench.reload("", ROUTES).await;
    for (field, said) in [(&cookie, "sign in, cleared"), (&bearer, "invalid")] {
        assert_eq!(bench.get("/any", &[field]).await, said, "what was revoked stays so");
    }
    assert!(ends_soon(&stays).await);
}

#[tokio::test]
async fn a_token_that_verified_before_a_reload_meets_the_terms_of_after() {
    let bench = Bench::new("").await;
    let (bearer, _) = bench.bearer("alice").await;
    let lease = bench.lease("/any", &[&bearer]).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "alice, kept");
    bench.reload("[tokens]\nlifetime = \"1m\"", ROUTES).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "alice, kept");
    assert!(!ends_soon(&lease).await);
    bench.reload("[tokens]\naudience = \"others\"", ROUTES).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "invalid");
    assert!(ends_soon(&lease).await);
    let (bearer, _) = bench.bearer("alice").await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "alice, kept");
    bench.reload("", ROUTES).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "invalid");
}

#[tokio::test]
async fn another_idle_time_counts_for_sessions_that_are_there() {
    let bench = Bench::new("[sessions]\nidle = \"10m\"").await;
    let (cookie, _) = bench.cookie("alice", false).await;
    let (remembered, _) = bench.cookie("alice", true).await;
    for field in [&cookie, &remembered] {
        assert_eq!(bench.get("/any", &[field]).await, "alice");
    }
    bench.reload("[sessions]\nidle = \"1m\"", ROUTES).await;
    bench.pass(59).await;
    assert_eq!(bench.get("/any", &[&cookie]).await, "alice");
    bench.pass(60).await;
    assert_eq!(bench.get("/any", &[&cookie]).await, "sign in, cleared");
    assert_eq!(bench.get("/any", &[&remembered]).await, "alice");
}

#[tokio::test]
async fn a_longer_life_of_tokens_finds_the_revocations_that_were_forgotten() {
    let bench = Bench::new("[tokens]\nmax_lifetime = \"1h\"\nlifetime = \"1h\"").await;
    let ((bearer, opened), (other, _)) = (bench.bearer("alice").await, bench.bearer("alice").await);
    let claims =
        bench.own_keys.ring().verify(bearer.rsplit(' ').next().unwrap(), bench.now()).unwrap().claims().clone();
    assert_eq!(bench.get("/any", &[&other]).await, "alice, kept");
    bench.store.end_session(&opened.id).await.unwrap();
    bench.catch_up().await;
    bench.pass(5 * 3600).await;
    (0..10_000).for_each(|_| bench.people.revocations.forget(bench.now()));
    assert!(bench.people.revocations.refuses(&claims).is_none(), "no token of then can be alive");
    bench.reload("[tokens]\nmax_lifetime = \"24h\"", ROUTES).await;
    assert!(bench.people.revocations.refuses(&claims).is_some(), "one could be now");
}
