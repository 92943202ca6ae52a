//! Every way of lying to the verifier that is known here, as one table, for a key of each family.

use aws_lc_rs::digest;
use proptest::prelude::*;

use super::forge::{Mint, NOW, Payload, b64, hmac, now, pem, signature};
use super::{MAX_TOKEN_BYTES, Reason, Refusal, algorithm_name};
use crate::config::Algorithm;

const FAMILIES: [Algorithm; 6] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

type Case = (String, String, Refusal);

#[test]
fn refuses_every_hostile_token_for_its_own_reason() {
    for algorithm in FAMILIES {
        let mint = Mint::new(algorithm);
        let honest = mint.say(Payload::honest().json());
        assert!(mint.set.verify(&honest, now()).is_ok(), "{algorithm:?}: the honest token");
        let tables: [fn(&Mint) -> Vec<Case>; 7] = [headers, forms, signatures, other_keys, payloads, times, claims];
        for table in tables {
            let cases = table(&mint);
            assert!(cases.len() > 3);
            for (name, token, expected) in cases {
                let got = mint.set.verify(&token, now()).map(|verified| verified.claims().sub.clone());
                assert_eq!(got, Err(expected), "{algorithm:?}: {name}\n{token:.300}");
            }
        }
    }
}

fn invalid(name: impl Into<String>, token: String, reason: Reason) -> Case {
    (name.into(), token, Refusal::Invalid(reason))
}

