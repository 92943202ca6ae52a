//! `[server]` and `[server.limits]`.

use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Context, Item, Table, Written, report_later};
use super::values::Fault;
use super::{ForwardAuth, forward_auth, later, url, values};
use crate::diag::{Diagnostic, Span, quoted};

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Where to listen, at least one.
    pub listen: Vec<SocketAddr>,
    /// What a browser types.
    pub public_url: PublicUrl,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which of their headers are read.
    pub trusted_headers: TrustedHeaders,
    /// Worker threads, at least one (0 in the file has become the number of cores).
    pub workers: usize,
    /// Who asks about requests on `/.gateway/check`.
    pub forward_auth: ForwardAuth,
    /// `[server.limits]`
    pub limits: Limits,
}

/// The origin that a browser types: scheme, host and port, never a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Whether it is `https`, which makes cookies `Secure` and `__Host-`.
    pub https: bool,
    /// Lower-case host without port; an IPv6 address in brackets.
    pub host: String,
    /// The port if it is written and not the scheme's own.
    pub port: Option<u16>,
}

impl PublicUrl {
    /// The origin as a browser serializes it: `https://apps.example.com`, `http://127.0.0.1:8080`.
    pub fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        match self.port {
            Some(port) => format!("{scheme}://{}:{port}", self.host),
            None => format!("{scheme}://{}", self.host),
        }
    }
}

/// Which forwarded headers are read from trusted peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedHeaders {
    /// `X-Forwarded-For`
    pub x_forwarded_for: bool,
    /// `X-Forwarded-Proto`
    pub x_forwarded_proto: bool,
    /// `X-Forwarded-Host`
    pub x_forwarded_host: bool,
    /// `Forwarded` (RFC 7239)
    pub forwarded: bool,
}

/// `[server.limits]`
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the first moment of a connection or a head until the head is whole.
    pub header_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Without progress while the gateway waits for the client.
    pub body_timeout: Duration,
    /// After SIGTERM: not ready, but still accepting.
    pub drain_delay: Duration,
    /// After that: how long requests may take to end.
    pub drain_timeout: Duration,
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Fields of a request head.
    pub headers: usize,
    /// Bytes of a request body; `None` is unlimited.
    pub body_bytes: Option<u64>,
    /// Open client connections.
    pub connections: usize,
}

/// `[server]` as written.
#[derive(Default)]
pub(super) struct Raw {
    listen: Option<Written<Vec<Written<SocketAddr>>>>,
    public_url: Option<Written<PublicUrl>>,
    trusted_proxies: Option<Vec<Written<IpNet>>>,
    trusted_headers: Option<TrustedHeaders>,
    workers: Option<Written<u64>>,
    forward_auth: Option<Written<ForwardAuth>>,
    limits: RawLimits,
}

