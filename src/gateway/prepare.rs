//! Everything that can fail, before anything is served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit};
use tokio::runtime::{Builder, Runtime};

use super::account_file;
use super::admin::NextPlace;
use super::control::Control;
use super::listeners::{Listeners, Planned};
use crate::access::{Access, Current, People};
use crate::clock::Clock;
use crate::config::{Address, Config};
use crate::explain;
use crate::identity::password::Hasher;
use crate::listen::inherited::Inherited;
use crate::message::cookie::InvalidCookie;
use crate::metrics::Metrics;
use crate::observe::access::AccessLog;
use crate::observe::{Recent, RequestIds, Seldom, Unbelieved, otlp};
use crate::secret::Random;
use crate::session::keys::KeysError;
use crate::session::refresh::RefreshKey;
use crate::session::{Accounts, ApiKeys, Basic, Followed, Follower, OwnKeys, Returning, Sessions, SignIn};
use crate::state::{Parts, Shared, State};
use crate::store::{Store, StoreError};
use crate::throttle::{Rates, Throttle};
use crate::token::foreign::Issuers;
use crate::token::{self, KeyError, Revocations};
use crate::upstream::{Pool, Pools};

/// Why a gateway does not start.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they hold")]
pub enum StartError {
    /// An address can't be listened on.
    Listen { address: Address, source: io::Error },
    /// An address overlaps one that this gateway still listens on, and has to before the other takes over.
    Overlap { address: Address, held: SocketAddr },
    /// The admin listener can't be bound.
    Admin(io::Error),
    /// The control socket can't be bound.
    Control { path: PathBuf, source: io::Error },
    /// The store can't be opened or read.
    Store(StoreError),
    /// The file of accounts has lines that can't be taken: what the first of them says.
    Accounts { path: PathBuf, first: String },
    /// A key is not what its algorithm needs.
    Key(KeyError),
    /// The cookie is one that no browser would keep.
    Cookie(InvalidCookie),
    /// Nothing can be sent to an upstream's server.
    Upstream { name: String, reason: String },
    /// Tests of the configuration fail: what the first of them says, and how many there are.
    Tests { first: String, count: usize },
    /// The access log can't be opened.
    AccessLog(io::Error),
    /// The system gives no event queue.
    Runtime(io::Error),
    /// The system gives no thread.
    Thread(io::Error),
    /// The control thread panicked; the log has more.
    Panicked,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "can't listen on {address}: another program does; change server.listen or end it")
            }
            Self::Listen { address, source }
                if source.kind() == io::ErrorKind::PermissionDenied && address.tcp().is_some() =>
            {
                write!(f, "can't listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE")
            }
            Self::Listen { address, source } => write!(f, "can't listen on {address}: {source}"),
            Self::Overlap { address, held } => write!(
                f,
                "can't listen on {address} while this gateway listens on {held}: restart it to move from one to the other"
            ),
            Self::Admin(source) => write!(f, "can't listen on admin.listen: {source}"),
            Self::Control { path, source } => write!(f, "can't make the control socket {}: {source}", path.display()),
            Self::Store(source) => write!(f, "{source}"),
            Self::Accounts { path, first } => write!(f, "[store] users: {}, {first}", path.display()),
            Self::Key(source) => write!(f, "[tokens] {source}"),
            Self::Cookie(source) => write!(f, "[sessions] {source}"),
            Self::Upstream { name, reason } => write!(f, "[upstreams] the server of `{name}` can't be used: {reason}"),
            Self::Tests { first, count: 1 } => write!(f, "a test of the configuration fails: {first}"),
            Self::Tests { first, count } => write!(f, "{count} tests of the configuration fail; the first: {first}"),
            Self::AccessLog(source) => write!(f, "can't open log.access: {source}"),
            Self::Runtime(source) => write!(f, "the system gives no event queue: {source}"),
            Self::Thread(source) => write!(f, "the system gives no thread: {source}"),
            Self::Panicked => f.write_str("the control thread panicked"),
        }
    }
}

