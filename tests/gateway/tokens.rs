//! Bearer tokens through their life: what is answered without, with, after its end, and beside others.

use serde_json::json;

use crate::common::token::{self, claims, claims_with, mint, now};
use crate::common::{Gateway, Recorder, Request, Response, Setup, get, post, until};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).shared_secret().user("bob", &["--groups", "staff"]);
    let gateway = setup.start();
    (app, gateway)
}

#[track_caller]
pub(super) fn assert_refused(answer: &Response, detail: &str, context: &str) {
    answer.assert_status(401, context);
    assert_eq!(answer.detail(), detail, "{context}");
    let challenge = answer.header("www-authenticate").expect("401 carries a challenge");
    assert!(challenge.starts_with("Bearer realm="), "{context}: {challenge}");
    let invalid = challenge.contains("error=\"invalid_token\"");
    assert_eq!(invalid, detail != "Not authenticated", "{context}: {challenge}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[test]
fn without_a_credential_it_is_not_authenticated() {
    let (app, gateway) = gateway();
    for request in [get("/x"), post("/x"), Request::new("DELETE", "/x"), get("/x").header("Accept", "*/*")] {
        let answer = gateway.send(&request);
        assert_refused(&answer, "Not authenticated", request.method());
        let login = answer.json()["login_url"].as_str().expect("a login_url").to_owned();
        assert!(login.contains("/login"), "{login}");
    }
    app.assert_untouched("no credential");
}

#[test]
fn a_token_names_its_user_to_the_application_and_stays_behind() {
    let (app, gateway) = gateway();
    let issued = gateway.token("alice");
    for token in [issued, mint(&claims("alice"))] {
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            let request = get("/x?y=z").header("Authorization", &format!("{scheme} {token}"));
            gateway.send(&request).assert_status(200, scheme);
            let seen = app.only(scheme);
            assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
            assert_eq!(seen.header("x-forwarded-groups").as_deref(), Some("admin,staff"));
            assert_eq!(seen.header("authorization"), None, "our token goes no further");
        }
    }
}

#[test]
fn forward_token_passes_it_as_it_came() {
    let app = Recorder::start();
    let routes = r#"
        [[routes]]
        path = "/**"
        allow = "signed-in"
        upstream = "app"
        forward_token = true
    "#;
    let gateway = Setup::new(app.address()).shared_secret().routes(routes).start();
    let value = format!("Bearer {}", mint(&claims("alice")));
    gateway.send(&get("/x").header("Authorization", &value)).assert_status(200, "a token");
    assert_eq!(app.only("a token").header("authorization"), Some(value));
    let cookie = gateway.cookie("alice");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "a cookie");
    let seen = app.only("a cookie");
    assert_eq!((seen.header("authorization"), seen.header("cookie")), (None, None));
}

#[test]
fn expired_is_said_before_anything_but_signature_issuer_and_audience() {
    let (app, gateway) = gateway();
    let past = json!({ "iat": now() - 900, "exp": now() - 1 });
    let unknown = claims_with("nobody", past.clone());
    let early = claims_with("alice", json!({ "iat": now() - 900, "exp": now() - 1, "nbf": now() + 900 }));
    for claims in [claims_with("alice", past.clone()), unknown, early] {
        let answer = gateway.send(&get("/x").bearer(&mint(&claims)));
        assert_refused(&answer, "Token has expired", &claims.to_string());
    }
    let mut elsewhere = claims_with("alice", past);
    elsewhere["aud"] = json!("other");
    let answer = gateway.send(&get("/x").bearer(&mint(&elsewhere)));
    assert_refused(&answer, "Invalid token", "expired and for someone else");
    app.assert_untouched("expired tokens");
}

#[test]
fn a_token_ends_at_its_second() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).key("tokens.lifetime", "\"2s\"");
    let gateway = setup.start();
    let token = gateway.token("alice");
    let answer = until("the end of the token", || {
        let answer = gateway.send(&get("/x").bearer(&token));
        (answer.status != 200).then_some(answer)
    });
    assert_refused(&answer, "Token has expired", "after two seconds");
    assert!(now() >= token::claims_of(&token)["exp"].as_i64().unwrap(), "not before its time");
}

#[test]
fn leeway_is_for_the_end_only() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).shared_secret().key("tokens.leeway", "\"60s\"");
    let gateway = setup.start();
    let ended = |ago: i64| mint(&claims_with("alice", json!({ "iat": now() - 900, "exp": now() - ago })));
    gateway.send(&get("/x").bearer(&ended(20))).assert_status(200, "within the leeway");
    let answer = gateway.send(&get("/x").bearer(&ended(120)));
    assert_refused(&answer, "Token has expired", "after the leeway");
    let early = mint(&claims_with("alice", json!({ "nbf": now() + 45 })));
    assert_refused(&gateway.send(&get("/x").bearer(&early)), "Invalid token", "nbf in 45 s");
}

