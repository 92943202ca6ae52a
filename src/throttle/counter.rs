//! One counter of failed sign-ins: pure, told the time.
//!
//! A number of failures within five minutes are free; each one more costs a wait, twice the one before. Once the wait is over,
//! quiet makes the next one shorter again, one step for each free failure that the same time would have brought back:
//! an address that many people share recovers, and a guesser who waits it out gains no more than the free rate.

use std::collections::VecDeque;
use std::time::Duration;

use super::table::Key;

/// What a kind of counter allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Failures within [`WINDOW`] that cost nothing.
    free: usize,
    /// The longest wait.
    pub(super) longest: Duration,
}

/// For a network: ten, up to a quarter of an hour.
pub(super) const NETWORK: Limits = Limits { free: 10, longest: Duration::from_secs(15 * 60) };

/// For an account: five, up to a minute, so that nobody can lock someone else out.
pub(super) const ACCOUNT: Limits = Limits { free: 5, longest: Duration::from_secs(60) };

/// How long a free failure counts.
pub(super) const WINDOW: Duration = Duration::from_secs(5 * 60);

/// Whether an attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Yes.
    Free,
    /// Not before this has passed.
    After(Duration),
    /// Not before those in progress are over: if they all fail, there is a wait.
    Behind,
    /// There is no room to count it: as many others are in progress as can be counted.
    NoRoom,
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    failures: VecDeque<(Duration, Key)>,
    level: u32,
    blocked_until: Duration,
    in_progress: usize,
}

impl Counter {
    /// A counter as it was saved.
    pub(super) fn restored(failures: Vec<(Duration, Key)>, level: u32, blocked_until: Duration) -> Self {
        Self { failures: failures.into(), level: level.min(32), blocked_until, in_progress: 0 }
    }

    pub(super) fn turn(&self, limits: Limits, now: Duration) -> Turn {
        if let Some(wait) = self.blocked_until.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Turn::After(wait);
        }
        let spare = self.level_at(limits, now) == 0 && self.recent(now) + self.in_progress <= limits.free;
        if spare || self.in_progress == 0 { Turn::Free } else { Turn::Behind }
    }

    pub(super) const fn begin(&mut self) {
        self.in_progress += 1;
    }

    pub(super) const fn end(&mut self) {
        self.in_progress = self.in_progress.saturating_sub(1);
    }

    /// Counts a failure; `other` is the counter of the other kind that counts it too.
    pub(super) fn fail(&mut self, limits: Limits, other: Key, now: Duration) {
        self.level = self.level_at(limits, now);
        if self.level > 0 || self.recent(now) >= limits.free {
            let wait = Duration::from_secs(1u64 << self.level.min(32)).min(limits.longest);
            // At the longest wait it stays as it is.
            if self.level == 0 || wait_of(self.level) < limits.longest {
                self.level += 1;
            }
            self.blocked_until = self.blocked_until.max(now + wait);
        }
        self.failures.push_back((now, other));
        if self.failures.len() > KEPT {
            self.failures.pop_front();
        }
    }

    /// Forgets the failures for which `forgiven` holds; without more than the free ones left nobody has to wait.
    pub(super) fn forgive(&mut self, limits: Limits, now: Duration, forgiven: impl Fn(Duration, &Key) -> bool) -> bool {
        let before = self.failures.len();
        self.failures.retain(|(at, other)| !forgiven(*at, other));
        let changed = self.failures.len() < before;
        if changed && self.recent(now) <= limits.free {
            self.level = 0;
            self.blocked_until = Duration::ZERO;
        }
        changed
    }

    /// Forgets the failures that `other` counts too, but no wait that they have led to.
    pub(super) fn forgive_about(&mut self, other: &Key) -> bool {
        let before = self.failures.len();
        self.failures.retain(|(_, key)| key != other);
        self.failures.len() < before
    }

    /// Whether it makes no difference to forget this counter.
    pub(super) fn is_spent(&self, limits: Limits, now: Duration) -> bool {
        self.in_progress == 0 && now >= self.blocked_until && self.level_at(limits, now) == 0 && self.recent(now) == 0
    }

    /// How much would be lost with this counter; `None`: it is in use.
    pub(super) fn weight(&self, limits: Limits, now: Duration) -> Option<(u32, usize, Duration)> {
        let last = self.failures.back().map_or(Duration::ZERO, |(at, _)| *at);
        (self.in_progress == 0).then(|| (self.level_at(limits, now), self.recent(now), last))
    }

    pub(super) fn failures(&self) -> impl Iterator<Item = (Duration, Key)> {
        self.failures.iter().copied()
    }

    pub(super) const fn level(&self) -> u32 {
        self.level
    }

    pub(super) fn blocked_until(&self) -> Option<Duration> {
        (!self.blocked_until.is_zero()).then_some(self.blocked_until)
    }

    /// How many failures have cost a wait, less the quiet since.
    fn level_at(&self, limits: Limits, now: Duration) -> u32 {
        let quiet = now.saturating_sub(self.blocked_until).as_secs();
        let each = WINDOW.as_secs() / limits.free as u64;
        self.level.saturating_sub(u32::try_from(quiet / each).unwrap_or(u32::MAX))
    }

    fn recent(&self, now: Duration) -> usize {
        self.failures.iter().rev().take_while(|(at, _)| now.saturating_sub(*at) < WINDOW).count()
    }
}

