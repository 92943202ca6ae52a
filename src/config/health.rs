//! `health` of an upstream: how its servers are checked, and when one that fails requests is left out.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;
use http::uri::PathAndQuery;
use toml::Spanned;

use super::reader::{Context, Item, Table, Written};
use super::server::positive;
use super::values::Fault;
use crate::diag::{Diagnostic, quoted};

/// How the health of an upstream's servers is found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// How they are asked; `None`: they are not.
    pub check: Option<Check>,
    /// What is concluded from the requests that they serve.
    pub ejection: Ejection,
}

/// How a server is asked whether it is well.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What it is asked for.
    pub path: PathAndQuery,
    /// The Host that it is asked with; `None`: its own address.
    pub host: Option<HeaderValue>,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers after which one that was out is back.
    pub healthy: u32,
    /// Bad answers after which it is out.
    pub unhealthy: u32,
    /// Which status codes are good.
    pub status: Vec<RangeInclusive<u16>>,
}

/// When a server that fails requests is left out, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failed requests in a row; 0: never.
    pub faults: u32,
    /// For how long the first time; twice as long each time that it fails again soon.
    pub out: Duration,
    /// The longest that it is left out.
    pub out_most: Duration,
    /// How long it takes until one that is back gets its whole share.
    pub slow_start: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            faults: 5,
            out: Duration::from_secs(10),
            out_most: Duration::from_secs(300),
            slow_start: Duration::from_secs(30),
        }
    }
}

/// `health` as written.
#[derive(Default)]
pub(super) struct Raw {
    path: Option<Written<PathAndQuery>>,
    host: Option<Written<HeaderValue>>,
    interval: Option<Written<Duration>>,
    timeout: Option<Written<Duration>>,
    healthy: Option<Written<u64>>,
    unhealthy: Option<Written<u64>>,
    status: Option<Vec<RangeInclusive<u16>>>,
    faults: Option<Written<u64>>,
    out: Option<Written<Duration>>,
    out_most: Option<Written<Duration>>,
    slow_start: Option<Written<Duration>>,
    /// A key that says how servers are asked, where it is not said what for.
    idle: Option<Written<&'static str>>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let mut idle = None;
        let path = table.take("path");
        let is_asked = path.is_some();
        let mut raw = Self {
            path: path.and_then(|item| item.parsed("bad-path", check_path)),
            host: noted(&mut table, "host", &mut idle).and_then(|item| item.parsed("bad-host", host)),
            interval: noted(&mut table, "interval", &mut idle).and_then(|item| item.duration()),
            timeout: noted(&mut table, "timeout", &mut idle).and_then(|item| item.duration()),
            healthy: noted(&mut table, "healthy", &mut idle).and_then(|item| item.count(1, 1000)),
            unhealthy: noted(&mut table, "unhealthy", &mut idle).and_then(|item| item.count(1, 1000)),
            status: noted(&mut table, "status", &mut idle).and_then(|item| statuses(&item)),
            faults: table.take("faults").and_then(|item| item.count(0, 1_000_000)),
            out: table.duration("out"),
            out_most: table.duration("out_most"),
            slow_start: table.duration("slow_start"),
            idle: None,
        };
        raw.idle = idle.filter(|_| !is_asked);
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>) -> Health {
        if let Some(key) = &self.idle {
            let message = format!("`{}` is about checks, and there are none without `path`", key.get_ref());
            let finding = Diagnostic::error("missing-key", message).at(key.span());
            cx.report(finding.help("add path = \"/healthz\", whatever the application answers well"));
        }
        let base = Ejection::default();
        let count = |value: Option<Written<u64>>, default: u32| {
            value.map_or(default, |value| u32::try_from(value.into_inner()).unwrap_or(u32::MAX))
        };
        let interval = self.interval;
        if let Some(interval) = interval.as_ref().filter(|interval| *interval.get_ref() < LEAST_INTERVAL) {
            let finding = Diagnostic::error("out-of-range", "`interval` can't be under 10ms").at(interval.span());
            cx.report(finding.help("the default, \"5s\", suits most applications"));
        }
        let out = positive(cx, "out", self.out, base.out);
        let out_most = self.out_most.map(|most| (most.span(), positive(cx, "out_most", Some(most), base.out_most)));
        if let Some((place, _)) = out_most.as_ref().filter(|(_, most)| *most < out) {
            let finding = Diagnostic::error("out-of-range", "`out_most` is shorter than `out`").at(place.clone());
            cx.report(finding.help("write the longest that a server is left out"));
        }
        let ejection = Ejection {
            faults: count(self.faults, base.faults),
            out,
            out_most: out_most.map_or_else(|| base.out_most.max(out), |(_, most)| most),
            slow_start: self.slow_start.map_or(base.slow_start, Spanned::into_inner),
        };
        let timeout = positive(cx, "timeout", self.timeout, Duration::from_secs(2));
        let check = self.path.map(|path| Check {
            path: path.into_inner(),
            host: self.host.map(Spanned::into_inner),
            interval: interval.map_or(Duration::from_secs(5), Spanned::into_inner),
            timeout,
            healthy: count(self.healthy, 2),
            unhealthy: count(self.unhealthy, 3),
            status: self.status.unwrap_or_else(|| vec![200..=299]),
        });
        Health { check, ejection }
    }
}

