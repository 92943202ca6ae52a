//! What comes of a preflight: `cors` decides about it, and no rule.

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, HeaderName, Method};

use super::document::Explanation;
use super::examine::{bare, routes, sent};
use super::question::{Judgement, Question};
use crate::access::{Answers, Asker, Asking, Reason, Rules};
use crate::config::{Config, CorsRules};
use crate::endpoint;
use crate::message::head::Head;
use crate::policy::Outcome;

/// Explains what would come of `question` with `headers`, and without a credential, if it is a true preflight of a route
/// that says who answers; `None`: it is an ordinary request.
pub fn preflight(config: &Config, rules: &Rules, question: &Question, headers: &HeaderMap) -> Option<Explanation> {
    let head = question.head(config).ok()?;
    if endpoint::find(config, head.host.name(), head.path.canonical()).is_some() {
        return None;
    }
    let (route, answers) = rules.preflight(&head, headers)?;
    let (outcome, reason, answer) = match answers {
        Answers::Gateway => (Outcome::Allow, Reason::Preflight, "204 No Content, by the gateway itself"),
        Answers::Nobody => (Outcome::Deny, Reason::ForeignOrigin, "403 Forbidden"),
        Answers::Application => {
            (Outcome::Allow, Reason::Preflight, "it goes on to the application, which answers for itself")
        }
    };
    let judgement =
        Judgement { outcome, reason, route: Some(route), reading: None, by_password: false, observed: None };
    let mut explanation = bare(question, &judgement);
    head.host.name().clone_into(&mut explanation.host);
    explanation.canonical = Some(head.path.canonical().to_owned());
    explanation.client = head.client.0;
    answer.clone_into(&mut explanation.answer);
    let said = |name: &HeaderName| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
    };
    let (origin, method) = (said(&ORIGIN), said(&ACCESS_CONTROL_REQUEST_METHOD));
    explanation.notes.push(format!("a preflight of {origin}: the route is that of the {method} which it announces"));
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let announced = Head { method: method.clone(), ..head.clone() };
    (explanation.routes, explanation.routes_left_out) = routes(rules, &announced, &Asking::default());
    // No rule is asked.
    explanation.routes.iter_mut().for_each(|route| route.allow.clear());
    match (answers, route.cors.rules()) {
        (Answers::Gateway, Some(cors)) => {
            explanation.notes.push(then(cors, &method, &said(&ACCESS_CONTROL_REQUEST_HEADERS)));
        }
        (Answers::Application, _) => {
            explanation.sent = Some(sent(config, route, &head, &Asker::default(), false));
        }
        _ => {}
    }
    Some(explanation)
}

/// What the browser makes of the answer (Fetch standard, section 4.8, step 7).
fn then(cors: &CorsRules, method: &Method, asked: &str) -> String {
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::POST);
    if !is_safe && !cors.methods.contains(method) {
        let named = cors.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        return format!("the browser does not send the {method} then: `cors.methods` is {named}");
    }
    let names = asked.split(',').map(str::trim).filter(|name| !name.is_empty());
    let is_named = |name: &str| cors.headers.iter().any(|known| known.as_str().eq_ignore_ascii_case(name));
    let missing: Vec<&str> = names.filter(|name| !is_named(name)).collect();
    if !missing.is_empty() {
        return format!("the browser does not send the {method} then: `cors.headers` lacks {}", missing.join(", "));
    }
    let cookie = if cors.credentials { "with the cookie, if the script asks for it" } else { "without a cookie" };
    format!("the browser then sends the {method} {cookie}; the rules decide about that one")
}
