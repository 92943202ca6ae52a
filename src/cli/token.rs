//! `portcullis token`: what a token says and what it is worth here, and tokens for tests.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::needed::store_file;
use super::prompt::{Console, Failure};
use super::user::{self, Format, print_json};
use super::{session, table};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Accounts, Config, KeySource, Tokens};
use crate::identity::UserName;
use crate::secret::Random;
use crate::session::keys::{nobodys, token_keys};
use crate::store::{EventKind, KeyUse, Store, UserRecord};
use crate::token::foreign::{ForeignRefusal, Issuer, Issuers, Verified};
use crate::token::{self, Claims, Event, KeySet, MAX_TOKEN_BYTES, NewClaims, Reason, Refusal, Revocations};

/// `portcullis token …`
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Show what an access token says, and whether the gateway would take it
    Inspect(Inspect),
    /// Make an access token for a test; it belongs to no session
    Mint(Mint),
}

/// `token inspect`
#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// The token; `-` or nothing: read from standard input, where no other user of the machine sees it
    #[arg(value_name = "TOKEN")]
    pub token: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// `token mint`
#[derive(Clone, Debug, Args)]
pub struct Mint {
    /// Whom it names
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// How long it lives, at most `tokens.max_lifetime`
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = config::parse_duration)]
    pub lifetime: Duration,
    /// The groups that it says, separated by commas; the account's own unless given, which count here in any case
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub groups: Option<Vec<String>>,
    /// How long ago its user signed in, such as 10m (`auth_time`), for rules with `signed_in_within`; not said unless given
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    pub signed_in_ago: Option<Duration>,
    /// How its user signed in, such as password (`amr`), for rules with `methods_of_sign_in`; not said unless given
    #[arg(long, visible_alias = "method", value_delimiter = ',', value_name = "A,B", value_parser = method)]
    pub method_of_sign_in: Vec<String>,
}

/// Whether the answer is yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, or the token is good.
    Yes,
    /// The token is not good.
    No,
}

/// Does what `command` says. Blocks; not for use within a runtime.
///
/// # Errors
/// When it can't be done.
pub fn run(command: TokenCommand, config: &Config, console: &mut Console<'_>) -> Result<Answer, Failure> {
    let clock = Clock::system();
    let store = session::open(config, &clock)?;
    session::runtime()?.block_on(async {
        match command {
            TokenCommand::Inspect(args) => inspect(&args, config, store.as_ref(), clock.now(), console).await,
            TokenCommand::Mint(args) => mint(&args, config, store.as_ref(), clock.now(), console).await,
        }
    })
}

async fn inspect(
    args: &Inspect,
    config: &Config,
    store: Option<&Store>,
    now: Timestamp,
    console: &mut Console<'_>,
) -> Result<Answer, Failure> {
    let token = given(args.token.as_deref(), console)?;
    let keys = keys(config, &config.tokens, store).await?;
    let refused = judge(&token, &keys, config, store, now).await?;
    let mut parts = token.split('.');
    let [header, claims] = [parts.next(), parts.next()].map(|part| part.and_then(decoded));
    let verdict = if refused.is_none() { "good" } else { "refused" };
    if args.format.json {
        let times: Map<String, Value> =
            claims.iter().flat_map(times).map(|(name, at)| (name, json!(at.rfc3339()))).collect();
        let document = json!({
            "verdict": verdict, "reason": refused, "header": header, "claims": claims, "times": times,
        });
        print_json(&document, console)?;
    } else {
        match &refused {
            None if store.is_some() => writeln!(console.out, "good: the gateway takes it")?,
            None => writeln!(console.out, "good, as far as keys and times go: there is no store with accounts yet")?,
            Some(reason) => writeln!(console.out, "refused: {}", table::plain(reason))?,
        }
        show("header", header.as_ref(), now, console)?;
        show("claims", claims.as_ref(), now, console)?;
    }
    Ok(if refused.is_none() { Answer::Yes } else { Answer::No })
}

