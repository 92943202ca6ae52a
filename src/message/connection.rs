//! What is known of a client connection, and the link between its socket and the service behind it.
//!
//! The socket's wrapper (`listen::watch`), the service and the answer's body all run in the connection's
//! own task; the [`Link`] tells each what the others have done. It decides nothing itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::certificate::ClientCertificate;
use super::forwarded::NO_ADDRESS;
use super::host::{Field, Host, HostError};

/// What is known of a client connection: all but its host before its first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// When it was accepted: from then on its first deadline counts.
    pub opened: Instant,
    /// Who connected: the nearest peer, which may be a proxy. Behind a load balancer that sends PROXY headers, whom it
    /// names; on a unix socket [`NO_ADDRESS`].
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// What was agreed on, where it speaks TLS.
    pub tls: Option<TlsInfo>,
    /// Whether every request is sent to `https` instead of being judged.
    pub redirects: bool,
    /// Whether the peer passes on what a client says of whom it knows nothing. It is not believed then, whoever it is: what
    /// the client says is not its word.
    pub is_relayed: bool,
    peer_value: OnceLock<HeaderValue>,
    host: OnceLock<Box<Field>>,
}

impl ConnInfo {
    /// A connection in the clear from `peer` to `local`.
    pub fn plain(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            opened: Instant::now(),
            peer,
            local,
            tls: None,
            redirects: false,
            is_relayed: false,
            peer_value: OnceLock::new(),
            host: OnceLock::new(),
        }
    }

    /// A connection over a unix socket, whose ends have no addresses.
    pub fn unix() -> Self {
        let nowhere = SocketAddr::new(NO_ADDRESS, 0);
        Self::plain(nowhere, nowhere)
    }

    /// The address of the peer as a header has it; none where it has no address. The peer is known by now.
    pub fn peer_value(&self) -> Option<HeaderValue> {
        let address = self.peer.ip().to_canonical();
        let text = || HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        (address != NO_ADDRESS).then(|| self.peer_value.get_or_init(text).clone())
    }

    /// What a `Host` field of a request says, and its text where that is how we would write it. The first such of the connection
    /// is read once, as it is that of most others; so written it is no longer than a name and a port.
    ///
    /// # Errors
    /// What is no host with an optional port.
    pub(crate) fn host(&self, text: &HeaderValue) -> Result<(Host, Option<HeaderValue>), HostError> {
        let first = self.host.get();
        if let Some((host, text)) = first.and_then(|first| first.says(text)) {
            return Ok((host, Some(text)));
        }
        let host = Host::parse(text.as_bytes())?;
        if first.is_none()
            && let Some(field) = Field::of(text, &host)
        {
            // Another may have been the first meanwhile, which is as good.
            let _ = self.host.set(Box::new(field));
        }
        let written = host.is_written(text.as_bytes()).then(|| text.clone());
        Ok((host, written))
    }
}

/// What a client and the gateway agreed on in a TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// The server name that the client asked for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The client's certificate.
    pub client: Option<Arc<ClientCertificate>>,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
}

/// Whether the gateway goes on. It only ever rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It goes on.
    #[default]
    Run,
    /// Requests in progress end, nothing new begins, tunnels close.
    Drain,
    /// Everything ends at once.
    Now,
}

/// How the body of a request is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What a connection is doing, for its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has come yet.
    Opened,
    /// A head has begun and is not whole.
    Head,
    /// A request is in progress.
    Busy,
    /// Between two requests.
    Idle,
    /// The answer is out; what the client still sends is dropped.
    Lingering,
}

/// What socket and service of one connection tell each other.
#[derive(Debug)]
pub struct Link {
    opened: Instant,
    stage: AtomicU8,
    since: AtomicU64,
    blocked: AtomicU64,
    /// The present, where it was read since the connection's task was last woken.
    just_now: AtomicU64,
    sent: AtomicU32,
    called: AtomicU32,
    framing: AtomicU64,
    fault: AtomicBool,
    waiting: AtomicBool,
    tunnel: AtomicBool,
    unframed: AtomicBool,
    /// Nothing but empty lines has been read of the next head, and the socket had no more.
    resting: AtomicBool,
    /// Not all that was written is sure to have left.
    unflushed: AtomicBool,
    parking: AtomicBool,
    parkings: AtomicU32,
    gone: Notify,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// The link of a connection that opens now.
    pub fn new() -> Self {
        Self::since_opened(Instant::now())
    }

    /// The link of a connection that was opened then.
    pub fn since_opened(opened: Instant) -> Self {
        Self {
            opened,
            stage: AtomicU8::new(OPENED),
            since: AtomicU64::new(0),
            blocked: AtomicU64::new(NOT_BLOCKED),
            just_now: AtomicU64::new(NOT_READ),
            sent: AtomicU32::new(0),
            called: AtomicU32::new(0),
            framing: AtomicU64::new(0),
            fault: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            unframed: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            parking: AtomicBool::new(false),
            parkings: AtomicU32::new(0),
            gone: Notify::new(),
        }
    }

