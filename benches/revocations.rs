//! What revocations cost each request, and how much memory, with none, a thousand and a million of them alive.
//!
//! `cargo bench --bench revocations`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::{Bencher, black_box};
use portcullis::clock::Timestamp;
use portcullis::token::{Claims, Event, Revocations};

const COUNTS: [u64; 3] = [0, 1_000, 1_000_000];
const NOW: u64 = 1_700_000_000;
const MANY: u64 = 16_384;

fn main() {
    println!("memory of a million revocations:");
    // All are kept to the end: what one gives back the next would take without growing.
    let mut kept = Vec::new();
    for kind in ["jti", "session", "user"] {
        let before = resident_kib();
        let revocations = filled(kind, 1_000_000);
        let grown = resident_kib().saturating_sub(before);
        println!("  {kind:8} {:>4} MiB, {} bytes each", grown / 1024, grown * 1024 / 1_000_000);
        kept.push(revocations);
    }
    drop(black_box(kept));
    divan::main();
}

/// An id as the gateway makes them.
fn id(number: u64) -> String {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    URL_SAFE_NO_PAD.encode([mixed.to_be_bytes(), number.to_le_bytes()].concat())
}

fn filled(kind: &str, count: u64) -> Revocations {
    let revocations = Revocations::new();
    let (now, until) = (Timestamp::from_secs(NOW), Timestamp::from_secs(NOW + 86_400));
    for number in 0..count {
        let name = if kind == "user" { format!("user{number}") } else { id(number) };
        let event = match kind {
            "jti" => Event::TokenRevoked { jti: &name, until },
            "session" => Event::SessionEnded { sid: &name, until },
            _ => Event::UserSignedOut { user: &name, at: now, until },
        };
        revocations.apply(event, now);
    }
    assert_eq!(revocations.len() as u64, count);
    revocations
}

/// Look-ups for many tokens that none of the revocations concerns: one alone would find its place in the processor's caches.
fn look_up(bencher: Bencher<'_, '_>, revocations: &Revocations, have_session: bool) {
    let one = |number: u64| claims(number, have_session.then(|| id(u64::MAX - number)));
    let many: Vec<Claims> = (0..MANY).map(one).collect();
    let mut next = many.iter().cycle();
    bencher.bench_local(|| next.next().map(|claims| revocations.refuses(black_box(claims))));
}

fn claims(number: u64, session: Option<String>) -> Claims {
    Claims {
        iss: "https://apps.example.com".to_owned(),
        sub: format!("somebody.else{number}"),
        aud: vec!["portcullis".to_owned()],
        iat: NOW,
        exp: NOW + 900,
        jti: Some(id(u64::MAX - MANY - number)),
        sid: session,
        auth_time: Some(NOW),
        amr: vec!["password".to_owned()],
        groups: Vec::new(),
        scope: String::new(),
        all: Default::default(),
    }
}

/// A look-up of a token with a session where tokens were revoked.
#[divan::bench(args = COUNTS, sample_count = 200, sample_size = 1000)]
fn of_tokens(bencher: Bencher<'_, '_>, count: u64) {
    look_up(bencher, &filled("jti", count), true);
}

/// A look-up of a token with a session where sessions were ended.
#[divan::bench(args = COUNTS, sample_count = 200, sample_size = 1000)]
fn of_sessions(bencher: Bencher<'_, '_>, count: u64) {
    look_up(bencher, &filled("session", count), true);
}

/// A look-up of a token without a session where users were signed out.
#[divan::bench(args = COUNTS, sample_count = 200, sample_size = 1000)]
fn of_users(bencher: Bencher<'_, '_>, count: u64) {
    look_up(bencher, &filled("user", count), false);
}

/// Taking in one more event beside those that are there.
#[divan::bench(args = COUNTS, sample_count = 100, sample_size = 100)]
fn one_more(bencher: Bencher<'_, '_>, count: u64) {
    let revocations = filled("session", count);
    let (now, until) = (Timestamp::from_secs(NOW), Timestamp::from_secs(NOW + 86_400));
    let mut next = count;
    let ids = || {
        next += 1;
        id(next)
    };
    bencher.with_inputs(ids).bench_local_values(|sid| revocations.apply(Event::SessionEnded { sid: &sid, until }, now));
}

/// Memory of this process that is in use now.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
