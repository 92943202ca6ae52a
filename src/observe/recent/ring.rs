//! A ring of requests of one kind: numbers in one place, texts in another, each written from front to back and over again.
//!
//! The memory is asked for once, when the first request comes, and what was never written is not there yet.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::people::{self, People};
use super::{Kept, MOST, MOST_BYTES, Reach, SHARDS};
use crate::access::{Asker, Reason, Shown, Source};
use crate::clock::Timestamp;
use crate::identity::Identity;
use crate::message::path::Reading;
use crate::observe::{Record, RequestId};

/// Requests, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    marks: VecDeque<Mark>,
    /// By the number of each request. What is forgotten is not read once more: it is written over.
    slots: Vec<Slot>,
    texts: Vec<u8>,
    /// Where in `texts` the next one's begin.
    at: usize,
    people: People,
    /// How many were remembered and are not any more.
    gone: u64,
    /// Whether one was too large to be remembered at all.
    refuses: bool,
}

/// What a request is found and forgotten by. They lie close together, as all of them are searched.
#[derive(Clone, Copy, Debug)]
struct Mark {
    id: RequestId,
    /// Where its texts begin, in one piece.
    at: u32,
    length: u32,
    /// Who stands behind it, or [`NOBODY`].
    person: u32,
}

/// What is said of a request in words that are the program's, and in numbers.
#[derive(Clone, Copy, Debug)]
struct Slot {
    time: Timestamp,
    decision: &'static str,
    code: &'static str,
    /// Empty where it is among the texts.
    reason: &'static str,
    unproven: Option<Reason>,
    /// Of its texts, in their order.
    lengths: [u32; TEXTS],
    tries: u32,
    client: IpAddr,
    status: StatusCode,
    reading: Option<Reading>,
    shown: Shown,
}

impl Ring {
    /// Remembers a request in place of the oldest ones. One that alone is larger than there is room for drives none of them
    /// out, and is forgotten itself.
    pub(super) fn push(&mut self, record: &Record) {
        let texts = texts(record);
        let (mut lengths, mut length) = ([0; TEXTS], 0);
        for (place, text) in lengths.iter_mut().zip(texts) {
            *place = small(text.len());
            length += text.len();
        }
        let asker = &record.asker;
        let person = match &asker.identity {
            None => Behind::Nobody,
            Some(identity) => match self.people.again(identity, asker) {
                Some(number) => Behind::Known(number),
                None => Behind::New(identity, people::weight(identity, asker)),
            },
        };
        if length > TEXT_BYTES || matches!(person, Behind::New(_, bytes) if bytes > PEOPLE_BYTES) {
            if let Behind::Known(number) = person {
                self.people.leave(number);
            }
            self.refuses = true;
            return;
        }
        self.make_room(length);
        let person = match person {
            Behind::Nobody => NOBODY,
            Behind::Known(number) => number,
            Behind::New(identity, bytes) => {
                while self.people.bytes() + bytes > PEOPLE_BYTES && self.forget() {}
                self.people.add(identity, asker, bytes)
            }
        };
        let (slot, place) = (Slot::of(record, lengths), self.place(self.marks.len()));
        match self.slots.get_mut(place) {
            Some(former) => *former = slot,
            None => self.slots.push(slot),
        }
        self.marks.push_back(Mark { id: record.request_id, at: small(self.at), length: small(length), person });
        let mut rest = &mut self.texts[self.at..self.at + length];
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let (place, behind) = rest.split_at_mut(text.len());
            place.copy_from_slice(text.as_bytes());
            rest = behind;
        }
        self.at += length;
    }

    /// Forgets what stands where a request with so many bytes of text is to be written.
    fn make_room(&mut self, length: usize) {
        if self.texts.is_empty() {
            self.marks.reserve_exact(EACH);
            self.slots.reserve_exact(EACH);
            self.texts = vec![0; TEXT_BYTES];
        }
        if self.marks.len() == EACH {
            self.forget();
        }
        if self.at + length > TEXT_BYTES {
            // Texts stand in one piece, so that the end stays empty.
            while self.marks.front().is_some_and(|oldest| oldest.at as usize >= self.at) && self.forget() {}
            self.at = 0;
        }
        // What stands ahead is of the round before, and there the oldest come first.
        let ahead = self.at..self.at + length;
        while self.marks.front().is_some_and(|oldest| ahead.contains(&(oldest.at as usize))) && self.forget() {}
    }

    /// Forgets the oldest, if there is one.
    fn forget(&mut self) -> bool {
        let Some(Mark { person, .. }) = self.marks.pop_front() else { return false };
        if person != NOBODY {
            self.people.leave(person);
        }
        self.gone += 1;
        true
    }

    /// The request called `id`.
    pub(super) fn find(&self, id: RequestId) -> Option<Kept> {
        let at = self.marks.iter().position(|mark| mark.id == id)?;
        self.kept(at)
    }

    /// At most so many, from the one with this number on, and the number of the first that is left; nothing where none is. What
    /// is forgotten meanwhile is left out.
    pub(super) fn some(&self, next: u64, most: usize) -> Option<(u64, Vec<Kept>)> {
        let from = usize::try_from(next.saturating_sub(self.gone)).ok()?;
        let to = self.marks.len().min(from.saturating_add(most));
        if from >= to {
            return None;
        }
        Some((self.gone + to as u64, (from..to).filter_map(|at| self.kept(at)).collect()))
    }

    /// How far back it reaches.
    pub(super) fn reach(&self) -> Reach {
        let oldest = self.marks.front().and_then(|_| self.slots.get(self.place(0)));
        let since = oldest.map(|slot| slot.time);
        Reach { count: self.marks.len(), since, forgets: self.refuses || self.gone > 0 }
    }

    /// Where in `slots` the one stands that is the `at`th of those remembered.
    fn place(&self, at: usize) -> usize {
        ((self.gone + at as u64) % EACH as u64) as usize
    }

    fn kept(&self, at: usize) -> Option<Kept> {
        let (mark, slot) = (self.marks.get(at)?, self.slots.get(self.place(at))?);
        let from = mark.at as usize;
        let mut rest = self.texts.get(from..from + mark.length as usize).unwrap_or_default();
        let texts = slot.lengths.map(|length| {
            let (text, behind) = rest.split_at_checked(length as usize).unwrap_or_default();
            rest = behind;
            String::from_utf8_lossy(text).into_owned()
        });
        let [method, host, path, reason, route, upstream, server, issuer] = texts;
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        let issuer = named(issuer);
        let (identity, key_routes) = self.people.find(mark.person);
        let source = if issuer.is_none() { Source::Own } else { Source::Unknown };
        let issuer = issuer.map(Into::into);
        Some(Kept {
            request_id: mark.id,
            time: slot.time,
            client: slot.client,
            method: Method::from_bytes(method.as_bytes()).unwrap_or_default(),
            host,
            path,
            status: slot.status,
            route: named(route),
            decision: slot.decision,
            code: slot.code,
            reason: if reason.is_empty() { slot.reason.to_owned() } else { reason },
            reading: slot.reading,
            asker: Asker { identity, shown: slot.shown, source, issuer, key_routes, unproven: slot.unproven },
            upstream: named(upstream),
            server: named(server),
            tries: slot.tries,
        })
    }
}

