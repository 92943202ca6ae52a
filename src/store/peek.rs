//! A look at the accounts of a store that may belong to a running gateway: nothing is written, nothing is made.

use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, OpenFlags};

use super::UserRecord;
use super::sqlite::{is_ours, users};

/// The accounts in the file `path`; `None` where there is none, or none that can be read without a trace.
pub fn peek(path: &Path) -> Option<Vec<UserRecord>> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name).exists()
    };
    // Without a `-wal` all is in the file, and SQLite need not make one to read it. With one, whoever wrote it made a `-shm` too.
    let how = match (beside("-wal"), beside("-shm")) {
        (false, _) => "immutable=1",
        (true, true) => "mode=ro",
        (true, false) => return None,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?{how}", utf8_percent_encode(path.to_str()?, NON_ALPHANUMERIC));
    let connection = Connection::open_with_flags(uri, flags).ok()?;
    connection.pragma_update(None, "query_only", true).ok()?;
    is_ours(&connection).then(|| users::all(&connection).ok())?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{self, StoreKind};
    use crate::identity::UserName;
    use crate::secret::Random;
    use crate::store::{NewUser, Store};

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn user(name: &str, groups: &[&str]) -> NewUser {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        NewUser { name: UserName::parse(name).unwrap(), hash: None, groups, email: None, full_name: None }
    }

    #[tokio::test]
    async fn sees_what_a_running_gateway_wrote_and_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b%20.db");
        assert!(peek(&path).is_none());
        assert!(names(directory.path()).is_empty(), "no store is made");
        let config = config::Store {
            kind: StoreKind::Sqlite(path.clone()),
            users: None,
            max_staleness: std::time::Duration::ZERO,
        };
        let store = Store::open(&config, Clock::system(), Random::system()).unwrap();
        store.add_user(user("ada", &["admin"])).await.unwrap();
        let there = |path: &Path| {
            let users = peek(path).unwrap().into_iter();
            users.map(|user| (user.name.as_str().to_owned(), user.groups)).collect::<Vec<_>>()
        };
        assert_eq!(there(&path), [("ada".to_owned(), vec!["admin".to_owned()])]);
        store.close().await.unwrap();
        drop(store);
        let before = (names(directory.path()), fs::read(&path).unwrap());
        assert_eq!(before.0, ["a b%20.db"]);
        assert_eq!(there(&path).len(), 1);
        assert_eq!((names(directory.path()), fs::read(&path).unwrap()), before);
        fs::write(&path, "something else").unwrap();
        assert!(peek(&path).is_none());
    }
}
