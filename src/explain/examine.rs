//! A decision taken apart: which routes were asked, what each condition came to, what goes on.

use std::sync::Arc;

use http::{HeaderValue, Method};

use super::document::{Alternative, Condition, Explanation, Header, ReadingTried, Recorded, RouteTried, Sent, Who};
use super::question::{Judgement, Question, judge, words};
use crate::access::{Asker, Asking, Look, Reason, Rules, Shown, Source, rule};
use crate::config::{
    Balance, Config, Destination, HIDDEN, HashBy, PathChange, RateLimit, Readings, Redirect, Route, Unauthenticated,
    Upstream,
};
use crate::message::head::Head;
use crate::message::headers::ALWAYS_REMOVED;
use crate::message::line::{LineError, Target};
use crate::observe::Kept;
use crate::policy::{Facts, Outcome, Verdict};
use crate::proxy;
use crate::upstream::{self, Caller};

/// Explains what would come of `question`; `asker` says who asks, once the head is known.
pub fn examine(config: &Config, rules: &Rules, question: &Question, asker: impl FnOnce(&Head) -> Asker) -> Explanation {
    let head = match question.head(config) {
        Ok(head) => head,
        Err(reason) => {
            let mut explanation = bare(question, &Judgement::malformed(reason));
            if question.target.authority.is_none() {
                explanation.host.clone_from(&config.server.public_url.host);
            }
            return explanation;
        }
    };
    let asker = asker(&head);
    let asking = asker.asking();
    let judgement = judge(config, rules, &head, &asking);
    let mut explanation = bare(question, &judgement);
    head.host.name().clone_into(&mut explanation.host);
    explanation.canonical = Some(head.path.canonical().to_owned());
    explanation.client = head.client.0;
    explanation.who = who(&asker);
    explanation.answer = answer(config, &judgement);
    if judgement.reason != Reason::Own {
        (explanation.routes, explanation.routes_left_out) = routes(rules, &head, &asking);
        explanation.readings = readings(rules, &head, &asking);
    }
    if let (Outcome::Allow, Some(route)) = (judgement.outcome, judgement.route) {
        let named = judgement.reason == Reason::SignedIn;
        explanation.sent = route.to.upstream().map(|_| sent(config, route, &head, &asker, named));
        if let Some(limit) = &route.rate_limit {
            let RateLimit { per, burst, .. } = limit;
            let note =
                format!("at most {} per {}, {burst} at once; one more is answered 429", limit.rate(), per.word());
            explanation.notes.push(note);
        }
        let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if matches!(asker.shown, Shown::Cookie | Shown::Certificate) && named && !is_safe {
            let note = "on a cookie this method must also come from this site: Sec-Fetch-Site or Origin say so";
            explanation.notes.push(note.to_owned());
        }
    }
    let readings = rules.find(&head).map(|route| route.readings);
    explanation.reads_all = readings == Some(Readings::All);
    if readings == Some(Readings::AsWritten) && judgement.reason != Reason::Own {
        explanation.notes.push("the route says that its paths are judged as written only (`readings`)".to_owned());
    }
    explanation
}

/// Explains a request that was judged before, by the rules in force now; what was decided then stands above.
pub fn explain_kept(config: &Config, rules: &Rules, kept: &Kept) -> Explanation {
    let target = Target { https: None, authority: Some(kept.host.clone()), path: kept.path.clone(), query: None };
    let question = Question { method: kept.method.clone(), target, client: kept.client, now: kept.time };
    let mut explanation = if kept.host.is_empty() {
        bare(&question, &Judgement::malformed(Reason::NoRoute))
    } else {
        let source = Source::named(kept.asker.issuer.as_deref(), config);
        examine(config, rules, &question, |_| Asker { source, ..kept.asker.clone() })
    };
    let then = decided(kept);
    let by_cors = [Reason::Preflight, Reason::ForeignOrigin].iter().any(|reason| reason.code() == kept.code);
    let now = Outcome::parse(&explanation.outcome);
    let is_comparable = matches!(then, Outcome::Allow | Outcome::Deny | Outcome::SignIn | Outcome::NotFound);
    let differs = now != Some(then) || explanation.route.as_deref() != kept.route.as_deref();
    if kept.code == Reason::CrossSite.code() {
        let note = "the rules let it pass; it was refused because another site made the browser send it on a cookie";
        explanation.notes.push(note.to_owned());
    } else if by_cors {
        let note =
            "it was a preflight, which `cors` decides about and no rule; shown is what any other OPTIONS would get";
        explanation.notes.push(note.to_owned());
    } else if is_comparable && differs {
        let now = words(now.unwrap_or(Outcome::Error), explanation.route.as_deref(), &explanation.reason);
        explanation.notes.push(format!("under the rules in force now, which are shown here, it would be {now}"));
    }
    if then == Outcome::Allow && !by_cors && ![Reason::Public.code(), Reason::SignedIn.code()].contains(&kept.code) {
        explanation.notes.push(if kept.code == Reason::RateLimited.code() {
            format!("the rules let it pass, and it was refused: {}", kept.reason)
        } else {
            format!("it was allowed, and then there was no answer to pass on: {}", kept.reason)
        });
        explanation.reason = allowed(kept.asker.identity.is_some()).to_string();
    } else {
        explanation.reason.clone_from(&kept.reason);
    }
    then.word().clone_into(&mut explanation.outcome);
    kept.code.clone_into(&mut explanation.code);
    explanation.route = kept.route.clone();
    explanation.reading = kept.reading.map(|reading| reading.name().to_owned());
    explanation.answer = kept.status.to_string();
    explanation.recorded = Some(Recorded {
        request_id: kept.request_id.to_string(),
        time: kept.time.rfc3339(),
        status: kept.status.as_u16(),
        decision: kept.decision.to_owned(),
        upstream: kept.upstream.clone(),
        server: kept.server.clone(),
        tries: kept.tries,
    });
    explanation
}

