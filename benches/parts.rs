//! What the parts of a request cost, one by one: those that every request passes through between its head and its upstream.
//!
//! `cargo bench --bench parts`. What a token costs that was never seen is in `tokens`, the whole decision among many routes in
//! `routes`; what all of it comes to in instructions is counted by `counts/run.py`.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "shared with other benchmarks")]
mod support;

use std::net::{IpAddr, Ipv4Addr};

use divan::{Bencher, black_box};
use http::header::COOKIE;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use portcullis::access::{Asking, Credential, Decision, Says, Shown, Standing, authorization, extract};
use portcullis::clock::{Clock, Timestamp};
use portcullis::config::{Algorithm, HeaderEdits, PathChange};
use portcullis::message::forwarded::{Scheme, Trust};
use portcullis::message::host::Host;
use portcullis::message::path::{Reading, RequestPath};
use portcullis::policy::Person;
use portcullis::proxy::rewrite::{self, Edits, RewriteFacts, Way};
use portcullis::route::Router;
use serde_json::Map;
use support::Gate;

fn main() {
    divan::main();
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// A route among so many, a thousand of them in turn, or all where there are fewer.
#[divan::bench(args = [10, 1_000, 10_000], sample_count = 200, sample_size = 1_000)]
fn route(bencher: Bencher<'_, '_>, count: usize) {
    let gate = Gate::with_routes(Algorithm::HS256, count);
    let router = Router::new(gate.access().rules().routes());
    let asked = count.min(1_000);
    let paths: Vec<_> = (0..asked).map(|number| format!("/service-{}/page", number * (count / asked))).collect();
    let find = |path: &String| router.find("apps.example.com", &Method::GET, path);
    assert!(paths.iter().all(|path| find(path).is_some()));
    let mut next = paths.iter().cycle();
    bencher.bench_local(|| find(black_box(next.next().unwrap())).is_some());
}

/// The one form of a path, and what it is under every reading that changes it.
#[divan::bench(
    args = ["/app/page", "/app/a/rather/long/path/of/some/application/index.html", "/app/%7Euser/%C3%A9t%C3%A9", "/App//a%2Fb;v=1"],
    sample_count = 200,
    sample_size = 1_000
)]
fn path(bencher: Bencher<'_, '_>, written: &str) {
    bencher.bench_local(|| {
        let path = RequestPath::parse(black_box(written)).unwrap();
        Reading::ALL.into_iter().filter(|reading| path.changes_under(*reading)).count()
    });
}

/// What a request shows: nothing, a Bearer token, or our cookie among others.
#[divan::bench(args = ["nothing", "bearer", "cookie"], sample_count = 200, sample_size = 1_000)]
fn credential(bencher: Bencher<'_, '_>, kind: &str) {
    let gate = Gate::new(Algorithm::HS256);
    let (_, mut headers) = gate.request(&gate.token(now()));
    let accept = gate.access().rules().routes()[0].accept;
    match kind {
        "nothing" => headers.clear(),
        "bearer" => {}
        _ => {
            headers.clear();
            let cookies = format!("theme=dark; __Host-portcullis={}; lang=en", "A".repeat(43));
            headers.insert(COOKIE, HeaderValue::try_from(cookies).unwrap());
        }
    }
    let read = |headers| match extract(headers, authorization(headers), accept, "__Host-portcullis") {
        Credential::None => "nothing",
        Credential::Bearer(_) => "bearer",
        Credential::Cookies(_) => "cookie",
        _ => "another",
    };
    assert_eq!(read(&headers), kind);
    bencher.bench_local(|| read(black_box(&headers)));
}

/// A token that was seen before is found again: with its digest, and all that can have changed since.
#[divan::bench(args = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256], sample_count = 200, sample_size = 500)]
fn cache_hit(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let gate = Gate::new(algorithm);
    let (token, access, now) = (gate.token(now()), gate.access(), now());
    let find = |token: &str| gate.wait(access.whose(token, now));
    assert!(matches!(find(&token), Standing::Known(_)));
    bencher.bench_local(|| find(black_box(&token)));
}

