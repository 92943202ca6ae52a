//! The tables, and the way from each older version to the present one.
//!
//! Times are milliseconds since 1970, lists are JSON. `PRAGMA user_version` counts the steps that the file has seen.

use rusqlite::{Connection, Error, TransactionBehavior, ffi};

/// The extended code of the error that tells of a file from a newer version.
pub(super) const TOO_NEW: i32 = ffi::SQLITE_SCHEMA | (77 << 8);

/// Takes all steps that the file has not seen, each or none.
pub(super) fn bring_up_to_date(connection: &mut Connection) -> rusqlite::Result<()> {
    if check(connection).is_ok_and(|seen| seen == STEPS.len()) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let seen = check(&transaction)?;
    for step in STEPS.iter().skip(seen) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", STEPS.len())?;
    transaction.commit()
}

/// How many steps the file has seen; an error where they are more than we know.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<usize> {
    let seen: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if seen > STEPS.len() {
        return Err(Error::SqliteFailure(ffi::Error::new(TOO_NEW), None));
    }
    Ok(seen)
}

const STEPS: &[&str] = &[
    "
CREATE TABLE users (
    name TEXT PRIMARY KEY NOT NULL,
    hash TEXT,
    password_version INTEGER NOT NULL,
    groups TEXT NOT NULL,
    email TEXT,
    full_name TEXT,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    password_changed_at INTEGER NOT NULL,
    last_sign_in INTEGER
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    key_hash BLOB UNIQUE,
    refresh_hash BLOB UNIQUE,
    refresh_generation INTEGER NOT NULL,
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    auth_time INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    remember INTEGER NOT NULL,
    methods TEXT NOT NULL,
    client TEXT NOT NULL,
    agent TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE keys (
    kid TEXT PRIMARY KEY NOT NULL,
    algorithm TEXT NOT NULL,
    private BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    retired_at INTEGER
) STRICT;

CREATE TABLE secrets (
    name TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    user TEXT,
    session TEXT,
    jti TEXT,
    forget_after INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_end ON events (forget_after);
CREATE INDEX events_by_session ON events (session) WHERE session IS NOT NULL;
CREATE INDEX events_by_jti ON events (jti) WHERE jti IS NOT NULL;

CREATE TABLE throttle (
    scope TEXT NOT NULL,
    key BLOB NOT NULL,
    failures TEXT NOT NULL,
    level INTEGER NOT NULL,
    blocked_until INTEGER,
    saved_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE familiar (
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    key BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (user, kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX familiar_by_time ON familiar (at);
CREATE INDEX throttle_by_time ON throttle (saved_at);
",
    "
ALTER TABLE sessions ADD COLUMN refreshed_at INTEGER;
",
    // Keys of assertions stand beside those of tokens.
    "ALTER TABLE keys ADD COLUMN purpose TEXT NOT NULL DEFAULT 'tokens';",
    "
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY NOT NULL,
    key_hash BLOB NOT NULL,
    name TEXT NOT NULL,
    user TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    groups TEXT,
    scopes TEXT NOT NULL,
    routes TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used INTEGER,
    UNIQUE (user, name)
) STRICT;
ALTER TABLE events ADD COLUMN api_key TEXT;
",
    // How long the tokens of a key live; not known of those that are there already.
    "ALTER TABLE keys ADD COLUMN lifetime INTEGER;",
    // What the file of accounts says of an account that is the file's; the store's own have nothing there.
    "
ALTER TABLE users ADD COLUMN file_hash TEXT;
CREATE INDEX users_of_the_file ON users (name) WHERE file_hash IS NOT NULL;
",
];