/// Why a request was allowed.
pub(super) const fn allowed(is_named: bool) -> Reason {
    if is_named { Reason::SignedIn } else { Reason::Public }
}

/// The outcome behind the word of an access line.
pub(super) fn decided(kept: &Kept) -> Outcome {
    match kept.decision {
        // The rules said yes to what was one too many.
        "permit" | "rate-limited" => Outcome::Allow,
        "challenge" => Outcome::SignIn,
        word => Outcome::parse(word).unwrap_or(Outcome::Error),
    }
}

pub(super) fn bare(question: &Question, judgement: &Judgement<'_>) -> Explanation {
    Explanation {
        method: question.method.to_string(),
        host: question.target.authority.clone().unwrap_or_default(),
        path: question.target.path.clone(),
        canonical: None,
        client: question.client,
        who: Who { credential: Shown::Nothing.word().to_owned(), ..Who::default() },
        outcome: judgement.outcome.word().to_owned(),
        code: judgement.reason.code().to_owned(),
        reason: judgement.sentence(),
        route: judgement.route.map(|route| route.name.to_string()),
        reading: judgement.reading.map(|reading| reading.name().to_owned()),
        answer: match judgement.reason {
            Reason::Line(LineError::Method) => "405 Method Not Allowed".to_owned(),
            Reason::Line(LineError::Protocol) => "501 Not Implemented".to_owned(),
            Reason::Line(LineError::OptionsOfServer) => "204 No Content, by the gateway itself".to_owned(),
            _ => "400 Bad Request".to_owned(),
        },
        routes: Vec::new(),
        routes_left_out: 0,
        reads_all: false,
        readings: Vec::new(),
        sent: None,
        notes: Vec::new(),
        recorded: None,
    }
}

fn who(asker: &Asker) -> Who {
    let mut who = Who {
        credential: asker.shown.word().to_owned(),
        issuer: asker.issuer.as_ref().map(ToString::to_string),
        refused: asker.unproven.map(|reason| reason.to_string()),
        ..Who::default()
    };
    if let Some(identity) = &asker.identity {
        who.user = Some(identity.profile.user.clone());
        who.groups.clone_from(&identity.profile.groups);
        who.scopes.clone_from(&identity.scopes);
        who.methods.clone_from(&identity.methods);
        who.signed_in_at = identity.signed_in_at.map(crate::clock::Timestamp::rfc3339);
    }
    who
}

/// What the client gets.
fn answer(config: &Config, judgement: &Judgement<'_>) -> String {
    let takes_sign_in = |route: &&Arc<Route>| route.accept.cookie && route.unauthenticated != Unauthenticated::Refuse;
    match judgement.outcome {
        Outcome::Allow => judgement.route.map_or_else(String::new, |route| allowed_answer(route)),
        Outcome::Deny => "403 Forbidden".to_owned(),
        Outcome::NotFound => "404 Not Found".to_owned(),
        Outcome::BadRequest => "400 Bad Request".to_owned(),
        Outcome::Own => "the gateway's own".to_owned(),
        Outcome::Error => "503 Service Unavailable".to_owned(),
        Outcome::SignIn if judgement.reason == Reason::TooManyAttempts => "429 Too Many Requests".to_owned(),
        Outcome::SignIn => {
            let by_page = matches!(judgement.reason, Reason::NotAuthenticated | Reason::StepUp)
                && judgement.by_password
                && judgement.route.as_ref().is_some_and(takes_sign_in);
            let page = format!("; a page load is sent to {}", config.login.path);
            format!("401 Unauthorized{}", if by_page { page.as_str() } else { "" })
        }
    }
}

