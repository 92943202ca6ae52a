//! `portcullis explain`: which route decides about a request, every condition with its verdict, and what goes on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};

use super::prompt::{Console, Failure};
use super::user::{self, Format, print_json};
use super::{session, token};
use crate::access::{
    Asker, Reason, Rules, Shown, Source, identity_by_foreign_token, identity_by_key, identity_by_token,
};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Accept, Config, Invented};
use crate::explain::{self, Explanation, Question, Style};
use crate::identity::Identity;
use crate::identity::api_key::{self, ApiKeyText};
use crate::message::head::Head;
use crate::message::line::Target;
use crate::policy::Outcome;
use crate::session::{Account, ApiKeys};
use crate::store::Store;
use crate::token::Refusal;
use crate::token::foreign::ForeignRefusal;

/// `portcullis explain`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The method, such as GET
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// A URL, or a path at `server.public_url`'s host
    #[arg(value_name = "URL")]
    pub url: String,
    /// Whoever asks: an account of the store, or with --groups someone who need not exist
    #[arg(long = "as", value_name = "USER")]
    pub user: Option<String>,
    /// The groups of someone who need not exist; "" for none
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub groups: Option<Vec<String>>,
    /// Scopes of their token
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub scopes: Vec<String>,
    /// Claims of their token, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = claims)]
    pub claims: Option<Map<String, Value>>,
    /// How they signed in: password, basic, api-key
    #[arg(long, value_name = "METHOD")]
    pub method_of_sign_in: Option<String>,
    /// How long ago they signed in
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    pub signed_in_ago: Option<Duration>,
    /// The client's address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub from: IpAddr,
    /// A header of the request, for preflights: `Origin: https://app.example.com`
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A token or an API key, judged as the gateway would; `-`: read from standard input
    #[arg(
        long,
        value_name = "TOKEN",
        conflicts_with_all = ["user", "groups", "scopes", "claims", "method_of_sign_in", "signed_in_ago"]
    )]
    pub token: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

impl Args {
    /// The request that is asked about.
    ///
    /// # Errors
    /// What is wrong with the command line.
    pub fn question(&self) -> Result<Question, String> {
        let method =
            Method::from_bytes(self.method.as_bytes()).map_err(|_| format!("{:?} is no method", self.method))?;
        let target = Target::parse(&self.url).map_err(|why| {
            format!("{:?} is {why}; write such as /admin/users or https://apps.example.com/admin/users", self.url)
        })?;
        let invents = !self.scopes.is_empty()
            || self.claims.is_some()
            || self.method_of_sign_in.is_some()
            || self.signed_in_ago.is_some();
        if invents && self.user.is_none() && self.groups.is_none() {
            return Err("say who it is: give --as USER, or --groups A,B for someone who need not exist".to_owned());
        }
        Ok(Question { method, target, client: self.from, now: Timestamp::default() })
    }
}

/// Explains, and says whether the request may pass. Blocks; not for use within a runtime.
///
/// # Errors
/// When it can't be done: no such account, no store, no token.
pub fn run(
    args: &Args,
    question: Question,
    config: &Config,
    console: &mut Console<'_>,
    color: bool,
) -> Result<bool, Failure> {
    let clock = Clock::system();
    let question = Question { now: clock.now(), ..question };
    let rules = Rules::new(&config.routes);
    let is_anyone = args.user.is_some() || args.groups.is_some() || args.token.is_some();
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    // A preflight carries no credential.
    if let Some(explanation) = (!is_anyone).then(|| explain::preflight(config, &rules, &question, &headers)).flatten() {
        print(&explanation, args.format, console, color)?;
        return Ok(explanation.outcome == Outcome::Allow.word());
    }
    let who = session::runtime()?.block_on(who(args, config, &clock, console))?;
    let mut explanation = explain::examine(config, &rules, &question, |head| asker(&who, config, &rules, head));
    explanation.notes.extend(who.note().map(str::to_owned));
    if !headers.is_empty() {
        explanation.notes.push(NO_PREFLIGHT.to_owned());
    }
    print(&explanation, args.format, console, color)?;
    Ok(explanation.outcome == Outcome::Allow.word())
}

