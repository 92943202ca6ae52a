//! The access log: one line per request, written by a thread of its own so that a full pipe stops no request.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use tracing::warn;

use super::Record;
use crate::config::{AccessLog as Target, LogFormat};

/// Where access lines go. Cheap to clone; [`AccessLog::off`] costs nothing per request.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    format: LogFormat,
    lines: SyncSender<Job>,
    /// Lines that were dropped and not told of in the log yet.
    dropped: Arc<AtomicU64>,
    /// All that were dropped.
    lost: Arc<AtomicU64>,
}

enum Job {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Writes nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the log and starts its thread, which ends with the last clone.
    ///
    /// # Errors
    /// When the file can't be opened for appending.
    pub fn open(target: &Target, format: LogFormat) -> io::Result<Self> {
        let sink = match target {
            Target::Off => return Ok(Self::off()),
            // By themselves they write line by line, which is a system call for each request.
            Target::Stdout => Sink::Stream(Box::new(BufWriter::new(io::stdout()))),
            Target::Stderr => Sink::Stream(Box::new(BufWriter::new(io::stderr()))),
            Target::File(path) => Sink::File(BufWriter::new(append(path)?), path.clone()),
        };
        let (lines, queue) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        spawn_writer(sink, queue, Arc::clone(&dropped))?;
        Ok(Self(Some(Arc::new(Open { format, lines, dropped, lost: Arc::default() }))))
    }

    /// Whether lines are written at all.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the line of a request that has ended. Never waits: when the queue is full the line is dropped and counted.
    pub fn write(&self, record: &Record) {
        let Some(open) = &self.0 else { return };
        let line = match open.format {
            LogFormat::Json => json_line(record),
            LogFormat::Text => text_line(record),
        };
        if open.lines.try_send(Job::Line(line)).is_err() {
            open.dropped.fetch_add(1, Ordering::Relaxed);
            open.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same in place of `former`, whose dropped lines it goes on counting. To be called before anything is written.
    #[must_use]
    pub fn after(self, former: &Self) -> Self {
        match (self.0.map(Arc::try_unwrap), &former.0) {
            (Some(Ok(open)), Some(former)) => Self(Some(Arc::new(Open { lost: Arc::clone(&former.lost), ..open }))),
            (Some(Ok(open)), None) => Self(Some(Arc::new(open))),
            (Some(Err(shared)), _) => Self(Some(shared)),
            (None, _) => Self(None),
        }
    }

    /// How many lines were dropped so far.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.lost.load(Ordering::Relaxed))
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        if let Some(open) = &self.0 {
            let _full_queue_reopens_nothing = open.lines.try_send(Job::Reopen);
        }
    }

    /// Waits, at most `patience`, until all lines so far are written.
    pub fn flush(&self, patience: Duration) {
        let Some(open) = &self.0 else { return };
        let (done, wait) = sync_channel(1);
        if open.lines.try_send(Job::Flush(done)).is_ok() {
            let _slow_sink = wait.recv_timeout(patience);
        }
    }
}

enum Sink {
    Stream(Box<dyn Write + Send>),
    File(BufWriter<File>, std::path::PathBuf),
}

impl Sink {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stream(stream) => stream,
            Self::File(file, _) => file,
        }
    }

    fn reopen(&mut self) {
        let Self::File(file, path) = self else { return };
        match append(path) {
            Ok(new) => *file = BufWriter::new(new),
            Err(error) => warn!(path = %path.display(), %error, "access log not reopened"),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn spawn_writer(mut sink: Sink, queue: Receiver<Job>, dropped: Arc<AtomicU64>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        let mut failing = false;
        while let Some(job) = next(&queue, &mut sink) {
            let written = match job {
                Job::Line(line) => sink.writer().write_all(&line),
                Job::Reopen => {
                    sink.reopen();
                    Ok(())
                }
                Job::Flush(done) => {
                    let flushed = sink.writer().flush();
                    let _asker_left = done.try_send(());
                    flushed
                }
            };
            if let Err(error) = &written
                && !failing
            {
                warn!(%error, "access log can't be written");
            }
            failing = written.is_err();
            let missed = dropped.swap(0, Ordering::Relaxed);
            if missed > 0 {
                warn!(lines = missed, "access lines dropped: the log is slower than the traffic");
            }
        }
    })
}