fn headers(mint: &Mint) -> Vec<Case> {
    let alg = algorithm_name(mint.key.algorithm);
    let honest = Payload::honest().json();
    let mut cases = Vec::new();
    let mut header = |json: &str, reason| {
        let json = json.replace("ALG", alg);
        cases.push(invalid(format!("header {json:.60}"), mint.sign(&json, &honest), reason));
    };
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""""#,
        "null",
        "[\"ALG\"]",
        "1",
        r#""ALG ""#,
        r#"" ALG""#,
        r#""ES512""#,
    ] {
        header(&format!(r#"{{"alg":{alg}}}"#), Reason::Algorithm);
    }
    header(r#"{"typ":"JWT"}"#, Reason::Algorithm);
    header(&format!(r#"{{"alg":"{}"}}"#, "ALG\u{17f}"), Reason::Algorithm);
    header(r#"{"alg":"none","alg":"ALG"}"#, Reason::DuplicateMember);
    header(r#"{"alg":"ALG","alg":"none"}"#, Reason::DuplicateMember);
    header(r#"{"alg":"ALG","\u0061lg":"ALG"}"#, Reason::DuplicateMember);
    header(r#"{"alg":"ALG","x":{"a":1,"a":2}}"#, Reason::DuplicateMember);
    for crit in [r#"["x"]"#, r#"["exp"]"#, "[5]", "[]", "null", r#""x""#, r#"["alg"]"#, r#"["b64"]"#] {
        header(&format!(r#"{{"alg":"ALG","crit":{crit},"x":1}}"#), Reason::Critical);
    }
    for member in [
        r#""b64":false"#,
        r#""b64":true"#,
        r#""zip":"DEF""#,
        r#""enc":"A128GCM""#,
        r#""cty":"JWT""#,
        r#""cty":"application/jwt""#,
        r#""cty":1"#,
    ] {
        header(&format!(r#"{{"alg":"ALG",{member}}}"#), Reason::HeaderMember);
    }
    header(r#"{"alg":"ALG","crit":["b64"],"b64":false}"#, Reason::Critical);
    for kid in ["../../../../dev/null", "' OR 1=1 --", "|sleep 5", "", "x"] {
        header(&format!(r#"{{"alg":"ALG","kid":"{kid}"}}"#), Reason::UnknownKey);
    }
    header(&format!(r#"{{"alg":"ALG","kid":"{}"}}"#, "k".repeat(257)), Reason::KeyId);
    header(&format!(r#"{{"alg":"ALG","kid":"{}"}}"#, "k".repeat(5000)), Reason::KeyId);
    for kid in ["1", "null", "[]", "{}"] {
        header(&format!(r#"{{"alg":"ALG","kid":{kid}}}"#), Reason::KeyId);
    }
    for broken in ["[]", "\"x\"", "1", "null", "{", r#"{"alg":"ALG"}}"#, r#"{"alg":"ALG"} x"#, "\u{feff}{}"] {
        header(broken, Reason::HeaderSyntax);
    }
    for typ in [
        r#""assertion+jwt""#,
        r#""logout+jwt""#,
        r#""rt+jwt""#,
        r#""""#,
        r#""application/""#,
        r#""JWT ""#,
        "null",
        "1",
        "[\"JWT\"]",
    ] {
        header(&format!(r#"{{"alg":"ALG","typ":{typ}}}"#), Reason::Type);
    }
    let lower = format!(r#"{{"alg":"{}"}}"#, alg.to_ascii_lowercase());
    cases.push(invalid("alg in lower case", mint.sign(&lower, &honest), Reason::Algorithm));
    cases
}

fn forms(mint: &Mint) -> Vec<Case> {
    let good = mint.say(Payload::honest().json());
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let mut cases = Vec::new();
    for token in
        ["", ".", "..", "...", "a", "a.b", header, &format!("{header}.{payload}"), &format!("{header}.{payload}.")]
    {
        cases.push(invalid(format!("parts {token:.20}"), token.to_owned(), Reason::NotThreeParts));
    }
    for token in [
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good}.{signature}.{signature}"),
        format!("{header}.{header}.{header}.{payload}.{signature}"),
        ".".repeat(MAX_TOKEN_BYTES),
    ] {
        cases.push(invalid(format!("parts {token:.20}"), token, Reason::NotThreeParts));
    }
    for token in [".".repeat(1 << 20), format!("{good}{}", "A".repeat(MAX_TOKEN_BYTES))] {
        cases.push(invalid("too long", token, Reason::TooLong));
    }
    let long = Payload::honest().with("sub", format!("{:?}", "a".repeat(64 << 10))).json();
    cases.push(invalid("64 KiB subject", mint.say(long), Reason::TooLong));
    for token in [
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}%2e"),
        format!("{good}\""),
        format!("{good}, x"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good}\0"),
        format!("{good}é"),
        format!(" {good}"),
        format!("\"{good}\""),
        format!("{header}=.{payload}.{signature}"),
        format!("{header} .{payload}.{signature}"),
    ] {
        cases.push(invalid(format!("alphabet {token:.20}"), token, Reason::Base64));
    }
    for (name, text) in
        [("padding", "="), ("space", " "), ("hash", "#"), ("question", "?"), ("newline", "\n"), ("plus", "+")]
    {
        let token = mint.sign_encoded(header, &format!("{payload}{text}"));
        cases.push(invalid(format!("{name} in a signed payload"), token, Reason::Base64));
    }
    cases.push(invalid(
        "raw payload",
        mint.sign_encoded(header, &Payload::honest().json().replace('.', "")),
        Reason::Base64,
    ));
    cases.push(invalid("JSON serialization", r#"{"payload":"e30","signatures":[]}"#.to_owned(), Reason::NotThreeParts));
    cases
}

fn signatures(mint: &Mint) -> Vec<Case> {
    let good = mint.say(Payload::honest().json());
    let (signed, encoded) = good.rsplit_once('.').unwrap();
    let bytes = signature(mint.key.algorithm, mint.key.material.expose(), signed.as_bytes());
    let bad = |name: &str, bytes: &[u8]| invalid(name, format!("{signed}.{}", b64(bytes)), Reason::Signature);
    let mut cases = vec![
        bad("one byte short", &bytes[..bytes.len() - 1]),
        bad("one byte short at the front", &bytes[1..]),
        bad("one byte long", &[&bytes[..], &[0]].concat()),
        bad("one byte long at the front", &[&[0], &bytes[..]].concat()),
        bad("half", &bytes[..bytes.len() / 2]),
        bad("twice", &bytes.repeat(2)),
        bad("zeros", &vec![0; bytes.len()]),
        bad("ones", &vec![255; bytes.len()]),
        bad("one byte", &[0]),
        bad("DER of zeros", &[0x30, 6, 2, 1, 0, 2, 1, 0]),
    ];
    for bit in [0, 7, bytes.len() * 4, bytes.len() * 8 - 1] {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        cases.push(bad(&format!("bit {bit} flipped"), &flipped));
    }
    let payload = Payload::honest().with("sub", r#""admin""#).json();
    cases.push(invalid(
        "another payload",
        format!("{}.{}.{encoded}", b64(mint.header()), b64(&payload)),
        Reason::Signature,
    ));
    // RFC 4648 section 3.5: where the last group is short, its spare bits must be zero.
    if !bytes.len().is_multiple_of(3) {
        let last = encoded.as_bytes()[encoded.len() - 1];
        let other = if last.is_ascii_digit() || last == b'_' || last == b'z' { last - 1 } else { last + 1 };
        let token = format!("{signed}.{}{}", &encoded[..encoded.len() - 1], char::from(other));
        cases.push(invalid("stray last bits", token, Reason::Base64));
    }
    if encoded.contains(['-', '_']) {
        let token = format!("{signed}.{}", encoded.replace('-', "+").replace('_', "/"));
        cases.push(invalid("the standard alphabet", token, Reason::Base64));
    }
    cases
}

/// Algorithm confusion, and keys that come with the token.
fn other_keys(mint: &Mint) -> Vec<Case> {
    let ours = algorithm_name(mint.key.algorithm);
    let payload = b64(Payload::honest().json());
    let mut cases = Vec::new();
    let jwk = mint.set.verification_keys(now())["keys"][0].clone();
    let mut secrets = vec![
        Vec::new(),
        b"secret".to_vec(),
        b"your-256-bit-secret".to_vec(),
        mint.key.kid.clone().into_bytes(),
        jwk.to_string().into_bytes(),
    ];
    for member in ["n", "x"] {
        if let Some(public) = jwk[member].as_str() {
            let as_pem = pem("PUBLIC KEY", public.as_bytes()).expose().clone();
            let crlf = String::from_utf8(as_pem.clone()).unwrap().replace('\n', "\r\n").into_bytes();
            secrets.extend([public.as_bytes().to_vec(), as_pem, crlf]);
        }
    }
    let header = b64(r#"{"alg":"HS256"}"#);
    let reason = if ours == "HS256" { Reason::Signature } else { Reason::Algorithm };
    for secret in secrets {
        let signed = format!("{header}.{payload}");
        let token = format!("{signed}.{}", b64(hmac(&digest::SHA256, &secret, signed.as_bytes())));
        cases.push(invalid("HMAC under what everyone knows", token, reason));
    }
    for other in super::forge::ALL {
        if other != mint.key.algorithm {
            let stranger = Mint::new(other);
            let token = stranger.sign_encoded(&b64(stranger.header()), &payload);
            cases.push(invalid(format!("signed with {other:?}"), token, Reason::Algorithm));
            let token = stranger.sign_encoded(&b64(mint.header()), &payload);
            let same_rsa =
                matches!((ours.as_bytes()[0], algorithm_name(other).as_bytes()[0]), (b'R' | b'P', b'R' | b'P'));
            let name = format!("{other:?} signature under our name, same key: {same_rsa}");
            cases.push(invalid(name, token, Reason::Signature));
        }
    }
    if !ours.starts_with(['R', 'P']) {
        let thief = Mint::new(mint.key.algorithm);
        let own = thief.set.verification_keys(now())["keys"][0].to_string();
        let own = if own == "null" { r#"{"kty":"oct","k":"AA"}"#.to_owned() } else { own };
        for member in [
            format!(r#""jwk":{own}"#),
            r#""jku":"http://127.0.0.1:9/jwks""#.to_owned(),
            r#""x5u":"http://127.0.0.1:9/cert""#.to_owned(),
            r#""x5c":["AA=="]"#.to_owned(),
        ] {
            let token = thief.sign(&format!(r#"{{"alg":"{ours}",{member}}}"#), Payload::honest().json());
            cases.push(invalid(format!("thief's {member:.5}"), token, Reason::Signature));
        }
        let kid = mint.set.signing_key_id(now());
        let token = thief.sign(&format!(r#"{{"alg":"{ours}","kid":"{kid}"}}"#), Payload::honest().json());
        cases.push(invalid("our kid, a thief's key", token, Reason::Signature));
    }
    cases
}

fn payloads(mint: &Mint) -> Vec<Case> {
    let honest = Payload::honest().json();
    let mut cases = Vec::new();
    let mut payload = |name: &str, bytes: &[u8], reason| cases.push(invalid(name, mint.say(bytes), reason));
    for text in [
        "[]",
        "\"x\"",
        "1",
        "null",
        "{",
        "{}x",
        " ",
        "{}{}",
        "{,}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":NaN}",
        "{\"a\":01}",
    ] {
        payload(text, text.as_bytes(), Reason::PayloadSyntax);
    }
    for (name, text) in [
        ("trailing garbage", format!("{honest}x")),
        ("a second object", format!("{honest}{honest}")),
        ("a byte-order mark", format!("\u{feff}{honest}")),
        ("a NUL behind", format!("{honest}\0")),
        ("a NUL before", format!("\0{honest}")),
        ("a lone surrogate", Payload::honest().with("x", r#""\ud800""#).json()),
        ("a raw control", Payload::honest().with("x", "\"\u{1}\"").json()),
        ("deep nesting", Payload::honest().with("x", format!("{}{}", "[".repeat(2500), "]".repeat(2500))).json()),
        ("exp 1e400", Payload::honest().with("exp", "1e400").json()),
        ("exp -1e400", Payload::honest().with("exp", "-1e400").json()),
    ] {
        payload(name, text.as_bytes(), Reason::PayloadSyntax);
    }
    let mut not_utf8 = Payload::honest().with("x", "\"Z\"").json().into_bytes();
    let place = not_utf8.iter().rposition(|byte| *byte == b'Z').unwrap();
    not_utf8[place] = 0xff;
    payload("not UTF-8", &not_utf8, Reason::PayloadSyntax);
    for (name, json) in [
        ("sub", r#""admin""#),
        ("\\u0073ub", r#""admin""#),
        ("exp", "9999999999"),
        ("e\\u0078p", "9999999999"),
        ("iss", "\"http://gateway.test\""),
        ("aud", "\"portcullis\""),
    ] {
        payload(&format!("{name} twice"), Payload::honest().and(name, json).json().as_bytes(), Reason::DuplicateMember);
    }
    for name in ["role", "groups"] {
        let text = Payload::honest().and(name, r#"["a"]"#).and(name, r#"["b"]"#).json();
        payload(&format!("{name} twice"), text.as_bytes(), Reason::DuplicateMember);
    }
    let deep = Payload::honest().and("x", r#"[{"y":{"a":1,"\u0061":2}}]"#).json();
    payload("a name twice inside", deep.as_bytes(), Reason::DuplicateMember);
    cases
}

fn times(mint: &Mint) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut claim = |name: &'static str, json: String, expected: Refusal| {
        let token = mint.say(Payload::honest().with(name, &json).json());
        cases.push((format!("{name} {json:.40}"), token, expected));
    };
    let malformed = |name| Refusal::Invalid(Reason::Claim(name));
    for json in [
        "null",
        "\"1800000000\"",
        "true",
        "[1800000000]",
        "-1",
        "-1e3",
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "1e300",
        "{}",
    ] {
        for name in ["exp", "iat", "nbf", "auth_time"] {
            claim(name, json.to_owned(), malformed(name));
        }
    }
    for exp in ["0", "1", "0.5", "1e0", "-0", "0.0"] {
        claim("exp", exp.to_owned(), Refusal::Expired);
    }
    for exp in [NOW - 1, NOW] {
        claim("exp", exp.to_string(), Refusal::Expired);
        claim("exp", format!("{exp}.9"), Refusal::Expired);
    }
    claim("exp", (NOW * 1000).to_string(), Refusal::Invalid(Reason::LivesTooLong));
    claim("exp", (NOW + 86_401).to_string(), Refusal::Invalid(Reason::LivesTooLong));
    claim("iat", (NOW - 86_400).to_string(), Refusal::Invalid(Reason::LivesTooLong));
    claim("iat", "0".to_owned(), Refusal::Invalid(Reason::LivesTooLong));
    for ahead in [31, 3600] {
        claim("iat", (NOW + ahead).to_string(), Refusal::Invalid(Reason::IssuedAhead));
        claim("nbf", (NOW + ahead).to_string(), Refusal::Invalid(Reason::NotYetValid));
    }
    cases
}

fn claims(mint: &Mint) -> Vec<Case> {
    let mut cases = Vec::new();
    let malformed = |name| Refusal::Invalid(Reason::Claim(name));
    let mut claim = |name: &'static str, json: String, expected: Refusal| {
        let token = mint.say(Payload::honest().with(name, &json).json());
        cases.push((format!("{name} {json:.40}"), token, expected));
    };
    for issuer in [
        "",
        "other",
        "http://gateway.test/",
        "http://gateway.test.evil",
        " http://gateway.test",
        "HTTP://gateway.test",
        "http://gateway",
    ] {
        claim("iss", format!("{issuer:?}"), Refusal::NotOurs { issuer: Some(issuer.to_owned()) });
    }
    for json in ["null", "5", "{}", "[\"http://gateway.test\"]", "true"] {
        claim("iss", json.to_owned(), Refusal::NotOurs { issuer: None });
    }
    for json in ["5", "null", "{}", "true", r#"["portcullis",5]"#, r#"["portcullis",null]"#, r#"[["portcullis"]]"#] {
        claim("aud", json.to_owned(), malformed("aud"));
    }
    for json in
        ["[]", r#""other""#, r#""portcullis ""#, r#""Portcullis""#, r#"["a","b"]"#, r#""""#, r#""portcullis,other""#]
    {
        claim("aud", json.to_owned(), Refusal::Invalid(Reason::Audience));
    }
    for json in [
        "null",
        "5",
        "[\"alice\"]",
        "{}",
        "true",
        r#""""#,
        r#""a\rb""#,
        r#""a\nb""#,
        r#""a\u0000""#,
        r#""a\u007f""#,
        r#""a\tb""#,
        r#""\u0085a""#,
        r#"" a""#,
        r#""a ""#,
        r#""\u00a0a""#,
        r#""a\u3000""#,
        r#""a\u030a""#,
    ] {
        claim("sub", json.to_owned(), malformed("sub"));
    }
    claim("sub", format!("{:?}", "a".repeat(257)), malformed("sub"));
    for name in ["jti", "sid", "scope"] {
        for json in ["null", "1", "[]", "{}", "false"] {
            claim(name, json.to_owned(), malformed(name));
        }
    }
    for name in ["amr", "groups"] {
        for json in ["null", "\"a\"", "[1]", "[null]", "{}", r#"["a",["b"]]"#] {
            claim(name, json.to_owned(), malformed(name));
        }
    }
    for name in ["exp", "iat", "aud", "sub"] {
        cases.push((format!("no {name}"), mint.say(Payload::honest().without(name).json()), malformed(name)));
    }
    cases.push((
        "no iss".to_owned(),
        mint.say(Payload::honest().without("iss").json()),
        Refusal::NotOurs { issuer: None },
    ));
    cases.push(("nothing".to_owned(), mint.say("{}"), Refusal::NotOurs { issuer: None }));
    cases
}

#[test]
fn nothing_hides_that_a_token_has_expired() {
    let mint = Mint::new(Algorithm::ES256);
    let old = || Payload::honest().with("exp", NOW - 1);
    for payload in [
        old().without("sub"),
        old().with("iat", "\"x\""),
        old().with("nbf", NOW + 3600),
        old().with("groups", 5),
        old().without("iat"),
        old().with("iat", NOW - 900_000),
    ] {
        assert_eq!(mint.set.verify(&mint.say(payload.json()), now()).unwrap_err(), Refusal::Expired);
    }
    let token = mint.sign(r#"{"alg":"ES256","typ":"assertion+jwt"}"#, old().json());
    assert_eq!(mint.set.verify(&token, now()).unwrap_err(), Refusal::Expired);
    // But it is told to nobody who could not have had a good token here.
    let foreign = mint.say(old().with("aud", r#""other""#).json());
    assert_eq!(mint.set.verify(&foreign, now()).unwrap_err(), Refusal::Invalid(Reason::Audience));
    let mut forged = mint.say(old().json());
    let at = forged.len() - 10;
    // Another letter than the one that stands there, whichever that is.
    let other = if forged.as_bytes()[at] == b'A' { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    assert!(matches!(mint.set.verify(&forged, now()), Err(Refusal::Invalid(Reason::Signature))), "{forged}");
}

proptest! {
    #[test]
    fn arbitrary_text_never_verifies(text in "\\PC{0,200}", parts in "[A-Za-z0-9_.-]{0,300}") {
        let mint = Mint::new(Algorithm::HS256);
        for token in [&text, &parts] {
            prop_assert!(mint.set.verify(token, now()).is_err());
            mint.set.is_ours(token);
        }
    }

    #[test]
    fn arbitrary_signed_content_never_panics(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), json in r#"[{}\[\]":,a-z0-9.\\-]{0,60}"#) {
        let mint = Mint::new(Algorithm::HS256);
        prop_assert!(mint.set.verify(&mint.sign_encoded(&b64(&header), &b64(&payload)), now()).is_err());
        for content in [&payload[..], json.as_bytes()] {
            let token = mint.say(content);
            prop_assert!(mint.set.verify(&token, now()).is_err());
            mint.set.is_ours(&token);
        }
    }

    #[test]
    fn a_changed_byte_never_verifies(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mint = Mint::new(Algorithm::EdDSA);
        let mut token = mint.say(Payload::honest().json()).into_bytes();
        let place = place.index(token.len());
        prop_assume!(token[place] != byte);
        token[place] = byte;
        let token = String::from_utf8_lossy(&token).into_owned();
        prop_assert!(mint.set.verify(&token, now()).is_err());
    }
}
