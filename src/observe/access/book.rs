//! Lines on their way to a sink that may be slow: requests write them down one behind the other, and a thread of its own
//! carries off what has gathered. A line costs a lock and its bytes; none is copied, and no memory passes between threads.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::text::Text;

/// Where lines gather. Its thread ends with it, when all is written.
#[derive(Debug)]
pub(super) struct Book(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    page: Mutex<Page>,
    news: Condvar,
    /// All lines that did not reach the sink.
    lost: Arc<AtomicU64>,
}

/// What has gathered since the thread came last.
#[derive(Debug, Default)]
struct Page {
    text: Text,
    lines: usize,
    /// Each with where in `text` it was given: what stands before it comes first.
    orders: Vec<(usize, Order)>,
    /// Lines for which there was no room.
    dropped: u64,
    is_closed: bool,
}

#[derive(Debug)]
enum Order {
    Reopen,
    Flush(SyncSender<()>),
}

/// Where lines go.
pub(super) enum Sink {
    Stream(Box<dyn Write + Send>),
    File(File, PathBuf),
}

impl Book {
    /// An empty one, whose lines go to `sink`. Those that don't get there are counted in `lost`.
    pub(super) fn open(sink: Sink, lost: Arc<AtomicU64>) -> io::Result<Self> {
        let shared = Arc::new(Shared { page: Mutex::default(), news: Condvar::new(), lost });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || carry(&theirs, sink))?;
        Ok(Self(shared))
    }

    /// Lines that did not reach the sink, in a count that others may share.
    pub(super) fn lost(&self) -> &Arc<AtomicU64> {
        &self.0.lost
    }

    /// Has `write` add a line. Never waits for the sink: says no, and counts it, where too much waits for it already.
    pub(super) fn add(&self, write: impl FnOnce(&mut Text)) -> bool {
        let mut page = self.0.lock();
        if page.lines >= MOST_LINES || page.text.len() >= MOST_BYTES {
            page.dropped += 1;
            self.0.lost.fetch_add(1, Relaxed);
            return false;
        }
        write(&mut page.text);
        page.lines += 1;
        let is_first = page.lines == 1;
        drop(page);
        if is_first {
            self.0.news.notify_one();
        }
        true
    }

    /// Has the file opened anew behind the lines so far.
    pub(super) fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Waits, at most `patience`, until the lines so far are written.
    pub(super) fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        self.order(Order::Flush(done));
        let _slow_sink = wait.recv_timeout(patience);
    }

    fn order(&self, order: Order) {
        let mut page = self.0.lock();
        let at = page.text.len();
        page.orders.push((at, order));
        drop(page);
        self.0.news.notify_one();
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.news.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has in `page` what has gathered, as soon as there is something; under load a moment later, so that a request hardly ever
    /// has to wake this thread. The room of what was in it gathers what comes next.
    fn next(&self, page: &mut Page) {
        page.clear();
        let is_idle = |page: &mut Page| page.lines == 0 && page.orders.is_empty() && !page.is_closed;
        let mut gathered = self.news.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if gathered.orders.is_empty() && !gathered.is_closed {
            drop(gathered);
            thread::sleep(MOMENT);
            gathered = self.lock();
        }
        page.is_closed = gathered.is_closed;
        std::mem::swap(&mut *gathered, page);
    }
}

impl Page {
    /// Forgets all but whether it is closed, and keeps room.
    fn clear(&mut self) {
        self.text.clear(KEPT_BYTES);
        self.orders.clear();
        (self.lines, self.dropped) = (0, 0);
    }
}

/// Carries lines to `sink` until nobody writes any more.
fn carry(shared: &Shared, mut sink: Sink) {
    let (mut page, mut failing) = (Page::default(), false);
    loop {
        shared.next(&mut page);
        let Written { lost, error } = sink.write(page.text.as_bytes(), page.orders.drain(..));
        shared.lost.fetch_add(lost, Relaxed);
        if let Some(error) = error.as_ref().filter(|_| !failing) {
            warn!(%error, lines = lost, "access log can't be written");
        }
        failing = error.is_some();
        if page.dropped > 0 {
            warn!(lines = page.dropped, "access lines dropped: the log is slower than the traffic");
        }
        if page.is_closed {
            return;
        }
    }
}

impl Sink {
    /// The file at `path`, written on where it ends.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File(append(path)?, path.to_owned()))
    }

    /// Writes `text`, and does what was ordered amid it.
    fn write(&mut self, text: &[u8], orders: impl Iterator<Item = (usize, Order)>) -> Written {
        let (mut at, mut written) = (0, Written::default());
        for (place, order) in orders {
            self.put(text.get(at..place).unwrap_or_default(), &mut written);
            at = place;
            match order {
                Order::Reopen => self.reopen(),
                Order::Flush(done) => drop(done.try_send(())),
            }
        }
        self.put(text.get(at..).unwrap_or_default(), &mut written);
        written
    }

    /// Writes lines. One that can't be written is lost, and the next is tried.
    fn put(&mut self, mut text: &[u8], written: &mut Written) {
        let writer: &mut dyn Write = match self {
            Self::Stream(stream) => stream,
            Self::File(file, _) => file,
        };
        while !text.is_empty() {
            match writer.write(text) {
                Ok(count @ 1..) => text = text.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that others made so: its reader is slow.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(MOMENT),
                Ok(_) => written.loses(&mut text, io::ErrorKind::WriteZero.into()),
                Err(error) => written.loses(&mut text, error),
            }
        }
        if let Err(error) = writer.flush() {
            written.error = Some(error);
        }
    }

    fn reopen(&mut self) {
        let Self::File(file, path) = self else { return };
        match append(path) {
            Ok(new) => *file = new,
            Err(error) => warn!(path = %path.display(), %error, "access log not reopened"),
        }
    }
}

