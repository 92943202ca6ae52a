//! `[[tests]]`: a request, who asks, and what must come of it; as written, and checked. They are run elsewhere.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::reader::{Context, Item, Table, Written};
use super::values::Fault;
use super::{Route, Upstream, allow};
use crate::diag::{Diagnostic, Span, nearest, quoted};
use crate::message::headers;
use crate::message::line::Target;
use crate::policy::Outcome;

/// One of `[[tests]]`.
#[derive(Clone, Debug)]
pub struct Test {
    /// The request as it is written.
    pub request: String,
    /// Its method.
    pub method: Method,
    /// Its target; without a host it is asked at `public_url`'s.
    pub target: Target,
    /// Who asks; `None`: nobody who is signed in.
    pub person: Option<Invented>,
    /// From where.
    pub from: IpAddr,
    /// What must come of it.
    pub expect: Expected,
    /// Where `expect` is written.
    pub place: Span,
}

/// Someone who need not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Invented {
    /// The name; that of a local account counts without regard to case.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
    /// Scopes of the token.
    pub scopes: Vec<String>,
    /// Claims of the token.
    pub claims: Map<String, Value>,
    /// How they signed in; `None`: by password.
    pub method: Option<String>,
    /// How long ago they signed in.
    pub ago: Duration,
}

/// What must come of a test. `None`: whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Exactly this.
    pub outcome: Option<Outcome>,
    /// Whether it may pass.
    pub allow: Option<bool>,
    /// The route that decides, by its place.
    pub route: Option<usize>,
    /// The upstream that it goes to, by its place.
    pub upstream: Option<usize>,
}

/// One test as written.
pub(super) struct Raw {
    request: Option<Written<(String, Method, Target)>>,
    asked: Option<(Option<Invented>, IpAddr)>,
    expect: Option<Written<RawExpected>>,
}

#[derive(Clone, Default)]
struct RawExpected {
    outcome: Option<Outcome>,
    allow: Option<bool>,
    route: Option<Written<String>>,
    upstream: Option<Written<String>>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("request", "add request = \"GET /path\", or with a whole URL");
        table.require("expect", "add expect = \"allow\", \"deny\", \"sign-in\", \"not-found\" or \"bad-request\"");
        let raw = Self {
            request: table.take("request").and_then(|item| item.parsed("bad-request-line", request_line)),
            asked: table.take("as").map_or(Some((None, HERE)), |item| person(&item)),
            expect: table.take("expect").and_then(|item| expected(&item)),
        };
        table.finish();
        raw
    }

    /// The test, if nothing in it is unusable.
    pub(super) fn resolve(self, cx: &Context<'_>, routes: &[Arc<Route>], upstreams: &[Arc<Upstream>]) -> Option<Test> {
        let expect = self.expect?;
        let (place, expect) = (expect.span(), expect.into_inner());
        let find = |what: &str, name: Option<Written<String>>, known: Vec<&str>| {
            let Some(name) = name else { return Some(None) };
            let found = known.iter().position(|known| known == name.get_ref());
            if found.is_none() {
                let message = format!("there is no {what} {}", quoted(name.get_ref()));
                let finding = Diagnostic::error("unknown-name", message).at(name.span());
                cx.report(finding.help(match nearest(name.get_ref(), known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("known: {}", known.into_iter().take(MOST_NAMES).collect::<Vec<_>>().join(", ")),
                }));
            }
            found.map(Some)
        };
        let route = find("route", expect.route, routes.iter().map(|route| &*route.name).collect());
        let names = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        let upstream = find("upstream", expect.upstream, names);
        let (request, method, target) = self.request?.into_inner();
        let (person, from) = self.asked?;
        let expect = Expected { outcome: expect.outcome, allow: expect.allow, route: route?, upstream: upstream? };
        Some(Test { request, method, target, person, from, expect, place })
    }
}

/// `"GET https://host/path"`
fn request_line(text: &str) -> Result<(String, Method, Target), Fault> {
    let fault = |label, help: &str| Fault::new(format!("{} is not a request", quoted(text)), label, help);
    let help = "write a method and a path or a URL, such as \"GET /admin/users\"";
    let (method, rest) = text.split_once(' ').ok_or_else(|| fault("has no method before a path", help))?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| fault("begins with no method", help))?;
    let target = Target::parse(rest.trim_start_matches(' ')).map_err(|why| fault(why, help))?;
    Ok((text.to_owned(), method, target))
}

