//! The access log: one line per request, written by a thread of its own so that a full pipe stops no request.

mod book;
mod text;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::book::{Book, Sink};
use self::text::Text;
use super::{Ending, Record};
use crate::clock::three_digits;
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

/// A line as JSON, piece by piece as well: serde takes four times as long. What is neither one of our own words nor a token of
/// HTTP goes through [`Text::json`].
fn json_line(text: &mut Text, record: &Record, ending: &Ending) {
    text.word(b"{\"time\":\"").time(record.time);
    text.word(b"\",\"request_id\":\"").word(record.request_id.digits().as_bytes());
    text.word(b"\",\"client\":\"").address(record.client);
    text.word(b"\",\"method\":\"").push(record.method.as_str());
    text.word(b"\",\"host\":").json(record.page.host());
    text.word(b",\"path\":").json(record.page.path());
    text.word(b",\"status\":").word(&three_digits(record.status.as_u16().into()));
    text.word(b",\"user\":").json_or_null(record.user());
    text.word(b",\"route\":").json_or_null(record.route.as_deref());
    text.word(b",\"decision\":\"").push(record.decision);
    text.word(b"\",\"code\":\"").push(record.code);
    text.word(b"\",\"reason\":");
    match ending.is_cut {
        true => text.json(&format!("{}{CUT}", record.reason)),
        false => text.json(&record.reason),
    };
    if let Some(decision) = record.observed {
        text.word(b",\"observed\":\"").push(decision).word(b"\"");
    }
    text.word(b",\"bytes_in\":").number(ending.bytes_in);
    text.word(b",\"bytes_out\":").number(ending.bytes_out);
    text.word(b",\"duration_ms\":").json_millis(ending.duration).word(b",\"upstream_ms\":");
    match ending.upstream_time {
        Some(time) => text.json_millis(time),
        None => text.word(b"null"),
    };
    text.word(b",\"upstream\":").json_or_null(record.upstream.as_deref());
    text.word(b",\"server\":").json_or_null(record.server.as_deref());
    text.word(b",\"tries\":").number(record.tries.into()).word(b",\"trace_id\":");
    match record.trace {
        Some(trace) => text.word(b"\"").word(trace.digits().as_bytes()).word(b"\"}\n"),
        None => text.word(b"null}\n"),
    };
}

/// Piece by piece: a format string costs several times as much, and this is done for every request.
fn text_line(text: &mut Text, record: &Record, ending: &Ending) {
    text.time(record.time).word(b" ").address(record.client).word(b" ");
    text.escaped(record.user().unwrap_or("-")).word(b" \"").push(record.method.as_str()).word(b" ");
    text.escaped(record.page.host()).escaped(record.page.path()).word(b"\" ");
    text.word(&three_digits(record.status.as_u16().into()))
        .word(b" route=")
        .push(record.route.as_deref().unwrap_or("-"));
    text.word(b" ").push(record.decision).word(b" (").escaped(&record.reason);
    if ending.is_cut {
        text.push(CUT);
    }
    text.word(b") code=").push(if record.code.is_empty() { "-" } else { record.code });
    if let Some(decision) = record.observed {
        text.word(b" observed=").push(decision);
    }
    text.word(b" in=").number(ending.bytes_in).word(b" out=").number(ending.bytes_out);
    text.word(b" ms=").millis(ending.duration);
    if let Some(time) = ending.upstream_time {
        text.word(b" upstream_ms=").millis(time);
    }
    if let Some(server) = &record.server {
        text.word(b" server=").push(server).word(b" tries=").number(record.tries.into());
    }
    text.word(b" id=").word(record.request_id.digits().as_bytes());
    if let Some(trace) = record.trace {
        text.word(b" trace=").word(trace.digits().as_bytes());
    }
    text.word(b"\n");
}

