//! The log: `tracing` events on standard error, as text or JSON, by a filter; both can be changed while it runs.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as format, reload};

use crate::config::{self, LogFormat};

/// The filter of this process's log, once [`init`] has set it up.
static IN_FORCE: OnceLock<InForce> = OnceLock::new();

struct InForce {
    handle: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
    text: Mutex<String>,
}

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// Why the filter was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// It is no filter; the text says what to write.
    Invalid(String),
    /// The log is not the gateway's own: a program that embeds it has set up another.
    NotOurs,
}

/// Sends `tracing` events to standard error from now on, as `[log]` says. Does nothing when a subscriber is already set,
/// as in a program that embeds the gateway.
///
/// # Errors
/// When `level` is not a filter.
pub fn init(log: &config::Log) -> Result<(), ParseError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse(&log.level)?);
    let (layer, lines) = reload::Layer::new(lines(log.format));
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    if subscriber.try_init().is_ok() {
        let _set_once = IN_FORCE.set(InForce { handle, lines, text: Mutex::new(log.level.clone()) });
    }
    Ok(())
}

/// Makes the log as `[log]` says from now on, whatever filter was set meanwhile. Does nothing where the log is another
/// program's, see [`init`].
///
/// # Errors
/// As [`FilterError`] says; then nothing has changed.
pub fn change(log: &config::Log) -> Result<(), FilterError> {
    let Some(in_force) = IN_FORCE.get() else { return Ok(()) };
    set_filter(&log.level)?;
    in_force.lines.reload(lines(log.format)).map_err(|_| FilterError::NotOurs)
}

fn lines(format: LogFormat) -> Lines {
    let lines = format::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    }
}

/// Filters the log by `text` from now on: a level, or such as `info,portcullis::token=debug`.
///
/// # Errors
/// As [`FilterError`] says; then nothing has changed.
pub fn set_filter(text: &str) -> Result<(), FilterError> {
    if let Some(fault) = config::log_filter_fault(text) {
        return Err(FilterError::Invalid(fault));
    }
    let log = IN_FORCE.get().ok_or(FilterError::NotOurs)?;
    let filter = EnvFilter::builder().parse(text).map_err(|error| FilterError::Invalid(error.to_string()))?;
    // Held over both, so that two changes at once leave the text of the filter that is in force.
    let mut in_force = log.text.lock().unwrap_or_else(PoisonError::into_inner);
    log.handle.reload(filter).map_err(|_| FilterError::NotOurs)?;
    text.clone_into(&mut in_force);
    Ok(())
}

/// The filter in force; `None`: the log is not the gateway's own.
pub fn filter() -> Option<String> {
    Some(IN_FORCE.get()?.text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(fault) => f.write_str(fault),
            Self::NotOurs => f.write_str("the log is set up by the program that runs the gateway"),
        }
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused_with_a_way_out() {
        for (text, said) in [
            ("inof", "did you mean \"info\"?"),
            ("portcullis", "levels are off"),
            ("info,portcullis::token=loud", "levels are off"),
            ("", "is not a level"),
        ] {
            let Err(FilterError::Invalid(fault)) = set_filter(text) else { panic!("{text} was taken") };
            assert!(fault.contains(said), "{text}: {fault}");
        }
    }
}
