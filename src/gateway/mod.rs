//! The composition root: binds, opens the store, starts workers and the control thread, and ends them in order.
//!
//! One worker thread per core, each with a runtime and upstream connections of its own. Everything that is done once
//! (following the store's events, the admin listener, the control socket) runs on a control thread beside them.

mod admin;
pub mod control;
mod prepare;
mod readiness;
mod scrape;
#[cfg(test)]
mod tests;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

pub use prepare::StartError;

use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::message::connection::Stop;
use crate::observe::access::AccessLog;
use crate::secret::Random;
use crate::state::Shared;
use crate::store::StoreError;
use admin::{Admin, Desk};
use control::{Clerk, Control};
use prepare::Prepared;
use readiness::Readiness;
use scrape::Scrape;

/// A running gateway. Dropping it ends it at once.
#[derive(Debug)]
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    access_log: AccessLog,
    orders: mpsc::UnboundedSender<Order>,
    ended: watch::Receiver<bool>,
}

#[derive(Debug)]
enum Order {
    Drain,
    Stop,
}

impl Gateway {
    /// Starts a gateway; it serves when this returns.
    ///
    /// # Errors
    /// When an address can't be bound, the store can't be opened or a key is not what its algorithm needs.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_at(config, Clock::system(), Random::system()).await
    }

    /// Starts a gateway that lives by `clock`.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_at(config: Config, clock: Clock, random: Random) -> Result<Self, StartError> {
        let (started, outcome) = oneshot::channel();
        let (orders, taken) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(false);
        let control = move || {
            let runtime = match prepare::runtime() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _caller_left = started.send(Err(error));
                    return;
                }
            };
            runtime.block_on(async {
                match prepare::prepare(config, clock, random).await {
                    Err(error) => {
                        let _caller_left = started.send(Err(error));
                    }
                    Ok(prepared) => {
                        let facts = (prepared.addresses.clone(), prepared.admin.as_ref().and_then(Admin::address));
                        match Running::begin(prepared) {
                            Err(error) => {
                                let _caller_left = started.send(Err(error));
                            }
                            Ok(running) => {
                                let log = running.shared.access_log.clone();
                                if started.send(Ok((facts, log))).is_ok() {
                                    running.until_ended(taken).await;
                                }
                            }
                        }
                    }
                }
            });
            // Its tasks hold the store and the control socket: whoever waited for the end finds neither in use.
            drop(runtime);
            let _nobody_waits = end.send(true);
        };
        thread::Builder::new().name("control".to_owned()).spawn(control).map_err(StartError::Thread)?;
        let ((addresses, admin), access_log) = outcome.await.map_err(|_| StartError::Panicked)??;
        Ok(Self { addresses, admin, access_log, orders, ended })
    }

    /// Where it listens, in the order of `server.listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its admin listener is, when that is one of TCP.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Begins to end: not ready, after `drain_delay` nothing new is accepted, and what is in progress has `drain_timeout`.
    pub fn drain(&self) {
        let _ended_already = self.orders.send(Order::Drain);
    }

    /// Ends at once.
    pub fn stop(&self) {
        let _ended_already = self.orders.send(Order::Stop);
    }

    /// Opens the access log anew, after its file was moved away.
    pub fn reopen_log(&self) {
        self.access_log.reopen();
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _control_thread_gone = ended.wait_for(|ended| *ended).await;
    }

    /// Waits for its end, and until the access log is written.
    pub async fn join(self) {
        self.ended().await;
        self.access_log.flush(LOG_PATIENCE);
    }
}

/// What the control thread looks after.
struct Running {
    shared: Arc<Shared>,
    readiness: Arc<Readiness>,
    limits: Limits,
    stop: watch::Sender<Stop>,
    workers: mpsc::Receiver<()>,
    control: Option<Arc<Control>>,
}

impl Running {
    fn begin(prepared: Prepared) -> Result<Self, StartError> {
        let Prepared { state, shared, backends, listeners, addresses, admin, control } = prepared;
        let config = Arc::clone(&state.config);
        let (stop, stopping) = watch::channel(Stop::Run);
        let workers = worker::start_all(&state, backends, &listeners, &stopping)?;
        let readiness = Arc::new(Readiness::new(&state));
        for address in addresses {
            info!(%address, public_url = config.server.public_url.origin(), "listening");
        }
        if let Some(admin) = admin {
            if let Some(address) = admin.address() {
                info!(%address, "admin listening");
            }
            let desk = Desk { readiness: Arc::clone(&readiness), scrape: Scrape::of(&state) };
            tokio::spawn(admin.serve(Arc::new(desk)));
        }
        let control = control.map(Arc::new);
        if let Some(control) = control.clone() {
            let desk = Arc::new(Clerk { shared: Arc::clone(&shared), current: Arc::clone(&state.current) });
            tokio::spawn(async move { control.serve(desk).await });
        }
        state.issuers.keep_fresh();
        tokio::spawn(follow(Arc::clone(&shared), config.store.max_staleness));
        tokio::spawn(keep_house(Arc::clone(&shared)));
        Ok(Self { shared, readiness, limits: config.server.limits.clone(), stop, workers, control })
    }

