//! Signing keys from outside: published, rotated beside a running gateway, and what is said where they can't be.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::common::{Answer, Gateway, Recorder, Request, Response, Setup, Wire, command, get, until};

fn setup() -> Setup {
    Setup::new(Recorder::start().address())
}

/// The key that a token names.
fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap_or_default()).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("a kid").to_owned()
}

fn published(gateway: &Gateway) -> Vec<String> {
    let answer = gateway.send(&get(JWKS));
    answer.assert_status(200, "the public keys");
    let keys = answer.json();
    let keys = keys["keys"].as_array().expect("a list").iter();
    keys.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

fn listed(gateway: &Gateway) -> Value {
    let ran = gateway.command(&["key", "list", "--json"]).succeeded();
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

fn assert_public_document(answer: &Response) {
    answer.assert_status(200, "a document");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("set-cookie"), None);
}

#[test]
fn a_rotation_beside_a_running_gateway_takes_over_and_the_old_token_verifies_on() {
    let gateway = setup().start();
    let early = gateway.token("alice");
    assert_eq!(published(&gateway), [kid(&early)]);
    gateway.send(&get("/x").bearer(&early)).assert_status(200, "before");
    let ran = gateway.command(&["key", "rotate", "--json"]).succeeded();
    let new: Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
    assert_eq!(new["state"], "signing");
    let late = gateway.token("alice");
    assert_eq!(new["kid"], kid(&late).as_str(), "the control socket makes it immediate");
    assert_ne!(kid(&late), kid(&early));
    for token in [&early, &late] {
        gateway.send(&get("/x").bearer(token)).assert_status(200, "both verify");
    }
    assert_eq!(published(&gateway), [kid(&late), kid(&early)]);
    let keys = listed(&gateway);
    let states: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["signing", "verifying"]);
    let gateway = gateway.restart();
    assert_eq!(kid(&gateway.token("alice")), kid(&late));
    gateway.send(&get("/x").bearer(&early)).assert_status(200, "after a restart");
}

#[test]
fn a_key_can_be_published_before_it_signs() {
    let gateway = setup().start();
    let old = kid(&gateway.token("alice"));
    let ran = gateway.command(&["key", "rotate", "--publish-first", "10m"]).succeeded();
    assert!(ran.stdout.contains("is published and signs from"), "{}", ran.stdout);
    let new = published(&gateway).into_iter().find(|kid| *kid != old).expect("two keys");
    assert!(ran.stdout.contains(&new));
    assert_eq!(kid(&gateway.token("alice")), old);
    let table = gateway.command(&["key", "list"]).succeeded().stdout;
    assert!(table.contains("waiting") && table.contains("signs from"), "{table}");
    gateway.command(&["key", "rotate"]).succeeded();
    let third = kid(&gateway.token("alice"));
    assert!(third != old && third != new, "the one that waited never signs");
}