/// What whoever may pass gets.
fn allowed_answer(route: &Route) -> String {
    match &route.to {
        Destination::Upstream(_) => "it goes on to the application".to_owned(),
        Destination::Respond(respond) => format!("{}, which the route answers itself", respond.status),
        Destination::Redirect(Redirect { status, origin, path }) => {
            format!("{status} to {}{}", origin.as_deref().unwrap_or_default(), path.as_str())
        }
    }
}

/// The routes that were asked about the path as written, in their order, up to the one that decides.
pub(super) fn routes(rules: &Rules, head: &Head, asking: &Asking<'_>) -> (Vec<RouteTried>, usize) {
    let decides = rules.find(head).map(|route| route.index);
    let asked = decides.map_or(rules.routes().len(), |index| index + 1);
    let (mut tried, mut left_out) = (Vec::new(), 0);
    for route in rules.routes().iter().take(asked) {
        let matches = decides == Some(route.index);
        let is_near = matches || route.path.matches(head.path.canonical());
        if !matches && (tried.len() >= MOST_ROUTES || (asked > FEW_ROUTES && !is_near)) {
            left_out += 1;
            continue;
        }
        let allow = if matches { alternatives(route, head, asking) } else { Vec::new() };
        tried.push(RouteTried { name: route.name.to_string(), matches, conditions: of_route(route, head), allow });
    }
    (tried, left_out)
}

/// Host, path and method, as a route asks for them.
fn of_route(route: &Route, head: &Head) -> Vec<Condition> {
    let (host, path) = (head.host.name(), head.path.canonical());
    let mut conditions = Vec::new();
    let mut add = |key: &str, wanted: String, found: &str, holds: bool| {
        let (key, found) = (key.to_owned(), found.to_owned());
        conditions.push(Condition { key, wanted, found, holds: Some(holds) });
    };
    if !route.hosts.is_empty() {
        let wanted = route.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
        add("hosts", wanted, host, route.hosts.iter().any(|pattern| pattern.matches(host)));
    }
    add("path", route.path.as_str().to_owned(), path, route.path.matches(path));
    if let Some(methods) = &route.methods {
        let wanted = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        add("methods", wanted, head.method.as_str(), methods.contains(&head.method));
    }
    conditions
}

fn readings(rules: &Rules, head: &Head, asking: &Asking<'_>) -> Vec<ReadingTried> {
    let Some(first) = rules.find(head) else { return rules.looks(head).map(|look| not_found(&look)).collect() };
    // Where what was shown is not good and would have to be, nobody is asked anything.
    let Ok(asking) = asking.on(first, head) else { return Vec::new() };
    let tried = |look: Look<'_>| {
        let Some(route) = look.route else { return not_found(&look) };
        let says = rule(route, head, &asking);
        let is_other = !Arc::ptr_eq(route, first);
        ReadingTried {
            reading: name(&look),
            path: look.path.to_string(),
            route: Some(route.name.to_string()),
            outcome: says.outcome().word().to_owned(),
            reason: says.reason().to_string(),
            allow: if is_other { alternatives(route, head, &asking) } else { Vec::new() },
        }
    };
    rules.looks(head).map(tried).collect()
}

fn not_found(look: &Look<'_>) -> ReadingTried {
    ReadingTried {
        reading: name(look),
        path: look.path.to_string(),
        route: None,
        outcome: Outcome::NotFound.word().to_owned(),
        reason: Reason::NoRoute.to_string(),
        allow: Vec::new(),
    }
}

fn name(look: &Look<'_>) -> String {
    look.reading.map_or("as-written", |reading| reading.name()).to_owned()
}

fn alternatives(route: &Route, head: &Head, asking: &Asking<'_>) -> Vec<Alternative> {
    let asking = asking.on(route, head).unwrap_or_default();
    let facts: Facts<'_> = asking.facts(route, head);
    let outcome = |verdict| match verdict {
        Verdict::Allow => Outcome::Allow,
        Verdict::SignIn { .. } | Verdict::StepUp => Outcome::SignIn,
        Verdict::Deny(_) => Outcome::Deny,
    };
    let alternatives = route.allow.alternatives(&facts).into_iter().map(|alternative| Alternative {
        outcome: outcome(alternative.verdict).word().to_owned(),
        conditions: alternative
            .conditions
            .into_iter()
            .map(|condition| Condition {
                key: condition.key.to_owned(),
                wanted: condition.wanted,
                found: condition.found,
                holds: condition.holds,
            })
            .collect(),
    });
    alternatives.collect()
}

