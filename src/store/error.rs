//! Why the store gave no answer. Always an outage, never a verdict on a user or a session.

use std::fmt;
use std::path::PathBuf;

/// The store gave no answer: nobody may be let in or out on the strength of it.
#[derive(Debug)]
pub struct StoreError {
    /// What is wrong, as far as a program cares.
    pub kind: StoreErrorKind,
    /// The file.
    pub path: PathBuf,
    pub(super) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The configuration says that there is none.
    None,
    /// Another process holds the file locked.
    Locked,
    /// No answer within the deadline, or too many questions at once.
    Overloaded,
    /// The file, its directory or its disk can't be written.
    ReadOnly,
    /// The disk is full.
    Full,
    /// What is in the file is no store, or is damaged.
    Corrupt,
    /// The file or its directory is not there.
    Missing,
    /// The permissions of the file or its directory are in the way.
    Denied,
    /// A newer Portcullis has written the file.
    TooNew,
    /// Reading or writing went wrong otherwise.
    Unavailable,
}

impl StoreErrorKind {
    /// What an operator can do.
    pub const fn help(self) -> &'static str {
        match self {
            Self::None => "name one in `[store] url`",
            Self::Locked => "end the process that holds it, such as an open sqlite3 shell or a backup",
            Self::Overloaded => "try again; if it stays, look at the disk",
            Self::ReadOnly => "make the file and its directory writable",
            Self::Full => "free space on its disk",
            Self::Corrupt => "restore it from a backup",
            Self::Missing => "make the directory, or put the file back",
            Self::Denied => "run as the file's owner, or let this user read and write the file and its directory",
            Self::TooNew => "run the Portcullis that wrote it, or a newer one",
            Self::Unavailable => "look at the disk",
        }
    }
}

impl StoreError {
    /// There is no store to ask.
    pub(super) fn none() -> Self {
        Self { kind: StoreErrorKind::None, path: PathBuf::new(), source: None }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::None => return f.write_str("there is no store: `store.url` is \"none\""),
            StoreErrorKind::Locked => "is locked by another process",
            StoreErrorKind::Overloaded => "does not answer in time",
            StoreErrorKind::ReadOnly => "can't be written",
            StoreErrorKind::Full => "has no space left on its disk",
            StoreErrorKind::Corrupt => "is damaged or no store at all",
            StoreErrorKind::Missing => "is not there",
            StoreErrorKind::Denied => "may not be opened: permission denied",
            StoreErrorKind::TooNew => "was written by a newer Portcullis",
            StoreErrorKind::Unavailable => "can't be read or written",
        };
        write!(f, "the store {} {what}", self.path.display())
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
