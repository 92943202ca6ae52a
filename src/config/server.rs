//! `[server]` and `[server.limits]`.

use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::{self, Address, RawAccess};
use super::reader::{Context, Item, Table, Written};
use super::tls::{self, Certificate, Tls};
use super::values::Fault;
use super::{ForwardAuth, forward_auth, url, values};
use crate::diag::{Diagnostic, Span, quoted};

/// `[server]`
#[derive(Clone, Debug)]
pub struct Server {
    /// Where to listen, at least one.
    pub listen: Vec<Listen>,
    /// What a browser types.
    pub public_url: PublicUrl,
    /// Peers whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether whoever connects to a unix socket is believed too.
    pub trusts_unix: bool,
    /// Whether trusted peers begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Which of their headers are read.
    pub trusted_headers: TrustedHeaders,
    /// Worker threads, at least one (0 in the file has become the number of cores).
    pub workers: usize,
    /// The certificates of the listeners that speak TLS.
    pub tls: Tls,
    /// For how long browsers are told to come over `https` only (RFC 6797).
    pub hsts: Option<Duration>,
    /// Who asks about requests on `/.gateway/check`.
    pub forward_auth: ForwardAuth,
    /// `[server.limits]`
    pub limits: Limits,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// Whether clients speak TLS there.
    pub tls: bool,
    /// Whether every request is sent to `https` instead.
    pub redirect_to_https: bool,
    /// Whether clients speak HTTP/2 without TLS there.
    pub h2c: bool,
}

impl Listen {
    /// A listener at `address` that speaks HTTP/1.1 in the clear.
    pub const fn plain(address: SocketAddr) -> Self {
        Self { address: Address::Tcp(address), tls: false, redirect_to_https: false, h2c: false }
    }
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
    listen: Option<Written<Vec<Written<RawListen>>>>,
    public_url: Option<Written<PublicUrl>>,
    trusted_proxies: Option<(Vec<Written<IpNet>>, bool)>,
    proxy_protocol: Option<Written<bool>>,
    trusted_headers: Option<TrustedHeaders>,
    workers: Option<Written<u64>>,
    tls: Option<Vec<Written<Certificate>>>,
    hsts: Option<Written<Duration>>,
    forward_auth: Option<Written<ForwardAuth>>,
    limits: RawLimits,
}