impl std::error::Error for StartError {}

/// A gateway that is ready to serve.
pub(super) struct Prepared {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
    pub(super) pools: Arc<Vec<Arc<Pool>>>,
    /// What opens `planned`.
    pub(super) listeners: Listeners,
    pub(super) planned: Planned,
    pub(super) admin: NextPlace,
    pub(super) control: Option<Control>,
}

/// A runtime for one thread.
pub(super) fn runtime() -> Result<Runtime, StartError> {
    Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)
}

pub(super) async fn prepare(
    config: Config,
    clock: Clock,
    random: Random,
    inherited: Inherited,
) -> Result<Prepared, StartError> {
    token::install_crypto();
    if let [first, rest @ ..] = explain::failing_tests(&config).as_slice() {
        return Err(StartError::Tests { first: first.message.clone(), count: rest.len() + 1 });
    }
    open_files(&config);
    let metrics = Arc::new(Metrics::new(clock.now().as_secs()));
    let listeners = Listeners::inheriting(inherited);
    let planned = listeners.plan(&config.server.listen, config.server.workers, &metrics)?;
    let admin = NextPlace::bind(config.admin.listen.as_ref())?;
    let access_log =
        AccessLog::open(&config.log.access, config.log.format, &AccessLog::off()).map_err(StartError::AccessLog)?;
    let memory = token::memory(&config);
    let store =
        Store::open(&config.store, clock.clone(), random.clone()).map_err(StartError::Store)?.remembering(memory);
    let accounts = account_file::accounts(&config.store)?;
    // Before anything is read of accounts, so that nobody signs in to one that is gone.
    for name in account_file::sync(&store, accounts).await? {
        let finding = account_file::taken(&config.store, &name);
        tracing::warn!(code = finding.code, problem = finding.message, help = finding.help, "configuration warning");
    }
    let own_keys = OwnKeys::open(&config, store.clone(), clock.clone(), random.clone()).await;
    let own_keys = Arc::new(own_keys.map_err(|error| match error {
        KeysError::Store(source) => StartError::Store(source),
        KeysError::Key(source) => StartError::Key(source),
    })?);
    let throttle = Throttle::start(store.clone(), clock.clone()).await.map_err(StartError::Store)?;
    let hasher = Hasher::start(config.server.workers).map_err(StartError::Thread)?;
    let (people, sign_in) =
        people(&config, &store, &clock, &random, (&throttle, hasher, &own_keys)).await.map_err(StartError::Store)?;
    advise(&store).await.map_err(StartError::Store)?;
    let keys = own_keys.ring();
    let config = Arc::new(config);
    let issuers = Arc::new(Issuers::new(&config.issuers, &Issuers::default(), &clock));
    let access = Access::new(&config, Arc::clone(&keys), Arc::clone(&issuers), people.clone());
    let access = Arc::new(access.counting(&metrics.tokens));
    let current = Arc::new(Current::new(Arc::clone(&access)));
    let request_ids = RequestIds::new(&random);
    let returning = Returning::default();
    let tracer = config.trace.as_ref().map(|trace| otlp::start(trace, &metrics));
    let shared = Arc::new(Shared {
        clock,
        random,
        store,
        own_keys,
        people,
        sign_in,
        throttle,
        rates: Rates::default(),
        returning,
        current,
        access_log: Arc::new(ArcSwap::from_pointee(access_log.clone())),
        request_ids,
        metrics,
        pools: Pools::default(),
        recent: Recent::default(),
        unbelieved: Unbelieved::default(),
        seldom: Seldom::default(),
    });
    let control = bind_control(&config)?;
    let pools = super::worker::pools(&config, &shared.metrics, &[])?;
    let parts = Parts { keys, issuers, access, access_log, tracer };
    let state = State::new(config, parts, Arc::clone(&shared)).map_err(StartError::Cookie)?;
    Ok(Prepared { state: Arc::new(state), shared, pools, listeners, planned, admin, control })
}