#[test]
fn log_out_ends_a_token_at_once() {
    let (app, gateway) = gateway();
    for token in [gateway.token("alice"), mint(&claims("alice"))] {
        gateway.send(&get("/x").bearer(&token)).assert_status(200, "before");
        app.take();
        gateway.send(&post("/logout").bearer(&token)).assert_status(204, "log-out");
        let answer = gateway.send(&get("/x").bearer(&token));
        assert_refused(&answer, "Invalid token", "after");
        app.assert_untouched("after log-out");
    }
}

#[test]
fn log_out_of_one_leaves_the_others() {
    let (_app, gateway) = gateway();
    let (first, second) = (gateway.token("alice"), gateway.token("alice"));
    gateway.send(&post("/logout").bearer(&first)).assert_status(204, "log-out");
    gateway.send(&get("/x").bearer(&second)).assert_status(200, "another session");
}

#[test]
fn log_out_survives_a_restart() {
    let (_app, gateway) = gateway();
    let tokens = [gateway.token("alice"), mint(&claims("alice"))];
    for token in &tokens {
        gateway.send(&post("/logout").bearer(token)).assert_status(204, "log-out");
    }
    let still = gateway.token("alice");
    let gateway = gateway.restart();
    for token in &tokens {
        assert_refused(&gateway.send(&get("/x").bearer(token)), "Invalid token", "after a restart");
    }
    gateway.send(&get("/x").bearer(&still)).assert_status(200, "keys and sessions survive too");
}

#[test]
fn events_on_a_user_count_from_the_next_request() {
    let (app, gateway) = gateway();
    let events: &[&[&str]] = &[&["user", "disable", "bob"], &["user", "enable", "bob"], &["user", "delete", "bob"]];
    let tokens = [gateway.token("bob"), mint(&claims_with("bob", json!({ "iat": now() - 5 })))];
    for token in &tokens {
        gateway.send(&get("/x").bearer(token)).assert_status(200, "before");
    }
    app.take();
    for event in events {
        gateway.command(event).succeeded();
        for token in &tokens {
            until("the refusal", || {
                let answer = gateway.send(&get("/x").bearer(token));
                app.take();
                (answer.status == 401).then_some(())
            });
            let answer = gateway.send(&get("/x").bearer(token));
            assert_refused(&answer, "Invalid token", &event.join(" "));
        }
        app.assert_untouched(&event.join(" "));
    }
}

#[test]
fn a_new_password_ends_old_tokens() {
    let (app, gateway) = gateway();
    let token = gateway.token("bob");
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "before");
    let passwd = ["user", "passwd", "bob", "--password-stdin"];
    crate::common::command(gateway.dir(), &passwd, "another long pass phrase\n").succeeded();
    until("the refusal", || (gateway.send(&get("/x").bearer(&token)).status == 401).then_some(()));
    app.take();
    gateway.sign_in("bob", "another long pass phrase").assert_status(200, "the new password");
    gateway.sign_in("bob", &crate::common::password_of("bob")).assert_status(403, "the old one");
}

#[test]
fn groups_count_as_they_are_now() {
    let (app, gateway) = gateway();
    let (token, cookie) = (gateway.token("bob"), gateway.cookie("bob"));
    let claimed = mint(&claims_with("bob", json!({ "groups": ["admin"] })));
    let requests = [get("/admin/x").bearer(&token), get("/admin/x").cookie(&cookie), get("/admin/x").bearer(&claimed)];
    for request in &requests {
        gateway.send(request).assert_status(403, "before");
    }
    app.assert_untouched("before");
    gateway.command(&["user", "groups", "bob", "--groups", "admin"]).succeeded();
    for request in &requests {
        until("the new group", || (gateway.send(request).status == 200).then_some(()));
        assert_eq!(app.next().header("x-forwarded-groups").as_deref(), Some("admin"));
    }
    gateway.command(&["user", "groups", "bob", "--groups", "staff"]).succeeded();
    for request in &requests {
        until("the loss of it", || (gateway.send(request).status == 403).then_some(()));
    }
}

#[test]
fn authorization_decides_beside_a_cookie() {
    let (app, gateway) = gateway();
    let (cookie, token) = (gateway.cookie("alice"), mint(&claims("bob")));
    gateway.send(&get("/x").cookie(&cookie).bearer(&token)).assert_status(200, "both");
    assert_eq!(app.only("both").header("x-forwarded-user").as_deref(), Some("bob"));
    let expired = mint(&claims_with("bob", json!({ "iat": now() - 900, "exp": now() - 5 })));
    for (bad, detail) in [("rubbish", "Invalid token"), (expired.as_str(), "Token has expired")] {
        let answer = gateway.send(&get("/x").cookie(&cookie).bearer(bad));
        assert_refused(&answer, detail, "a bad token beside a good cookie");
        let page = gateway.send(&get("/x").cookie(&cookie).bearer(bad).page_load());
        page.assert_status(401, "no redirect for someone who sent Authorization");
    }
    app.assert_untouched("bad tokens");
}