async fn mint(
    args: &Mint,
    config: &Config,
    store: Option<&Store>,
    now: Timestamp,
    console: &mut Console<'_>,
) -> Result<Answer, Failure> {
    store_file(config)?;
    let longest = config.tokens.max_lifetime;
    if args.lifetime > longest || args.lifetime < Duration::from_secs(1) {
        let message = format!("a token can live from a second to {}", words(longest));
        return Err(Failure::new(message, "`tokens.max_lifetime` says how long"));
    }
    let (name, own_groups) = match store {
        Some(store) => {
            let user = user::find(&args.user, store).await?;
            (user.name, user.groups)
        }
        None => (user::parse_name(&args.user)?, Vec::new()),
    };
    let groups = args.groups.clone().map(user::parse_groups).transpose()?.unwrap_or(own_groups);
    let tokens = Tokens { lifetime: args.lifetime, ..config.tokens.clone() };
    if let (Some(store), KeySource::Store) = (store, &config.tokens.keys) {
        store.note_key_lifetime(KeyUse::Tokens, args.lifetime).await?;
    }
    let claims = NewClaims {
        subject: name.as_str(),
        now,
        session: None,
        signed_in_at: args.signed_in_ago.map(|ago| now - ago),
        methods: &args.method_of_sign_in,
        groups: &groups,
        scope: "",
        not_after: None,
    };
    let token = keys(config, &tokens, store).await?.sign(&claims);
    let token = token.map_err(|error| Failure::new(error.to_string(), ""))?;
    writeln!(console.out, "{token}")?;
    Ok(Answer::Yes)
}

/// A way to sign in, as `methods_of_sign_in` names it.
fn method(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if fits { Ok(text.to_owned()) } else { Err("1 to 64 visible ASCII characters, such as password".to_owned()) }
}

/// The token from the command line or from standard input.
pub(super) fn given(argument: Option<&str>, console: &mut Console<'_>) -> Result<String, Failure> {
    if let Some(token) = argument.filter(|token| *token != "-") {
        return Ok(token.trim().to_owned());
    }
    if console.is_terminal && argument.is_none() {
        return Err(Failure::new(
            "no token",
            "give it on standard input, such as `portcullis token inspect < token.txt`",
        ));
    }
    let mut text = String::new();
    (&mut *console.input).take(MOST_INPUT).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(Failure::new("no token on standard input", "")),
        token => Ok(token.to_owned()),
    }
}

/// The keys as the gateway has them.
pub(super) async fn keys(config: &Config, tokens: &Tokens, store: Option<&Store>) -> Result<KeySet, Failure> {
    if config.store.file().is_none() {
        let keys = nobodys(tokens, Clock::system().now(), &Random::system());
        return keys.map_err(|error| Failure::new(error.to_string(), ""));
    }
    let stored = match (&tokens.keys, store) {
        (KeySource::Store, Some(store)) => token_keys(store.signing_keys().await?, tokens),
        _ => Vec::new(),
    };
    KeySet::new(tokens, &stored, Random::system()).map_err(|error| {
        let help =
            if matches!(tokens.keys, KeySource::Store) { "`portcullis serve` makes one when it starts" } else { "" };
        Failure::new(format!("[tokens] {error}"), help)
    })
}

/// Why the gateway would refuse `token` now; `None`: it would not.
pub(super) async fn judge(
    token: &str,
    keys: &KeySet,
    config: &Config,
    store: Option<&Store>,
    now: Timestamp,
) -> Result<Option<String>, Failure> {
    let verified = match keys.verify(token, now) {
        Ok(verified) => verified,
        Err(refusal) => {
            return match foreign(&refusal, config) {
                Some(issuer) => Ok(theirs(token, &issuer, config, store, now).await?.err().map(|(_, why)| why)),
                None => Ok(Some(refusal.to_string())),
            };
        }
    };
    let (claims, Some(store)) = (verified.claims(), store) else { return Ok(None) };
    if let Some(why) = revoked(claims, config, store, now).await? {
        return Ok(Some(why));
    }
    let account = match UserName::parse(&claims.sub) {
        None => return Ok(Some("no account can have this name".to_owned())),
        Some(name) => store.user(&name).await?,
    };
    Ok(match account {
        None => Some("no such account".to_owned()),
        Some(account) if account.disabled => Some("the account is disabled".to_owned()),
        Some(_) => None,
    })
}

/// The issuer of the configuration that a token names which is none of ours.
pub(super) fn foreign(refusal: &Refusal, config: &Config) -> Option<Arc<Issuer>> {
    let Refusal::NotOurs { issuer: Some(named) } = refusal else { return None };
    Issuers::new(&config.issuers, &Issuers::default(), &Clock::system()).find(named).cloned()
}

/// What a token of another issuer comes to, who is asked for its keys; and the local account that counts for it.
pub(super) type Theirs = Result<(Verified, Option<UserRecord>), (ForeignRefusal, String)>;