    /// Whether the target of the request in progress had a raw `#`, or its head was not seen whole. The
    /// parser drops a fragment without a word, so that only this tells: answer 400 and close.
    pub fn target_fault(&self) -> bool {
        self.fault.load(Relaxed)
    }

    /// Says that the answer is a 101, after which bytes pass as they are.
    pub fn open_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    /// What the connection is doing.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            OPENED => Stage::Opened,
            HEAD => Stage::Head,
            BUSY => Stage::Busy,
            IDLE => Stage::Idle,
            _ => Stage::Lingering,
        }
    }

    /// Since when it does that.
    pub(crate) fn since(&self) -> Instant {
        self.opened + Duration::from_millis(self.since.load(Relaxed))
    }

    /// Since when the client has taken nothing of what is ready for it.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        match self.blocked.load(Relaxed) {
            NOT_BLOCKED => None,
            millis => Some(self.opened + Duration::from_millis(millis)),
        }
    }

    /// The socket took bytes, or did not.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        let was = self.blocked.load(Relaxed) != NOT_BLOCKED;
        if blocked && !was {
            self.blocked.store(self.millis(Instant::now()), Relaxed);
        } else if was && !blocked {
            self.blocked.store(NOT_BLOCKED, Relaxed);
        }
    }

    /// A head has begun.
    pub(crate) fn head_begins(&self) {
        if self.stage.load(Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// A whole head goes to the parser; `fault`: its target has a raw `#`.
    pub(crate) fn head_sent(&self, fault: bool) {
        self.sent.fetch_add(1, Relaxed);
        self.fault.store(fault, Relaxed);
    }

    /// The service is called with a request whose body is framed so.
    pub(crate) fn begin(&self, framing: Framing) {
        let called = self.called.fetch_add(1, Relaxed).wrapping_add(1);
        if called != self.sent.load(Relaxed) {
            self.fault.store(true, Relaxed);
        }
        let encoded = match framing {
            Framing::None => 0,
            Framing::Length(length) => length.min(CHUNKED - 1),
            Framing::Chunked => CHUNKED,
        };
        self.framing.store(encoded, Relaxed);
        self.stage.store(BUSY, Relaxed);
    }

    /// How many requests there were, in a count that may begin anew.
    pub(crate) fn requests(&self) -> u32 {
        self.called.load(Relaxed)
    }

    /// The framing of the last head sent, once the service was called with it.
    pub(crate) fn framing(&self) -> Option<Framing> {
        if self.called.load(Relaxed) != self.sent.load(Relaxed) {
            return None;
        }
        Some(match self.framing.load(Relaxed) {
            0 => Framing::None,
            CHUNKED => Framing::Chunked,
            length => Framing::Length(length),
        })
    }

    /// The connection's task is woken: time has passed.
    pub(crate) fn wakes(&self) {
        self.just_now.store(NOT_READ, Relaxed);
    }

    /// It is `now`, for whatever happens before the connection's task waits again.
    pub(crate) fn is_now(&self, now: Instant) {
        self.just_now.store(self.millis(now), Relaxed);
    }

    /// The answer has gone to the parser whole, or was given up.
    pub(crate) fn finish(&self) {
        match self.just_now.load(Relaxed) {
            NOT_READ => self.enter(IDLE),
            just_now => self.enter_at(IDLE, just_now),
        }
    }

    /// The answer is out, and the connection is to end.
    pub(crate) fn linger(&self) {
        self.enter(LINGERING);
    }

    /// Bytes are held back for as long as the request in progress lasts.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Relaxed);
    }

    /// Whether bytes are held back that could go on now.
    pub(crate) fn can_go_on(&self) -> bool {
        self.waiting.load(Relaxed) && self.stage.load(Relaxed) != BUSY
    }

    /// The client knows the end of an answer only by the connection's, as HTTP/1.0 does.
    pub(crate) fn set_unframed(&self, unframed: bool) {
        self.unframed.store(unframed, Relaxed);
    }

    /// Whether a cut answer must be told from a whole one by a reset.
    pub(crate) fn is_unframed(&self) -> bool {
        self.unframed.load(Relaxed)
    }

    /// The socket has nothing of the next head, or has something again.
    pub(crate) fn set_resting(&self, resting: bool) {
        self.resting.store(resting, Relaxed);
    }

    /// The socket took bytes, or all of them have left it.
    pub(crate) fn set_unflushed(&self, unflushed: bool) {
        self.unflushed.store(unflushed, Relaxed);
    }

    /// Whether nothing is in progress, on its way or held back, so that the parser may be given up.
    pub(crate) fn may_park(&self) -> bool {
        self.stage.load(Relaxed) == IDLE
            && self.resting.load(Relaxed)
            && !self.unflushed.load(Relaxed)
            && self.blocked.load(Relaxed) == NOT_BLOCKED
            && !self.is_tunnel()
    }

    /// From now on, or no longer, the parser may neither read the socket nor close it.
    pub(crate) fn set_parking(&self, parking: bool) {
        self.parking.store(parking, Relaxed);
    }

    /// Whether the parser is being given up.
    pub(crate) fn is_parking(&self) -> bool {
        self.parking.load(Relaxed)
    }

    /// The parser was given up.
    pub(crate) fn parked(&self) {
        self.parkings.fetch_add(1, Relaxed);
    }

    /// How often the connection has waited without a parser.
    pub fn parkings(&self) -> u32 {
        self.parkings.load(Relaxed)
    }

    /// The socket is closed.
    pub(crate) fn leave(&self) {
        self.gone.notify_one();
    }

    /// Resolves when the socket is closed.
    pub(crate) async fn gone(&self) {
        self.gone.notified().await;
    }

    /// Whether bytes pass as they are.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    fn enter(&self, stage: u8) {
        self.enter_at(stage, self.millis(Instant::now()));
    }

    fn enter_at(&self, stage: u8, since: u64) {
        self.since.store(since, Relaxed);
        self.stage.store(stage, Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.opened).as_millis()).unwrap_or(NOT_BLOCKED - 1)
    }
}

