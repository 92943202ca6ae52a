//! How many requests came of whom, exactly over all workers and in bounded memory: the generic cell rate algorithm.
//!
//! Of each of those who are counted one moment is kept: when all that they had so far would have been earned at the rate.
//! Whoever is not known has everything left, so that what lies in the past can be forgotten. When a part of the table is
//! full of moments to come, its sixteenth that lies nearest is forgotten as well: whoever made up many names or networks
//! pushes out those that have used least, and gives nobody back what is nearly used up. Nobody is refused for want of room.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// All that is counted. One for all workers; it outlives a configuration.
#[derive(Debug)]
pub struct Rates {
    parts: Box<[Mutex<Part>]>,
    /// Under keys of their own, so that nobody can choose whose moment theirs falls on.
    hashes: [RandomState; 2],
    capacity: usize,
}

type Part = HashMap<[u64; 2], u64>;

/// What someone may have.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// After how long one more request is earned.
    pub interval: Duration,
    /// How many may come at once.
    pub burst: u64,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How long the next one has to wait; `None`: this one may come.
    pub wait: Option<Duration>,
    /// How many more may come at once.
    pub left: u64,
    /// Until all of the quota is there again.
    pub full_after: Duration,
}

impl Default for Rates {
    fn default() -> Self {
        Self::with_capacity(ENTRIES / PARTS)
    }
}

impl Rates {
    fn with_capacity(capacity: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hashes: [RandomState::new(), RandomState::new()], capacity }
    }

    /// Takes one request of `who` from `quota`, which `limit` names. One that may not come costs nothing.
    pub fn take(&self, limit: &impl Hash, who: &impl Hash, quota: Quota, now: Timestamp) -> Taken {
        let now = now.as_millis().saturating_mul(NANOS_OF_MILLI);
        let interval = nanos(quota.interval).max(1);
        let most = interval.saturating_mul(quota.burst.max(1));
        let key = self.hashes.each_ref().map(|hash| hash.hash_one((limit, who)));
        let mut part = self.part(key[0]);
        let earned = part.get(&key).copied().unwrap_or(now);
        // A clock that was set back must not make anyone wait for longer than the whole quota takes.
        let earned = earned.clamp(now, now.saturating_add(most));
        let after = earned.saturating_add(interval) - now;
        let debt = if after > most { earned - now } else { after };
        if after <= most {
            if part.len() >= self.capacity && !part.contains_key(&key) {
                make_room(&mut part, now, self.capacity);
            }
            part.insert(key, now.saturating_add(after));
        }
        Taken {
            wait: (after > most).then(|| Duration::from_nanos(after - most)),
            left: (most - debt) / interval,
            full_after: Duration::from_nanos(debt),
        }
    }

    /// Of how many something is kept.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nothing is kept of anyone.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, hash: u64) -> MutexGuard<'_, Part> {
        let at = usize::try_from(hash % PARTS as u64).unwrap_or_default();
        self.parts[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what lies in the past, and of a part that is full all the same the sixteenth that lies nearest: in one go, so that
/// a flood costs a look at sixteen moments for each new name, not at all of them.
fn make_room(part: &mut Part, now: u64, capacity: usize) {
    part.retain(|_, earned| *earned > now);
    if part.len() < capacity {
        return;
    }
    let mut moments: Vec<u64> = part.values().copied().collect();
    let at = moments.len() / 16;
    let (_, nearest, _) = moments.select_nth_unstable(at);
    let nearest = *nearest;
    // Of many with one moment not all need to go.
    let mut many = at + 1;
    part.retain(|_, earned| {
        let goes = *earned <= nearest && many > 0;
        many -= usize::from(goes);
        !goes
    });
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS_OF_MILLI: u64 = 1_000_000;

/// As many locks as there are never workers.
const PARTS: usize = 64;

/// Of so many something is kept, in about 12 MB.
const ENTRIES: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Five at once, and then one in ten seconds.
    const QUOTA: Quota = Quota { interval: Duration::from_secs(10), burst: 5 };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + seconds)
    }

    #[test]
    fn so_many_come_at_once_and_then_at_the_rate() {
        let rates = Rates::default();
        let take = |seconds| rates.take(&"limit", &"alice", QUOTA, at(seconds));
        for left in (0..5).rev() {
            let taken = take(0);
            assert_eq!((taken.wait, taken.left), (None, left));
            assert_eq!(taken.full_after, Duration::from_secs(10 * (5 - left)));
        }
        let refused = Taken { wait: Some(Duration::from_secs(10)), left: 0, full_after: Duration::from_secs(50) };
        assert_eq!(take(0), refused);
        assert_eq!(take(0), refused, "what is refused costs nothing");
        assert_eq!(take(9).wait, Some(Duration::from_secs(1)));
        assert_eq!(take(10).wait, None);
        assert_eq!(take(10).wait, Some(Duration::from_secs(10)));
        assert_eq!(take(30).left, 1);
        assert_eq!(take(1000).left, 4);
    }

    #[test]
    fn everyone_and_every_limit_is_counted_apart() {
        let rates = Rates::default();
        for limit in ["one", "other"] {
            for who in ["alice", "bob"] {
                let come = (0..20).filter(|_| rates.take(&limit, &who, QUOTA, at(0)).wait.is_none()).count();
                assert_eq!(come, 5, "{limit} {who}");
            }
        }
        assert_eq!(rates.len(), 4);
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let rates = Rates::default();
        let _ = rates.take(&"limit", &"alice", QUOTA, at(100_000));
        assert_eq!(rates.take(&"limit", &"alice", QUOTA, at(0)).wait, Some(Duration::from_secs(10)));
        assert_eq!(rates.take(&"limit", &"alice", QUOTA, at(50)).wait, Some(Duration::from_secs(10)));
    }

    #[test]
    fn it_is_exact_over_all_threads() {
        let rates = Rates::default();
        let quota = Quota { interval: Duration::from_secs(1), burst: 1000 };
        let came = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let taken = rates.take(&"limit", &"alice", quota, at(0));
                        came.fetch_add(u64::from(taken.wait.is_none()), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(came.into_inner(), 1000);
    }

    #[test]
    fn a_flood_of_names_takes_no_more_memory_and_frees_nobody() {
        let rates = Rates::with_capacity(32);
        for _ in 0..5 {
            let _ = rates.take(&"limit", &"mallory", QUOTA, at(0));
        }
        for name in 0..100_000_u64 {
            assert_eq!(rates.take(&"limit", &name, QUOTA, at(1)).wait, None, "nobody is locked out");
        }
        assert!(rates.len() <= 32 * PARTS, "{}", rates.len());
        assert!(rates.take(&"limit", &"mallory", QUOTA, at(1)).wait.is_some(), "who is at the limit stays there");
    }

    #[test]
    fn what_lies_in_the_past_is_forgotten_first() {
        let rates = Rates::with_capacity(16);
        for name in 0..2000_u64 {
            let _ = rates.take(&"limit", &name, QUOTA, at(0));
        }
        for name in 0..2000_u64 {
            let _ = rates.take(&"limit", &(name + 10_000), QUOTA, at(100));
        }
        assert!(rates.len() <= 16 * PARTS);
        let fresh = (0..2000_u64).filter(|name| rates.take(&"limit", name, QUOTA, at(100)).left == 4).count();
        assert_eq!(fresh, 2000, "nothing of the first is left to be counted");
    }
}
