//! An issuer that rotates its keys, withdraws one and fails, by a clock that the test moves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::clock::{Clock, ManualClock, Timestamp};
use crate::config::{self, Algorithm, KeySource, Tokens};
use crate::gateway::Gateway;
use crate::secret::Random;
use crate::token::{KeySet, NewClaims, generate};

/// What an issuer publishes; `None`: it is down.
type Published = Arc<Mutex<Option<Value>>>;

struct Bench {
    gateway: Gateway,
    hand: ManualClock,
    published: Published,
    fetches: Arc<Mutex<usize>>,
    issuer: String,
    _directory: tempfile::TempDir,
}

/// A key of the issuer, as its own gateway would hold it.
fn key_set(issuer: &str) -> KeySet {
    let tokens = Tokens {
        issuer: issuer.to_owned(),
        audience: "apps".to_owned(),
        algorithm: Algorithm::ES256,
        lifetime: Duration::from_secs(7 * 86_400),
        leeway: Duration::ZERO,
        max_lifetime: Duration::from_secs(7 * 86_400),
        keys: KeySource::Store,
    };
    let key = generate(Algorithm::ES256, &Random::system()).unwrap();
    KeySet::new(&tokens, &[key], Random::system()).unwrap()
}

fn start() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn token(keys: &KeySet) -> String {
    let claims = NewClaims {
        subject: "bob",
        now: start(),
        session: None,
        signed_in_at: None,
        methods: &[],
        groups: &[],
        scope: "",
        not_after: None,
    };
    keys.sign(&claims).unwrap()
}

impl Bench {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (published, fetches) = (Published::default(), Arc::new(Mutex::new(0)));
        tokio::spawn(publish(listener, Arc::clone(&published), Arc::clone(&fetches)));
        let streaming = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = streaming.local_addr().unwrap();
        tokio::spawn(stream(streaming));
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[log]\naccess = \"off\"\n[store]\nmax_staleness = \"30d\"\n\
             [[issuers]]\nname = \"corp\"\nissuer = \"{issuer}\"\naudience = [\"apps\"]\njwks = \"{issuer}/k\"\n\
             max_lifetime = \"8d\"\n[upstreams]\napp = \"http://127.0.0.1:1\"\n\
             streaming = \"http://{application}\"\n\
             [[routes]]\npath = \"/stream\"\nallow = \"signed-in\"\nupstream = \"streaming\"\n\
             [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n"
        );
        let loaded = config::load_text(&directory.path().join("gateway.toml"), text, &|_| None);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
        let hand = ManualClock::at(start());
        let gateway = Gateway::start_at(config, Clock::manual(&hand), Random::system()).await.unwrap();
        Self { gateway, hand, published, fetches, issuer, _directory: directory }
    }

    fn publishes(&self, sets: &[&KeySet]) {
        let keys = sets.iter().flat_map(|set| set.verification_keys(start())["keys"].as_array().unwrap().clone());
        *self.published.lock().unwrap() = Some(json!({ "keys": keys.collect::<Vec<_>>() }));
    }

    fn is_down(&self) {
        *self.published.lock().unwrap() = None;
    }

    fn fetches(&self) -> usize {
        std::mem::take(&mut *self.fetches.lock().unwrap())
    }

    /// Asks until the status is `expected`: the control thread looks at the clock now and then.
    async fn settles(&self, token: &str, expected: u16) {
        let started = std::time::Instant::now();
        while self.status(token).await != expected {
            assert!(started.elapsed() < Duration::from_secs(10), "still waiting for {expected}");
            tokio::task::yield_now().await;
        }
    }

    /// 502: it was let in, and the application is not there.
    async fn status(&self, token: &str) -> u16 {
        let address: SocketAddr = self.gateway.addresses()[0];
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// An application whose answers begin and never end.
async fn stream(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await.unwrap();
        held.push(stream);
    }
}

