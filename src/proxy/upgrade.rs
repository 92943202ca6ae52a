//! Upgrades: only WebSocket, and only when both sides agree (RFC 9110, section 7.8; RFC 6455, section 4).

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::handshake::Key;
use super::websocket::{Farewell, Followed, Progress};
use crate::message::connection::Stop;
use crate::message::extended::Extended;
use crate::metrics::{self, Held};
use crate::secret::Random;

/// Open tunnels, which outlive their connections' tasks and are waited for when the gateway drains.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: AtomicUsize,
    opened: AtomicU64,
    closed: Notify,
    counts: Arc<metrics::Tunnels>,
}

impl Tunnels {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// None yet; those to come are counted in `counts` too, which has those of all workers.
    pub fn counting(counts: Arc<metrics::Tunnels>) -> Arc<Self> {
        Arc::new(Self { counts, ..Self::default() })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// How many were ever opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Resolves when none is open.
    pub async fn all_closed(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            closed.await;
        }
    }

    fn enter(self: &Arc<Self>) -> Inside {
        self.open.fetch_add(1, Relaxed);
        self.opened.fetch_add(1, Relaxed);
        self.counts.opened.count();
        Inside { tunnels: self.clone(), _counted: Held::new(&self.counts) }
    }
}

struct Inside {
    tunnels: Arc<Tunnels>,
    _counted: Held<metrics::Tunnels>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.tunnels.open.fetch_sub(1, Relaxed) == 1 {
            self.tunnels.closed.notify_waiters();
        }
    }
}

/// A client that waits for the upstream to agree to a WebSocket.
#[derive(Debug)]
pub(super) struct Switch {
    client: OnUpgrade,
    /// Over HTTP/2: the proof that the upstream owes us in the client's place.
    key: Option<Key>,
    /// Over HTTP/2: what the tunnel keeps.
    stream: Option<Extended>,
}

impl Switch {
    /// What `request` waits for, if it asks for a WebSocket.
    pub(super) fn of<B>(request: &mut Request<B>, random: &Random) -> Option<Self> {
        if !is_wanted(request) {
            return None;
        }
        let client = hyper::upgrade::on(&mut *request);
        let stream = request.extensions_mut().remove::<Extended>();
        let key = stream.is_some().then(|| Key::new(random));
        Some(Self { client, key, stream })
    }

    /// Writes the fields of the upgrade into the head that goes on, which hop-by-hop cleaning has removed.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        announce(headers);
        if let Some(key) = self.key.as_ref().and_then(Key::value) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }

    /// Whether an answer with these `headers` agrees. The proof is the client's to check where it asked for one.
    pub(super) fn is_agreed(&self, headers: &HeaderMap) -> bool {
        names_websocket(headers) && self.key.as_ref().is_none_or(|key| key.is_answered(headers))
    }
}

/// Whether `request` asks for a WebSocket as RFC 6455 has it, or did so as RFC 8441 has it. Any other upgrade is not passed on.
pub fn is_wanted<B>(request: &Request<B>) -> bool {
    let is_possible = request.version() == Version::HTTP_11 || Extended::marks(request.extensions());
    *request.method() == Method::GET && is_possible && names_websocket(request.headers())
}

/// Whether `headers` carry `Connection: upgrade` and `Upgrade: websocket`, and no other protocol.
fn names_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    protocol && protocols.next().is_none() && headers.get_all(CONNECTION).iter().any(lists_upgrade)
}

