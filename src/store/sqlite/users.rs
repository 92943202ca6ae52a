//! Accounts.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::super::{EventKind, NewUser, Origin, Seq, UserRecord};
use super::{api_keys, events, sessions};
use crate::clock::Timestamp;
use crate::identity::UserName;
use crate::secret::Secret;

/// The account `name`.
pub(in super::super) fn find(db: &Connection, name: &UserName) -> rusqlite::Result<Option<UserRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE name = ?1"))?
        .query_row([name.as_str()], read)
        .optional()
}

/// All accounts, by name.
pub(in super::super) fn all(db: &Connection) -> rusqlite::Result<Vec<UserRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM users ORDER BY name"))?.query_map([], read)?.collect()
}

/// Whether there is any account.
pub(in super::super) fn exist(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM users LIMIT 1")?.exists([])
}

/// Makes an account unless the name is taken.
pub(in super::super) fn add(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    user: &NewUser,
) -> rusqlite::Result<Option<Seq>> {
    let taken = db.prepare_cached("SELECT 1 FROM users WHERE name = ?1")?.exists([user.name.as_str()])?;
    if taken {
        return Ok(None);
    }
    // The place of an event never comes again, which makes it the version of the password.
    let seq = changed(db, now, memory, &user.name)?;
    db.prepare_cached(
        "INSERT INTO users (name, hash, password_version, groups, email, full_name, disabled, created_at, password_changed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, FALSE, ?7, ?7)",
    )?
    .execute(params![
        user.name.as_str(),
        user.hash.as_ref().map(Secret::expose),
        seq,
        distinct(user.groups.clone()),
        user.email,
        user.full_name,
        now.as_millis(),
    ])?;
    Ok(Some(seq))
}

/// Makes all these accounts; answers with the names that are taken.
pub(in super::super) fn add_all(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    users: &[NewUser],
) -> rusqlite::Result<Vec<UserName>> {
    let mut taken = Vec::new();
    for user in users {
        if add(db, now, memory, user)?.is_none() {
            taken.push(user.name.clone());
        }
    }
    Ok(taken)
}

/// Sets a new password and ends what the old one has opened.
pub(in super::super) fn set_password(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
    hash: &Secret<String>,
) -> rusqlite::Result<Option<Seq>> {
    let seq = sessions::end_all_of(db, now, memory, name)?;
    let found = db
        .prepare_cached("UPDATE users SET hash = ?2, password_version = ?3, password_changed_at = ?4 WHERE name = ?1")?
        .execute(params![name.as_str(), hash.expose(), seq, now.as_millis()])?;
    // Whoever knew the old password may have made a network of theirs familiar with it.
    db.prepare_cached("DELETE FROM familiar WHERE user = ?1")?.execute([name.as_str()])?;
    done(db, now, memory, name, found)
}

/// Sets a new password if the one that was verified is still in force; answers with its version.
pub(in super::super) fn change_password(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
    verified: u64,
    hash: &Secret<String>,
) -> rusqlite::Result<Option<u64>> {
    let may = find(db, name)?
        .is_some_and(|user| !user.disabled && user.origin == Origin::Store && user.password_version == verified);
    if !may {
        return Ok(None);
    }
    set_password(db, now, memory, name, hash)?;
    Ok(find(db, name)?.map(|user| user.password_version))
}

/// Replaces a hash by another one of the same password.
pub(in super::super) fn upgrade_hash(
    db: &Transaction<'_>,
    name: &UserName,
    old: &Secret<String>,
    new: &Secret<String>,
) -> rusqlite::Result<bool> {
    let found = db.prepare_cached("UPDATE users SET hash = ?3 WHERE name = ?1 AND hash = ?2")?.execute(params![
        name.as_str(),
        old.expose(),
        new.expose()
    ])?;
    Ok(found > 0)
}

/// Sets the groups.
pub(in super::super) fn set_groups(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
    groups: Vec<String>,
) -> rusqlite::Result<Option<Seq>> {
    let found = db
        .prepare_cached("UPDATE users SET groups = ?2 WHERE name = ?1")?
        .execute(params![name.as_str(), distinct(groups)])?;
    done(db, now, memory, name, found)
}

/// Sets e-mail address and full name.
pub(in super::super) fn set_profile(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
    email: Option<String>,
    full_name: Option<String>,
) -> rusqlite::Result<Option<Seq>> {
    let found = db.prepare_cached("UPDATE users SET email = ?2, full_name = ?3 WHERE name = ?1")?.execute(params![
        name.as_str(),
        email,
        full_name
    ])?;
    done(db, now, memory, name, found)
}

/// Disables or enables.
pub(in super::super) fn set_disabled(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
    disabled: bool,
) -> rusqlite::Result<Option<Seq>> {
    let found = db
        .prepare_cached("UPDATE users SET disabled = ?2 WHERE name = ?1")?
        .execute(params![name.as_str(), disabled])?;
    if found > 0 && disabled {
        sessions::end_all_of(db, now, memory, name)?;
    }
    done(db, now, memory, name, found)
}

/// Deletes the account with all that hangs on it.
pub(in super::super) fn delete(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
) -> rusqlite::Result<Option<Seq>> {
    sessions::end_all_of(db, now, memory, name)?;
    api_keys::revoke_all_of(db, now, memory, name)?;
    let found = db.prepare_cached("DELETE FROM users WHERE name = ?1")?.execute([name.as_str()])?;
    done(db, now, memory, name, found)
}

/// Notes a sign-in.
pub(in super::super) fn note_sign_in(db: &Transaction<'_>, now: Timestamp, name: &UserName) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE users SET last_sign_in = ?2 WHERE name = ?1")?
        .execute(params![name.as_str(), now.as_millis()])
        .map(drop)
}

/// Tells the gateways to forgive the account's failures.
pub(in super::super) fn unlock(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
) -> rusqlite::Result<Option<Seq>> {
    if find(db, name)?.is_none() {
        return Ok(None);
    }
    events::write(db, now, memory, &EventKind::Unlocked { user: name.clone() }).map(Some)
}

fn done(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    name: &UserName,
    found: usize,
) -> rusqlite::Result<Option<Seq>> {
    if found == 0 {
        return Ok(None);
    }
    changed(db, now, memory, name).map(Some)
}

fn changed(db: &Transaction<'_>, now: Timestamp, memory: Duration, name: &UserName) -> rusqlite::Result<Seq> {
    events::write(db, now, memory, &EventKind::UserChanged { user: name.clone() })
}

/// In the order given, each once.
pub(super) fn distinct(groups: Vec<String>) -> String {
    let mut seen = HashSet::new();
    let groups: Vec<String> = groups.into_iter().filter(|group| seen.insert(group.clone())).collect();
    serde_json::Value::from(groups).to_string()
}

fn read(row: &Row<'_>) -> rusqlite::Result<UserRecord> {
    Ok(UserRecord {
        name: events::user_name(row, 0)?,
        hash: row.get::<_, Option<String>>(1)?.map(Secret::new),
        password_version: row.get(2)?,
        groups: events::list(row, 3)?,
        email: row.get(4)?,
        full_name: row.get(5)?,
        disabled: row.get(6)?,
        created_at: Timestamp::from_millis(row.get(7)?),
        password_changed_at: Timestamp::from_millis(row.get(8)?),
        last_sign_in: events::moment(row, 9)?,
        origin: if row.get(10)? { Origin::File } else { Origin::Store },
    })
}

const COLUMNS: &str = "name, hash, password_version, groups, email, full_name, disabled, created_at, \
     password_changed_at, last_sign_in, file_hash IS NOT NULL";
