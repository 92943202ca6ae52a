//! `[[routes]]` and `[[tests]]` as they are shown.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::upstreams::{retries, timeouts};
use super::written::{Entries, Shown};
use super::{HIDDEN, absolute, duration, entries, identity, named, nothing, number, optional, size, text, texts};
use crate::config::{
    Accept, AllowedOrigins, Config, Cors, CorsRules, Destination, Expected, HeaderEdits, Invented, Issuers, RateLimit,
    Readings, Redirect, Respond, RespondBody, Route, Test, Unauthenticated,
};
use crate::policy::{Outcome, Policy, Rule};

/// One route, with what it takes over from the sections above.
pub(super) fn route(config: &Config, route: &Route) -> Entries {
    let Route {
        name,
        index: _,
        hosts,
        path,
        methods,
        allow: who,
        to,
        strip_prefix,
        rewrite,
        set_host,
        request_headers,
        response_headers,
        rate_limit,
        websockets,
        accept,
        issuers,
        unauthenticated,
        forward_token,
        identity,
        readings,
        origins,
        cors: of_cors,
        body_bytes,
        timeouts: of_route,
        retries: again,
        observe,
        fall_through,
        strips_method_overrides: _,
    } = route;
    let unauthenticated = match unauthenticated {
        Unauthenticated::Auto => "auto",
        Unauthenticated::Login => "login",
        Unauthenticated::Refuse => "401",
    };
    let readings = match readings {
        Readings::All => "all",
        Readings::AsWritten => "as-written",
    };
    // What is on the way to an upstream says nothing where there is none.
    let on_the_way = |shown: Shown| if to.upstream().is_some() { shown } else { nothing("no upstream") };
    let every = |list: Option<Shown>, otherwise: &str| list.unwrap_or_else(|| nothing(otherwise));
    let hosts = hosts.iter().map(|host| host.as_str());
    entries([
        ("name", text(name)),
        ("hosts", every((hosts.len() > 0).then(|| texts(hosts)), "every host")),
        ("path", text(path.as_str())),
        ("methods", every(methods.as_ref().map(texts), "every method")),
        ("allow", allow(who)),
        leads(config, to),
        ("strip_prefix", on_the_way(optional(strip_prefix.as_ref(), "none"))),
        ("rewrite", on_the_way(optional(rewrite.as_ref().map(|path| path.as_str()), "none"))),
        ("set_host", on_the_way(optional(set_host.as_ref().map(said), "the client's"))),
        ("request_headers", on_the_way(edits(request_headers))),
        ("response_headers", edits(response_headers)),
        ("rate_limit", rate_limit.as_ref().map_or_else(|| nothing("none"), limit)),
        ("upgrade", on_the_way(texts(websockets.then_some("websocket")))),
        ("accept", accepted(*accept)),
        ("issuers", every(taken(config, issuers), "all")),
        ("unauthenticated", text(unauthenticated)),
        ("forward_token", on_the_way(truth(*forward_token))),
        ("identity", on_the_way(told(config, identity))),
        ("readings", text(readings)),
        ("origins", texts(origins)),
        ("cors", cors(of_cors)),
        ("body_bytes", on_the_way(body(*body_bytes))),
        ("timeouts", on_the_way(timeouts(of_route))),
        ("retries", on_the_way(again.as_ref().map_or_else(|| nothing("only what always is"), retries))),
        ("observe", truth(*observe)),
        ("fall_through", truth(*fall_through)),
    ])
}

