//! Tokens that must not count, each beside a good one that does: 401, and the application sees nothing.

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use serde_json::{Value, json};

use super::tokens::assert_refused;
use crate::common::token::{ISSUER, SECRET, claims, claims_with, encode, mint, mint_raw, mint_with, now, sign};
use crate::common::{Gateway, Recorder, Setup, get};

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).shared_secret().user("bob", &[]).start();
    (app, gateway)
}

/// Each token gets 401 and its detail, over one connection, and none reaches the application.
fn refuse_all(tokens: &[(String, String)]) {
    let (app, gateway) = gateway();
    let mut client = gateway.client();
    client.send(&get("/x").bearer(&mint(&claims("alice")))).assert_status(200, "the good one");
    app.only("the good one");
    assert!(!tokens.is_empty());
    for (what, token) in tokens {
        let answer = client.send(&get("/x").bearer(token));
        assert_refused(&answer, "Invalid token", what);
        app.assert_untouched(what);
    }
}

fn with_header(header: &str) -> String {
    mint_raw(header, claims("alice").to_string().as_bytes())
}

#[test]
fn headers_that_ask_for_something_else() {
    let payload = claims("alice").to_string();
    let mut tokens = Vec::new();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"NONE"}"#,
        r#"{"alg":"nOnE","typ":"JWT"}"#,
        r#"{"alg":""}"#,
    ] {
        let unsigned = format!("{}.{}.", encode(header.as_bytes()), encode(payload.as_bytes()));
        tokens.push((format!("{header} unsigned"), unsigned));
        tokens.push((format!("{header} signed"), with_header(header)));
    }
    for header in [
        r#"{}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256 "}"#,
        r#"{"alg":"HS256\u0000"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":["x"],"x":1}"#,
        r#"{"alg":"HS256","crit":["x"],"x":"y"}"#,
        r#"{"alg":"HS256","crit":["x"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":"x"}"#,
        r#"{"alg":"HS256","crit":["alg"]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A256GCM"}"#,
        r#"{"alg":"HS256","cty":"JWT"}"#,
        r#"{"alg":"HS256","typ":"assertion+jwt"}"#,
        r#"{"alg":"HS256","typ":"refresh+jwt"}"#,
        r#"{"alg":"HS256","typ":"JOSE"}"#,
        r#"{"alg":"HS256","typ":["JWT"]}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "",
        "HS256",
        "\u{feff}{\"alg\":\"HS256\"}",
    ] {
        tokens.push((format!("header {header}"), with_header(header)));
    }
    refuse_all(&tokens);
}

#[test]
fn types_that_a_token_may_have() {
    let (_app, gateway) = gateway();
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"typ":"at+jwt","alg":"HS256"}"#] {
        gateway.send(&get("/x").bearer(&with_header(header))).assert_status(200, header);
    }
}

