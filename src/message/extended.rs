//! WebSockets over HTTP/2 (RFC 8441): the extended CONNECT becomes the request that HTTP/1.1 has for it, so that one set of
//! rules judges both, and the answer becomes the one that HTTP/2 has.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE};
use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;

/// What marks a request that came as an extended CONNECT. As long as it is held, the client's connection has that stream.
#[derive(Clone)]
pub struct Extended {
    _stream: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extended")
    }
}

impl Extended {
    /// The mark among a request's extensions.
    pub fn marks(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some()
    }

    /// Turns `request` into a GET with the fields of an upgrade if it opens a WebSocket, and says whether it does. What
    /// HTTP/1.1 proves itself by has no place in it (RFC 8441, section 5), and is the gateway's to make for the next hop.
    pub fn translate<B>(request: &mut Request<B>, stream: Arc<dyn Any + Send + Sync>) -> bool {
        let asked = request.extensions().get::<Protocol>();
        let is_socket = asked.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
        if *request.method() != Method::CONNECT || !is_socket {
            return false;
        }
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        for name in [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_ACCEPT] {
            headers.remove(name);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        request.extensions_mut().insert(Self { _stream: stream });
        true
    }
}

/// Turns the answer to a translated request back: that both sides have switched is a 200 here.
pub fn translate_back<B>(response: &mut Response<B>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH, TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
}

/// Whether `request` is an extended CONNECT for another protocol than those that are translated.
pub fn is_foreign<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: Option<&'static str>) -> Request<()> {
        let mut request = Request::builder().method(Method::CONNECT).uri("https://h/socket").body(()).unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("theirs"));
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(Protocol::from_static(protocol));
        }
        request
    }

    #[test]
    fn only_a_websocket_becomes_an_upgrade() {
        for (protocol, is_socket) in
            [(Some("websocket"), true), (Some("WebSocket"), true), (Some("x"), false), (None, false)]
        {
            let mut request = connect(protocol);
            assert_eq!(Extended::translate(&mut request, Arc::new(())), is_socket, "{protocol:?}");
            assert_eq!(Extended::marks(request.extensions()), is_socket);
            assert_eq!(request.method() == Method::GET, is_socket);
            assert_eq!(request.headers().contains_key(UPGRADE), is_socket);
            assert_eq!(request.headers().contains_key(SEC_WEBSOCKET_KEY), !is_socket);
            assert_eq!(is_foreign(&request), protocol == Some("x"));
        }
        let mut get = connect(Some("websocket"));
        *get.method_mut() = Method::GET;
        assert!(!Extended::translate(&mut get, Arc::new(())));
    }

    #[test]
    fn a_stream_lasts_as_long_as_what_it_opened() {
        let stream = Arc::new(());
        let mut request = connect(Some("websocket"));
        Extended::translate(&mut request, stream.clone());
        assert_eq!(Arc::strong_count(&stream), 2);
        drop(request);
        assert_eq!(Arc::strong_count(&stream), 1);
    }

    #[test]
    fn a_switch_is_an_ordinary_success_and_a_refusal_stays_one() {
        let answer = |status: u16| {
            let mut response = Response::builder().status(status).header(CONNECTION, "Upgrade").body(()).unwrap();
            for (name, value) in [(UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, "x"), (CONTENT_LENGTH, "5")] {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
            translate_back(&mut response);
            response
        };
        let switched = answer(101);
        assert_eq!((switched.status().as_u16(), switched.headers().len()), (200, 1));
        let refused = answer(403);
        assert_eq!((refused.status().as_u16(), refused.headers().len()), (403, 5));
    }
}
