//! `[[routes]]`: one entry of the routing table as written, and checked.

use std::sync::Arc;

use http::Method;
use toml::Spanned;

use super::reader::{Context, Item, Table, Written};
use super::upstreams::RawTimeouts;
use super::values::Fault;
use super::{Identity, Issuer, Issuers, Timeouts, Upstream, allow, identity, no_store, sign_in, url};
use crate::diag::{Diagnostic, Span, nearest, quoted};
use crate::pattern::{HostPattern, PathPattern, PatternError, Segment};
use crate::policy::Policy;

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
    /// The index of its upstream.
    pub upstream: usize,
    /// What is cut from the front of the path before it goes on: in normal form, without a trailing `/`.
    pub strip_prefix: Option<String>,
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
    /// Bytes of a request body, where the route says otherwise than `[server.limits]`; `"unlimited"` is the largest number.
    pub body_bytes: Option<u64>,
    /// The upstream's timeouts, or the route's own over them.
    pub timeouts: Timeouts,
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
}

impl Accept {
    /// What a route accepts that does not say.
    pub const DEFAULT: Self = Self { bearer: true, cookie: true, basic: false, api_key: false };

    /// Nothing.
    pub const NOTHING: Self = Self { bearer: false, cookie: false, basic: false, api_key: false };
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
    upstream: Option<Written<String>>,
    strip_prefix: Option<Written<String>>,
    accept: Option<Written<Accept>>,
    issuers: Key<Vec<Written<String>>>,
    unauthenticated: Option<Written<Unauthenticated>>,
    forward_token: Option<Written<bool>>,
    identity: Option<identity::Raw>,
    readings: Option<Written<Readings>>,
    origins: Vec<String>,
    body_bytes: Option<Written<Option<u64>>>,
    timeouts: RawTimeouts,
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
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let header = table.span.clone();
        for (key, example) in REQUIRED {
            table.require(key, example);
        }
        let raw = Self {
            header,
            name: table.take("name").and_then(|item| item.text()),
            hosts: Key::read(table.take("hosts"), hosts),
            path: table.take("path").and_then(|item| item.parsed("bad-path", |text| pattern(PathPattern::parse(text)))),
            methods: Key::read(table.take("methods"), methods),
            allow: table.take("allow").and_then(|item| allow::read(&item)),
            upstream: table.take("upstream").and_then(|item| item.text()),
            strip_prefix: table.take("strip_prefix").and_then(|item| item.parsed("bad-prefix", prefix)),
            accept: table.take("accept").and_then(|item| accept(&item)),
            issuers: Key::read(table.take("issuers"), issuers),
            unauthenticated: table
                .take("unauthenticated")
                .and_then(|item| item.word("routes.unauthenticated", UNAUTHENTICATED)),
            forward_token: table.boolean("forward_token"),
            identity: table.table("identity", "identity").map(identity::Raw::read),
            readings: table.take("readings").and_then(|item| item.word("routes.readings", READINGS)),
            origins: table.take("origins").map(|item| origins(&item)).unwrap_or_default(),
            body_bytes: table.take("body_bytes").and_then(|item| item.size()),
            timeouts: table.table("timeouts", "routes.timeouts").map(RawTimeouts::read).unwrap_or_default(),
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
            Key::Given(names) => whose(cx, names, known.issuers),
        };
        let issuers =
            if known.has_store { issuers } else { issuers.map(|issuers| issuers.without_own(known.issuers.len())) };
        let accept = accepted(cx, self.accept.as_ref(), issuers.as_ref().unwrap_or(&Issuers::All), known.has_store);
        if let Some(way) =
            self.unauthenticated.as_ref().filter(|way| *way.get_ref() == Unauthenticated::Login && !accept.cookie)
        {
            let finding =
                Diagnostic::error("login-without-cookie", "a sign-in would not help: this route accepts no cookie");
            cx.report(finding.at(way.span()).help("add \"cookie\" to `accept`, or write unauthenticated = \"401\""));
        }
        if let (Some(prefix), Some(path)) = (&self.strip_prefix, &self.path) {
            judge_prefix(cx, prefix, path.get_ref());
        }
        let observe = self.observe.as_ref().is_some_and(|observe| *observe.get_ref());
        if let Some(place) = self.observe.as_ref().filter(|_| observe) {
            let finding =
                Diagnostic::warning("observes", "this route refuses nobody: what it would deny is only logged");
            let finding = finding.at(place.span()).label("everybody passes");
            cx.report(finding.help("remove `observe` once the log shows what you expect"));
        }
        let identity = self.identity.map_or_else(|| Arc::clone(base), |identity| Arc::new(identity.resolve(cx, base)));
        let upstream = self.upstream.and_then(|name| known.upstreams.find(cx, &name));
        let hosts = match self.hosts {
            Key::Absent => Vec::new(),
            Key::Unusable => return None,
            Key::Given(hosts) => hosts.into_inner().into_iter().map(Spanned::into_inner).collect(),
        };
        let methods = match self.methods {
            Key::Absent => None,
            Key::Unusable => return None,
            Key::Given(methods) => Some(methods.into_inner()),
        };
        let (path, allow, upstream, issuers) = (self.path?, self.allow?, upstream?, issuers?);
        let timeouts = self.timeouts.resolve(cx, &known.upstreams.checked.get(upstream)?.timeouts);
        let prefix = self.strip_prefix.map(|prefix| prefix.get_ref().trim_end_matches('/').to_owned());
        Some(Route {
            name: self.name.map_or_else(|| format!("route-{}", index + 1).into(), |name| name.into_inner().into()),
            index,
            hosts,
            path: path.into_inner(),
            methods,
            allow: allow.policy,
            upstream,
            strip_prefix: prefix.filter(|prefix| !prefix.is_empty()),
            accept,
            issuers,
            unauthenticated: self.unauthenticated.map_or(Unauthenticated::Auto, Spanned::into_inner),
            forward_token: self.forward_token.is_some_and(Spanned::into_inner),
            identity,
            readings: self.readings.map_or(Readings::All, Spanned::into_inner),
            origins: self.origins,
            body_bytes: self.body_bytes.map(|bytes| bytes.into_inner().unwrap_or(u64::MAX)),
            timeouts,
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
    fn find(&self, cx: &Context<'_>, name: &Written<String>) -> Option<usize> {
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
    ("upstream", "add upstream = \"app\", one of those in [upstreams]"),
];

const UNAUTHENTICATED: &[(&str, Unauthenticated)] =
    &[("auto", Unauthenticated::Auto), ("login", Unauthenticated::Login), ("401", Unauthenticated::Refuse)];

const READINGS: &[(&str, Readings)] = &[("all", Readings::All), ("as-written", Readings::AsWritten)];

fn pattern<T>(parsed: Result<T, PatternError>) -> Result<T, Fault> {
    parsed.map_err(|error| Fault::new(error.message, "not a pattern", error.help))
}

fn hosts(item: &Item<'_>) -> Option<Written<Vec<Written<HostPattern>>>> {
    let list = item.list()?;
    refuse_empty(item, list.get_ref().is_empty(), "leave `hosts` out for every host")?;
    let host = |item: &Item<'_>| item.parsed("bad-host", host_pattern);
    let hosts: Vec<Option<_>> = list.get_ref().iter().map(host).collect();
    Some(Spanned::new(list.span(), hosts.into_iter().collect::<Option<_>>()?))
}

fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    let host = pattern(HostPattern::parse(text))?;
    if host.as_str() == text {
        return Ok(host);
    }
    let message = format!("{} is not in normal form", quoted(text));
    Err(Fault::new(message, "not in normal form", format!("write {}", quoted(host.as_str()))))
}

fn methods(item: &Item<'_>) -> Option<Written<Vec<Method>>> {
    let list = item.list()?;
    refuse_empty(item, list.get_ref().is_empty(), "leave `methods` out for every method")?;
    let names: Vec<Option<_>> = list.get_ref().iter().map(|item| item.parsed("bad-method", method)).collect();
    let mut methods: Vec<Method> = Vec::new();
    for method in names.into_iter().collect::<Option<Vec<_>>>()? {
        let method = method.into_inner();
        // A HEAD is a GET whose body is left out (RFC 9110 section 9.3.2).
        let with = (method == Method::GET).then_some(Method::HEAD);
        for method in std::iter::once(method).chain(with) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    Some(Spanned::new(list.span(), methods))
}

fn method(text: &str) -> Result<Method, Fault> {
    if matches!(text.to_ascii_uppercase().as_str(), "TRACE" | "CONNECT") {
        let message = format!("{} is never forwarded", quoted(text));
        return Err(Fault::new(message, "answered 405 everywhere", "remove it"));
    }
    if text != text.to_ascii_uppercase() {
        let message = format!("methods are upper-case: {} is another one", quoted(text));
        return Err(Fault::new(message, "not upper-case", format!("write \"{}\"", text.to_ascii_uppercase())));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| {
        Fault::new(
            format!("{} is not a method", quoted(text)),
            "not a method",
            "write a name such as \"GET\" or \"POST\"",
        )
    })
}

fn refuse_empty(item: &Item<'_>, is_empty: bool, way_out: &str) -> Option<()> {
    if is_empty {
        let finding = Diagnostic::error("empty-list", format!("`{}` is empty: this route matches nothing", item.name));
        item.cx.report(finding.at(item.span()).help(way_out));
    }
    (!is_empty).then_some(())
}

fn accept(item: &Item<'_>) -> Option<Written<Accept>> {
    const KNOWN: &[(&str, Accept)] = &[
        ("bearer", Accept { bearer: true, ..Accept::NOTHING }),
        ("cookie", Accept { cookie: true, ..Accept::NOTHING }),
        ("basic", Accept { basic: true, ..Accept::NOTHING }),
        ("api-key", Accept { api_key: true, ..Accept::NOTHING }),
    ];
    let list = item.list()?;
    if list.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`accept` is empty: nobody could sign in").at(item.span());
        item.cx.report(
            finding.help("name \"bearer\", \"cookie\", \"basic\" or \"api-key\", or leave it out for the first two"),
        );
        return None;
    }
    let mut accept = Accept::NOTHING;
    for word in list.get_ref().iter().filter_map(|item| item.word("routes.accept", KNOWN)) {
        let word = word.into_inner();
        accept.bearer |= word.bearer;
        accept.cookie |= word.cookie;
        accept.basic |= word.basic;
        accept.api_key |= word.api_key;
    }
    Some(Spanned::new(list.span(), accept))
}

fn issuers(item: &Item<'_>) -> Option<Written<Vec<Written<String>>>> {
    let names = item.strings()?;
    if names.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`issuers` is empty: nobody's tokens would count");
        item.cx.report(finding.at(item.span()).help("name \"self\" or one of [[issuers]], or leave it out for all"));
        return None;
    }
    Some(names)
}

fn whose(cx: &Context<'_>, names: &Written<Vec<Written<String>>>, known: &[Arc<Issuer>]) -> Option<Issuers> {
    let found: Vec<_> = names.get_ref().iter().map(|name| super::issuers::named(cx, name, known)).collect();
    let found: Vec<Option<usize>> = found.into_iter().collect::<Option<_>>()?;
    Some(Issuers::These { own: found.contains(&None), others: found.into_iter().flatten().collect() })
}

/// What a route accepts. Cookies, passwords and API keys are this gateway's own: where its people don't count, only tokens do.
fn accepted(cx: &Context<'_>, written: Option<&Written<Accept>>, issuers: &Issuers, has_store: bool) -> Accept {
    if issuers.take(None) {
        return written.map_or(Accept::DEFAULT, |accept| *accept.get_ref());
    }
    let only_tokens = Accept { bearer: true, ..Accept::NOTHING };
    if let Some(accept) = written.filter(|accept| *accept.get_ref() != only_tokens) {
        let (code, message, help) = if has_store {
            let message = "`accept` names more than \"bearer\", but `issuers` leaves out this gateway";
            ("accept-without-self", message, "add \"self\" to `issuers`, or write accept = [\"bearer\"]")
        } else {
            let message =
                "`accept` names more than \"bearer\", but only the store knows sessions, passwords and API keys";
            (no_store::CODE, message, "leave `accept` out, or name a store in `[store] url`")
        };
        cx.report(Diagnostic::error(code, message).at(accept.span()).help(help));
    }
    only_tokens
}

fn origins(item: &Item<'_>) -> Vec<String> {
    let Some(list) = item.list() else { return Vec::new() };
    list.get_ref().iter().filter_map(|item| item.parsed("bad-origin", origin)).map(Spanned::into_inner).collect()
}

/// An origin as browsers serialize it (RFC 6454 section 6.2): without the scheme's own port.
fn origin(text: &str) -> Result<String, Fault> {
    let url::Origin { scheme, host, port } = url::origin(text)?;
    let own = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => {
            return Err(Fault::new(
                format!("{} is not an origin", quoted(text)),
                "not http or https",
                "write \"https://host\"",
            ));
        }
    };
    Ok(match port.filter(|port| *port != own) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

fn prefix(text: &str) -> Result<String, Fault> {
    let bare = text.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(text);
    sign_in::normal_path(bare).map(|()| bare.to_owned())
}

/// Every path of the route must begin with the prefix, by whole segments.
fn judge_prefix(cx: &Context<'_>, prefix: &Written<String>, path: &PathPattern) {
    let Ok(wanted) = PathPattern::parse(prefix.get_ref()) else { return };
    let wanted =
        wanted.segments().iter().filter(|segment| !matches!(segment, Segment::Literal(text) if text.is_empty()));
    let mut segments = path.segments().iter();
    if wanted.into_iter().any(|wanted| segments.next() != Some(wanted)) {
        let message = format!("not every path of {} begins with {}", quoted(path.as_str()), quoted(prefix.get_ref()));
        let finding = Diagnostic::error("bad-prefix", message).at(prefix.span()).label("not a prefix of `path`");
        cx.report(finding.help("write whole segments that `path` begins with: \"/api\" for \"/api/**\""));
    }
}
