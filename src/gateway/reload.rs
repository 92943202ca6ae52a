//! Another configuration while the gateway runs: whole or not at all.
//!
//! Everything that can fail is done first, beside what is in force. What is put in force then are pointers: no request
//! waits for it, and none sees half of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::StartError;
use super::account_file;
use super::admin::{AdminPlace, NextPlace};
use super::files::Watch;
use super::listeners::{Listeners, Planned};
use super::prepare;
use super::worker::{self, Crew};
use crate::config::changes::{CONTROL, STORE, WORKERS};
use crate::config::{Changes, Config, Loaded};
use crate::diag::{Diagnostic, Diagnostics};
use crate::explain::{self, Differences, Past};
use crate::observe::access::AccessLog;
use crate::observe::{self, otlp};
use crate::session::keys::{KeysError, NextKeys};
use crate::state::{Parts, Shared, State};
use crate::token;
use crate::token::foreign::Issuers;
use crate::upstream::{Checkers, Pool};

/// Someone asks for a reload.
#[derive(Debug)]
pub(super) struct Request {
    cause: &'static str,
    answer: Option<oneshot::Sender<Reloaded>>,
}

impl Request {
    /// One that nobody waits for.
    pub(super) const fn because_of(cause: &'static str) -> Self {
        Self { cause, answer: None }
    }

    /// One whose answer comes through the receiver; it is dropped when the gateway ends before.
    pub(super) fn asked_by(cause: &'static str) -> (Self, oneshot::Receiver<Reloaded>) {
        let (answer, answered) = oneshot::channel();
        (Self { cause, answer: Some(answer) }, answered)
    }

    pub(super) fn answer(self, reloaded: &Reloaded) {
        if let Some(answer) = self.answer {
            let _asker_left = answer.send(reloaded.clone());
        }
    }
}

/// What came of a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// Whether the configuration is in force; otherwise the former one is.
    pub is_applied: bool,
    /// The file.
    pub file: PathBuf,
    /// What has changed; nothing where the file was refused.
    pub changes: Changes,
    /// How the requests of late would have fared; `None` where the file was refused or changes nothing.
    pub recent: Option<Differences>,
    /// What was found in the file: why it was refused, or what to look at.
    pub findings: Diagnostics,
}

impl Reloaded {
    /// `applied` or `refused`, for logs and metrics.
    pub const fn result(&self) -> &'static str {
        if self.is_applied { "applied" } else { "refused" }
    }

    /// For a program; `text` are the findings for a person.
    pub fn json(&self, color: bool) -> Value {
        json!({
            "result": self.result(),
            "file": self.file.display().to_string(),
            "changes": self.changes,
            "recent": self.recent,
            "summary": format!("{}{}", self.changes, self.recent.as_ref().map(Differences::words).unwrap_or_default()),
            "findings": self.findings.json(),
            "text": self.findings.render(color),
        })
    }
}

/// What is in force, and what it takes to replace it.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<State>,
    pub(super) pools: Arc<Vec<Arc<Pool>>>,
    pub(super) listeners: Listeners,
    pub(super) admin: AdminPlace,
    pub(super) crew: Crew,
    pub(super) watch: Watch,
    pub(super) checkers: Checkers,
}

/// A configuration that is ready to be put in force.
struct Next {
    state: Arc<State>,
    keys: NextKeys,
    pools: Arc<Vec<Arc<Pool>>>,
    listeners: Planned,
    admin: Option<NextPlace>,
    /// What is odd, though it stands in nobody's way.
    warnings: Vec<Diagnostic>,
}

impl Reloader {
    /// Reads the configuration anew for all who asked, and puts it in force if there is nothing against it.
    ///
    /// May be dropped at any moment: then it has taken effect or it has not.
    pub(super) async fn reload(&mut self, asked: &[Request]) -> Reloaded {
        let (started, file) = (Instant::now(), self.state.config.file.clone());
        let causes: Vec<&str> = asked.iter().map(|request| request.cause).collect();
        self.watch.note().await;
        let loaded = load(file.clone()).await;
        self.watch.follow(loaded.files);
        let (config, mut findings) = (loaded.config, loaded.diagnostics);
        let (mut changes, mut recent) = (Changes::default(), None);
        let mut is_applied = false;
        if let Some(config) = config {
            changes = Changes::between(&self.state.config, &config);
            match self.next(config, &changes).await {
                Err(finding) => {
                    findings = findings.with(finding);
                    changes = Changes::default();
                }
                Ok(next) => {
                    findings = note_later(&mut changes, findings);
                    findings = next.warnings.iter().cloned().fold(findings, Diagnostics::with);
                    if !changes.is_empty() {
                        recent = self.compare(&next.state).await;
                    }
                    let [routes, upstreams, issuers, listeners, keys] = changes.brief();
                    let (judged, differ) = recent.as_ref().map(|recent| (recent.judged, recent.differ)).unzip();
                    info!(file = %file.display(), routes, upstreams, issuers, listeners, keys, judged, differ, "taking in a configuration");
                    self.put_in_force(next).await;
                    is_applied = true;
                }
            }
        }
        let reloaded = Reloaded { is_applied, file, changes, recent, findings };
        self.tell(&reloaded, &causes, started.elapsed());
        reloaded
    }