#[test]
fn keys_that_are_not_ours() {
    let mut tokens = Vec::new();
    let usual = r#"{"alg":"HS256","typ":"JWT"}"#;
    let kinds = [("HS384", HMAC_SHA384), ("HS512", HMAC_SHA512)];
    for (name, algorithm) in kinds {
        let header = format!("{{\"alg\":\"{name}\"}}");
        let token = mint_with(algorithm, SECRET.as_bytes(), &header, &claims("alice"));
        tokens.push((format!("{name} under the right secret"), token));
        let token = mint_with(algorithm, SECRET.as_bytes(), usual, &claims("alice"));
        tokens.push((format!("{name} said to be HS256"), token));
    }
    let lower = SECRET.to_lowercase();
    let weak = ["", "secret", "your-256-bit-secret", "changeme", &SECRET[1..], &SECRET[..32], &lower];
    for key in weak {
        let token = mint_with(HMAC_SHA256, key.as_bytes(), usual, &claims("alice"));
        tokens.push((format!("signed with {key:?}"), token));
    }
    let spy = Recorder::start();
    let key = encode(b"a key that the token brings along itself");
    let url = format!("http://{}/keys", spy.address());
    for header in [
        format!(r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{key}"}}}}"#),
        format!(r#"{{"alg":"HS256","jku":"{url}","kid":"a"}}"#),
        format!(r#"{{"alg":"HS256","x5u":"{url}"}}"#),
        r#"{"alg":"HS256","x5c":["MIIB"]}"#.to_owned(),
    ] {
        let own = b"a key that the token brings along itself";
        tokens.push((format!("own key {header}"), mint_with(HMAC_SHA256, own, &header, &claims("alice"))));
    }
    for kid in ["../../../../dev/null", "' OR 1=1 --", "|sleep 5", "unknown", &"k".repeat(6000), "\\u0000", ""] {
        let header = format!("{{\"alg\":\"HS256\",\"kid\":\"{kid}\"}}");
        let token = mint_with(HMAC_SHA256, b"", &header, &claims("alice"));
        tokens.push((format!("kid {kid:.20}"), token));
    }
    refuse_all(&tokens);
    assert_eq!(spy.connections(), 0, "a key was fetched");
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let issued = gateway.token("alice");
    let header = crate::common::token::header_of(&issued);
    let kid = header["kid"].as_str().unwrap_or_default().to_owned();
    let payload = crate::common::token::claims_of(&issued);
    let signature = issued.rsplit('.').next().unwrap();
    for key in [b"".as_slice(), kid.as_bytes(), b"-----BEGIN PUBLIC KEY-----\n", signature.as_bytes()] {
        for kid in [format!(",\"kid\":\"{kid}\""), String::new()] {
            let header = format!("{{\"alg\":\"HS256\"{kid}}}");
            let token = mint_with(HMAC_SHA256, key, &header, &payload);
            assert_refused(&gateway.send(&get("/x").bearer(&token)), "Invalid token", &header);
        }
    }
    for cut in [1, 2, 40, 85, 86] {
        let token = &issued[..issued.len() - cut];
        assert_refused(&gateway.send(&get("/x").bearer(token)), "Invalid token", "a shorter signature");
    }
    app.assert_untouched("confused keys");
}

fn changed(changes: Value) -> (String, String) {
    let what = changes.to_string();
    (what.chars().take(90).collect(), mint(&claims_with("alice", changes)))
}

#[test]
fn claims_that_do_not_hold() {
    let now = now();
    let mut tokens = Vec::new();
    for name in ["iss", "aud", "sub", "iat", "exp"] {
        tokens.push(changed(json!({ name: null })));
        for value in [json!(true), json!([]), json!({}), json!(""), json!({ "a": 1 })] {
            tokens.push(changed(json!({ name: value })));
        }
    }
    for issuer in ["http://gateway.test/", "http://gateway.test.evil", "xhttp://gateway.test", "HTTP://GATEWAY.TEST"] {
        tokens.push(changed(json!({ "iss": issuer })));
    }
    tokens.push(changed(json!({ "iss": [ISSUER] })));
    for audience in [json!("other"), json!(7), json!(["other"]), json!("portcullis2"), json!([7]), json!("Portcullis")]
    {
        tokens.push(changed(json!({ "aud": audience })));
    }
    for end in
        [json!((now + 600).to_string()), json!(now + 90_000), json!((now + 600) * 1000), json!(u64::MAX), json!(-1)]
    {
        let (what, token) = changed(json!({ "exp": end }));
        if what != r#"{"exp":-1}"# {
            tokens.push((what, token));
        }
    }
    for name in ["iat", "nbf"] {
        for value in [json!(now + 3600), json!(now + 60), json!(now.to_string()), json!(i64::MAX), json!([now])] {
            tokens.push(changed(json!({ name: value })));
        }
    }
    for subject in [json!(7), json!(["alice"]), json!("nobody"), json!("alice\u{0}"), json!("alice\r\nX-Admin: 1")] {
        tokens.push(changed(json!({ "sub": subject })));
    }
    for subject in [" alice", "alice ", "alice\t", "al\u{7f}ice", "al\u{200b}ice", "ａlice", "ålice", "\u{202e}alice"]
    {
        tokens.push(changed(json!({ "sub": subject })));
    }
    tokens.push(changed(json!({ "sub": "a".repeat(20_000) })));
    refuse_all(&tokens);
}

#[test]
fn claims_that_hold() {
    let (app, gateway) = gateway();
    let now = now();
    for changes in [
        json!({ "nbf": now + 15 }),
        json!({ "iat": now + 15 }),
        json!({ "nbf": now - 3600 }),
        json!({ "aud": ["other", "portcullis"] }),
        json!({ "exp": now + 86_000 }),
        json!({ "jti": null }),
        json!({ "unknown": { "deep": [1, 2, 3] } }),
    ] {
        let token = mint(&claims_with("alice", changes.clone()));
        gateway.send(&get("/x").bearer(&token)).assert_status(200, &changes.to_string());
        assert_eq!(app.only("held").header("x-forwarded-user").as_deref(), Some("alice"));
    }
}

#[test]
fn members_that_are_there_twice() {
    let good = claims("alice").to_string();
    let inner = &good[1..good.len() - 1];
    let mut tokens = Vec::new();
    for twice in [
        r#""sub":"bob""#,
        r#""\u0073ub":"bob""#,
        r#""exp":99999999999"#,
        r#""iss":"http://gateway.test""#,
        r#""aud":"portcullis""#,
        r#""iat":1"#,
        r#""jti":"x""#,
    ] {
        for payload in [format!("{{{inner},{twice}}}"), format!("{{{twice},{inner}}}")] {
            tokens.push((format!("{twice} again"), mint_raw(r#"{"alg":"HS256"}"#, payload.as_bytes())));
        }
    }
    for twice in [r#""groups":["a"],"groups":["admin"]"#, r#""role":"a","role":"b""#, r#""nbf":1,"nbf":2"#] {
        let payload = format!("{{{inner},{twice}}}");
        tokens.push((twice.to_owned(), mint_raw(r#"{"alg":"HS256"}"#, payload.as_bytes())));
    }
    refuse_all(&tokens);
}

#[test]
fn payloads_that_are_no_claims() {
    let good = claims("alice").to_string();
    let mut payloads: Vec<(&str, Vec<u8>)> = vec![
        ("an array", b"[]".to_vec()),
        ("a string", b"\"alice\"".to_vec()),
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("trailing garbage", format!("{good}x").into_bytes()),
        ("two objects", format!("{good}{good}").into_bytes()),
        ("a byte order mark", format!("\u{feff}{good}").into_bytes()),
        ("a trailing NUL", format!("{good}\0").into_bytes()),
        ("nested arrays", [vec![b'['; 3000], vec![b']'; 3000]].concat()),
    ];
    payloads.push(("a lone surrogate", good.replace("\"alice\"", r#""ali\ud800ce""#).into_bytes()));
    let mut bad = good.clone().into_bytes();
    let at = good.find("alice").unwrap();
    bad[at] = 0xff;
    payloads.push(("bytes that are not UTF-8", bad));
    for (what, end) in [
        ("an endless number", "1e400"),
        ("a negative endless one", "-1e400"),
        ("not a number", "NaN"),
        ("2^64", "18446744073709551616"),
    ] {
        let claims = claims_with("alice", json!({ "exp": "END" })).to_string();
        payloads.push((what, claims.replace("\"END\"", end).into_bytes()));
    }
    let tokens: Vec<_> = payloads
        .into_iter()
        .map(|(what, payload)| (what.to_owned(), mint_raw(r#"{"alg":"HS256"}"#, &payload)))
        .collect();
    refuse_all(&tokens);
}

#[test]
fn spellings_that_are_no_token() {
    let good = mint(&claims("alice"));
    let parts: Vec<_> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let mut flipped = signature.to_owned();
    let first = if flipped.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(..1, first);
    // 43 characters carry 258 bits: the last two do not count, so another last letter is the same signature.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|letter| *letter == signature.as_bytes()[42]).unwrap();
    let sloppy = format!("{}{}", &signature[..42], char::from(alphabet[last ^ 1]));
    let tokens: Vec<_> = [
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!(".{good}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{good}.x.y"),
        format!("{header}.{payload}.{flipped}"),
        format!("{header}.{payload}.{sloppy}"),
        format!("{header}.{payload}.{}", &signature[..42]),
        format!("{good}A"),
        format!("{good}="),
        format!("{header}=.{payload}.{signature}"),
        format!("{good}%2e"),
        format!("\"{good}\""),
        format!("{good},{good}"),
        format!("{good} {good}"),
        format!("{good} x"),
        good.replace('.', "%2e"),
        ".".repeat(8000),
        "..".to_owned(),
        "null".to_owned(),
        "x".to_owned(),
        format!("{{\"payload\":\"{payload}\",\"protected\":\"{header}\",\"signature\":\"{signature}\"}}"),
    ]
    .into_iter()
    .map(|token| (token.chars().take(60).collect::<String>(), token))
    .collect();
    refuse_all(&tokens);
}

#[test]
fn encodings_that_are_not_canonical_though_signed() {
    let payload = encode(claims("alice").to_string().as_bytes());
    let header = encode(br#"{"alg":"HS256"}"#);
    let mut tokens = Vec::new();
    for (what, payload) in [
        ("padding", format!("{payload}=")),
        ("an inner space", format!("{}+{}", &payload[..8], &payload[8..])),
        ("a slash", format!("{}/{}", &payload[..8], &payload[8..])),
        ("a sharp", format!("{payload}#")),
        ("a question mark", format!("{payload}?")),
    ] {
        let signed = format!("{header}.{payload}");
        let signature = sign(HMAC_SHA256, SECRET.as_bytes(), signed.as_bytes());
        tokens.push((what.to_owned(), format!("{signed}.{signature}")));
    }
    refuse_all(&tokens);
}

#[test]
fn a_token_of_sixty_kilobytes_is_refused_in_its_head() {
    let (app, gateway) = gateway();
    let answer = gateway.send(&get("/x").bearer(&"a".repeat(60_000)));
    assert!(matches!(answer.status, 400 | 401 | 431), "{}", answer.status);
    app.assert_untouched("an endless token");
}
