//! Refusals as a client of gRPC reads them: a success of HTTP that has the status of the call in its head and no body
//! ("Trailers-Only" in gRPC's protocol over HTTP/2).
//!
//! Only what the rules refuse on the way to an application is told so. A malformed request and whoever asks for another
//! proxy get the status of HTTP: there a success would be a permission.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::message::body::Body;

/// The status of HTTP that stands behind a refusal, for log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(StatusCode);

/// The status that log and metrics know `response` by.
pub fn status_of<B>(response: &Response<B>) -> StatusCode {
    response.extensions().get::<Refused>().map_or(response.status(), |refused| refused.0)
}

/// Whether `request` is a call of gRPC, which is a POST over HTTP/2.
pub(super) fn is_call<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let after = kind.get(..KIND.len()).filter(|start| start.eq_ignore_ascii_case(KIND)).map(|_| &kind[KIND.len()..]);
    // gRPC-Web is another protocol, whose clients read bodies.
    let is_grpc = after.is_some_and(|after| matches!(after.first(), None | Some(b'+' | b';' | b' ')));
    is_grpc && *request.method() == Method::POST && request.version() == Version::HTTP_2
}

/// The refusal that is `status` in HTTP.
pub(super) fn refusal(status: StatusCode, detail: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    answer.extensions_mut().insert(Refused(status));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, code(status).into());
    let message = utf8_percent_encode(detail, ESCAPED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert(MESSAGE, message);
    }
    answer
}

/// The code that a client of gRPC takes a status of HTTP for (its document `http-grpc-status-mapping`), and for two that
/// stand for unknown there, the one that says what it is.
const fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 => 12,
        413 => 8,
        429 | 502..=504 => 14,
        400 | 500 => 13,
        _ => 2,
    }
}

const KIND: &[u8] = b"application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What is escaped in a message besides what is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_of_grpc_over_http_2_is_a_call() {
        let is = |kind: &str, method: Method, version| {
            let request = Request::builder().method(method).version(version).header(CONTENT_TYPE, kind);
            is_call(&request.body(()).unwrap())
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y", "application/grpc ;x"] {
            assert!(is(kind, Method::POST, Version::HTTP_2), "{kind}");
            assert!(!is(kind, Method::GET, Version::HTTP_2) && !is(kind, Method::POST, Version::HTTP_11), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grp", "application/json", ""] {
            assert!(!is(kind, Method::POST, Version::HTTP_2), "{kind}");
        }
        assert!(!is_call(&Request::builder().method(Method::POST).version(Version::HTTP_2).body(()).unwrap()));
    }

    #[test]
    fn a_refusal_is_a_head_alone_and_the_log_knows_what_it_is() {
        for (status, code) in [
            (401, "16"),
            (403, "7"),
            (404, "12"),
            (413, "8"),
            (429, "14"),
            (502, "14"),
            (503, "14"),
            (504, "14"),
            (418, "2"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = refusal(status, "50% ü\n");
            assert_eq!((answer.status().as_u16(), status_of(&answer)), (200, status));
            assert_eq!(answer.headers()["grpc-status"], code);
            assert_eq!(answer.headers()["grpc-message"], "50%25 %C3%BC%0A");
            assert!(http_body::Body::is_end_stream(answer.body()));
        }
        assert_eq!(status_of(&Response::new(())), 200);
    }
}
