//! `[[routes]]` and `[[tests]]` as they are shown.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;

use super::written::{Entries, Shown};
use super::{duration, entries, identity, named, nothing, optional, size, text, texts, timeouts};
use crate::config::{Accept, Config, Expected, Invented, Issuers, Readings, Route, Test, Unauthenticated};
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
        upstream,
        strip_prefix,
        accept,
        issuers,
        unauthenticated,
        forward_token,
        identity,
        readings,
        origins,
        body_bytes,
        timeouts: of_route,
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
    let every = |list: Option<Shown>, otherwise: &str| list.unwrap_or_else(|| nothing(otherwise));
    let hosts = hosts.iter().map(|host| host.as_str());
    entries([
        ("name", text(name)),
        ("hosts", every((hosts.len() > 0).then(|| texts(hosts)), "every host")),
        ("path", text(path.as_str())),
        ("methods", every(methods.as_ref().map(texts), "every method")),
        ("allow", allow(who)),
        ("upstream", optional(config.upstreams.get(*upstream).map(|upstream| &upstream.name), "none")),
        ("strip_prefix", optional(strip_prefix.as_ref(), "none")),
        ("accept", accepted(*accept)),
        ("issuers", every(taken(config, issuers), "all")),
        ("unauthenticated", text(unauthenticated)),
        ("forward_token", truth(*forward_token)),
        ("identity", told(config, identity)),
        ("readings", text(readings)),
        ("origins", texts(origins)),
        ("body_bytes", body(*body_bytes)),
        ("timeouts", timeouts(of_route)),
        ("observe", truth(*observe)),
        ("fall_through", truth(*fall_through)),
    ])
}

/// What it overrides.
fn told(config: &Config, own: &super::Identity) -> Shown {
    let base = identity(&config.identity);
    let differs = |entry: &(String, Shown)| !base.contains(entry);
    let own: Entries = identity(own).into_iter().filter(differs).collect();
    if own.is_empty() { nothing("as in [identity]") } else { Shown::Inline(own) }
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
