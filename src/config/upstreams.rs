//! `[upstreams]`: where requests go. How they are spread is read in `balance`, how servers are watched in `health`.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::address::{self, ServerAddr};
use super::balance::{self, Balance, HashBy, WeightedServer};
use super::health::{self, Health};
use super::reader::{Context, Item, Table, Written};
use super::server::{as_usize, positive};
use super::upstream_tls::{self, UpstreamTls};
use crate::diag::{Diagnostic, Span, quoted};

/// A named upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Its name in the file.
    pub name: String,
    /// Its servers, at least one, no two the same.
    pub servers: Vec<WeightedServer>,
    /// How those that are `https` are spoken to.
    pub tls: UpstreamTls,
    /// Which of them a request goes to.
    pub balance: Balance,
    /// How their health is found out.
    pub health: Health,
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// Its limits, per server and over all workers.
    pub limits: UpstreamLimits,
}

/// Timeouts towards an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// From the request sent until the head of the answer.
    pub response: Duration,
    /// Between two pieces of the answer's body; `None` waits for ever.
    pub between: Option<Duration>,
    /// For all of it, from the request ready to leave to the last byte of the answer; `None`: as long as it takes.
    pub total: Option<Duration>,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// Limits towards one server of an upstream, over all workers.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamLimits {
    /// Open connections.
    pub connections: usize,
    /// Unused connections that are kept.
    pub idle: usize,
    /// Requests that may wait for a connection; one more is answered 503.
    pub pending: usize,
}

/// One upstream as written.
pub(super) struct Raw {
    name: Written<String>,
    /// Empty where what is written can't be used.
    servers: Vec<Written<WeightedServer>>,
    tls: Option<upstream_tls::Raw>,
    balance: Option<Written<balance::Word>>,
    hash: Option<Written<HashBy>>,
    health: health::Raw,
    timeouts: RawTimeouts,
    connections: Option<Written<u64>>,
    idle: Option<Written<u64>>,
    pending: Option<Written<u64>>,
}

/// Where an upstream is written.
pub(super) struct Places {
    pub(super) name: Span,
    /// In the order of `Upstream::servers`.
    pub(super) servers: Vec<Span>,
}

/// `timeouts` as written, of an upstream or of a route.
#[derive(Default)]
pub(super) struct RawTimeouts {
    connect: Option<Written<Duration>>,
    response: Option<Written<Duration>>,
    between: Option<Written<Duration>>,
    total: Option<Written<Duration>>,
    idle: Option<Written<Duration>>,
}

/// All upstreams, in the order written.
pub(super) fn read(mut table: Table<'_>) -> Vec<Raw> {
    table.take_all().into_iter().map(|(name, item)| Raw::read(name, &item)).collect()
}

impl Raw {
    fn read(name: Written<String>, item: &Item<'_>) -> Self {
        let mut raw = Self {
            name,
            servers: Vec::new(),
            tls: None,
            balance: None,
            hash: None,
            health: health::Raw::default(),
            timeouts: RawTimeouts::default(),
            connections: None,
            idle: None,
            pending: None,
        };
        let is_from_environment = |table: &toml::de::DeTable<'_>| table.keys().any(|key| key.get_ref() == "env");
        match item.value.get_ref() {
            DeValue::Table(table) if !is_from_environment(table) => {
                if let Some(table) = item.table("upstreams.*") {
                    raw.read_table(table);
                }
            }
            DeValue::String(_) | DeValue::Table(_) => {
                let alone = |address: ServerAddr| WeightedServer { address, weight: 1 };
                let server = server(item).map(|server| Spanned::new(server.span(), alone(server.into_inner())));
                raw.servers.extend(server);
            }
            _ => {
                let help = "write \"http://127.0.0.1:3000\", or a table with `servers`";
                let _: Option<()> = item.wrong_type("a URL or a table", Some(help));
            }
        }
        raw
    }

    fn read_table(&mut self, mut table: Table<'_>) {
        let cx = table.cx;
        match table.take("servers") {
            Some(item) => self.servers = balance::servers(&item),
            None => {
                let finding = Diagnostic::error(
                    "missing-key",
                    format!("the upstream {} has no `servers`", quoted(self.name.get_ref())),
                );
                cx.report(finding.at(table.span.clone()).help("add servers = [\"http://127.0.0.1:3000\"]"));
            }
        }
        self.balance = table.take("balance").and_then(|item| item.word("upstreams.balance", balance::WORDS));
        self.hash = table.take("hash").and_then(|item| item.parsed("bad-hash", balance::hash_by));
        self.health = table.table("health", "upstreams.health").map(health::Raw::read).unwrap_or_default();
        self.tls = table.table("tls", "upstreams.tls").map(upstream_tls::Raw::read);
        self.timeouts = table.table("timeouts", "upstreams.timeouts").map(RawTimeouts::read).unwrap_or_default();
        if let Some(mut limits) = table.table("limits", "upstreams.limits") {
            self.connections = limits.take("connections").and_then(|item| item.count(1, 1_000_000));
            self.idle = limits.take("idle").and_then(|item| item.count(0, 1_000_000));
            self.pending = limits.take("pending").and_then(|item| item.count(0, 1_000_000));
            limits.finish();
        }
        table.finish();
    }