/// What goes on to the application.
pub(super) fn sent(config: &Config, route: &Route, head: &Head, asker: &Asker, named: bool) -> Sent {
    let upstream = route.to.upstream().and_then(|upstream| config.upstreams.get(upstream));
    let change = route.path_change();
    let target = proxy::target(head, change).map_or_else(|_| head.target(), |target| target.to_string());
    let mut added: Vec<Header> = Vec::new();
    let mut add = |name: &str, value: String| added.push(Header { name: title(name), value });
    let identity = asker.identity.as_ref().filter(|_| named);
    for (name, value) in identity.map(|identity| identity.headers(&route.identity)).unwrap_or_default() {
        add(name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    if let (Some(name), Some(_)) = (&route.identity.assertion, identity) {
        add(name.as_str(), "(a signed token, made for each request)".to_owned());
    }
    add("x-forwarded-for", head.client.to_string());
    add("x-forwarded-proto", if head.https { "https" } else { "http" }.to_owned());
    add("x-forwarded-host", head.host.to_string());
    if let PathChange::Cut(prefix) = change {
        add("x-forwarded-prefix", prefix.to_owned());
    }
    let said = |value: &HeaderValue| match value.is_sensitive() {
        true => HIDDEN.to_owned(),
        false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    if let Some(host) = &route.set_host {
        add("host", said(host));
    }
    for (name, value) in route.request_headers.set.iter().chain(&route.request_headers.add) {
        add(name.as_str(), said(value));
    }
    let (servers, balance) =
        upstream.map(|one| candidates(one, head, identity.map(|who| &*who.profile.user))).unwrap_or_default();
    Sent {
        upstream: upstream.map(|upstream| upstream.name.clone()).unwrap_or_default(),
        servers,
        balance,
        target,
        removed: removed(config, route, asker, named),
        added,
    }
}

/// The servers that a request may go to, and how one of several is chosen. Where it is found by what is known of the
/// request, they stand in the order in which they are asked.
fn candidates(upstream: &Arc<Upstream>, head: &Head, user: Option<&str>) -> (Vec<String>, Option<String>) {
    let urls: Vec<String> = upstream.servers.iter().map(|server| server.address.to_string()).collect();
    if urls.len() < 2 {
        return (urls, None);
    }
    let by = match &upstream.balance {
        balance @ (Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo) => {
            return (urls, Some(format!("any of these that is well, by {}", balance.name())));
        }
        Balance::Hash(by @ (HashBy::Header(_) | HashBy::Cookie(_))) => {
            return (urls, Some(format!("one of these, by hash of {by}")));
        }
        Balance::Hash(by) => by,
    };
    let caller = Caller { user, client: head.client.0 };
    let order = upstream::order(upstream, caller);
    let by_turn = order.iter().filter_map(|at| urls.get(*at).cloned()).collect();
    (by_turn, Some(format!("the first of these that is well, by hash of {by}")))
}

/// What a client could say and the application does not hear.
fn removed(config: &Config, route: &Route, asker: &Asker, named: bool) -> Vec<String> {
    let overrides = config.routes.iter().flat_map(|route| route.identity.names());
    let mut names: Vec<String> = Vec::new();
    for name in config.identity.names().chain(overrides).map(|name| title(name.as_str())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in ALWAYS_REMOVED {
        if !names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            names.push(name.to_owned());
        }
    }
    if route.strips_method_overrides {
        names.push("X-HTTP-Method-Override".to_owned());
    }
    match asker.shown {
        Shown::Bearer if route.forward_token && named => {}
        Shown::Bearer | Shown::Basic | Shown::ApiKey => names.push("Authorization".to_owned()),
        Shown::Nothing | Shown::Cookie | Shown::Certificate => {}
    }
    names.push(format!("cookie {}", config.sessions.cookie));
    names.extend(route.request_headers.remove.iter().map(|name| title(name.as_str())));
    names
}

/// A header's name as people write it.
fn title(name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// So many routes are shown even where their paths do not match.
const FEW_ROUTES: usize = 20;

/// More than these are not shown, but counted.
const MOST_ROUTES: usize = 100;
