//! The access log: one line per request, written by a thread of its own so that a full pipe stops no request.

mod book;

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use self::book::{Book, Sink};
use super::{Ending, Record};
use crate::clock::Timestamp;
use crate::config::{AccessLog as Target, LogFormat};

/// Where access lines go. Cheap to clone; [`AccessLog::off`] costs nothing per request.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    format: LogFormat,
    book: Book,
}

impl AccessLog {
    /// Writes nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the log and starts its thread, which ends with the last clone. Lines that are lost are counted on from `former`.
    ///
    /// # Errors
    /// When the file can't be opened for appending.
    pub fn open(target: &Target, format: LogFormat, former: &Self) -> io::Result<Self> {
        let sink = match target {
            Target::Off => return Ok(Self::off()),
            Target::Stdout => Sink::Stream(Box::new(io::stdout())),
            Target::Stderr => Sink::Stream(Box::new(io::stderr())),
            Target::File(path) => Sink::file(path)?,
        };
        let lost = former.0.as_ref().map(|former| Arc::clone(former.book.lost())).unwrap_or_default();
        Ok(Self(Some(Arc::new(Open { format, book: Book::open(sink, lost)? }))))
    }

    /// Whether lines are written at all.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the line of a request that has ended so. Never waits for where it goes: when too many lines wait for that it is
    /// dropped and counted.
    pub fn write(&self, record: &Record, ending: &Ending) {
        let Some(open) = &self.0 else { return };
        // Where there is no room it is counted.
        open.book.add(|text| match open.format {
            LogFormat::Json => json_line(text, record, ending),
            LogFormat::Text => text_line(text, record, ending),
        });
    }

    /// How many lines were lost so far.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.book.lost().load(Ordering::Relaxed))
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        if let Some(open) = &self.0 {
            open.book.reopen();
        }
    }

    /// Waits, at most `patience`, until all lines so far are written.
    pub fn flush(&self, patience: Duration) {
        if let Some(open) = &self.0 {
            open.book.flush(patience);
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    client: IpAddr,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    user: Option<&'a str>,
    route: Option<&'a str>,
    decision: &'a str,
    code: &'a str,
    reason: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    upstream_ms: Option<f64>,
    upstream: Option<&'a str>,
    server: Option<&'a str>,
    tries: u32,
    trace_id: Option<String>,
}

fn json_line(text: &mut Vec<u8>, record: &Record, ending: &Ending) {
    let id = record.request_id.digits();
    let line = Line {
        time: record.time.rfc3339(),
        request_id: &id,
        client: record.client,
        method: record.method.as_str(),
        host: record.page.host(),
        path: record.page.path(),
        status: record.status.as_u16(),
        user: record.user(),
        route: record.route.as_deref(),
        decision: record.decision,
        code: record.code,
        reason: if ending.is_cut { format!("{}{CUT}", record.reason).into() } else { (*record.reason).into() },
        observed: record.observed,
        bytes_in: ending.bytes_in,
        bytes_out: ending.bytes_out,
        duration_ms: millis(ending.duration),
        upstream_ms: ending.upstream_time.map(millis),
        upstream: record.upstream.as_deref(),
        server: record.server.as_deref(),
        tries: record.tries,
        trace_id: record.trace.map(|trace| trace.to_string()),
    };
    let _infallible = serde_json::to_writer(&mut *text, &line);
    text.push(b'\n');
}

/// Piece by piece: a format string costs several times as much, and this is done for every request.
fn text_line(text: &mut Vec<u8>, record: &Record, ending: &Ending) {
    let mut line = Pieces(text);
    line.time(record.time).push(" ").address(record.client).push(" ").escaped(record.user().unwrap_or("-"));
    line.push(" \"")
        .push(record.method.as_str())
        .push(" ")
        .escaped(record.page.host())
        .escaped(record.page.path())
        .push("\" ");
    line.push(record.status.as_str()).push(" route=").push(record.route.as_deref().unwrap_or("-"));
    line.push(" ").push(record.decision).push(" (").escaped(&record.reason);
    line.push(if ending.is_cut { CUT } else { "" }).push(") code=");
    line.push(if record.code.is_empty() { "-" } else { record.code });
    if let Some(decision) = record.observed {
        line.push(" observed=").push(decision);
    }
    line.push(" in=").number(ending.bytes_in).push(" out=").number(ending.bytes_out);
    line.push(" ms=").millis(ending.duration);
    if let Some(time) = ending.upstream_time {
        line.push(" upstream_ms=").millis(time);
    }
    if let Some(server) = &record.server {
        line.push(" server=").push(server).push(" tries=").number(record.tries.into());
    }
    line.push(" id=").push(&record.request_id.digits());
    if let Some(trace) = record.trace {
        let _infallible = write!(line.0, " trace={trace}");
    }
    line.push("\n");
}

/// A line in the making.
struct Pieces<'a>(&'a mut Vec<u8>);

