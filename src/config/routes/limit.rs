//! `rate_limit`: how many requests one user, key or network may make, as written and checked.

use std::time::Duration;

use super::super::reader::{Item, Written};
use super::super::values::Fault;
use crate::diag::{Diagnostic, quoted};

/// How many requests come through, and of whom they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Of whom.
    pub per: Per,
    /// So many…
    pub count: u64,
    /// … in this time: a second, a minute, an hour or a day.
    pub window: Duration,
    /// How many may come at once.
    pub burst: u64,
}

/// Of whom requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Of a user, whatever they show; of a network where nobody is signed in.
    User,
    /// Of one session, API key or token; of a network where none is shown.
    Key,
    /// Of an IPv4 address, or an IPv6 network of 64 bits.
    Network,
}

impl Per {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "key",
            Self::Network => "network",
        }
    }
}

impl RateLimit {
    /// The rate as it is written: `100/m`.
    pub fn rate(&self) -> String {
        let unit = UNITS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.window);
        format!("{}/{}", self.count, unit.map_or("s", |(unit, _)| unit))
    }

    /// After how long one more request may come.
    pub fn interval(&self) -> Duration {
        let nanos = self.window.as_nanos() / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The limit; what can't be used is reported.
pub(super) fn read(item: &Item<'_>) -> Option<Written<RateLimit>> {
    let mut table = item.table("routes.rate_limit")?;
    let cx = table.cx;
    table.require("per", "add per = \"user\", \"key\" or \"network\"");
    table.require("rate", "add rate = \"100/m\"");
    let per = table.take("per").and_then(|item| item.word("routes.rate_limit.per", WORDS));
    let rate = table.take("rate").and_then(|item| item.parsed("bad-rate", rate));
    let burst = table.take("burst").map(|item| item.count(1, MOST));
    table.finish();
    let (per, rate) = (per?, rate?);
    let (count, window) = *rate.get_ref();
    let burst = match burst {
        None => count,
        Some(burst) => burst?.into_inner(),
    };
    let limit = RateLimit { per: per.into_inner(), count, window, burst };
    let filled = limit.interval().saturating_mul(u32::try_from(burst).unwrap_or(u32::MAX));
    if filled > LONGEST {
        let finding = Diagnostic::error("out-of-range", "at this rate the burst comes back in more than a year");
        cx.report(finding.at(rate.span()).help("write a smaller `burst`, or a higher rate"));
    }
    Some(Written::new(item.span(), limit))
}

/// `"100/m"`: a number in a second, minute, hour or day.
fn rate(text: &str) -> Result<(u64, Duration), Fault> {
    let read = text.split_once('/').and_then(|(count, unit)| {
        let is_plain = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse().ok().filter(|count| is_plain && (1..=MOST).contains(count))?;
        let seconds = UNITS.iter().find(|(known, _)| *known == unit)?.1;
        Some((count, Duration::from_secs(seconds)))
    });
    read.ok_or_else(|| {
        let help = format!("write a number from 1 to {MOST} in a second, minute, hour or day: \"100/m\"");
        Fault::new(format!("{} is not a rate", quoted(text)), "not a rate", help)
    })
}

const WORDS: &[(&str, Per)] = &[("user", Per::User), ("key", Per::Key), ("network", Per::Network)];

const UNITS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// One in a microsecond is no limit any more.
const MOST: u64 = 1_000_000;

/// What takes longer is never seen to end.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_unit() {
        assert_eq!(rate("100/m").unwrap(), (100, Duration::from_secs(60)));
        assert_eq!(rate("1/d").unwrap(), (1, Duration::from_secs(86_400)));
        for bad in ["", "100", "/m", "0/s", "-1/s", "+1/s", "1.5/s", "100/min", "100 / m", "1000001/s", "1/"] {
            rate(bad).unwrap_err();
        }
    }

    #[test]
    fn a_limit_is_said_as_it_is_written() {
        let (count, window) = rate("100/m").unwrap();
        let limit = RateLimit { per: Per::User, count, window, burst: 20 };
        assert_eq!((limit.rate().as_str(), limit.interval()), ("100/m", Duration::from_millis(600)));
    }
}