/// Prints an explanation, which `why` does too.
///
/// # Errors
/// When the terminal can't be written.
pub(super) fn print(
    explanation: &Explanation,
    format: Format,
    console: &mut Console<'_>,
    color: bool,
) -> Result<(), Failure> {
    if format.json {
        return print_json(&serde_json::to_value(explanation).unwrap_or_default(), console);
    }
    write!(console.out, "{}", explain::render(explanation, Style { color }))?;
    Ok(())
}

/// Who is meant.
enum Who {
    Nobody,
    /// Someone, with the account that they have, if they have one.
    Person(Invented, Option<Account>),
    /// An account that nobody can sign in to.
    Disabled(String),
    /// What a token or key came to.
    Shown {
        identity: Option<Arc<Identity>>,
        key_routes: Option<Arc<[String]>>,
        is_key: bool,
        /// The name of the issuer, where it is another one than this gateway.
        issuer: Option<Arc<str>>,
        refused: Option<(Reason, String)>,
    },
}

impl Who {
    fn note(&self) -> Option<&str> {
        match self {
            Self::Disabled(note) | Self::Shown { refused: Some((_, note)), .. } => Some(note),
            Self::Nobody | Self::Person(..) | Self::Shown { .. } => None,
        }
    }
}

async fn who(args: &Args, config: &Config, clock: &Clock, console: &mut Console<'_>) -> Result<Who, Failure> {
    if args.token.is_some() {
        let token = token::given(args.token.as_deref(), console)?;
        let store = session::open(config, clock)?;
        return match (token.starts_with(api_key::PREFIX), store) {
            (true, Some(store)) => by_api_key(&token, &store, clock.now()).await,
            (true, None) => Err(no_store()),
            (false, store) => by_token(&token, config, store.as_ref(), clock.now()).await,
        };
    }
    let person = |user: &str, groups: &[String]| Invented {
        user: user.to_owned(),
        groups: groups.iter().filter(|group| !group.is_empty()).cloned().collect(),
        scopes: args.scopes.clone(),
        claims: args.claims.clone().unwrap_or_default(),
        method: args.method_of_sign_in.clone(),
        ago: args.signed_in_ago.unwrap_or_default(),
    };
    match (&args.user, &args.groups) {
        (None, None) => Ok(Who::Nobody),
        (user, Some(groups)) => Ok(Who::Person(person(user.as_deref().unwrap_or(SOMEONE), groups), None)),
        (Some(name), None) => {
            let store = session::open(config, clock)?.ok_or_else(no_store)?;
            let record = user::find(name, &store).await?;
            if record.disabled {
                return Ok(Who::Disabled(format!("the account {} is disabled: nobody can sign in to it", record.name)));
            }
            let person = person(record.name.as_str(), &record.groups);
            Ok(Who::Person(person, Account::of(record)))
        }
    }
}

async fn by_token(token: &str, config: &Config, store: Option<&Store>, now: Timestamp) -> Result<Who, Failure> {
    let refused = |reason, why: String| {
        Ok(Who::Shown {
            identity: None,
            key_routes: None,
            is_key: false,
            issuer: None,
            refused: Some((reason, format!("the token: {why}"))),
        })
    };
    let keys = token::keys(config, &config.tokens, store).await?;
    let verified = match keys.verify(token, now) {
        Ok(verified) => verified,
        Err(refusal @ Refusal::NotOurs { .. }) => {
            let Some(issuer) = token::foreign(&refusal, config) else {
                return refused(Reason::BadCredential, refusal.to_string());
            };
            return match token::theirs(token, &issuer, config, store, now).await? {
                Ok((verified, record)) => {
                    let account = record.and_then(Account::of);
                    let profile = account.as_ref().map_or(verified.profile(), |account| &account.profile);
                    let identity = Some(Arc::new(identity_by_foreign_token(&verified, profile)));
                    let issuer = Some(Arc::clone(&issuer.config().name));
                    Ok(Who::Shown { identity, key_routes: None, is_key: false, issuer, refused: None })
                }
                Err((ForeignRefusal::Expired, why)) => refused(Reason::TokenExpired, why),
                Err((ForeignRefusal::Unavailable, why)) => refused(Reason::StoreDown, why),
                Err((ForeignRefusal::Invalid(_), why)) => refused(Reason::BadCredential, why),
            };
        }
        Err(refusal @ Refusal::Expired) => return refused(Reason::TokenExpired, refusal.to_string()),
        Err(refusal) => return refused(Reason::BadCredential, refusal.to_string()),
    };
    let Some(store) = store else { return Err(no_store()) };
    if let Some(why) = token::judge(token, &keys, config, Some(store), now).await? {
        return refused(Reason::BadCredential, why);
    }
    let account = user::find(&verified.claims().sub, store).await.ok().and_then(Account::of);
    match account {
        None => refused(Reason::BadCredential, "no such account".to_owned()),
        Some(account) => {
            let identity = Some(Arc::new(identity_by_token(&account, verified.claims())));
            Ok(Who::Shown { identity, key_routes: None, is_key: false, issuer: None, refused: None })
        }
    }
}

