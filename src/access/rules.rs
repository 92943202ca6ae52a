//! The rules of one configuration, asked about a head and whoever stands behind it. Pure: no store, no clock, no headers.
//!
//! Requests, leases, `[[tests]]` and `explain` all ask here, so that they cannot disagree.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Map;

use super::Reason;
use super::credential::Credential;
use crate::config::{Config, Readings, Route};
use crate::identity::Identity;
use crate::message::head::Head;
use crate::message::path::Reading;
use crate::policy::{Facts, Outcome, Person, Refused, Verdict};
use crate::route::Router;

/// Which route, and whether it lets someone pass.
#[derive(Debug)]
pub struct Rules {
    router: Router,
}

/// Which kind of credential was shown: a route that does not accept it sees nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// None.
    #[default]
    Nothing,
    /// `Authorization: Bearer` with a token.
    Bearer,
    /// `Authorization: Basic`
    Basic,
    /// A key of ours.
    ApiKey,
    /// A session's cookie.
    Cookie,
    /// The certificate of the connection.
    Certificate,
}

/// Whose word someone stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// This gateway's.
    #[default]
    Own,
    /// That of the issuer at this place of `[[issuers]]`.
    Issuer(usize),
    /// That of an issuer whom the configuration does not name, or not any more.
    Unknown,
}

/// Who asks, as far as the rules are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asking<'a> {
    /// Who it is; `None`: nobody who is believed.
    pub person: Option<Person<'a>>,
    /// What was shown.
    pub shown: Shown,
    /// Whose word they stand on.
    pub source: Source,
    /// The only routes on which an API key counts.
    pub key_routes: Option<&'a [String]>,
    /// Why what was shown is not good, or can't be judged. Nobody is there then.
    pub unproven: Option<Reason>,
}

/// Who asked, to be asked about again: what [`Asking`] looks at, owned.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// Who it is; `None`: nobody who is believed.
    pub identity: Option<Arc<Identity>>,
    /// What was shown.
    pub shown: Shown,
    /// Whose word they stand on.
    pub source: Source,
    /// The name of the issuer, where it is another one than this gateway.
    pub issuer: Option<Arc<str>>,
    /// The only routes on which an API key counts.
    pub key_routes: Option<Arc<[String]>>,
    /// Why what was shown is not good, or can't be judged.
    pub unproven: Option<Reason>,
}

/// One look at the path: as written, or as a reading has it.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// `None`: as written.
    pub reading: Option<Reading>,
    /// The path so read.
    pub path: Cow<'a, str>,
    /// The route that it leads to.
    pub route: Option<&'a Arc<Route>>,
}

/// What the rules say, and where they said it.
#[derive(Clone, Copy, Debug)]
pub struct Ruling<'a> {
    /// The route that decided.
    pub route: Option<&'a Arc<Route>>,
    /// Under which reading it was refused; `None`: as written.
    pub reading: Option<Reading>,
    /// What.
    pub says: Says,
    /// The first no of a route that is only observed, where it passes all the same.
    pub waived: Option<No<'a>>,
}

/// A no, and where it was said.
#[derive(Clone, Copy, Debug)]
pub struct No<'a> {
    /// The route that says it.
    pub route: Option<&'a Arc<Route>>,
    /// Under which reading; `None`: as written.
    pub reading: Option<Reading>,
    /// What.
    pub says: Says,
}

impl<'a> Ruling<'a> {
    /// What is said, as a no.
    pub const fn no(&self) -> No<'a> {
        No { route: self.route, reading: self.reading, says: self.says }
    }

    const fn of(no: No<'a>) -> Self {
        Self { route: no.route, reading: no.reading, says: no.says, waived: None }
    }
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It may pass.
    Pass {
        /// Whether the application is told who it is.
        named: bool,
    },
    /// Someone who signs in could.
    SignIn {
        /// Whether a password on the sign-in page could do.
        by_password: bool,
    },
    /// A newer or a stronger sign-in is needed, by one of these ways.
    StepUp(Ways),
    /// What was shown is not good, and nobody else may.
    Unproven(Reason),
    /// No.
    Refuse(Refused),
    /// The API key is limited to other routes.
    KeyElsewhere,
    /// No route matches.
    NoRoute,
}

