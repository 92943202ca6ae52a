//! Worker threads: each accepts from clones of the same sockets, and keeps what it accepted to itself.
//!
//! What is in force lies behind one pointer of each worker's own, which is loaded once per request; a reload replaces it,
//! with the connections to every upstream that is still the same.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use http::Response;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout_at;

use super::StartError;
use super::listeners::Entrance;
use super::prepare;
use crate::config::{Config, Listen};
use crate::listen::conn::ClientStream;
use crate::listen::door::ClientSocket;
use crate::listen::full::Spoken;
use crate::listen::proxy_protocol::{self, ProxyFault, Told};
use crate::listen::socket::{self, Admitted, Census};
use crate::listen::{conn, h2, tls};
use crate::message::body::Body;
use crate::message::connection::{ConnInfo, Link, Stop};
use crate::metrics::{self, Held, Metrics};
use crate::pipeline::{self, Worker};
use crate::proxy::Forwarder;
use crate::proxy::upgrade::Tunnels;
use crate::state::State;
use crate::upstream::{Backend, Lane, Pool, Upstream};

/// All workers.
#[derive(Debug)]
pub(super) struct Crew {
    changes: Vec<mpsc::UnboundedSender<Change>>,
    census: Arc<Census>,
    alive: mpsc::Receiver<()>,
}

/// What a worker is to take in.
#[derive(Debug)]
struct Change {
    state: Arc<State>,
    pools: Arc<Vec<Arc<Pool>>>,
    entrances: Vec<Entrance>,
    /// Dropped when that is done.
    _taken_in: Option<mpsc::Sender<()>>,
}

/// The upstreams of `config`; those of `former` where they are the same, and what is the same of the others.
pub(super) fn pools(
    config: &Config,
    metrics: &Metrics,
    former: &[Arc<Pool>],
) -> Result<Arc<Vec<Arc<Pool>>>, StartError> {
    let former: HashMap<&str, &Arc<Pool>> = former.iter().map(|pool| (pool.settings().name.as_str(), pool)).collect();
    let pool = |upstream: &Arc<crate::config::Upstream>| match former.get(upstream.name.as_str()) {
        Some(same) if **same.settings() == **upstream => Ok(Arc::clone(same)),
        known => Pool::new(upstream, metrics, known.map(|known| known.as_ref()))
            .map_err(|fault| StartError::Upstream { name: upstream.name.clone(), reason: fault.to_string() }),
    };
    config.upstreams.iter().map(pool).collect::<Result<_, _>>().map(Arc::new)
}