    /// Builds everything of `config`. Nothing that is in force changes.
    async fn next(&self, mut config: Config, changes: &Changes) -> Result<Next, Diagnostic> {
        if let Some(key) = changes.keys.iter().find(|key| [STORE, CONTROL].contains(*key)) {
            let finding = Diagnostic::error("needs-restart", format!("`{key}` can't change while the gateway runs"));
            return Err(finding.help("restart the gateway, or write the value that it runs with"));
        }
        config.server.workers = self.state.config.server.workers;
        config.server.tls.keep(&self.state.config.server.tls);
        let (former, shared) = (&self.state, &self.shared);
        prepare::open_files(&config);
        let listeners =
            self.listeners.plan(&config.server.listen, self.crew.len(), &shared.metrics).map_err(not_possible)?;
        let admin = self.admin.next(config.admin.listen.as_ref()).map_err(not_possible)?;
        let log = &config.log;
        let is_same_log = (&log.access, log.format) == (&former.config.log.access, former.config.log.format);
        let access_log = match is_same_log {
            true => Ok(former.access_log.clone()),
            false => AccessLog::open(&log.access, log.format, &former.access_log),
        };
        let access_log = access_log.map_err(|error| not_possible(StartError::AccessLog(error)))?;
        let tracer = match config.trace == former.config.trace {
            true => former.tracer.clone(),
            false => config.trace.as_ref().map(|trace| otlp::start(trace, &shared.metrics)),
        };
        let pools = worker::pools(&config, &shared.metrics, &self.pools).map_err(not_possible)?;
        let follower = &shared.people.follower;
        let remembered = follower.remember_for(token::memory(&config)).await;
        remembered.map_err(|error| not_possible(StartError::Store(error)))?;
        // Late, because it may make a key.
        let keys = shared.own_keys.next(&config).await.map_err(|error| match error {
            KeysError::Store(source) => not_possible(StartError::Store(source)),
            KeysError::Key(source) => not_possible(StartError::Key(source)),
        })?;
        let accounts = account_file::accounts(&config.store).map_err(not_possible)?;
        let (ring, former, shared) = (Arc::clone(keys.ring()), Arc::clone(former), Arc::clone(shared));
        let build = move || {
            let config = Arc::new(config);
            let issuers = Arc::new(Issuers::new(&config.issuers, &former.issuers, &shared.clock));
            let access = Arc::new(former.access.succeeded_by(&config, Arc::clone(&ring), Arc::clone(&issuers)));
            State::new(config, Parts { keys: ring, issuers, access, access_log, tracer }, shared)
        };
        let state = match spawn_blocking(build).await {
            Ok(Ok(state)) => Arc::new(state),
            Ok(Err(invalid)) => return Err(not_possible(StartError::Cookie(invalid))),
            Err(_) => return Err(not_possible(StartError::Panicked)),
        };
        // Last of all: from here on nothing stands in the way, so that accounts and rules change together or not at all.
        let taken = account_file::sync(&self.shared.store, accounts).await.map_err(not_possible)?;
        let warnings = taken.iter().map(|name| account_file::taken(&state.config.store, name)).collect();
        Ok(Next { state, keys, pools, listeners, admin, warnings })
    }

    /// How the requests of late would fare under `next`, which stands beside what is in force.
    async fn compare(&self, next: &Arc<State>) -> Option<Differences> {
        let (shared, next) = (Arc::clone(&self.shared), Arc::clone(next));
        let compare = move || {
            let pasts: Vec<Past> = shared.recent.all().into_iter().map(Past::of).collect();
            explain::differing(pasts.into_iter(), &next.config, next.access.rules())
        };
        spawn_blocking(compare).await.ok()
    }

