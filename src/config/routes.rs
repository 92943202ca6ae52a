//! `[[routes]]`: one entry of the routing table as written, and checked.

mod answer;
mod cors;
mod credentials;
mod headers;
mod limit;
mod scope;
mod target;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use toml::Spanned;

use super::reader::{Context, Item, Table, Written};
use super::upstreams::RawTimeouts;
use super::{Identity, Issuer, Issuers, Retries, Timeouts, Upstream, allow, identity, retries, upstreams};
use crate::diag::{Diagnostic, Span, nearest, quoted};
use crate::pattern::{HostPattern, PathPattern};
use crate::policy::Policy;

pub use answer::{Destination, Redirect, Respond, RespondBody};
pub use cors::{AllowedOrigins, Cors, CorsRules};
pub use headers::HeaderEdits;
pub(super) use headers::judge as judge_headers;
use headers::{RawEdits, Way};
pub use limit::{Per, RateLimit};
pub use target::PathChange;
use target::RawHost;

/// One entry of the routing table.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name, or `route-N`.
    pub name: Arc<str>,
    /// Its place in the table, from 0.
    pub index: usize,
    /// Which hosts it is for; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// Which paths.
    pub path: PathPattern,
    /// Which methods; `None`: every one. `GET` has brought `HEAD` with it.
    pub methods: Option<Vec<Method>>,
    /// Who may.
    pub allow: Policy,
    /// Where it leads.
    pub to: Destination,
    /// What is cut from the front of the path before it goes on: in normal form, without a trailing `/`.
    pub strip_prefix: Option<String>,
    /// The path that goes on instead, with what the wildcards of `path` stand for.
    pub rewrite: Option<PathPattern>,
    /// The `Host` that goes on; `None`: the client's.
    pub set_host: Option<HeaderValue>,
    /// What changes in a request's fields, before the gateway sets its own.
    pub request_headers: HeaderEdits,
    /// What changes in an answer's fields.
    pub response_headers: HeaderEdits,
    /// How many requests come through.
    pub rate_limit: Option<RateLimit>,
    /// Whether a WebSocket may be opened.
    pub websockets: bool,
    /// Which credentials count.
    pub accept: Accept,
    /// Whose tokens count.
    pub issuers: Issuers,
    /// What someone without a credential gets.
    pub unauthenticated: Unauthenticated,
    /// Whether a Bearer goes on to the application.
    pub forward_token: bool,
    /// What the application is told.
    pub identity: Arc<Identity>,
    /// Under which readings its paths are judged.
    pub readings: Readings,
    /// Origins besides its own that may send unsafe requests on a cookie: serialized, lower-case.
    pub origins: Vec<String>,
    /// Which other sites' scripts may read its answers.
    pub cors: Cors,
    /// Bytes of a request body, where the route says otherwise than `[server.limits]`; `"unlimited"` is the largest number.
    pub body_bytes: Option<u64>,
    /// The upstream's timeouts, or the route's own over them.
    pub timeouts: Timeouts,
    /// What is tried again beyond what always is.
    pub retries: Option<Retries>,
    /// Whether it is only tried out: what it would refuse is logged and let pass.
    pub observe: bool,
    /// Whether other methods or hosts are meant to go on to later routes: for `check` only.
    pub fall_through: bool,
    /// Whether a route that shares a path with this one names methods, so that method overrides must go.
    pub strips_method_overrides: bool,
}

/// Which credentials a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// `Authorization: Bearer` with a JWT.
    pub bearer: bool,
    /// The session cookie.
    pub cookie: bool,
    /// `Authorization: Basic` with a name and password.
    pub basic: bool,
    /// `Authorization: Bearer` or `X-API-Key` with a key of ours.
    pub api_key: bool,
    /// The certificate of the connection.
    pub client_cert: bool,
}

impl Accept {
    /// What a route accepts that does not say.
    pub const DEFAULT: Self = Self { bearer: true, cookie: true, basic: false, api_key: false, client_cert: false };

    /// Nothing.
    pub const NOTHING: Self = Self { bearer: false, cookie: false, basic: false, api_key: false, client_cert: false };
}

/// What someone without a credential gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// A page load is sent to the sign-in page, anything else gets 401.
    Auto,
    /// Always the sign-in page for GET and HEAD.
    Login,
    /// Always 401.
    Refuse,
}

