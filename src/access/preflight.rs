//! Preflights: what a browser asks before a script of another site may send a request (Fetch standard, section 4.8).
//!
//! A true one carries nothing but the question, so that answering it, or passing it on without a name, tells and does
//! nothing. Whatever carries more is an ordinary request.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_LENGTH, COOKIE, ORIGIN,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::credential::shows_api_key;
use super::{Access, Current, Permit, Rules};
use crate::config::{Cors, Route};
use crate::message::head::Head;
use crate::message::headers::is_method_override;

/// What comes of a true preflight.
#[derive(Debug)]
pub enum Preflight {
    /// The gateway answers it by this route's rules, which the site is one of.
    Answer(Arc<Route>),
    /// The route's rules do not name the site.
    Refuse(Arc<Route>),
    /// The application answers it.
    Onward(Permit),
}

impl Access {
    /// What comes of the request if it is a true preflight of a route that says who answers; `None`: it is an ordinary one.
    ///
    /// The route is that of the request which the preflight announces.
    pub fn preflight(&self, head: &Arc<Head>, headers: &HeaderMap, current: &Arc<Current>) -> Option<Preflight> {
        let (route, answers) = self.rules.preflight(head, headers)?;
        Some(match answers {
            Answers::Gateway => Preflight::Answer(Arc::clone(route)),
            Answers::Nobody => Preflight::Refuse(Arc::clone(route)),
            Answers::Application => Preflight::Onward(Permit::for_preflight(route, head, current)),
        })
    }
}

/// Who answers a true preflight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The gateway, as the site is one of those that the route names.
    Gateway,
    /// Nobody: it is none of them.
    Nobody,
    /// The application.
    Application,
}

impl Rules {
    /// The route of the request that a true preflight announces, and who answers; `None`: it is an ordinary request.
    pub fn preflight(&self, head: &Head, headers: &HeaderMap) -> Option<(&Arc<Route>, Answers)> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let (origin, method) = announced(headers)?;
        let announced = Head { method, ..Head::clone(head) };
        let route = self.find(&announced)?;
        match &route.cors {
            Cors::None => None,
            Cors::Listed(rules) if rules.allow_origin(origin).is_some() => Some((route, Answers::Gateway)),
            Cors::Listed(_) => Some((route, Answers::Nobody)),
            // However the application reads the path, it must be one whose preflights it answers.
            Cors::Upstream => {
                let passes =
                    |route: &Arc<Route>| route.cors == Cors::Upstream && route.allow.takes_some_of(announced.client.0);
                let all = self.looks(&announced).all(|look| look.route.is_some_and(passes));
                all.then_some((route, Answers::Application))
            }
        }
    }
}

/// The origin and the method of a true preflight.
fn announced(headers: &HeaderMap) -> Option<(&HeaderValue, Method)> {
    let carries_more =
        [AUTHORIZATION, COOKIE, TRANSFER_ENCODING, UPGRADE].iter().any(|name| headers.contains_key(name))
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
            || headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().nth(1).is_some()
            || headers.keys().any(|name| is_method_override(name.as_str()))
            || headers.get_all("sec-fetch-mode").iter().any(|mode| mode != "cors")
            || headers.contains_key("x-api-key")
            || shows_api_key(headers);
    let origin = only(headers, &ORIGIN).filter(|_| !carries_more)?;
    let method = Method::from_bytes(only(headers, &ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()?;
    let is_forwarded = method != Method::TRACE && method != Method::CONNECT;
    is_forwarded.then_some((origin, method))
}

/// The one value of a header, which is not empty.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|value| !value.is_empty() && values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_carries_nothing_else_is_a_preflight() {
        let headers = |more: &[(&'static str, &'static str)]| {
            let question = [("origin", "https://app.example"), ("access-control-request-method", "PUT")];
            let mut headers = HeaderMap::new();
            for (name, value) in question.iter().chain(more) {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers
        };
        for more in [
            &[][..],
            &[("access-control-request-headers", "content-type,x-a")],
            &[("content-length", "0"), ("sec-fetch-mode", "cors")],
        ] {
            assert_eq!(announced(&headers(more)).unwrap().1, Method::PUT, "{more:?}");
        }
        for more in [
            ("origin", "https://other.example"),
            ("access-control-request-method", "PUT"),
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("x-api-key", "pcl_x"),
            ("content-length", "1"),
            ("content-length", "00"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("x-http-method-override", "DELETE"),
            ("sec-fetch-mode", "navigate"),
        ] {
            assert!(announced(&headers(&[more])).is_none(), "{more:?}");
        }
        let mut bare = headers(&[]);
        bare.remove(ORIGIN);
        assert!(announced(&bare).is_none());
        for method in ["", "TRACE", "CONNECT", "A B"] {
            let mut other = headers(&[]);
            other.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static(method));
            assert!(announced(&other).is_none(), "{method}");
        }
    }
}
