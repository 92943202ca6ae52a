//! Tokens of others: every algorithm, every way of lying, keys that come, go and fail to come.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::jwks::Jwks;
use super::source::Loaded;
use super::*;
use crate::clock::ManualClock;
use crate::config::{Accounts, Algorithm, IssuerKeys};
use crate::secret::Secret;
use crate::token::algorithm_name;
use crate::token::forge::{ALL, Mint, NOW, Payload, b64, now};

const ISS: &str = "https://id.example";

fn terms() -> config::Issuer {
    config::Issuer {
        name: "corp".into(),
        issuer: ISS.to_owned(),
        audience: vec!["apps".to_owned(), "other".to_owned()],
        keys: IssuerKeys::Url { url: "https://id.example/jwks.json".to_owned(), ca: None },
        algorithms: ALL.into_iter().filter(|algorithm| !algorithm_name(*algorithm).starts_with("HS")).collect(),
        user: "sub".to_owned(),
        groups: "groups".to_owned(),
        accounts: Accounts::Separate,
        user_prefix: String::new(),
        group_prefix: String::new(),
        others_users: Vec::new(),
        others_groups: Vec::new(),
        leeway: Duration::ZERO,
        max_lifetime: Duration::from_secs(86_400),
    }
}

fn issuer(terms: config::Issuer) -> (Arc<Issuer>, ManualClock) {
    let hand = ManualClock::at(now());
    let issuers = Issuers::new(&[Arc::new(terms)], &Issuers::default(), &Clock::manual(&hand));
    (Arc::clone(issuers.iter().next().unwrap()), hand)
}

/// What a set of these keys looks like on the wire.
fn document(mints: &[&Mint]) -> Value {
    let keys: Vec<Value> =
        mints.iter().flat_map(|mint| mint.set.verification_keys(now())["keys"].as_array().unwrap().clone()).collect();
    json!({ "keys": keys })
}

fn loaded(document: &Value, terms: &config::Issuer) -> Loaded {
    let jwks = Jwks::read(document.to_string().as_bytes(), &terms.algorithms).unwrap();
    Loaded { jwks, good_for: Duration::from_secs(3600) }
}

fn feed(issuer: &Issuer, mints: &[&Mint]) {
    issuer.take_in(Ok(loaded(&document(mints), &issuer.config)));
}

fn payload() -> Payload {
    Payload::honest().with("iss", format!("{ISS:?}")).with("aud", "\"apps\"")
}

/// A token as issuers write them: with the key's name.
fn named(mint: &Mint, payload: &Payload) -> String {
    let alg = algorithm_name(mint.key.algorithm);
    mint.sign(&json!({ "alg": alg, "typ": "JWT", "kid": mint.key.kid }).to_string(), payload.json())
}

/// Judged with what is known, without asking anybody.
fn judged(issuer: &Arc<Issuer>, token: &str) -> Result<Verified, ForeignRefusal> {
    match judge::judge(issuer, token, now()) {
        Judged::Holds(verified) => Ok(*verified),
        Judged::Refused(refusal) => Err(refusal),
        Judged::UnknownKey(_) => Err(ForeignRefusal::Unavailable),
    }
}

fn refusal(issuer: &Arc<Issuer>, payload: &Payload, mint: &Mint) -> ForeignRefusal {
    judged(issuer, &named(mint, payload)).unwrap_err()
}

#[test]
fn a_token_of_every_algorithm_verifies_with_its_key_named_or_not() {
    for algorithm in ALL {
        let mint = Mint::new(algorithm);
        let shared = algorithm_name(algorithm).starts_with("HS");
        let (issuer, _) = if shared {
            let keys = IssuerKeys::Shared(vec![Secret::new(mint.key.material.expose().clone())]);
            issuer(config::Issuer { keys, algorithms: vec![algorithm], ..terms() })
        } else {
            let (issuer, hand) = issuer(terms());
            feed(&issuer, &[&mint]);
            (issuer, hand)
        };
        for token in [named(&mint, &payload()), mint.say(payload().json())] {
            let verified = judged(&issuer, &token).unwrap_or_else(|refusal| panic!("{algorithm:?}: {refusal}"));
            assert_eq!((verified.claims().sub.as_str(), verified.profile().user.as_str()), ("alice", "alice"));
            assert!(verified.recheck(now()).is_ok());
            assert_eq!(verified.recheck(Timestamp::from_secs(NOW + 900)), Err(ForeignRefusal::Expired));
        }
    }
}