/// Where it leads.
fn leads(config: &Config, to: &Destination) -> (&'static str, Shown) {
    match to {
        Destination::Upstream(at) => {
            ("upstream", optional(config.upstreams.get(*at).map(|upstream| &upstream.name), "none"))
        }
        Destination::Respond(Respond { status, body, retry_after }) => {
            let content_type = body.as_ref().map(|body| text(said(&body.content_type)));
            let body = body.as_ref().map(|RespondBody { bytes, content_type: _, file }| match file {
                Some(file) => Shown::Inline(entries([("file", text(absolute(file)))])),
                None => text(String::from_utf8_lossy(bytes)),
            });
            let respond = there([
                ("status", Some(number(status.as_u16()))),
                ("body", body),
                ("content_type", content_type),
                ("retry_after", retry_after.map(duration)),
            ]);
            ("respond", Shown::Inline(respond))
        }
        Destination::Redirect(Redirect { status, origin, path }) => {
            let to = format!("{}{}", origin.as_deref().unwrap_or_default(), path.as_str());
            ("redirect", Shown::Inline(entries([("to", text(to)), ("status", number(status.as_u16()))])))
        }
    }
}

/// What it overrides.
fn told(config: &Config, own: &super::Identity) -> Shown {
    let base = identity(&config.identity);
    let differs = |entry: &(String, Shown)| !base.contains(entry);
    let own: Entries = identity(own).into_iter().filter(differs).collect();
    if own.is_empty() { nothing("as in [identity]") } else { Shown::Inline(own) }
}

fn limit(limit: &RateLimit) -> Shown {
    let RateLimit { per, count: _, window: _, burst } = limit;
    Shown::Inline(entries([("per", text(per.word())), ("rate", text(limit.rate())), ("burst", number(*burst))]))
}

fn cors(cors: &Cors) -> Shown {
    let CorsRules { origins, methods, headers, expose, credentials, max_age } = match cors {
        Cors::None => return nothing("none"),
        Cors::Upstream => return text("upstream"),
        Cors::Listed(rules) => &**rules,
    };
    let origins = match origins {
        AllowedOrigins::All => texts(["*"]),
        AllowedOrigins::These(origins) => texts(origins),
    };
    Shown::Inline(there([
        ("origins", Some(origins)),
        ("methods", Some(texts(methods))),
        ("headers", Some(texts(headers))),
        ("expose", Some(texts(expose))),
        ("credentials", Some(truth(*credentials))),
        ("max_age", max_age.map(duration)),
    ]))
}

/// What is changed; a value that nobody is to see is left out.
fn edits(edits: &HeaderEdits) -> Shown {
    let HeaderEdits { set, add, remove } = edits;
    let value = |value: &HeaderValue| if value.is_sensitive() { text(HIDDEN) } else { text(said(value)) };
    let fields = |fields: &[(HeaderName, HeaderValue)]| {
        let field = |(name, given): &(HeaderName, HeaderValue)| (name.to_string(), value(given));
        (!fields.is_empty()).then(|| Shown::Inline(fields.iter().map(field).collect()))
    };
    let remove = (!remove.is_empty()).then(|| texts(remove));
    let shown = there([("set", fields(set)), ("add", fields(add)), ("remove", remove)]);
    if shown.is_empty() { nothing("none") } else { Shown::Inline(shown) }
}