impl Pieces<'_> {
    fn push(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn time(&mut self, time: Timestamp) -> &mut Self {
        time.write_rfc3339(|piece| self.0.extend_from_slice(piece.as_bytes()));
        self
    }

    fn address(&mut self, address: IpAddr) -> &mut Self {
        let IpAddr::V4(four) = address else {
            let _infallible = write!(self.0, "{address}");
            return self;
        };
        let [a, b, c, d] = four.octets().map(u64::from);
        self.number(a).push(".").number(b).push(".").number(c).push(".").number(d)
    }

    fn escaped(&mut self, text: &str) -> &mut Self {
        self.push(&escaped(text))
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(number))
    }

    /// Milliseconds with three places, the last one rounded.
    fn millis(&mut self, span: Duration) -> &mut Self {
        let micros = (span.as_nanos() + 500) / 1000;
        let places = 1000 + u16::try_from(micros % 1000).unwrap_or_default();
        self.push(itoa::Buffer::new().format(micros / 1000)).push(".");
        self.push(&itoa::Buffer::new().format(places)[1..])
    }
}

/// Quotes, backslashes and everything that could end a line or move a terminal's cursor, escaped.
fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(is_plain) || text.chars().all(|c| !c.is_control() && c != '"' && c != '\\') {
        return text.into();
    }
    text.escape_debug().to_string().into()
}

fn millis(span: Duration) -> f64 {
    // Microseconds are exact in a float for centuries.
    #[expect(clippy::cast_precision_loss, reason = "a duration of a request is far below 2^52 µs")]
    let micros = span.as_micros() as f64;
    micros / 1000.0
}

/// What is said of an answer that broke off, behind the reason.
const CUT: &str = ", cut";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Page;

    fn record() -> Record {
        let page = Page::Written { host: "apps.example.com".to_owned(), path: "/a\u{1b}[2J\"\n".to_owned() };
        Record { page, ..crate::observe::record::blank_for_tests() }
    }

    fn ending() -> Ending {
        Ending::of(&record())
    }

    fn json_line(record: &Record, ending: &Ending) -> Vec<u8> {
        let mut line = Vec::new();
        super::json_line(&mut line, record, ending);
        line
    }

    fn text_line(record: &Record, ending: &Ending) -> Vec<u8> {
        let mut line = Vec::new();
        super::text_line(&mut line, record, ending);
        line
    }

    #[test]
    fn a_line_of_text_has_all_that_a_person_looks_for() {
        let record = crate::observe::record::blank_for_tests();
        let duration = Duration::from_nanos(12_345_678_499);
        let ending = Ending { is_cut: true, bytes_in: 7, duration, ..Ending::of(&record) };
        assert_eq!(
            String::from_utf8(text_line(&record, &ending)).unwrap(),
            "2023-11-14T22:13:20.123Z 127.0.0.1 alice \"GET apps.example.com/a\" 200 route=rest permit (signed in, cut) \
             code=signed-in in=7 out=12 ms=12345.678 upstream_ms=1.200 server=10.0.0.1:9000 tries=2 \
             id=00000000000000000000000000000123\n"
        );
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for address in ["0.0.0.0", "203.0.113.9", "255.255.255.255", "::1", "2001:db8::7", "::ffff:10.0.0.1"] {
            let mut line = Vec::new();
            Pieces(&mut line).address(address.parse().unwrap());
            assert_eq!(line, address.as_bytes());
        }
    }

    #[test]
    fn one_request_is_one_line_whatever_its_path() {
        for line in [json_line(&record(), &ending()), text_line(&record(), &ending())] {
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert!(!line.contains(&0x1b));
        }
    }

    #[test]
    fn json_lines_hold_what_was_decided() {
        let line: serde_json::Value = serde_json::from_slice(&json_line(&record(), &ending())).unwrap();
        assert_eq!((&line["decision"], line.get("observed")), (&"permit".into(), None));
        assert_eq!(line["duration_ms"], 1.5);
        assert_eq!((&line["server"], &line["tries"]), (&"10.0.0.1:9000".into(), &2.into()));
        assert_eq!(line["time"], "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn what_a_route_would_have_refused_is_told() {
        let record = Record { observed: Some("deny"), ..record() };
        let line: serde_json::Value = serde_json::from_slice(&json_line(&record, &ending())).unwrap();
        assert_eq!((&line["decision"], &line["observed"]), (&"permit".into(), &"deny".into()));
        let line = String::from_utf8(text_line(&record, &ending())).unwrap();
        assert!(line.contains(" permit (signed in) code=signed-in observed=deny in=0"), "{line}");
    }

    #[test]
    fn writes_to_a_file_and_reopens_it_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&Target::File(path.clone()), LogFormat::Json, &AccessLog::off()).unwrap();
        log.write(&record(), &ending());
        log.flush(Duration::from_secs(5));
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        log.reopen();
        log.write(&record(), &ending());
        log.write(&record(), &ending());
        log.flush(Duration::from_secs(5));
        let lines = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
        assert_eq!((lines("access.log.1"), lines("access.log")), (1, 2));
    }
}