impl Rules {
    /// The rules of `routes`, which are tried in this order.
    pub fn new(routes: &[Arc<Route>]) -> Self {
        Self { router: Router::new(routes) }
    }

    /// All routes, in the order in which they are tried.
    pub fn routes(&self) -> &[Arc<Route>] {
        self.router.routes()
    }

    /// The route of the path as written.
    pub fn find(&self, head: &Head) -> Option<&Arc<Route>> {
        self.router.find(head.host.name(), &head.method, head.path.canonical())
    }

    /// Every look that is taken at the path: as written, then under each reading that could lead elsewhere, unless
    /// the route of the path as written says that its paths are judged as written only.
    pub fn looks<'a>(&'a self, head: &'a Head) -> impl Iterator<Item = Look<'a>> {
        self.looks_from(self.find(head), head)
    }

    /// What the rules say of `head` when it comes from `asking`.
    pub fn judge<'a>(&'a self, head: &'a Head, asking: &Asking<'_>) -> Ruling<'a> {
        self.judge_from(self.find(head), head, asking)
    }

    /// The same, where the route of the path as written is known.
    pub(super) fn judge_from<'a>(
        &'a self,
        route: Option<&'a Arc<Route>>,
        head: &'a Head,
        asking: &Asking<'_>,
    ) -> Ruling<'a> {
        let as_written = |says| No { route, reading: None, says };
        let Some(found) = route else { return Ruling::of(as_written(Says::NoRoute)) };
        let nobody = Asking { shown: asking.shown, ..Asking::default() };
        let unproven = asking.unproven;
        let mut waived = None;
        let asking = match asking.on(found, head) {
            // A key for other routes gives no name where the rule that it fails is only observed.
            Ok(asking) if found.observe && asking.person.is_some() && !asking.counts_on(found) => {
                waived = Some(as_written(Says::KeyElsewhere));
                nobody
            }
            Ok(asking) => asking,
            Err(reason) if found.observe => {
                waived = Some(as_written(Says::Unproven(reason)));
                nobody
            }
            Err(reason) => return Ruling::of(as_written(Says::Unproven(reason))),
        };
        for look in self.looks_from(route, head) {
            let says = look.route.map_or(Says::NoRoute, |route| rule(route, head, &asking));
            if matches!(says, Says::Pass { .. }) {
                continue;
            }
            // Open as written only: what is not good counts for something after all.
            let says = match (says, unproven) {
                (Says::NoRoute, _) | (_, None) => says,
                (_, Some(reason)) => Says::Unproven(reason),
            };
            let no = No { route: look.route, reading: look.reading, says };
            if !look.route.is_some_and(|route| route.observe) {
                return Ruling::of(no);
            }
            waived = waived.or(Some(no));
        }
        let named = asking.seen_by(found).is_some();
        Ruling { waived, ..Ruling::of(as_written(Says::Pass { named })) }
    }

    fn looks_from<'a>(&'a self, route: Option<&'a Arc<Route>>, head: &'a Head) -> impl Iterator<Item = Look<'a>> {
        let as_written = Look { reading: None, path: Cow::Borrowed(head.path.canonical()), route };
        let reads = route.is_some_and(|route| route.readings == Readings::All);
        let needed = move |reading: &Reading| reads && self.router.needs(*reading, &head.path);
        let others = Reading::ALL.into_iter().filter(needed).map(move |reading| {
            let path = head.path.reading(reading);
            let route = self.router.find_read_as(reading, head.host.name(), &head.method, &path);
            Look { reading: Some(reading), path, route }
        });
        std::iter::once(as_written).chain(others)
    }
}

