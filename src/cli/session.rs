//! `portcullis session`: who is signed in, and the end of it, beside a running gateway or without one.

use std::io;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::needed::store_file;
use super::prompt::{Console, Failure};
use super::table;
use super::user::{self, Format, minute, print_json};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::secret::Random;
use crate::store::{SessionRecord, Store};
use crate::token;

/// `portcullis session …`
#[derive(Clone, Debug, Subcommand)]
pub enum SessionCommand {
    /// List the sessions that go on, the latest used first
    List(List),
    /// End one session, or all sessions of a user
    Revoke(Revoke),
}

/// `session list`
#[derive(Clone, Debug, Args)]
pub struct List {
    /// Only the sessions of this account
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// `session revoke`
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Revoke {
    /// The session, as `session list` shows it
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub id: Option<String>,
    /// All sessions of this account, and its tokens without a session
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// Does what `command` says; calls `after_change` when something has changed, so that a running gateway looks at once.
/// Blocks; not for use within a runtime.
///
/// # Errors
/// When it can't be done.
pub fn run(
    command: SessionCommand,
    config: &Config,
    console: &mut Console<'_>,
    after_change: &mut dyn FnMut(&Config),
) -> Result<(), Failure> {
    store_file(config)?;
    let clock = Clock::system();
    let store = open(config, &clock)?.ok_or_else(|| {
        Failure::new("the store is not there yet, so there are no sessions", "start the gateway once")
    })?;
    let runtime = runtime()?;
    match command {
        SessionCommand::List(args) => runtime.block_on(list(&args, config, &store, clock.now(), console)),
        SessionCommand::Revoke(args) => {
            runtime.block_on(revoke(&args, &store, console))?;
            after_change(config);
            Ok(())
        }
    }
}

/// The store that the configuration names; `None`: there is none yet, and looking makes none.
pub(super) fn open(config: &Config, clock: &Clock) -> Result<Option<Store>, Failure> {
    let Some(path) = config.store.file() else { return Ok(None) };
    if !path.exists() {
        return Ok(None);
    }
    let store = Store::open(&config.store, clock.clone(), Random::system())?;
    Ok(Some(store.remembering(token::memory(config))))
}

/// A runtime for one command.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn list(
    args: &List,
    config: &Config,
    store: &Store,
    now: Timestamp,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let user = match &args.user {
        Some(name) => Some(user::find(name, store).await?.name),
        None => None,
    };
    let mut sessions = store.sessions(user.as_ref()).await?;
    sessions.retain(|session| !session.is_over(now, config.sessions.idle));
    if args.format.json {
        return print_json(&json!({ "sessions": sessions.iter().map(as_json).collect::<Vec<_>>() }), console);
    }
    if sessions.is_empty() {
        writeln!(console.out, "nobody is signed in")?;
        return Ok(());
    }
    let rows: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            let kind = kind(&session).to_owned();
            let (began, seen, ends) = (session.created_at, session.last_seen, session.expires_at);
            let [began, seen, ends] = [began, seen, ends].map(|at| minute(Some(at)));
            [session.id, session.user.to_string(), kind, session.client, began, seen, ends, session.agent]
        })
        .collect();
    table::write(console.out, ["ID", "USER", "KIND", "CLIENT", "SIGNED IN", "LAST USED", "ENDS", "AGENT"], &rows)?;
    Ok(())
}

async fn revoke(args: &Revoke, store: &Store, console: &mut Console<'_>) -> Result<(), Failure> {
    if let Some(name) = &args.user {
        let user = user::find(name, store).await?.name;
        let count = store.sessions(Some(&user)).await?.len();
        store.end_sessions_of(&user).await?;
        let sessions = if count == 1 { "session" } else { "sessions" };
        writeln!(console.out, "ended {count} {sessions} of {user}, and its tokens without a session")?;
        return Ok(());
    }
    let id = args.id.as_deref().unwrap_or_default();
    let Some(session) = store.session(id).await? else {
        return Err(Failure::new(format!("no session {id:?}"), "`portcullis session list` shows all"));
    };
    store.end_session(id).await?;
    writeln!(console.out, "ended a session of {}", session.user)?;
    Ok(())
}

const fn kind(session: &SessionRecord) -> &'static str {
    match session {
        SessionRecord { key_hash: Some(_), remember: true, .. } => "remembered",
        SessionRecord { key_hash: Some(_), .. } => "browser",
        _ => "tokens",
    }
}

fn as_json(session: &SessionRecord) -> Value {
    json!({
        "id": session.id,
        "user": session.user.as_str(),
        "kind": kind(session),
        "client": session.client,
        "agent": session.agent,
        "methods": session.methods,
        "created_at": session.created_at.rfc3339(),
        "auth_time": session.auth_time.rfc3339(),
        "last_seen": session.last_seen.rfc3339(),
        "expires_at": session.expires_at.rfc3339(),
    })
}
