//! Answers of the gateway's own, put together from parts.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::Body;
use super::rejection::Rejection;

/// An answer with a body of `content_type`.
pub fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Has the connection closed after `response`.
pub fn close<B>(response: &mut Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The status and the connection's fate of `rejection`, without a body: the caller writes that.
pub fn rejected(rejection: &Rejection) -> Response<Body> {
    let mut response = empty(rejection.status);
    if let Some(after) = rejection.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    if rejection.close {
        close(&mut response);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::rejection::Reason;

    #[test]
    fn a_rejection_says_when_to_come_back_and_whether_to_close() {
        let busy = rejected(&Rejection::new(Reason::TooManyPending));
        assert_eq!(busy.status(), 503);
        assert_eq!(busy.headers()[RETRY_AFTER], "1");
        assert!(!busy.headers().contains_key(CONNECTION));
        let broken = rejected(&Rejection::new(Reason::BodyBroken));
        assert_eq!(broken.headers()[CONNECTION], "close");
    }
}