/// What one route says of one look.
pub fn rule(route: &Route, head: &Head, asking: &Asking<'_>) -> Says {
    match route.allow.evaluate(&asking.facts(route, head)) {
        Verdict::Allow => Says::Pass { named: asking.seen_by(route).is_some() },
        _ if asking.person.is_some() && !asking.counts_on(route) => Says::KeyElsewhere,
        Verdict::SignIn { by_password } => Says::SignIn { by_password },
        verdict => match Ways::of(route, head, asking) {
            Ways::NONE => Says::Refuse(refused(verdict, route, head, asking)),
            ways => Says::StepUp(ways),
        },
    }
}

/// The sign-ins that would let someone in whom a rule refuses only for the age or the kind of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// A password on the sign-in page, or for a token.
    pub by_password: bool,
    /// A name and password by Basic.
    pub by_basic: bool,
    /// Where their token is from.
    pub by_issuer: bool,
}

impl Ways {
    const NONE: Self = Self { by_password: false, by_basic: false, by_issuer: false };

    /// What would help on `route`: the rule is asked again for the same person just signed in, by each way in which the route
    /// accepts them. An API key is no sign-in: it has no age, and whoever holds it has no password.
    fn of(route: &Route, head: &Head, asking: &Asking<'_>) -> Self {
        let there = asking.seen_by(route).filter(|_| asking.shown != Shown::ApiKey);
        let Some(person) = there else { return Self::NONE };
        let fresh = Person { signed_in_at: Some(head.now), ..person };
        let here = |method: &str| {
            let (claims, methods) = (Map::new(), [method.to_owned()]);
            allows(route, head, Person { scopes: &[], claims: &claims, methods: &methods, ..fresh })
        };
        Self {
            by_password: (route.accept.cookie || route.accept.bearer) && here("password"),
            // A browser with a cookie is never asked for Basic.
            by_basic: route.accept.basic && asking.shown != Shown::Cookie && here("basic"),
            by_issuer: asking.source != Source::Own && route.accept.bearer && allows(route, head, fresh),
        }
    }
}

/// What a rule refuses by that no sign-in helps with.
fn refused(verdict: Verdict, route: &Route, head: &Head, asking: &Asking<'_>) -> Refused {
    let is_fresh = |person| allows(route, head, Person { signed_in_at: Some(head.now), ..person });
    match verdict {
        Verdict::Deny(refused) => refused,
        _ if asking.person.is_some_and(is_fresh) => Refused::Age,
        _ => Refused::Method,
    }
}

fn allows(route: &Route, head: &Head, person: Person<'_>) -> bool {
    let facts = Facts { client: head.client.0, now: head.now, person: Some(person) };
    route.allow.evaluate(&facts) == Verdict::Allow
}

impl<'a> Asking<'a> {
    /// The facts that `route` judges.
    pub fn facts(&self, route: &Route, head: &Head) -> Facts<'a> {
        Facts { client: head.client.0, now: head.now, person: self.seen_by(route) }
    }

    /// Whom a request is judged for once the route of its path as written is known. On a route that is open to everyone
    /// what is not good counts as nothing, and someone whose key is for other routes comes without a name.
    ///
    /// # Errors
    /// Why what was shown is not good, where it would have had to be; or that the route wants another issuer.
    pub fn on(self, route: &Route, head: &Head) -> Result<Self, Reason> {
        let nobody = Self { shown: self.shown, ..Self::default() };
        match self.unproven {
            Some(_) if is_open_to(route, head) => Ok(nobody),
            Some(reason) => Err(reason),
            None if self.person.is_none() => Ok(self),
            None if !self.source.is_taken_by(route) && !is_open_to(route, head) => Err(Reason::IssuerElsewhere),
            None if !self.source.is_taken_by(route) => Ok(nobody),
            None if !self.counts_on(route) && is_open_to(route, head) => Ok(nobody),
            None => Ok(self),
        }
    }

    fn seen_by(&self, route: &Route) -> Option<Person<'a>> {
        let is_taken = self.shown.is_accepted_by(route) && self.source.is_taken_by(route) && self.counts_on(route);
        self.person.filter(|_| is_taken)
    }

    fn counts_on(&self, route: &Route) -> bool {
        self.key_routes.is_none_or(|routes| routes.iter().any(|name| **name == *route.name))
    }
}

