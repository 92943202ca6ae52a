//! What is counted while the gateway works, and the text in which `/metrics` says it.
//!
//! The room knows nothing of requests or stores: it has counters, the table of all metrics ([`family`]) and the writer of
//! a page. Who has something to count holds a counter; who answers the scrape (`gateway::scrape`) reads them all.
//!
//! The way of a request touches a few counters of its own thread's cache lines, takes no lock and looks nothing up: the
//! counters of a route are found once, when its configuration is loaded. prometheus-client, the usual crate, has a lock
//! around each histogram and writes OpenMetrics only, where `promtool` and older servers want the older text too.
//!
//! **A new metric** needs three things: a row in [`family`], in [`family::ALL`] as well; a line in `gateway::scrape` that
//! writes its samples (`page.family(&ISSUER_KEYS_AGE).value(&[issuer_name], age)` for a gauge with a label); and a row in
//! `docs/metrics.md`, without which a test fails. A label's values come from the configuration or from a fixed list, never
//! from a client.

mod count;
pub mod family;
mod handles;
mod process;
mod text;

pub use count::{Counter, Gauge, Held, Histogram, Words, enter_stripe};
pub use handles::{Backend, Listener, Lookups, Metrics, Named, Outcome, Reloads, Route, Tunnels, Upstream};
pub use process::write as write_process;
pub use text::{Format, Page};
