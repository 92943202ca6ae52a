//! Forwarding: what has leave to go on goes to its upstream, and the answer comes back.
//!
//! Headers are rewritten in `rewrite`, framing is judged in `framing`, `attempts` sends a request to one server and then
//! another, `interim` counts what comes before an answer, `retry` says what an error means and whether to try again, `upgrade` joins tunnels, for which
//! `handshake` makes the proof where the client could not, and in which `websocket` finds the ends of frames.

mod attempts;
mod forward;
pub mod framing;
mod handshake;
mod onward;
#[cfg(test)]
mod plain;
mod retry;
pub mod rewrite;
pub mod upgrade;
mod websocket;

pub use forward::{Forwarder, Observed, expects_continue};
pub use onward::{Surroundings, target, told};
pub use rewrite::{edit_answer, keep_private};