impl Source {
    /// Whether `route` takes people on this word.
    pub fn is_taken_by(self, route: &Route) -> bool {
        match self {
            Self::Own => route.issuers.take(None),
            Self::Issuer(place) => route.issuers.take(Some(place)),
            Self::Unknown => false,
        }
    }

    /// That of the issuer called `name` in `config`; `None` is this gateway.
    pub fn named(name: Option<&str>, config: &Config) -> Self {
        let Some(name) = name else { return Self::Own };
        config.issuers.iter().position(|issuer| *issuer.name == *name).map_or(Self::Unknown, Self::Issuer)
    }
}

impl Asker {
    /// The same, to be judged.
    pub fn asking(&self) -> Asking<'_> {
        Asking {
            person: self.identity.as_ref().map(|identity| identity.person()),
            shown: self.shown,
            source: self.source,
            key_routes: self.key_routes.as_deref(),
            unproven: self.unproven,
        }
    }
}

impl Says {
    /// How the request comes out.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Pass { .. } => Outcome::Allow,
            Self::Unproven(Reason::StoreDown) => Outcome::Error,
            Self::SignIn { .. } | Self::StepUp(_) | Self::Unproven(_) => Outcome::SignIn,
            Self::Refuse(_) | Self::KeyElsewhere => Outcome::Deny,
            Self::NoRoute => Outcome::NotFound,
        }
    }

    /// Why.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Pass { named: false } => Reason::Public,
            Self::Pass { named: true } => Reason::SignedIn,
            Self::SignIn { .. } => Reason::NotAuthenticated,
            Self::StepUp(_) => Reason::StepUp,
            Self::Unproven(reason) => reason,
            Self::Refuse(refused) => Reason::Rule(refused),
            Self::KeyElsewhere => Reason::KeyElsewhere,
            Self::NoRoute => Reason::NoRoute,
        }
    }
}

impl Shown {
    pub(super) const fn of(credential: &Credential<'_>) -> Self {
        match credential {
            Credential::None => Self::Nothing,
            Credential::Bearer(_) => Self::Bearer,
            Credential::Basic(_) => Self::Basic,
            Credential::ApiKey(_) | Credential::TwoApiKeys => Self::ApiKey,
            Credential::Cookies(_) => Self::Cookie,
            Credential::Certificate(_) => Self::Certificate,
        }
    }

    /// Whether it counts on `route`.
    pub const fn is_accepted_by(self, route: &Route) -> bool {
        match self {
            Self::Nothing => true,
            Self::Bearer => route.accept.bearer,
            Self::Basic => route.accept.basic,
            Self::ApiKey => route.accept.api_key,
            Self::Cookie => route.accept.cookie,
            Self::Certificate => route.accept.client_cert,
        }
    }

    /// Its name in `accept`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::ApiKey => "api-key",
            Self::Cookie => "cookie",
            Self::Certificate => "client-cert",
        }
    }

    /// The kind that is called `word`.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Nothing, Self::Bearer, Self::Basic, Self::ApiKey, Self::Cookie, Self::Certificate];
        all.into_iter().find(|shown| shown.word() == word)
    }
}

/// Whether the route lets this client in without a sign-in.
pub(super) fn is_open_to(route: &Route, head: &Head) -> bool {
    route.allow.evaluate(&Facts { client: head.client.0, now: head.now, person: None }) == Verdict::Allow
}
