//! Whether a request costs more among many routes: the whole decision about a request with a token that was seen before.
//!
//! `cargo bench --bench routes`. The requests go to a thousand different routes in turn, or to all where there are fewer.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "shared with other benchmarks")]
mod support;

use divan::{Bencher, black_box};
use portcullis::access::Decision;
use portcullis::clock::Clock;
use portcullis::config::Algorithm;
use support::Gate;

fn main() {
    divan::main();
}

/// Among so many routes.
#[divan::bench(args = [10, 1_000, 10_000], sample_count = 200, sample_size = 1_000)]
fn decision(bencher: Bencher<'_, '_>, count: usize) {
    let gate = Gate::with_routes(Algorithm::HS256, count);
    let token = gate.token(Clock::system().now());
    let asked = count.min(1_000);
    let requests: Vec<_> = (0..asked)
        .map(|number| gate.request_for(&format!("/service-{}/page", number * (count / asked)), &token))
        .collect();
    assert!(requests.iter().all(|request| matches!(gate.decide(request), Decision::Permit(_))));
    let mut next = requests.iter().cycle();
    bencher.bench_local(|| gate.decide(black_box(next.next().unwrap())));
}