impl Crew {
    /// Starts one worker for each of `entrances`.
    pub(super) fn start(
        state: &Arc<State>,
        pools: &Arc<Vec<Arc<Pool>>>,
        entrances: Vec<Vec<Entrance>>,
        stop: &watch::Receiver<Stop>,
    ) -> Result<Self, StartError> {
        let workers = entrances.len();
        let metrics = &state.shared.metrics;
        let limit = prepare::clients(&state.config);
        let census = Census::counting(limit, workers, Arc::clone(&metrics.connections_refused));
        census.set_files(prepare::files());
        let (working, alive) = mpsc::channel(1);
        let mut changes = Vec::new();
        for (number, entrances) in entrances.into_iter().enumerate() {
            let (change, changing) = mpsc::unbounded_channel();
            let (open, closed) = mpsc::channel(1);
            let hand = Hand {
                number,
                workers,
                census: Arc::clone(&census),
                stop: stop.clone(),
                tunnels: Tunnels::counting(Arc::clone(&metrics.tunnels)),
                open,
            };
            let (state, pools) = (Arc::clone(state), Arc::clone(pools));
            let first = Change { state, pools, entrances, _taken_in: None };
            let (runtime, working) = (prepare::runtime()?, working.clone());
            let run = move || {
                metrics::enter_stripe(number, workers);
                runtime.block_on(hand.run(first, changing, closed));
                drop(runtime);
                drop(working);
            };
            thread::Builder::new().name(format!("worker-{number}")).spawn(run).map_err(StartError::Thread)?;
            changes.push(change);
        }
        Ok(Self { changes, census, alive })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Has every worker go on with `state`, and accept on its part of `entrances` too. The receiver ends when all have
    /// begun to.
    pub(super) fn take_in(
        &self,
        state: &Arc<State>,
        pools: &Arc<Vec<Arc<Pool>>>,
        entrances: Vec<Vec<Entrance>>,
    ) -> mpsc::Receiver<()> {
        self.census.set_limit(prepare::clients(&state.config));
        let (taken_in, all) = mpsc::channel(1);
        for (worker, entrances) in self.changes.iter().zip(entrances) {
            let (state, pools) = (Arc::clone(state), Arc::clone(pools));
            let change = Change { state, pools, entrances, _taken_in: Some(taken_in.clone()) };
            let _ended_already = worker.send(change);
        }
        all
    }

    /// Resolves when the last of them has ended.
    pub(super) async fn gone(&mut self) {
        let _none_left = self.alive.recv().await;
    }
}

/// What a worker has beside what is in force.
struct Hand {
    number: usize,
    workers: usize,
    census: Arc<Census>,
    stop: watch::Receiver<Stop>,
    tunnels: Arc<Tunnels>,
    /// Every connection holds a clone: when none is left, all are over.
    open: mpsc::Sender<()>,
}

/// What is in force on one worker.
type InForce = Arc<ArcSwap<Worker>>;

impl Hand {
    /// Works until it is told to stop and what it began is over.
    async fn run(self, first: Change, mut changes: mpsc::UnboundedReceiver<Change>, mut closed: mpsc::Receiver<()>) {
        let in_force: InForce = Arc::new(ArcSwap::from_pointee(self.worker(&first, &[])));
        let mut accepting = JoinSet::new();
        self.accept(first.entrances, &in_force, &mut accepting);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop != Stop::Run) => break,
                Some(change) = changes.recv() => {
                    let next = self.worker(&change, in_force.load().forwarder.upstreams());
                    in_force.store(Arc::new(next));
                    self.accept(change.entrances, &in_force, &mut accepting);
                }
                Some(ended) = accepting.join_next() => self.tell(ended),
            }
        }
        while let Some(ended) = accepting.join_next().await {
            self.tell(ended);
        }
        let tunnels = Arc::clone(&self.tunnels);
        // Its own hold on what is open goes with it.
        drop(self);
        let over = async {
            let _none_left = closed.recv().await;
            tunnels.all_closed().await;
        };
        tokio::select! {
            () = over => {}
            _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
        }
    }

    /// What is in force with `change`. Connections to a server that is the same go on.
    fn worker(&self, change: &Change, former: &[Arc<Upstream>]) -> Worker {
        let lanes = former.iter().flat_map(|upstream| upstream.lanes());
        let lanes: HashMap<*const Backend, &Arc<Lane>> =
            lanes.map(|lane| (Arc::as_ptr(lane.backend()), lane)).collect();
        let lane = |backend: &Arc<Backend>| lanes.get(&Arc::as_ptr(backend)).map(|lane| Arc::clone(lane));
        let client = |pool: &Arc<Pool>| Arc::new(Upstream::new(Arc::clone(pool), self.workers, lane));
        let upstreams = change.pools.iter().map(client).collect();
        let patience = change.state.config.server.limits.body_timeout;
        let forwarder = Forwarder::new(upstreams, patience, Arc::clone(&self.tunnels), self.stop.clone());
        Worker { state: Arc::clone(&change.state), forwarder }
    }

    fn accept(&self, entrances: Vec<Entrance>, in_force: &InForce, accepting: &mut JoinSet<std::io::Result<()>>) {
        for Entrance { listener, manner, stop, counts } in entrances {
            let (in_force, stopping, open) = (Arc::clone(in_force), stop.clone(), self.open.clone());
            let spoken = {
                let manner = manner.clone();
                move || spoken(&manner.borrow())
            };
            let connection = move |stream: ClientSocket, info: ConnInfo, admitted: Admitted| {
                let (in_force, stopping, open) = (Arc::clone(&in_force), stopping.clone(), open.clone());
                counts.accepted.count();
                let manner = manner.borrow().clone();
                let (held, counts) = (Held::new(&counts), Arc::clone(&counts));
                async move {
                    let _held = (held, admitted);
                    begin(stream, info, manner, &counts, in_force, stopping).await;
                    drop(open);
                }
            };
            let census = Arc::clone(&self.census);
            accepting.spawn(socket::accept(listener, self.number, census, stop, spoken, connection));
        }
    }

    fn tell(&self, ended: Result<std::io::Result<()>, JoinError>) {
        if let Ok(Err(error)) = ended {
            tracing::error!(%error, worker = self.number, "a listener can't be used");
        }
    }
}

