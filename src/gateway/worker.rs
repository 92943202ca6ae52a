//! Worker threads: each accepts from clones of the same sockets, and keeps what it accepted to itself.
//!
//! What is in force lies behind one pointer of each worker's own, which is loaded once per request; a reload replaces it,
//! with the connections to every upstream that is still the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

use super::StartError;
use super::listeners::Entrance;
use super::prepare;
use crate::config::Config;
use crate::listen::conn;
use crate::listen::socket::{self, Census};
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
            .map_err(|_| StartError::Upstream { name: upstream.name.clone() }),
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
        let limit = state.config.server.limits.connections;
        let census = Census::counting(limit, workers, Arc::clone(&metrics.connections_refused));
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
        self.census.set_limit(state.config.server.limits.connections);
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
        for Entrance { listener, stop, counts } in entrances {
            let (in_force, stopping, open) = (Arc::clone(in_force), stop.clone(), self.open.clone());
            let connection = move |stream: TcpStream, info: Arc<ConnInfo>| {
                let (in_force, stopping, open) = (Arc::clone(&in_force), stopping.clone(), open.clone());
                counts.accepted.count();
                let held = Held::new(&counts);
                async move {
                    let _held = held;
                    serve(stream, info, in_force, stopping).await;
                    drop(open);
                }
            };
            accepting.spawn(socket::accept(listener, self.number, Arc::clone(&self.census), stop, connection));
        }
    }

    fn tell(&self, ended: Result<std::io::Result<()>, JoinError>) {
        if let Ok(Err(error)) = ended {
            tracing::error!(%error, worker = self.number, "a listener can't be used");
        }
    }
}

/// Serves one connection. Its deadlines and the limits of its heads are those that it was accepted under; everything else
/// is what is in force when a request comes.
async fn serve(stream: TcpStream, info: Arc<ConnInfo>, in_force: InForce, stop: watch::Receiver<Stop>) {
    let limits = in_force.load().state.config.server.limits.clone();
    let peer = Arc::clone(&info);
    let service = |request, link: Arc<Link>| {
        let (worker, peer) = (in_force.load_full(), Arc::clone(&peer));
        async move { pipeline::handle(&worker, &peer, request, &link).await }
    };
    let refused = |info: &ConnInfo, error: &hyper::Error| pipeline::unreadable(&in_force.load_full(), info, error);
    conn::serve(stream, info, &limits, service, refused, stop).await;
}