#[test]
fn a_retired_key_is_refused_and_removed_after_its_last_token() {
    let gateway = setup().key("tokens.lifetime", "\"1s\"").start();
    let old = kid(&gateway.token("alice"));
    gateway.command(&["key", "rotate"]).succeeded();
    assert!(published(&gateway).contains(&old));
    until("the old key to go", || (!published(&gateway).contains(&old)).then_some(()));
    let gateway = gateway.restart();
    until("the old key to be removed", || {
        let keys = listed(&gateway);
        (keys["keys"].as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn without_the_control_socket_a_new_key_is_seen_within_a_second() {
    let gateway = setup().start();
    let old = kid(&gateway.token("alice"));
    std::fs::remove_file(gateway.dir().join("portcullis.sock")).unwrap();
    gateway.command(&["key", "rotate"]).succeeded();
    let new = until("the new key", || published(&gateway).into_iter().find(|kid| *kid != old));
    assert_eq!(kid(&gateway.token("alice")), new);
}

#[test]
fn a_stolen_key_is_retired_at_once_and_what_it_has_signed_is_refused() {
    for with_control in [true, false] {
        let app = Recorder::answering(|_| {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            Answer::Keep(head.as_bytes().to_vec())
        });
        let gateway = Setup::new(app.address()).start();
        let token = gateway.token("alice");
        let stolen = kid(&token);
        let alone = gateway.command(&["key", "retire", &stolen]);
        assert_eq!(alone.code, Some(1), "{alone:?}");
        assert!(alone.stderr.contains("portcullis key rotate") && alone.stdout.is_empty(), "{alone:?}");
        let mut socket = Wire::connect(gateway.address);
        socket.write(format!(
            "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        ));
        socket.read_answer_head().expect("an answer").assert_status(101, "open");
        gateway.command(&["key", "rotate"]).succeeded();
        let late = gateway.token("alice");
        gateway.send(&get("/.gateway/userinfo").bearer(&token)).assert_status(200, "verifies on");
        if !with_control {
            std::fs::remove_file(gateway.dir().join("portcullis.sock")).unwrap();
        }
        let ran = gateway.command(&["key", "retire", &stolen]).succeeded();
        assert!(ran.stdout.contains(&stolen) && ran.stdout.contains("published keys"), "{ran:?}");
        let refused = || gateway.send(&get("/.gateway/userinfo").bearer(&token)).status == 401;
        if with_control {
            assert!(refused(), "the next request");
        } else {
            let started = std::time::Instant::now();
            until("the token to be refused", || refused().then_some(()));
            assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
        }
        socket.read_to_end().expect("closed with the key");
        gateway.send(&get("/.gateway/userinfo").bearer(&late)).assert_status(200, "of the other key");
        assert_eq!(published(&gateway), [kid(&late)]);
        assert_eq!(gateway.command(&["key", "retire", &stolen]).code, Some(1), "twice");
        let gateway = gateway.restart();
        gateway.send(&get("/.gateway/userinfo").bearer(&token)).assert_status(401, "after a restart");
    }
}

#[test]
fn a_former_key_lasts_as_long_as_the_longest_token_that_was_signed_with_it() {
    let gateway = setup().key("tokens.lifetime", "\"1h\"").start();
    let long = gateway.token("alice");
    let text = std::fs::read_to_string(gateway.dir().join("gateway.toml")).unwrap();
    let shorter = text.replace("lifetime = \"1h\"", "lifetime = \"1s\"");
    assert_ne!(shorter, text);
    std::fs::write(gateway.dir().join("gateway.toml"), shorter).unwrap();
    let gateway = gateway.restart();
    gateway.command(&["key", "rotate"]).succeeded();
    let key = listed(&gateway)["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid(&long)).cloned();
    let key = key.expect("the former key");
    let until = |name: &str| key[name].as_str().expect("a time")[11..13].parse::<u32>().expect("an hour");
    assert_eq!(until("verifies_until"), (until("retired_at") + 1) % 24, "{key}");
    let gateway = gateway.restart();
    gateway.send(&get("/x").bearer(&long)).assert_status(200, "an hour is not over");
    // One minted by hand for longer than the configuration says holds its key too.
    let minted = gateway.command(&["token", "mint", "--user", "alice", "--lifetime", "2h"]).succeeded().stdout;
    gateway.command(&["key", "rotate"]).succeeded();
    let keys = listed(&gateway);
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid(&minted)).expect("its key");
    let hour = |name: &str| key[name].as_str().expect("a time")[11..13].parse::<u32>().expect("an hour");
    assert_eq!(hour("verifies_until"), (hour("retired_at") + 2) % 24, "{key}");
}

#[test]
fn two_gateways_on_one_store_rotate_and_retire_together() {
    let app = Recorder::start();
    let one = Setup::new(app.address()).start();
    let other_setup = Setup::new(app.address())
        .key("store.url", &format!("\"sqlite:{}\"", one.dir().join("portcullis.db").display()))
        .without_users();
    let other = other_setup.start();
    let (early, early_there) = (one.token("alice"), other.token("alice"));
    assert_eq!(kid(&early), kid(&early_there), "they agree on the first key");
    std::thread::scope(|scope| {
        for gateway in [&one, &other] {
            scope.spawn(|| {
                for _ in 0..3 {
                    gateway.command(&["key", "rotate"]).succeeded();
                }
            });
        }
    });
    // Which of the six signs in the end is settled by the store.
    let signs = |gateway: &Gateway| kid(&gateway.token("alice"));
    until("both to sign with the same key", || (signs(&one) == signs(&other)).then_some(()));
    for (gateway, token) in [(&one, &early_there), (&other, &early), (&one, &other.token("alice"))] {
        gateway.send(&get("/x").bearer(token)).assert_status(200, "whoever has signed it");
    }
    let (mut here, mut there) = (published(&one), published(&other));
    here.sort();
    there.sort();
    assert_eq!((here.len(), &here), (7, &there));
    one.command(&["key", "retire", &kid(&early)]).succeeded();
    one.send(&get("/x").bearer(&early)).assert_status(401, "at once");
    until("the other to know", || (other.send(&get("/x").bearer(&early)).status == 401).then_some(()));
}

#[test]
fn keys_of_the_configuration_are_not_rotated_by_command() {
    let gateway = setup().shared_secret().start();
    let ran = gateway.command(&["key", "rotate"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for part in ["`secret` in [tokens]", "secret = [", "restart"] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    assert!(ran.stdout.is_empty());
    let kid = listed(&gateway)["keys"][0]["kid"].as_str().expect("a name").to_owned();
    let ran = gateway.command(&["key", "retire", &kid]);
    assert!(ran.code == Some(1) && ran.stderr.contains("take it out of `secret`"), "{ran:?}");
    let ran = gateway.command(&["key", "retire", "nothing"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("portcullis key list"), "{ran:?}");
    assert_eq!(published(&gateway), [""; 0], "a shared secret is never published");
    let keys = listed(&gateway);
    assert_eq!(keys["keys"][0]["from"], "configuration");
    let table = gateway.command(&["key", "list"]).succeeded().stdout;
    assert!(table.contains("signing (configuration)") && !table.contains(crate::common::token::SECRET), "{table}");
}

#[test]
fn wrong_commands_say_so() {
    let dir = setup().without_users().prepare();
    let ran = command(dir.path(), &["key", "rotate"], "");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no store yet"), "{}", ran.stderr);
    assert!(!dir.path().join("portcullis.db").exists(), "nothing was made");
    let ran = command(dir.path(), &["key", "list"], "").succeeded();
    assert!(ran.stdout.contains("no keys yet"), "{}", ran.stdout);
    for wrong in ["soon", "", "-1m", "31d", "10"] {
        let ran = command(dir.path(), &["key", "rotate", "--publish-first", wrong], "");
        assert_eq!(ran.code, Some(2), "{wrong:?}: {ran:?}");
    }
}

#[test]
fn public_keys_and_metadata_stand_on_the_public_host_only() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("server.public_url", "\"https://apps.example.com\"").start();
    let on_public = |target| get(target).host("Apps.Example.com:8443");
    for target in [JWKS, SERVER, "/.well-known/%6awks.json"] {
        assert_public_document(&gateway.send(&on_public(target)));
        for (target, host) in [(target, "other.example.com"), (target, "x.apps.example.com")] {
            gateway.send(&get(target).host(host)).assert_status(401, "an ordinary path elsewhere");
        }
    }
    let server = gateway.send(&on_public(SERVER)).json();
    assert_eq!(server["issuer"], "https://apps.example.com");
    assert_eq!(server["jwks_uri"], "https://apps.example.com/.well-known/jwks.json");
    assert_eq!(server["response_types_supported"], json!([]));
    for (name, value) in server.as_object().unwrap() {
        let Some(path) = name.strip_suffix("_endpoint").map(|_| value.as_str().unwrap()) else { continue };
        let path = path.strip_prefix("https://apps.example.com").expect("on public_url");
        let status = gateway.send(&get(path).host("apps.example.com")).status;
        assert_ne!(status, 404, "{name} is there");
    }
    let keys = gateway.send(&on_public(JWKS)).json();
    assert!(keys["keys"][0].get("d").is_none(), "nothing private: {keys}");
    assert_eq!((&keys["keys"][0]["alg"], &keys["keys"][0]["use"]), (&json!("ES256"), &json!("sig")));
    let head = gateway.send(&Request::new("HEAD", JWKS).host("apps.example.com"));
    assert_public_document(&head);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = gateway.send(&Request::new(method, JWKS).host("apps.example.com"));
        answer.assert_status(405, method);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for near in ["/.well-known/jwks.json/", "/.well-known/JWKS.json", "//.well-known/jwks.json", "/.well-known/x"] {
        gateway.send(&on_public(near)).assert_status(401, near);
    }
    app.assert_untouched("nothing was forwarded");
}

#[test]
fn an_application_is_sent_an_assertion_of_its_own_and_nobody_can_forge_or_reuse_it() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address())
        .key("identity.assertion", "\"X-Portcullis-Assertion\"")
        .routes(
            "[[routes]]\npath = \"/quiet/**\"\nallow = \"signed-in\"\nupstream = \"app\"\nidentity = { assertion = false }\n\
             [[routes]]\npath = \"/public/**\"\nallow = \"anyone\"\nupstream = \"app\"\n\
             [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n",
        )
        .start();
    let cookie = gateway.cookie("alice");
    let ask = |target: &str| {
        let request = get(target).header("Cookie", &cookie);
        gateway.send(&request.header("X-Portcullis-Assertion", "forged").header("X_Portcullis_Assertion", "forged"));
        app.only("forwarded").header("x-portcullis-assertion")
    };
    let first = ask("/x").expect("an assertion");
    assert_eq!(ask("/y"), Some(first.clone()), "made once and sent again");
    assert_eq!(ask("/quiet/x"), None, "not where the route says no");
    assert_eq!(ask("/public/x"), Some(first.clone()));
    gateway.send(&get("/public/x").header("X-Portcullis-Assertion", &first));
    assert_eq!(app.only("public").header("x-portcullis-assertion"), None, "nobody is there");
    let claims = URL_SAFE_NO_PAD.decode(first.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("alice"), &json!("app")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    let answer = gateway.send(&get("/x").bearer(&first));
    answer.assert_status(401, "no assertion is a credential");
    assert!(published(&gateway).contains(&kid(&first)));
    let old = kid(&first);
    gateway.command(&["key", "rotate", "--assertion"]).succeeded();
    let second = ask("/x").expect("an assertion");
    assert_ne!(kid(&second), old);
    assert!(published(&gateway).contains(&old), "the former verifies on");
}

const JWKS: &str = "/.well-known/jwks.json";
const SERVER: &str = "/.well-known/oauth-authorization-server";
