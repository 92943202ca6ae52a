//! The head of a request after it was brought into its one form: what every decision is made about.

use std::time::Instant;

use http::Method;

use super::forwarded::ClientAddr;
use super::host::Host;
use super::path::RequestPath;
use crate::clock::Timestamp;

/// A request as it is judged. Made once per request, shared with the lease of what it opened.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method, compared as it is written.
    pub method: Method,
    /// The one host, and the port beside it.
    pub host: Host,
    /// The path and its readings.
    pub path: RequestPath,
    /// The query as it came, without `?`. Never judged.
    pub query: Option<String>,
    /// The client, after trusted proxies were looked through.
    pub client: ClientAddr,
    /// Whether the client came over https, as far as trusted peers say.
    pub https: bool,
    /// When the request was judged.
    pub now: Timestamp,
    /// When its head was whole, for durations.
    pub started: Instant,
}

impl Head {
    /// The origin that a browser on this page would have: scheme, host, and the port unless it is the scheme's own.
    pub fn origin(&self) -> String {
        let (scheme, own_port) = if self.https { ("https", 443) } else { ("http", 80) };
        match self.host.port() {
            Some(port) if port != own_port => format!("{scheme}://{}:{port}", self.host.name()),
            _ => format!("{scheme}://{}", self.host.name()),
        }
    }

    /// Path and query as they go on.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path.forwarded()),
            None => self.path.forwarded().to_owned(),
        }
    }
}