fn lists_upgrade(value: &HeaderValue) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Writes the two fields of an upgrade, which hop-by-hop cleaning has removed.
pub(super) fn announce(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Joins client and upstream in a task of its own once both have switched, until one of them ends, `ended`
/// resolves, or the gateway drains. In the last two cases the client is told so in a frame of its protocol, if that can
/// follow what it has got.
pub(super) fn join(
    switch: Switch,
    upstream: OnUpgrade,
    tunnels: &Arc<Tunnels>,
    stop: watch::Receiver<Stop>,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let inside = tunnels.enter();
    tokio::spawn(async move {
        let _inside = inside;
        let Switch { client, stream: _stream, .. } = switch;
        match end_of(async { tokio::try_join!(client, upstream) }, stop.clone(), Box::pin(ended)).await {
            Ended::Itself(Ok((client, upstream)), ended) => {
                carry(TokioIo::new(client), TokioIo::new(upstream), stop, ended).await;
            }
            Ended::Itself(Err(error), _) => tracing::debug!(%error, "tunnel did not come about"),
            Ended::By(farewell) => tracing::debug!(?farewell, "tunnel closed before it was open"),
        }
    });
}

/// What ends a tunnel that allows itself no end.
type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How something within a tunnel ended.
enum Ended<T> {
    /// By itself; what would have ended it still may.
    Itself(T, Ending),
    /// By the gateway.
    By(Farewell),
}

async fn end_of<T>(work: impl Future<Output = T>, mut stop: watch::Receiver<Stop>, mut ended: Ending) -> Ended<T> {
    tokio::select! {
        result = work => Ended::Itself(result, ended),
        () = &mut ended => Ended::By(Farewell::NoLongerAllowed),
        _ = stop.wait_for(|stop| *stop != Stop::Run) => Ended::By(Farewell::GoingAway),
    }
}

/// Carries bytes both ways. However it ends, both connections are closed; the application learns no more than that.
async fn carry<C, U>(client: C, mut upstream: U, stop: watch::Receiver<Stop>, ended: Ending)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let progress = Progress::default();
    let mut client = Followed::new(client, &progress);
    let farewell = {
        let mut copying = pin!(tokio::io::copy_bidirectional(&mut client, &mut upstream));
        let Ended::By(farewell) = end_of(copying.as_mut(), stop, ended).await else { return };
        // Who is still allowed to hear it gets the frame in progress whole.
        if farewell == Farewell::GoingAway && progress.is_amid_frame() {
            progress.stop_behind_frame();
            let _too_long_or_whole = timeout(PATIENCE, copying).await;
        }
        farewell
    };
    drop(upstream);
    tracing::debug!(?farewell, told = progress.is_between_frames(), "tunnel closed");
    if progress.is_between_frames() {
        let _told_or_gone = timeout(PATIENCE, take_leave(client.into_inner(), farewell)).await;
    }
}

/// Says why, and waits until the client has closed too: bytes that met a closed socket would cost it what it was told.
async fn take_leave(mut client: impl AsyncRead + AsyncWrite + Unpin, farewell: Farewell) -> io::Result<()> {
    client.write_all(farewell.frame()).await?;
    client.shutdown().await?;
    tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop)
}

/// How long a client may take over the last frame, and to answer a farewell.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, version: Version, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.version_mut() = version;
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn only_a_websocket_is_an_upgrade() {
        let good = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert!(is_wanted(&request(Method::GET, Version::HTTP_11, &good)));
        assert!(!is_wanted(&request(Method::POST, Version::HTTP_11, &good)));
        assert!(!is_wanted(&request(Method::GET, Version::HTTP_10, &good)));
        let mut extended = request(Method::GET, Version::HTTP_2, &good);
        assert!(!is_wanted(&extended), "no request of HTTP/2 has such fields by itself");
        *extended.method_mut() = Method::CONNECT;
        extended.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        assert!(Extended::translate(&mut extended, Arc::new(())) && is_wanted(&extended));
        for bad in [
            &[("connection", "upgrade"), ("upgrade", "h2c")][..],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("upgrade", "websocket")],
            &[("connection", "upgrade")],
        ] {
            assert!(!is_wanted(&request(Method::GET, Version::HTTP_11, bad)), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_last_tunnel_wakes_the_drain() {
        let counts = Arc::<metrics::Tunnels>::default();
        let tunnels = Tunnels::counting(counts.clone());
        tunnels.all_closed().await;
        let (first, second) = (tunnels.enter(), tunnels.enter());
        let waiting = tokio::spawn({
            let tunnels = tunnels.clone();
            async move { tunnels.all_closed().await }
        });
        assert_eq!(counts.open.value(), 2);
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        assert_eq!((tunnels.open(), tunnels.opened()), (0, 2));
        assert_eq!((counts.open.value(), counts.opened.value()), (0, 2));
    }
}
