//! What the gateway says about its work: one access line per request, audit events, the log itself.
//!
//! Nothing secret passes here: paths are logged without their query, names only when they could be names.

pub mod access;
pub mod audit;
mod id;
pub mod log;
pub mod otlp;
mod recent;
mod record;
mod seldom;
pub mod trace;
mod unbelieved;

pub use id::{RequestId, RequestIds};
pub use log::{FilterError, change as change_log, init as init_log};
pub use recent::{Kept, Reach, Recent};
pub use record::{Ending, Page, Record, User, blank};
pub use seldom::Seldom;
pub use unbelieved::Unbelieved;
