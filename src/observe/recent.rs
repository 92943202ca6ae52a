//! What was decided lately, in bounded memory: behind `portcullis why` and `check --against-recent`.
//!
//! A request is written down as a few numbers and its texts, in memory that is written from front to back and over again, so
//! that keeping one asks for no memory and touches little of it. Refusals have rings of their own: those who ask why ask
//! about them, and traffic that passes must not drive them out.

mod people;
mod ring;

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};

use self::ring::Ring;
use super::{Record, RequestId};
use crate::access::Asker;
use crate::clock::Timestamp;
use crate::message::path::Reading;

/// The requests of late. Nothing in it is secret, and no query is.
#[derive(Debug)]
pub struct Recent(Box<[Mutex<Shard>]>);

/// Requests whose ids end alike, so that workers seldom wait for each other: few, since each is written at a place of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    refused: Ring,
    passed: Ring,
}

/// A request that is remembered: what is told of it, and what it takes to judge it again.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is known by.
    pub request_id: RequestId,
    /// When it came.
    pub time: Timestamp,
    /// The client, after trusted proxies were looked through.
    pub client: IpAddr,
    /// As it was sent.
    pub method: Method,
    /// The one host, or nothing when the request had none.
    pub host: String,
    /// The path as it came, without the query.
    pub path: String,
    /// What was answered.
    pub status: StatusCode,
    /// The route that decided.
    pub route: Option<String>,
    /// As [`Record::decision`].
    pub decision: &'static str,
    /// As [`Record::code`].
    pub code: &'static str,
    /// Why, in the words of the rules.
    pub reason: String,
    /// Under which reading of the path it was refused.
    pub reading: Option<Reading>,
    /// Who asked. The place of an issuer is not kept, as it is another one in the next configuration: its name is.
    pub asker: Asker,
    /// The upstream's name.
    pub upstream: Option<String>,
    /// The address of the server that was asked last.
    pub server: Option<String>,
    /// How often it was sent there and elsewhere.
    pub tries: u32,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// How many requests.
    pub count: usize,
    /// The oldest of them.
    pub since: Option<Timestamp>,
    /// Whether there were older ones.
    pub forgets: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Recent {
    /// Remembers a request, in place of the oldest ones of its kind.
    pub fn keep(&self, record: &Record) {
        let mut shard = lock(&self.0[record.request_id.place(SHARDS)]);
        let ring = if is_refusal(record) { &mut shard.refused } else { &mut shard.passed };
        ring.push(record);
    }

    /// The request called `id`.
    pub fn find(&self, id: &str) -> Option<Kept> {
        let id = RequestId::parse(id)?;
        let shard = lock(&self.0[id.place(SHARDS)]);
        shard.refused.find(id).or_else(|| shard.passed.find(id))
    }

    /// All of them, the oldest first. No worker waits until they are written out.
    pub fn all(&self) -> Vec<Kept> {
        let mut all = Vec::new();
        for shard in &self.0 {
            for kind in [|shard: &Shard| &shard.refused, |shard: &Shard| &shard.passed] as [fn(&Shard) -> &Ring; 2] {
                let mut next = 0;
                loop {
                    let some = kind(&lock(shard)).some(next, AT_ONCE);
                    let Some((after, some)) = some else { break };
                    all.extend(some);
                    next = after;
                }
            }
        }
        all.sort_by_key(|kept| kept.time);
        all
    }

    /// How far back it reaches: of refusals, and of what passed.
    pub fn reach(&self) -> (Reach, Reach) {
        let (mut refused, mut passed) = (Reach::default(), Reach::default());
        for shard in &self.0 {
            let shard = lock(shard);
            refused.add(&shard.refused.reach());
            passed.add(&shard.passed.reach());
        }
        (refused, passed)
    }
}

impl Reach {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.forgets |= other.forgets;
        self.since = self.since.into_iter().chain(other.since).min();
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether someone may come and ask why.
fn is_refusal(record: &Record) -> bool {
    !matches!(record.decision, "permit" | "own") || record.status.is_client_error() || record.status.is_server_error()
}

/// Requests remembered of each kind.
const MOST: usize = 10_000;

/// Bytes that those of each kind may take and keep alive, about.
const MOST_BYTES: usize = 8 << 20;

const SHARDS: usize = 4;

/// Requests that are read while a worker may wait.
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests;