    /// The name, by which routes find it even where the rest is wrong.
    pub(super) fn name(&self) -> &str {
        self.name.get_ref()
    }

    /// Where it and its servers are written.
    pub(super) fn places(&self) -> Places {
        Places { name: self.name.span(), servers: self.servers.iter().map(Spanned::span).collect() }
    }

    /// `tls`, and whether a certificate can be for each server's host where nothing else is said.
    fn resolve_tls(&mut self, cx: &Context<'_>) -> UpstreamTls {
        let raw = self.tls.take();
        if let Some(raw) = &raw
            && !self.servers.is_empty()
            && !self.servers.iter().any(|server| server.get_ref().address.is_https())
        {
            upstream_tls::report_unused(cx, raw.place.clone());
        }
        let tls = raw.map(|raw| raw.tls).unwrap_or_default();
        let secured =
            self.servers.iter().filter(|server| server.get_ref().address.is_https() && tls.server_name.is_none());
        for server in secured {
            let host = server.get_ref().address.host_port().map_or("", |place| &place.host);
            if let Err(fault) = upstream_tls::server_name(host) {
                let finding = Diagnostic::error("bad-upstream", fault.message).at(server.span()).label(fault.label);
                cx.report(finding.help("add tls = { server_name = \"…\" } with the name in the server's certificate"));
            }
        }
        tls
    }

    pub(super) fn resolve(mut self, cx: &Context<'_>) -> Upstream {
        if self.name.get_ref().is_empty() {
            let finding = Diagnostic::error("empty-value", "an upstream needs a name").at(self.name.span());
            cx.report(finding.help("write app = \"http://127.0.0.1:3000\""));
        }
        let tls = self.resolve_tls(cx);
        let count = |value: Option<Written<u64>>, default| value.map_or(default, |value| as_usize(value.into_inner()));
        Upstream {
            name: self.name.into_inner(),
            servers: self.servers.into_iter().map(Spanned::into_inner).collect(),
            tls,
            balance: balance::resolve(cx, self.balance, self.hash),
            health: self.health.resolve(cx),
            timeouts: self.timeouts.resolve(cx, &DEFAULTS),
            limits: UpstreamLimits {
                connections: count(self.connections, 256),
                idle: count(self.idle, 32),
                pending: count(self.pending, 1024),
            },
        }
    }
}

impl RawTimeouts {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            connect: table.duration("connect"),
            response: table.duration("response"),
            between: table.duration("between"),
            total: table.duration("total"),
            idle: table.duration("idle"),
        };
        table.finish();
        raw
    }

    /// What is written here, over `base` where it is not.
    pub(super) fn resolve(self, cx: &Context<'_>, base: &Timeouts) -> Timeouts {
        let between = self.between.map(|between| positive(cx, "between", Some(between), Duration::ZERO));
        let total = self.total.map(|total| positive(cx, "total", Some(total), Duration::ZERO));
        Timeouts {
            connect: positive(cx, "connect", self.connect, base.connect),
            response: positive(cx, "response", self.response, base.response),
            between: between.or(base.between),
            total: total.or(base.total),
            idle: positive(cx, "idle", self.idle, base.idle),
        }
    }
}

/// What holds where nothing is written.
pub(super) const DEFAULTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    response: Duration::from_secs(60),
    between: None,
    total: None,
    idle: Duration::from_secs(90),
};

/// One server's URL.
pub(super) fn server(item: &Item<'_>) -> Option<Written<ServerAddr>> {
    item.mask_user();
    item.parsed("bad-upstream", |text| address::server(text, item.cx.directory))
}

/// What a request to `server` has for a `Host`: without the port where it is the scheme's own.
pub(super) fn host_of(server: &ServerAddr) -> String {
    let own = if server.is_https() { ":443" } else { ":80" };
    let place = server.host_port().map_or_else(|| "localhost".to_owned(), ToString::to_string);
    place.strip_suffix(own).unwrap_or(&place).to_owned()
}