/// Under which readings a route's paths are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readings {
    /// As written, and as an application may read them otherwise.
    All,
    /// As written only.
    AsWritten,
}

/// One route as written.
pub(super) struct Raw {
    header: Span,
    name: Option<Written<String>>,
    hosts: Key<Vec<Written<HostPattern>>>,
    path: Option<Written<PathPattern>>,
    methods: Key<Vec<Method>>,
    allow: Option<allow::Allow>,
    to: answer::Raw,
    strip_prefix: Option<Written<String>>,
    rewrite: Option<Written<PathPattern>>,
    set_host: Option<Written<RawHost>>,
    // Few routes have these: without them ten thousand take a third of the memory.
    request_headers: Option<Box<RawEdits>>,
    response_headers: Option<Box<RawEdits>>,
    rate_limit: Key<RateLimit>,
    upgrade: Option<Written<bool>>,
    accept: Option<Written<Accept>>,
    issuers: Key<Vec<Written<String>>>,
    unauthenticated: Option<Written<Unauthenticated>>,
    forward_token: Option<Written<bool>>,
    identity: Option<Box<identity::Raw>>,
    readings: Option<Written<Readings>>,
    origins: Vec<String>,
    cors: Key<Cors>,
    body_bytes: Option<Written<Option<u64>>>,
    timeouts: Option<Box<RawTimeouts>>,
    retries: Option<Retries>,
    fall_through: Option<Written<bool>>,
    observe: Option<Written<bool>>,
}

/// A key whose absence means something else than a value that can't be used.
enum Key<T> {
    Absent,
    Unusable,
    Given(Written<T>),
}

impl<T> Key<T> {
    fn read<'a>(item: Option<Item<'a>>, read: impl Fn(&Item<'a>) -> Option<Written<T>>) -> Self {
        match item {
            None => Self::Absent,
            Some(item) => read(&item).map_or(Self::Unusable, Self::Given),
        }
    }

    /// What is written, if anything is; the outer `None`: it can't be used.
    fn usable(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Unusable => None,
            Self::Given(value) => Some(Some(value.into_inner())),
        }
    }

    fn span(&self) -> Option<Span> {
        match self {
            Self::Given(value) => Some(value.span()),
            Self::Absent | Self::Unusable => None,
        }
    }
}

