//! Counters, gauges and histograms: relaxed atomics, in stripes where workers would fight for one cache line.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(0) };
}

/// Says which stripe this thread counts in: the one of its number, of as many as there are workers. Every other thread
/// shares the first.
pub fn enter_stripe(number: usize, workers: usize) {
    STRIPE.set(number);
    IN_USE.fetch_max(workers.clamp(1, STRIPES), Relaxed);
}

/// How many stripes threads count in. Whoever makes stripes too early makes too few, and threads share them.
pub(super) fn stripes_in_use() -> usize {
    IN_USE.load(Relaxed)
}

/// The stripe of this thread, of `count`.
pub(super) fn stripe(count: usize) -> usize {
    STRIPE.get() % count.max(1)
}

static IN_USE: AtomicUsize = AtomicUsize::new(1);

/// How many stripes a counter has: more workers than that share them.
pub(super) const STRIPES: usize = 8;

/// Something that only ever rises.
#[derive(Debug, Default)]
pub struct Counter([Line; STRIPES]);

/// A number with a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0[stripe(STRIPES)].0.fetch_add(count, Relaxed);
    }

    /// How many so far.
    pub fn value(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Something that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// From now on it is `value`.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// One more.
    pub fn rise(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn fall(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// What it is now.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct Held<T: AsRef<Gauge>>(Arc<T>);

impl<T: AsRef<Gauge>> Held<T> {
    /// Raises the gauge of `holder`.
    pub fn new(holder: &Arc<T>) -> Self {
        holder.as_ref().as_ref().rise();
        Self(Arc::clone(holder))
    }
}

impl<T: AsRef<Gauge>> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.as_ref().as_ref().fall();
    }
}

/// Counters by one label whose values are a short, fixed list. For what is rare: the word is looked for.
#[derive(Debug)]
pub struct Words {
    words: &'static [&'static str],
    counts: Box<[AtomicU64]>,
}

impl Words {
    /// Nothing counted yet of any of `words`.
    pub fn new(words: &'static [&'static str]) -> Self {
        Self { words, counts: words.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// One more of `word`. One that is not on the list is not counted: the list is what keeps the label bounded.
    pub fn count(&self, word: &str) {
        self.add(word, 1);
    }

    /// So many more of `word`.
    pub fn add(&self, word: &str, count: u64) {
        let place = self.words.iter().position(|known| *known == word);
        debug_assert!(place.is_some(), "`{word}` is none of {:?}", self.words);
        if let Some(counter) = place.and_then(|place| self.counts.get(place)) {
            counter.fetch_add(count, Relaxed);
        }
    }

    /// Every word with its count.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.words.iter().copied().zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }
}

/// How long things took, in buckets from a tenth of a millisecond to a minute. Its owner keeps it in a stripe.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What a histogram holds: counts up to each bound and then of all, and the sum.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) micros: u64,
}

impl Histogram {
    /// One more that took `span`.
    pub fn observe(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        // Most requests are quick, and found after a few comparisons.
        let place = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[place].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// Adds what it holds to `reading`, each bucket for itself.
    pub(super) fn add_to(&self, reading: &mut Reading) {
        for (sum, bucket) in reading.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        reading.micros = reading.micros.wrapping_add(self.micros.load(Relaxed));
    }
}

/// Upper bounds of the buckets, in microseconds: from what the gateway itself takes to the default timeouts.
pub(super) const BOUNDS: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_of_several_threads_are_one_number() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for number in 0..STRIPES + 3 {
                let counter = &counter;
                scope.spawn(move || {
                    enter_stripe(number, STRIPES + 3);
                    (0..100).for_each(|_| counter.count());
                });
            }
        });
        assert_eq!(counter.value(), 100 * (STRIPES as u64 + 3));
    }

    #[test]
    fn what_took_exactly_a_bound_belongs_to_it() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut reading = Reading::default();
        histogram.add_to(&mut reading);
        let last = reading.buckets.len() - 1;
        assert_eq!((reading.buckets[0], reading.buckets[1], reading.buckets[last - 1]), (2, 1, 1));
        assert_eq!((reading.buckets[last], reading.micros), (1, 120_000_202));
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn words_are_counted_apart() {
        let words = Words::new(&["success", "failure"]);
        words.count("failure");
        words.add("failure", 2);
        assert_eq!(words.values().collect::<Vec<_>>(), [("success", 0), ("failure", 3)]);
    }
}
