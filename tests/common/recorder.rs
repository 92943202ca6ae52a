//! An upstream that keeps every request byte for byte and answers as the test says.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::{DEADLINE, Wire};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// The head, through the empty line.
    pub(crate) head: Vec<u8>,
    /// The content, its framing taken off.
    pub(crate) body: Vec<u8>,
    /// The body with its framing, as it came.
    pub(crate) raw_body: Vec<u8>,
    /// Fields after the last chunk.
    pub(crate) trailers: Vec<String>,
    /// Whether the body came to its end.
    pub(crate) complete: bool,
}

/// What the upstream sends back.
pub(crate) enum Answer {
    /// These bytes; the connection stays.
    Keep(Vec<u8>),
    /// These bytes; then the connection is closed.
    Close(Vec<u8>),
}

/// The upstream.
pub(crate) struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Recorded>>,
    arrived: Condvar,
    heads: AtomicUsize,
    connections: AtomicUsize,
}

impl Recorded {
    /// The request line.
    pub(crate) fn line(&self) -> String {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        text.split("\r\n").next().unwrap_or_default().to_owned()
    }

    /// The request target.
    pub(crate) fn target(&self) -> String {
        self.line().split(' ').nth(1).expect("a request line has a target").to_owned()
    }

    /// The fields in order.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let text: String = self.head.iter().map(|byte| char::from(*byte)).collect();
        let lines = text.trim_end().split("\r\n").skip(1);
        let fields = lines.map(|line| line.split_once(':').expect("a field has a colon"));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let fields = self.headers().into_iter();
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The one value of a field, if it is there.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() <= 1, "{name} arrived as {all:?}");
        all.pop()
    }

    /// Names of fields that an application may take for `name`: case and punctuation folded away.
    pub(crate) fn taken_for(&self, name: &str) -> Vec<(String, String)> {
        let fields = self.headers().into_iter();
        fields.filter(|(key, _)| folded(key) == folded(name)).collect()
    }
}

/// `name` as the most careless application compares it.
pub(crate) fn folded(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// An answer with these fields and a length.
pub(crate) fn reply(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Recorder {
    /// An upstream that answers 200 with the request line.
    pub(crate) fn start() -> Self {
        Self::answering(|request| Answer::Keep(reply("200 OK", "Content-Type: text/plain\r\n", &request.line())))
    }

    /// An upstream that answers whole requests as `answer` says.
    pub(crate) fn answering(answer: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> Self {
        Self::accepting(move |shared, stream| {
            let mut wire = Wire::over(stream);
            while let Some(request) = shared.read(&mut wire) {
                let complete = request.complete;
                let answer = answer(&request);
                shared.keep(request);
                match answer {
                    Answer::Keep(bytes) if complete && wire.try_write(&bytes).is_ok() => {}
                    Answer::Close(bytes) if complete => return wire.write(bytes),
                    _ => return,
                }
            }
        })
    }

    /// An upstream whose connections are wholly in the test's hands; only connections are counted.
    pub(crate) fn serving(serve: impl Fn(Wire) + Send + Sync + 'static) -> Self {
        Self::accepting(move |_, stream| serve(Wire::over(stream)))
    }

    fn accepting(serve: impl Fn(&Shared, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (serve, inner) = (Arc::new(serve), Arc::clone(&shared));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                inner.connections.fetch_add(1, Ordering::SeqCst);
                let (serve, inner) = (Arc::clone(&serve), Arc::clone(&inner));
                std::thread::spawn(move || serve(&inner, stream));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often someone connected.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The requests so far, which are forgotten here.
    pub(crate) fn take(&self) -> Vec<Recorded> {
        self.shared.heads.store(0, Ordering::SeqCst);
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    /// The one request since the last time.
    #[track_caller]
    pub(crate) fn only(&self, context: &str) -> Recorded {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{context}: requests at the upstream");
        all.remove(0)
    }

    /// Waits for a request that is not there yet, and takes it.
    pub(crate) fn next(&self) -> Recorded {
        let started = Instant::now();
        let mut requests = self.shared.requests.lock().unwrap();
        while requests.is_empty() {
            let left = DEADLINE.checked_sub(started.elapsed());
            let left = left.expect("a request arrives in time");
            requests = self.shared.arrived.wait_timeout(requests, left).unwrap().0;
        }
        requests.remove(0)
    }

    /// Fails if anything arrived since the last time, even half a request.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, context: &str) {
        let lines: Vec<_> = self.shared.requests.lock().unwrap().iter().map(Recorded::line).collect();
        let heads = self.shared.heads.load(Ordering::SeqCst);
        assert!(heads == 0 && lines.is_empty(), "{context}: the upstream saw {heads}: {lines:?}");
    }
}

impl Shared {
    /// Reads one request; none when the connection ends before a head.
    fn read(&self, wire: &mut Wire) -> Option<Recorded> {
        // A kept connection may rest for longer than one wait.
        wire.stream().set_read_timeout(None).ok()?;
        let head = wire.read_head().ok()?;
        self.heads.fetch_add(1, Ordering::SeqCst);
        wire.stream().set_read_timeout(Some(DEADLINE)).ok()?;
        let mut request =
            Recorded { head, body: Vec::new(), raw_body: Vec::new(), trailers: Vec::new(), complete: false };
        request.complete = read_body(wire, &mut request).is_ok();
        Some(request)
    }

    fn keep(&self, request: Recorded) {
        self.requests.lock().unwrap().push(request);
        self.arrived.notify_all();
    }
}

fn read_body(wire: &mut Wire, request: &mut Recorded) -> std::io::Result<()> {
    let lengths = request.all("content-length");
    let codings = request.all("transfer-encoding");
    assert!(lengths.len() + codings.len() <= 1, "ambiguous framing: {:?}", request.headers());
    if let Some(length) = lengths.first() {
        let length = length.parse().expect("the gateway sends plain lengths");
        request.body = wire.read_exact(length)?;
        request.raw_body.clone_from(&request.body);
    } else if let Some(coding) = codings.first() {
        assert_eq!(coding, "chunked", "the gateway's own framing");
        loop {
            let data = wire.read_chunk(&mut request.raw_body)?;
            if data.is_empty() {
                break;
            }
            request.body.extend(data);
        }
        request.trailers = wire.read_trailers(&mut request.raw_body)?;
    }
    Ok(())
}
