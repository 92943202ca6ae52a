//! What a reload with 10,000 routes does, step by step, and what `check` does with them and 1,000 `[[tests]]`.
//!
//! `cargo bench --bench reload`. Three tables: a path of its own for each route; a host of its own for each; and half of
//! each, where every route for a host meets every one for a path. What a reload does around this (listeners, keys, the
//! workers) `millis` of `configuration reloaded` in the log has in it too.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::path::Path;

use divan::{Bencher, black_box};
use portcullis::access::Rules;
use portcullis::config::{Changes, Config, load_text};
use portcullis::explain::{Past, differing, failing_tests};
use portcullis::lint::{self, Entry};
use serde_json::json;
use toml::de::DeTable;

fn main() {
    divan::main();
}

/// How the routes of a table differ.
#[derive(Clone, Copy, Debug)]
enum Table {
    Paths,
    Hosts,
    HostsAndPaths,
}

const ALL: [Table; 3] = [Table::Paths, Table::Hosts, Table::HostsAndPaths];

const ROUTES: usize = 10_000;

impl Table {
    fn text(self) -> String {
        let routes: String = (0..ROUTES).map(|at| self.route(at)).collect();
        format!("[upstreams]\napp = \"http://127.0.0.1:1\"\n{routes}")
    }

    fn route(self, at: usize) -> String {
        let by_path = match self {
            Self::Paths => true,
            Self::Hosts => false,
            Self::HostsAndPaths => at >= ROUTES / 2,
        };
        let limit = if by_path {
            format!("path = \"/app-{at}/**\"")
        } else {
            format!("path = \"/**\"\nhosts = [\"app-{at}.example.com\"]\nfall_through = true")
        };
        let allow = format!("allow = {{ groups = [\"group-{at}\"] }}");
        format!("[[routes]]\nname = \"app-{at}\"\n{limit}\n{allow}\nupstream = \"app\"\n")
    }
}

fn config(text: String) -> Config {
    load_text(Path::new("gateway.toml"), text, &|_| None).config.unwrap()
}

/// From text to TOML: not ours to make faster.
#[divan::bench(args = ALL, sample_count = 20, sample_size = 1)]
fn a_toml(bencher: Bencher<'_, '_>, table: Table) {
    let text = table.text();
    bencher.bench_local(|| DeTable::parse_recoverable(black_box(&text)).1.len());
}

/// From text to the configuration: the above, the checks and the lint.
#[divan::bench(args = ALL, sample_count = 20, sample_size = 1)]
fn b_load(bencher: Bencher<'_, '_>, table: Table) {
    bencher.with_inputs(|| table.text()).bench_local_values(config);
}

/// What is wrong between routes, a part of the above.
#[divan::bench(args = ALL, sample_count = 20, sample_size = 1)]
fn c_lint(bencher: Bencher<'_, '_>, table: Table) {
    let config = config(table.text());
    let entries: Vec<Entry<'_>> = config
        .routes
        .iter()
        .map(|route| Entry {
            hosts: &route.hosts,
            path: &route.path,
            methods: route.methods.as_deref(),
            allow: &route.allow,
            fall_through: route.fall_through,
        })
        .collect();
    bencher.bench_local(|| lint::findings(black_box(&entries)));
}

/// The index of routes.
#[divan::bench(args = ALL, sample_count = 20, sample_size = 1)]
fn d_router(bencher: Bencher<'_, '_>, table: Table) {
    let config = config(table.text());
    bencher.bench_local(|| Rules::new(black_box(&config.routes)));
}

/// What has changed.
#[divan::bench(args = ALL, sample_count = 20, sample_size = 1)]
fn e_changes(bencher: Bencher<'_, '_>, table: Table) {
    let (old, new) = (config(table.text()), config(table.text()));
    bencher.bench_local(|| Changes::between(black_box(&old), black_box(&new)));
}

/// The 10,000 requests of late, judged by the new rules.
#[divan::bench(args = ALL, sample_count = 20, sample_size = 1)]
fn f_recent(bencher: Bencher<'_, '_>, table: Table) {
    let config = config(table.text());
    let rules = Rules::new(&config.routes);
    let pasts: Vec<Past> = (0..ROUTES).map(past).collect();
    bencher.with_inputs(|| pasts.clone()).bench_local_values(|pasts| differing(pasts.into_iter(), &config, &rules));
}

/// All that `check` does with 1,000 `[[tests]]` more.
#[divan::bench(args = ALL, sample_count = 5, sample_size = 1)]
fn g_check_with_tests(bencher: Bencher<'_, '_>, table: Table) {
    let test = |at: usize| {
        let at = at * (ROUTES / 1_000);
        format!(
            "[[tests]]\nrequest = \"GET http://app-{at}.example.com/app-{at}/x\"\n\
             as = {{ user = \"bob\", groups = [\"group-{at}\"] }}\nexpect = \"allow\"\n"
        )
    };
    let text = table.text() + &(0..1_000).map(test).collect::<String>();
    bencher.with_inputs(|| text.clone()).bench_local_values(|text| {
        let config = config(text);
        assert_eq!(failing_tests(&config).len(), 0);
        assert_eq!(config.tests.len(), 1_000);
    });
}

fn past(at: usize) -> Past {
    let person = json!({
        "user": "bob", "groups": [format!("group-{at}")], "scopes": [], "claims": {}, "methods": ["password"],
        "signed_in_at": 1_000_000,
    });
    let past = json!({
        "request_id": format!("{at:08x}"), "time": 1_600_000, "method": "GET", "host": format!("app-{at}.example.com"),
        "path": format!("/app-{at}/x"), "client": "10.0.0.1", "status": 200, "outcome": "allow", "code": "signed-in",
        "reason": "signed in", "route": format!("app-{at}"), "upstream": "app", "shown": "cookie", "issuer": null,
        "key_routes": null, "unproven": null, "person": person,
    });
    serde_json::from_value(past).unwrap()
}