/// What became of lines.
#[derive(Debug, Default)]
struct Written {
    lost: u64,
    error: Option<io::Error>,
}

impl Written {
    /// The line that `text` begins with, or its rest, is lost.
    fn loses(&mut self, text: &mut &[u8], error: io::Error) {
        let end = memchr::memchr(b'\n', text).map_or(text.len(), |end| end + 1);
        *text = text.get(end..).unwrap_or_default();
        self.lost += 1;
        self.error = Some(error);
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// How long the first line of several waits for the others.
const MOMENT: Duration = Duration::from_millis(2);

/// Lines that may wait for a slow sink, and their bytes.
pub(super) const MOST_LINES: usize = 16 * 1024;
const MOST_BYTES: usize = 8 << 20;

/// Room that is kept for the next lines.
const KEPT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink that shows each piece, and takes the next when it is told to.
    struct Slow {
        shown: Sender<Vec<u8>>,
        goes_on: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.shown.send(bytes.to_vec()).map_err(io::Error::other)?;
            self.goes_on.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Book, Receiver<Vec<u8>>, Sender<()>) {
        let (shown, pieces) = channel();
        let (go_on, goes_on) = channel();
        (Book::open(Sink::Stream(Box::new(Slow { shown, goes_on })), Arc::default()).unwrap(), pieces, go_on)
    }

    fn add(book: &Book, line: &str) -> bool {
        book.add(|text| _ = text.push(line))
    }

    #[test]
    fn what_a_slow_sink_has_no_room_for_is_dropped_and_the_rest_comes_in_order() {
        let (book, pieces, go_on) = slow();
        assert!(add(&book, "first\n"));
        assert_eq!(pieces.recv().unwrap(), b"first\n");
        let taken = (0..MOST_LINES + 5).filter(|number| add(&book, &format!("{number}\n"))).count();
        assert_eq!((taken, book.lost().load(Relaxed)), (MOST_LINES, 5));
        go_on.send(()).unwrap();
        let rest = String::from_utf8(pieces.recv().unwrap()).unwrap();
        let lines: Vec<usize> = rest.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(lines, (0..MOST_LINES).collect::<Vec<_>>());
        assert!(add(&book, "there is room again\n"));
        go_on.send(()).unwrap();
        assert_eq!(pieces.recv().unwrap(), b"there is room again\n");
        go_on.send(()).unwrap();
    }

    #[test]
    fn long_lines_take_no_more_memory_than_there_is() {
        let (book, pieces, _go_on) = slow();
        assert!(add(&book, "first\n"));
        pieces.recv().unwrap();
        let long = "x".repeat(64 * 1024);
        let taken = (0..MOST_LINES).filter(|_| add(&book, &long)).count();
        assert_eq!(taken, MOST_BYTES / long.len());
    }

    /// A sink that takes ten bytes at a time, and nothing the third and fourth time.
    struct Torn(Arc<Mutex<(u32, Vec<u8>)>>);

    impl Write for Torn {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = self.0.lock().unwrap();
            taken.0 += 1;
            if matches!(taken.0, 3 | 4) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(10);
            taken.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_fails_loses_the_lines_that_it_did_not_take_and_no_more() {
        let taken = Arc::<Mutex<(u32, Vec<u8>)>>::default();
        let mut sink = Sink::Stream(Box::new(Torn(Arc::clone(&taken))));
        let lines = "one 67890\ntwo 67890\nthree 890\nfour 7890\nfive 7890\n";
        let Written { lost, error } = sink.write(lines.as_bytes(), std::iter::empty());
        assert_eq!((lost, error.map(|error| error.kind())), (2, Some(io::ErrorKind::StorageFull)));
        let text = String::from_utf8(taken.lock().unwrap().1.clone()).unwrap();
        assert_eq!(text, "one 67890\ntwo 67890\nfive 7890\n");
    }

    #[test]
    fn what_was_written_before_the_end_is_carried_off() {
        let (book, pieces, go_on) = slow();
        assert!(add(&book, "first\n"));
        assert_eq!(pieces.recv().unwrap(), b"first\n");
        assert!(add(&book, "last\n"));
        drop(book);
        go_on.send(()).unwrap();
        assert_eq!(pieces.recv().unwrap(), b"last\n");
        go_on.send(()).unwrap();
        assert!(pieces.recv().is_err(), "the thread has ended");
    }
}
