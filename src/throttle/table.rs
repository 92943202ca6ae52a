//! All counters of one kind, in bounded memory.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::counter::{Counter, Limits, Turn};

/// A keyed digest of a name or a network.
pub(super) type Key = [u8; 16];

#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    capacity: usize,
    counters: HashMap<Key, Counter>,
    changed: HashSet<Key>,
    swept_at: Duration,
}

impl Table {
    pub(super) fn new(limits: Limits, capacity: usize) -> Self {
        Self { limits, capacity, counters: HashMap::new(), changed: HashSet::new(), swept_at: Duration::ZERO }
    }

    pub(super) fn restore(
        &mut self,
        key: Key,
        failures: Vec<(Duration, Key)>,
        level: u32,
        blocked_until: Duration,
        now: Duration,
    ) {
        let counter = Counter::restored(failures, level, blocked_until);
        if !counter.is_spent(self.limits, now) && self.counters.len() < self.capacity {
            self.counters.insert(key, counter);
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Counter> {
        self.counters.get(key)
    }

    pub(super) fn turn(&self, key: &Key, now: Duration) -> Turn {
        self.counters.get(key).map_or(Turn::Free, |counter| counter.turn(self.limits, now))
    }

    /// Notes an attempt in progress; `false`: there is no room.
    pub(super) fn begin(&mut self, key: Key, now: Duration) -> bool {
        let counter = self.counter(key, now);
        counter.map(Counter::begin).is_some()
    }

    pub(super) fn end(&mut self, key: &Key, now: Duration) {
        let Some(counter) = self.counters.get_mut(key) else {
            return;
        };
        counter.end();
        // Who never fails leaves nothing behind.
        if counter.failures().next().is_none() && counter.is_spent(self.limits, now) {
            self.counters.remove(key);
        }
    }

    pub(super) fn fail(&mut self, key: Key, other: Key, now: Duration) {
        let limits = self.limits;
        if let Some(counter) = self.counter(key, now) {
            counter.fail(limits, other, now);
            self.changed.insert(key);
        }
    }

    /// Forgets all failures of a counter up to `at`.
    pub(super) fn forgive(&mut self, key: &Key, at: Duration, now: Duration) {
        let Some(counter) = self.counters.get_mut(key) else {
            return;
        };
        if counter.forgive(self.limits, now, |when, _| when <= at) {
            self.changed.insert(*key);
        }
    }

    /// Forgets the failures up to `at` that `other` counts too, in every counter.
    pub(super) fn forgive_all_about(&mut self, other: &Key, at: Duration, now: Duration) {
        for (key, counter) in &mut self.counters {
            if counter.forgive(self.limits, now, |when, about| when <= at && about == other) {
                self.changed.insert(*key);
            }
        }
    }

    /// Forgets the failures that `other` counts too, but no wait.
    pub(super) fn forgive_about(&mut self, key: &Key, other: &Key) {
        if self.counters.get_mut(key).is_some_and(|counter| counter.forgive_about(other)) {
            self.changed.insert(*key);
        }
    }

    /// The counters that have changed since the last call, those that are gone too.
    pub(super) fn take_changed(&mut self, now: Duration) -> Vec<Key> {
        if now.saturating_sub(self.swept_at) > SWEEP {
            self.swept_at = now;
            let (limits, changed) = (self.limits, &mut self.changed);
            self.counters.retain(|key, counter| {
                let spent = counter.is_spent(limits, now);
                if spent {
                    changed.insert(*key);
                }
                !spent
            });
        }
        self.changed.drain().collect()
    }

    pub(super) fn mark_changed(&mut self, keys: Vec<Key>) {
        self.changed.extend(keys);
    }

    fn counter(&mut self, key: Key, now: Duration) -> Option<&mut Counter> {
        if self.counters.len() >= self.capacity && !self.counters.contains_key(&key) {
            self.make_room(now);
            if self.counters.len() >= self.capacity {
                return None;
            }
        }
        Some(self.counters.entry(key).or_default())
    }

    /// Drops the sixteenth of the counters that count least: many made-up names, with one failure each, can't push out
    /// the one that is being guessed at. In one go, so that a full table costs a look at sixteen counters for each new name, not at all of them.
    fn make_room(&mut self, now: Duration) {
        let mut weights: Vec<_> =
            self.counters.iter().filter_map(|(key, counter)| Some((counter.weight(self.limits, now)?, *key))).collect();
        let count = (self.capacity / 16).max(1).min(weights.len());
        if count < weights.len() {
            weights.select_nth_unstable(count);
        }
        for (_, key) in &weights[..count] {
            self.counters.remove(key);
            self.changed.insert(*key);
        }
    }
}

/// How often counters that no longer matter are looked for.
const SWEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::counter::ACCOUNT;
    use super::*;

    fn key(number: u32) -> Key {
        let mut key = Key::default();
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    const START: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_flood_of_names_takes_no_more_memory_and_frees_nobody() {
        let mut table = Table::new(ACCOUNT, 64);
        for _ in 0..12 {
            table.fail(key(0), key(1), START);
        }
        assert!(table.begin(key(1), START));
        for number in 2..10_000 {
            assert!(table.begin(key(number), START));
            table.end(&key(number), START);
            table.fail(key(number), key(0), START);
            assert!(table.counters.len() <= 64);
        }
        assert!(matches!(table.turn(&key(0), START), Turn::After(_)));
        assert!(table.get(&key(1)).is_some(), "an attempt is in progress");
    }

    #[test]
    fn attempts_that_succeed_leave_nothing_behind() {
        let mut table = Table::new(ACCOUNT, 64);
        assert!(table.begin(key(1), START));
        table.end(&key(1), START);
        assert!(table.counters.is_empty());
        assert!(table.take_changed(START).is_empty());
    }

    #[test]
    fn a_table_whose_counters_are_all_in_use_takes_no_more() {
        let mut table = Table::new(ACCOUNT, 2);
        assert!(table.begin(key(1), START) && table.begin(key(2), START));
        assert!(!table.begin(key(3), START));
    }

    #[test]
    fn counters_that_no_longer_matter_are_deleted_from_the_store_too() {
        let mut table = Table::new(ACCOUNT, 64);
        table.fail(key(1), key(2), START);
        assert_eq!(table.take_changed(START), [key(1)]);
        assert!(table.take_changed(START).is_empty());
        assert_eq!(table.take_changed(START + Duration::from_secs(301)), [key(1)]);
        assert!(table.get(&key(1)).is_none());
    }
}
