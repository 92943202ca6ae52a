//! Refresh tokens that follow each other: what a presented one comes to, in one transaction.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::super::{Rotated, Rotation};
use super::{events, sessions};
use crate::clock::Timestamp;

/// Judges a refresh token that was made by this server, and puts its successor in its place.
///
/// The row of a session is gone as soon as the session is over, so one that is found may go on.
pub(in super::super) fn rotate(
    db: &Transaction<'_>,
    now: Timestamp,
    memory: Duration,
    asked: &Rotation,
) -> rusqlite::Result<Rotated> {
    let Some(session) = sessions::find(db, &asked.session)? else { return Ok(Rotated::Unknown) };
    let Some(current) = session.refresh_hash else { return Ok(Rotated::Unknown) };
    if now >= session.expires_at {
        return Ok(Rotated::Over);
    }
    if session.is_over(now, asked.idle) {
        // Ended for good: a use of its last access token must not bring it back.
        sessions::end(db, now, memory, &session.id)?;
        return Ok(Rotated::Over);
    }
    if asked.generation == session.refresh_generation && asked.hash != current {
        return Ok(Rotated::Unknown);
    }
    // A generation that lies ahead was issued after the backup was made that is in place now.
    if asked.generation >= session.refresh_generation {
        let Some(next) = asked.generation.checked_add(1) else { return Ok(Rotated::Unknown) };
        db.prepare_cached(
            "UPDATE sessions SET refresh_generation = ?2, refresh_hash = ?3, refreshed_at = ?4, last_seen = ?4 WHERE id = ?1",
        )?
        .execute(params![session.id, next, asked.successor, now.as_millis()])?;
        return Ok(Rotated::Renewed(session));
    }
    let is_last = asked.generation.checked_add(1) == Some(session.refresh_generation);
    if is_last && refreshed_at(db, &session.id)?.is_some_and(|at| is_within(asked.grace, at, now)) {
        return Ok(Rotated::Repeated(session));
    }
    sessions::end(db, now, memory, &session.id)?;
    Ok(Rotated::Reused(session))
}

fn refreshed_at(db: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<Timestamp>> {
    db.prepare_cached("SELECT refreshed_at FROM sessions WHERE id = ?1")?.query_row([id], |row| events::moment(row, 0))
}

/// Either way round: a clock that was set back must not leave the door open until it has caught up.
fn is_within(grace: Duration, at: Timestamp, now: Timestamp) -> bool {
    now.since(at) < grace && at.since(now) < grace
}
