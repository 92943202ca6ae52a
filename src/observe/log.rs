//! The log: `tracing` events on standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{self, LogFormat};

/// Sends `tracing` events to standard error from now on, as `[log]` says. Does nothing when a subscriber is already set,
/// as in a program that embeds the gateway.
///
/// # Errors
/// When `level` is not a filter.
pub fn init(log: &config::Log) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&log.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_set = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    Ok(())
}