/// What is said of an answer that broke off, behind the reason.
const CUT: &str = ", cut";

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{Method, StatusCode};
    use serde::Serialize;

    use super::*;
    use crate::clock::Timestamp;
    use crate::observe::Page;
    use crate::observe::record::blank_for_tests;
    use crate::observe::trace::Parent;

    fn record() -> Record {
        let page = Page::Written { host: "apps.example.com".to_owned(), path: "/a\u{1b}[2J\"\n".to_owned() };
        Record { page, ..blank_for_tests() }
    }

    fn ending() -> Ending {
        Ending::of(&record())
    }

    fn json_line(record: &Record, ending: &Ending) -> Vec<u8> {
        let mut line = Text::default();
        super::json_line(&mut line, record, ending);
        line.as_bytes().to_vec()
    }

    fn text_line(record: &Record, ending: &Ending) -> Vec<u8> {
        let mut line = Text::default();
        super::text_line(&mut line, record, ending);
        line.as_bytes().to_vec()
    }

    #[test]
    fn a_line_of_text_has_all_that_a_person_looks_for() {
        let record = blank_for_tests();
        let duration = Duration::from_nanos(12_345_678_499);
        let ending = Ending { is_cut: true, bytes_in: 7, duration, ..Ending::of(&record) };
        assert_eq!(
            String::from_utf8(text_line(&record, &ending)).unwrap(),
            "2023-11-14T22:13:20.123Z 127.0.0.1 alice \"GET apps.example.com/a\" 200 route=rest permit (signed in, cut) \
             code=signed-in in=7 out=12 ms=12345.678 upstream_ms=1.200 server=10.0.0.1:9000 tries=2 \
             id=00000000000000000000000000000123\n"
        );
    }

    /// What serde makes of a line, which is what is written by hand.
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
        reason: String,
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

    fn by_serde(record: &Record, ending: &Ending) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a day in microseconds is less than 2^52")]
        let millis = |span: Duration| span.as_micros() as f64 / 1000.0;
        let line = Line {
            time: record.time.rfc3339(),
            request_id: &record.request_id.to_string(),
            client: record.client,
            method: record.method.as_str(),
            host: record.page.host(),
            path: record.page.path(),
            status: record.status.as_u16(),
            user: record.user(),
            route: record.route.as_deref(),
            decision: record.decision,
            code: record.code,
            reason: format!("{}{}", record.reason, if ending.is_cut { CUT } else { "" }),
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
        serde_json::to_string(&line).unwrap() + "\n"
    }

    /// Records in which every value that someone else may choose is `hostile`, some with and some without what may be missing.
    fn hostile_records(hostile: &str) -> impl Iterator<Item = (Record, Ending)> {
        let named = move |is_there: bool| is_there.then(|| Arc::<str>::from(hostile));
        let mut headers = http::HeaderMap::new();
        headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
        let trace = Parent::read(&headers).map(|parent| parent.trace);
        (0..8_u8).map(move |number| {
            let (is_there, is_cut) = (number & 1 == 0, number & 2 == 0);
            let page = match number {
                0..6 => Page::Written { host: hostile.to_owned(), path: format!("/{hostile}") },
                _ => Page::default(),
            };
            let record = Record {
                page,
                time: Timestamp::from_millis([0, 1_700_000_000_123, u64::MAX][usize::from(number % 3)]),
                client: [IpAddr::from([203, 0, 113, number]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7])]
                    [usize::from(number % 2)],
                method: Method::from_bytes([&b"GET"[..], b"M-SEARCH'|~!"][usize::from(number % 2)]).unwrap(),
                status: StatusCode::from_u16([200, 999, 100][usize::from(number % 3)]).unwrap(),
                user: is_there.then(|| hostile.to_owned()).into(),
                route: named(is_there),
                code: ["", "signed-in"][usize::from(number % 2)],
                reason: hostile.to_owned().into(),
                observed: is_there.then_some("deny"),
                upstream: named(is_there),
                server: named(is_there),
                tries: [0, 1, u32::MAX][usize::from(number % 3)],
                trace: trace.filter(|_| is_there),
                ..blank_for_tests()
            };
            let ending = Ending {
                bytes_in: [0, 17, u64::MAX][usize::from(number % 3)],
                bytes_out: [u64::MAX, 0, 123_456_789][usize::from(number % 3)],
                duration: [Duration::ZERO, Duration::from_nanos(1_500_999), Duration::from_secs(86400)]
                    [usize::from(number % 3)],
                upstream_time: is_there.then_some(Duration::from_micros(120)),
                is_cut,
            };
            (record, ending)
        })
    }

    #[test]
    fn a_line_of_json_is_what_serde_would_write_whatever_is_in_it() {
        let long = "\\\"\u{1b}\u{2028}é".repeat(20_000);
        let broken = String::from_utf8_lossy(b"\xff\xfe\xc3(\xed\xa0\x80\x00");
        let hostile = [
            "",
            "-",
            "alice",
            "null",
            "\"",
            "\\",
            "\"}\n{\"",
            "a\nb\rc\td",
            "\u{0}\u{1}\u{7}\u{8}\u{b}\u{c}\u{1f}",
            "\u{7f}\u{80}\u{85}",
            "\u{2028}\u{2029}\u{feff}\u{202e}",
            "müller",
            "</script>",
            "😀",
            &broken,
            &long,
        ];
        for text in hostile {
            for (record, ending) in hostile_records(text) {
                let line = String::from_utf8(json_line(&record, &ending)).unwrap();
                assert_eq!(line, by_serde(&record, &ending));
                let read: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(read["host"], record.page.host());
                assert_eq!(line.matches('\n').count(), 1);
                let line = String::from_utf8(text_line(&record, &ending)).unwrap();
                assert!(line.ends_with('\n') && line.contains(" id=00000000000000000000000000000123"), "{line}");
            }
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
