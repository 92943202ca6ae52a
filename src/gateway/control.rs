//! The control socket: how a command line on the same machine reaches a running gateway.
//!
//! A unix socket of mode 0600 whose peers must run as the gateway's user or as root. One line asks, one line answers;
//! only `recent` is answered by as many lines as its first one says.

use std::io::{self, BufRead as _, BufReader as StdReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::readiness::{self, Finding};
use super::reload::{self, Request};
use crate::clock::Timestamp;
use crate::config::{Facts, Show};
use crate::explain::{self, Explanation, Past};
use crate::listen::unix::{self, Admits, Claim};
use crate::message::forwarded::Trust;
use crate::observe::{Reach, log};
use crate::state::Shared;

/// A control socket that is bound; its file goes with it.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    _claim: Claim,
}

impl Control {
    /// Binds the socket, in place of one that a dead gateway left behind.
    ///
    /// # Errors
    /// When another gateway listens there, or the directory can't be written.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let (listener, claim) = bind(path, 0o600)?;
        Ok(Self { listener, _claim: claim })
    }

    /// Answers until the task ends.
    pub(super) async fn serve(&self, clerk: Arc<Clerk>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let clerk = Arc::clone(&clerk);
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &clerk).await {
                            tracing::debug!(%error, "control connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket can't accept");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }
}

/// Binds a unix socket of `mode` in place of one that a dead gateway left behind.
///
/// # Errors
/// When someone listens there, the path is something else, or the directory can't be written.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Claim)> {
    let (socket, claim) = unix::bind(path, &Admits { mode, user: None, group: None })?;
    Ok((UnixListener::from_std(socket)?, claim))
}

async fn answer(stream: UnixStream, clerk: &Clerk) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer is another user"));
    }
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    timeout(PATIENCE, (&mut reader).take(MOST_BYTES).read_line(&mut line)).await??;
    let (command, argument) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let reply = match (command, argument.trim()) {
        ("catch-up", "") => match timeout(PATIENCE, clerk.shared.people.follower.catch_up()).await? {
            Ok(()) => "ok\n".to_owned(),
            Err(error) => format!("error {error}\n"),
        },
        ("why", id) => clerk.why(id),
        ("recent", "") => return timeout(PATIENCE, clerk.recent(reader.into_inner())).await?,
        ("log-level", filter) => log_level(filter),
        ("proxies", "") => clerk.proxies(),
        ("facts", "") => clerk.facts(),
        ("config", form @ ("" | "json")) => clerk.config(!form.is_empty()),
        ("reload", color @ ("" | "color")) => {
            let reloaded = timeout(RELOAD_PATIENCE, reload::ask(&clerk.reloads, "command")).await?;
            let document = reloaded.map(|reloaded| reloaded.json(!color.is_empty()));
            document.map_or_else(|| "error the gateway is ending\n".to_owned(), |document| format!("ok {document}\n"))
        }
        _ => "error unknown command\n".to_owned(),
    };
    timeout(PATIENCE, reader.into_inner().write_all(reply.as_bytes())).await?
}

/// Filters the log by `filter`, where there is one, and says by what it is filtered.
fn log_level(filter: &str) -> String {
    let changed = if filter.is_empty() { Ok(()) } else { log::set_filter(filter) };
    match (changed, log::filter()) {
        (Err(error), _) => format!("error {error}\n"),
        (Ok(()), None) => format!("error {}\n", log::FilterError::NotOurs),
        (Ok(()), Some(in_force)) => {
            if !filter.is_empty() {
                tracing::warn!(filter = in_force, "the log is filtered anew, until the next start or reload");
            }
            format!("ok {in_force}\n")
        }
    }
}

/// What commands are answered from.
#[derive(Debug)]
pub(super) struct Clerk {
    pub(super) shared: Arc<Shared>,
    pub(super) reloads: mpsc::Sender<Request>,
}

impl Clerk {
    /// The explanation of the request called `id`, or how far the memory reaches.
    fn why(&self, id: &str) -> String {
        let answer = match self.shared.recent.find(id) {
            Some(kept) => {
                let access = self.shared.current.load_full();
                Why::Explained(Box::new(explain::explain_kept(access.config(), access.rules(), &kept)))
            }
            None => {
                let (refused, passed) = self.shared.recent.reach();
                Why::Unknown { refused: refused.into(), passed: passed.into() }
            }
        };
        serde_json::to_string(&answer).map_or_else(|error| format!("error {error}\n"), |text| text + "\n")
    }

