//! The output of a child process, kept line by line, so that a test can wait for a line without sleeping.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::DEADLINE;

/// Everything that a child wrote to one of its streams so far.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads `stream` to its end in a thread.
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let inner = Arc::new(Inner { state: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&inner);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = without_colours(String::from_utf8_lossy(&line).trim_end_matches('\n'));
                writer.state.lock().unwrap().lines.push(text);
                writer.changed.notify_all();
                line.clear();
            }
            writer.state.lock().unwrap().ended = true;
            writer.changed.notify_all();
        });
        Self(inner)
    }

    /// The first line for which `found` gives something. Fails when the stream ends or time is up.
    pub(crate) fn wait<T>(&self, what: &str, found: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_for(DEADLINE, what, found)
    }

    /// [`Self::wait`] with another deadline, for what is slow and not ours.
    pub(crate) fn wait_for<T>(&self, deadline: Duration, what: &str, mut found: impl FnMut(&str) -> Option<T>) -> T {
        let started = Instant::now();
        let mut seen = 0;
        let mut state = self.0.state.lock().unwrap();
        loop {
            while seen < state.lines.len() {
                if let Some(value) = found(&state.lines[seen]) {
                    return value;
                }
                seen += 1;
            }
            let left = deadline.checked_sub(started.elapsed());
            let Some(left) = left.filter(|_| !state.ended) else {
                panic!("no line with {what} in:\n{}", state.lines.join("\n"));
            };
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until the child has closed the stream.
    pub(crate) fn wait_for_end(&self) {
        let started = Instant::now();
        let mut state = self.0.state.lock().unwrap();
        while !state.ended {
            let left = DEADLINE.checked_sub(started.elapsed());
            let left = left.expect("the process ends in time");
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// All of it, so far.
    pub(crate) fn text(&self) -> String {
        self.0.state.lock().unwrap().lines.join("\n")
    }
}

/// `line` without ANSI escape sequences.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, tail)| tail);
    }
    plain.push_str(rest);
    plain
}