/// What the rules say, under every reading, of someone who is known.
#[divan::bench(args = ["/app/page", "/App//a%2Fb;v=1"], sample_count = 200, sample_size = 1_000)]
fn decision(bencher: Bencher<'_, '_>, path: &str) {
    let gate = Gate::new(Algorithm::HS256);
    let ((head, _), access) = (gate.request_for(path, "x"), gate.access());
    let (claims, groups) = (Map::new(), ["staff".to_owned()]);
    let person =
        Person { user: "alice", groups: &groups, scopes: &[], claims: &claims, methods: &[], signed_in_at: None };
    let asking = Asking { person: Some(person), shown: Shown::Bearer, ..Asking::default() };
    assert!(path != "/app/page" || matches!(access.rules().judge(&head, &asking).says, Says::Pass { named: true }));
    bencher.bench_local(|| access.rules().judge(black_box(&head), &asking).says);
}

/// The whole of [`portcullis::access::Access::check`]: nobody on a route that asks for someone; a token that was seen before.
#[divan::bench(args = ["nobody", "token"], sample_count = 200, sample_size = 500)]
fn check(bencher: Bencher<'_, '_>, kind: &str) {
    let gate = Gate::new(Algorithm::HS256);
    let mut request = gate.request(&gate.token(now()));
    if kind == "nobody" {
        request.1.clear();
    }
    assert_eq!(matches!(gate.decide(&request), Decision::Permit(_)), kind == "token");
    bencher.bench_local(|| gate.decide(black_box(&request)));
}

/// The head of a request on its way to the upstream, as a browser sends it.
#[divan::bench(sample_count = 200, sample_size = 500)]
fn rewrite_request(bencher: Bencher<'_, '_>) {
    let gate = Gate::new(Algorithm::HS256);
    let (_, mut headers) = gate.request(&gate.token(now()));
    for (name, value) in BROWSER {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    with_facts(&gate, |facts| {
        let rewritten = |mut headers| {
            let added = rewrite::request_beside(&mut headers, facts, Some(0));
            (headers, added)
        };
        let (there, added) = rewritten(headers.clone());
        assert!(added.replaces(&HeaderName::from_static("x-forwarded-for")) && !there.contains_key("authorization"));
        bencher.with_inputs(|| headers.clone()).bench_local_values(rewritten);
    });
}

/// The head of an answer on its way back, as nginx sends it.
#[divan::bench(sample_count = 200, sample_size = 500)]
fn rewrite_answer(bencher: Bencher<'_, '_>) {
    let gate = Gate::new(Algorithm::HS256);
    let headers: HeaderMap =
        NGINX.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let place = Authority::from_static("127.0.0.1:1");
    with_facts(&gate, |facts| {
        let rewritten = |mut headers| {
            rewrite::answer(StatusCode::OK, &mut headers, facts, ("http", &place));
            headers
        };
        assert!(!rewritten(headers.clone()).contains_key("connection"));
        bencher.with_inputs(|| headers.clone()).bench_local_values(rewritten);
    });
}

/// Runs with what decides how heads are rewritten where alice is signed in.
fn with_facts(gate: &Gate, run: impl FnOnce(&RewriteFacts<'_>)) {
    let (access, peer) = (gate.access(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let trust = Trust { x_forwarded_for: true, x_forwarded_proto: true, ..Trust::default() };
    let (origin, none) = (trust.read(peer, &HeaderMap::new()).unwrap(), HeaderEdits::default());
    let host = Host::parse(b"apps.example.com").unwrap();
    let told = ["x-forwarded-user", "x-forwarded-groups"].map(HeaderName::from_static);
    let set = told.map(|name| (name, HeaderValue::from_static("alice")));
    run(&RewriteFacts {
        guarded: &access.config().guarded,
        our_cookies: &["__Host-portcullis"],
        remove_authorization: true,
        remove_method_overrides: false,
        set: &set,
        way: Some(Way { trust: &trust, origin: &origin, scheme: Scheme::Https, host: &host }),
        host: None,
        recording: None,
        path: PathChange::None,
        edits: Edits { request: &none, answer: &none },
        private: true,
    });
}

/// What a browser says beside its credential.
const BROWSER: &[(&str, &str)] = &[
    ("host", "apps.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("connection", "keep-alive"),
    ("cookie", "theme=dark; lang=en"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
];

/// What nginx says of a file.
const NGINX: &[(&str, &str)] = &[
    ("server", "nginx"),
    ("date", "Sun, 01 Mar 2026 12:00:00 GMT"),
    ("content-type", "text/html"),
    ("content-length", "1024"),
    ("last-modified", "Sun, 01 Feb 2026 12:00:00 GMT"),
    ("connection", "keep-alive"),
    ("etag", "\"697f3d40-400\""),
    ("accept-ranges", "bytes"),
];
