//! A request that is asked about and not made: its head, who asks, and what the rules say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use serde_json::Map;

use crate::access::{Asker, Asking, Reason, Rules, Ruling, Says, Shown, Source, Ways};
use crate::clock::Timestamp;
use crate::config::{Accept, Config, Invented, Issuers, Route};
use crate::endpoint::{self, Endpoint};
use crate::identity::{Identity, Profile};
use crate::message::forwarded::ClientAddr;
use crate::message::head::Head;
use crate::message::host::Host;
use crate::message::line::{self, LineError, Target};
use crate::message::path::Reading;
use crate::policy::Outcome;

/// A request that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Its target; without a host it is asked at `public_url`'s.
    pub target: Target,
    /// Where it comes from.
    pub client: IpAddr,
    /// When it is judged.
    pub now: Timestamp,
}

/// What would come of a request.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'a> {
    /// What.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The route that decides.
    pub route: Option<&'a Arc<Route>>,
    /// Under which reading of the path it is refused.
    pub reading: Option<Reading>,
    /// Whether a password on the sign-in page could do.
    pub by_password: bool,
    /// Why it would be refused, and under which reading, were the route that says no not only observed.
    pub observed: Option<(Reason, Option<Reading>)>,
}

impl Question {
    /// The head as the pipeline would make it.
    ///
    /// # Errors
    /// What can't be judged.
    pub fn head(&self, config: &Config) -> Result<Head, Reason> {
        let public = &config.server.public_url;
        if self.target.has_fragment() {
            return Err(Reason::Line(line::RAW_FRAGMENT));
        }
        line::check_method(&self.method).map_err(Reason::Line)?;
        let own = || public.port.map_or_else(|| public.host.clone(), |port| format!("{}:{port}", public.host));
        let authority = self.target.authority.clone().unwrap_or_else(own);
        let host = Host::parse(authority.as_bytes()).map_err(Reason::Host)?;
        let path = line::read_path(&self.target.path, &self.method, true).map_err(Reason::Line)?;
        Ok(Head {
            method: self.method.clone(),
            host,
            path,
            query: self.target.query.clone(),
            client: ClientAddr(self.client.to_canonical()),
            https: self.target.https.unwrap_or(public.https),
            certificate: None,
            now: self.now,
            started: Instant::now(),
        })
    }
}

impl Judgement<'static> {
    /// What comes of a request that can't be judged.
    pub const fn malformed(reason: Reason) -> Self {
        let outcome =
            if matches!(reason, Reason::Line(LineError::OptionsOfServer)) { Outcome::Own } else { Outcome::BadRequest };
        Self { outcome, reason, route: None, reading: None, by_password: false, observed: None }
    }
}

impl Judgement<'_> {
    /// It in words, such as: denied by route `admin`: the user is in none of `groups`.
    pub fn words(&self) -> String {
        words(self.outcome, self.route.map(|route| &*route.name), &self.sentence())
    }

    /// Why, in words.
    pub fn sentence(&self) -> String {
        let read = |reason: Reason, reading: Option<Reading>| match reading {
            None => reason.to_string(),
            Some(reading) => format!("{reason}, read with {}", reading.name()),
        };
        let sentence = read(self.reason, self.reading);
        match self.observed {
            None => sentence,
            Some((reason, reading)) => format!("{sentence}; only observed: {}", read(reason, reading)),
        }
    }
}

/// What would come of the request with this head, of which the gateway's own paths are the first to take theirs.
pub fn judge<'a>(config: &Config, rules: &'a Rules, head: &'a Head, asking: &Asking<'_>) -> Judgement<'a> {
    let own = |outcome| Judgement {
        outcome,
        reason: Reason::Own,
        route: None,
        reading: None,
        by_password: false,
        observed: None,
    };
    match endpoint::find(config, head.host.name(), head.path.canonical()) {
        None => {}
        Some(Endpoint::Unknown) => return own(Outcome::NotFound),
        Some(_) => return own(Outcome::Own),
    }
    let Ruling { route, reading, says, waived } = rules.judge(head, asking);
    let by_password = matches!(says, Says::StepUp(Ways { by_password: true, .. }) | Says::SignIn { by_password: true });
    let observed = waived.map(|no| (no.says.reason(), no.reading));
    Judgement { outcome: says.outcome(), reason: says.reason(), route, reading, by_password, observed }
}