#[test]
fn an_algorithm_that_the_issuer_does_not_use_is_refused_whatever_the_key() {
    let (es, rs) = (Mint::new(Algorithm::ES256), Mint::new(Algorithm::RS256));
    let only = config::Issuer { algorithms: vec![Algorithm::RS256], ..terms() };
    let (issuer, _) = issuer(only.clone());
    assert!(Jwks::read(document(&[&es]).to_string().as_bytes(), &only.algorithms).is_err(), "no key of it can be used");
    feed(&issuer, &[&es, &rs]);
    assert!(judged(&issuer, &named(&rs, &payload())).is_ok());
    assert_eq!(refusal(&issuer, &payload(), &es), Reason::Algorithm.into());
    // The public key as a secret (RFC 8725 section 2.1).
    let public = document(&[&rs])["keys"][0].to_string();
    let header = b64(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, rs.key.kid));
    let signed = format!("{header}.{}", b64(payload().json()));
    let mac = crate::token::forge::signature(Algorithm::HS256, public.as_bytes(), signed.as_bytes());
    assert_eq!(judged(&issuer, &format!("{signed}.{}", b64(mac))).unwrap_err(), Reason::Algorithm.into());
    // A key that says its algorithm verifies no other.
    let header = format!(r#"{{"alg":"RS512","kid":"{}"}}"#, rs.key.kid);
    let (all, _) = self::issuer(terms());
    feed(&all, &[&rs]);
    assert!(judged(&all, &rs.sign(&header, payload().json())).is_err());
}