/// Judges a token of another issuer as the gateway would.
pub(super) async fn theirs(
    token: &str,
    issuer: &Arc<Issuer>,
    config: &Config,
    store: Option<&Store>,
    now: Timestamp,
) -> Result<Theirs, Failure> {
    issuer.ask().await;
    let verified = match issuer.verify(token, now).await {
        Ok(verified) => verified,
        Err(ForeignRefusal::Unavailable) => {
            let error = issuer.status().error.unwrap_or_else(|| ForeignRefusal::Unavailable.to_string());
            let why = format!("the keys of {} can't be had: {error}", issuer.config().name);
            return Ok(Err((ForeignRefusal::Unavailable, why)));
        }
        Err(refusal) => return Ok(Err((refusal, refusal.to_string()))),
    };
    let refused = |why: &str| Ok(Err((ForeignRefusal::Invalid(Reason::Person), why.to_owned())));
    let (claims, Some(store)) = (verified.claims(), store) else { return Ok(Ok((verified, None))) };
    if let Some(why) = revoked(claims, config, store, now).await? {
        return refused(&why);
    }
    let account = match UserName::parse(&claims.sub) {
        None => None,
        Some(name) => store.user(&name).await?,
    };
    match (account, issuer.config().accounts) {
        (None, _) => Ok(Ok((verified, None))),
        (Some(_), Accounts::Separate) => refused("a local account has this name"),
        (Some(account), Accounts::Shared) if account.disabled => refused("the account is disabled"),
        (Some(account), Accounts::Shared) => Ok(Ok((verified, Some(account)))),
    }
}

async fn revoked(claims: &Claims, config: &Config, store: &Store, now: Timestamp) -> Result<Option<String>, Failure> {
    let memory = token::memory(config);
    let (revocations, mut seq) = (Revocations::new(), 0);
    loop {
        let (events, _) = store.events_after(seq, BATCH).await?;
        for event in &events {
            let (at, until) = (event.at, event.at + memory);
            match &event.kind {
                EventKind::SessionEnded { session } => {
                    revocations.apply(Event::SessionEnded { sid: session, until }, now);
                }
                EventKind::TokenRevoked { jti } => revocations.apply(Event::TokenRevoked { jti, until }, now),
                EventKind::UserSignedOut { user, .. } => {
                    revocations.apply(Event::UserSignedOut { user: user.as_str(), at, until }, now);
                }
                _ => {}
            }
            seq = event.seq;
        }
        if events.len() < BATCH {
            return Ok(revocations.refuses(claims).map(|why| why.to_string()));
        }
    }
}

/// A part of a token as it reads, whether it is believed or not.
fn decoded(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn show(
    title: &str,
    members: Option<&Map<String, Value>>,
    now: Timestamp,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let Some(members) = members else {
        writeln!(console.out, "\n{title}: can't be read")?;
        return Ok(());
    };
    writeln!(console.out, "\n{title}:")?;
    let width = members.keys().map(|name| table::plain(name).chars().count()).max().unwrap_or(0);
    for (name, value) in members {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let when = date(name, value).map(|at| format!("  {}, {}", second(at), ago(at, now))).unwrap_or_default();
        writeln!(console.out, "  {:width$}  {}{when}", table::plain(name), table::plain(&text))?;
    }
    Ok(())
}

fn times(claims: &Map<String, Value>) -> impl Iterator<Item = (String, Timestamp)> {
    claims.iter().filter_map(|(name, value)| Some((name.clone(), date(name, value)?)))
}

fn date(name: &str, value: &Value) -> Option<Timestamp> {
    ["iat", "nbf", "exp", "auth_time"].contains(&name).then(|| value.as_u64().map(Timestamp::from_secs))?
}

fn second(at: Timestamp) -> String {
    Timestamp::from_secs(at.as_secs()).rfc3339().replace(".000Z", "Z")
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", words(at.since(now))) } else { format!("{} ago", words(now.since(at))) }
}

/// A span in its largest unit, rounded down.
fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// Bytes read from standard input: more than any token has.
const MOST_INPUT: u64 = 2 * MAX_TOKEN_BYTES as u64;

/// Events read at once.
const BATCH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_times_in_words() {
        let now = Timestamp::from_secs(1_000_000);
        for (seconds, expected) in [
            (1_000_001, "in 1 second"),
            (1_000_900, "in 15 minutes"),
            (999_999, "1 second ago"),
            (1_000_000, "0 seconds ago"),
            (992_800, "2 hours ago"),
            (136_000, "10 days ago"),
        ] {
            assert_eq!(ago(Timestamp::from_secs(seconds), now), expected);
        }
    }

    #[test]
    fn only_dates_are_read_as_dates() {
        let claims = json!({ "exp": 10, "iat": "10", "nbf": -1, "other": 10 });
        let found: Vec<_> = times(claims.as_object().unwrap()).collect();
        assert_eq!(found, [("exp".to_owned(), Timestamp::from_secs(10))]);
    }
}