    /// What is in force, without its secrets.
    fn config(&self, as_json: bool) -> String {
        let access = self.shared.current.load_full();
        let show = Show::of(access.config());
        let show = match log::filter() {
            Some(level) => show.with_log_level(&level),
            None => show,
        };
        let document = if as_json { show.json() } else { Value::String(show.toml()) };
        format!("ok {document}\n")
    }

    /// Who sends forwarded headers without being trusted, and how often.
    fn proxies(&self) -> String {
        let access = self.shared.current.load_full();
        let server = &access.config().server;
        let trust = Trust { proxies: server.trusted_proxies.clone(), unix: server.trusts_unix, ..Trust::default() };
        let seen = self.shared.unbelieved.all(&trust);
        serde_json::to_string(&seen).map_or_else(|error| format!("error {error}\n"), |seen| format!("ok {seen}\n"))
    }

    /// What is in force, where it is listened, and how other issuers' keys are.
    fn facts(&self) -> String {
        let listeners = self.shared.metrics.listeners.all();
        let running = Running {
            facts: Facts::of(self.shared.current.load_full().config()),
            listeners: listeners.iter().filter_map(|(address, _)| address.parse().ok()).collect(),
            issuers: readiness::issuers(&self.shared.current).into_iter().map(IssuerState::from).collect(),
        };
        serde_json::to_string(&running).map_or_else(|error| format!("error {error}\n"), |text| format!("ok {text}\n"))
    }

    /// Every request that is remembered, one a line, after a line that says how many there are.
    async fn recent(&self, stream: UnixStream) -> io::Result<()> {
        let all = self.shared.recent.all();
        let mut out = tokio::io::BufWriter::new(stream);
        out.write_all(format!("{}\n", all.len()).as_bytes()).await?;
        for kept in all {
            let mut line = serde_json::to_vec(&Past::of(kept))?;
            line.push(b'\n');
            out.write_all(&line).await?;
        }
        out.flush().await
    }
}

/// What a running gateway says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The configuration in force.
    pub facts: Facts,
    /// Where clients connect; ports that the system chose included.
    pub listeners: Vec<SocketAddr>,
    /// Other issuers.
    pub issuers: Vec<IssuerState>,
}

/// How an issuer's keys are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssuerState {
    /// Its name.
    pub name: String,
    /// Whether its tokens can be judged.
    pub is_good: bool,
    /// In words.
    pub text: String,
}

impl From<Finding> for IssuerState {
    fn from(Finding { subject, verdict }: Finding) -> Self {
        let is_good = verdict.is_ok();
        Self { name: subject.unwrap_or_default(), is_good, text: verdict.unwrap_or_else(|why| why) }
    }
}

/// What `why` is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Why.
    Explained(Box<Explanation>),
    /// No such request is remembered.
    Unknown {
        /// How many refusals are, and since when.
        refused: Memory,
        /// How many others are, and since when.
        passed: Memory,
    },
}

/// How far the memory of one kind of requests reaches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// How many are remembered.
    pub count: usize,
    /// The oldest of them.
    pub since: Option<String>,
    /// Whether there were older ones.
    pub forgets: bool,
}

impl From<Reach> for Memory {
    fn from(reach: Reach) -> Self {
        Self { count: reach.count, since: reach.since.map(Timestamp::rfc3339), forgets: reach.forgets }
    }
}