fn wait_of(level: u32) -> Duration {
    Duration::from_secs(1u64 << level.saturating_sub(1).min(32))
}

/// Failures that are remembered one by one, so that they can be forgiven one by one.
const KEPT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(86_400);
    const OTHER: Key = [1; 16];

    fn seconds(turn: Turn) -> u64 {
        match turn {
            Turn::Free => 0,
            Turn::After(wait) => wait.as_secs(),
            Turn::Behind | Turn::NoRoom => panic!("nothing is in progress"),
        }
    }

    /// The waits after each failure of a client that comes back as soon as it may.
    fn waits(limits: Limits, failures: usize) -> Vec<u64> {
        let (mut counter, mut now) = (Counter::default(), START);
        (0..failures)
            .map(|_| {
                counter.fail(limits, OTHER, now);
                let wait = seconds(counter.turn(limits, now));
                now += Duration::from_secs(wait);
                assert_eq!(counter.turn(limits, now), Turn::Free);
                wait
            })
            .collect()
    }

    #[test]
    fn the_free_failures_cost_nothing_and_each_one_more_twice_as_much() {
        assert_eq!(waits(ACCOUNT, 14), [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(
            waits(NETWORK, 23),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
        );
    }

    #[test]
    fn failures_far_enough_apart_never_cost_anything() {
        for (limits, apart) in [(NETWORK, 30), (ACCOUNT, 60)] {
            let (mut counter, mut now) = (Counter::default(), START);
            for _ in 0..100 {
                counter.fail(limits, OTHER, now);
                assert_eq!(counter.turn(limits, now), Turn::Free);
                now += Duration::from_secs(apart);
            }
        }
    }

    #[test]
    fn the_window_slides() {
        let mut counter = Counter::default();
        for _ in 0..5 {
            counter.fail(ACCOUNT, OTHER, START);
        }
        let edge = START + WINDOW;
        let mut inside = Counter::restored(counter.failures().collect(), 0, Duration::ZERO);
        inside.fail(ACCOUNT, OTHER, edge - Duration::from_millis(1));
        assert_eq!(seconds(inside.turn(ACCOUNT, edge - Duration::from_millis(1))), 1);
        counter.fail(ACCOUNT, OTHER, edge);
        assert_eq!(counter.turn(ACCOUNT, edge), Turn::Free);
    }

    #[test]
    fn quiet_after_a_wait_makes_the_next_one_shorter() {
        let mut counter = Counter::restored(Vec::new(), 7, START);
        assert_eq!(counter.turn(ACCOUNT, START), Turn::Free);
        for (quiet, wait) in [(0, 60), (60, 60), (120, 32), (360, 2), (420, 0)] {
            let mut later = Counter::restored(Vec::new(), 7, START);
            let now = START + Duration::from_secs(quiet);
            later.fail(ACCOUNT, OTHER, now);
            assert_eq!(seconds(later.turn(ACCOUNT, now)), wait, "after {quiet} s");
        }
        counter.fail(ACCOUNT, OTHER, START + Duration::from_secs(10_000));
        assert!(!counter.is_spent(ACCOUNT, START + Duration::from_secs(10_000)));
        assert!(counter.is_spent(ACCOUNT, START + Duration::from_secs(10_300)));
    }

    #[test]
    fn attempts_in_progress_count_as_failures_to_come() {
        let mut counter = Counter::default();
        for _ in 0..6 {
            assert_eq!(counter.turn(ACCOUNT, START), Turn::Free);
            counter.begin();
        }
        assert_eq!(counter.turn(ACCOUNT, START), Turn::Behind);
        counter.end();
        assert_eq!(counter.turn(ACCOUNT, START), Turn::Free, "one was right");
        counter.begin();
        for _ in 0..6 {
            counter.end();
            counter.fail(ACCOUNT, OTHER, START);
        }
        assert_eq!(seconds(counter.turn(ACCOUNT, START)), 1);
        let then = START + Duration::from_secs(1);
        counter.begin();
        assert_eq!(counter.turn(ACCOUNT, then), Turn::Behind, "one at a time from here on");
    }
}