/// One listener as written.
struct RawListen {
    address: Address,
    tls: Option<Written<bool>>,
    redirect_to_https: Option<Written<bool>>,
    h2c: Option<Written<bool>>,
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
            proxy_protocol: table.boolean("proxy_protocol"),
            trusted_headers: table.take("trusted_headers").and_then(|item| trusted_headers(&item)),
            workers: table.take("workers").and_then(|item| item.count(0, 1024)),
            tls: table.take("tls").and_then(|item| tls::certificates(&item)),
            hsts: table.duration("hsts"),
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
        let public_url = self.public_url.map_or_else(default_url, Spanned::into_inner);
        let is_tls = self.tls.is_some();
        let public_host = (is_tls && public_url.https).then_some(public_url.host.as_str());
        let tls = tls::resolve(cx, self.tls, public_host);
        let (trusted_proxies, trusts_unix) = self.trusted_proxies.unwrap_or_default();
        let mut unix = None;
        let listen = self.listen.map(|listen| {
            let span = listen.span();
            let mut seen: Vec<Listen> = Vec::new();
            for listener in listen.into_inner() {
                let place = listener.span();
                let listener = listener.into_inner().resolve(cx, is_tls, public_url.https);
                let address = &listener.address;
                if let Some(other) = seen.iter().find(|seen| seen.address.overlaps(address)) {
                    cx.report(listened_on_twice(address, &other.address, place.clone()));
                }
                if matches!(address, Address::Unix(_)) {
                    unix.get_or_insert(place);
                }
                seen.push(listener);
            }
            Spanned::new(span, seen)
        });
        if let Some(place) = unix.filter(|_| !trusts_unix) {
            judge_unix(cx, place);
        }
        for proxy in trusted_proxies.iter().filter(|proxy| proxy.get_ref().prefix_len() == 0) {
            let message = format!("every client is trusted: `{}` is the whole Internet", proxy.get_ref());
            let finding = Diagnostic::warning("trusts-everyone", message).at(proxy.span());
            let finding = finding.label("anyone can say to be another address");
            cx.report(finding.help("name the addresses of the proxies in front of this gateway"));
        }
        if let Some(asks) = self.forward_auth.as_ref().filter(|asks| *asks.get_ref() != ForwardAuth::Off)
            && trusted_proxies.is_empty()
            && !trusts_unix
        {
            let finding = Diagnostic::warning("nobody-may-ask", "no peer may ask on `/.gateway/check`: it answers 403");
            let finding = finding.at(asks.span()).label("only a trusted proxy may");
            cx.report(finding.help("name the address of the proxy that asks in `trusted_proxies`"));
        }
        let workers = self.workers.map_or(0, Spanned::into_inner);
        let proxy_protocol = self.proxy_protocol.as_ref().is_some_and(|written| *written.get_ref());
        if let Some(written) =
            self.proxy_protocol.filter(|_| proxy_protocol && trusted_proxies.is_empty() && !trusts_unix)
        {
            let message = "nobody is trusted to send PROXY headers, so that none is read";
            let finding = Diagnostic::error("proxy-protocol-untrusted", message).at(written.span());
            cx.report(finding.help("name the load balancer in server.trusted_proxies"));
        }
        Server {
            listen: listen.map_or_else(
                || vec![Listen { tls: is_tls, ..Listen::plain(SocketAddr::from(([127, 0, 0, 1], 8080))) }],
                Spanned::into_inner,
            ),
            hsts: hsts(cx, self.hsts, public_url.https),
            tls,
            public_url,
            trusted_proxies: trusted_proxies.into_iter().map(Spanned::into_inner).collect(),
            trusts_unix,
            proxy_protocol,
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

/// No two sockets can be bound to one address.
pub(super) fn listened_on_twice(address: &Address, other: &Address, place: Span) -> Diagnostic {
    let twice = format!("`{address}` is listened on twice");
    let (message, help) = match address.is_where(other) {
        true => (twice, "remove one of them"),
        false => (format!("{twice}: `{other}` overlaps it"), "remove one of them, or choose another port"),
    };
    Diagnostic::error("duplicate-value", message).at(place).help(help)
}

impl RawListen {
    fn plain(address: Address) -> Self {
        Self { address, tls: None, redirect_to_https: None, h2c: None }
    }

    /// With what is not said, and what can't be so said.
    fn resolve(self, cx: &Context<'_>, has_certificates: bool, is_public_https: bool) -> Listen {
        let says = |word: &Option<Written<bool>>| word.as_ref().is_some_and(|word| *word.get_ref());
        let refuse = |word: &Option<Written<bool>>, message: &str, help: &str| {
            if let Some(place) = word.as_ref().map(Spanned::span) {
                cx.report(Diagnostic::error("bad-listener", message).at(place).help(help));
            }
        };
        let (redirects, h2c) = (says(&self.redirect_to_https), says(&self.h2c));
        if says(&self.tls) {
            if !has_certificates {
                refuse(
                    &self.tls,
                    "this listener has no certificate",
                    "add tls = [{ cert = \"cert.pem\", key = \"key.pem\" }] to [server]",
                );
            }
            if redirects {
                let help = "redirect on a listener with tls = false, such as 0.0.0.0:80";
                refuse(&self.redirect_to_https, "this listener speaks TLS: there is nothing to redirect", help);
            }
            if h2c {
                let help = "remove it: over TLS clients choose HTTP/2 by themselves";
                refuse(&self.h2c, "`h2c` is HTTP/2 without TLS, which this listener speaks", help);
            }
        }
        if redirects && !is_public_https {
            let help = "write server.public_url = \"https://…\", which is where requests are sent";
            refuse(&self.redirect_to_https, "there is no https address to redirect to", help);
        }
        let is_usual = has_certificates && !matches!(self.address, Address::Unix(_)) && !redirects && !h2c;
        let tls = self.tls.map_or(is_usual, Spanned::into_inner);
        Listen { address: self.address, tls, redirect_to_https: redirects, h2c }
    }
}

/// `hsts`, which means something where people come over https only.
fn hsts(cx: &Context<'_>, hsts: Option<Written<Duration>>, is_public_https: bool) -> Option<Duration> {
    let hsts = hsts?;
    if !is_public_https {
        let message = "`hsts` says that this host is https only, and public_url is not";
        let finding = Diagnostic::error("bad-listener", message).at(hsts.span());
        cx.report(finding.help("remove it, or write server.public_url = \"https://…\""));
    }
    Some(hsts.into_inner())
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

/// Who connects to a unix socket has no address of his own.
fn judge_unix(cx: &Context<'_>, place: Span) {
    let message = "clients of a unix socket have no address, and whoever connects there is not trusted to name it";
    let finding = Diagnostic::warning("unix-not-trusted", message).at(place);
    let finding = finding.label("rules with `from` hold for nobody there, and guesses of all are counted together");
    cx.report(finding.help("if only your proxy can connect there, add \"unix\" to server.trusted_proxies"));
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

fn listen(item: &Item<'_>) -> Option<Written<Vec<Written<RawListen>>>> {
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
fn listener(item: &Item<'_>) -> Option<Written<RawListen>> {
    let is_table = |table: &DeTable<'_>| !table.keys().any(|key| matches!(key.get_ref().as_ref(), "env" | "default"));
    if item.value.get_ref().as_table().is_some_and(is_table) {
        let mut table = item.table("server.listen")?;
        let address = table.take("address");
        if address.is_none() {
            let finding = Diagnostic::error("missing-key", "a listener needs an `address`").at(item.span());
            item.cx.report(finding.help("add address = \"127.0.0.1:8080\""));
        }
        let (tls, h2c) = (table.boolean("tls"), table.boolean("h2c"));
        let redirect_to_https = table.boolean("redirect_to_https");
        let access = RawAccess::read(&mut table);
        table.finish();
        let address = access.apply(item, address.and_then(|address| socket(&address))?);
        let span = address.span();
        let listen = RawListen { address: address.into_inner(), tls, redirect_to_https, h2c };
        return Some(Spanned::new(span, listen));
    }
    socket(item).map(|address| Spanned::new(address.span(), RawListen::plain(address.into_inner())))
}

fn socket(item: &Item<'_>) -> Option<Written<Address>> {
    let address = item.parsed("bad-address", place::address)?;
    let span = address.span();
    Some(Spanned::new(span, address.into_inner().in_directory(item.cx.directory)))
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

/// The networks, and whether `"unix"` is among them.
fn trusted_proxies(item: &Item<'_>) -> Option<(Vec<Written<IpNet>>, bool)> {
    let list = item.list()?;
    let is_unix = |item: &Item<'_>| item.value.get_ref().as_str() == Some("unix");
    let networks = list.get_ref().iter().filter(|item| !is_unix(item));
    let networks = networks.filter_map(|item| item.parsed("bad-network", values::network)).collect();
    Some((networks, list.get_ref().iter().any(is_unix)))
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
