//! What the store does when its file, its disk or a question fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::sqlite::users;
use super::super::*;
use super::{Fixture, kind, new_user, open, user};
use crate::clock::{ManualClock, Timestamp};

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    let here = Fixture::new();
    here.add("bob").await;
    let files: Vec<_> = fs::read_dir(here.directory.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 3, "the file, -wal and -shm");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_change_that_fails_half_way_leaves_nothing_behind() {
    let here = Fixture::new();
    let failed = here.store.database().unwrap().write(|db, now| {
        users::add(db, now, MEMORY, &new_user("half"))?;
        db.execute_batch("INSERT INTO nowhere VALUES (1)")
    });
    assert!(failed.await.is_err());
    assert!(here.store.user(&user("half")).await.unwrap().is_none());
    assert_eq!(here.store.latest_seq().await.unwrap(), 0);
    here.add("whole").await;
}

#[tokio::test]
async fn what_a_killed_process_leaves_on_disk_is_whole() {
    let here = Fixture::new();
    // The files as they are after each change, without the store being closed: what kill -9 leaves.
    for number in 0..5 {
        here.add(&format!("user{number}")).await;
        let copy = tempfile::tempdir().unwrap();
        for name in ["portcullis.db", "portcullis.db-wal"] {
            fs::copy(here.directory.path().join(name), copy.path().join(name)).unwrap();
        }
        // A write that was cut off in the middle.
        let wal = copy.path().join("portcullis.db-wal");
        let mut torn = fs::read(&wal).unwrap();
        torn.extend_from_slice(&[0x5a; 3000]);
        fs::write(&wal, torn).unwrap();
        let left = open(&copy.path().join("portcullis.db"), &here.hand).unwrap();
        assert_eq!(left.users().await.unwrap().len(), number + 1);
        assert_eq!(left.latest_seq().await.unwrap(), number as u64 + 1);
    }
}

#[tokio::test]
async fn a_locked_file_stops_changes_only_and_only_while_it_is_locked() {
    let here = Fixture::new();
    here.add("bob").await;
    here.sabotage("PRAGMA busy_timeout = 1").await;
    let shell = rusqlite::Connection::open(here.path()).unwrap();
    shell.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = here.store.add_user(new_user("late")).await.unwrap_err();
    assert_eq!(kind(&error), StoreErrorKind::Locked);
    assert!(error.to_string().ends_with("portcullis.db is locked by another process"), "{error}");
    assert!(here.store.user(&user("bob")).await.unwrap().is_some());
    shell.execute_batch("COMMIT").unwrap();
    here.add("late").await;
}

#[tokio::test]
async fn a_file_that_can_not_be_written_still_answers_and_comes_back() {
    let here = Fixture::new();
    here.add("bob").await;
    here.sabotage("PRAGMA query_only = ON").await;
    let error = here.store.add_user(new_user("late")).await.unwrap_err();
    assert_eq!(kind(&error), StoreErrorKind::ReadOnly);
    assert!(here.store.user(&user("bob")).await.unwrap().is_some());
    // The fault was the connection's, and the next question opens another.
    here.add("late").await;
}

#[tokio::test]
async fn a_full_disk_stops_changes_and_loses_none() {
    let here = Fixture::new();
    here.add("bob").await;
    here.sabotage("PRAGMA max_page_count = 1").await;
    let mut many: Vec<_> = (0..500).map(|number| new_user(&format!("user{number}"))).collect();
    many[0].full_name = Some("x".repeat(100_000));
    let error = here.store.add_users(many).await.unwrap_err();
    assert_eq!(kind(&error), StoreErrorKind::Full);
    assert_eq!(here.store.users().await.unwrap().len(), 1);
    here.sabotage("PRAGMA max_page_count = 1000000").await;
    here.add("late").await;
}

#[tokio::test]
async fn a_file_that_went_away_is_missed_not_made_anew_and_taken_up_again() {
    let here = Fixture::new();
    here.add("bob").await;
    let moved = here.directory.path().with_extension("away");
    fs::rename(here.directory.path(), &moved).unwrap();
    for _ in 0..2 {
        assert_eq!(kind(&here.store.user(&user("bob")).await.unwrap_err()), StoreErrorKind::Missing);
        assert_eq!(kind(&here.store.add_user(new_user("late")).await.unwrap_err()), StoreErrorKind::Missing);
        assert_eq!(kind(&here.store.data_version().await.unwrap_err()), StoreErrorKind::Missing);
    }
    assert!(!here.path().exists());
    fs::rename(&moved, here.directory.path()).unwrap();
    assert!(here.store.user(&user("bob")).await.unwrap().is_some());
    here.add("late").await;
}

