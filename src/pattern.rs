//! Patterns of paths and hosts, as routes name them. Pure: knows neither routes nor requests.

mod carry;
mod host;
mod path;

pub use carry::{carry, carry_back, check_carry, leads_back, one_slash};
pub use host::HostPattern;
pub use path::{End, PathPattern, Segment};

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// What is wrong.
    pub message: String,
    /// The way out: the right spelling where there is one.
    pub help: String,
}

impl PatternError {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatternError {}
