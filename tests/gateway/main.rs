//! The gateway from outside: every test starts the real program, on ports that the system picks, in front of
//! an upstream that records raw bytes. One crate, so that the harness is compiled and linked once.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a failed test shows what the gateway wrote")]

#[path = "../common/mod.rs"]
mod common;

mod access_log;
mod account;
mod account_file;
mod account_keys;
mod admin;
mod answers;
mod apps;
mod backend_health;
mod balance;
mod cli_config;
mod cli_doctor;
mod cli_explain;
mod cli_session;
mod cli_user;
mod cli_why;
mod client_cert;
mod cors;
mod forward_auth;
mod forward_auth_real;
mod forwarded;
mod forwarding;
mod forwarding_faults;
mod framing;
mod framing_bodies;
mod grpc;
mod grpc_real;
mod h2;
mod h2_hostile;
mod h2_websocket;
mod h2_websocket_ends;
mod harness;
mod headers;
mod hosts;
mod howto;
mod howto_real;
mod issuers;
mod issuers_hostile;
mod keys;
mod lifecycle;
mod log_level;
mod login;
mod login_refusals;
mod machines;
mod methods;
mod metrics;
mod no_store;
mod observe;
mod paths;
mod paths_generated;
mod paths_readings;
mod rate_limit;
mod refresh;
mod reload;
mod reload_listeners;
mod revocation;
mod route_answers;
mod route_changes;
mod rules;
mod session;
mod sockets;
mod store_changes;
mod store_faults;
mod tls;
mod tokens;
mod tokens_hostile;
mod trace;
mod transports_http2;
mod transports_plain;
mod transports_tls;
mod websocket;