#[test]
fn what_a_token_must_say_is_judged_as_for_own_ones() {
    let mint = Mint::new(Algorithm::ES256);
    let (issuer, _) = issuer(terms());
    feed(&issuer, &[&mint]);
    let claim = |name| ForeignRefusal::Invalid(Reason::Claim(name));
    let invalid = ForeignRefusal::Invalid;
    let table = [
        (payload().with("iss", "\"https://id.example/\""), claim("iss")),
        (payload().with("iss", "[\"https://id.example\"]"), claim("iss")),
        (payload().without("iss"), claim("iss")),
        (payload().with("aud", "\"app\""), invalid(Reason::Audience)),
        (payload().with("aud", "[]"), invalid(Reason::Audience)),
        (payload().with("aud", "[\"apps\",1]"), claim("aud")),
        (payload().without("aud"), claim("aud")),
        (payload().with("exp", NOW), ForeignRefusal::Expired),
        (payload().with("exp", "null"), claim("exp")),
        (payload().without("exp"), claim("exp")),
        (payload().with("exp", NOW + 86_401), invalid(Reason::LivesTooLong)),
        (payload().without("iat").with("exp", NOW + 86_401), invalid(Reason::LivesTooLong)),
        (payload().with("iat", NOW + 31), invalid(Reason::IssuedAhead)),
        (payload().with("nbf", NOW + 31), invalid(Reason::NotYetValid)),
        (payload().with("nbf", "\"x\""), claim("nbf")),
        (payload().with("sub", "\"\""), invalid(Reason::Person)),
        (payload().with("sub", "7"), invalid(Reason::Person)),
        (payload().with("sub", "\"a\\nb\""), invalid(Reason::Person)),
        (payload().with("sub", "\" a\""), invalid(Reason::Person)),
        (payload().with("sub", "\"e\\u0301\""), invalid(Reason::Person)),
        (payload().with("sub", format!("{:?}", "a".repeat(257))), invalid(Reason::Person)),
        (payload().without("sub"), invalid(Reason::Person)),
        (payload().and("sub", "\"root\""), invalid(Reason::DuplicateMember)),
    ];
    for (payload, expected) in &table {
        assert_eq!(refusal(&issuer, payload, &mint), *expected, "{}", payload.json());
    }
    for good in [
        payload().with("aud", "[\"x\",\"other\"]"),
        payload().without("iat"),
        payload().with("iat", NOW + 30).with("exp", NOW + 86_430),
        payload().with("sub", "\"Ålice\""),
        payload().with("exp", format!("{}.9", NOW + 900)),
    ] {
        assert!(judged(&issuer, &named(&mint, &good)).is_ok(), "{}", good.json());
    }
    for (header, reason) in [
        (r#"{"alg":"ES256","typ":"logout+jwt"}"#, Reason::Type),
        (r#"{"alg":"ES256","typ":"assertion+jwt"}"#, Reason::Type),
        (r#"{"alg":"ES256","crit":["x"],"x":1}"#, Reason::Critical),
        (r#"{"alg":"ES256","cty":"JWT"}"#, Reason::HeaderMember),
        (r#"{"alg":"none"}"#, Reason::Algorithm),
        (r#"{"alg":"ES256","kid":7}"#, Reason::KeyId),
    ] {
        let token = mint.sign(header, payload().json());
        assert_eq!(judged(&issuer, &token).unwrap_err(), reason.into(), "{header}");
    }
    let token = named(&mint, &payload());
    let forged = named(&Mint { key: Mint::new(Algorithm::ES256).key, set: Arc::clone(&mint.set) }, &payload());
    let (signed, _) = token.rsplit_once('.').unwrap();
    let swapped = format!("{signed}.{}", forged.rsplit_once('.').unwrap().1);
    assert_eq!(judged(&issuer, &swapped).unwrap_err(), Reason::Signature.into());
}

#[test]
fn names_groups_and_scopes_come_from_where_the_terms_say() {
    let mint = Mint::new(Algorithm::ES256);
    let (issuer, _) = issuer(config::Issuer {
        user: "realm.login".to_owned(),
        groups: "realm_access.roles".to_owned(),
        user_prefix: "corp:".to_owned(),
        group_prefix: "corp/".to_owned(),
        ..terms()
    });
    feed(&issuer, &[&mint]);
    let base = payload().with("realm", r#"{"login":"Bob"}"#);
    let told = |payload: &Payload| {
        let verified = judged(&issuer, &named(&mint, payload)).unwrap();
        let profile = verified.profile();
        (profile.user.clone(), profile.groups.join("|"), verified.claims().scope.clone(), profile.email.clone())
    };
    let rich = base
        .with("realm_access", r#"{"roles":["dev",7,"a,b","ops"]}"#)
        .with("scp", r#"["read","write"]"#)
        .with("email", "\"bob@example.com\"");
    assert_eq!(told(&rich), ("corp:Bob".into(), "corp/dev|corp/ops".into(), "read write".into(), None));
    let rich = rich.with("email_verified", "\"true\"").with("scope", "\"x y\"");
    assert_eq!((told(&rich).2, told(&rich).3), ("x y".into(), None), "a text is no boolean");
    let rich = rich.with("email_verified", "true").with("realm_access", r#"{"roles":"one"}"#);
    assert_eq!((told(&rich).1, told(&rich).3), ("corp/one".into(), Some("bob@example.com".into())));
    assert_eq!(refusal(&issuer, &payload(), &mint), Reason::Person.into());

    let (by_mail, _) = self::issuer(config::Issuer { user: "email".to_owned(), ..terms() });
    feed(&by_mail, &[&mint]);
    let mail = payload().with("email", "\"bob@example.com\"");
    for unverified in [mail, payload().with("email", "\"b@x\"").with("email_verified", "false")] {
        assert_eq!(refusal(&by_mail, &unverified, &mint), Reason::EmailNotVerified.into());
    }
    let good = payload().with("email", "\"bob@example.com\"").with("email_verified", "true");
    assert_eq!(judged(&by_mail, &named(&mint, &good)).unwrap().profile().user, "bob@example.com");
}

#[test]
fn nobody_of_one_issuer_is_called_what_someone_of_another_is() {
    let mint = Mint::new(Algorithm::ES256);
    let (issuer, _) = issuer(config::Issuer {
        user_prefix: "c".to_owned(),
        group_prefix: "/".to_owned(),
        others_users: vec!["corp:".to_owned()],
        others_groups: vec!["/corp/".to_owned(), "//".to_owned()],
        ..terms()
    });
    feed(&issuer, &[&mint]);
    let named_so = |name: &str| judged(&issuer, &named(&mint, &payload().with("sub", format!("{name:?}"))));
    assert_eq!(named_so("orp:bob").unwrap_err(), Reason::Person.into());
    assert_eq!(named_so("orp:").unwrap_err(), Reason::Person.into());
    for good in ["orp", "orpbob", "corp:bob", "Orp:bob"] {
        assert_eq!(named_so(good).unwrap().claims().sub, format!("c{good}"));
    }
    let groups = payload().with("groups", r#"["corp/ops","corp","/x","ops"," ops",""]"#);
    assert_eq!(judged(&issuer, &named(&mint, &groups)).unwrap().profile().groups, ["/corp", "/ops"]);
}

#[test]
fn ids_and_sessions_of_theirs_are_none_of_ours() {
    let mint = Mint::new(Algorithm::ES256);
    let (issuer, _) = issuer(terms());
    feed(&issuer, &[&mint]);
    let token = named(&mint, &payload().with("jti", "\"one\"").with("sid", "\"theirs\"").with("amr", "[\"pwd\"]"));
    let verified = judged(&issuer, &token).unwrap();
    let claims = verified.claims();
    assert_eq!((claims.sid.as_deref(), claims.jti.as_deref()), (None, Some("https://id.example\none")));
    assert!(claims.amr.is_empty());
    let nameless = judged(&issuer, &named(&mint, &payload().with("jti", "\"\""))).unwrap();
    assert_eq!(nameless.claims().jti, None, "an empty id would be that of every such token");
}

#[test]
fn a_bad_key_discards_no_other() {
    let mint = Mint::new(Algorithm::ES256);
    let good = document(&[&mint])["keys"][0].clone();
    let rsa = document(&[&Mint::new(Algorithm::RS256)])["keys"][0].clone();
    let with = |base: &Value, member: &str, value: Value| {
        let mut key = base.clone();
        key[member] = value;
        key
    };
    let without = |base: &Value, member: &str| {
        let mut key = base.clone();
        key.as_object_mut().unwrap().remove(member);
        key
    };
    let table = [
        (json!("x"), Unusable::NotAnObject),
        (with(&good, "kty", json!("XYZ")), Unusable::Kind),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), Unusable::Kind),
        (with(&good, "crv", json!("P-521")), Unusable::Curve),
        (with(&good, "crv", json!("secp256k1")), Unusable::Curve),
        (with(&good, "use", json!("enc")), Unusable::Use),
        (with(&good, "key_ops", json!(["sign"])), Unusable::Use),
        (with(&good, "key_ops", json!("verify")), Unusable::Use),
        (with(&good, "alg", json!("ES384")), Unusable::Algorithm),
        (with(&good, "alg", json!("HS256")), Unusable::Algorithm),
        (with(&good, "alg", json!(1)), Unusable::Member("alg")),
        (without(&good, "x"), Unusable::Member("x")),
        (with(&good, "y", json!("!")), Unusable::Member("y")),
        (with(&good, "y", good["x"].clone()), Unusable::Broken),
        (with(&good, "kid", json!(["a"])), Unusable::Member("kid")),
        (with(&good, "d", json!("AAAA")), Unusable::Private),
        (without(&rsa, "n"), Unusable::Member("n")),
        (with(&rsa, "n", json!("AQAB")), Unusable::Size),
        (with(&rsa, "alg", json!("RSA-OAEP")), Unusable::Algorithm),
        (json!({"kty": "OKP", "crv": "X25519", "x": good["x"]}), Unusable::Curve),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), Unusable::Member("x")),
    ];
    let algorithms = terms().algorithms;
    for (bad, why) in &table {
        let set = json!({ "keys": [bad, good] });
        let read = Jwks::read(set.to_string().as_bytes(), &algorithms).unwrap();
        assert_eq!((read.keys.len(), read.skipped), (1, vec![(1, *why)]), "{bad}");
    }
    let refused = |text: &str| Jwks::read(text.as_bytes(), &algorithms).unwrap_err();
    assert_eq!(refused("<html>"), JwksError::NotJson);
    assert_eq!(refused("[]"), JwksError::NoList);
    assert_eq!(refused(r#"{"keys":{}}"#), JwksError::NoList);
    assert_eq!(refused(r#"{"keys":[]}"#), JwksError::NoUsable { first: None });
    assert_eq!(refused(r#"{"keys":[1]}"#), JwksError::NoUsable { first: Some(Unusable::NotAnObject) });
    assert_eq!(refused(&json!({ "keys": vec![1; 101] }).to_string()), JwksError::TooMany { count: 101 });
    for exponent in ["AQ", "Ag", "BA", "AAAA", "AQAA", "", "AQAAAAAAAAAB"] {
        let set = json!({ "keys": [with(&rsa, "e", json!(exponent)), good] });
        let read = Jwks::read(set.to_string().as_bytes(), &algorithms).unwrap();
        assert_eq!((read.keys.len(), read.skipped.len()), (1, 1), "exponent {exponent:?}");
    }
    // Written less strictly than the RFC has it, and still one key.
    let padded = with(&rsa, "e", json!("AAEAAQ=="));
    assert_eq!(Jwks::read(json!({ "keys": [padded] }).to_string().as_bytes(), &algorithms).unwrap().keys.len(), 1);
}

#[test]
fn a_key_that_the_issuer_withdraws_ends_what_it_signed() {
    let (old, new) = (Mint::new(Algorithm::ES256), Mint::new(Algorithm::ES256));
    let (issuer, _) = issuer(terms());
    feed(&issuer, &[&old]);
    let early = judged(&issuer, &named(&old, &payload())).unwrap();
    feed(&issuer, &[&new, &old]);
    assert!(early.recheck(now()).is_ok(), "the same key in a later set is the same one");
    let late = judged(&issuer, &named(&new, &payload())).unwrap();
    feed(&issuer, &[&new]);
    assert_eq!(early.recheck(now()), Err(Reason::UnknownKey.into()));
    assert!(late.recheck(now()).is_ok());
    // Another key under the same name is another one.
    let mut renamed = document(&[&old]);
    renamed["keys"][0]["kid"] = json!(new.key.kid);
    issuer.take_in(Ok(loaded(&renamed, &issuer.config)));
    assert_eq!(late.recheck(now()), Err(Reason::UnknownKey.into()));
    assert_eq!(judged(&issuer, &named(&new, &payload())).unwrap_err(), Reason::Signature.into());
}

#[test]
fn issuers_with_keys_of_one_name_are_kept_apart() {
    let (ours, theirs) = (Mint::new(Algorithm::ES256), Mint::new(Algorithm::ES256));
    let (corp, _) = issuer(terms());
    let (dex, _) = issuer(config::Issuer { name: "dex".into(), issuer: "https://dex.example".to_owned(), ..terms() });
    for (issuer, mint) in [(&corp, &ours), (&dex, &theirs)] {
        let mut set = document(&[mint]);
        set["keys"][0]["kid"] = json!("1");
        issuer.take_in(Ok(loaded(&set, &issuer.config)));
    }
    let token = |mint: &Mint, iss: &str| {
        mint.sign(r#"{"alg":"ES256","kid":"1"}"#, payload().with("iss", format!("{iss:?}")).json())
    };
    assert!(judged(&corp, &token(&ours, ISS)).is_ok() && judged(&dex, &token(&theirs, "https://dex.example")).is_ok());
    assert_eq!(judged(&corp, &token(&theirs, ISS)).unwrap_err(), Reason::Signature.into());
    assert_eq!(judged(&dex, &token(&ours, "https://dex.example")).unwrap_err(), Reason::Signature.into());
    assert_eq!(judged(&dex, &token(&theirs, ISS)).unwrap_err(), Reason::Claim("iss").into());
}

#[test]
fn an_issuer_is_asked_seldom_and_not_twice_for_one_name() {
    let fetching = Fetching::new();
    let at = Duration::from_secs;
    assert!(fetching.begin(at(0)), "at once when it starts");
    assert_eq!(fetching.want("a", at(0), &fetching.subscribe()), Wanted::Soon { is_new: false }, "under way");
    assert!(!fetching.is_well());
    fetching.end(at(1), Ok(at(3600)));
    assert!(fetching.is_well());
    assert_eq!(fetching.want("a", at(4), &fetching.subscribe()), Wanted::NotNow, "it was asked a moment ago");
    assert!(!fetching.begin(at(4)));
    assert_eq!(fetching.want("a", at(5), &fetching.subscribe()), Wanted::Soon { is_new: true });
    assert_eq!(
        fetching.want("b", at(5), &fetching.subscribe()),
        Wanted::Soon { is_new: true },
        "the same attempt serves both"
    );
    assert!(fetching.begin(at(5)) && !fetching.begin(at(5)));
    fetching.end(at(5), Ok(at(3600)));
    fetching.not_found("a", at(5));
    assert_eq!(fetching.want("a", at(60), &fetching.subscribe()), Wanted::NotNow, "there was none of that name lately");
    assert_eq!(fetching.want("a", at(65), &fetching.subscribe()), Wanted::Soon { is_new: true });
    assert!(fetching.begin(at(65)));
    fetching.end(at(65), Ok(at(1000)));
    // Asked again before what it said is out of date.
    assert!(!fetching.begin(at(864)) && fetching.begin(at(865)));
    for number in 0..1000 {
        fetching.not_found(&number.to_string(), at(866));
    }
    assert_eq!(fetching.unknown_names(), 256);
}

/// Between the first look at the keys and the question an attempt may end: what it brought counts.
#[test]
fn an_attempt_that_ends_meanwhile_is_not_missed() {
    let (fetching, at) = (Fetching::new(), Duration::from_secs(1));
    assert!(fetching.begin(at));
    let before = fetching.subscribe();
    fetching.end(at, Ok(at));
    assert_eq!(fetching.want("a", at, &before), Wanted::Ended);
    assert_eq!(fetching.want("a", at, &fetching.subscribe()), Wanted::NotNow);
}

#[tokio::test]
async fn whoever_waits_for_the_end_of_a_key_is_told() {
    let (old, new) = (Mint::new(Algorithm::ES256), Mint::new(Algorithm::ES256));
    let (issuer, hand) = issuer(terms());
    feed(&issuer, &[&old, &new]);
    let of = |mint: &Mint| judged(&issuer, &named(mint, &payload())).unwrap();
    let (early, late) = (of(&old), of(&new));
    let soon = Duration::from_millis(20);
    assert!(timeout(soon, early.withdrawn()).await.is_err());
    let (told, ()) = tokio::join!(timeout(Duration::from_secs(5), early.withdrawn()), async { feed(&issuer, &[&new]) });
    told.unwrap();
    assert!(timeout(soon, late.withdrawn()).await.is_err(), "the other key still counts");
    hand.advance(Duration::from_secs(86_400));
    let (told, ()) = tokio::join!(timeout(Duration::from_secs(5), late.withdrawn()), async { issuer.expire() });
    told.unwrap();
}

#[tokio::test]
async fn a_shared_secret_is_asked_of_nobody() {
    let keys = IssuerKeys::Shared(vec![Secret::new(b"a secret".to_vec())]);
    let (issuer, _) = issuer(config::Issuer { keys, algorithms: vec![Algorithm::HS256], ..terms() });
    issuer.ask().await;
    let status = issuer.status();
    assert_eq!((status.keys, status.failed, status.error), (1, 0, None));
}

#[test]
fn an_issuer_that_fails_is_asked_ever_more_seldom() {
    let fetching = Fetching::new();
    let mut at = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert!(fetching.begin(at));
        fetching.end(at, Err("no".to_owned()));
        let wait = (1..=400).find(|wait| fetching.is_due(at + Duration::from_secs(*wait))).unwrap();
        waits.push(wait);
        at += Duration::from_secs(wait);
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert!(!fetching.is_well());
}

#[test]
fn keys_outlive_an_outage_of_their_issuer_for_a_day() {
    let mint = Mint::new(Algorithm::ES256);
    let (issuer, hand) = issuer(terms());
    feed(&issuer, &[&mint]);
    let verified = judged(&issuer, &named(&mint, &payload())).unwrap();
    let failed = || Err(SourceError::Jwks(JwksError::NotJson));
    issuer.take_in(failed());
    hand.advance(Duration::from_secs(86_399));
    issuer.expire();
    let status = issuer.status();
    assert_eq!((status.keys, status.succeeded, status.failed), (1, 1, 1));
    assert_eq!(status.error.as_deref(), Some("the key set is not JSON"));
    assert!(verified.recheck(now()).is_ok());
    hand.advance(Duration::from_secs(1));
    issuer.expire();
    assert_eq!(issuer.status().keys, 0);
    assert_eq!(verified.recheck(now()), Err(Reason::UnknownKey.into()));
    feed(&issuer, &[&mint]);
    assert!(judged(&issuer, &named(&mint, &payload())).is_ok());
}

#[test]
fn an_unchanged_issuer_keeps_its_keys_over_a_change_of_the_configuration() {
    let clock = Clock::manual(&ManualClock::at(now()));
    let before = Issuers::new(&[Arc::new(terms())], &Issuers::default(), &clock);
    let same = Issuers::new(&[Arc::new(terms())], &before, &clock);
    let kept = before.iter().next().unwrap();
    assert_eq!(same.place(kept), Some(0));
    let changed = config::Issuer { audience: vec!["apps".to_owned()], ..terms() };
    assert_eq!(Issuers::new(&[Arc::new(changed)], &before, &clock).place(kept), None);
    let secret = |secret: &[u8]| {
        let keys = IssuerKeys::Shared(vec![Secret::new(secret.to_vec())]);
        Arc::new(config::Issuer { keys, algorithms: vec![Algorithm::HS256], ..terms() })
    };
    let before = Issuers::new(&[secret(b"one")], &Issuers::default(), &clock);
    let kept = before.iter().next().unwrap();
    assert_eq!(Issuers::new(&[secret(b"one")], &before, &clock).place(kept), Some(0));
    assert_eq!(Issuers::new(&[secret(b"two")], &before, &clock).place(kept), None);
}

/// Headers and claims as the documentation of each shows them, with times beside now, and whom they come to.
#[test]
fn tokens_of_well_known_issuers_come_to_the_person_that_they_name() {
    let mint = Mint::new(Algorithm::RS256);
    let shapes: Vec<Value> = serde_json::from_str(include_str!("shapes.json")).unwrap();
    assert_eq!(shapes.len(), 7);
    for mut shape in shapes {
        let text = |shape: &Value, name: &str| shape[name].as_str().unwrap().to_owned();
        let iss = text(&shape, "iss");
        let (issuer, _) = issuer(config::Issuer {
            issuer: iss.clone(),
            audience: vec![text(&shape, "audience")],
            user: text(&shape, "user"),
            groups: text(&shape, "groups"),
            ..terms()
        });
        // Entra's keys say no `alg`, and more than a key needs.
        let mut set = document(&[&mint]);
        set["keys"][0].as_object_mut().unwrap().remove("alg");
        set["keys"][0]["x5c"] = json!(["MIIC"]);
        set["keys"][0]["issuer"] = json!(iss);
        issuer.take_in(Ok(loaded(&set, &issuer.config)));
        shape["header"]["kid"] = json!(mint.key.kid);
        let claims = &mut shape["claims"];
        claims["iss"] = json!(iss);
        for name in ["iat", "exp", "nbf", "auth_time"] {
            if let Some(offset) = claims[name].as_i64() {
                claims[name] = json!(NOW.checked_add_signed(offset).unwrap());
            }
        }
        let verified = judged(&issuer, &mint.sign(&shape["header"].to_string(), shape["claims"].to_string()));
        let verified = verified.unwrap_or_else(|refusal| panic!("{}: {refusal}", shape["what"]));
        let profile = verified.profile();
        let told = json!([profile.user, profile.groups.join("|"), verified.claims().scope]);
        assert_eq!(told, shape["told"], "{}", shape["what"]);
    }
}
