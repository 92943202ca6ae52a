//! Which of several servers a request goes to. Pure: it is told how loaded each is.
//!
//! Turns go round by virtual time, as in stride scheduling: each turn moves a server on by the inverse of its weight, and
//! the one that is furthest behind is next. Requests that are hashed find their server by weighted rendezvous: each server
//! draws a number for the key, and the highest wins, so that a server that comes or goes moves only what it has.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::health::WHOLE;

/// A server that a request may go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its place among the servers.
    pub(super) at: usize,
    /// Its weight, times its share of [`WHOLE`].
    pub(super) weight: u64,
    /// Requests in progress there.
    pub(super) load: u64,
    /// How far its turns have come.
    pub(super) passed: u64,
    /// What tells it from the others.
    pub(super) seed: u64,
}

/// Where turns stand.
#[derive(Debug, Default)]
pub(super) struct Turns {
    now: AtomicU64,
}

impl Turns {
    /// How far the turns of a server have come: one that was away has missed none.
    pub(super) fn of(&self, passed: &AtomicU64) -> u64 {
        passed.load(Relaxed).max(self.now.load(Relaxed))
    }

    /// A server whose turns had come to `passed` has had one more.
    pub(super) fn take(&self, counter: &AtomicU64, passed: u64, weight: u64) {
        let missed = passed.saturating_sub(counter.load(Relaxed));
        counter.fetch_add(missed + STRIDE * u64::from(WHOLE) / weight.max(1), Relaxed);
        self.now.fetch_max(passed, Relaxed);
    }
}

/// The one whose turn it is.
pub(super) fn round_robin(candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    candidates.min_by_key(|candidate| candidate.passed)
}

/// The one with the fewest requests for its weight; of equals the one whose turn it is.
pub(super) fn least_requests(candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    candidates.reduce(|best, next| {
        let (of_best, of_next) = (best.load * next.weight, next.load * best.weight);
        let is_better = of_next < of_best || (of_next == of_best && next.passed < best.passed);
        if is_better { next } else { best }
    })
}

/// The less loaded of two that are drawn by weight.
pub(super) fn random_two(candidates: impl Iterator<Item = Candidate> + Clone, draw: u64) -> Option<Candidate> {
    let drawn = |without: Option<usize>, draw: u64| {
        let left = || candidates.clone().filter(move |candidate| Some(candidate.at) != without);
        let total: u64 = left().map(|candidate| candidate.weight).sum();
        let mut point = draw % total.max(1);
        left().find(|candidate| match point.checked_sub(candidate.weight) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        })
    };
    let first = drawn(None, mix(draw))?;
    match drawn(Some(first.at), mix(draw ^ u64::MAX)) {
        Some(second) if second.load * first.weight < first.load * second.weight => Some(second),
        Some(_) | None => Some(first),
    }
}

/// The one that `key` belongs to.
pub(super) fn hashed(candidates: impl Iterator<Item = Candidate>, key: u64) -> Option<Candidate> {
    let scored = candidates.map(|candidate| (score(candidate, key), candidate));
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, candidate)| candidate)
}

fn score(candidate: Candidate, key: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits of a hash are exact in a float, and so is a weight")]
    let (drawn, weight) = ((mix(candidate.seed ^ key) >> 11) as f64, candidate.weight as f64);
    // Between 0 and 1, neither included, so that its logarithm is a number below 0.
    -weight / ((drawn + 0.5) / DRAWN).ln()
}

/// A hash of `bytes` that is the same in every gateway, so that several of them agree: FNV-1a, its bits mixed.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, add))
}

/// The network of `client`: an IPv4 address, or the /64 around an IPv6 address.
pub(super) fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()[..8]),
    }
}

/// Every bit of `number` into every bit of the outcome (the finalizer of SplitMix64).
pub(super) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// How many numbers can be drawn for a key: 53 bits.
const DRAWN: f64 = 9_007_199_254_740_992.0;