/// The next job; what was written so far is flushed before waiting for it.
fn next(queue: &Receiver<Job>, sink: &mut Sink) -> Option<Job> {
    match queue.try_recv() {
        Ok(job) => Some(job),
        Err(TryRecvError::Disconnected) => {
            let _nobody_left_to_tell = sink.writer().flush();
            None
        }
        Err(TryRecvError::Empty) => {
            let _told_at_the_next_write = sink.writer().flush();
            queue.recv().ok()
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    client: std::net::IpAddr,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    user: Option<&'a str>,
    route: Option<&'a str>,
    decision: &'a str,
    code: &'a str,
    reason: &'a str,
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

fn json_line(record: &Record) -> Vec<u8> {
    let line = Line {
        time: record.time.rfc3339(),
        request_id: &record.request_id,
        client: record.client,
        method: record.method.as_str(),
        host: &record.host,
        path: &record.path,
        status: record.status.as_u16(),
        user: record.user.as_deref(),
        route: record.route.as_deref(),
        decision: record.decision,
        code: record.code,
        reason: &record.reason,
        observed: record.observed,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        duration_ms: millis(record.duration),
        upstream_ms: record.upstream_time.map(millis),
        upstream: record.upstream.as_deref(),
        server: record.server.as_deref(),
        tries: record.tries,
        trace_id: record.trace.map(|trace| trace.to_string()),
    };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn text_line(record: &Record) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    let upstream = record.upstream_time.map(|time| format!(" upstream_ms={:.3}", millis(time))).unwrap_or_default();
    let server = record.server.as_deref().map(|server| format!(" server={server} tries={}", record.tries));
    let server = server.unwrap_or_default();
    let trace = record.trace.map(|trace| format!(" trace={trace}")).unwrap_or_default();
    let observed = record.observed.map(|decision| format!(" observed={decision}")).unwrap_or_default();
    let _infallible = writeln!(
        line,
        "{time} {client} {user} \"{method} {host}{path}\" {status} route={route} {decision} ({reason}) code={code}{observed} in={bytes_in} out={bytes_out} ms={ms:.3}{upstream}{server} id={id}{trace}",
        time = record.time,
        client = record.client,
        user = record.user.as_deref().map_or_else(|| "-".into(), escaped),
        method = record.method,
        host = escaped(&record.host),
        path = escaped(&record.path),
        status = record.status.as_u16(),
        route = record.route.as_deref().unwrap_or("-"),
        decision = record.decision,
        code = if record.code.is_empty() { "-" } else { record.code },
        reason = escaped(&record.reason),
        bytes_in = record.bytes_in,
        bytes_out = record.bytes_out,
        ms = millis(record.duration),
        id = record.request_id,
    );
    line
}

/// Quotes, backslashes and everything that could end a line or move a terminal's cursor, escaped.
fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().all(|c| !c.is_control() && c != '"' && c != '\\') {
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

/// Lines that may wait for a slow sink: some megabytes.
const QUEUE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record { path: "/a\u{1b}[2J\"\n".to_owned(), ..crate::observe::record::blank_for_tests() }
    }

    #[test]
    fn one_request_is_one_line_whatever_its_path() {
        for line in [json_line(&record()), text_line(&record())] {
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert!(!line.contains(&0x1b));
        }
    }

    #[test]
    fn json_lines_hold_what_was_decided() {
        let line: serde_json::Value = serde_json::from_slice(&json_line(&record())).unwrap();
        assert_eq!((&line["decision"], line.get("observed")), (&"permit".into(), None));
        assert_eq!(line["duration_ms"], 1.5);
        assert_eq!((&line["server"], &line["tries"]), (&"10.0.0.1:9000".into(), &2.into()));
        assert_eq!(line["time"], "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn what_a_route_would_have_refused_is_told() {
        let record = Record { observed: Some("deny"), ..record() };
        let line: serde_json::Value = serde_json::from_slice(&json_line(&record)).unwrap();
        assert_eq!((&line["decision"], &line["observed"]), (&"permit".into(), &"deny".into()));
        let line = String::from_utf8(text_line(&record)).unwrap();
        assert!(line.contains(" permit (signed in) code=signed-in observed=deny in=0"), "{line}");
    }

    #[test]
    fn writes_to_a_file_and_reopens_it_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&Target::File(path.clone()), LogFormat::Json).unwrap();
        log.write(&record());
        log.flush(Duration::from_secs(5));
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        log.reopen();
        log.write(&record());
        log.write(&record());
        log.flush(Duration::from_secs(5));
        let lines = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
        assert_eq!((lines("access.log.1"), lines("access.log")), (1, 2));
    }
}