async fn by_api_key(text: &str, store: &Store, now: Timestamp) -> Result<Who, Failure> {
    let refused = |why: &str| {
        let refused = Some((Reason::BadCredential, format!("the API key: {why}")));
        Ok(Who::Shown { identity: None, key_routes: None, is_key: true, issuer: None, refused })
    };
    let Some(text) = ApiKeyText::parse(text) else { return refused("not one, or cut or misspelled") };
    let key = match ApiKeys::new(store.clone()).find(text).await? {
        None => return refused("there is no such key, or it was revoked"),
        Some(key) if key.is_over(now) => return refused("it has expired"),
        Some(key) => key,
    };
    let account = store.user(&key.user).await?.filter(|account| !account.disabled).and_then(Account::of);
    match account.and_then(|account| identity_by_key(&account, &key)) {
        None => refused("its account is disabled or gone"),
        Some(identity) => Ok(Who::Shown {
            identity: Some(Arc::new(identity)),
            key_routes: key.routes().cloned(),
            is_key: true,
            issuer: None,
            refused: None,
        }),
    }
}

/// Who asks, as the route of the path takes them.
fn asker(who: &Who, config: &Config, rules: &Rules, head: &Head) -> Asker {
    match who {
        Who::Nobody | Who::Disabled(_) => Asker::default(),
        Who::Person(person, account) => {
            let asker = explain::invented(person, config, rules, head).unwrap_or_default();
            let profile = account.as_ref().map(|account| Arc::clone(&account.profile));
            match (asker.identity.clone(), profile) {
                (Some(identity), Some(profile)) => {
                    let identity = Identity { profile, ..Identity::clone(&identity) };
                    Asker { identity: Some(Arc::new(identity)), ..asker }
                }
                _ => asker,
            }
        }
        Who::Shown { identity, key_routes, is_key, issuer, refused } => {
            let accept = rules.find(head).map_or(Accept::DEFAULT, |route| route.accept);
            let unproven = refused.as_ref().map(|(reason, _)| *reason);
            match is_key {
                // Where no key counts, it is read as a token and is a bad one.
                true if !accept.api_key && accept.bearer => {
                    Asker { shown: Shown::Bearer, unproven: Some(Reason::BadCredential), ..Asker::default() }
                }
                true => by_accept(Shown::ApiKey, accept.api_key, identity, key_routes, unproven),
                false => {
                    let asker = by_accept(Shown::Bearer, accept.bearer, identity, key_routes, unproven);
                    let source = Source::named(issuer.as_deref(), config);
                    // Where no token counts nobody was shown.
                    if asker.shown == Shown::Nothing {
                        asker
                    } else {
                        Asker { source, issuer: issuer.clone(), ..asker }
                    }
                }
            }
        }
    }
}

/// What the route does not accept belongs to the application, good or bad.
fn by_accept(
    shown: Shown,
    is_accepted: bool,
    identity: &Option<Arc<Identity>>,
    key_routes: &Option<Arc<[String]>>,
    unproven: Option<Reason>,
) -> Asker {
    if !is_accepted {
        return Asker::default();
    }
    Asker { identity: identity.clone(), shown, key_routes: key_routes.clone(), unproven, ..Asker::default() }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write \"Name: value\"")?;
    let name =
        HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("{value:?} is no value of a header"))?;
    Ok((name, value))
}

fn claims(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

fn no_store() -> Failure {
    Failure::new(
        "the store is not there yet",
        "start the gateway once, or give --groups for someone who need not exist",
    )
}

/// What is said where headers were given for nothing.
const NO_PREFLIGHT: &str = "the headers count for nothing: this is no preflight that `cors` decides about. One is an OPTIONS with \
                            Origin and Access-Control-Request-Method and no credential, of a path whose route has `cors`";

/// Someone of whom only the groups matter.
const SOMEONE: &str = "someone";
