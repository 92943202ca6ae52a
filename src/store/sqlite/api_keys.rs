//! Keys for machines. The keys themselves are nowhere, only their digests.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Row, Transaction, params};

use super::super::{ApiKeyRecord, EventKind, Seq};
use super::events;
use crate::clock::Timestamp;
use crate::identity::UserName;

/// The key `id`.
pub(in super::super) fn find(db: &Connection, id: &str) -> rusqlite::Result<Option<ApiKeyRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1"))?.query_row([id], read).optional()
}

/// The keys of one user or of all, by user and name.
pub(in super::super) fn list(db: &Connection, user: Option<&UserName>) -> rusqlite::Result<Vec<ApiKeyRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE user = ifnull(?1, user) ORDER BY user, name"))?
        .query_map([user.map(UserName::as_str)], read)?
        .collect()
}

/// Adds a key, unless its user is not there or has one of that name.
pub(in super::super) fn add(db: &Transaction<'_>, key: &ApiKeyRecord) -> rusqlite::Result<bool> {
    let added = db
        .prepare_cached(&format!(
            "INSERT INTO api_keys ({COLUMNS}) SELECT ?1, ?2, ?3, name, ?5, ?6, ?7, ?8, ?9, ?10 FROM users WHERE name = ?4
             ON CONFLICT (user, name) DO NOTHING"
        ))?
        .execute(params![
            key.id,
            key.key_hash,
            key.name,
            key.user.as_str(),
            key.groups.as_deref().map(json),
            json(&key.scopes),
            key.routes.as_deref().map(json),
            key.created_at.as_millis(),
            key.expires_at.map(Timestamp::as_millis),
            key.last_used.map(Timestamp::as_millis),
        ])?;
    Ok(added > 0)
}

/// Notes uses. A time earlier than the one known changes nothing.
pub(in super::super) fn touch(db: &Transaction<'_>, used: &[(String, Timestamp)]) -> rusqlite::Result<()> {
    let mut touch = db.prepare_cached("UPDATE api_keys SET last_used = max(ifnull(last_used, 0), ?2) WHERE id = ?1")?;
    for (id, at) in used {
        touch.execute(params![id, at.as_millis()])?;
    }
    Ok(())
}

/// Ends a key.
pub(in super::super) fn revoke(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    id: &str,
) -> rusqlite::Result<Option<Seq>> {
    if db.prepare_cached("DELETE FROM api_keys WHERE id = ?1")?.execute([id])? == 0 {
        return Ok(None);
    }
    events::write(db, now, memory, &EventKind::ApiKeyRevoked { id: id.to_owned() }).map(Some)
}

/// Ends all keys of a user, who is about to be deleted.
pub(in super::super) fn revoke_all_of(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    user: &UserName,
) -> rusqlite::Result<()> {
    let ids = db
        .prepare_cached("DELETE FROM api_keys WHERE user = ?1 RETURNING id")?
        .query_map([user.as_str()], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    for id in ids {
        events::write(db, now, memory, &EventKind::ApiKeyRevoked { id })?;
    }
    Ok(())
}

fn json(list: &[String]) -> String {
    serde_json::Value::from(list.to_vec()).to_string()
}

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: row.get(0)?,
        key_hash: row.get(1)?,
        name: row.get(2)?,
        user: events::user_name(row, 3)?,
        groups: list_or_none(row, 4)?,
        scopes: events::list(row, 5)?,
        routes: list_or_none(row, 6)?,
        created_at: Timestamp::from_millis(row.get(7)?),
        expires_at: events::moment(row, 8)?,
        last_used: events::moment(row, 9)?,
    })
}

fn list_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<String>>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

const COLUMNS: &str = "id, key_hash, name, user, groups, scopes, routes, created_at, expires_at, last_used";
