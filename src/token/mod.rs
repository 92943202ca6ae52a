//! Own tokens: JSON Web Tokens (RFC 7519) that this gateway signs, or that someone else signs with a secret shared with it.
//!
//! `key` and `keys` hold signing and verification keys, `keyring` those in force, `issue` signs, `assertion` tells applications who is there, `jose` reads the outer form strictly, `claims` the content, `verify` judges
//! both, and `revoke` knows what was ended before its time. Nothing here knows of HTTP, of accounts or of the store.

mod assertion;
mod claims;
pub mod foreign;
mod issue;
mod jose;
mod key;
mod keyring;
mod keys;
mod pem;
mod revoke;
mod verify;

#[cfg(test)]
mod forge;
#[cfg(test)]
mod hostile;

pub use assertion::{ASSERTION_ALGORITHM, ASSERTION_LIFETIME, Assertions};
pub use claims::Claims;
pub use issue::{NewClaims, SignError};
pub use jose::{MAX_TOKEN_BYTES, algorithm_name};
pub use key::{Signs, StoredKey, generate};
pub use keyring::Keyring;
pub use keys::{KeyError, KeySet, install_crypto};
pub use revoke::{Event, Revocations, Why, memory};
pub use verify::{Reason, Refusal, Verified};
