//! What happened, in order.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Row, Transaction, params};

use super::super::{Event, EventKind, Seq};
use crate::clock::Timestamp;
use crate::identity::UserName;

/// Writes an event that is kept for `memory`.
pub(in super::super) fn write(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    kind: &EventKind,
) -> rusqlite::Result<Seq> {
    write_until(db, now, now + memory, kind)
}

/// Writes an event that is kept until `forget_after`.
pub(in super::super) fn write_until(
    db: &Transaction<'_>,
    now: Timestamp,
    forget_after: Timestamp,
    kind: &EventKind,
) -> rusqlite::Result<Seq> {
    let (name, user, session, jti, api_key) = match kind {
        EventKind::SessionEnded { session } => ("session-ended", None, Some(session), None, None),
        EventKind::TokenRevoked { jti } => ("token-revoked", None, None, Some(jti), None),
        EventKind::UserChanged { user } => ("user-changed", Some(user), None, None, None),
        EventKind::UserSignedOut { user, at: _ } => ("user-signed-out", Some(user), None, None, None),
        EventKind::ApiKeyRevoked { id } => ("api-key-revoked", None, None, None, Some(id)),
        EventKind::KeysChanged => ("keys-changed", None, None, None, None),
        EventKind::Unlocked { user } => ("unlocked", Some(user), None, None, None),
    };
    db.prepare_cached(
        "INSERT INTO events (at, kind, user, session, jti, forget_after, api_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .insert(params![now.as_millis(), name, user.map(UserName::as_str), session, jti, forget_after.as_millis(), api_key])
    .map(i64::unsigned_abs)
}

/// At most `limit` events after `seq`, and the place of the latest.
pub(in super::super) fn after(db: &Connection, seq: Seq, limit: usize) -> rusqlite::Result<(Vec<Event>, Seq)> {
    // Both from one snapshot: an event between the two questions must not be skipped.
    let snapshot = db.unchecked_transaction()?;
    let events = snapshot
        .prepare_cached(
            "SELECT seq, at, kind, user, session, jti, api_key FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?
        .query_map(params![seq, limit], read)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((events, latest(&snapshot)?))
}

/// The place of the latest event, also of one that is forgotten.
pub(in super::super) fn latest(db: &Connection) -> rusqlite::Result<Seq> {
    let seq = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(seq.unwrap_or(0))
}

/// Forgets at most `batch` events that are past their time.
pub(in super::super) fn clean(db: &Transaction<'_>, now: Timestamp, batch: usize) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE forget_after <= ?1 ORDER BY forget_after LIMIT ?2)",
    )?
    .execute(params![now.as_millis(), batch])
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let at = Timestamp::from_millis(row.get(1)?);
    let user = || user_name(row, 3);
    let kind = match row.get_ref(2)?.as_str()? {
        "session-ended" => EventKind::SessionEnded { session: row.get(4)? },
        "token-revoked" => EventKind::TokenRevoked { jti: row.get(5)? },
        "user-changed" => EventKind::UserChanged { user: user()? },
        "user-signed-out" => EventKind::UserSignedOut { user: user()?, at },
        "api-key-revoked" => EventKind::ApiKeyRevoked { id: row.get(6)? },
        "keys-changed" => EventKind::KeysChanged,
        "unlocked" => EventKind::Unlocked { user: user()? },
        other => {
            return Err(unreadable(2, &format!("an event of the unknown kind {other:?}")));
        }
    };
    Ok(Event { seq: row.get(0)?, at, kind })
}

/// A column that holds the name of an account.
pub(in super::super) fn user_name(row: &Row<'_>, column: usize) -> rusqlite::Result<UserName> {
    UserName::parse(row.get_ref(column)?.as_str()?).ok_or_else(|| unreadable(column, "a name that no account can have"))
}

/// A column that holds a JSON list of texts.
pub(in super::super) fn list(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(row.get_ref(column)?.as_str()?)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A column that may hold a time.
pub(in super::super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<u64>>(column)?.map(Timestamp::from_millis))
}

/// The error of a row that can't be what we wrote.
pub(in super::super) fn unreadable(column: usize, what: &str) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
