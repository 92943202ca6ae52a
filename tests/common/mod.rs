//! What every integration test uses: the real binary as a child process, an upstream that records raw
//! bytes, and a client that reads answers strictly. Nothing here knows how the gateway works inside.

pub(crate) mod application;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod issuer;
pub(crate) mod lines;
pub(crate) mod recorder;
pub(crate) mod request;
pub(crate) mod setup;
pub(crate) mod token;
pub(crate) mod tunnel;
pub(crate) mod wire;

pub(crate) use gateway::Gateway;
pub(crate) use recorder::{Answer, Recorded, Recorder};
pub(crate) use request::{Client, Request, get, post};
pub(crate) use setup::{Setup, command, password_of, program, run};
pub(crate) use wire::{Response, Wire, raw};

use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Asks again until `answer` gives something, and fails after [`DEADLINE`].
pub(crate) fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "still waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("a limit fits usize")
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
