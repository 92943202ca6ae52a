//! `portcullis apikey`: keys for machines, made and revoked in the store's file, beside a running gateway or without one.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::needed::store_file;
use super::prompt::{Console, Failure};
use super::{table, user};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, parse_duration};
use crate::diag::nearest;
use crate::identity::UserName;
use crate::identity::api_key::{ApiKeyText, generate, is_name};
use crate::secret::Random;
use crate::store::{ApiKeyRecord, Store};
use crate::token;

/// `portcullis apikey …`
#[derive(Clone, Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key, and print it this once
    Add(Add),
    /// List keys; the keys themselves are nowhere to be read
    List(List),
    /// End a key: it is refused from the next request on
    Revoke(Revoke),
}

/// `apikey add`
#[derive(Clone, Debug, Args)]
pub struct Add {
    /// What it is for, such as "backup"
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The account that it acts as
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// Only these groups of the account, separated by commas; "" for none
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub groups: Option<Vec<String>>,
    /// Scopes, separated by commas or spaces, for rules that name `scopes`
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub scopes: Option<Vec<String>>,
    /// Only these routes, by name, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "R1,R2")]
    pub routes: Option<Vec<String>>,
    /// How long it is good for, such as 90d; otherwise until it is revoked
    #[arg(long, value_name = "DURATION")]
    pub expires: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `apikey list`
#[derive(Clone, Debug, Args)]
pub struct List {
    /// Only the keys of this account
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `apikey revoke`
#[derive(Clone, Debug, Args)]
pub struct Revoke {
    /// The key's ID, as `apikey list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Does what `command` says; calls `after_change` when a key was revoked, so that a running gateway looks at once.
/// Blocks; not for use within a runtime.
///
/// # Errors
/// When it can't be done.
pub fn run(
    command: ApiKeyCommand,
    config: &Config,
    console: &mut Console<'_>,
    after_change: &mut dyn FnMut(&Config),
) -> Result<(), Failure> {
    let path = store_file(config)?;
    if !path.exists() {
        let message = format!("the store {} is not there, so there are no users", path.display());
        return Err(Failure::new(message, "make the first one with `portcullis user add NAME`"));
    }
    let clock = Clock::system();
    let store = Store::open(&config.store, clock.clone(), Random::system())?.remembering(token::memory(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ApiKeyCommand::Add(args) => add(args, config, &store, clock.now(), console).await,
            ApiKeyCommand::List(args) => list(args, &store, clock.now(), console).await,
            ApiKeyCommand::Revoke(args) => {
                revoke(&args.id, &store, console).await?;
                after_change(config);
                Ok(())
            }
        }
    })
}

async fn add(
    args: Add,
    config: &Config,
    store: &Store,
    now: Timestamp,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let name = parse_name(args.name)?;
    let owner = user::find(&args.user, store).await?;
    let taken = || {
        let message = format!("{} has a key named \"{name}\" already", owner.name);
        Failure::new(message, "take another name, or revoke that one first (`portcullis apikey list`)")
    };
    if store.api_keys(Some(&owner.name)).await?.iter().any(|key| key.name == name) {
        return Err(taken());
    }
    let groups = args.groups.map(user::parse_groups).transpose()?;
    let scopes = parse_scopes(args.scopes.unwrap_or_default())?;
    let routes = args.routes.map(|routes| parse_routes(routes, config)).transpose()?;
    let expires_at = args.expires.as_deref().map(|text| parse_expiry(text, now)).transpose()?;
    let key = generate(&Random::system());
    let text = ApiKeyText::parse(key.expose()).ok_or_else(|| Failure::new("the key could not be made", ""))?;
    let record = ApiKeyRecord {
        id: text.id().to_owned(),
        key_hash: text.digest(),
        name: name.clone(),
        user: owner.name.clone(),
        groups,
        scopes,
        routes,
        created_at: now,
        expires_at,
        last_used: None,
    };
    if !store.add_api_key(record.clone()).await? {
        return Err(taken());
    }
    if args.json {
        let mut document = as_json(&record, now);
        document["key"] = json!(key.expose());
        return user::print_json(&document, console);
    }
    writeln!(console.out, "{}", key.expose())?;
    writeln!(console.out, "note: this is the only time that the key is shown; its ID is {}", record.id)?;
    for note in notes(&record, &owner.groups, config) {
        writeln!(console.out, "note: {note}")?;
    }
    Ok(())
}

/// What is not wrong with a key, and probably not meant.
fn notes(key: &ApiKeyRecord, groups_of_user: &[String], config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if key.expires_at.is_none() {
        notes.push("it is good until it is revoked; --expires 90d gives it an end".to_owned());
    }
    for group in key.groups.iter().flatten().filter(|group| !groups_of_user.contains(group)) {
        notes.push(format!("{} is not in the group {} now, so the key is not either", key.user, table::plain(group)));
    }
    let counts = |name: &str| key.routes.as_ref().is_none_or(|routes| routes.iter().any(|route| route == name));
    if !config.routes.iter().any(|route| route.accept.api_key && counts(&route.name)) {
        notes.push(
            "no route of its accepts API keys yet: write accept = [\"bearer\", \"cookie\", \"api-key\"] there"
                .to_owned(),
        );
    }
    notes
}

async fn list(args: List, store: &Store, now: Timestamp, console: &mut Console<'_>) -> Result<(), Failure> {
    let owner = match &args.user {
        Some(name) => Some(user::find(name, store).await?.name),
        None => None,
    };
    let keys = store.api_keys(owner.as_ref()).await?;
    if args.json {
        let keys: Vec<_> = keys.iter().map(|key| as_json(key, now)).collect();
        return user::print_json(&json!({ "api_keys": keys }), console);
    }
    if keys.is_empty() {
        writeln!(console.out, "no API keys; `portcullis apikey add NAME --user USER` makes one")?;
        return Ok(());
    }
    let rows: Vec<_> = keys.into_iter().map(|key| row(key, now)).collect();
    table::write(console.out, ["ID", "NAME", "USER", "GROUPS", "SCOPES", "ROUTES", "EXPIRES", "LAST USED"], &rows)?;
    Ok(())
}

fn row(key: ApiKeyRecord, now: Timestamp) -> [String; 8] {
    let limit = |list: Option<Vec<String>>| match list {
        None => "all".to_owned(),
        Some(list) if list.is_empty() => "none".to_owned(),
        Some(list) => list.join(","),
    };
    let expires = match key.expires_at {
        Some(end) if now >= end => "expired".to_owned(),
        end => user::minute(end),
    };
    let last_used = user::minute(key.last_used);
    let scopes = key.scopes.join(",");
    [key.id, key.name, key.user.to_string(), limit(key.groups), scopes, limit(key.routes), expires, last_used]
}

async fn revoke(id: &str, store: &Store, console: &mut Console<'_>) -> Result<(), Failure> {
    // Whoever has the whole key at hand means its ID; it is not said again.
    let id = ApiKeyText::parse(id).map_or(id, ApiKeyText::id);
    let key = store.api_key(id).await?;
    let unknown = || Failure::new("there is no API key of this ID", "`portcullis apikey list` shows all");
    store.revoke_api_key(id).await?.ok_or_else(unknown)?;
    match key {
        Some(key) => writeln!(console.out, "revoked {} ({} of {})", key.id, table::plain(&key.name), key.user)?,
        None => writeln!(console.out, "revoked")?,
    }
    Ok(())
}

fn parse_name(name: String) -> Result<String, Failure> {
    if is_name(&name) {
        Ok(name)
    } else {
        Err(Failure::new(
            format!("{name:?} can't be the name of a key"),
            "1 to 64 bytes without control or outer space",
        ))
    }
}

/// Scopes as RFC 6749 section 3.3 has them.
fn parse_scopes(scopes: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut parsed: Vec<String> = Vec::new();
    for scope in scopes.iter().flat_map(|scopes| scopes.split(' ')).filter(|scope| !scope.is_empty()) {
        if !scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            return Err(Failure::new(format!("{scope:?} can't be a scope"), "visible ASCII without \" and \\"));
        }
        if !parsed.iter().any(|known| known == scope) {
            parsed.push(scope.to_owned());
        }
    }
    Ok(parsed)
}

fn parse_routes(routes: Vec<String>, config: &Config) -> Result<Vec<String>, Failure> {
    let known = || config.routes.iter().map(|route| &*route.name);
    for name in &routes {
        if known().any(|route| route == name) {
            continue;
        }
        let help = match nearest(name, known()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known routes: {}", known().collect::<Vec<_>>().join(", ")),
        };
        return Err(Failure::new(format!("there is no route named {name:?}"), help));
    }
    Ok(routes)
}

fn parse_expiry(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let span = parse_duration(text).map_err(|help| Failure::new(format!("{text:?} is not a duration"), help))?;
    if span.is_zero() {
        return Err(Failure::new("the key would have expired already", "give a duration such as 90d"));
    }
    Ok(now + span)
}

fn as_json(key: &ApiKeyRecord, now: Timestamp) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "user": UserName::as_str(&key.user),
        "groups": key.groups,
        "scopes": key.scopes,
        "routes": key.routes,
        "created_at": key.created_at.rfc3339(),
        "expires_at": key.expires_at.map(Timestamp::rfc3339),
        "expired": key.expires_at.is_some_and(|end| now >= end),
        "last_used": key.last_used.map(Timestamp::rfc3339),
    })
}