#[test]
fn two_authorization_headers_are_refused() {
    let (app, gateway) = gateway();
    let good = mint(&claims("alice"));
    for (first, second) in [(good.as_str(), "rubbish"), ("rubbish", good.as_str()), (&good, &good)] {
        let answer = gateway.send(&get("/x").bearer(first).bearer(second));
        assert!(matches!(answer.status, 400 | 401), "{}", answer.status);
    }
    let mixed = get("/x").header("Authorization", "Basic YTpi").bearer(&good);
    assert!(matches!(gateway.send(&mixed).status, 400 | 401));
    app.assert_untouched("two Authorization headers");
}

#[test]
fn what_is_not_a_bearer_is_no_credential() {
    let (app, gateway) = gateway();
    let good = mint(&claims("alice"));
    let values = [format!("junk Bearer {good}"), good.clone(), format!("Token {good}"), format!("Bearer{good}")];
    for value in values {
        let answer = gateway.send(&get("/x").header("Authorization", &value));
        answer.assert_status(401, &value);
    }
    for place in ["access_token", "token", "authorization"] {
        gateway.send(&get(&format!("/x?{place}={good}"))).assert_status(401, "a token in the URL");
        let form = post("/x").form(&[(place, &good)]);
        gateway.send(&form).assert_status(401, "a token in the body");
    }
    for name in ["X-Authorization", "Proxy-Authorization", "X-Forwarded-Access-Token"] {
        let request = get("/x").header(name, &format!("Bearer {good}"));
        gateway.send(&request).assert_status(401, name);
    }
    gateway.send(&get("/x").cookie(&format!("portcullis={good}"))).assert_status(401, "a JWT as cookie");
    app.assert_untouched("not a bearer");
}

#[test]
fn a_scheme_that_the_route_does_not_take_is_the_applications() {
    let (app, gateway) = gateway();
    let cookie = gateway.cookie("alice");
    let basic = get("/x").cookie(&cookie).header("Authorization", "Basic YXBwOnNlY3JldA==");
    gateway.send(&basic).assert_status(200, "Basic beside a cookie");
    let seen = app.only("Basic");
    assert_eq!(seen.header("authorization").as_deref(), Some("Basic YXBwOnNlY3JldA=="));
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
}

#[test]
fn a_route_that_takes_only_cookies_leaves_foreign_bearers_alone_and_keeps_ours_back() {
    let app = Recorder::start();
    let routes = r#"
        [[routes]]
        path = "/**"
        allow = "signed-in"
        upstream = "app"
        accept = ["cookie"]
    "#;
    let gateway = Setup::new(app.address()).shared_secret().routes(routes).start();
    let cookie = gateway.cookie("alice");
    let foreign = mint(&claims_with("alice", json!({ "iss": "https://elsewhere.example" })));
    for value in ["Bearer opaque-token-of-the-application".to_owned(), format!("Bearer {foreign}")] {
        let request = get("/x").cookie(&cookie).header("Authorization", &value);
        gateway.send(&request).assert_status(200, &value);
        assert_eq!(app.only(&value).header("authorization"), Some(value.clone()));
        gateway.send(&get("/x").header("Authorization", &value)).assert_status(401, "without the cookie");
    }
    let expired = claims_with("alice", json!({ "iat": now() - 900, "exp": now() - 5 }));
    for ours in [mint(&claims("alice")), mint(&expired)] {
        gateway.send(&get("/x").cookie(&cookie).bearer(&ours)).assert_status(200, "ours beside it");
        assert_eq!(app.only("ours").header("authorization"), None);
        gateway.send(&get("/x").bearer(&ours)).assert_status(401, "ours alone counts for nothing");
    }
    app.assert_untouched("without the cookie");
}

#[test]
fn a_public_route_tells_a_good_name_and_drops_a_bad_one() {
    let (app, gateway) = gateway();
    gateway.send(&get("/public/x").bearer(&mint(&claims("alice")))).assert_status(200, "good");
    let seen = app.only("good");
    assert_eq!(seen.header("x-forwarded-user").as_deref(), Some("alice"));
    assert_eq!(seen.header("authorization"), None);
    let expired = claims_with("alice", json!({ "iat": now() - 900, "exp": now() - 5 }));
    let forged = token::mint_with(
        aws_lc_rs::hmac::HMAC_SHA256,
        b"another secret that is long enough for it",
        r#"{"alg":"HS256"}"#,
        &claims("alice"),
    );
    for bad in [mint(&expired), forged] {
        gateway.send(&get("/public/x").bearer(&bad)).assert_status(200, "bad");
        let seen = app.only("bad");
        assert_eq!(seen.header("x-forwarded-user"), None);
        assert_eq!(seen.header("authorization"), None);
    }
    gateway.send(&get("/public/x").cookie("portcullis=bad; a=b")).assert_status(200, "bad cookie");
    let seen = app.only("bad cookie");
    assert_eq!((seen.header("x-forwarded-user"), seen.header("cookie")), (None, Some("a=b".to_owned())));
}