/// Where the parts of a route are written, for findings about several of them.
pub(super) struct Places {
    /// Its name, or the header of its table.
    pub(super) route: Span,
    /// What limits it: `methods`, else `hosts`.
    pub(super) limit: Option<Span>,
    /// Whether the limit is `methods`.
    pub(super) limited_by_method: bool,
    /// `fall_through = true`
    pub(super) falls_through: bool,
    /// The rules of its `allow`.
    pub(super) rules: Vec<allow::Places>,
    /// `accept`
    pub(super) accept: Option<Span>,
    /// The names in `request_headers` and `response_headers`.
    pub(super) edits: Vec<(HeaderName, Span)>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let header = table.span.clone();
        for (key, example) in REQUIRED {
            table.require(key, example);
        }
        let to = answer::Raw::read(&mut table);
        let raw = Self {
            header,
            to,
            name: table.take("name").and_then(|item| item.text()),
            hosts: Key::read(table.take("hosts"), scope::hosts),
            path: table
                .take("path")
                .and_then(|item| item.parsed("bad-path", |text| scope::pattern(PathPattern::parse(text)))),
            methods: Key::read(table.take("methods"), scope::methods),
            allow: table.take("allow").and_then(|item| allow::read(&item)),
            strip_prefix: table.take("strip_prefix").and_then(|item| item.parsed("bad-prefix", target::prefix)),
            rewrite: table
                .take("rewrite")
                .and_then(|item| item.parsed("bad-path", |text| scope::pattern(PathPattern::parse(text)))),
            set_host: table.take("set_host").and_then(|item| target::host(&item)),
            request_headers: edits(&mut table, "request_headers", Way::Request),
            response_headers: edits(&mut table, "response_headers", Way::Response),
            rate_limit: Key::read(table.take("rate_limit"), limit::read),
            upgrade: table.take("upgrade").and_then(|item| upgrade(&item)),
            accept: table.take("accept").and_then(|item| credentials::accept(&item)),
            issuers: Key::read(table.take("issuers"), credentials::issuers),
            unauthenticated: table
                .take("unauthenticated")
                .and_then(|item| item.word("routes.unauthenticated", UNAUTHENTICATED)),
            forward_token: table.boolean("forward_token"),
            identity: table.table("identity", "identity").map(identity::Raw::read).map(Box::new),
            readings: table.take("readings").and_then(|item| item.word("routes.readings", READINGS)),
            origins: table.take("origins").map(|item| credentials::origins(&item)).unwrap_or_default(),
            cors: Key::read(table.take("cors"), cors::read),
            body_bytes: table.take("body_bytes").and_then(|item| item.size()),
            timeouts: table.table("timeouts", "routes.timeouts").map(RawTimeouts::read).map(Box::new),
            retries: table.table("retries", "routes.retries").and_then(retries::read),
            fall_through: table.boolean("fall_through"),
            observe: table.boolean("observe"),
        };
        table.finish();
        raw
    }

    /// The places; those of the rules are taken out.
    pub(super) fn places(&mut self) -> Places {
        let by_method = self.methods.span();
        Places {
            route: self.name.as_ref().map_or(self.header.clone(), Spanned::span),
            limited_by_method: by_method.is_some(),
            limit: by_method.or(self.hosts.span()),
            falls_through: self.fall_through.as_ref().is_some_and(|fall| *fall.get_ref()),
            rules: self.allow.as_mut().map(|allow| std::mem::take(&mut allow.places)).unwrap_or_default(),
            accept: self.accept.as_ref().map(Spanned::span),
            edits: [&mut self.request_headers, &mut self.response_headers]
                .into_iter()
                .flatten()
                .flat_map(|edits| std::mem::take(&mut edits.places))
                .collect(),
        }
    }

    /// The route, if nothing in it is unusable.
    pub(super) fn resolve(
        self,
        cx: &Context<'_>,
        index: usize,
        known: &Known<'_>,
        base: &Arc<Identity>,
    ) -> Option<Route> {
        let issuers = match &self.issuers {
            Key::Absent => Some(Issuers::All),
            Key::Unusable => None,
            Key::Given(names) => credentials::whose(cx, names, known.issuers),
        };
        let issuers =
            if known.has_store { issuers } else { issuers.map(|issuers| issuers.without_own(known.issuers.len())) };
        let whose = issuers.as_ref().unwrap_or(&Issuers::All);
        let accept = credentials::accepted(cx, self.accept.as_ref(), whose, known.has_store);
        if let Some(way) =
            self.unauthenticated.as_ref().filter(|way| *way.get_ref() == Unauthenticated::Login && !accept.cookie)
        {
            let finding =
                Diagnostic::error("login-without-cookie", "a sign-in would not help: this route accepts no cookie");
            cx.report(finding.at(way.span()).help("add \"cookie\" to `accept`, or write unauthenticated = \"401\""));
        }
        if let (Some(prefix), Some(path)) = (&self.strip_prefix, &self.path) {
            target::judge_prefix(cx, prefix, path.get_ref());
        }
        if let Some(rewrite) = &self.rewrite {
            target::judge_rewrite(cx, rewrite, self.strip_prefix.as_ref(), self.path.as_ref());
        }
        let observe = self.observe.as_ref().is_some_and(|observe| *observe.get_ref());
        if let Some(place) = self.observe.as_ref().filter(|_| observe) {
            let finding =
                Diagnostic::warning("observes", "this route refuses nobody: what it would deny is only logged");
            let finding = finding.at(place.span()).label("everybody passes");
            cx.report(finding.help("remove `observe` once the log shows what you expect"));
        }
        let identity = self.identity.map_or_else(|| Arc::clone(base), |identity| Arc::new(identity.resolve(cx, base)));
        let to = self.to.resolve(cx, self.path.as_ref(), known);
        if let Key::Given(cors) = &self.cors {
            let answers = self.response_headers.as_ref().map(|edits| &edits.edits);
            cors::judge(cx, cors, to.as_ref(), answers.unwrap_or(&HeaderEdits::default()));
        }
        let hosts = self.hosts.usable()?.unwrap_or_default().into_iter().map(Spanned::into_inner).collect();
        let (methods, rate_limit) = (self.methods.usable()?, self.rate_limit.usable()?);
        let cors = self.cors.usable()?.unwrap_or_default();
        let (path, allow, to, issuers) = (self.path?, self.allow?, to?, issuers?);
        let behind = to.upstream().and_then(|upstream| known.upstreams.checked.get(upstream));
        let base = behind.map_or(&upstreams::DEFAULTS, |upstream| &upstream.timeouts);
        let timeouts = self.timeouts.map_or_else(|| base.clone(), |timeouts| timeouts.resolve(cx, base));
        let edits = |edits: Option<Box<RawEdits>>| edits.map(|edits| edits.edits).unwrap_or_default();
        let prefix = self.strip_prefix.map(|prefix| prefix.get_ref().trim_end_matches('/').to_owned());
        Some(Route {
            name: self.name.map_or_else(|| format!("route-{}", index + 1).into(), |name| name.into_inner().into()),
            index,
            hosts,
            path: path.into_inner(),
            methods,
            allow: allow.policy,
            to,
            strip_prefix: prefix.filter(|prefix| !prefix.is_empty()),
            rewrite: self.rewrite.map(Spanned::into_inner),
            set_host: self.set_host.zip(behind).and_then(|(host, behind)| target::sent_host(cx, &host, behind)),
            request_headers: edits(self.request_headers),
            response_headers: edits(self.response_headers),
            rate_limit,
            websockets: self.upgrade.is_none_or(Spanned::into_inner),
            accept,
            issuers,
            unauthenticated: self.unauthenticated.map_or(Unauthenticated::Auto, Spanned::into_inner),
            forward_token: self.forward_token.is_some_and(Spanned::into_inner),
            identity,
            readings: self.readings.map_or(Readings::All, Spanned::into_inner),
            origins: self.origins,
            cors,
            body_bytes: self.body_bytes.map(|bytes| bytes.into_inner().unwrap_or(u64::MAX)),
            timeouts,
            retries: self.retries,
            observe,
            fall_through: self.fall_through.is_some_and(Spanned::into_inner),
            strips_method_overrides: false,
        })
    }
}

