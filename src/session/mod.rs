//! Sign-ins that last: accounts as they are now, sessions behind cookies, and the events that end both.
//!
//! Everything here is kept in bounded memory and made true by the store's append-only events:
//! [`Follower`] applies them, and whoever reads must first ask whether they are [fresh](Follower::is_fresh).

mod accounts;
mod api_keys;
mod basic;
pub mod csrf;
mod follow;
pub mod keys;
mod live;
pub mod refresh;
mod returning;
mod sign_in;

pub use accounts::{Account, Accounts};
pub use api_keys::{ApiKey, ApiKeys};
pub use basic::{Basic, Remembered, Verified};
pub use follow::{Followed, Follower};
pub use keys::OwnKeys;
pub use live::{Carrier, Live, NewSession, Opened, Sessions, cookie_key, sha256};
pub use refresh::Refreshed;
pub use returning::Returning;
pub use sign_in::{Asked, Failure, SignIn};
