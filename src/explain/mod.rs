//! Why a request may pass or may not, for those who write the rules: `[[tests]]`, `explain`, `why`, and how the requests
//! of late would fare under another configuration.
//!
//! Nothing is decided here. The request line is read as the pipeline reads it, and the rules are [`Rules`], as they are
//! for a request; this room only asks them, and writes down what they said.

mod account_file;
mod document;
mod examine;
mod past;
mod preflight;
mod question;
mod test_run;
mod text;

pub use document::{Alternative, Condition, Explanation, Header, ReadingTried, Recorded, RouteTried, Sent, Who};
pub use examine::{examine, explain_kept};
pub use past::{Difference, Differences, Past, PastPerson, differing};
pub use preflight::preflight;
pub use question::{Judgement, Question, invented, judge};
pub use test_run::{failing_tests, load};
pub use text::{Style, render};

#[cfg(doc)]
use crate::access::Rules;
