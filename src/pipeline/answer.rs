//! What a route answers itself, once its rule has let the request pass: `respond` and `redirect`.

use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Response, StatusCode};

use crate::access::Permit;
use crate::config::{Destination, Redirect, Respond, Route};
use crate::endpoint::answer::{Asker, Problem};
use crate::message::body::Body;
use crate::message::head::Head;
use crate::pattern::{carry, one_slash};
use crate::proxy::{edit_answer, keep_private};

/// The answer of the route that `permit` was given for; `None`: it leads to an upstream.
pub(super) fn own(asker: &Asker<'_>, permit: &Permit, head: &Head) -> Option<Response<Body>> {
    let route = permit.route();
    let mut answer = match &route.to {
        Destination::Upstream(_) => return None,
        Destination::Respond(respond) => self::respond(asker, respond),
        Destination::Redirect(redirect) => self::redirect(asker, route, redirect, head),
    };
    edit_answer(answer.headers_mut(), &route.response_headers);
    if !permit.is_public() && answer.headers().get(CACHE_CONTROL).is_none_or(|said| said != "no-store") {
        keep_private(answer.headers_mut());
    }
    Some(answer)
}

fn respond(asker: &Asker<'_>, respond: &Respond) -> Response<Body> {
    let Respond { status, body, retry_after } = respond;
    let retry_after = retry_after.map(|wait| wait.as_secs().max(1));
    match body {
        Some(body) => asker.given(*status, body.content_type.clone(), body.bytes.clone(), retry_after),
        None if status.is_success() => asker.empty(*status),
        None => {
            let detail = status.canonical_reason().unwrap_or("Error");
            asker.problem(*status, &Problem { detail, retry_after, ..Problem::default() })
        }
    }
}

/// The site and the beginning of the path are the operator's. Of the request come whole segments in normal form, and the query.
fn redirect(asker: &Asker<'_>, route: &Route, redirect: &Redirect, head: &Head) -> Response<Body> {
    let path = carry(&route.path, &redirect.path, head.path.forwarded());
    let target = path.map(|path| match &redirect.origin {
        Some(origin) => format!("{origin}{path}"),
        // `//host` would be another site to a browser.
        None => one_slash(&path),
    });
    let target = target.map(|target| match &head.query {
        Some(query) => format!("{target}?{query}"),
        None => target,
    });
    let Some(location) = target.and_then(|target| HeaderValue::try_from(target.into_bytes()).ok()) else {
        let problem = Problem { detail: "Internal Server Error", ..Problem::default() };
        return asker.problem(StatusCode::INTERNAL_SERVER_ERROR, &problem);
    };
    let mut answer = asker.empty(redirect.status);
    answer.headers_mut().insert(LOCATION, location);
    answer
}
