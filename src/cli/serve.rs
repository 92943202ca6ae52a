//! `portcullis serve`: the gateway, until a signal ends it.

use std::path::Path;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::load_tested;
use crate::gateway::Gateway;
use crate::listen::inherited::Inherited;
use crate::observe;

/// Runs the gateway until SIGTERM or SIGINT has drained it; a second one ends it at once.
pub(super) fn run(file: Option<&Path>) -> Result<(), String> {
    // Before there are threads, as it takes what it reads out of the environment.
    let inherited = Inherited::from_env().map_err(|error| format!("sockets were handed over wrongly: {error}"))?;
    let config = load_tested(file)?;
    observe::init_log(&config.log).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system gives no event queue: {error}"))?;
    runtime.block_on(async {
        // Before the gateway is ready, so that no signal is lost.
        let signals = Signals::listen().map_err(|error| format!("signals can't be received: {error}"))?;
        let gateway = Gateway::start_inheriting(config, inherited).await.map_err(|error| error.to_string())?;
        tell_supervisor(NotifyState::Ready);
        let ended = until_ended(&gateway, signals).await;
        gateway.join().await;
        ended
    })
}

/// Tells systemd, where it is that which started the gateway (`sd_notify(3)`).
fn tell_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor can't be told how the gateway is");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}

async fn until_ended(gateway: &Gateway, mut signals: Signals) -> Result<(), String> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            () = gateway.ended() => return Err("the gateway ended by itself; the log has more".to_owned()),
            _ = signals.reopen.recv() => gateway.reopen_log(),
            _ = signals.hang_up.recv() => gateway.request_reload(),
        }
    }
    info!("draining: requests in progress may end, a second signal ends at once");
    tell_supervisor(NotifyState::Stopping);
    gateway.drain();
    loop {
        tokio::select! {
            () = gateway.ended() => return Ok(()),
            _ = signals.terminate.recv() => gateway.stop(),
            _ = signals.interrupt.recv() => gateway.stop(),
            _ = signals.reopen.recv() => gateway.reopen_log(),
            // What ends needs no other configuration.
            _ = signals.hang_up.recv() => {}
        }
    }
}
