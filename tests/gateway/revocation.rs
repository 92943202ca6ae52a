//! `/.gateway/revoke`, `introspect` and `userinfo`: tokens given back, looked at, and asked about.

use crate::common::token::{claims_with, mint, now};
use crate::common::{Gateway, Recorder, Request, Response, Setup, get, password_of, post, until};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let bob = ["--groups", "staff", "--email", "bob@example.com", "--name", "Bob B."];
    let gateway = Setup::new(app.address()).shared_secret().user("bob", &bob).start();
    (app, gateway)
}

fn tokens(gateway: &Gateway, name: &str) -> (String, String) {
    let answer = gateway.sign_in(name, &password_of(name));
    let of = |member: &str| answer.json()[member].as_str().unwrap().to_owned();
    (of("access_token"), of("refresh_token"))
}

fn refresh(gateway: &Gateway, token: &str) -> Response {
    gateway.send(&post("/.gateway/token").form(&[("grant_type", "refresh_token"), ("refresh_token", token)]))
}

fn revoke(gateway: &Gateway, token: &str) {
    gateway.send(&post("/.gateway/revoke").form(&[("token", token)])).assert_status(200, "revoked");
}

fn introspect(token: &str) -> Request {
    post("/.gateway/introspect").form(&[("token", token)])
}

#[test]
fn a_revoked_refresh_token_ends_its_session_and_no_other() {
    let (app, gateway) = gateway();
    let (access, token) = tokens(&gateway, "bob");
    let (other, other_refresh) = tokens(&gateway, "bob");
    revoke(&gateway, &token);
    gateway.send(&get("/x").bearer(&access)).assert_status(401, "the next request");
    app.assert_untouched("a revoked token");
    refresh(&gateway, &token).assert_status(400, "its refresh token");
    gateway.send(&get("/x").bearer(&other)).assert_status(200, "the other session");
    refresh(&gateway, &other_refresh).assert_status(200, "the other refresh token");
    revoke(&gateway, &token);
}

#[test]
fn a_revoked_access_token_ends_its_session_or_itself() {
    let (_app, gateway) = gateway();
    let (access, token) = tokens(&gateway, "bob");
    revoke(&gateway, &access);
    gateway.send(&get("/x").bearer(&access)).assert_status(401, "the token");
    refresh(&gateway, &token).assert_status(400, "its session");
    let minted = |jti: &str| mint(&claims_with("bob", serde_json::json!({ "jti": jti })));
    let (one, other) = (minted("one"), minted("other"));
    gateway.send(&get("/x").bearer(&one)).assert_status(200, "before");
    revoke(&gateway, &one);
    gateway.send(&get("/x").bearer(&one)).assert_status(401, "by its jti");
    gateway.send(&get("/x").bearer(&other)).assert_status(200, "another jti");
    let gateway = gateway.restart();
    gateway.send(&get("/x").bearer(&one)).assert_status(401, "after a restart");
}

#[test]
fn log_out_of_a_token_without_a_name_ends_those_like_it_that_are_no_newer_and_no_session() {
    for by_revoke in [false, true] {
        let (_app, gateway) = gateway();
        let (session, cookie, bob) = (gateway.token("alice"), gateway.cookie("alice"), gateway.token("bob"));
        let now = now();
        let nameless = |name: &str, iat: i64| {
            mint(&claims_with(name, serde_json::json!({ "jti": null, "iat": iat, "exp": iat + 600 })))
        };
        // One of a clock that is ahead: its log-out must end it all the same.
        let (older, this, newer, theirs) = (
            nameless("alice", now - 100),
            nameless("alice", now + 20),
            nameless("alice", now + 21),
            nameless("bob", now - 100),
        );
        let all = [&older, &this, &newer, &theirs, &session, &bob];
        for token in all {
            gateway.send(&get("/x").bearer(token)).assert_status(200, "before");
        }
        if by_revoke {
            revoke(&gateway, &this);
        } else {
            gateway.send(&post("/logout").bearer(&this)).assert_status(204, "signed out");
        }
        let statuses = all.map(|token| gateway.send(&get("/x").bearer(token)).status);
        assert_eq!(statuses, [401, 401, 200, 200, 200, 200], "by_revoke: {by_revoke}");
        gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "the session");
        let gateway = gateway.restart();
        let statuses = all.map(|token| gateway.send(&get("/x").bearer(token)).status);
        assert_eq!(statuses, [401, 401, 200, 200, 200, 200], "after a restart");
    }
}

#[test]
fn what_is_not_known_is_over_already_and_what_is_malformed_is_said() {
    let (_app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let expired = mint(&claims_with("bob", serde_json::json!({ "iat": 1000, "exp": 1600 })));
    for unknown in ["x", "a.b.c", &expired, cookie.split_once('=').unwrap().1] {
        revoke(&gateway, unknown);
    }
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "a cookie is no token");
    let form = |body: &str| post("/.gateway/revoke").body("application/x-www-form-urlencoded", body);
    for body in ["", "token=", "token=a&token=b", "token_type_hint=access_token"] {
        let answer = gateway.send(&form(body));
        assert_eq!(answer.assert_status(400, body).json()["error"], "invalid_request");
    }
    let answer = gateway.send(&get("/.gateway/revoke"));
    assert_eq!(answer.assert_status(405, "GET").header("allow"), Some("POST"));
}

