//! Requests that a test writes down in a line, and a client that keeps its connection.

use std::net::SocketAddr;

use super::{Response, Wire};

/// A request, to be sent exactly as it is written.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// `GET target`
pub(crate) fn get(target: &str) -> Request {
    Request::new("GET", target)
}

/// `POST target`
pub(crate) fn post(target: &str) -> Request {
    Request::new("POST", target)
}

impl Request {
    /// A request with any method.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, host: None, headers: Vec::new(), body: None }
    }

    /// With this `Host` in place of the gateway's address.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// With one more field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With `Authorization: Bearer`.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// With `Cookie`.
    pub(crate) fn cookie(self, cookie: &str) -> Self {
        self.header("Cookie", cookie)
    }

    /// As a browser loads a page.
    pub(crate) fn page_load(self) -> Self {
        self.header("Sec-Fetch-Mode", "navigate")
            .header("Sec-Fetch-Site", "same-origin")
            .header("Sec-Fetch-Dest", "document")
            .header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
    }

    /// With a body and its length.
    pub(crate) fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("Content-Type", kind)
    }

    /// With a JSON body.
    pub(crate) fn json(self, value: &serde_json::Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// With a form, its values encoded.
    pub(crate) fn form(self, fields: &[(&str, &str)]) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let body = form.extend_pairs(fields).finish();
        self.body("application/x-www-form-urlencoded", body)
    }

    /// The request as it goes to `address`.
    pub(crate) fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// The method.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }
}

/// A client with one connection, opened anew when the gateway said that it closes it.
pub(crate) struct Client {
    address: SocketAddr,
    wire: Option<Wire>,
    /// Connections opened so far.
    pub(crate) opened: usize,
}

impl Client {
    /// A client of `address`, not connected yet.
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self { address, wire: None, opened: 0 }
    }

    /// Sends `request` and reads its answer.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        let bytes = request.bytes(self.address);
        let wire = self.wire.get_or_insert_with(|| {
            self.opened += 1;
            Wire::connect(self.address)
        });
        wire.write(&bytes);
        let answer = wire.read_answer(request.method());
        let response = answer.unwrap_or_else(|error| {
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            panic!("no whole answer: {error}, to {head}")
        });
        if response.closes {
            self.wire = None;
        }
        response
    }
}
