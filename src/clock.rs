//! The only caller of the system clock.
//!
//! Everything that depends on the time takes a [`Clock`], so that a test states the time instead of
//! sleeping. Deadlines on sockets are the runtime's timers and not here.

use std::cell::Cell;
use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// A moment in wall-clock time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `seconds` after the epoch.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies ahead, as after a clock was set back.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with milliseconds, as logs and tables show it.
    pub fn rfc3339(self) -> String {
        let text = self.characters().and_then(|characters| String::from_utf8(characters.to_vec()).ok());
        text.unwrap_or_else(|| format!("@{}", self.0))
    }

    /// The same in its 24 characters, which the years up to 9999 have.
    #[inline]
    pub(crate) fn characters(self) -> Option<[u8; 24]> {
        let second = self.as_secs();
        let (known, mut text) = SECOND.get();
        if known != second {
            text = seconds(second)?;
            SECOND.set((second, text));
        }
        let [hundreds, tens, ones] = three_digits(self.0);
        (text[20], text[21], text[22]) = (hundreds, tens, ones);
        Some(text)
    }
}

/// The last three digits of `number`, be they zeros.
#[inline]
pub(crate) fn three_digits(number: u64) -> [u8; 3] {
    // Small numbers are divided in fewer steps.
    let number = u16::try_from(number % 1000).unwrap_or_default();
    let (digit, rest) = (|digit: u16| digit.to_le_bytes()[0] | b'0', number % 100);
    [digit(number / 100), digit(rest / 10), digit(rest % 10)]
}

/// `second` with nothing behind its point.
fn seconds(second: u64) -> Option<[u8; 24]> {
    let text = OffsetDateTime::from_unix_timestamp(i64::try_from(second).ok()?).ok()?.format(SECONDS).ok()?;
    text.into_bytes().try_into().ok()
}

thread_local! {
    /// The second that was written last: most are written more than once.
    static SECOND: Cell<(u64, [u8; 24])> = const { Cell::new((u64::MAX, [0; 24])) };
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Tells the time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant, began: Timestamp },
    Manual(ManualClock),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now(), began: system_time() })
    }

    /// A clock that stands still until `hand` moves it.
    pub fn manual(hand: &ManualClock) -> Self {
        Self(Source::Manual(hand.clone()))
    }

    /// Wall-clock time: what expiry is judged by. It can jump.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => system_time(),
            Source::Manual(hand) => Timestamp(hand.wall.load(Ordering::SeqCst)),
        }
    }

    /// The wall-clock time, but no later than it would be if nobody had set the clock since it was made: what is forgotten for
    /// good is forgotten by this, so that a clock which jumps ahead and back takes nothing away.
    pub fn settled(&self) -> Timestamp {
        let began = match &self.0 {
            Source::System { began, .. } => *began,
            Source::Manual(hand) => hand.began,
        };
        self.now().min(began + self.monotonic())
    }

    /// Time since this clock was made, which never goes back: what delays and windows are counted by.
    pub fn monotonic(&self) -> Duration {
        self.monotonic_at(Instant::now())
    }

    /// The same at `moment`, which is the present to whoever asks. A manual clock knows no other than its own.
    pub fn monotonic_at(&self, moment: Instant) -> Duration {
        match &self.0 {
            Source::System { started, .. } => moment.saturating_duration_since(*started),
            Source::Manual(hand) => Duration::from_millis(hand.elapsed.load(Ordering::SeqCst)),
        }
    }
}

/// The hand of a manual clock.
#[derive(Clone, Debug)]
pub struct ManualClock {
    began: Timestamp,
    wall: Arc<AtomicU64>,
    elapsed: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn at(start: Timestamp) -> Self {
        Self { began: start, wall: Arc::new(AtomicU64::new(start.0)), elapsed: Arc::new(AtomicU64::new(0)) }
    }

    /// Lets `span` pass: both the wall-clock and the monotonic time move.
    pub fn advance(&self, span: Duration) {
        self.wall.fetch_add(millis(span), Ordering::SeqCst);
        self.elapsed.fetch_add(millis(span), Ordering::SeqCst);
    }

    /// Sets the wall clock, as an operator or NTP would; monotonic time does not notice.
    pub fn set_wall(&self, moment: Timestamp) {
        self.wall.store(moment.0, Ordering::SeqCst);
    }
}

/// RFC 3339 with always three digits, so that columns stay columns.
const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");

fn system_time() -> Timestamp {
    Timestamp(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_moment_as_rfc_3339() {
        assert_eq!(Timestamp::from_millis(1_700_000_000_123).rfc3339(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Timestamp::from_secs(1_700_000_000).rfc3339(), "2023-11-14T22:13:20.000Z");
        assert_eq!(Timestamp::default().rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(253_402_300_799_999).rfc3339(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_millis(253_402_300_800_000).rfc3339(), "@253402300800000", "a year too many");
        assert_eq!(Timestamp::from_millis(u64::MAX).rfc3339(), format!("@{}", u64::MAX));
    }

    #[test]
    fn three_digits_are_three_of_any_number() {
        for (number, digits) in [(0, b"000"), (7, b"007"), (80, b"080"), (999, b"999"), (1234, b"234")] {
            assert_eq!(&three_digits(number), digits);
        }
    }

    #[test]
    fn a_clock_set_back_gives_no_negative_time() {
        let hand = ManualClock::at(Timestamp::from_secs(1000));
        let clock = Clock::manual(&hand);
        let before = clock.now();
        hand.set_wall(Timestamp::from_secs(10));
        assert_eq!(clock.now().since(before), Duration::ZERO);
        hand.advance(Duration::from_secs(5));
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
    }

    #[test]
    fn time_since_a_clock_was_made_is_told_of_a_moment_that_is_known() {
        let before = Instant::now();
        let clock = Clock::system();
        assert_eq!(clock.monotonic_at(before), Duration::ZERO);
        let (now, later) = (Instant::now(), Duration::from_secs(5));
        assert_eq!(clock.monotonic_at(now + later), clock.monotonic_at(now) + later);
        let hand = ManualClock::at(Timestamp::from_secs(1000));
        hand.advance(later);
        assert_eq!(Clock::manual(&hand).monotonic_at(before), later, "whatever the machine's clock says");
    }

    #[test]
    fn a_clock_set_ahead_takes_nothing_away() {
        let hand = ManualClock::at(Timestamp::from_secs(1000));
        let clock = Clock::manual(&hand);
        hand.set_wall(Timestamp::from_secs(9000));
        hand.advance(Duration::from_secs(5));
        assert_eq!((clock.now(), clock.settled()), (Timestamp::from_secs(9005), Timestamp::from_secs(1005)));
        hand.set_wall(Timestamp::from_secs(10));
        assert_eq!(clock.settled(), Timestamp::from_secs(10), "nor is anything forgotten late");
    }
}