/// `[server.limits]` as written.
#[derive(Default)]
struct RawLimits {
    header_timeout: Option<Written<Duration>>,
    idle_timeout: Option<Written<Duration>>,
    body_timeout: Option<Written<Duration>>,
    drain_delay: Option<Written<Duration>>,
    drain_timeout: Option<Written<Duration>>,
    header_bytes: Option<Written<Option<u64>>>,
    headers: Option<Written<u64>>,
    body_bytes: Option<Written<Option<u64>>>,
    connections: Option<Written<u64>>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            listen: table.take("listen").and_then(|item| listen(&item)),
            public_url: table.take("public_url").and_then(|item| {
                item.mask_user();
                item.parsed("bad-url", public_url)
            }),
            trusted_proxies: table.take("trusted_proxies").and_then(|item| trusted_proxies(&item)),
            trusted_headers: table.take("trusted_headers").and_then(|item| trusted_headers(&item)),
            workers: table.take("workers").and_then(|item| item.count(0, 1024)),
            forward_auth: table
                .take("forward_auth")
                .and_then(|item| item.word("server.forward_auth", forward_auth::WORDS)),
            limits: table.table("limits", "server.limits").map(RawLimits::read).unwrap_or_default(),
        };
        table.finish();
        raw
    }

    /// Where `public_url` is written.
    pub(super) fn public_url_place(&self) -> Option<Span> {
        self.public_url.as_ref().map(Spanned::span)
    }

    pub(super) fn resolve(self, cx: &Context<'_>) -> Server {
        let listen = self.listen.map(|listen| {
            let span = listen.span();
            let mut seen: Vec<SocketAddr> = Vec::new();
            for address in listen.into_inner() {
                if seen.contains(address.get_ref()) && address.get_ref().port() != 0 {
                    let finding =
                        Diagnostic::error("duplicate-value", format!("`{}` is listened on twice", address.get_ref()));
                    cx.report(finding.at(address.span()).help("remove one of them"));
                }
                seen.push(address.into_inner());
            }
            Spanned::new(span, seen)
        });
        for proxy in self.trusted_proxies.iter().flatten().filter(|proxy| proxy.get_ref().prefix_len() == 0) {
            let message = format!("every client is trusted: `{}` is the whole Internet", proxy.get_ref());
            let finding = Diagnostic::warning("trusts-everyone", message).at(proxy.span());
            let finding = finding.label("anyone can say to be another address");
            cx.report(finding.help("name the addresses of the proxies in front of this gateway"));
        }
        if let Some(asks) = self.forward_auth.as_ref().filter(|asks| *asks.get_ref() != ForwardAuth::Off)
            && self.trusted_proxies.as_ref().is_none_or(Vec::is_empty)
        {
            let finding = Diagnostic::warning("nobody-may-ask", "no peer may ask on `/.gateway/check`: it answers 403");
            let finding = finding.at(asks.span()).label("only a trusted proxy may");
            cx.report(finding.help("name the address of the proxy that asks in `trusted_proxies`"));
        }
        let workers = self.workers.map_or(0, Spanned::into_inner);
        Server {
            listen: listen.map_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8080))], Spanned::into_inner),
            public_url: self.public_url.map_or_else(default_url, Spanned::into_inner),
            trusted_proxies: self.trusted_proxies.into_iter().flatten().map(Spanned::into_inner).collect(),
            trusted_headers: self.trusted_headers.unwrap_or(TrustedHeaders {
                x_forwarded_for: true,
                x_forwarded_proto: true,
                x_forwarded_host: false,
                forwarded: false,
            }),
            workers: match usize::try_from(workers) {
                Ok(workers) if workers > 0 => workers,
                _ => std::thread::available_parallelism().map_or(1, NonZero::get),
            },
            forward_auth: self.forward_auth.map_or_else(ForwardAuth::default, Spanned::into_inner),
            limits: self.limits.resolve(cx),
        }
    }
}

impl RawLimits {
    fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            header_timeout: table.duration("header_timeout"),
            idle_timeout: table.duration("idle_timeout"),
            body_timeout: table.duration("body_timeout"),
            drain_delay: table.duration("drain_delay"),
            drain_timeout: table.duration("drain_timeout"),
            header_bytes: table.take("header_bytes").and_then(|item| item.size()),
            headers: table.take("headers").and_then(|item| item.count(1, 10_000)),
            body_bytes: table.take("body_bytes").and_then(|item| item.size()),
            connections: table.take("connections").and_then(|item| item.count(1, 10_000_000)),
        };
        table.finish();
        raw
    }

    fn resolve(self, cx: &Context<'_>) -> Limits {
        let seconds = Duration::from_secs;
        let count = |value: Option<Written<u64>>, default| value.map_or(default, |value| as_usize(value.into_inner()));
        Limits {
            header_timeout: positive(cx, "header_timeout", self.header_timeout, seconds(10)),
            idle_timeout: positive(cx, "idle_timeout", self.idle_timeout, seconds(75)),
            body_timeout: positive(cx, "body_timeout", self.body_timeout, seconds(30)),
            drain_delay: self.drain_delay.map_or(Duration::ZERO, Spanned::into_inner),
            drain_timeout: self.drain_timeout.map_or(seconds(30), Spanned::into_inner),
            header_bytes: header_bytes(cx, self.header_bytes),
            headers: count(self.headers, 100),
            body_bytes: self.body_bytes.and_then(Spanned::into_inner),
            connections: count(self.connections, 10_000),
        }
    }
}

/// A duration that must not be zero.
pub(super) fn positive(cx: &Context<'_>, key: &str, value: Option<Written<Duration>>, default: Duration) -> Duration {
    let Some(value) = value else { return default };
    if value.get_ref().is_zero() {
        let finding = Diagnostic::error("out-of-range", format!("`{key}` can't be zero")).at(value.span());
        cx.report(finding.help("write how long it takes at most, such as \"30s\""));
    }
    value.into_inner()
}

/// `value`, or the most that this machine can count.
pub(super) fn as_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn header_bytes(cx: &Context<'_>, value: Option<Written<Option<u64>>>) -> usize {
    let Some(value) = value else { return 32 << 10 };
    match value.get_ref() {
        Some(bytes) if (1 << 10..=1 << 20).contains(bytes) => as_usize(*bytes),
        _ => {
            let finding = Diagnostic::error("out-of-range", "`header_bytes` must be between 1KiB and 1MiB");
            cx.report(finding.at(value.span()).help("the default, \"32KiB\", suits most applications"));
            32 << 10
        }
    }
}

