//! Takes the accounts of `[store] users` into the store, whole or not at all: at the start and with every reload.

use tracing::info;

use super::StartError;
use crate::config;
use crate::diag::{Diagnostic, quoted};
use crate::identity::UserName;
use crate::identity::password::account_file::{self, FileAccount};
use crate::store::{Store, Synced};

/// The accounts of the file that `config` names; none where it names none.
pub(super) fn accounts(config: &config::Store) -> Result<Vec<FileAccount>, StartError> {
    let Some(file) = &config.users else { return Ok(Vec::new()) };
    account_file::parse(file.text.expose()).map_err(|problems| StartError::Accounts {
        path: file.path.clone(),
        first: problems.first().map(ToString::to_string).unwrap_or_default(),
    })
}

/// Makes the file's accounts in the store those that `accounts` says. Answers with names that the store has of its own.
pub(super) async fn sync(store: &Store, accounts: Vec<FileAccount>) -> Result<Vec<UserName>, StartError> {
    if store.is_none() {
        return Ok(Vec::new());
    }
    let Synced { added, changed, removed, taken } = store.sync_file(accounts).await.map_err(StartError::Store)?;
    if added + changed + removed > 0 {
        info!(added, changed, removed, "took in the file of accounts");
    }
    Ok(taken)
}

/// That an account of the file does not count: the store that `config` names has one of that name.
pub fn taken(config: &config::Store, name: &UserName) -> Diagnostic {
    let message = format!("the store has an account {} of its own, which counts", quoted(name.as_str()));
    let finding = Diagnostic::warning("store-has-user", message).label("has another of this name");
    let finding = finding
        .help(format!("take it out of the file, or `portcullis user delete {name}` and then `portcullis reload`"));
    match &config.users {
        Some(file) => finding.at(file.place.clone()),
        None => finding,
    }
}