const OPENED: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const IDLE: u8 = 3;
const LINGERING: u8 = 4;
const NOT_BLOCKED: u64 = u64::MAX;
const NOT_READ: u64 = u64::MAX;
const CHUNKED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_without_a_head_that_was_seen_is_a_fault() {
        let link = Link::new();
        link.head_sent(false);
        assert_eq!(link.framing(), None, "the service has not been called yet");
        link.begin(Framing::Length(3));
        assert!(!link.target_fault());
        assert_eq!(link.framing(), Some(Framing::Length(3)));
        link.finish();
        link.begin(Framing::None);
        assert!(link.target_fault());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_over_at_once_ends_when_it_was_ready_and_one_that_lasts_when_it_is_over() {
        let (link, start) = (Link::new(), Instant::now());
        let (a_moment, longer) = (Duration::from_millis(2), Duration::from_secs(3));
        link.is_now(start);
        tokio::time::advance(a_moment).await;
        link.finish();
        assert_eq!((link.stage(), link.since()), (Stage::Idle, start));
        link.is_now(Instant::now());
        link.wakes();
        tokio::time::advance(longer).await;
        link.finish();
        assert_eq!(link.since(), start + a_moment + longer);
    }

    #[tokio::test]
    async fn a_host_is_what_it_says_whichever_came_first() {
        let info = ConnInfo::unix();
        for text in [
            "App:80",
            "app:00080",
            "app:80",
            "other",
            "App:80",
            "app.",
            "[0::1]:1",
            "other",
            "a..b",
            "u@app:80",
            "app:80",
        ] {
            let field = HeaderValue::from_static(text);
            let host = Host::parse(text.as_bytes());
            let written = host.as_ref().ok().map(ToString::to_string).filter(|host| host == text);
            let expected = host.map(|host| (host, written.map(|text| HeaderValue::try_from(text).unwrap())));
            assert_eq!(info.host(&field), expected, "{text}");
        }
        let kept = info.host.get().unwrap().says(&HeaderValue::from_static("app:80"));
        assert_eq!(kept, Some((Host::parse(b"app:80").unwrap(), HeaderValue::from_static("app:80"))));
    }

    /// Nothing of a head outlives its request that is longer than it need be.
    #[tokio::test]
    async fn a_host_is_kept_only_as_we_would_write_it() {
        let long = format!("app:{}80", "0".repeat(30_000));
        for text in ["a..b", "App", "app.", &long, "[0::1]", "[::1]:0443"] {
            let info = ConnInfo::unix();
            let said = info.host(&HeaderValue::from_str(text).unwrap());
            assert_eq!(said.map(|(host, _)| host), Host::parse(text.as_bytes()), "{text}");
            assert!(info.host.get().is_none(), "{text}");
        }
        let info = ConnInfo::unix();
        assert!(info.host(&HeaderValue::from_static("[::1]:443")).is_ok() && info.host.get().is_some());
    }

    #[tokio::test]
    async fn held_bytes_may_go_on_when_the_request_is_over() {
        let link = Link::new();
        link.head_sent(false);
        link.begin(Framing::None);
        link.set_waiting(true);
        assert!(!link.can_go_on());
        link.finish();
        assert!(link.can_go_on());
        assert_eq!(link.stage(), Stage::Idle);
    }
}
