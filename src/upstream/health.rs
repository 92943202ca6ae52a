//! Whether a server is well: what checks say of it, and what is concluded from the requests that it serves.
//!
//! Two things that do not know of each other: a server that fails its checks is down, one that fails requests in a row is
//! left out for a while. All of it is atomics, and the time is passed in.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Check, Ejection};

/// How a server is, over all workers and for as long as the configuration names it.
#[derive(Debug)]
pub struct Health {
    born: Instant,
    checked: AtomicU8,
    /// Requests that failed in a row.
    faults: AtomicU32,
    /// In microseconds from `born`: until when it is left out, or since when it is back. 0: it has its whole share.
    back_at: AtomicU64,
    /// When it last came back, or is going to.
    last_back: AtomicU64,
    /// How often it was left out in a row.
    times: AtomicU32,
}

/// What checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing yet: it counts as up.
    Not,
    /// It is well.
    Up,
    /// It is not.
    Down,
}

/// Whether a server takes part, and with how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets this share of its weight, of 256.
    In(u32),
    /// It failed requests and is left out.
    Out,
    /// It fails its checks.
    Down,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            born: now,
            checked: AtomicU8::new(Checked::Not as u8),
            faults: AtomicU32::new(0),
            back_at: AtomicU64::new(0),
            last_back: AtomicU64::new(0),
            times: AtomicU32::new(0),
        }
    }

    /// What checks say.
    pub fn checked(&self) -> Checked {
        match self.checked.load(Relaxed) {
            0 => Checked::Not,
            1 => Checked::Up,
            _ => Checked::Down,
        }
    }

    /// Whether a request may go there at `now`.
    pub fn standing(&self, now: Instant, slow_start: Duration) -> Standing {
        if self.checked() == Checked::Down {
            return Standing::Down;
        }
        let back_at = self.back_at.load(Relaxed);
        if back_at == 0 {
            return Standing::In(WHOLE);
        }
        let Some(since) = self.micros(now).checked_sub(back_at) else {
            return Standing::Out;
        };
        let whole = u64::try_from(slow_start.as_micros()).unwrap_or(u64::MAX);
        if since >= whole {
            // Whoever is late finds another time there, and leaves it.
            let _left_as_it_is = self.back_at.compare_exchange(back_at, 0, Relaxed, Relaxed);
            return Standing::In(WHOLE);
        }
        let share = u64::from(WHOLE).saturating_mul(since) / whole.max(1);
        Standing::In(u32::try_from(share).unwrap_or(WHOLE).max(LEAST_SHARE))
    }

    /// It has answered a request.
    pub fn served(&self) {
        if self.faults.load(Relaxed) != 0 {
            self.faults.store(0, Relaxed);
        }
    }

    /// It has failed a request at `now`. Left out when that was one too many, unless `is_last`; says for how long.
    pub fn failed(&self, now: Instant, terms: &Ejection, is_last: impl FnOnce() -> bool) -> Option<Duration> {
        let faults = self.faults.fetch_add(1, Relaxed).saturating_add(1);
        if terms.faults == 0 || faults < terms.faults {
            return None;
        }
        let (now, back_at) = (self.micros(now), self.back_at.load(Relaxed));
        if back_at > now || is_last() {
            return None;
        }
        let (last, most) = (self.last_back.load(Relaxed), terms.out_most.as_micros());
        let is_soon = last != 0 && u128::from(now.saturating_sub(last)) < most;
        let times = if is_soon { self.times.load(Relaxed).saturating_add(1) } else { 1 };
        let out = terms.out.saturating_mul(1 << (times - 1).min(20)).min(terms.out_most);
        let until = now.saturating_add(u64::try_from(out.as_micros()).unwrap_or(u64::MAX)).max(1);
        // Of several that fail at once one counts.
        self.back_at.compare_exchange(back_at, until, Relaxed, Relaxed).ok()?;
        self.last_back.store(until, Relaxed);
        self.times.store(times, Relaxed);
        // Once back it is out again at the first failure, until it has answered something.
        self.faults.store(terms.faults - 1, Relaxed);
        Some(out)
    }

    /// Checks say so from `now` on. One that was down comes back slowly.
    pub(super) fn set_checked(&self, checked: Checked, now: Instant) {
        let before = self.checked.swap(checked as u8, Relaxed);
        if before == Checked::Down as u8 && checked == Checked::Up {
            self.faults.store(0, Relaxed);
            let now = self.micros(now).max(1);
            // One that is left out for longer stays out.
            let _longest = self.back_at.fetch_max(now, Relaxed);
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Answers to checks in a row.
#[derive(Debug, Default)]
pub(super) struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// One more answer about a server of which `checked` is known: what is known now. The first answer of all decides.
    pub(super) fn judge(&mut self, checked: Checked, is_good: bool, check: &Check) -> Checked {
        (self.good, self.bad) = match is_good {
            true => (self.good.saturating_add(1), 0),
            false => (0, self.bad.saturating_add(1)),
        };
        match checked {
            Checked::Not if is_good => Checked::Up,
            Checked::Not => Checked::Down,
            Checked::Up if self.bad >= check.unhealthy => Checked::Down,
            Checked::Down if self.good >= check.healthy => Checked::Up,
            Checked::Up | Checked::Down => checked,
        }
    }
}

/// The whole share.
pub(super) const WHOLE: u32 = 256;

/// The share of a server that has just come back: a tenth.
const LEAST_SHARE: u32 = 26;

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Ejection = Ejection {
        faults: 3,
        out: Duration::from_secs(10),
        out_most: Duration::from_secs(60),
        slow_start: Duration::from_secs(20),
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn standing(health: &Health, now: Instant) -> Standing {
        health.standing(now, TERMS.slow_start)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_take_a_server_out_for_a_while_that_grows() {
        let start = Instant::now();
        let health = Health::new(start);
        let fail = |seconds| health.failed(after(start, seconds), &TERMS, || false);
        assert_eq!([fail(1), fail(1)], [None, None]);
        health.served();
        assert_eq!([fail(2), fail(2)], [None, None], "an answer in between begins anew");
        assert_eq!(fail(2), Some(TERMS.out));
        assert_eq!((fail(3), standing(&health, after(start, 11))), (None, Standing::Out));
        assert_eq!(standing(&health, after(start, 12)), Standing::In(LEAST_SHARE));
        assert_eq!(standing(&health, after(start, 22)), Standing::In(WHOLE / 2));
        assert_eq!(fail(23), Some(TERMS.out * 2), "back and failing: once is enough");
        assert_eq!((fail(43), fail(84)), (Some(TERMS.out * 4), Some(TERMS.out_most)));
        assert_eq!(standing(&health, after(start, 144 + 20)), Standing::In(WHOLE));
        health.served();
        assert_eq!([fail(300), fail(300), fail(300)], [None, None, Some(TERMS.out)], "long ago is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_server_stays_and_none_is_taken_out_where_that_is_off() {
        let now = Instant::now();
        let health = Health::new(now);
        assert!((0..9).all(|_| health.failed(now, &TERMS, || true).is_none()));
        assert_eq!(standing(&health, now), Standing::In(WHOLE));
        let off = Ejection { faults: 0, ..TERMS };
        assert!((0..9).all(|_| health.failed(now, &off, || false).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_checks_find_well_again_comes_back_slowly() {
        let start = Instant::now();
        let health = Health::new(start);
        health.set_checked(Checked::Down, start);
        assert_eq!(standing(&health, start), Standing::Down);
        health.set_checked(Checked::Up, after(start, 5));
        assert_eq!(standing(&health, after(start, 5)), Standing::In(LEAST_SHARE));
        assert_eq!(standing(&health, after(start, 20)), Standing::In(WHOLE * 3 / 4));
        assert_eq!(standing(&health, after(start, 25)), Standing::In(WHOLE));
    }

    #[test]
    fn the_first_check_decides_and_then_several_in_a_row() {
        let check = Check {
            path: "/healthz".parse().unwrap(),
            host: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
            status: vec![200..=299],
        };
        assert_eq!(Streak::default().judge(Checked::Not, false, &check), Checked::Down);
        let (mut streak, mut checked) = (Streak::default(), Checked::Not);
        let mut seen = String::new();
        for is_good in [true, false, false, true, false, false, false, true, false, true, true] {
            checked = streak.judge(checked, is_good, &check);
            seen.push(if checked == Checked::Up { 'u' } else { 'd' });
        }
        assert_eq!(seen, "uuuuuuddddu");
    }
}