/// What clients of a listener speak.
const fn spoken(manner: &Listen) -> Spoken {
    match (manner.tls, manner.h2c) {
        (true, _) => Spoken::Tls,
        (false, true) => Spoken::Http2,
        (false, false) => Spoken::Http1,
    }
}

/// Whether the connection begins with a PROXY header: that of a trusted peer must.
fn sends_proxy_header(state: &State, info: &ConnInfo) -> bool {
    state.config.server.proxy_protocol && state.trust.trusts_peer(info.peer.ip().to_canonical())
}

/// Says so for the first one; the rest are counted, as there may be one a second.
fn note_unintroduced(counts: &metrics::Listener, info: &ConnInfo, fault: &ProxyFault) {
    // Who only looks whether someone listens says nothing.
    if matches!(fault, ProxyFault::Io(_)) {
        return tracing::debug!(peer = %info.peer, %fault, "connection closed");
    }
    if counts.unintroduced.value() == 0 {
        tracing::warn!(peer = %info.peer, %fault, "connection of a trusted peer closed: server.proxy_protocol is on");
    }
    counts.unintroduced.count();
}

/// A request in progress.
type Handled = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What `make` makes, where it stays: made elsewhere, all of its size would be copied, of which the beginning needs little.
fn placed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Serves one connection, over TLS where `manner` says so. The handshake and the first head have one deadline.
///
/// What a connection does in turn has places of its own, so that an idle one keeps no more than it needs.
async fn begin(
    mut stream: ClientSocket,
    mut info: ConnInfo,
    manner: Listen,
    counts: &metrics::Listener,
    in_force: InForce,
    mut stop: watch::Receiver<Stop>,
) {
    info.redirects = manner.redirect_to_https;
    let config = Arc::clone(&in_force.load().state.config);
    let deadline = info.opened + config.server.limits.header_timeout;
    if sends_proxy_header(&in_force.load().state, &info) {
        match timeout_at(deadline, proxy_protocol::read(&mut stream)).await {
            Ok(Ok(Told::Addresses { source, destination })) => (info.peer, info.local) = (source, destination),
            Ok(Ok(Told::Own)) => {}
            Ok(Ok(Told::Unknown)) => info.is_relayed = true,
            Ok(Err(fault)) => return note_unintroduced(counts, &info, &fault),
            Err(_) => return tracing::debug!(peer = %info.peer, "no PROXY header came in time"),
        }
    }
    if !manner.tls {
        drop(config);
        return Box::pin(serve(stream, info, manner.h2c, in_force, stop)).await;
    }
    let peer = info.peer;
    let handshake = Box::pin(tls::accept(stream, &config.server.tls));
    let handshake = tokio::select! {
        ended = timeout_at(deadline, handshake) => ended,
        _ = stop.wait_for(|stop| *stop == Stop::Now) => return,
    };
    // Not held for as long as the connection lasts: a reload brings another.
    drop(config);
    match handshake {
        Ok(Ok((stream, tls))) => {
            let is_http2 = tls.http2;
            info.tls = Some(tls);
            Box::pin(serve(stream, info, is_http2, in_force, stop)).await;
        }
        Ok(Err(failure)) => {
            counts.handshakes_failed.count(failure.reason());
            tracing::debug!(%peer, error = %failure, "no TLS with a client");
        }
        Err(_) => {
            counts.handshakes_failed.count("timeout");
            tracing::debug!(%peer, "a client's TLS handshake timed out");
        }
    }
}

/// Serves one connection. Its deadlines and the limits of its heads are those that it was accepted under; everything else
/// is what is in force when a request comes.
async fn serve<S: ClientStream>(
    stream: S,
    info: ConnInfo,
    is_http2: bool,
    in_force: InForce,
    stop: watch::Receiver<Stop>,
) {
    let limits = in_force.load().state.config.server.limits.clone();
    let info = Arc::new(info);
    let (peer, current) = (Arc::clone(&info), Arc::clone(&in_force));
    let service = move |request, link: Arc<Link>| {
        let (worker, peer, request) = (current.load_full(), Arc::clone(&peer), Box::new(request));
        // hyper has a place for it in every connection, which would keep its size while nothing is asked.
        let handled: Handled = placed(|| async move { pipeline::handle(&worker, &peer, request, &link).await });
        handled
    };
    if is_http2 {
        return Box::pin(h2::serve(stream, info, &limits, service, stop)).await;
    }
    let refused = |info: &ConnInfo, error: &hyper::Error| pipeline::unreadable(&in_force.load_full(), info, error);
    conn::serve(stream, info, &limits, service, refused, stop).await;
}
