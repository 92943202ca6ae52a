//! `portcullis key`: which keys sign, a new one in place of the one that does, and the end of one that was stolen.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::needed::store_file;
use super::prompt::Failure;
use super::table;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, KeySource};
use crate::secret::Random;
use crate::session::keys::{ASSERTIONS_LIVE, fresh, tokens_live};
use crate::store::{KeyRecord, KeyUse, Lives, Retired, Store};
use crate::token::{self, ASSERTION_ALGORITHM, KeyError, KeySet, algorithm_name};

/// `portcullis key …`
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys, and what each is used for now
    List(List),
    /// Make a new key that signs from now on; the old ones verify until their last token has expired
    Rotate(Rotate),
    /// End a key at once: nothing that it has signed is believed any more
    Retire(Retire),
}

/// `key list`
#[derive(Clone, Copy, Debug, Args)]
pub struct List {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `key rotate`
#[derive(Clone, Copy, Debug, Args)]
pub struct Rotate {
    /// Publish the new key at once and sign with it only after this time, so that whoever verifies tokens knows it by then
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "0s", hide_default_value = true)]
    pub publish_first: Duration,
    /// Rotate the key of assertions, which applications are sent, in place of that of tokens
    #[arg(long)]
    pub assertion: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `key retire`
#[derive(Clone, Debug, Args)]
pub struct Retire {
    /// The key, as `key list` shows it
    #[arg(value_name = "KEY")]
    pub kid: String,
}

/// Does what `command` says; calls `after_change` when something has changed, so that a running gateway looks at once.
/// Blocks; not for use within a runtime.
///
/// # Errors
/// When it can't be done.
pub fn run(
    command: KeyCommand,
    config: &Config,
    out: &mut dyn Write,
    after_change: &mut dyn FnMut(&Config),
) -> Result<(), Failure> {
    store_file(config)?;
    if let KeyCommand::Rotate(Rotate { assertion: false, .. }) = command {
        refuse_configured(config)?;
    }
    let clock = Clock::system();
    let store = open(config, &clock)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match (command, store) {
        (KeyCommand::List(args), store) => {
            let records = match &store {
                Some(store) => runtime.block_on(store.signing_keys())?,
                None => Vec::new(),
            };
            list(args, config, &records, clock.now(), out)
        }
        (KeyCommand::Rotate(_), None) => Err(Failure::new(
            "there is no store yet, so there is no key to replace",
            "the first one is made when the gateway starts",
        )),
        (KeyCommand::Retire(args), store) => {
            runtime.block_on(retire(&args.kid, config, store.as_ref()))?;
            after_change(config);
            writeln!(out, "retired {}: what it has signed is refused from now on", args.kid)?;
            writeln!(
                out,
                "note: programs that keep the published keys may believe it until they ask for them again, in five minutes or more"
            )?;
            Ok(())
        }
        (KeyCommand::Rotate(args), Some(store)) => {
            let purpose = if args.assertion { KeyUse::Assertions } else { KeyUse::Tokens };
            let key = fresh(purpose, &config.tokens, clock.now(), &Random::system())?;
            let (key, _) = runtime.block_on(store.rotate_keys(key, args.publish_first))?;
            after_change(config);
            let keys = runtime.block_on(store.signing_keys())?;
            let of_purpose = keys.iter().filter(|former| former.purpose == purpose && former.ever_signs());
            let former = of_purpose.filter_map(|former| former.until(lives(purpose, config))).max();
            rotated(args, &key, former, out)
        }
    }
}