/// Who stands behind a request that comes.
enum Behind<'a> {
    Nobody,
    Known(u32),
    /// With the bytes that they keep alive.
    New(&'a Arc<Identity>, usize),
}

impl Slot {
    const fn of(record: &Record, lengths: [u32; TEXTS]) -> Self {
        Self {
            time: record.time,
            decision: record.decision,
            code: record.code,
            reason: match record.reason {
                Cow::Borrowed(reason) => reason,
                Cow::Owned(_) => "",
            },
            unproven: record.asker.unproven,
            lengths,
            tries: record.tries,
            client: record.client,
            status: record.status,
            reading: record.reading,
            shown: record.asker.shown,
        }
    }
}

/// What is written down of a request as text. No name is empty, so that an empty one is none.
fn texts(record: &Record) -> [&str; TEXTS] {
    let reason = match &record.reason {
        Cow::Borrowed(_) => "",
        Cow::Owned(reason) => reason,
    };
    [
        record.method.as_str(),
        record.page.host(),
        record.page.path(),
        reason,
        record.route.as_deref().unwrap_or_default(),
        record.upstream.as_deref().unwrap_or_default(),
        record.server.as_deref().unwrap_or_default(),
        record.asker.issuer.as_deref().unwrap_or_default(),
    ]
}

/// A number that is bounded by the sizes below.
pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

const NOBODY: u32 = u32::MAX;

/// Texts of a request.
const TEXTS: usize = 8;

/// Requests of a ring.
pub(super) const EACH: usize = MOST / SHARDS;

/// Bytes of text: some 360 for each request.
pub(super) const TEXT_BYTES: usize = 7 << 17;

/// Bytes that people may keep alive: what is left.
pub(super) const PEOPLE_BYTES: usize =
    MOST_BYTES / SHARDS - TEXT_BYTES - EACH * (size_of::<Mark>() + size_of::<Slot>() + People::EACH) - People::HINTS;

/// Of an ordinary request no more than four lines of a cache are written, its texts included.
const _: () = assert!(size_of::<Mark>() + size_of::<Slot>() <= 176);
