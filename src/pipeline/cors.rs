//! `cors`: preflights that the gateway answers, and what every answer says to scripts of other sites.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::access::Reason;
use crate::config::{AllowedOrigins, CorsRules, Route};
use crate::endpoint::answer::{Asker, Problem};
use crate::message::body::Body;
use crate::message::head::Head;
use crate::message::survey::Fields;
use crate::observe::Record;
use crate::state::State;

/// The origin that a request names, once. It has no other `fields` than these of those that are noted.
pub(super) fn origin(headers: &HeaderMap, fields: Fields) -> Option<HeaderValue> {
    if !fields.may_have(Fields::ORIGIN) {
        return None;
    }
    let mut values = headers.get_all(ORIGIN).iter();
    values.next().filter(|_| values.next().is_none()).cloned()
}

/// 204: a true preflight of a site that is named. Which site it is, is said as on every answer.
pub(super) fn answer(asker: &Asker<'_>, record: &mut Record, route: &Route) -> Response<Body> {
    record.decision = "own";
    record.decided_by(route);
    record.because(Reason::Preflight, None);
    let mut answer = asker.empty(StatusCode::NO_CONTENT);
    let Some(CorsRules { methods, headers, max_age, .. }) = route.cors.rules() else { return answer };
    let fields = answer.headers_mut();
    list(fields, ACCESS_CONTROL_ALLOW_METHODS, methods.iter().map(http::Method::as_str));
    list(fields, ACCESS_CONTROL_ALLOW_HEADERS, headers.iter().map(HeaderName::as_str));
    if let Some(age) = max_age {
        fields.insert(ACCESS_CONTROL_MAX_AGE, age.as_secs().into());
    }
    answer
}

/// 403: a true preflight of another site, which the browser then takes for a no.
pub(super) fn refuse(asker: &Asker<'_>, record: &mut Record, route: &Route) -> Response<Body> {
    record.decision = "deny";
    record.decided_by(route);
    record.because(Reason::ForeignOrigin, None);
    let problem = Problem { detail: "This site may not use it", ..Problem::default() };
    asker.problem(StatusCode::FORBIDDEN, &problem)
}

/// Says on an answer who may read it, in place of what the application says; a preflight's own fields stay.
pub(super) fn announce(
    state: &State,
    head: &Head,
    record: &Record,
    origin: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) {
    let route = match (record.route_index, origin) {
        (Some(index), _) => state.config.routes.get(index),
        // Refused before a route was asked. Without an origin nobody waits for it.
        (None, Some(_)) => state.access.rules().find(head),
        (None, None) => None,
    };
    let Some(rules) = route.and_then(|route| route.cors.rules()) else { return };
    if record.code != Reason::Preflight.code() {
        let theirs: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with(FAMILY)).cloned().collect();
        for name in theirs {
            headers.remove(name);
        }
    }
    if rules.origins != AllowedOrigins::All {
        vary(headers);
    }
    let Some(allowed) = origin.and_then(|origin| rules.allow_origin(origin)) else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if rules.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    list(headers, ACCESS_CONTROL_EXPOSE_HEADERS, rules.expose.iter().map(HeaderName::as_str));
}

/// Says to caches that the answer depends on who asks.
fn vary(headers: &mut HeaderMap) {
    let says_so = headers.get_all(VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    });
    if !says_so {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

fn list<'a>(headers: &mut HeaderMap, name: HeaderName, items: impl Iterator<Item = &'a str>) {
    let text = items.collect::<Vec<_>>().join(", ");
    if let Some(value) = HeaderValue::try_from(text).ok().filter(|value| !value.is_empty()) {
        headers.insert(name, value);
    }
}

/// What all fields of this protocol begin with.
const FAMILY: &str = "access-control-";