/// Raises the limit of open files as far as it goes, and says when it is too low for `server.limits.connections`.
pub(super) fn open_files(config: &Config) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // One for the client and one for the upstream.
    let needed = u64::try_from(config.server.limits.connections).unwrap_or(u64::MAX).saturating_mul(2);
    if let Some(files) = files.filter(|files| *files < needed) {
        let clients = clients(config);
        tracing::warn!(
            files,
            needed,
            clients,
            "fewer open files than `server.limits.connections` needs: raise LimitNOFILE. There are fewer clients until then"
        );
    }
}

/// How many clients there may be: as many as `server.limits.connections` says, and no more than there are descriptors for. A
/// request that was let in needs one more for its upstream.
pub(super) fn clients(config: &Config) -> usize {
    affordable(config.server.limits.connections, files())
}

/// How many files may be open.
pub(super) fn files() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

fn affordable(wanted: usize, files: usize) -> usize {
    if files / 2 >= wanted {
        return wanted;
    }
    (files.saturating_sub(OWN_FILES) / 2).max(1)
}

async fn people(
    config: &Config,
    store: &Store,
    clock: &Clock,
    random: &Random,
    (throttle, hasher, keys): (&Throttle, Hasher, &Arc<OwnKeys>),
) -> Result<(People, Arc<SignIn>), StoreError> {
    let refresh = RefreshKey::new(&store.server_secret("refresh").await?);
    let accounts = Arc::new(Accounts::new(store.clone()));
    let api_keys = Arc::new(ApiKeys::new(store.clone()));
    let sessions = Arc::new(Sessions::new(store.clone(), random.clone(), refresh, config.sessions.clone()));
    let revocations = Arc::new(Revocations::new());
    let followed = Followed {
        accounts: Arc::clone(&accounts),
        api_keys: Arc::clone(&api_keys),
        sessions: Arc::clone(&sessions),
        revocations: Arc::clone(&revocations),
        throttle: throttle.clone(),
        keys: Arc::clone(keys),
    };
    let memory = token::memory(config);
    let follower = Arc::new(Follower::new(store.clone(), clock.clone(), followed, memory));
    follower.catch_up().await?;
    let sign_in = Arc::new(SignIn::new(store.clone(), hasher, throttle.clone(), Arc::clone(&follower)));
    let basic = Arc::new(Basic::new(Arc::clone(&sign_in), Arc::clone(&accounts), random));
    Ok((People { accounts, api_keys, basic, sessions, revocations, follower }, sign_in))
}

/// Says how to add the first user, and never makes one up.
async fn advise(store: &Store) -> Result<(), StoreError> {
    if !store.is_none() && !store.has_users().await? {
        tracing::warn!("there are no users yet: add the first one with `portcullis user add NAME`");
    }
    Ok(())
}

fn bind_control(config: &Config) -> Result<Option<Control>, StartError> {
    let Some(path) = &config.admin.control else { return Ok(None) };
    match Control::bind(path) {
        Ok(control) => Ok(Some(control)),
        // A second gateway on the same store works: it takes in changes by itself within a second.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(%error, "no control socket");
            Ok(None)
        }
        Err(source) => Err(StartError::Control { path: path.clone(), source }),
    }
}

/// Descriptors that are no connections: the store, logs, listeners, what a runtime needs.
const OWN_FILES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_clients_than_descriptors_for_them_and_their_upstreams() {
        for (wanted, files, expected) in [
            (100, usize::MAX, 100),
            (100, 200, 100),
            (100, 199, 83),
            (10_000, 1024, 496),
            (10_000, 64, 16),
            (10_000, 10, 1),
        ] {
            assert_eq!(affordable(wanted, files), expected, "{wanted} of {files}");
        }
    }
}