async fn publish(listener: TcpListener, published: Published, fetches: Arc<Mutex<usize>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        *fetches.lock().unwrap() += 1;
        let body = published.lock().unwrap().as_ref().map(Value::to_string);
        let answer = match body {
            Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            None => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

const LET_IN: u16 = 502;

#[tokio::test]
async fn a_new_key_is_found_by_its_first_token_and_a_withdrawn_one_ends_at_once() {
    let bench = Bench::new().await;
    let (old, new) = (key_set(&bench.issuer), key_set(&bench.issuer));
    let (early, late) = (token(&old), token(&new));
    bench.publishes(&[&old]);
    // The first attempt may have come before anything was published.
    bench.hand.advance(Duration::from_secs(5));
    assert_eq!(bench.status(&early).await, LET_IN);
    assert!((1..=2).contains(&bench.fetches()));
    bench.publishes(&[&new, &old]);
    bench.hand.advance(Duration::from_secs(5));
    assert_eq!((bench.status(&late).await, bench.fetches()), (LET_IN, 1));
    bench.publishes(&[&new]);
    assert_eq!((bench.status(&early).await, bench.fetches()), (LET_IN, 0), "nobody has asked since");
    bench.hand.advance(Duration::from_secs(5));
    let unknown = token(&key_set(&bench.issuer));
    assert_eq!((bench.status(&unknown).await, bench.fetches()), (401, 1), "the issuer has no such key");
    assert_eq!(bench.status(&early).await, 401, "nor the old one any more");
    assert_eq!(bench.status(&late).await, LET_IN);
    // The same unknown key is not asked for again for a minute, and the withdrawn one neither.
    bench.hand.advance(Duration::from_secs(50));
    assert_eq!((bench.status(&unknown).await, bench.fetches()), (401, 0));
    bench.hand.advance(Duration::from_secs(10));
    assert_eq!((bench.status(&unknown).await, bench.fetches()), (401, 1));
}

#[tokio::test]
async fn an_outage_of_the_issuer_is_a_503_for_the_unknown_and_nothing_for_the_known_for_a_day() {
    let bench = Bench::new().await;
    let (known, new) = (key_set(&bench.issuer), key_set(&bench.issuer));
    let never_seen = token(&known);
    assert_eq!(bench.status(&never_seen).await, 503, "it has never answered");
    bench.publishes(&[&known]);
    assert_eq!(bench.status(&never_seen).await, 503, "it is not asked again within five seconds");
    bench.hand.advance(Duration::from_secs(5));
    assert_eq!(bench.status(&never_seen).await, LET_IN);
    bench.is_down();
    bench.hand.advance(Duration::from_secs(5));
    assert_eq!(bench.status(&token(&new)).await, 503, "it may have a new key");
    for _ in 0..3 {
        bench.hand.advance(Duration::from_secs(7 * 3600));
        assert_eq!((bench.status(&never_seen).await, bench.status(&token(&known)).await), (LET_IN, LET_IN));
    }
    bench.hand.advance(Duration::from_secs(4 * 3600));
    // The control thread looks at the time once a second, and finds the keys too old to believe.
    bench.settles(&token(&known), 503).await;
    assert_eq!(bench.status(&never_seen).await, 503);
    bench.publishes(&[&known]);
    bench.hand.advance(Duration::from_secs(300));
    bench.settles(&never_seen, LET_IN).await;
}

/// Whoever could sign with a stolen key is out with the key, also where a stream is open.
#[tokio::test]
async fn a_stream_ends_with_the_key_behind_it() {
    let bench = Bench::new().await;
    let (old, new) = (key_set(&bench.issuer), key_set(&bench.issuer));
    bench.publishes(&[&old, &new]);
    bench.hand.advance(Duration::from_secs(5));
    assert_eq!(bench.status(&token(&old)).await, LET_IN);
    let mut stream = TcpStream::connect(bench.gateway.addresses()[0]).await.unwrap();
    let request = format!("GET /stream HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", token(&old));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"2\r\nhi\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    bench.publishes(&[&new]);
    bench.hand.advance(Duration::from_secs(5));
    assert_eq!(bench.status(&token(&key_set(&bench.issuer))).await, 401, "the issuer was asked");
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    ended.expect("the stream has ended").ok();
    assert!(!answer.ends_with(b"0\r\n\r\n"), "cut, not finished");
}
