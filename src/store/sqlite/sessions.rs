//! Sessions, and tokens that end before their time.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::super::{Digest, EventKind, Seq, SessionRecord};
use super::events;
use crate::clock::Timestamp;
use crate::identity::UserName;

/// Begins a session unless the account is gone, disabled or has another password by now.
pub(in super::super) fn create(
    db: &Transaction<'_>,
    session: &SessionRecord,
    password_version: u64,
) -> rusqlite::Result<Option<Seq>> {
    let may = db
        .prepare_cached("SELECT 1 FROM users WHERE name = ?1 AND NOT disabled AND password_version = ?2")?
        .exists(params![session.user.as_str(), password_version])?;
    if !may {
        return Ok(None);
    }
    db.prepare_cached(&format!(
        "INSERT INTO sessions ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    ))?
    .execute(params![
        session.id,
        session.key_hash,
        session.refresh_hash,
        session.refresh_generation,
        session.user.as_str(),
        session.created_at.as_millis(),
        session.auth_time.as_millis(),
        session.last_seen.as_millis(),
        session.remember,
        serde_json::Value::from(session.methods.clone()).to_string(),
        session.client,
        cut(&session.agent),
        session.expires_at.as_millis(),
    ])?;
    events::latest(db).map(Some)
}

/// The session `id`.
pub(in super::super) fn find(db: &Connection, id: &str) -> rusqlite::Result<Option<SessionRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1"))?.query_row([id], read).optional()
}

/// The session of a cookie.
pub(in super::super) fn find_by_key(db: &Connection, key_hash: &Digest) -> rusqlite::Result<Option<SessionRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE key_hash = ?1"))?
        .query_row([key_hash], read)
        .optional()
}

/// Sessions that have not passed their end.
pub(in super::super) fn list(
    db: &Connection,
    now: Timestamp,
    user: Option<&UserName>,
) -> rusqlite::Result<Vec<SessionRecord>> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM sessions WHERE expires_at > ?1 AND (?2 IS NULL OR user = ?2) ORDER BY last_seen DESC, id"
    ))?
    .query_map(params![now.as_millis(), user.map(UserName::as_str)], read)?
    .collect()
}

