//! `[upstreams]`, and what routes say about them, as they are shown.

use std::path::Path;

use serde_json::Value;

use super::written::{Entries, Shown};
use super::{absolute, duration, entries, nothing, number, optional, text, texts};
use crate::config::{
    Balance, Check, ClientCertificate, Ejection, Health, Retries, Timeouts, Upstream, UpstreamLimits, UpstreamTls,
    WeightedServer,
};

pub(super) fn upstream(upstream: &Upstream) -> (String, Shown) {
    let Upstream { name, servers, tls: of_https, balance, health: of_servers, timeouts: of_all, limits } = upstream;
    let UpstreamLimits { connections, idle, pending } = limits;
    let limits = [("connections", number(*connections)), ("idle", number(*idle)), ("pending", number(*pending))];
    let hash = match balance {
        Balance::Hash(by) => text(by),
        Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo => nothing("with balance = \"hash\" only"),
    };
    let mut shown = entries([
        ("servers", Shown::List(servers.iter().map(server).collect())),
        ("balance", text(balance.name())),
        ("hash", hash),
        ("health", health(of_servers)),
        ("timeouts", timeouts(of_all)),
        ("limits", Shown::Inline(entries(limits))),
    ]);
    if servers.iter().any(|server| server.address.is_https()) {
        shown.push(("tls".to_owned(), tls(of_https)));
    }
    (name.clone(), Shown::Section(shown))
}

fn tls(tls: &UpstreamTls) -> Shown {
    let UpstreamTls { ca, client, server_name } = tls;
    let file = |file: &Path| text(absolute(file));
    let client_file = |chosen: fn(&ClientCertificate) -> &Path| {
        client.as_ref().map_or_else(|| nothing("none"), |client| file(chosen(client)))
    };
    Shown::Inline(entries([
        ("ca", ca.as_ref().map_or_else(|| nothing("the system's"), |ca| file(&ca.file))),
        ("cert", client_file(|client| &client.chain.file)),
        ("key", client_file(|client| &client.key_file)),
        ("server_name", optional(server_name.as_ref(), "the server's host")),
    ]))
}

fn server(server: &WeightedServer) -> Shown {
    let WeightedServer { address, weight } = server;
    match weight {
        1 => text(address),
        weight => Shown::Inline(entries([("url", text(address)), ("weight", number(*weight))])),
    }
}

fn health(health: &Health) -> Shown {
    let Health { check, ejection } = health;
    let Ejection { faults, out, out_most, slow_start } = ejection;
    let mut shown: Entries = match check {
        None => entries([("path", nothing("no checks"))]),
        Some(Check { path, host, interval, timeout, healthy, unhealthy, status }) => {
            let status = status.iter().map(|range| match (range.start(), range.end()) {
                (from, to) if from == to => from.to_string(),
                (from, to) => format!("{from}-{to}"),
            });
            let host = host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
            entries([
                ("path", text(path)),
                ("host", optional(host, "the server's own address")),
                ("interval", duration(*interval)),
                ("timeout", duration(*timeout)),
                ("healthy", number(*healthy)),
                ("unhealthy", number(*unhealthy)),
                ("status", texts(status)),
            ])
        }
    };
    shown.extend(entries([
        ("faults", number(*faults)),
        ("out", duration(*out)),
        ("out_most", duration(*out_most)),
        ("slow_start", duration(*slow_start)),
    ]));
    Shown::Inline(shown)
}

pub(super) fn timeouts(timeouts: &Timeouts) -> Shown {
    let Timeouts { connect, response, between, total, idle } = timeouts;
    Shown::Inline(entries([
        ("connect", duration(*connect)),
        ("response", duration(*response)),
        ("between", between.map_or_else(|| nothing("none"), duration)),
        ("total", total.map_or_else(|| nothing("none"), duration)),
        ("idle", duration(*idle)),
    ]))
}

pub(super) fn retries(retries: &Retries) -> Shown {
    let Retries { attempts, statuses, reset } = retries;
    let statuses = statuses.iter().map(|status| status.as_str().to_owned());
    let on: Vec<Value> = statuses.chain(reset.then(|| "reset".to_owned())).map(Value::String).collect();
    Shown::Inline(entries([("attempts", number(*attempts)), ("on", Shown::Plain(Value::Array(on)))]))
}
