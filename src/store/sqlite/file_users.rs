//! Accounts that a file says: taken in as a whole, beside the store's own.
//!
//! `file_hash` is the hash as the file has it. The one that sign-ins are verified against may be another one of the same
//! password, since a sign-in upgrades old hashes; it stays for as long as the file says the same.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::super::Synced;
use super::super::records::NewUser;
use super::users;
use crate::clock::Timestamp;
use crate::identity::UserName;
use crate::identity::password::account_file::FileAccount;
use crate::secret::Secret;

/// Makes the accounts of the file those that `accounts` says, and no others.
pub(in super::super) fn sync(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    accounts: &[FileAccount],
) -> rusqlite::Result<Synced> {
    let mut before = known(db)?;
    let mut synced = Synced::default();
    for account in accounts {
        match before.remove(account.name.as_str()) {
            Some(hash) => {
                synced.changed += usize::from(change(db, now, memory, account, &hash)?);
            }
            None if add(db, now, memory, account)? => synced.added += 1,
            None => synced.taken.push(account.name.clone()),
        }
    }
    for name in before.keys().filter_map(|name| UserName::parse(name)) {
        users::delete(db, now, memory, &name)?;
        synced.removed += 1;
    }
    Ok(synced)
}

/// The accounts that are a file's, with the hash that it said last.
fn known(db: &Connection) -> rusqlite::Result<HashMap<String, Secret<String>>> {
    let mut known = db.prepare_cached("SELECT name, file_hash FROM users WHERE file_hash IS NOT NULL")?;
    let rows = known.query_map([], |row| Ok((row.get(0)?, Secret::new(row.get(1)?))))?;
    rows.collect()
}

/// Whether the name was free.
fn add(db: &Transaction<'_>, now: Timestamp, memory: Duration, account: &FileAccount) -> rusqlite::Result<bool> {
    let FileAccount { name, hash, groups, email, full_name } = account.clone();
    let user = NewUser { name, hash: Some(hash), groups, email, full_name };
    let added = users::add(db, now, memory, &user)?.is_some();
    if added {
        mark(db, account)?;
    }
    Ok(added)
}

/// Whether anything of the account is another than it was.
fn change(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    account: &FileAccount,
    before: &Secret<String>,
) -> rusqlite::Result<bool> {
    let FileAccount { name, hash, groups, email, full_name } = account;
    let Some(user) = users::find(db, name)? else { return Ok(false) };
    let has_other_password = hash != before;
    if has_other_password {
        users::set_password(db, now, memory, name, hash)?;
        mark(db, account)?;
    }
    let has_other_groups = users::distinct(user.groups) != users::distinct(groups.clone());
    if has_other_groups {
        users::set_groups(db, now, memory, name, groups.clone())?;
    }
    let has_other_profile = (&user.email, &user.full_name) != (email, full_name);
    if has_other_profile {
        users::set_profile(db, now, memory, name, email.clone(), full_name.clone())?;
    }
    Ok(has_other_password || has_other_groups || has_other_profile)
}

fn mark(db: &Transaction<'_>, account: &FileAccount) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE users SET file_hash = ?2 WHERE name = ?1")?
        .execute(params![account.name.as_str(), account.hash.expose()])
        .map(drop)
}