/// Someone who need not exist, with what the route of the path takes from such a person. `None`: no application may be
/// told the name.
pub fn invented(person: &Invented, config: &Config, rules: &Rules, head: &Head) -> Option<Asker> {
    let accept = rules.find(head).map_or(Accept::DEFAULT, |route| route.accept);
    let source = source(person, rules.find(head));
    let needs_token = !person.scopes.is_empty() || !person.claims.is_empty();
    let (shown, method) = match person.method.as_deref() {
        Some(method @ "basic") => (Shown::Basic, method),
        Some(method @ "api-key") => (Shown::ApiKey, method),
        Some(method @ "client-cert") => (Shown::Certificate, method),
        Some(method @ ISSUER) => (Shown::Bearer, method),
        Some(method) => (by_sign_in(accept, needs_token), method),
        None if source != Source::Own => (Shown::Bearer, ISSUER),
        None if accept.cookie || accept.bearer => (by_sign_in(accept, needs_token), "password"),
        None if accept.basic => (Shown::Basic, "basic"),
        None if accept.client_cert && !accept.api_key => (Shown::Certificate, "client-cert"),
        None => (Shown::ApiKey, "api-key"),
    };
    // Names of local accounts are lower-case; others are as their issuer says them.
    let name = if source == Source::Own { person.user.to_lowercase() } else { person.user.clone() };
    let identity = Identity {
        profile: Arc::new(Profile::new(&name, &person.groups, None, None)?),
        scopes: person.scopes.clone(),
        claims: Arc::new(if shown == Shown::Bearer { person.claims.clone() } else { Map::new() }),
        methods: vec![method.to_owned()],
        // A key was made by someone who had signed in, but nobody knows when it is used.
        signed_in_at: (!matches!(shown, Shown::ApiKey | Shown::Certificate)).then_some(head.now - person.ago),
        session: None,
    };
    let issuer = match source {
        Source::Issuer(place) => config.issuers.get(place).map(|issuer| Arc::clone(&issuer.name)),
        Source::Own | Source::Unknown => None,
    };
    Some(Asker { identity: Some(Arc::new(identity)), shown, source, issuer, ..Asker::default() })
}

/// Whose word such a person stands on: another issuer's where they say so, or where the route takes no others.
fn source(person: &Invented, route: Option<&Arc<Route>>) -> Source {
    let wants_others = person.method.as_deref() == Some(ISSUER);
    match route.map(|route| &route.issuers) {
        Some(Issuers::These { own, others }) if wants_others || (!own && person.method.is_none()) => {
            others.first().map_or(Source::Unknown, |place| Source::Issuer(*place))
        }
        // Whichever issuer it is.
        Some(Issuers::All) | None if wants_others => Source::Issuer(0),
        _ => Source::Own,
    }
}

const fn by_sign_in(accept: Accept, needs_token: bool) -> Shown {
    if accept.cookie && !(needs_token && accept.bearer) { Shown::Cookie } else { Shown::Bearer }
}

/// How someone has signed in whom another issuer knows.
const ISSUER: &str = "issuer";

/// An outcome in words.
pub(super) fn words(outcome: Outcome, route: Option<&str>, sentence: &str) -> String {
    let by = route.map(|name| format!(" by route `{name}`")).unwrap_or_default();
    let what = match outcome {
        Outcome::Allow => "allowed",
        Outcome::SignIn => "asked to sign in",
        Outcome::Deny => "denied",
        Outcome::NotFound => "not found",
        Outcome::BadRequest => "refused as malformed",
        Outcome::Own => "answered by the gateway itself",
        Outcome::Error => "not answered",
    };
    if outcome == Outcome::Own { what.to_owned() } else { format!("{what}{by}: {sentence}") }
}
