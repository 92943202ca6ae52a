//! What was decided lately, in bounded memory: behind `portcullis why` and `check --against-recent`.
//!
//! Kept as the records that access lines are written from, so that keeping one costs a lock and a pointer. Refusals have
//! a ring of their own: those who ask why ask about them, and traffic that passes must not drive them out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::Record;
use crate::clock::Timestamp;
use crate::identity::Identity;

/// The requests of late. Nothing in it is secret, and no query is.
#[derive(Debug)]
pub struct Recent(Box<[Mutex<Shard>]>);

/// Requests whose ids end alike, so that workers seldom wait for each other.
#[derive(Debug, Default)]
struct Shard {
    refused: Ring,
    passed: Ring,
}

#[derive(Debug, Default)]
struct Ring {
    /// Each with the bytes that it was counted as.
    records: VecDeque<(Arc<Record>, usize)>,
    bytes: usize,
    /// Whether anything was ever dropped.
    forgets: bool,
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
    pub fn keep(&self, record: &Arc<Record>) {
        let mut shard = self.shard(&record.request_id);
        let ring = if is_refusal(record) { &mut shard.refused } else { &mut shard.passed };
        ring.push(Arc::clone(record));
    }

    /// The request called `id`.
    pub fn find(&self, id: &str) -> Option<Arc<Record>> {
        let shard = self.shard(id);
        let mut all = shard.refused.records.iter().chain(&shard.passed.records);
        all.find(|(record, _)| *record.request_id == *id).map(|(record, _)| Arc::clone(record))
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<Arc<Record>> {
        let mut all = Vec::new();
        for shard in &self.0 {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.refused.records.iter().chain(&shard.passed.records).map(|(record, _)| Arc::clone(record)));
        }
        all.sort_by_key(|record| record.time);
        all
    }

    /// How far back it reaches: of refusals, and of what passed.
    pub fn reach(&self) -> (Reach, Reach) {
        let (mut refused, mut passed) = (Reach::default(), Reach::default());
        for shard in &self.0 {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            refused.add(&shard.refused);
            passed.add(&shard.passed);
        }
        (refused, passed)
    }

    fn shard(&self, id: &str) -> std::sync::MutexGuard<'_, Shard> {
        let last = id.chars().next_back().and_then(|digit| digit.to_digit(16)).map_or(0, |digit| digit as usize);
        self.0[last % self.0.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, record: Arc<Record>) {
        let before = self.records.back().and_then(|(before, _)| before.asker.identity.as_ref());
        let bytes = weight(&record, before);
        self.bytes += bytes;
        self.records.push_back((record, bytes));
        while self.records.len() > MOST / SHARDS || self.bytes > MOST_BYTES / SHARDS {
            let Some((_, bytes)) = self.records.pop_front() else { return };
            self.bytes -= bytes;
            self.forgets = true;
        }
    }
}

impl Reach {
    fn add(&mut self, ring: &Ring) {
        self.count += ring.records.len();
        self.forgets |= ring.forgets;
        let oldest = ring.records.front().map(|(record, _)| record.time);
        self.since = self.since.into_iter().chain(oldest).min();
    }
}

/// Whether someone may come and ask why.
fn is_refusal(record: &Record) -> bool {
    !matches!(record.decision, "permit" | "own") || record.status.is_client_error() || record.status.is_server_error()
}

/// What a record keeps alive, in bytes, about. Someone who stands behind the record before it too is counted there.
fn weight(record: &Record, before: Option<&Arc<Identity>>) -> usize {
    let texts =
        record.path.len() + record.host.len() + record.reason.len() + record.user.as_ref().map_or(0, String::len);
    let identity = match &record.asker.identity {
        Some(identity) if before.is_none_or(|before| !Arc::ptr_eq(before, identity)) => weight_of(identity),
        _ => 0,
    };
    let spans = record.recording.as_ref().map_or(0, |recording| size_of_val(&**recording));
    size_of::<Record>() + texts + spans + identity
}

fn weight_of(identity: &Identity) -> usize {
    let lists = [&identity.scopes, &identity.methods, &identity.profile.groups];
    let texts: usize = lists.into_iter().flatten().map(|text| size_of::<String>() + text.len()).sum();
    size_of::<Identity>() + texts + weight_of_members(&identity.claims)
}

fn weight_of_members(members: &Map<String, Value>) -> usize {
    members.iter().map(|(name, value)| size_of::<String>() + name.len() + weight_of_value(value)).sum()
}

fn weight_of_value(value: &Value) -> usize {
    let own = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => own,
        Value::String(text) => own + text.len(),
        Value::Array(members) => own + members.iter().map(weight_of_value).sum::<usize>(),
        Value::Object(members) => own + weight_of_members(members),
    }
}

/// Requests remembered of each kind.
const MOST: usize = 10_000;

/// Bytes that those of each kind may keep alive, about.
const MOST_BYTES: usize = 8 << 20;

/// As many as ids have last digits.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::record::blank;
    use super::*;

    fn kept(recent: &Recent, id: usize, decision: &'static str, path: &str) {
        let mut record = blank(format!("{id:08x}").into(), [127, 0, 0, 1].into(), std::time::Instant::now());
        record.time = Timestamp::from_secs(id as u64);
        record.decision = decision;
        record.path = path.to_owned();
        recent.keep(&Arc::new(record));
    }

    #[test]
    fn traffic_that_passes_drives_no_refusal_out() {
        let recent = Recent::default();
        kept(&recent, 7, "deny", "/admin");
        for id in 100..30_100 {
            kept(&recent, id, "permit", "/x");
        }
        assert_eq!(recent.find("00000007").unwrap().path, "/admin");
        assert!(recent.find(&format!("{:08x}", 100)).is_none(), "the oldest that passed");
        assert!(recent.find(&format!("{:08x}", 30_099)).is_some());
        let (refused, passed) = recent.reach();
        assert_eq!(refused, Reach { count: 1, since: Some(Timestamp::from_secs(7)), forgets: false });
        assert_eq!((passed.count, passed.forgets), (MOST, true));
        assert_eq!(passed.since, Some(Timestamp::from_secs(20_100)));
        let all = recent.all();
        assert_eq!(all.len(), MOST + 1);
        assert!(all.is_sorted_by_key(|record| record.time));
    }

    #[test]
    fn long_paths_take_no_more_memory_than_there_is() {
        let recent = Recent::default();
        let long = format!("/{}", "x".repeat(30_000));
        for id in 0..2_000 {
            kept(&recent, id, "deny", &long);
        }
        let (refused, _) = recent.reach();
        assert!(refused.count * long.len() <= MOST_BYTES && refused.count > 100, "{refused:?}");
        assert!(recent.find("nothing").is_none() && recent.find("").is_none());
    }
}
