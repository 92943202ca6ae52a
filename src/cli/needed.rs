//! What a command needs of the configuration, and says that it is missing.

use std::path::Path;

use super::prompt::Failure;
use crate::config::Config;

/// The file of the store.
///
/// # Errors
/// When the configuration says that there is no store.
pub(super) fn store_file(config: &Config) -> Result<&Path, Failure> {
    let none = || {
        let message = "there is no store, and so no users, sessions, API keys or signing keys: `store.url` is \"none\"";
        Failure::new(message, "name one in `[store] url`")
    };
    config.store.file().ok_or_else(none)
}

/// Where the running gateway listens for commands.
///
/// # Errors
/// When it does not.
pub(super) fn control_socket(socket: Option<&Path>) -> Result<&Path, Failure> {
    socket.ok_or_else(|| {
        let message = "the gateway has no control socket: without a store there is none unless it is named";
        Failure::new(message, "write where it is to be into `[admin] control`, and restart the gateway")
    })
}