/// The cookie sessions and token sessions of `user` but `except` that are not over, the latest used first, at most
/// `limit` of them; and how many there are. Without `remember` a session is over when it was last used before `idle`.
pub(in super::super) fn others(
    db: &Connection,
    now: Timestamp,
    idle: Timestamp,
    (user, except): (&UserName, &str),
    limit: usize,
) -> rusqlite::Result<(Vec<SessionRecord>, u64)> {
    let snapshot = db.unchecked_transaction()?;
    let (now, idle) = (now.as_millis(), idle.as_millis());
    let count = snapshot
        .prepare_cached(&format!("SELECT count(*) FROM sessions WHERE {OTHERS}"))?
        .query_row(params![user.as_str(), except, now, idle], |row| row.get(0))?;
    let latest = snapshot
        .prepare_cached(&format!("SELECT {COLUMNS} FROM sessions WHERE {OTHERS} ORDER BY last_seen DESC, id LIMIT ?5"))?
        .query_map(params![user.as_str(), except, now, idle, limit], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((latest, count))
}

/// Ends the sessions of `user` but `except`; answers with how many there were.
pub(in super::super) fn end_others(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    user: &UserName,
    except: &str,
) -> rusqlite::Result<usize> {
    let ids = db
        .prepare_cached("DELETE FROM sessions WHERE user = ?1 AND id <> ?2 RETURNING id")?
        .query_map(params![user.as_str(), except], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let count = ids.len();
    for session in ids {
        events::write(db, now, memory, &EventKind::SessionEnded { session })?;
    }
    Ok(count)
}

/// Notes when sessions were last used.
pub(in super::super) fn touch(db: &Transaction<'_>, seen: &[(String, Timestamp)]) -> rusqlite::Result<()> {
    let mut update = db.prepare_cached("UPDATE sessions SET last_seen = ?2 WHERE id = ?1 AND last_seen < ?2")?;
    for (id, at) in seen {
        update.execute(params![id, at.as_millis()])?;
    }
    Ok(())
}

/// Ends one session. Its row may be gone while its last tokens live, so the event is written all the same.
pub(in super::super) fn end(db: &Transaction<'_>, now: Timestamp, memory: Duration, id: &str) -> rusqlite::Result<Seq> {
    db.prepare_cached("DELETE FROM sessions WHERE id = ?1")?.execute([id])?;
    let known =
        db.prepare_cached("SELECT seq FROM events WHERE session = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    match known {
        Some(seq) => Ok(seq),
        None => events::write(db, now, memory, &EventKind::SessionEnded { session: id.to_owned() }),
    }
}

/// Ends all sessions of a user and the tokens that have none.
pub(in super::super) fn end_all_of(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    user: &UserName,
) -> rusqlite::Result<Seq> {
    let ids = db
        .prepare_cached("DELETE FROM sessions WHERE user = ?1 RETURNING id")?
        .query_map([user.as_str()], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    for session in ids {
        events::write(db, now, memory, &EventKind::SessionEnded { session })?;
    }
    events::write(db, now, memory, &EventKind::UserSignedOut { user: user.clone(), at: now })
}

/// Ends the tokens of a user that have no session and were issued by `issued`.
pub(in super::super) fn end_tokens_of(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    user: &UserName,
    issued: Timestamp,
) -> rusqlite::Result<Seq> {
    // The event's time says which tokens are over; by then plus `memory` the last of them has expired.
    let forget_after = now.max(issued) + memory;
    events::write_until(db, issued, forget_after, &EventKind::UserSignedOut { user: user.clone(), at: issued })
}

/// Refuses one token, for as long as it would have lived and an hour for the leeway.
pub(in super::super) fn revoke_jti(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    jti: &str,
    until: Timestamp,
) -> rusqlite::Result<Seq> {
    let known =
        db.prepare_cached("SELECT seq FROM events WHERE jti = ?1")?.query_row([jti], |row| row.get(0)).optional()?;
    if let Some(seq) = known {
        return Ok(seq);
    }
    let forget_after = (until + Duration::from_secs(3600)).max(now + memory);
    events::write_until(db, now, forget_after, &EventKind::TokenRevoked { jti: jti.to_owned() })
}

/// Removes at most `batch` sessions past their end. No event: whoever knows them knows their end.
pub(in super::super) fn clean(db: &Transaction<'_>, now: Timestamp, batch: usize) -> rusqlite::Result<usize> {
    db.prepare_cached(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    )?
    .execute(params![now.as_millis(), batch])
}

/// The first 256 bytes, to a whole character.
fn cut(agent: &str) -> &str {
    let end = (0..=agent.len().min(256)).rev().find(|end| agent.is_char_boundary(*end));
    &agent[..end.unwrap_or(0)]
}

fn read(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    Ok(SessionRecord {
        id: row.get(0)?,
        key_hash: row.get(1)?,
        refresh_hash: row.get(2)?,
        refresh_generation: row.get(3)?,
        user: events::user_name(row, 4)?,
        created_at: Timestamp::from_millis(row.get(5)?),
        auth_time: Timestamp::from_millis(row.get(6)?),
        last_seen: Timestamp::from_millis(row.get(7)?),
        remember: row.get(8)?,
        methods: events::list(row, 9)?,
        client: row.get(10)?,
        agent: row.get(11)?,
        expires_at: Timestamp::from_millis(row.get(12)?),
    })
}

const OTHERS: &str = "user = ?1 AND id <> ?2 AND expires_at > ?3 AND (remember OR key_hash IS NULL OR last_seen > ?4)";

const COLUMNS: &str = "id, key_hash, refresh_hash, refresh_generation, user, created_at, auth_time, last_seen, remember, \
                       methods, client, agent, expires_at";
