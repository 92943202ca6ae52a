//! Worker threads: each accepts from clones of the same sockets, and keeps what it accepted to itself.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::listen::conn;
use crate::listen::socket::{self, Census};
use crate::message::connection::{ConnInfo, Stop};
use crate::metrics::{self, Held, Listener, Metrics};
use crate::pipeline::{self, Worker};
use crate::proxy::Forwarder;
use crate::proxy::upgrade::Tunnels;
use crate::state::State;
use crate::upstream::{Backend, Upstream};

use super::StartError;
use super::prepare;

/// What all workers share beside the state.
#[derive(Clone)]
struct Common {
    state: Arc<State>,
    backends: Vec<Arc<Backend>>,
    census: Arc<Census>,
    /// What is counted of each listener.
    counts: Vec<Arc<Listener>>,
    stop: watch::Receiver<Stop>,
}

/// One [`Backend`] per upstream, for all workers.
pub(super) fn backends(config: &Config, metrics: &Metrics) -> Result<Vec<Arc<Backend>>, StartError> {
    let backend = |upstream: &Arc<crate::config::Upstream>| {
        let invalid = || StartError::Upstream { name: upstream.name.clone() };
        let server = upstream.servers.first().cloned().ok_or_else(invalid)?;
        Backend::new(upstream, server, metrics.upstreams.find(&upstream.name)).map_err(|_| invalid())
    };
    config.upstreams.iter().map(backend).collect()
}

/// Starts the workers. The receiver ends when the last of them has.
pub(super) fn start_all(
    state: &Arc<State>,
    backends: Vec<Arc<Backend>>,
    listeners: &[TcpListener],
    stop: &watch::Receiver<Stop>,
) -> Result<mpsc::Receiver<()>, StartError> {
    let server = &state.config.server;
    let census = Census::new(server.limits.connections, server.workers);
    let named = |listener: &TcpListener| {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        state.shared.metrics.listeners.find(&address)
    };
    let counts = listeners.iter().map(named).collect();
    let common = Common { state: Arc::clone(state), backends, census, counts, stop: stop.clone() };
    let (alive, all_gone) = mpsc::channel(1);
    for number in 0..server.workers {
        let clones: Result<Vec<_>, _> = listeners.iter().map(TcpListener::try_clone).collect();
        let (listeners, common, alive) = (clones.map_err(StartError::Runtime)?, common.clone(), alive.clone());
        let runtime = prepare::runtime()?;
        let workers = server.workers;
        let run = move || {
            metrics::enter_stripe(number, workers);
            runtime.block_on(run(number, common, listeners));
            drop(runtime);
            drop(alive);
        };
        thread::Builder::new().name(format!("worker-{number}")).spawn(run).map_err(StartError::Thread)?;
    }
    Ok(all_gone)
}

/// One worker, until it is told to stop and what it began is over.
async fn run(number: usize, common: Common, listeners: Vec<TcpListener>) {
    let Common { state, backends, census, counts, mut stop } = common;
    let limits = Arc::new(state.config.server.limits.clone());
    let upstreams = backends.into_iter().map(|backend| Arc::new(Upstream::new(backend, state.config.server.workers)));
    let tunnels = Tunnels::new();
    let forwarder = Forwarder::new(upstreams.collect(), limits.body_timeout, Arc::clone(&tunnels), stop.clone());
    let worker = Arc::new(Worker { state, forwarder });
    // Every connection holds a clone: when none is left, all are over.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let accepting: Vec<_> = listeners
        .into_iter()
        .zip(counts)
        .map(|(listener, counts)| {
            let (worker, limits, stopping, open) =
                (Arc::clone(&worker), Arc::clone(&limits), stop.clone(), open.clone());
            let connection = move |stream: TcpStream, info: Arc<ConnInfo>| {
                let (worker, limits, stopping, open) =
                    (Arc::clone(&worker), Arc::clone(&limits), stopping.clone(), open.clone());
                counts.accepted.count();
                let held = Held::new(&counts);
                async move {
                    let _held = held;
                    serve(stream, info, worker, &limits, stopping).await;
                    drop(open);
                }
            };
            tokio::spawn(socket::accept(listener, number, Arc::clone(&census), stop.clone(), connection))
        })
        .collect();
    drop(open);
    for task in accepting {
        if let Ok(Err(error)) = task.await {
            tracing::error!(%error, worker = number, "a listener can't be used");
        }
    }
    let over = async {
        let _none_left = all_closed.recv().await;
        tunnels.all_closed().await;
    };
    tokio::select! {
        () = over => {}
        _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
    }
}

async fn serve(
    stream: TcpStream,
    info: Arc<ConnInfo>,
    worker: Arc<Worker>,
    limits: &crate::config::Limits,
    stop: watch::Receiver<Stop>,
) {
    let peer = Arc::clone(&info);
    let service = |request, link: Arc<crate::message::connection::Link>| {
        let (worker, peer) = (Arc::clone(&worker), Arc::clone(&peer));
        async move { pipeline::handle(&worker, &peer, request, &link).await }
    };
    let refused = |info: &ConnInfo, error: &hyper::Error| pipeline::unreadable(&worker, info, error);
    conn::serve(stream, info, limits, service, refused, stop).await;
}