/// Ends the key called `kid`, where another one signs in its place.
async fn retire(kid: &str, config: &Config, store: Option<&Store>) -> Result<(), Failure> {
    if configured(config)?.iter().any(|key| key.id == kid) {
        let name = if matches!(config.tokens.keys, KeySource::Pem(_)) { "key" } else { "secret" };
        return Err(Failure::new(
            format!("the key {kid} comes from `{name}` in [tokens] of the configuration, not from the store"),
            format!("take it out of `{name}`, put another one in its place, and restart the gateway"),
        ));
    }
    let unknown = || Failure::new(format!("there is no key named {kid:?}"), "`portcullis key list` shows all");
    let store = store.ok_or_else(unknown)?;
    let keys = store.signing_keys().await?;
    // Those of the store sign nothing, and are not listed, where the configuration has others.
    let is_used =
        |key: &&KeyRecord| key.purpose == KeyUse::Assertions || matches!(config.tokens.keys, KeySource::Store);
    let key = keys.iter().filter(is_used).find(|key| key.kid == kid).ok_or_else(unknown)?;
    let (algorithm, rotate) = match key.purpose {
        KeyUse::Tokens => (config.tokens.algorithm, "portcullis key rotate"),
        KeyUse::Assertions => (ASSERTION_ALGORITHM, "portcullis key rotate --assertion"),
    };
    match store.retire_key(kid, algorithm).await? {
        Retired::Gone(_) => Ok(()),
        Retired::Unknown => Err(unknown()),
        Retired::Signing => Err(Failure::new(
            format!("no other key signs in the place of {kid}, so it was not retired"),
            format!("make another one first with `{rotate}`, then retire this one"),
        )),
    }
}

/// The store, if its file is there: listing makes none.
fn open(config: &Config, clock: &Clock) -> Result<Option<Store>, Failure> {
    let path = store_file(config)?;
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(Store::open(&config.store, clock.clone(), Random::system())?.remembering(token::memory(config))))
}

/// Where keys come from the configuration, a new one in the store would sign nothing.
fn refuse_configured(config: &Config) -> Result<(), Failure> {
    let (name, example) = match config.tokens.keys {
        KeySource::Store => return Ok(()),
        KeySource::Shared(_) => ("secret", "{ file = \"new\" }, { file = \"old\" }"),
        KeySource::Pem(_) => ("key", "{ file = \"new.pem\" }, { file = \"old.pem\" }"),
    };
    Err(Failure::new(
        format!("the keys of tokens come from `{name}` in [tokens] of the configuration, not from the store"),
        format!(
            "put a new one first, which then signs, and keep the old one behind it: `{name} = [{example}]`; \
             restart the gateway, and take the old one out when `max_lifetime` has passed"
        ),
    ))
}

/// What a key is used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Signing,
    Waiting,
    Verifying,
    Expired,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Waiting => "waiting",
            Self::Verifying => "verifying",
            Self::Expired => "expired",
        }
    }
}

struct Row<'a> {
    key: &'a KeyRecord,
    state: State,
    until: Option<Timestamp>,
}

fn rows<'a>(records: &'a [KeyRecord], config: &Config, now: Timestamp) -> Vec<Row<'a>> {
    let of = |purpose| {
        let algorithm = match purpose {
            KeyUse::Tokens => config.tokens.algorithm,
            KeyUse::Assertions => ASSERTION_ALGORITHM,
        };
        let lives = lives(purpose, config);
        let is_used = purpose == KeyUse::Assertions || matches!(config.tokens.keys, KeySource::Store);
        let mut keys = records.iter().filter(move |key| key.purpose == purpose && is_used).rev();
        let can_sign = move |key: &&KeyRecord| key.algorithm == algorithm && key.ever_signs();
        let is_due = move |key: &&KeyRecord| can_sign(key) && key.not_before <= now.max(key.created_at);
        let signing = keys.clone().find(is_due).map(|key| key.kid.as_str());
        std::iter::from_fn(move || {
            let key = keys.next()?;
            let until = key.until(lives);
            let state = match () {
                () if Some(key.kid.as_str()) == signing => State::Signing,
                () if until.is_some_and(|until| until <= now) => State::Expired,
                () if can_sign(&key) && key.not_before > now => State::Waiting,
                () => State::Verifying,
            };
            Some(Row { key, state, until })
        })
    };
    of(KeyUse::Tokens).chain(of(KeyUse::Assertions)).collect()
}