/// What routes can name.
pub(super) struct Known<'a> {
    pub(super) upstreams: Upstreams<'a>,
    pub(super) issuers: &'a [Arc<Issuer>],
    /// Whether there are people of our own.
    pub(super) has_store: bool,
}

/// The upstreams that routes can name.
pub(super) struct Upstreams<'a> {
    /// Their names as written, also of those that can't be used.
    pub(super) names: &'a [String],
    /// The same ones, checked.
    pub(super) checked: &'a [Arc<Upstream>],
}

impl Upstreams<'_> {
    pub(super) fn find(&self, cx: &Context<'_>, name: &Written<String>) -> Option<usize> {
        let found = self.names.iter().position(|known| known == name.get_ref());
        if found.is_none() {
            let finding =
                Diagnostic::error("unknown-upstream", format!("there is no upstream {}", quoted(name.get_ref())));
            let near = nearest(name.get_ref(), self.names.iter().map(String::as_str));
            cx.report(finding.at(name.span()).help(match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if self.names.is_empty() => {
                    format!("add [upstreams] with {} = \"http://127.0.0.1:3000\"", name.get_ref())
                }
                None => format!("known upstreams: {}", self.names.join(", ")),
            }));
        }
        found
    }
}

const REQUIRED: &[(&str, &str)] = &[
    ("path", "add path = \"/**\" for every path, or the one that this route is for"),
    ("allow", "add allow = \"signed-in\", \"anyone\", \"nobody\", or a table such as { groups = [\"admin\"] }"),
];

const UNAUTHENTICATED: &[(&str, Unauthenticated)] =
    &[("auto", Unauthenticated::Auto), ("login", Unauthenticated::Login), ("401", Unauthenticated::Refuse)];

const READINGS: &[(&str, Readings)] = &[("all", Readings::All), ("as-written", Readings::AsWritten)];

fn edits(table: &mut Table<'_>, key: &'static str, way: Way) -> Option<Box<RawEdits>> {
    let edits = table.take(key).and_then(|item| item.table("routes.headers"));
    edits.map(|table| Box::new(RawEdits::read(table, way)))
}

/// The protocols that a connection may change to; there is one.
fn upgrade(item: &Item<'_>) -> Option<Written<bool>> {
    let list = item.list()?;
    let words: Vec<_> = list.get_ref().iter().map(|item| item.word("routes.upgrade", UPGRADES)).collect();
    let words: Vec<Written<()>> = words.into_iter().collect::<Option<_>>()?;
    Some(Spanned::new(list.span(), !words.is_empty()))
}

const UPGRADES: &[(&str, ())] = &[("websocket", ())];