    /// Whoever comes now is judged by `next`, and what streams is judged anew.
    async fn put_in_force(&mut self, next: Next) {
        let Next { state, keys, pools, listeners, admin, warnings: _ } = next;
        let (config, people) = (&state.config, &self.shared.people);
        let keys_are_due = self.shared.own_keys.adopt(keys);
        // Whoever is no longer in the file of accounts is out when the reload is told to be done.
        if let Err(error) = people.follower.catch_up().await {
            warn!(%error, "changes of accounts are taken in as soon as the store answers");
        }
        people.sessions.set_terms(config.sessions.clone());
        self.shared.current.replace(Arc::clone(&state.access));
        self.shared.access_log.store(Arc::new(state.access_log.clone()));
        let entrances = self.listeners.take(listeners, &config.server.public_url.origin());
        let mut taken_in = self.crew.take_in(&state, &pools, entrances);
        self.shared.pools.replace(Arc::clone(&pools));
        self.checkers.follow(&pools, seed(&self.shared));
        state.issuers.keep_fresh();
        if let Some(admin) = admin {
            self.admin.move_to(admin);
        }
        if let Err(error) = observe::change_log(&config.log) {
            warn!(%error, "the log goes on as it was");
        }
        people.follower.raise();
        let former = std::mem::replace(&mut self.state, Arc::clone(&state));
        self.pools = pools;
        // A worker takes it in between two events, so that only one that hangs is late.
        if tokio::time::timeout(PATIENCE, taken_in.recv()).await.is_err() {
            warn!("a worker is late to take in the configuration");
        }
        // A large one takes milliseconds to take apart.
        drop(spawn_blocking(move || drop(former)));
        if keys_are_due && let Err(error) = self.shared.own_keys.reload().await {
            warn!(%error, "keys that came to the store during the reload are not known yet");
        }
    }

    /// The one place where the result of a reload is told: to the log and to the metrics.
    fn tell(&self, reloaded: &Reloaded, causes: &[&str], took: Duration) {
        let (file, result, cause) = (reloaded.file.display(), reloaded.result(), causes.join(", "));
        for finding in reloaded.findings.iter().take(MOST_TOLD) {
            let place = reloaded.findings.place(finding).map(|(start, _)| format!("{}:{}", start.line, start.column));
            let (code, help) = (finding.code, finding.help.as_deref());
            match finding.severity {
                crate::diag::Severity::Error => {
                    error!(code, place, problem = finding.message, help, "configuration error")
                }
                crate::diag::Severity::Warning => {
                    warn!(code, place, problem = finding.message, help, "configuration warning");
                }
            }
        }
        if reloaded.is_applied {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            self.shared.metrics.reloads.succeeded(self.shared.clock.now().as_secs());
            info!(%file, result, cause, millis, "configuration reloaded");
        } else {
            let errors = reloaded.findings.errors();
            self.shared.metrics.reloads.failed();
            error!(%file, result, cause, errors, "configuration refused: the former one stays in force");
        }
    }
}

/// Where the times between checks are drawn from.
pub(super) fn seed(shared: &Shared) -> u64 {
    u64::from_be_bytes(shared.random.bytes())
}

/// Reads the file on a thread that may take its time.
async fn load(file: PathBuf) -> Loaded {
    let read = file.clone();
    let loaded = spawn_blocking(move || explain::load(&read, &|name| std::env::var(name).ok())).await;
    loaded.unwrap_or_else(|_| {
        let finding = Diagnostic::error("unreadable-file", "the configuration could not be read: this is a bug");
        let source = crate::diag::Source::new(file.display().to_string(), String::new());
        Loaded { config: None, diagnostics: Diagnostics::new(source, vec![finding]), files: vec![file] }
    })
}

/// What stays as it is until the next start is no change but a warning.
fn note_later(changes: &mut Changes, mut findings: Diagnostics) -> Diagnostics {
    if changes.keys.contains(&WORKERS) {
        let message = format!("`{WORKERS}` takes effect at the next start: until then there are as many as before");
        let finding = Diagnostic::warning("needs-restart", message).help("restart the gateway when it suits");
        findings = findings.with(finding);
    }
    changes.keys.retain(|key| *key != WORKERS);
    findings
}

/// What stands in the way of a file that is right in itself.
fn not_possible(error: StartError) -> Diagnostic {
    let finding = Diagnostic::error("not-possible-now", error.to_string());
    finding.help("the former configuration stays in force; try again with `portcullis reload`")
}

/// Asks for a reload and waits for what comes of it; `None`: the gateway ends.
pub(super) async fn ask(requests: &mpsc::Sender<Request>, cause: &'static str) -> Option<Reloaded> {
    let (request, answered) = Request::asked_by(cause);
    requests.send(request).await.ok()?;
    answered.await.ok()
}

/// How long workers may take to take in a new state.
const PATIENCE: Duration = Duration::from_secs(5);

/// Findings in the log at most; `portcullis reload` shows all.
const MOST_TOLD: usize = 20;
