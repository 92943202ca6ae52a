//! What time does to credentials: what is remembered of a password ends in time, and a clock that jumps lets nobody in
//! who should not be, and throws nobody out.

use std::time::{Duration, Instant};

use http::Method;

use super::{Bench, say, user};
use crate::access::Decision;
use crate::clock::{Clock, Timestamp};

const BASIC: &str = r#"
    [[routes]]
    path = "/basic/**"
    allow = "signed-in"
    accept = ["basic"]
    upstream = "app"
"#;

#[tokio::test]
async fn a_password_by_basic_is_hashed_anew_after_five_minutes() {
    let bench = Bench::new(BASIC).await;
    let field = bench.basic("alice", "a long pass phrase").await;
    let began = Instant::now();
    // Whether the password was hashed for this very request.
    let mut signs_in = Vec::new();
    for seconds in [0, 1, 299, 300, 301, 599, 600] {
        let started = began + Duration::from_secs(seconds);
        match bench.decide_at(started, Method::GET, "/basic", &[&field]).await {
            Decision::Permit(permit) => signs_in.push((seconds, permit.signs_in().is_some())),
            other => panic!("{other:?}"),
        }
    }
    let expected = [(0, true), (1, false), (299, false), (300, true), (301, false), (599, false), (600, true)];
    assert_eq!(signs_in, expected);
}

/// Everyone's credentials, and what is decided of them.
async fn judged(bench: &Bench, fields: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for field in fields {
        all.push(bench.get("/any", &[field]).await.replace(", kept", ""));
    }
    all
}

#[tokio::test]
async fn a_clock_that_is_set_back_throws_nobody_out_and_lets_nobody_in() {
    let bench = Bench::new("").await;
    let ((cookie, _), (bearer, _)) = (bench.cookie("alice", false).await, bench.bearer("alice").await);
    let (ended_cookie, ended) = bench.cookie("bob", false).await;
    let (ended_bearer, ended_too) = bench.bearer("bob").await;
    let minted = format!("authorization: Bearer {}", bench.token("bob", None));
    let all = [&*cookie, &bearer, &ended_cookie, &ended_bearer, &minted];
    assert_eq!(judged(&bench, &all).await, ["alice", "alice", "bob", "bob", "bob"]);
    bench.store.end_session(&ended.id).await.unwrap();
    bench.store.end_session(&ended_too.id).await.unwrap();
    bench.store.end_sessions_of(&user("bob")).await.unwrap();
    bench.catch_up().await;
    let expected = ["alice", "alice", "sign in, cleared", "invalid", "invalid"];
    assert_eq!(judged(&bench, &all).await, expected);
    // Less than other clocks may differ by: tokens that have just been issued still count.
    let before = bench.now();
    bench.hand.set_wall(before - Duration::from_secs(29));
    bench.catch_up().await;
    assert_eq!(judged(&bench, &all).await, expected);
    // An hour: what was verified counts on, and a token that says it was issued in an hour is not believed.
    let (unseen, _) = bench.bearer("alice").await;
    bench.hand.set_wall(before - Duration::from_secs(3600));
    bench.catch_up().await;
    assert_eq!(judged(&bench, &all).await, expected);
    assert_eq!(judged(&bench, &[&unseen]).await, ["invalid"]);
    // What was ended then stays ended, and who signs in now is in.
    let (anew, _) = bench.cookie("bob", false).await;
    let (anew_bearer, _) = bench.bearer("bob").await;
    bench.catch_up().await;
    assert_eq!(judged(&bench, &[&anew, &anew_bearer]).await, ["bob", "bob"]);
    bench.hand.set_wall(before);
    bench.catch_up().await;
    assert_eq!(judged(&bench, &all).await, expected);
    assert_eq!(judged(&bench, &[&unseen]).await, ["alice"]);
    assert_eq!(judged(&bench, &[&anew]).await, ["sign in, cleared"], "not used for an hour, says the clock");
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_brings_back_what_is_not_over() {
    let bench = Bench::new("").await;
    let ((cookie, _), (bearer, _)) = (bench.cookie("alice", false).await, bench.bearer("alice").await);
    let (ended, session) = bench.bearer("bob").await;
    bench.store.end_session(&session.id).await.unwrap();
    bench.catch_up().await;
    let now = bench.now();
    for far in [30 * 86_400, 1000 * 365 * 86_400] {
        bench.hand.set_wall(now + Duration::from_secs(far));
        bench.catch_up().await;
        let over = ["sign in, cleared", "expired", "expired"];
        assert_eq!(judged(&bench, &[&cookie, &bearer, &ended]).await, over, "{far}");
        // A round of everything that tidies up.
        (0..300).for_each(|_| bench.people.revocations.forget(Clock::manual(&bench.hand).settled()));
        while bench.store.clean(1000).await.unwrap() > 0 {}
        bench.hand.set_wall(now);
        bench.catch_up().await;
        assert_eq!(judged(&bench, &[&cookie, &bearer, &ended]).await, ["alice", "alice", "invalid"], "{far}");
    }
    bench.hand.set_wall(Timestamp::from_secs(0));
    bench.catch_up().await;
    assert_eq!(judged(&bench, &[&cookie, &bearer, &ended]).await, ["alice", "alice", "invalid"], "1970");
    let decision = bench.decide(Method::GET, "/public", &[&bearer]).await;
    assert_eq!(say(&decision), "alice, kept");
}