fn said(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn body(bytes: Option<u64>) -> Shown {
    match bytes {
        None => nothing("as in [server.limits]"),
        Some(u64::MAX) => text("unlimited"),
        Some(bytes) => text(size(bytes)),
    }
}

fn accepted(accept: Accept) -> Shown {
    let Accept { bearer, cookie, basic, api_key, client_cert } = accept;
    texts(named([
        (bearer, "bearer"),
        (cookie, "cookie"),
        (basic, "basic"),
        (api_key, "api-key"),
        (client_cert, "client-cert"),
    ]))
}

fn taken(config: &Config, issuers: &Issuers) -> Option<Shown> {
    match issuers {
        Issuers::All => None,
        Issuers::These { own, others } => {
            let others = others.iter().filter_map(|at| config.issuers.get(*at)).map(|issuer| &*issuer.name);
            Some(texts(own.then_some("self").into_iter().chain(others)))
        }
    }
}

fn allow(policy: &Policy) -> Shown {
    match policy {
        Policy::Anyone => text("anyone"),
        Policy::SignedIn => text("signed-in"),
        Policy::Nobody => text("nobody"),
        Policy::AnyOf(rules) => match rules.as_slice() {
            [one] => rule(one),
            several => Shown::List(several.iter().map(rule).collect()),
        },
    }
}

/// One table of `allow`: only what is asked.
fn rule(rule: &Rule) -> Shown {
    let Rule { anyone, users, groups, scopes, claims, from, methods_of_sign_in, signed_in_within } = rule;
    let claim = |(path, wanted): &(String, Vec<Value>)| {
        let wanted = match wanted.as_slice() {
            [one] => one.clone(),
            several => several.iter().cloned().collect(),
        };
        (path.clone(), Shown::Plain(wanted))
    };
    let asked = [
        ("anyone", anyone.then(|| truth(true))),
        ("users", users.as_ref().map(texts)),
        ("groups", groups.as_ref().map(texts)),
        ("scopes", scopes.as_ref().map(texts)),
        ("claims", claims.as_ref().map(|claims| Shown::Inline(claims.iter().map(claim).collect()))),
        ("from", from.as_ref().map(texts)),
        ("methods_of_sign_in", methods_of_sign_in.as_ref().map(texts)),
        ("signed_in_within", signed_in_within.map(duration)),
    ];
    Shown::Inline(there(asked))
}

/// One of `[[tests]]`.
pub(super) fn test(config: &Config, test: &Test) -> Entries {
    let Test { request, method: _, target: _, person, from, expect, place: _ } = test;
    let from = (*from != HERE).then_some(from);
    let who = match (person, from) {
        (None, None) => text("anonymous"),
        (None, Some(from)) => Shown::Inline(entries([("from", text(from))])),
        (Some(person), from) => Shown::Inline(invented(person, from)),
    };
    entries([("request", text(request)), ("as", who), ("expect", expected(config, *expect))])
}

fn invented(person: &Invented, from: Option<&IpAddr>) -> Entries {
    let Invented { user, groups, scopes, claims, method, ago } = person;
    let list = |list: &[String]| (!list.is_empty()).then(|| texts(list));
    there([
        ("user", Some(text(user))),
        ("groups", list(groups)),
        ("scopes", list(scopes)),
        ("claims", (!claims.is_empty()).then(|| Shown::Plain(Value::Object(claims.clone())))),
        ("method_of_sign_in", method.as_ref().map(text)),
        ("signed_in_ago", (*ago > Duration::ZERO).then(|| duration(*ago))),
        ("from", from.map(text)),
    ])
}

fn expected(config: &Config, expected: Expected) -> Shown {
    let Expected { outcome, allow, route, upstream } = expected;
    let word = match outcome {
        Some(Outcome::Allow) => "allow",
        Some(Outcome::SignIn) => "sign-in",
        Some(Outcome::Deny) => "deny",
        Some(Outcome::NotFound) => "not-found",
        Some(Outcome::BadRequest) => "bad-request",
        // No test expects the gateway's own answers and failures.
        Some(Outcome::Own | Outcome::Error) | None => {
            let route = route.and_then(|at| config.routes.get(at)).map(|route| text(&route.name));
            let upstream = upstream.and_then(|at| config.upstreams.get(at)).map(|upstream| text(&upstream.name));
            return Shown::Inline(there([("allow", allow.map(truth)), ("route", route), ("upstream", upstream)]));
        }
    };
    text(word)
}

fn truth(truth: bool) -> Shown {
    Shown::Plain(truth.into())
}

/// What is there.
fn there<const KEYS: usize>(entries: [(&str, Option<Shown>); KEYS]) -> Entries {
    entries.into_iter().filter_map(|(key, shown)| Some((key.to_owned(), shown?))).collect()
}

/// Where a request of a test comes from that does not say.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
