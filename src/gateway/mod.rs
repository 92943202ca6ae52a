//! The composition root: binds, opens the store, starts workers and the control thread, and ends them in order.
//!
//! One worker thread per core, each with a runtime and upstream connections of its own. Everything that is done once
//! (following the store's events, the admin listener, the control socket) runs on a control thread beside them.

mod account_file;
mod admin;
pub mod control;
mod expiry;
mod files;
mod listeners;
mod prepare;
mod readiness;
mod reload;
mod scrape;
#[cfg(test)]
mod tests;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

pub use account_file::taken;
pub use prepare::StartError;
pub use reload::Reloaded;

use crate::clock::Clock;
use crate::config::Config;
use crate::listen::inherited::Inherited;
use crate::message::connection::Stop;
use crate::observe::access::AccessLog;
use crate::secret::Random;
use crate::state::Shared;
use crate::store::StoreError;
use crate::upstream::Checkers;
use admin::{AdminPlace, Desk};
use control::{Clerk, Control};
use expiry::Expiry;
use files::Watch;
use prepare::Prepared;
use readiness::Readiness;
use reload::Reloader;
use scrape::Scrape;
use worker::Crew;

/// A running gateway. Dropping it ends it at once.
#[derive(Debug)]
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    access_log: Arc<ArcSwap<AccessLog>>,
    reloads: mpsc::Sender<reload::Request>,
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
        Self::start_inheriting(config, Inherited::default()).await
    }

    /// Starts a gateway whose `fd:` listeners are found in `inherited`.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_inheriting(config: Config, inherited: Inherited) -> Result<Self, StartError> {
        Self::start_with(config, Clock::system(), Random::system(), inherited).await
    }

    /// Starts a gateway that lives by `clock`.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_at(config: Config, clock: Clock, random: Random) -> Result<Self, StartError> {
        Self::start_with(config, clock, random, Inherited::default()).await
    }

    async fn start_with(
        config: Config,
        clock: Clock,
        random: Random,
        inherited: Inherited,
    ) -> Result<Self, StartError> {
        let (started, outcome) = oneshot::channel();
        let (orders, taken) = mpsc::unbounded_channel();
        let (reloads, asked) = mpsc::channel(MOST_RELOADS);
        let asks = reloads.clone();
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
                match prepare::prepare(config, clock, random, inherited).await {
                    Err(error) => {
                        let _caller_left = started.send(Err(error));
                    }
                    Ok(prepared) => {
                        let admin = prepared.admin.address();
                        match Running::begin(prepared, asks) {
                            Err(error) => {
                                let _caller_left = started.send(Err(error));
                            }
                            Ok(running) => {
                                let log = Arc::clone(&running.shared.access_log);
                                let facts = (running.reloader.listeners.addresses(), admin, log);
                                if started.send(Ok(facts)).is_ok() {
                                    running.until_ended(taken, asked).await;
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
        let (addresses, admin, access_log) = outcome.await.map_err(|_| StartError::Panicked)??;
        Ok(Self { addresses, admin, access_log, reloads, orders, ended })
    }

    /// Where it listened when it started, in the order of `server.listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its admin listener was then, when that is one of TCP.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Reads the configuration's file anew, and goes on with it if there is nothing against it. `None`: the gateway ends.
    pub async fn reload(&self) -> Option<Reloaded> {
        reload::ask(&self.reloads, "program").await
    }

    /// The same, without waiting for what comes of it, which the log tells.
    pub fn request_reload(&self) {
        // So many wait that one of them reads what is in the file now.
        let _enough_wait = self.reloads.try_send(reload::Request::because_of("signal"));
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
        self.access_log.load().reopen();
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _control_thread_gone = ended.wait_for(|ended| *ended).await;
    }

    /// Waits for its end, and until the access log is written.
    pub async fn join(self) {
        self.ended().await;
        self.access_log.load().flush(LOG_PATIENCE);
    }
}

/// What the control thread looks after.
struct Running {
    shared: Arc<Shared>,
    reloader: Reloader,
    stop: watch::Sender<Stop>,
    control: Option<Arc<Control>>,
}

impl Running {
    fn begin(prepared: Prepared, reloads: mpsc::Sender<reload::Request>) -> Result<Self, StartError> {
        let Prepared { state, shared, pools, listeners: mut open, planned, admin, control } = prepared;
        let (stop, stopping) = watch::channel(Stop::Run);
        let public_url = state.config.server.public_url.origin();
        let crew = Crew::start(&state, &pools, open.take(planned, &public_url), &stopping)?;
        shared.pools.replace(Arc::clone(&pools));
        let mut checkers = Checkers::default();
        checkers.follow(&pools, reload::seed(&shared));
        let desk = Desk { readiness: Arc::new(Readiness::new(&state)), scrape: Scrape::of(&state) };
        let admin = AdminPlace::begin(desk, admin);
        let control = control.map(Arc::new);
        if let Some(control) = control.clone() {
            let clerk = Arc::new(Clerk { shared: Arc::clone(&shared), reloads });
            tokio::spawn(async move { control.serve(clerk).await });
        }
        state.issuers.keep_fresh();
        tokio::spawn(follow(Arc::clone(&shared)));
        tokio::spawn(keep_house(Arc::clone(&shared)));
        let reloader = Reloader {
            shared: Arc::clone(&shared),
            pools,
            checkers,
            listeners: open,
            admin,
            crew,
            watch: Watch::new(state.config.files.clone()),
            state,
        };
        Ok(Self { shared, reloader, stop, control })
    }

    /// Obeys orders until every worker has ended.
    async fn until_ended(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut reloads: mpsc::Receiver<reload::Request>,
    ) {
        match self.until_told(&mut orders, &mut reloads).await {
            Order::Drain => {}
            Order::Stop => return self.end(Stop::Now).await,
        }
        // Whoever waits for a reload learns that there is none any more.
        drop(reloads);
        let limits = self.reloader.state.config.server.limits.clone();
        self.reloader.admin.readiness().drain();
        let hurry = async {
            // A second order to drain is none; whoever is gone can't give another.
            while let Some(Order::Drain) = orders.recv().await {}
        };
        tokio::pin!(hurry);
        tokio::select! {
            () = &mut hurry => return self.end(Stop::Now).await,
            () = sleep(limits.drain_delay) => {}
        }
        self.tell(Stop::Drain);
        tokio::select! {
            () = &mut hurry => {}
            drained = timeout(limits.drain_timeout, self.reloader.crew.gone()) => {
                if drained.is_err() {
                    warn!("drain_timeout is over: what is still in progress ends now");
                }
            }
        }
        self.end(Stop::Now).await;
    }

    /// Reloads when someone asks or a file has changed, until there is an order to end. That one waits for no reload.
    async fn until_told(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        reloads: &mut mpsc::Receiver<reload::Request>,
    ) -> Order {
        let (mut expiry, mut tick) = (Expiry::default(), interval(EXPIRY_EVERY));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                order = orders.recv() => return order.unwrap_or(Order::Stop),
                Some(request) = reloads.recv() => request,
                _ = tick.tick() => {
                    expiry.look(&self.reloader.state.config.server.tls, self.shared.clock.now());
                    continue;
                }
                () = self.reloader.watch.changed() => reload::Request::because_of("file"),
            };
            let mut asked = vec![first];
            // One reading is for all who asked before it begins; whoever asks later waits for the next.
            while let Ok(request) = reloads.try_recv() {
                asked.push(request);
            }
            let reloaded = tokio::select! {
                biased;
                order = orders.recv() => return order.unwrap_or(Order::Stop),
                reloaded = self.reloader.reload(&asked) => reloaded,
            };
            asked.into_iter().for_each(|request| request.answer(&reloaded));
        }
    }

    fn tell(&self, stop: Stop) {
        self.stop.send_replace(stop);
        self.reloader.listeners.tell(stop);
    }

    async fn end(mut self, stop: Stop) {
        self.tell(stop);
        // Workers only drop what they have: a moment each.
        let _stuck_worker = timeout(STOP_PATIENCE, self.reloader.crew.gone()).await;
        let _told_in_the_log = self.shared.people.sessions.flush().await;
        let _told_in_the_log = self.shared.people.api_keys.flush().await;
        if let Err(error) = self.shared.throttle.save().await {
            warn!(%error, "counters of failed sign-ins were not saved");
        }
        if let Some(tracer) = &self.reloader.state.tracer {
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
async fn follow(shared: Arc<Shared>) {
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
        let was_stale = std::mem::replace(&mut is_stale, !shared.current.load().is_fresh(Instant::now()));
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

/// Reloads that may wait.
const MOST_RELOADS: usize = 16;

/// How often events are taken in: well within the second that the contract promises.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// How often what waits is written.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// How often the certificates are looked at.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);

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
