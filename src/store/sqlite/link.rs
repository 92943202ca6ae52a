//! One thread's connection to the file: opened, watched and opened again.
//!
//! A file that was replaced or removed under an open connection would be written on unseen by everyone else, so each
//! question first looks whether the path still leads to the file that was opened. At run time a missing file is never made
//! anew: an empty store would sign everyone out, and for good.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::super::{StoreError, StoreErrorKind};
use super::schema;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Only `SELECT`.
    Reader,
    /// Everything.
    Writer,
}

/// A connection that comes back by itself when a fault has passed.
#[derive(Debug)]
pub(super) struct Link {
    path: PathBuf,
    role: Role,
    open: Option<(Connection, FileId)>,
    times_opened: u32,
}

/// Device and inode.
type FileId = (u64, u64);

impl Link {
    /// Opens the file; the writer makes it if there is none, and brings its schema up to date.
    pub(super) fn open(path: &Path, role: Role) -> Result<Self, StoreError> {
        let mut link = Self { path: path.to_owned(), role, open: None, times_opened: 0 };
        if role == Role::Writer {
            create(path).map_err(|error| link.io_error(error))?;
        }
        link.with(|_| Ok(()))?;
        Ok(link)
    }

    /// Does `work` on a connection that leads to the file as it is now.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let id = match fs::metadata(&self.path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(error) => {
                self.close();
                return Err(self.io_error(error));
            }
        };
        if self.open.as_ref().is_some_and(|(_, opened)| *opened != id) {
            self.close();
        }
        let (connection, _) = match &mut self.open {
            Some(open) => open,
            none => {
                let connection = connect(&self.path, self.role).map_err(|error| store_error(&self.path, error))?;
                self.times_opened = self.times_opened.wrapping_add(1);
                none.insert((connection, id))
            }
        };
        work(connection).map_err(|error| {
            let error = store_error(&self.path, error);
            if !matches!(error.kind, StoreErrorKind::Locked | StoreErrorKind::Full) {
                self.close();
            }
            error
        })
    }

    /// Lets go of the connection; the next question opens another.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// How often the file was opened.
    pub(super) const fn times_opened(&self) -> u32 {
        self.times_opened
    }

    fn io_error(&self, error: io::Error) -> StoreError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreErrorKind::Missing,
            io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            _ => StoreErrorKind::Unavailable,
        };
        StoreError { kind, path: self.path.clone(), source: Some(error.into()) }
    }
}

/// Makes the file readable for its owner alone; SQLite gives `-wal` and `-shm` the same mode.
fn create(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(path)?.mode() & 0o777;
            if mode & 0o077 != 0 {
                tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others may read the store: chmod 600");
            }
            Ok(())
        }
        made => made.map(drop),
    }
}

fn connect(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    match role {
        Role::Writer => {
            if connection.is_readonly("main")? {
                // SQLite takes what it gets; we want to know now, not at the first sign-in.
                return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None));
            }
            write_ahead(&connection)?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
            schema::bring_up_to_date(&mut connection)?;
        }
        Role::Reader => {
            connection.pragma_update(None, "query_only", true)?;
            schema::check(&connection)?;
        }
    }
    Ok(connection)
}

/// Has the file written ahead, which it remembers. Where several make it at once SQLite does not wait: each would wait for the
/// others to give way.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = PATIENCE.as_millis() / A_MOMENT.as_millis();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == ErrorCode::DatabaseBusy && tries > 0 => {
                tries -= 1;
                thread::sleep(A_MOMENT);
            }
            done => return done,
        }
    }
}

fn store_error(path: &Path, source: rusqlite::Error) -> StoreError {
    let kind = match &source {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreErrorKind::Locked,
            ErrorCode::ReadOnly => StoreErrorKind::ReadOnly,
            ErrorCode::DiskFull => StoreErrorKind::Full,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreErrorKind::Corrupt,
            ErrorCode::SchemaChanged if failure.extended_code == schema::TOO_NEW => StoreErrorKind::TooNew,
            ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => StoreErrorKind::Denied,
            // A file that opens as such and not for SQLite is one whose mode, or whose directory's, forbids it.
            ErrorCode::CannotOpen => StoreErrorKind::Denied,
            _ => StoreErrorKind::Unavailable,
        },
        // A row that does not read as what it must be.
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError { kind, path: path.to_owned(), source: Some(source.into()) }
}

/// How long one question waits for a lock that another process holds: short enough that a second one behind it
/// still has its answer within the deadline.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long whoever makes a new file at the same time as others lets them go first.
const A_MOMENT: Duration = Duration::from_millis(10);