/// `"anonymous"`, or a table.
fn person(item: &Item<'_>) -> Option<(Option<Invented>, IpAddr)> {
    if !matches!(item.value.get_ref(), DeValue::Table(_)) {
        item.word("tests.as", &[("anonymous", ())])?;
        return Some((None, HERE));
    }
    let mut table = item.table("tests.as")?;
    let from = table.take("from").map(|item| item.parsed("bad-address", address));
    let narrowed = !table.is_done();
    let user = table.take("user").map(|item| item.parsed("bad-name", user_name));
    let groups = table.take("groups").map(|item| groups(&item));
    let scopes = table.take("scopes").map(|item| item.strings());
    let claims = table.take("claims").map(|item| claims(&item));
    let method = table.take("method_of_sign_in").map(|item| item.text());
    let ago = table.take("signed_in_ago").map(|item| item.duration());
    let has_user = user.is_some();
    table.finish();
    let from = from.map_or(Some(HERE), |from| from.map(Spanned::into_inner))?;
    if narrowed && !has_user {
        let finding = Diagnostic::error("missing-key", "`user` is missing").at(item.span()).label("has no `user`");
        item.cx.report(finding.help("add user = \"…\", or write as = \"anonymous\" for nobody"));
        return None;
    }
    if !has_user {
        return Some((None, from));
    }
    let plain = |list: Vec<Written<String>>| -> Vec<String> { list.into_iter().map(Spanned::into_inner).collect() };
    let invented = Invented {
        user: user??.into_inner(),
        groups: groups.map_or(Some(Vec::new()), |groups| groups.map(plain))?,
        scopes: scopes.map_or(Some(Vec::new()), |scopes| scopes.map(|scopes| plain(scopes.into_inner())))?,
        claims: claims.map_or(Some(Map::new()), |claims| claims)?,
        method: method.map_or(Some(None), |method| method.map(|method| Some(method.into_inner())))?,
        ago: ago.map_or(Some(Duration::ZERO), |ago| ago.map(Spanned::into_inner))?,
    };
    Some((Some(invented), from))
}

fn groups(item: &Item<'_>) -> Option<Vec<Written<String>>> {
    let groups = item.strings()?.into_inner();
    allow::report_impossible(item.cx, &groups);
    Some(groups)
}

fn address(text: &str) -> Result<IpAddr, Fault> {
    text.parse().map_err(|_| {
        let message = format!("{} is not an address", quoted(text));
        Fault::new(message, "not an address", "write one address, such as \"10.1.2.3\" or \"fd00::1\"")
    })
}

/// A name that an application may be told.
fn user_name(text: &str) -> Result<String, Fault> {
    if headers::user_value(text).is_none() {
        let message = format!("nobody can be called {}", quoted(text));
        return Err(Fault::new(message, "not a name", "write a name without controls and outer spaces"));
    }
    Ok(text.to_owned())
}

fn claims(item: &Item<'_>) -> Option<Map<String, Value>> {
    let mut table = item.table("claims.*")?;
    table.take_all().into_iter().map(|(key, item)| Some((key.into_inner(), json(item.value)?))).collect()
}

/// A claim as a token would have it.
fn json(value: &Spanned<DeValue<'_>>) -> Option<Value> {
    Some(match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok()?.into(),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(moment) => Value::String(moment.to_string()),
        DeValue::Array(members) => Value::Array(members.iter().map(json).collect::<Option<_>>()?),
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, _)| {
                Some((key.get_ref().to_string(), json(value)?))
            };
            Value::Object(table.iter().map(member).collect::<Option<_>>()?)
        }
    })
}

/// One word, or a table.
fn expected(item: &Item<'_>) -> Option<Written<RawExpected>> {
    if !matches!(item.value.get_ref(), DeValue::Table(_)) {
        let outcome = item.word("tests.expect", OUTCOMES)?;
        let expected = RawExpected { outcome: Some(*outcome.get_ref()), ..RawExpected::default() };
        return Some(Spanned::new(item.span(), expected));
    }
    let mut table = item.table("tests.expect")?;
    let is_empty = table.is_done();
    let allow = table.take("allow").map(|item| item.boolean());
    let route = table.take("route").map(|item| item.text());
    let upstream = table.take("upstream").map(|item| item.text());
    table.finish();
    let unusable = |message: &str, help: &str| {
        item.cx.report(Diagnostic::error("bad-expectation", message).at(item.span()).help(help));
        None
    };
    if is_empty {
        return unusable(
            "an empty table expects nothing",
            "write expect = \"allow\", or { allow = true, route = \"…\" }",
        );
    }
    let expected = RawExpected {
        outcome: None,
        allow: allow.map_or(Some(None), |allow| allow.map(|allow| Some(allow.into_inner())))?,
        route: route.map_or(Some(None), |route| route.map(Some))?,
        upstream: upstream.map_or(Some(None), |upstream| upstream.map(Some))?,
    };
    if expected.upstream.is_some() && expected.allow == Some(false) {
        return unusable("what may not pass goes to no upstream", "remove `upstream`, or expect allow = true");
    }
    Some(Spanned::new(item.span(), expected))
}

const OUTCOMES: &[(&str, Outcome)] = &[
    ("allow", Outcome::Allow),
    ("deny", Outcome::Deny),
    ("sign-in", Outcome::SignIn),
    ("not-found", Outcome::NotFound),
    ("bad-request", Outcome::BadRequest),
];

/// Where a request comes from that does not say.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// More names than this help nobody.
const MOST_NAMES: usize = 20;