    /// Obeys orders until every worker has ended.
    async fn until_ended(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        match orders.recv().await {
            Some(Order::Drain) => {}
            Some(Order::Stop) | None => return self.end(Stop::Now).await,
        }
        self.readiness.drain();
        let hurry = async {
            // A second order to drain is none; whoever is gone can't give another.
            while let Some(Order::Drain) = orders.recv().await {}
        };
        tokio::pin!(hurry);
        tokio::select! {
            () = &mut hurry => return self.end(Stop::Now).await,
            () = sleep(self.limits.drain_delay) => {}
        }
        self.stop.send_replace(Stop::Drain);
        tokio::select! {
            () = &mut hurry => {}
            drained = timeout(self.limits.drain_timeout, self.workers.recv()) => {
                if drained.is_err() {
                    warn!("drain_timeout is over: what is still in progress ends now");
                }
            }
        }
        self.end(Stop::Now).await;
    }

    async fn end(mut self, stop: Stop) {
        self.stop.send_replace(stop);
        // Workers only drop what they have: a moment each.
        let _stuck_worker = timeout(STOP_PATIENCE, self.workers.recv()).await;
        let _told_in_the_log = self.shared.people.sessions.flush().await;
        let _told_in_the_log = self.shared.people.api_keys.flush().await;
        if let Err(error) = self.shared.throttle.save().await {
            warn!(%error, "counters of failed sign-ins were not saved");
        }
        if let Some(tracer) = &self.shared.tracer {
            tracer.flush(TRACE_PATIENCE).await;
        }
        if let Err(error) = self.shared.store.close().await {
            warn!(%error, "the store was not closed");
        }
        drop(self.control);
        info!("ended");
    }
}

/// Takes in events. Nothing else is done here, so that no writer who has to wait holds up a revocation.
async fn follow(shared: Arc<Shared>, max_staleness: Duration) {
    let mut tick = interval(FOLLOW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_down, mut is_stale) = (false, false);
    loop {
        tick.tick().await;
        let taken_in = shared.people.follower.catch_up().await;
        shared.metrics.store_up.set(i64::from(taken_in.is_ok()));
        match taken_in {
            Ok(()) if is_down => {
                info!("the store answers again");
                is_down = false;
            }
            Ok(()) => {}
            Err(error) => {
                if !is_down {
                    warn!(%error, "the store does not answer: what is known of revocations grows stale");
                }
                is_down = true;
            }
        }
        let was_stale = std::mem::replace(&mut is_stale, !shared.people.follower.is_fresh(max_staleness));
        if is_stale && !was_stale {
            shared.people.follower.raise();
        }
        shared.people.revocations.forget(shared.clock.settled());
    }
}

/// Writes what waits to be written, and removes what is over.
async fn keep_house(shared: Arc<Shared>) {
    let mut tick = interval(FLUSH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ticks, mut is_down) = (0_u64, false);
    loop {
        tick.tick().await;
        let written = match write_uses(&shared).await {
            Ok(()) => shared.throttle.save().await,
            Err(error) => Err(error),
        };
        // Told once per outage; what could not be written waits for the next time.
        if let Err(error) = &written
            && !is_down
        {
            warn!(%error, "uses of sessions and keys, and failed sign-ins, were not written");
        }
        is_down = written.is_err();
        if ticks.is_multiple_of(CLEAN_EVERY) && !is_down {
            clean(&shared).await;
        }
        ticks += 1;
    }
}

async fn write_uses(shared: &Shared) -> Result<(), StoreError> {
    shared.people.sessions.flush().await?;
    shared.people.api_keys.flush().await
}

/// Removes what has passed its time, in small batches so that no writer waits long.
async fn clean(shared: &Shared) {
    if let Err(error) = shared.own_keys.clean().await {
        warn!(%error, "retired keys were not removed");
    }
    loop {
        match shared.store.clean(CLEAN_BATCH).await {
            Ok(0) => return,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => {
                warn!(%error, "the store was not cleaned");
                return;
            }
        }
    }
}

/// How often events are taken in: well within the second that the contract promises.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// How often what waits is written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// How often the store is cleaned, in ticks of the former: every ten minutes.
const CLEAN_EVERY: u64 = 600;

/// Rows removed at once.
const CLEAN_BATCH: usize = 500;

/// How long workers may take to drop what they have.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long the last spans may take.
const TRACE_PATIENCE: Duration = Duration::from_secs(2);

/// How long the last access lines may take.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
