//! What a token costs: seen before, never seen, refused; and jsonwebtoken's own decoding beside it in the same run.
//!
//! `cargo bench --bench tokens`. All but `jsonwebtoken` and `signature` decide about a whole request: route, credential,
//! token, revocations, account, rule and lease.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "shared with other benchmarks")]
mod support;

use std::time::Duration;

use divan::{Bencher, black_box};
use jsonwebtoken::{DecodingKey, Validation};
use portcullis::access::Decision;
use portcullis::clock::{Clock, Timestamp};
use portcullis::config::Algorithm;
use portcullis::token::algorithm_name;
use serde_json::{Map, Value};
use support::{ALL, Gate, ISSUER};

fn main() {
    divan::main();
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// A token that was seen before.
#[divan::bench(args = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256], sample_count = 200, sample_size = 500)]
fn seen_before(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let gate = Gate::new(algorithm);
    let request = gate.request(&gate.token(now()));
    assert!(matches!(gate.decide(&request), Decision::Permit(_)));
    bencher.bench_local(|| gate.decide(black_box(&request)));
}

/// Nobody at all: what of the above is not the token's.
#[divan::bench(sample_count = 200, sample_size = 500)]
fn without_a_credential(bencher: Bencher<'_, '_>) {
    let gate = Gate::new(Algorithm::ES256);
    let mut request = gate.request("x");
    request.1.clear();
    assert!(matches!(gate.decide(&request), Decision::Challenge(_)));
    bencher.bench_local(|| gate.decide(black_box(&request)));
}

/// A token that was never seen: signature, claims, and its account from the store.
#[divan::bench(args = ALL, sample_count = 100, sample_size = 2)]
fn never_seen(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let gate = Gate::new(algorithm);
    assert!(matches!(gate.decide(&gate.request(&gate.token(now()))), Decision::Permit(_)));
    bencher.with_inputs(|| gate.request(&gate.token(now()))).bench_local_values(|request| gate.decide(&request));
}

/// The same without the store: signature and claims alone, to be compared with jsonwebtoken.
#[divan::bench(args = ALL, sample_count = 100, sample_size = 20)]
fn signature(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let gate = Gate::new(algorithm);
    let (token, now) = (gate.token(now()), now());
    bencher.bench_local(|| gate.keys.verify(black_box(&token), now).unwrap());
}

/// jsonwebtoken's `decode` of the same token with a key that was parsed before, and the checks that it offers.
#[divan::bench(args = ALL, sample_count = 100, sample_size = 20)]
fn jsonwebtoken(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let gate = Gate::new(algorithm);
    let token = gate.token(now());
    let published = gate.keys.verification_keys(now());
    let key = match published["keys"].as_array().and_then(|keys| keys.first()) {
        Some(jwk) => DecodingKey::from_jwk(&serde_json::from_value(jwk.clone()).unwrap()).unwrap(),
        None => DecodingKey::from_secret(gate.key.material.expose()),
    };
    let mut validation = Validation::new(algorithm_name(algorithm).parse().unwrap());
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&["portcullis"]);
    bencher.bench_local(|| jsonwebtoken::decode::<Map<String, Value>>(black_box(&token), &key, &validation).unwrap());
}

/// Tokens that are refused.
#[divan::bench(
    args = ["signature", "expired", "garbage", "three parts of garbage", "oversized"],
    sample_count = 100,
    sample_size = 20
)]
fn refused(bencher: Bencher<'_, '_>, kind: &str) {
    let gate = Gate::new(Algorithm::ES256);
    let good = gate.token(now());
    let token = match kind {
        "signature" => {
            let (signed, signature) = good.rsplit_once('.').unwrap();
            let other = if signature.starts_with('A') { 'B' } else { 'A' };
            format!("{signed}.{other}{}", &signature[1..])
        }
        "expired" => gate.token(now() - Duration::from_secs(7200)),
        "garbage" => "garbage".to_owned(),
        "three parts of garbage" => "a.b.c".to_owned(),
        _ => format!("{good}{}", "A".repeat(30_000)),
    };
    let request = gate.request(&token);
    assert!(matches!(gate.decide(&request), Decision::Challenge(_)));
    bencher.bench_local(|| gate.decide(black_box(&request)));
}
