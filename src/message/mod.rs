//! What a request and an answer are made of.

pub mod added;
pub mod body;
pub mod certificate;
pub mod connection;
pub mod cookie;
pub mod extended;
pub mod forwarded;
pub mod framed;
pub mod head;
pub mod headers;
mod hop;
pub mod host;
pub mod line;
pub mod loan;
pub mod path;
mod reading;
pub mod rejection;
pub mod respond;
mod rfc7239;
pub mod survey;
pub mod tether;
pub(crate) mod timer;
mod values;
