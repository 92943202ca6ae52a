//! Signing keys and the gateway's own secrets. They stand in the file as they are; its mode (0600) is what protects them.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::super::{EventKind, HAND_OVER, KeyRecord, KeyUse, Lives, Retired, Seq};
use super::events;
use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::secret::Secret;
use crate::token::algorithm_name;

/// All signing keys, the oldest first.
pub(in super::super) fn all(db: &Connection) -> rusqlite::Result<Vec<KeyRecord>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM keys ORDER BY not_before, created_at, kid"))?
        .query_map([], read)?
        .collect()
}

/// Adds a key unless there is one of that `kid`.
pub(in super::super) fn add(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    key: &KeyRecord,
) -> rusqlite::Result<Option<Seq>> {
    let added = db
        .prepare_cached(&format!(
            "INSERT INTO keys ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (kid) DO NOTHING"
        ))?
        .execute(params![
            key.kid,
            algorithm_name(key.algorithm),
            key.private.expose(),
            key.created_at.as_millis(),
            key.not_before.as_millis(),
            key.retired_at.map(Timestamp::as_millis),
            purpose(key.purpose),
            key.lifetime.map(millis),
        ])?;
    if added == 0 {
        return Ok(None);
    }
    events::write(db, now, memory, &EventKind::KeysChanged).map(Some)
}

/// A key of `key`'s algorithm and purpose that is not retired: `key`, if there is none.
pub(in super::super) fn first(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    key: KeyRecord,
) -> rusqlite::Result<KeyRecord> {
    let usable = |there: &KeyRecord| {
        (there.purpose, there.algorithm) == (key.purpose, key.algorithm) && there.retired_at.is_none()
    };
    if let Some(there) = all(db)?.into_iter().find(usable) {
        return Ok(there);
    }
    add(db, now, memory, &key)?;
    Ok(key)
}

/// Adds `key`, which signs `publish_first` from now, and retires the others of its purpose by then.
pub(in super::super) fn rotate(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    mut key: KeyRecord,
    publish_first: Duration,
) -> rusqlite::Result<(KeyRecord, Seq)> {
    (key.created_at, key.not_before, key.retired_at) = (now, now + publish_first, None);
    // One that waits for its time is retired before it: its place is taken.
    db.prepare_cached(
        "UPDATE keys SET retired_at = CASE WHEN not_before > ?1 THEN ?1 ELSE ?2 END
             WHERE purpose = ?3 AND kid <> ?4 AND (retired_at IS NULL OR retired_at > ?1)",
    )?
    .execute(params![now.as_millis(), key.not_before.as_millis(), purpose(key.purpose), key.kid])?;
    let taken = || events::unreadable(0, "a new key has the name of an old one");
    let seq = add(db, now, memory, &key)?.ok_or_else(taken)?;
    Ok((key, seq))
}

/// Notes for how long what keys of `of` sign may live. One of which it is not known what it has signed stays so.
pub(in super::super) fn note_lifetime(
    db: &Transaction<'_>,
    now: Timestamp,
    of: KeyUse,
    lifetime: Duration,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE keys SET lifetime = ?2 WHERE purpose = ?1 AND lifetime < ?2 AND (retired_at IS NULL OR retired_at > ?3)",
    )?
    .execute(params![purpose(of), millis(lifetime), now.as_millis()])?;
    Ok(())
}

/// Removes a key, unless it is the one that signs with `algorithm`.
pub(in super::super) fn retire(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    kid: &str,
    algorithm: Algorithm,
) -> rusqlite::Result<Retired> {
    let keys = all(db)?;
    let Some(key) = keys.iter().find(|key| key.kid == kid) else { return Ok(Retired::Unknown) };
    // One that waits for its time is no other: until then the one before it signs, and after it nobody would.
    let signs = |other: &KeyRecord| {
        other.kid != kid
            && (other.purpose, other.algorithm) == (key.purpose, algorithm)
            && other.retired_at.is_none()
            && other.not_before <= now.max(other.created_at)
    };
    if !keys.iter().any(signs) {
        return Ok(Retired::Signing);
    }
    db.prepare_cached("DELETE FROM keys WHERE kid = ?1")?.execute([kid])?;
    events::write(db, now, memory, &EventKind::KeysChanged).map(Retired::Gone)
}

/// Removes the keys of `of` that verify nothing any more.
pub(in super::super) fn clean(
    db: &Transaction<'_>,
    (now, settled): (Timestamp, Timestamp),
    memory: Duration,
    of: KeyUse,
    lives: Lives,
) -> rusqlite::Result<usize> {
    let over = settled - lives.leeway - HAND_OVER;
    let gone = db
        .prepare_cached("DELETE FROM keys WHERE purpose = ?1 AND retired_at + ifnull(lifetime, ?2) <= ?3")?
        .execute(params![purpose(of), millis(lives.at_most), over.as_millis()])?;
    if gone > 0 {
        events::write(db, now, memory, &EventKind::KeysChanged)?;
    }
    Ok(gone)
}

/// The secret called `name`.
pub(in super::super) fn secret(db: &Connection, name: &str) -> rusqlite::Result<Option<Secret<[u8; 32]>>> {
    db.prepare_cached("SELECT value FROM secrets WHERE name = ?1")?
        .query_row([name], |row| row.get(0).map(Secret::new))
        .optional()
}

/// The secret called `name`: `fresh`, if there is none.
pub(in super::super) fn secret_or(
    db: &Transaction<'_>,
    name: &str,
    fresh: &Secret<[u8; 32]>,
) -> rusqlite::Result<Secret<[u8; 32]>> {
    db.prepare_cached("INSERT INTO secrets (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?
        .execute(params![name, fresh.expose()])?;
    Ok(secret(db, name)?.unwrap_or_else(|| fresh.clone()))
}

fn read(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let algorithm = row.get_ref(1)?.as_str()?;
    let algorithm = ALL
        .into_iter()
        .find(|known| algorithm_name(*known) == algorithm)
        .ok_or_else(|| events::unreadable(1, "an unknown algorithm"))?;
    Ok(KeyRecord {
        kid: row.get(0)?,
        algorithm,
        private: Secret::new(row.get(2)?),
        created_at: Timestamp::from_millis(row.get(3)?),
        not_before: Timestamp::from_millis(row.get(4)?),
        retired_at: events::moment(row, 5)?,
        lifetime: row.get::<_, Option<u64>>(7)?.map(Duration::from_millis),
        purpose: match row.get_ref(6)?.as_str()? {
            "tokens" => KeyUse::Tokens,
            "assertions" => KeyUse::Assertions,
            _ => return Err(events::unreadable(6, "an unknown purpose")),
        },
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

const fn purpose(of: KeyUse) -> &'static str {
    match of {
        KeyUse::Tokens => "tokens",
        KeyUse::Assertions => "assertions",
    }
}

const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const COLUMNS: &str = "kid, algorithm, private, created_at, not_before, retired_at, purpose, lifetime";
