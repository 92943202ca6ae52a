//! Forwarding: what has leave to go on goes to its upstream, and the answer comes back.
//!
//! Headers are rewritten in `rewrite`, framing is judged in `framing`, `retry` says what an error means and
//! whether to try again, `upgrade` joins tunnels.

mod forward;
pub mod framing;
mod onward;
mod retry;
pub mod rewrite;
pub mod upgrade;

pub use forward::{Forwarder, Observed, expects_continue};
pub use onward::{Surroundings, target, told};
pub use rewrite::edit_answer;