/// How far a turn moves a server of weight 1: enough for weights and shares, and for more turns than anyone takes.
const STRIDE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u64]) -> Vec<Candidate> {
        let one = |(at, weight): (usize, &u64)| {
            let seed = hash(format!("10.0.0.{at}:80").as_bytes());
            Candidate { at, weight: weight * u64::from(WHOLE), load: 0, passed: 0, seed }
        };
        weights.iter().enumerate().map(one).collect()
    }

    /// The servers of `count` requests that are over before the next begins.
    fn in_turn(weights: &[u64], count: usize) -> Vec<usize> {
        let (turns, counters) = (Turns::default(), weights.iter().map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let next = |_| {
            let now = candidates(weights);
            let now = now.into_iter().map(|one| Candidate { passed: turns.of(&counters[one.at]), ..one });
            let taken = least_requests(now).unwrap();
            turns.take(&counters[taken.at], taken.passed, taken.weight);
            taken.at
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn turns_go_round_by_weight_and_not_in_bursts() {
        assert_eq!(in_turn(&[1, 1, 1], 7), [0, 1, 2, 0, 1, 2, 0]);
        let taken = in_turn(&[3, 1], 40);
        assert_eq!(taken.iter().filter(|at| **at == 1).count(), 10);
        assert!(taken.windows(4).all(|four| four.contains(&1)), "{taken:?}");
    }

    #[test]
    fn one_that_was_away_does_not_make_up_for_it() {
        let (turns, counters) = (Turns::default(), [AtomicU64::new(0), AtomicU64::new(0)]);
        let take = |at: usize| turns.take(&counters[at], turns.of(&counters[at]), u64::from(WHOLE));
        (0..1000).for_each(|_| take(0));
        let mut taken = [0; 2];
        for _ in 0..10 {
            let at = usize::from(turns.of(&counters[1]) < turns.of(&counters[0]));
            take(at);
            taken[at] += 1;
        }
        assert_eq!(taken, [5, 5]);
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_taken() {
        let mut all = candidates(&[1, 3]);
        (all[0].load, all[1].load) = (1, 2);
        assert_eq!(least_requests(all.iter().copied()).unwrap().at, 1);
        all[1].load = 4;
        assert_eq!(least_requests(all.iter().copied()).unwrap().at, 0);
    }

    #[test]
    fn of_two_that_are_drawn_the_loaded_one_is_left() {
        let mut all = candidates(&[1, 1, 2]);
        let count = |all: &[Candidate]| {
            let mut count = [0_u32; 3];
            (0..40_000).for_each(|draw| count[random_two(all.iter().copied(), draw).unwrap().at] += 1);
            count
        };
        // Equals: the first that is drawn, so that weights count.
        for (count, wanted) in count(&all).into_iter().zip([10_000, 10_000, 20_000]) {
            assert!(count.abs_diff(wanted) < 600, "{count} of {wanted}");
        }
        all[0].load = 9;
        assert_eq!(count(&all)[0], 0, "there is always another one beside it");
    }

    #[test]
    fn keys_stay_where_they_are_when_servers_come_and_go() {
        let all = candidates(&[1, 1, 2, 1]);
        let of = |servers: &[Candidate]| -> Vec<usize> {
            (0..40_000_u64).map(|key| hashed(servers.iter().copied(), mix(key)).unwrap().at).collect()
        };
        let (with, without) = (of(&all), of(&all[..3]));
        for (at, share) in [(0, 8_000), (1, 8_000), (2, 16_000), (3, 8_000)] {
            let count = with.iter().filter(|one| **one == at).count();
            assert!(count.abs_diff(share) < 500, "{at} has {count}");
        }
        assert!(with.iter().zip(&without).all(|(with, without)| *with == 3 || with == without));
    }

    #[test]
    fn hashes_are_the_same_in_every_gateway() {
        // Another value would send every user of a running cluster elsewhere.
        assert_eq!(hash(b"alice"), 0x1a04_6f57_3e1e_5475);
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), network("10.0.0.1".parse().unwrap()));
        assert_ne!(network("10.0.0.1".parse().unwrap()), network("10.0.0.2".parse().unwrap()));
    }
}