#[tokio::test]
async fn another_file_in_its_place_is_noticed_and_a_damaged_one_refused() {
    let here = Fixture::new();
    here.add("bob").await;
    let before = here.store.data_version().await.unwrap();
    let kept = here.directory.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let put = |from: &Path, to: &Path| {
        for suffix in ["", "-wal", "-shm"] {
            fs::rename(from.join(format!("portcullis.db{suffix}")), to.join(format!("portcullis.db{suffix}"))).unwrap();
        }
    };
    put(here.directory.path(), &kept);
    fs::write(here.path(), "no database at all, but long enough to be looked at ".repeat(200)).unwrap();
    assert_eq!(kind(&here.store.user(&user("bob")).await.unwrap_err()), StoreErrorKind::Corrupt);
    assert_eq!(kind(&here.store.add_user(new_user("late")).await.unwrap_err()), StoreErrorKind::Corrupt);
    fs::write(here.path(), "").unwrap();
    assert!(here.store.user(&user("bob")).await.is_err(), "a cut file is no empty store");
    put(&kept, here.directory.path());
    assert!(here.store.user(&user("bob")).await.unwrap().is_some());
    assert_ne!(here.store.data_version().await.unwrap(), before);
}

#[tokio::test]
async fn a_damaged_page_is_an_outage_and_never_an_unknown_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.db");
    let hand = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    let store = open(&path, &hand).unwrap();
    store.add_users((0..200).map(|number| new_user(&format!("user{number}"))).collect()).await.unwrap();
    store.database().unwrap().read(|db| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).await.unwrap();
    let copy = directory.path().join("copy.db");
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..64].fill(0xa5);
    }
    fs::write(&copy, bytes).unwrap();
    let damaged = open(&copy, &hand).unwrap();
    assert_eq!(kind(&damaged.user(&user("user7")).await.unwrap_err()), StoreErrorKind::Corrupt);
    assert_eq!(kind(&damaged.add_user(new_user("late")).await.unwrap_err()), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_file_from_a_newer_version_is_left_alone() {
    let here = Fixture::new();
    here.sabotage("PRAGMA user_version = 99").await;
    assert_eq!(kind(&open(&here.path(), &here.hand).unwrap_err()), StoreErrorKind::TooNew);
}

#[test]
fn processes_that_start_at_once_make_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.db");
    let hand = ManualClock::at(Timestamp::from_secs(1));
    let starts: Vec<_> = (0..16)
        .map(|_| {
            let (path, hand) = (path.clone(), hand.clone());
            std::thread::spawn(move || open(&path, &hand).map(drop))
        })
        .collect();
    for start in starts {
        start.join().unwrap().unwrap();
    }
}

#[test]
fn a_file_that_can_not_be_opened_is_told_of_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let hand = ManualClock::at(Timestamp::from_secs(1));
    fs::write(directory.path().join("file"), "").unwrap();
    let cases = [
        ("no/such/directory.db", StoreErrorKind::Missing),
        ("file/below.db", StoreErrorKind::Missing),
        ("", StoreErrorKind::Unavailable),
    ];
    for (path, expected) in cases {
        let error = open(&directory.path().join(path), &hand).unwrap_err();
        assert_eq!(kind(&error), expected, "{path:?}: {error}");
        assert!(!error.kind.help().is_empty());
    }
}

#[tokio::test]
async fn a_stuck_thread_and_a_full_queue_hold_nobody_up() {
    let here = Fixture::new();
    let (release, stuck) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = std::sync::mpsc::channel::<()>();
    let store = here.store.clone();
    let holder = tokio::spawn(async move {
        let work = store.database().unwrap().read(move |_| {
            entered.send(()).unwrap();
            let _ = stuck.recv();
            Ok(())
        });
        work.await
    });
    tokio::task::yield_now().await;
    inside.recv().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..1100 {
        let store = here.store.clone();
        waiting.push(tokio::spawn(async move { store.latest_seq().await }));
    }
    while !waiting.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    let error = here.store.latest_seq().await.unwrap_err();
    assert_eq!(kind(&error), StoreErrorKind::Overloaded);
    here.store.end_session("the writer has a thread of its own").await.unwrap();
    release.send(()).unwrap();
    holder.await.unwrap().unwrap();
    let mut answered = 0;
    for question in waiting {
        answered += usize::from(question.await.unwrap().is_ok());
    }
    assert!(answered >= 1024, "as many as may wait, and those that came after");
    assert_eq!(here.store.latest_seq().await.unwrap(), 1);
}

#[tokio::test]
async fn a_question_that_panics_takes_nobody_with_it() {
    let here = Fixture::new();
    let error = here.store.database().unwrap().write::<()>(|_, _| panic!("a bug")).await.unwrap_err();
    assert_eq!(kind(&error), StoreErrorKind::Unavailable);
    here.add("bob").await;
}
