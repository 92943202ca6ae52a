//! A gateway without access rules in front of upstreams that answer raw bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use portcullis::access::Decision;
use portcullis::clock::Clock;
use portcullis::config::{
    Balance, Ejection, Health, HostPort, Limits, ServerAddr, Timeouts, Upstream as Settings, UpstreamLimits,
    WeightedServer,
};
use portcullis::listen::full::Spoken;
use portcullis::listen::{conn, socket};
use portcullis::message::body::{Body, End, Watcher};
use portcullis::message::connection::{Link, Stop};
use portcullis::message::forwarded::Trust;
use portcullis::message::head::Head;
use portcullis::message::host::Host;
use portcullis::message::path::RequestPath;
use portcullis::message::{loan, respond};
use portcullis::metrics::Metrics;
use portcullis::proxy::upgrade::Tunnels;
use portcullis::proxy::{Forwarder, Observed, Surroundings, framing};
use portcullis::secret::Random;
use portcullis::upstream::{Backend, Pool, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::rules::Rules;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("still waiting for {what}"));
}

/// Lets so much time pass at once for all that waits for it here.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// An upstream that runs `answer` for each connection, numbered from 0.
pub(crate) async fn upstream<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Peer, usize) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(answer(Peer { stream, read: Vec::new() }, number));
        }
    });
    address
}

/// An upstream that answers every request with `answer`, and what it was sent.
pub(crate) async fn recorder(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let address = upstream(move |mut peer, _| {
        let record = record.clone();
        async move {
            let mut buffer = vec![0; 65536];
            loop {
                let Ok(count @ 1..) = peer.stream.read(&mut buffer).await else {
                    return;
                };
                record.lock().unwrap().extend_from_slice(&buffer[..count]);
                let all = record.lock().unwrap().clone();
                let text = String::from_utf8_lossy(&all);
                let last = text.rsplit("HTTP/1.1\r\n").next().unwrap_or_default();
                let chunked = last.contains("chunked");
                if last.contains("\r\n\r\n") && (!chunked || last.ends_with("0\r\n\r\n")) {
                    peer.send(answer).await;
                }
            }
        }
    })
    .await;
    (address, seen)
}

/// One end of a connection, spoken to in raw bytes.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) read: Vec<u8>,
}

impl Peer {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        // What a test sends in pieces comes in pieces, and at once.
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Sends as much as the other side takes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads until `end` has come, and gives back all up to and with it.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let read = async {
            loop {
                let found = self.read.windows(end.len()).position(|window| window == end.as_bytes());
                if let Some(at) = found {
                    let rest = self.read.split_off(at + end.len());
                    return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
                }
                let count = self.stream.read_buf(&mut self.read).await.unwrap_or(0);
                assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("nothing comes")
    }

    /// Reads a head, and a body if its length is written.
    pub(crate) async fn message(&mut self) -> String {
        let mut head = self.until("\r\n\r\n").await;
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        for _ in 0..length.unwrap_or(0) {
            if self.read.is_empty() {
                let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read));
                assert!(read.await.expect("nothing comes").unwrap() > 0, "cut after {head:?}");
            }
            head.push(char::from(self.read.remove(0)));
        }
        head
    }

    /// Reads to the end of the connection; the flag: it ended in order.
    pub(crate) async fn rest(&mut self) -> (String, bool) {
        let end = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        let in_order = end.expect("still open").is_ok();
        (String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned(), in_order)
    }
}

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) stop: watch::Sender<Stop>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) ends: Arc<Mutex<Vec<(End, u64)>>>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) census: Arc<socket::Census>,
    pub(crate) accepting: tokio::task::JoinHandle<()>,
    /// That of the connection which asked last.
    pub(crate) link: Arc<Mutex<Option<Arc<Link>>>>,
}

struct Ends(Arc<Mutex<Vec<(End, u64)>>>);

impl Watcher for Ends {
    fn ended(&self, end: End, sent: u64) {
        self.0.lock().unwrap().push((end, sent));
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        header_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        body_timeout: PATIENCE,
        drain_delay: Duration::ZERO,
        drain_timeout: PATIENCE,
        header_bytes: 32 * 1024,
        headers: 100,
        body_bytes: None,
        connections: 100,
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        name: "app".into(),
        servers: Vec::new(),
        tls: portcullis::config::UpstreamTls::default(),
        balance: Balance::LeastRequests,
        health: Health { check: None, ejection: Ejection::default() },
        timeouts: Timeouts { connect: PATIENCE, response: PATIENCE, between: None, total: None, idle: PATIENCE },
        limits: UpstreamLimits { connections: 256, idle: 32, pending: 1024 },
    }
}

