//! What holds people to `https`: the redirect of a listener in the clear, and `Strict-Transport-Security`.

use std::time::Duration;

use http::header::{LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::config::Config;
use crate::message::body::Body;
use crate::message::head::Head;
use crate::message::respond;

/// Sends a request that came in the clear to `https` (RFC 9110, section 15.4.9: with its method). The host is
/// `public_url`'s, or the client's where a route names it: whoever writes another one sends nobody there.
pub(super) fn redirect(config: &Config, head: &Head) -> Response<Body> {
    let public = &config.server.public_url;
    let asked = head.host.name();
    let is_named = config.routes.iter().any(|route| route.hosts.iter().any(|host| host.matches(asked)));
    let host = if is_named { asked } else { &public.host };
    let port = public.port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut response = respond::empty(StatusCode::PERMANENT_REDIRECT);
    // Path and query have been read, and hold nothing that a field could not.
    match HeaderValue::try_from(format!("https://{host}{port}{}", head.target())) {
        Ok(location) => drop(response.headers_mut().insert(LOCATION, location)),
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// Has browsers come over `https` only from now on (RFC 6797, section 7.1), unless the application says for how long.
pub(super) fn hold_to_https(headers: &mut HeaderMap, time: Duration) {
    if !headers.contains_key(STRICT_TRANSPORT_SECURITY)
        && let Ok(value) = HeaderValue::try_from(format!("max-age={}", time.as_secs()))
    {
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
}