fn listen(item: &Item<'_>) -> Option<Written<Vec<Written<SocketAddr>>>> {
    let list = match item.value.get_ref() {
        DeValue::Array(_) => item.list()?.into_inner(),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            return item.wrong_type("a list of addresses", Some("write [\"127.0.0.1:8080\"]"));
        }
        DeValue::String(_) | DeValue::Table(_) => {
            vec![Item { cx: item.cx, name: item.name.clone(), key: item.key.clone(), value: item.value }]
        }
    };
    if list.is_empty() {
        let finding = Diagnostic::error("empty-list", "`listen` names no address").at(item.span());
        item.cx.report(finding.help("write [\"127.0.0.1:8080\"], or leave it out"));
    }
    let addresses: Vec<_> = list.iter().filter_map(listener).collect();
    (!addresses.is_empty()).then(|| Spanned::new(item.span(), addresses))
}

/// `"host:port"`, or `{ address = "host:port", … }`.
fn listener(item: &Item<'_>) -> Option<Written<SocketAddr>> {
    let is_table = |table: &DeTable<'_>| !table.keys().any(|key| matches!(key.get_ref().as_ref(), "env" | "default"));
    if item.value.get_ref().as_table().is_some_and(is_table) {
        let mut table = item.table("server.listen")?;
        let address = table.take("address");
        if address.is_none() {
            let finding = Diagnostic::error("missing-key", "a listener needs an `address`").at(item.span());
            item.cx.report(finding.help("add address = \"127.0.0.1:8080\""));
        }
        table.finish();
        return address.and_then(|address| socket(&address));
    }
    socket(item)
}

fn socket(item: &Item<'_>) -> Option<Written<SocketAddr>> {
    let text = item.string()?;
    if let Some(later) = later::word("server.listen", text.get_ref()) {
        report_later(item.cx, text.get_ref(), later, item.span());
        return None;
    }
    item.parsed("bad-address", values::socket_address)
}

fn public_url(text: &str) -> Result<PublicUrl, Fault> {
    let origin = url::origin(text)?;
    let https = match origin.scheme.as_str() {
        "https" => true,
        "http" => false,
        other => {
            let message = format!("a browser can't open {}", quoted(&format!("{other}://")));
            return Err(Fault::new(message, "not http or https", "write \"https://…\" or \"http://…\""));
        }
    };
    let own = if https { 443 } else { 80 };
    Ok(PublicUrl { https, host: origin.host, port: origin.port.filter(|port| *port != own) })
}

fn default_url() -> PublicUrl {
    PublicUrl { https: false, host: "127.0.0.1".to_owned(), port: Some(8080) }
}

fn trusted_proxies(item: &Item<'_>) -> Option<Vec<Written<IpNet>>> {
    let network = |item: &Item<'_>| {
        let text = item.string()?;
        if let Some(later) = later::word("server.trusted_proxies", text.get_ref()) {
            report_later(item.cx, text.get_ref(), later, item.span());
            return None;
        }
        item.parsed("bad-network", values::network)
    };
    Some(item.list()?.get_ref().iter().filter_map(network).collect())
}

fn trusted_headers(item: &Item<'_>) -> Option<TrustedHeaders> {
    let mut headers =
        TrustedHeaders { x_forwarded_for: false, x_forwarded_proto: false, x_forwarded_host: false, forwarded: false };
    for name in item.strings()?.into_inner() {
        match name.get_ref().to_ascii_lowercase().as_str() {
            "x-forwarded-for" => headers.x_forwarded_for = true,
            "x-forwarded-proto" => headers.x_forwarded_proto = true,
            "x-forwarded-host" => headers.x_forwarded_host = true,
            "forwarded" => headers.forwarded = true,
            _ => {
                let message = format!("{} is never read from a proxy", quoted(name.get_ref()));
                let finding = Diagnostic::error("unknown-value", message).at(name.span());
                item.cx.report(
                    finding.help("known values: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded"),
                );
            }
        }
    }
    if headers.forwarded && (headers.x_forwarded_for || headers.x_forwarded_proto || headers.x_forwarded_host) {
        let finding = Diagnostic::warning("two-families", "`Forwarded` and `X-Forwarded-…` are both read from a proxy");
        let finding = finding.at(item.span()).label("a client can send the one that the proxy does not set");
        item.cx.report(finding.help("name only what your proxy sets"));
    }
    Some(headers)
}
