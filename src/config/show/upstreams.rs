//! `[upstreams]`, and what routes say about them, as they are shown.

use serde_json::Value;

use super::written::{Entries, Shown};
use super::{duration, entries, nothing, number, optional, text, texts};
use crate::config::{
    Balance, Check, Ejection, Health, Retries, ServerAddr, Timeouts, Upstream, UpstreamLimits, WeightedServer,
};

pub(super) fn upstream(upstream: &Upstream) -> (String, Shown) {
    let Upstream { name, servers, balance, health: of_servers, timeouts: of_all, limits } = upstream;
    let UpstreamLimits { connections, idle, pending } = limits;
    let limits = [("connections", number(*connections)), ("idle", number(*idle)), ("pending", number(*pending))];
    let hash = match balance {
        Balance::Hash(by) => text(by),
        Balance::LeastRequests | Balance::RoundRobin | Balance::RandomTwo => nothing("with balance = \"hash\" only"),
    };
    let shown = entries([
        ("servers", Shown::List(servers.iter().map(server).collect())),
        ("balance", text(balance.name())),
        ("hash", hash),
        ("health", health(of_servers)),
        ("timeouts", timeouts(of_all)),
        ("limits", Shown::Inline(entries(limits))),
    ]);
    (name.clone(), Shown::Section(shown))
}

fn server(server: &WeightedServer) -> Shown {
    let WeightedServer { address, weight } = server;
    match weight {
        1 => text(url(address)),
        weight => Shown::Inline(entries([("url", text(url(address))), ("weight", number(*weight))])),
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

pub(super) fn url(server: &ServerAddr) -> String {
    let ServerAddr { host, port } = server;
    if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") }
}
