//! Counters of failed sign-ins, and the networks and browsers that accounts are known to be used from.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row, Transaction, params};

use super::super::{Digest, ThrottleRecord, ThrottleScope};
use super::events;
use crate::clock::Timestamp;
use crate::identity::UserName;

/// All counters.
pub(in super::super) fn all(db: &Connection) -> rusqlite::Result<Vec<ThrottleRecord>> {
    db.prepare_cached("SELECT scope, key, failures, level, blocked_until FROM throttle")?.query_map([], read)?.collect()
}

/// Saves counters; deletes those that count nothing.
pub(in super::super) fn save(db: &Transaction<'_>, now: Timestamp, rows: &[ThrottleRecord]) -> rusqlite::Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM throttle WHERE scope = ?1 AND key = ?2")?;
    let mut save = db.prepare_cached(
        "INSERT OR REPLACE INTO throttle (scope, key, failures, level, blocked_until, saved_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for row in rows {
        let scope = name(row.scope);
        if row.failures.is_empty() && row.level == 0 {
            delete.execute(params![scope, row.key])?;
            continue;
        }
        let failures: Vec<_> = row.failures.iter().map(|(at, account)| (at.as_millis(), account)).collect();
        let failures =
            serde_json::to_string(&failures).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))?;
        save.execute(params![
            scope,
            row.key,
            failures,
            row.level,
            row.blocked_until.map(Timestamp::as_millis),
            now.as_millis()
        ])?;
    }
    Ok(())
}

/// Whether the account was used from the network or with the browser lately.
pub(in super::super) fn is_familiar(
    db: &Connection,
    now: Timestamp,
    user: &UserName,
    network: &Digest,
    browser: Option<&Digest>,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM familiar
         WHERE user = ?1 AND ((kind = 'network' AND key = ?2) OR (kind = 'browser' AND key = ?3)) AND at > ?4",
    )?
    .exists(params![user.as_str(), network, browser, (now - FAMILIAR_FOR).as_millis()])
}

/// Notes the network and the browser. One noted within a day stays as it is, so that most sign-ins write nothing here.
pub(in super::super) fn note_familiar(
    db: &Transaction<'_>,
    now: Timestamp,
    user: &UserName,
    network: &Digest,
    browser: Option<&Digest>,
) -> rusqlite::Result<()> {
    let mut note = db.prepare_cached(
        "INSERT INTO familiar (user, kind, key, at) SELECT name, ?2, ?3, ?4 FROM users WHERE name = ?1
         ON CONFLICT (user, kind, key) DO UPDATE SET at = excluded.at WHERE at < ?5",
    )?;
    let (at, stale) = (now.as_millis(), (now - Duration::from_secs(24 * 3600)).as_millis());
    note.execute(params![user.as_str(), "network", network, at, stale])?;
    if let Some(browser) = browser {
        note.execute(params![user.as_str(), "browser", browser, at, stale])?;
    }
    Ok(())
}

/// Removes at most `batch` each of the familiar and of the counters that are past their time.
pub(in super::super) fn clean(db: &Transaction<'_>, now: Timestamp, batch: usize) -> rusqlite::Result<usize> {
    let familiar = db
        .prepare_cached(
            "DELETE FROM familiar WHERE (user, kind, key) IN
             (SELECT user, kind, key FROM familiar WHERE at <= ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![(now - FAMILIAR_FOR).as_millis(), batch])?;
    let counters = db
        .prepare_cached(
            "DELETE FROM throttle WHERE (scope, key) IN
             (SELECT scope, key FROM throttle WHERE saved_at <= ?1 ORDER BY saved_at LIMIT ?2)",
        )?
        .execute(params![(now - COUNTED_FOR).as_millis(), batch])?;
    Ok(familiar + counters)
}

fn read(row: &Row<'_>) -> rusqlite::Result<ThrottleRecord> {
    let scope = match row.get_ref(0)?.as_str()? {
        "account" => ThrottleScope::Account,
        "network" => ThrottleScope::Network,
        _ => return Err(events::unreadable(0, "an unknown scope")),
    };
    let failures: Vec<(u64, [u8; 16])> = serde_json::from_str(row.get_ref(2)?.as_str()?)
        .map_err(|error| Error::FromSqlConversionFailure(2, Type::Text, Box::new(error)))?;
    Ok(ThrottleRecord {
        scope,
        key: row.get(1)?,
        failures: failures.into_iter().map(|(at, account)| (Timestamp::from_millis(at), account)).collect(),
        level: row.get(3)?,
        blocked_until: events::moment(row, 4)?,
    })
}

const fn name(scope: ThrottleScope) -> &'static str {
    match scope {
        ThrottleScope::Account => "account",
        ThrottleScope::Network => "network",
    }
}

/// How long a network or a browser stays familiar.
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a counter that nobody saves any more can matter: the longest wait and the window behind it.
const COUNTED_FOR: Duration = Duration::from_secs(3600);
