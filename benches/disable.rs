//! From `portcullis user disable` in another process to the first request that is refused, with the real program.
//!
//! `cargo bench --bench disable [-- --runs 50]`. A client asks with one token as fast as it is answered, while the command
//! runs beside it; once with the control socket, by which the command tells the gateway, and once without, where the
//! gateway looks by itself four times a second.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

#[expect(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Gateway, Recorder, Setup, get};

fn main() {
    let runs = runs();
    println!("{runs} runs each: from the start of `user disable` to the first refusal, and from its end");
    for (name, with_control) in [("with the control socket", true), ("without it", false)] {
        let app = Recorder::start();
        let gateway = Setup::new(app.address()).user("bob", &[]).key("log.access", "\"off\"").start();
        if !with_control {
            std::fs::remove_file(gateway.dir().join("portcullis.sock")).unwrap();
        }
        let (mut from_start, mut from_end): (Vec<_>, Vec<_>) = (0..runs).map(|_| one(&gateway, &app)).unzip();
        println!("{name}:\n  from its start  {}\n  from its end    {}", said(&mut from_start), said(&mut from_end));
    }
}

/// One run: the time from the command's start, and from its end, where a refusal before it counts as none.
fn one(gateway: &Gateway, app: &Recorder) -> (Duration, Duration) {
    gateway.command(&["user", "enable", "bob"]).succeeded();
    let (token, mut client) = (gateway.token("bob"), gateway.client());
    let request = get("/x").bearer(&token);
    assert_eq!(client.send(&request).status, 200);
    let times = std::thread::scope(|scope| {
        let command = scope.spawn(|| {
            let started = Instant::now();
            gateway.command(&["user", "disable", "bob"]).succeeded();
            (started, Instant::now())
        });
        // The moment at which the first answer that refuses was there.
        let refused = loop {
            match client.send(&request).status {
                200 => {}
                401 => break Instant::now(),
                other => panic!("{other}"),
            }
        };
        let (started, ended) = command.join().unwrap();
        (refused.duration_since(started), refused.saturating_duration_since(ended))
    });
    app.take();
    times
}

fn said(times: &mut [Duration]) -> String {
    times.sort();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    format!("median {:>6.1} ms, longest {:>6.1} ms", median.as_secs_f64() * 1e3, longest.as_secs_f64() * 1e3)
}

fn runs() -> usize {
    let mut args = std::env::args().skip_while(|arg| arg != "--runs").skip(1);
    args.next().map_or(20, |runs| runs.parse().expect("--runs takes a number"))
}