fn list(
    args: List,
    config: &Config,
    records: &[KeyRecord],
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let configured = configured(config)?;
    let rows = rows(records, config, now);
    if args.json {
        let keys: Vec<Value> =
            configured.iter().map(|key| key.as_json(config)).chain(rows.iter().map(as_json)).collect();
        writeln!(out, "{:#}", json!({ "keys": keys }))?;
        return Ok(());
    }
    let algorithm = algorithm_name(config.tokens.algorithm).to_owned();
    let configured = configured.into_iter().map(|key| {
        let state = if key.signs { "signing" } else { "verifying" };
        [key.id, "tokens".to_owned(), algorithm.clone(), format!("{state} (configuration)"), String::new()]
    });
    let stored = rows.iter().map(|row| {
        let when = match row.state {
            State::Signing | State::Expired => String::new(),
            State::Waiting => format!("signs from {}", second(row.key.not_before)),
            State::Verifying => row.until.map_or_else(String::new, |until| format!("until {}", second(until))),
        };
        let key = row.key;
        [
            key.kid.clone(),
            used_for(key).to_owned(),
            algorithm_name(key.algorithm).to_owned(),
            row.state.name().to_owned(),
            when,
        ]
    });
    let table: Vec<_> = configured.chain(stored).collect();
    if table.is_empty() {
        writeln!(out, "no keys yet; the first one is made when the gateway starts")?;
    } else {
        table::write(out, ["KEY", "USED FOR", "ALGORITHM", "STATE", "WHEN"], &table)?;
    }
    Ok(())
}

/// A key of the configuration.
struct Configured {
    id: String,
    signs: bool,
}

impl Configured {
    fn as_json(&self, config: &Config) -> Value {
        json!({
            "kid": self.id,
            "use": "tokens",
            "algorithm": algorithm_name(config.tokens.algorithm),
            "from": "configuration",
            "state": if self.signs { "signing" } else { "verifying" },
            "created_at": null,
            "not_before": null,
            "retired_at": null,
            "verifies_until": null,
        })
    }
}

fn configured(config: &Config) -> Result<Vec<Configured>, Failure> {
    if matches!(config.tokens.keys, KeySource::Store) {
        return Ok(Vec::new());
    }
    let set = KeySet::new(&config.tokens, &[], Random::system())?;
    let keys = set.key_ids().enumerate();
    Ok(keys.map(|(index, id)| Configured { id: id.to_owned(), signs: index == 0 }).collect())
}

fn rotated(args: Rotate, key: &KeyRecord, former: Option<Timestamp>, out: &mut dyn Write) -> Result<(), Failure> {
    if args.json {
        let state = if args.publish_first.is_zero() { State::Signing } else { State::Waiting };
        writeln!(out, "{:#}", as_json(&Row { key, state, until: None }))?;
        return Ok(());
    }
    let signs = match args.publish_first.is_zero() {
        true => "signs from now on".to_owned(),
        false => format!("is published and signs from {}", second(key.not_before)),
    };
    writeln!(out, "{} ({}) {signs}", key.kid, algorithm_name(key.algorithm))?;
    if let Some(until) = former {
        writeln!(out, "what the former key has signed verifies until {}", second(until))?;
    }
    Ok(())
}

fn as_json(row: &Row<'_>) -> Value {
    let key = row.key;
    json!({
        "kid": key.kid,
        "use": used_for(key),
        "algorithm": algorithm_name(key.algorithm),
        "from": "store",
        "state": row.state.name(),
        "created_at": key.created_at.rfc3339(),
        "not_before": key.not_before.rfc3339(),
        "retired_at": key.retired_at.map(Timestamp::rfc3339),
        "verifies_until": row.until.map(Timestamp::rfc3339),
    })
}

fn lives(purpose: KeyUse, config: &Config) -> Lives {
    match purpose {
        KeyUse::Tokens => tokens_live(&config.tokens),
        KeyUse::Assertions => ASSERTIONS_LIVE,
    }
}

const fn used_for(key: &KeyRecord) -> &'static str {
    match key.purpose {
        KeyUse::Tokens => "tokens",
        KeyUse::Assertions => "assertions",
    }
}

/// To the next whole second, so that nothing is over before the time that is shown.
fn second(at: Timestamp) -> String {
    Timestamp::from_secs(at.as_millis().div_ceil(1000)).rfc3339()
}

/// `10m`; longer than a month is a slip.
fn span(text: &str) -> Result<Duration, String> {
    let span = config::parse_duration(text)?;
    if span > LONGEST_WAIT { Err("longer than 30d".to_owned()) } else { Ok(span) }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::new(format!("[tokens] {error}"), "")
    }
}

/// How long a key may be published before it signs.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);
