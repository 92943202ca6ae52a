//! The SQLite file behind the store: one thread that reads, one that writes, and the questions put to them.
//!
//! Nothing blocks the caller's thread: questions go through a bounded channel, answers come back through a oneshot.
//! The SQL stands in one file per kind of record.

pub(super) mod api_keys;
pub(super) mod events;
pub(super) mod file_users;
pub(super) mod keys;
mod link;
pub(super) mod rotation;
mod schema;
pub(super) mod sessions;
pub(super) mod throttle;
pub(super) mod users;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::{DEADLINE, StoreError, StoreErrorKind};
use crate::clock::{Clock, Timestamp};
use link::{Link, Role};

/// Whether what `connection` leads to is a store that this version can read.
pub(super) fn is_ours(connection: &Connection) -> bool {
    schema::check(connection).is_ok()
}

/// Both threads of a store.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    clock: Clock,
    reader: SyncSender<Job>,
    writer: SyncSender<Job>,
}

impl Database {
    /// Opens the file, makes it or brings it up to date, and starts the threads.
    pub(super) fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        let writer = Link::open(path, Role::Writer)?;
        let reader = Link::open(path, Role::Reader)?;
        Ok(Self {
            path: path.to_owned(),
            clock,
            reader: start("store-reader", reader, path)?,
            writer: start("store-writer", writer, path)?,
        })
    }

    /// The wall-clock time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time by which things are forgotten for good.
    pub(super) fn settled(&self) -> Timestamp {
        self.clock.settled()
    }

    /// Asks the reader.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(&self.reader, Role::Reader, move |link| link.with(|connection| question(connection))).await
    }

    /// Has the writer do `change` in one transaction, at the time at which it holds the file.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>, Timestamp) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let clock = self.clock.clone();
        self.ask(&self.writer, Role::Writer, move |link| {
            link.with(|connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let answer = change(&transaction, clock.now())?;
                transaction.commit()?;
                Ok(answer)
            })
        })
        .await
    }

    /// A number that differs when another connection has written; the writer is one.
    pub(super) async fn data_version(&self) -> Result<u64, StoreError> {
        self.ask(&self.reader, Role::Reader, |link| {
            let version = link.with(|connection| {
                connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get::<_, u32>(0))
            })?;
            Ok(u64::from(link.times_opened()) << 32 | u64::from(version))
        })
        .await
    }

    /// Closes both connections, so that the log of changes is written into the file. A later question opens them again.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let close = |link: &mut Link| {
            link.close();
            Ok(())
        };
        self.ask(&self.reader, Role::Reader, close).await?;
        self.ask(&self.writer, Role::Writer, close).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        thread: &SyncSender<Job>,
        role: Role,
        work: impl FnOnce(&mut Link) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let seen = given_up.clone();
        let job: Job = Box::new(move |link| {
            // A change whose caller merely went away is still wanted (a log-out); after the deadline the caller
            // was told that it did not happen.
            if seen.load(Ordering::SeqCst) || (role == Role::Reader && reply.is_closed()) {
                return;
            }
            let _ = reply.send(work(link));
        });
        if thread.try_send(job).is_err() {
            return Err(self.overloaded());
        }
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError { kind: StoreErrorKind::Unavailable, path: self.path.clone(), source: None }),
            Err(_) => {
                given_up.store(true, Ordering::SeqCst);
                Err(self.overloaded())
            }
        }
    }

    fn overloaded(&self) -> StoreError {
        StoreError { kind: StoreErrorKind::Overloaded, path: self.path.clone(), source: None }
    }
}

type Job = Box<dyn FnOnce(&mut Link) + Send>;

fn start(name: &str, link: Link, path: &Path) -> Result<SyncSender<Job>, StoreError> {
    let (sender, receiver) = sync_channel(QUEUE);
    thread::Builder::new().name(name.to_owned()).spawn(move || serve(link, &receiver)).map_err(|error| StoreError {
        kind: StoreErrorKind::Unavailable,
        path: path.to_owned(),
        source: Some(error.into()),
    })?;
    Ok(sender)
}

fn serve(mut link: Link, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        // One question that panics must not take the store away from all others; its caller sees the reply dropped.
        if catch_unwind(AssertUnwindSafe(|| job(&mut link))).is_err() {
            link.close();
            tracing::error!("a question to the store panicked");
        }
    }
}

/// Questions that may wait for one thread. At 5 µs to 5 ms each that is far below the deadline.
const QUEUE: usize = 1024;