/// The value of `key`, which means something beside `path` only.
fn noted<'a>(table: &mut Table<'a>, key: &'static str, first: &mut Option<Written<&'static str>>) -> Option<Item<'a>> {
    let item = table.take(key)?;
    first.get_or_insert_with(|| Spanned::new(item.span(), key));
    Some(item)
}

fn check_path(text: &str) -> Result<PathAndQuery, Fault> {
    let fault =
        || Fault::new(format!("{} is not a path", quoted(text)), "not a path", "write one such as \"/healthz\"");
    if !text.starts_with('/') || text.contains('#') {
        return Err(fault());
    }
    text.parse().map_err(|_| fault())
}

fn host(text: &str) -> Result<HeaderValue, Fault> {
    let fault =
        || Fault::new(format!("{} is not a host", quoted(text)), "not a host", "write one such as \"app.example.com\"");
    text.parse::<http::uri::Authority>().ok().filter(|host| !host.as_str().contains('@')).ok_or_else(fault)?;
    HeaderValue::from_str(text).map_err(|_| fault())
}

/// `"200-299"`, or a list of such.
fn statuses(item: &Item<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let is_list = matches!(item.value.get_ref(), toml::de::DeValue::Array(_));
    if !is_list {
        return Some(vec![item.parsed("bad-status", status)?.into_inner()]);
    }
    let list = item.list()?;
    if list.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`status` is empty: no answer would be good").at(list.span());
        item.cx.report(finding.help("leave it out for \"200-299\""));
        return None;
    }
    let all = list.get_ref().iter().map(|item| item.parsed("bad-status", status).map(Spanned::into_inner));
    all.collect::<Vec<Option<_>>>().into_iter().collect()
}

fn status(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|code| text.len() == 3 && (200..=599).contains(code));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match number(from).zip(number(to)) {
        Some((from, to)) if from <= to => Ok(from..=to),
        _ => {
            let help = "write one from 200 to 599, or a range: \"200-299\"";
            Err(Fault::new(format!("{} is no status code", quoted(text)), "not a status code", help))
        }
    }
}

/// The shortest time between two checks of a server.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_single_ones_or_ranges() {
        assert_eq!(status("204").unwrap(), 204..=204);
        assert_eq!(status("200-399").unwrap(), 200..=399);
        for text in ["", "2xx", "99", "600", "299-200", "200-", "+20", "200 - 299"] {
            assert!(status(text).is_err(), "{text}");
        }
    }
}