/// Has the gateway that runs with this control socket take in what was just written to the store.
/// Without a running gateway there is nothing to do: `Ok(false)`.
///
/// # Errors
/// When there is one and it does not answer, or can't read the store. It takes changes in by itself within a second.
pub fn catch_up(path: &Path) -> io::Result<bool> {
    match ask(path, "catch-up") {
        Ok(_) => Ok(true),
        Err(error) if is_nobody(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has the gateway that runs with this control socket read its configuration anew. The answer is the one of
/// [`super::Reloaded::json`]; without a running gateway there is none.
///
/// # Errors
/// When there is one and it does not answer, or ends.
pub fn reload(path: &Path, color: bool) -> io::Result<Option<Value>> {
    let question = if color { "reload color" } else { "reload" };
    match ask_for(path, question, RELOAD_PATIENCE + PATIENCE, LONGEST_REPLY) {
        Ok(reply) => serde_json::from_str(&reply).map(Some).map_err(io::Error::other),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is in force in the gateway that runs with this control socket: as one document, or a string with a `gateway.toml`.
/// `Ok(None)`: no gateway runs.
///
/// # Errors
/// When there is one and it does not answer, or can't say.
pub fn config(path: &Path, as_json: bool) -> io::Result<Option<Value>> {
    match ask_for(path, if as_json { "config json" } else { "config" }, PATIENCE, LONGEST_REPLY) {
        Ok(reply) => serde_json::from_str(&reply).map(Some).map_err(io::Error::other),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the gateway that runs with this control socket says of itself. `Ok(None)`: none runs.
///
/// # Errors
/// When there is one and it does not answer, or can't say.
pub fn facts(path: &Path) -> io::Result<Option<Running>> {
    match ask_for(path, "facts", PATIENCE, LONGEST_REPLY) {
        Ok(reply) => serde_json::from_str(&reply).map(Some).map_err(io::Error::other),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who sends forwarded headers to the running gateway without being trusted, and how often: the first few since its start.
///
/// # Errors
/// When none runs, or it can't say.
pub fn unbelieved(path: &Path) -> io::Result<Vec<(IpAddr, u64)>> {
    serde_json::from_str(&ask(path, "proxies")?).map_err(io::Error::other)
}

/// Whether nobody listens there.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Asks the gateway that runs with this control socket, in one line; gives what stands behind its `ok`.
///
/// # Errors
/// When there is none, it does not answer, or says `error`: then the rest of its line is the message.
pub fn ask(path: &Path, line: &str) -> io::Result<String> {
    ask_for(path, line, PATIENCE, MOST_BYTES)
}

fn ask_for(path: &Path, line: &str, patience: Duration, most: u64) -> io::Result<String> {
    if line.contains('\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a question is one line"));
    }
    let mut reply = String::new();
    connect(path, line, patience, most)?.read_line(&mut reply)?;
    let reply = reply.trim();
    match reply.split_once(' ').unwrap_or((reply, "")) {
        ("ok", rest) => Ok(rest.to_owned()),
        ("error", why) => Err(io::Error::other(why.to_owned())),
        _ => Err(io::Error::other(format!("the gateway says {reply:?}"))),
    }
}

/// Why the request called `id` came out as it did. `Ok(None)`: no gateway runs.
///
/// # Errors
/// When there is one and it does not answer, or can't say.
pub fn why(path: &Path, id: &str) -> io::Result<Option<Why>> {
    let Some(mut reply) = open(path, &format!("why {id}"), MOST_EXPLAINED)? else { return Ok(None) };
    read(&line(&mut reply)?).map(Some)
}

/// What the running gateway has judged lately, the oldest first. `Ok(None)`: no gateway runs.
///
/// # Errors
/// When there is one and it does not answer, or stops in the middle.
pub fn recent(path: &Path) -> io::Result<Option<Vec<Past>>> {
    let Some(mut reply) = open(path, "recent", MOST_REMEMBERED)? else { return Ok(None) };
    let count: usize = read(&line(&mut reply)?)?;
    // Not more at once than there can be, whatever is said.
    let mut all = Vec::with_capacity(count.min(1 << 15));
    for _ in 0..count {
        all.push(read(&line(&mut reply)?)?);
    }
    Ok(Some(all))
}

/// Asks the gateway that runs with this control socket. `Ok(None)`: none does.
fn open(path: &Path, question: &str, most: u64) -> io::Result<Option<StdReader<io::Take<StdStream>>>> {
    match connect(path, question, PATIENCE, most) {
        Ok(reply) => Ok(Some(reply)),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path, question: &str, patience: Duration, most: u64) -> io::Result<StdReader<io::Take<StdStream>>> {
    let mut stream = StdStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    Ok(StdReader::new(io::Read::take(stream, most)))
}

fn line(reply: &mut StdReader<io::Take<StdStream>>) -> io::Result<String> {
    let mut line = String::new();
    reply.read_line(&mut line)?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::Error::other("the gateway's answer broke off")) }
}

fn read<T: DeserializeOwned>(line: &str) -> io::Result<T> {
    match line.strip_prefix("error ") {
        Some(error) => Err(io::Error::other(format!("the running gateway says: {}", error.trim()))),
        None => serde_json::from_str(line).map_err(io::Error::from),
    }
}

/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload may take, those included that others asked for before.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// How long accepting rests after it failed.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Bytes of a line.
const MOST_BYTES: u64 = 4096;

/// Bytes of an explanation.
const MOST_EXPLAINED: u64 = 16 << 20;

/// Bytes of all that is remembered.
const MOST_REMEMBERED: u64 = 256 << 20;
/// Bytes of an answer: every route of a large file by name, twice.
const LONGEST_REPLY: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn replaces_a_dead_socket_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, file) = (directory.path().join("a.sock"), directory.path().join("notes"));
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(bind(&file, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        let (listener, claim) = bind(&socket, 0o660).unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&socket, 0o660).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(socket.exists(), "a dead gateway leaves its file");
        let second = bind(&socket, 0o660).unwrap();
        drop(claim);
        assert!(socket.exists(), "it is the second's by now");
        drop(second);
        assert!(!socket.exists());
    }
}
