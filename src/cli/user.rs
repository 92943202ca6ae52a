//! `portcullis user`: accounts, made and changed in the store's file, beside a running gateway or without one.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::needed::store_file;
use super::prompt::{Console, Failure};
use super::table;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::identity::password::{Workspace, htpasswd};
use crate::identity::{UserName, is_group_name, is_line};
use crate::secret::Random;
use crate::store::{NewUser, Origin, Store, StoreError, UserRecord};
use crate::token;

/// `portcullis user …`
#[derive(Clone, Debug, Subcommand)]
pub enum UserCommand {
    /// Make an account
    Add(Add),
    /// List all accounts
    List(Format),
    /// Show one account
    Show(Show),
    /// Set a new password, which ends all sessions of the account
    Passwd(Passwd),
    /// Set the groups, or show them
    Groups(Groups),
    /// Change groups, e-mail address or full name
    Set(Set),
    /// Forbid an account to sign in, and end all its sessions
    Disable(Named),
    /// Let a disabled account sign in again
    Enable(Named),
    /// Forgive the failed sign-ins of an account
    Unlock(Named),
    /// Delete an account, and end all its sessions
    Delete(Delete),
    /// Make accounts from an htpasswd file (bcrypt, `htpasswd -B`)
    Import(Import),
}

/// `user add`
#[derive(Clone, Debug, Args)]
pub struct Add {
    /// The name: a-z, 0-9 and ._@+-
    #[arg(value_name = "NAME")]
    pub user: String,
    /// What is known of the person.
    #[command(flatten)]
    pub profile: Profile,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// What is known of a person besides the name.
#[derive(Clone, Debug, Default, Args)]
pub struct Profile {
    /// The groups, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub groups: Option<Vec<String>>,
    /// The e-mail address
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// The full name
    #[arg(long = "name", value_name = "FULL NAME")]
    pub full_name: Option<String>,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Format {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `user show`
#[derive(Clone, Debug, Args)]
pub struct Show {
    /// The account
    #[arg(value_name = "NAME")]
    pub user: String,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// `user passwd`
#[derive(Clone, Debug, Args)]
pub struct Passwd {
    /// The account
    #[arg(value_name = "NAME")]
    pub user: String,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// `user groups`
#[derive(Clone, Debug, Args)]
pub struct Groups {
    /// The account
    #[arg(value_name = "NAME")]
    pub user: String,
    /// The groups it is to have, separated by commas; "" for none
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub groups: Option<Vec<String>>,
}

/// `user set`
#[derive(Clone, Debug, Args)]
pub struct Set {
    /// The account
    #[arg(value_name = "NAME")]
    pub user: String,
    /// What to change; "" removes it.
    #[command(flatten)]
    pub profile: Profile,
}

/// A command that takes a name only.
#[derive(Clone, Debug, Args)]
pub struct Named {
    /// The account
    #[arg(value_name = "NAME")]
    pub user: String,
}

/// `user delete`
#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// The account
    #[arg(value_name = "NAME")]
    pub user: String,
    /// Don't ask
    #[arg(long)]
    pub yes: bool,
}

/// `user import`
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// The file; accounts that are there already stay as they are
    pub file: PathBuf,
    /// Groups that every account is to have, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub groups: Option<Vec<String>>,
}

/// Does what `command` says; calls `after_change` when something has changed, so that a running gateway looks at once.
/// Blocks; not for use within a runtime.
///
/// # Errors
/// When it can't be done.
pub fn run(
    command: UserCommand,
    config: &Config,
    console: &mut Console<'_>,
    after_change: &mut dyn FnMut(&Config),
) -> Result<(), Failure> {
    let makes_accounts = matches!(command, UserCommand::Add(_) | UserCommand::Import(_));
    let path = store_file(config)?;
    if !makes_accounts && !path.exists() {
        let message = format!("the store {} is not there, so there are no users", path.display());
        return Err(Failure::new(message, "make the first one with `portcullis user add NAME`"));
    }
    let store = Store::open(&config.store, Clock::system(), Random::system())?.remembering(token::memory(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(apply(command, &store, console));
    if let Ok(Outcome::Changed) = outcome {
        after_change(config);
    }
    // What was done is done; the next one to open the file takes it from its log.
    let _stays_in_the_log = runtime.block_on(store.close());
    outcome.map(drop)
}

/// Whether a command has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Changed,
    Same,
}

async fn apply(command: UserCommand, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    match command {
        UserCommand::Add(args) => add(args, store, console).await,
        UserCommand::List(args) => list(args, store, console).await,
        UserCommand::Show(args) => show(args, store, console).await,
        UserCommand::Passwd(args) => passwd(args, store, console).await,
        UserCommand::Groups(args) => groups(args, store, console).await,
        UserCommand::Set(args) => set(args, store, console).await,
        UserCommand::Disable(args) => disable(&args.user, true, store, console).await,
        UserCommand::Enable(args) => disable(&args.user, false, store, console).await,
        UserCommand::Unlock(args) => unlock(&args.user, store, console).await,
        UserCommand::Delete(args) => delete(args, store, console).await,
        UserCommand::Import(args) => import(args, store, console).await,
    }
}

async fn add(args: Add, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let name = parse_name(&args.user)?;
    let groups = parse_groups(args.profile.groups.unwrap_or_default())?;
    let email = parse_line("e-mail address", args.profile.email)?;
    let full_name = parse_line("full name", args.profile.full_name)?;
    let taken = || {
        Failure::new(
            format!("there is a user named \"{name}\" already"),
            format!("`portcullis user passwd {name}` sets another password"),
        )
    };
    // Before the password is asked for, not after.
    if let Some(user) = store.user(&name).await? {
        is_own(&user)?;
        return Err(taken());
    }
    let password = console.new_password(name.as_str(), args.password_stdin)?;
    let hash = Some(Workspace::default().hash(&password));
    let user = NewUser { name: name.clone(), hash, groups, email, full_name };
    store.add_user(user).await?.ok_or_else(taken)?;
    writeln!(console.out, "added {name}")?;
    Ok(Outcome::Changed)
}

async fn list(args: Format, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let users = store.users().await?;
    if args.json {
        print_json(&json!({ "users": users.iter().map(as_json).collect::<Vec<_>>() }), console)?;
    } else if users.is_empty() {
        writeln!(console.out, "no users yet; `portcullis user add NAME` makes one")?;
    } else {
        let rows: Vec<_> = users
            .into_iter()
            .map(|user| {
                let (state, last) = (state(&user), minute(user.last_sign_in));
                let (name, groups, email) = (user.name.to_string(), user.groups.join(","), user.email);
                [name, groups, email.unwrap_or_default(), state.to_owned(), origin(user.origin).to_owned(), last]
            })
            .collect();
        table::write(console.out, ["NAME", "GROUPS", "E-MAIL", "STATE", "FROM", "LAST SIGN-IN"], &rows)?;
    }
    Ok(Outcome::Same)
}

async fn show(args: Show, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let user = find(&args.user, store).await?;
    if args.format.json {
        print_json(&as_json(&user), console)?;
        return Ok(Outcome::Same);
    }
    let sessions = store.sessions(Some(&user.name)).await?.len();
    let state = state(&user).to_owned();
    let rows = [
        ["name", user.name.as_str()].map(str::to_owned),
        ["full name".to_owned(), user.full_name.unwrap_or_default()],
        ["e-mail".to_owned(), user.email.unwrap_or_default()],
        ["groups".to_owned(), user.groups.join(",")],
        ["state".to_owned(), state],
        ["from", origin(user.origin)].map(str::to_owned),
        ["sessions".to_owned(), sessions.to_string()],
        ["made".to_owned(), minute(Some(user.created_at))],
        ["password set".to_owned(), minute(Some(user.password_changed_at))],
    ];
    table::write(console.out, ["last sign-in", &minute(user.last_sign_in)], &rows)?;
    Ok(Outcome::Same)
}

async fn passwd(args: Passwd, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let user = find_own(&args.user, store).await?;
    let password = console.new_password(user.name.as_str(), args.password_stdin)?;
    let hash = Workspace::default().hash(&password);
    store.set_password(&user.name, hash).await?.ok_or_else(|| gone(&user.name))?;
    writeln!(console.out, "set the password of {}; all its sessions are over", user.name)?;
    Ok(Outcome::Changed)
}

async fn groups(args: Groups, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let user = find(&args.user, store).await?;
    let Some(groups) = args.groups else {
        writeln!(console.out, "{}", shown(&user.groups))?;
        return Ok(Outcome::Same);
    };
    is_own(&user)?;
    let groups = parse_groups(groups)?;
    let text = shown(&groups);
    store.set_groups(&user.name, groups).await?.ok_or_else(|| gone(&user.name))?;
    writeln!(console.out, "groups of {}: {text}", user.name)?;
    Ok(Outcome::Changed)
}

async fn set(args: Set, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let user = find_own(&args.user, store).await?;
    let Profile { groups, email, full_name } = args.profile;
    if groups.is_none() && email.is_none() && full_name.is_none() {
        return Err(Failure::new("nothing to set", "give --groups, --email or --name"));
    }
    let groups = groups.map(parse_groups).transpose()?;
    if email.is_some() || full_name.is_some() {
        let email = if email.is_some() { parse_line("e-mail address", email)? } else { user.email };
        let full_name = if full_name.is_some() { parse_line("full name", full_name)? } else { user.full_name };
        store.set_profile(&user.name, email, full_name).await?.ok_or_else(|| gone(&user.name))?;
    }
    if let Some(groups) = groups {
        store.set_groups(&user.name, groups).await?.ok_or_else(|| gone(&user.name))?;
    }
    writeln!(console.out, "changed {}", user.name)?;
    Ok(Outcome::Changed)
}

async fn disable(name: &str, disabled: bool, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let name = find_own(name, store).await?.name;
    store.set_disabled(&name, disabled).await?.ok_or_else(|| gone(&name))?;
    let done = if disabled { "is disabled; all its sessions are over" } else { "is enabled" };
    writeln!(console.out, "{name} {done}")?;
    Ok(Outcome::Changed)
}

async fn unlock(name: &str, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let name = find(name, store).await?.name;
    store.unlock(&name).await?.ok_or_else(|| gone(&name))?;
    writeln!(console.out, "failed sign-ins of {name} are forgiven")?;
    Ok(Outcome::Changed)
}

async fn delete(args: Delete, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let name = find_own(&args.user, store).await?.name;
    // No command asks when there is nobody to answer.
    if !args.yes && console.is_terminal {
        console.confirm(&format!("deleting {name}"), name.as_str())?;
    }
    store.delete_user(&name).await?.ok_or_else(|| gone(&name))?;
    writeln!(console.out, "deleted {name}; all its sessions are over")?;
    Ok(Outcome::Changed)
}

async fn import(args: Import, store: &Store, console: &mut Console<'_>) -> Result<Outcome, Failure> {
    let groups = parse_groups(args.groups.unwrap_or_default())?;
    let file = args.file.display();
    let text =
        fs::read_to_string(&args.file).map_err(|error| Failure::new(format!("can't read {file}: {error}"), ""))?;
    let entries = htpasswd::parse(&text).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Failure::new(format!("{file} can't be imported, and nothing of it was:{}", lines.concat()), "")
    })?;
    let users: Vec<_> = entries
        .into_iter()
        .map(|entry| NewUser {
            name: entry.name,
            hash: Some(entry.hash),
            groups: groups.clone(),
            email: None,
            full_name: None,
        })
        .collect();
    let mut taken = Vec::new();
    for batch in users.chunks(BATCH) {
        taken.extend(store.add_users(batch.to_vec()).await?);
    }
    let added = users.len() - taken.len();
    writeln!(console.out, "imported {added} of {} accounts", users.len())?;
    for name in &taken {
        writeln!(console.out, "{name} was there already and stays as it was")?;
    }
    Ok(if added > 0 { Outcome::Changed } else { Outcome::Same })
}

pub(super) async fn find(text: &str, store: &Store) -> Result<UserRecord, Failure> {
    let name = parse_name(text)?;
    if let Some(user) = store.user(&name).await? {
        return Ok(user);
    }
    let users = store.users().await?;
    let nearest = users
        .iter()
        .map(|user| (strsim::damerau_levenshtein(user.name.as_str(), name.as_str()), user.name.as_str()))
        .filter(|(distance, near)| *distance <= 2 && *distance < near.len())
        .min();
    match nearest {
        Some((_, near)) => Err(Failure::new(format!("no user named \"{name}\"; did you mean \"{near}\"?"), "")),
        None => Err(Failure::new(format!("no user named \"{name}\""), "`portcullis user list` shows all")),
    }
}

/// An account that is the store's own.
async fn find_own(text: &str, store: &Store) -> Result<UserRecord, Failure> {
    let user = find(text, store).await?;
    is_own(&user)?;
    Ok(user)
}

/// What a file says is not changed here: it would come back with the next reload.
fn is_own(user: &UserRecord) -> Result<(), Failure> {
    match user.origin {
        Origin::Store => Ok(()),
        Origin::File => Err(Failure::new(
            format!("\"{}\" stands in the file that `[store] users` names", user.name),
            "edit its line there; a running gateway takes it in by itself",
        )),
    }
}

fn gone(name: &UserName) -> Failure {
    Failure::new(format!("\"{name}\" was deleted meanwhile"), "")
}

pub(super) fn parse_name(text: &str) -> Result<UserName, Failure> {
    UserName::parse(text).ok_or_else(|| {
        Failure::new(
            format!("{text:?} can't be the name of a user"),
            "letters, digits and ._@+-, beginning with a letter or a digit, at most 64",
        )
    })
}

/// `""` is no group.
pub(super) fn parse_groups(mut groups: Vec<String>) -> Result<Vec<String>, Failure> {
    if groups.iter().all(String::is_empty) {
        groups.clear();
    }
    match groups.iter().find(|group| !is_group_name(group)) {
        Some(bad) => Err(Failure::new(
            format!("{bad:?} can't be the name of a group"),
            "without comma, control or space around it: --groups admin,ops",
        )),
        None => Ok(groups),
    }
}

/// `""` is nothing.
fn parse_line(what: &str, text: Option<String>) -> Result<Option<String>, Failure> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if !is_line(&text) => Err(Failure::new(
            format!("{text:?} can't be the {what}"),
            "at most 256 bytes without control or outer space",
        )),
        text => Ok(text),
    }
}