#[test]
fn introspection_shows_a_user_their_own_tokens_only() {
    let (_app, gateway) = gateway();
    let (access, token) = tokens(&gateway, "bob");
    let (alices, alices_refresh) = tokens(&gateway, "alice");
    let own = gateway.send(&introspect(&access).bearer(&access)).assert_status(200, "own").json();
    assert_eq!((&own["active"], &own["sub"], &own["token_type"]), (&true.into(), &"bob".into(), &"Bearer".into()));
    assert_eq!((&own["username"], &own["aud"]), (&"bob".into(), &"portcullis".into()));
    for member in ["exp", "iat", "jti", "sid", "auth_time", "amr", "groups", "iss"] {
        assert!(own.get(member).is_some(), "{member} in {own}");
    }
    let of_refresh = gateway.send(&introspect(&token).bearer(&access)).json();
    assert_eq!((&of_refresh["active"], of_refresh.get("token_type")), (&true.into(), None), "{of_refresh}");
    let inactive = serde_json::json!({ "active": false });
    for other in [alices.as_str(), &alices_refresh, "x", "a.b.c", &format!("{access}x")] {
        assert_eq!(gateway.send(&introspect(other).bearer(&access)).assert_status(200, "not own").json(), inactive);
    }
    let next = refresh(&gateway, &token).json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.send(&introspect(&token).bearer(&access)).json(), inactive, "used up");
    assert_eq!(gateway.send(&introspect(&next).bearer(&access)).json()["active"], true);
    let (second, _) = tokens(&gateway, "bob");
    revoke(&gateway, &next);
    for ended in [&access, &next] {
        assert_eq!(gateway.send(&introspect(ended).bearer(&second)).json(), inactive, "revoked");
    }
}

#[test]
fn introspection_asks_for_a_credential_and_a_page_of_ours() {
    let (_app, gateway) = gateway();
    let (access, _) = tokens(&gateway, "bob");
    let cookie = gateway.cookie("bob");
    gateway.send(&introspect(&access)).assert_status(401, "nobody asks");
    gateway.send(&introspect(&access).bearer("x.y.z")).assert_status(401, "a bad token");
    gateway.send(&introspect(&access).header("Authorization", "Basic Ym9iOng=")).assert_status(401, "not ours");
    let own = introspect(&access).cookie(&cookie);
    assert_eq!(gateway.send(&own).assert_status(200, "a cookie").json()["active"], true);
    for (name, value) in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")] {
        gateway.send(&own.clone().header(name, value)).assert_status(403, value);
        gateway.send(&introspect(&access).bearer(&access).header(name, value)).assert_status(200, "no cookie");
    }
    let double = post("/.gateway/introspect").body("application/x-www-form-urlencoded", "token=a&token=b");
    gateway.send(&double.bearer(&access)).assert_status(400, "twice");
    let answer = gateway.send(&get("/.gateway/introspect").bearer(&access));
    assert_eq!(answer.assert_status(405, "GET").header("allow"), Some("POST"));
}

#[test]
fn userinfo_says_who_is_there_and_until_when() {
    let (_app, gateway) = gateway();
    let (access, _) = tokens(&gateway, "bob");
    let answer = gateway.send(&get("/.gateway/userinfo").bearer(&access));
    let info = answer.assert_status(200, "a token").json();
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let claims = crate::common::token::claims_of(&access);
    let expected = serde_json::json!({
        "sub": "bob", "name": "Bob B.", "email": "bob@example.com", "groups": ["staff"],
        "auth_time": claims["auth_time"], "exp": claims["exp"],
    });
    assert_eq!(info, expected);
    let by_cookie = gateway.send(&get("/.gateway/userinfo").cookie(&gateway.cookie("bob"))).json();
    assert_eq!(by_cookie["sub"], "bob");
    assert!(by_cookie["exp"].as_u64() > claims["exp"].as_u64(), "the session's end: {by_cookie}");
    assert!(!by_cookie.to_string().contains("token"));
    gateway.command(&["user", "groups", "bob", "--groups", "ops"]).succeeded();
    until("the new groups", || {
        let info = gateway.send(&get("/.gateway/userinfo").bearer(&access)).json();
        (info["groups"] == serde_json::json!(["ops"])).then_some(())
    });
    let nobody = gateway.send(&get("/.gateway/userinfo"));
    nobody.assert_status(401, "nobody");
    assert!(nobody.header("www-authenticate").unwrap().starts_with("Bearer realm="));
    assert_eq!((nobody.detail().as_str(), nobody.json().get("login_url").is_some()), ("Not authenticated", true));
    let bad = gateway.send(&get("/.gateway/userinfo").bearer("x.y.z"));
    assert_eq!(bad.assert_status(401, "bad").detail(), "Invalid token");
    assert!(bad.header("www-authenticate").unwrap().contains("invalid_token"));
    let expired = mint(&claims_with("bob", serde_json::json!({ "iat": 1000, "exp": 1600 })));
    assert_eq!(gateway.send(&get("/.gateway/userinfo").bearer(&expired)).detail(), "Token has expired");
    let post = gateway.send(&post("/.gateway/userinfo").bearer(&access));
    assert_eq!(post.assert_status(405, "POST").header("allow"), Some("GET, HEAD"));
}
