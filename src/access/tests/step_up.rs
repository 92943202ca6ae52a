//! Where only the age or the kind of a sign-in falls short: asked again who can be helped by it, refused who can't.

use http::Method;

use super::{Bench, say};
use crate::access::{Decision, Want};

/// By the end of the path: what the rule asks for. By its beginning: what the route accepts.
const ROUTES: &str = r#"
    [[routes]]
    path = "/all/age/**"
    allow = { signed_in_within = "5m" }
    accept = ["bearer", "cookie", "basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/all/password/**"
    allow = { methods_of_sign_in = ["password"] }
    accept = ["bearer", "cookie", "basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/all/basic/**"
    allow = { methods_of_sign_in = ["basic"] }
    accept = ["bearer", "cookie", "basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/all/key/**"
    allow = { methods_of_sign_in = ["api-key"] }
    accept = ["bearer", "cookie", "basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/all/admin/**"
    allow = { groups = ["admin"], signed_in_within = "5m" }
    accept = ["bearer", "cookie", "basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/machines/age/**"
    allow = { signed_in_within = "5m" }
    accept = ["basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/machines/password/**"
    allow = { methods_of_sign_in = ["password"] }
    accept = ["basic", "api-key"]
    upstream = "app"
    [[routes]]
    path = "/tokens/password/**"
    allow = { methods_of_sign_in = ["password"] }
    accept = ["bearer", "basic"]
    upstream = "app"
"#;

const PATHS: [&str; 8] = [
    "/all/age",
    "/all/password",
    "/all/basic",
    "/all/key",
    "/all/admin",
    "/machines/age",
    "/machines/password",
    "/tokens/password",
];

/// What is decided, and by what a sign-in could help.
async fn ask(bench: &Bench, path: &str, field: &str) -> String {
    let decision = bench.decide(Method::GET, path, &[field]).await;
    match &decision {
        Decision::Challenge(challenge) if matches!(challenge.want, Want::StepUp) => {
            assert!(challenge.identity.is_some(), "{path} {field}");
            let password = if challenge.by_password { " by password" } else { "" };
            let basic = if challenge.takes_basic { " by basic" } else { "" };
            format!("again{password}{basic}")
        }
        other => say(other).replace(", kept", ""),
    }
}

#[tokio::test]
async fn whoever_can_be_helped_by_a_sign_in_is_asked_for_it_and_nobody_else() {
    let bench = Bench::new(ROUTES).await;
    let basic = bench.basic("bob", "a long pass phrase").await;
    let ((cookie, _), (bearer, _)) = (bench.cookie("bob", false).await, bench.bearer("bob").await);
    let key = bench.api_key("bob").await;
    bench.pass(301).await;
    let (password, both) = ("again by password", "again by password by basic");
    for (what, field, expected) in [
        ("cookie", &cookie, [password, "bob", "denied", "denied", "denied", "sign in", "sign in", "sign in"]),
        ("token", &bearer, [both, "bob", "again by basic", "denied", "denied", "sign in", "sign in", "bob"]),
        // It comes with its password, which is never old.
        ("basic", &basic, ["bob", password, "bob", "denied", "denied", "bob", "denied", password]),
        // No sign-in, and nobody who could sign in anew.
        ("key", &key, ["denied", "denied", "denied", "bob", "denied", "denied", "denied", "sign in"]),
    ] {
        for (path, expected) in PATHS.into_iter().zip(expected) {
            assert_eq!(ask(&bench, path, field).await, expected, "{what} on {path}");
        }
    }
}