fn shown(groups: &[String]) -> String {
    if groups.is_empty() { "none".to_owned() } else { table::plain(&groups.join(",")) }
}

const fn state(user: &UserRecord) -> &'static str {
    match user {
        UserRecord { disabled: true, .. } => "disabled",
        UserRecord { hash: None, .. } => "no password",
        _ => "enabled",
    }
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Store => "store",
        Origin::File => "file",
    }
}

pub(super) fn minute(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| Timestamp::from_secs(at.as_secs() / 60 * 60).rfc3339().replace(":00.000Z", "Z"),
    )
}

fn as_json(user: &UserRecord) -> Value {
    json!({
        "name": user.name.as_str(),
        "full_name": user.full_name,
        "email": user.email,
        "groups": user.groups,
        "disabled": user.disabled,
        "from": origin(user.origin),
        "created_at": user.created_at.rfc3339(),
        "password_changed_at": user.password_changed_at.rfc3339(),
        "last_sign_in": user.last_sign_in.map(Timestamp::rfc3339),
    })
}

pub(super) fn print_json(document: &Value, console: &mut Console<'_>) -> Result<(), Failure> {
    writeln!(console.out, "{document:#}")?;
    Ok(())
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string(), error.kind.help())
    }
}

/// Accounts made in one transaction: each stays far within the store's deadline.
const BATCH: usize = 500;

#[cfg(test)]
mod tests;