pub(crate) async fn gateway(upstream: SocketAddr) -> Gateway {
    gateway_with(upstream, limits(), settings()).await
}

pub(crate) async fn gateway_with(upstream: SocketAddr, limits: Limits, mut settings: Settings) -> Gateway {
    let listener = socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(Stop::Run);
    let server = ServerAddr::Http(HostPort { host: upstream.ip().to_string(), port: upstream.port() });
    settings.servers = vec![WeightedServer { address: server, weight: 1 }];
    let settings = Arc::new(settings);
    let pool = Pool::new(&settings, &Metrics::new(0), None).unwrap();
    let backend = Arc::clone(pool.backend(0).unwrap());
    let tunnels = Tunnels::new();
    let upstreams = vec![Arc::new(Upstream::new(pool, 1, |_| None))];
    let forwarder = Forwarder::new(upstreams, limits.body_timeout, tunnels.clone(), stopped.clone());
    let census = socket::Census::new(limits.connections, 1);
    let ends = Arc::new(Mutex::new(Vec::new()));
    let rules = Rules::everyone(&settings.timeouts).await;
    let asked_last = Arc::new(Mutex::new(None));
    let handler = Arc::new(Handler { forwarder, rules, limits, ends: ends.clone(), link: asked_last.clone() });
    let accepting = tokio::spawn({
        let (census, stopped) = (census.clone(), stopped.clone());
        async move {
            let connection = |stream, info, admitted| {
                let (handler, stopped) = (handler.clone(), stopped.clone());
                async move {
                    let _admitted: socket::Admitted = admitted;
                    let service = |request, link| {
                        let handler = handler.clone();
                        async move { handler.answer(request, link).await }
                    };
                    conn::serve(stream, Arc::new(info), &handler.limits, service, |_, _| {}, stopped).await;
                }
            };
            socket::accept(listener, 0, census, stopped.clone(), || Spoken::Http1, connection).await.unwrap();
        }
    });
    Gateway { address, stop, tunnels, ends, backend, census, accepting, link: asked_last }
}

struct Handler {
    forwarder: Forwarder,
    rules: Rules,
    limits: Limits,
    ends: Arc<Mutex<Vec<(End, u64)>>>,
    link: Arc<Mutex<Option<Arc<Link>>>>,
}

impl Handler {
    async fn answer(&self, request: Request<Incoming>, link: Arc<Link>) -> Response<Body> {
        *self.link.lock().unwrap() = Some(link.clone());
        let framed = framing::check(request.headers(), request.version());
        let mut answer = if link.target_fault() || framed.is_err() {
            let mut answer = respond::full(StatusCode::BAD_REQUEST, "text/plain", "bad request");
            respond::close(&mut answer);
            answer
        } else if request.uri().path() == "/denied" {
            let expects = request.headers().contains_key("expect");
            let mut answer = respond::full(StatusCode::UNAUTHORIZED, "text/plain", "denied");
            if loan::drain_after(request.into_body(), expects) {
                respond::close(&mut answer);
            }
            answer
        } else {
            self.forward(request).await
        };
        answer.body_mut().watch(Box::new(Ends(self.ends.clone())));
        answer
    }

    async fn forward(&self, request: Request<Incoming>) -> Response<Body> {
        let origin = Trust::default().read([127, 0, 0, 1].into(), request.headers()).unwrap();
        let head = Head {
            method: request.method().clone(),
            host: Host::of_request(request.uri(), request.headers()).unwrap(),
            path: RequestPath::parse(request.uri().path()).unwrap(),
            query: request.uri().query().map(str::to_owned),
            client: origin.client,
            https: false,
            now: Clock::system().now(),
            certificate: None,
            started: std::time::Instant::now(),
        };
        let Rules { access, current, guarded, .. } = &self.rules;
        let Decision::Permit(permit) = access.check(&Arc::new(head), request.headers(), current).await.decision else {
            panic!("everyone may");
        };
        let surroundings = Surroundings {
            guarded,
            our_cookies: &["portcullis"],
            trust: &Trust::default(),
            origin: &origin,
            body_bytes: self.limits.body_bytes,
            assertions: None,
            upstream_names: &[],
            recording: None,
            random: &Random::system(),
        };
        let forwarded = self.forwarder.forward(&permit, &surroundings, Box::new(request), &Observed::default()).await;
        forwarded.unwrap_or_else(|rejection| respond::rejected(&rejection))
    }
}
