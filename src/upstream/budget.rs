//! How many requests may be sent again: a part of those that are sent, so that retries never make an outage worse.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// What an upstream has left for requests that `retries` sends again.
#[derive(Debug)]
pub struct Budget {
    born: Instant,
    /// Thousandths of a retry.
    saved: AtomicI64,
    /// The second from `born`, and how many of its own retries are used.
    second: AtomicU64,
}

impl Budget {
    /// Nothing is saved yet at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { born: now, saved: AtomicI64::new(0), second: AtomicU64::new(0) }
    }

    /// One request is sent that could be sent again: a fifth of a retry is saved.
    pub(crate) fn earn(&self) {
        if self.saved.load(Relaxed) < MOST_SAVED {
            self.saved.fetch_add(EARNED, Relaxed);
        }
    }

    /// Whether one more may be sent again at `now`: out of what each second has, else out of what is saved.
    pub(crate) fn spend(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.born).as_secs();
        let of_second = |used: u64| match used.checked_sub(second << COUNT_BITS) {
            Some(count) if count < EACH_SECOND => Some(used + 1),
            Some(count) if count >> COUNT_BITS == 0 => None,
            Some(_) | None => Some((second << COUNT_BITS) + 1),
        };
        if self.second.fetch_update(Relaxed, Relaxed, of_second).is_ok() {
            return true;
        }
        let of_saved = |saved: i64| (saved >= RETRY).then_some(saved - RETRY);
        self.saved.fetch_update(Relaxed, Relaxed, of_saved).is_ok()
    }
}

/// Retries that each second has, however few requests there are.
const EACH_SECOND: u64 = 10;

/// What a retry costs, and what a request earns: a fifth.
const RETRY: i64 = 1000;
const EARNED: i64 = RETRY / 5;

/// What can be saved: a hundred retries.
const MOST_SAVED: i64 = 100 * RETRY;

/// Bits of the count below the second.
const COUNT_BITS: u32 = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_requests_and_some_each_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let spent = |now| (0..1000).filter(|_| budget.spend(now)).count();
        assert_eq!(spent(start), 10);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spent(start), 20);
        let later = start + Duration::from_secs(7);
        (0..100).for_each(|_| budget.earn());
        assert_eq!((spent(later), spent(later)), (30, 0));
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!(spent(later), 100, "no more is saved than that");
    }
}
