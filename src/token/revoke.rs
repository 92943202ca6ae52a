//! What was ended before its time: sessions, single tokens, and everything of a user up to a second.
//!
//! One instance is shared by all workers. It is told of events by whoever follows the store, and asked at every request.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::Claims;
use super::verify::AHEAD;
use crate::clock::Timestamp;
use crate::config::Config;

/// How long an event matters: until the last token that was issued before it has expired. A token may say that it was issued a
/// moment ahead, and lives from then. Those of other issuers are revoked here too.
pub fn memory(config: &Config) -> Duration {
    let own = config.tokens.max_lifetime + config.tokens.leeway;
    let others = config.issuers.iter().map(|issuer| issuer.max_lifetime + issuer.leeway);
    others.fold(own, Duration::max) + AHEAD
}

/// Something that ends tokens. Each may be forgotten when the last token it could concern has expired (`until`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A session is over.
    SessionEnded {
        /// Its id.
        sid: &'a str,
        /// When its last token expires.
        until: Timestamp,
    },
    /// One token is over.
    TokenRevoked {
        /// Its id.
        jti: &'a str,
        /// When it expires.
        until: Timestamp,
    },
    /// A user was signed out everywhere, disabled, or changed the password: concerns tokens without a session only, since each session
    /// that existed is ended by its own id.
    UserSignedOut {
        /// Whose name, in any case.
        user: &'a str,
        /// In which second; tokens issued in it or before are over.
        at: Timestamp,
        /// When the last token of that second expires.
        until: Timestamp,
    },
}

/// Why a token that verifies is refused all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its session is over.
    SessionEnded,
    /// It was revoked by its id.
    TokenRevoked,
    /// Its user was signed out after it was issued.
    UserSignedOut,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionEnded => "session ended",
            Self::TokenRevoked => "token revoked",
            Self::UserSignedOut => "user signed out",
        })
    }
}

/// Everything that is revoked and not yet forgotten.
#[derive(Debug)]
pub struct Revocations {
    sessions: Shards<()>,
    tokens: Shards<()>,
    users: Shards<Second>,
}

impl Revocations {
    /// Nothing is revoked yet.
    pub fn new() -> Self {
        Self { sessions: Shards::new(), tokens: Shards::new(), users: Shards::new() }
    }

    /// Takes in an event; the same one again changes nothing. Now and then forgets what ran out, a small part at a time.
    pub fn apply(&self, event: Event<'_>, now: Timestamp) {
        match event {
            Event::SessionEnded { sid, until } => self.sessions.put(&Id::of(sid), (), until, now),
            Event::TokenRevoked { jti, until } => self.tokens.put(&Id::of(jti), (), until, now),
            Event::UserSignedOut { user, at, until } => self.users.put(&Id::of_user(user), second(at), until, now),
        }
    }

    /// Whether a token that says `claims` is over.
    pub fn refuses(&self, claims: &Claims) -> Option<Why> {
        if let Some(jti) = &claims.jti
            && self.tokens.find(|| Id::of(jti)).is_some()
        {
            return Some(Why::TokenRevoked);
        }
        match &claims.sid {
            Some(sid) => self.session_ended(sid).then_some(Why::SessionEnded),
            None => {
                let signed_out = self.users.find(|| Id::of_user(&claims.sub))?;
                (claims.iat <= u64::from(signed_out)).then_some(Why::UserSignedOut)
            }
        }
    }

    /// Whether the session `sid` is known to be over.
    pub fn session_ended(&self, sid: &str) -> bool {
        self.sessions.find(|| Id::of(sid)).is_some()
    }

    /// Forgets what ran out in one small part; called once a second, it comes round in minutes.
    pub fn forget(&self, now: Timestamp) {
        self.sessions.sweep_next(now);
        self.tokens.sweep_next(now);
        self.users.sweep_next(now);
    }

    /// How many entries are kept.
    pub fn len(&self) -> usize {
        [&self.sessions.len, &self.tokens.len, &self.users.len].iter().map(|len| len.load(Ordering::SeqCst)).sum()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

/// Seconds since the epoch; four bytes reach to the year 2106, and what lies later is never forgotten.
type Second = u32;

/// What is known of an id. The later of two values counts.
type Entry<V> = (V, Second);

/// A name, in 16 bytes where it is one of the gateway's own.
enum Id {
    Compact([u8; 16]),
    Text(Box<str>),
}

impl Id {
    fn of(text: &str) -> Self {
        let mut bytes = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) if text.len() == COMPACT_CHARS => Self::Compact(bytes),
            _ => Self::Text(text.into()),
        }
    }

    /// Names of local users are the same in any case, and are never ids.
    fn of_user(name: &str) -> Self {
        Self::Text(name.to_ascii_lowercase().into())
    }
}

/// A map cut into parts with a lock each, so that a change holds up few readers and a sweep is short.
struct Shards<V> {
    parts: Box<[RwLock<Part<V>>]>,
    hasher: RandomState,
    len: AtomicUsize,
    next: AtomicUsize,
}

struct Part<V> {
    compact: HashMap<[u8; 16], Entry<V>>,
    texts: HashMap<Box<str>, Entry<V>>,
    /// At how many entries it is swept again.
    sweep_at: usize,
}

impl<V: Copy + Ord> Shards<V> {
    fn new() -> Self {
        let part = || RwLock::new(Part { compact: HashMap::new(), texts: HashMap::new(), sweep_at: FIRST_SWEEP });
        Self {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    fn put(&self, id: &Id, value: V, until: Timestamp, now: Timestamp) {
        // Rounded up: to forget early would be to let in again.
        let fresh = (value, second(until + Duration::from_millis(999)));
        let mut part = self.part(id).write().unwrap_or_else(PoisonError::into_inner);
        let before = part.len();
        let keep = |entry: &mut Entry<V>| *entry = (entry.0.max(fresh.0), entry.1.max(fresh.1));
        match id {
            Id::Compact(bytes) => part.compact.entry(*bytes).and_modify(keep).or_insert(fresh),
            Id::Text(text) => part.texts.entry(text.clone()).and_modify(keep).or_insert(fresh),
        };
        // Doubling between sweeps makes their cost a constant share of each insertion.
        if part.len() >= part.sweep_at {
            part.sweep(now);
        }
        self.recount(before, part.len());
    }

    /// `id` is made only if there is anything to compare it with.
    fn find(&self, id: impl FnOnce() -> Id) -> Option<V> {
        if self.len.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let id = id();
        let part = self.part(&id).read().unwrap_or_else(PoisonError::into_inner);
        match &id {
            Id::Compact(bytes) => part.compact.get(bytes),
            Id::Text(text) => part.texts.get(text),
        }
        .map(|(value, _)| *value)
    }

    fn sweep_next(&self, now: Timestamp) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % PARTS;
        let mut part = self.parts[index].write().unwrap_or_else(PoisonError::into_inner);
        let before = part.len();
        part.sweep(now);
        self.recount(before, part.len());
    }

    fn part(&self, id: &Id) -> &RwLock<Part<V>> {
        fn index(hasher: &RandomState, id: impl Hash) -> usize {
            #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
            let hash = hasher.hash_one(id) as usize;
            hash % PARTS
        }
        let index = match id {
            Id::Compact(bytes) => index(&self.hasher, bytes),
            Id::Text(text) => index(&self.hasher, text),
        };
        &self.parts[index]
    }

    /// Called with the part's lock held, so that the sum never misses an entry that can be found.
    fn recount(&self, before: usize, after: usize) {
        if after >= before {
            self.len.fetch_add(after - before, Ordering::SeqCst);
        } else {
            self.len.fetch_sub(before - after, Ordering::SeqCst);
        }
    }
}

impl<V> fmt::Debug for Shards<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<V> Part<V> {
    fn len(&self) -> usize {
        self.compact.len() + self.texts.len()
    }

    fn sweep(&mut self, now: Timestamp) {
        let now = second(now);
        self.compact.retain(|_, (_, until)| *until > now);
        self.texts.retain(|_, (_, until)| *until > now);
        self.sweep_at = (self.len() * 2).max(FIRST_SWEEP);
        if self.compact.capacity() > 4 * self.sweep_at {
            self.compact.shrink_to(self.sweep_at);
        }
        if self.texts.capacity() > 4 * self.sweep_at {
            self.texts.shrink_to(self.sweep_at);
        }
    }
}

fn second(moment: Timestamp) -> Second {
    Second::try_from(moment.as_secs()).unwrap_or(Second::MAX)
}

/// 16 bytes as unpadded base64url.
const COMPACT_CHARS: usize = 22;

const PARTS: usize = 256;

/// Below this a part is not worth sweeping.
const FIRST_SWEEP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    fn claims(sub: &str, sid: Option<&str>, jti: Option<&str>, iat: u64) -> Claims {
        Claims {
            iss: "i".to_owned(),
            sub: sub.to_owned(),
            aud: vec!["a".to_owned()],
            iat,
            exp: iat + 900,
            jti: jti.map(str::to_owned),
            sid: sid.map(str::to_owned),
            auth_time: None,
            amr: Vec::new(),
            groups: Vec::new(),
            scope: String::new(),
            all: Default::default(),
        }
    }

    #[test]
    fn an_ended_session_takes_all_its_tokens_with_it_and_no_other() {
        // A name of 16 bytes, one that only looks like it, one minted elsewhere.
        for sid in ["AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "a-session-from-elsewhere", ""] {
            let revocations = Revocations::new();
            revocations.apply(Event::SessionEnded { sid, until: at(NOW + 60) }, at(NOW));
            assert_eq!(revocations.refuses(&claims("a", Some(sid), Some("j"), NOW)), Some(Why::SessionEnded), "{sid}");
            assert!(revocations.session_ended(sid));
            for other in ["AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAA", "other"] {
                assert_eq!(revocations.refuses(&claims("a", Some(other), None, NOW)), None);
            }
            // An id of one kind is not an id of another.
            assert_eq!(revocations.refuses(&claims(sid, Some("other"), Some(sid), NOW)), None);
        }
    }

    #[test]
    fn a_signed_out_user_loses_tokens_without_a_session_up_to_that_second() {
        let revocations = Revocations::new();
        let out = |user, second| Event::UserSignedOut { user, at: at(second), until: at(NOW + 900) };
        revocations.apply(out("Alice", NOW), at(NOW));
        for (sub, sid, iat, refused) in [
            ("alice", None, NOW - 1, true),
            ("alice", None, NOW, true),
            ("ALICE", None, NOW, true),
            ("alice", None, NOW + 1, false),
            ("alice", Some("s"), NOW - 1, false),
            ("bob", None, NOW - 1, false),
        ] {
            let expected = refused.then_some(Why::UserSignedOut);
            assert_eq!(revocations.refuses(&claims(sub, sid, None, iat)), expected, "{sub} {sid:?} {iat}");
        }
        // An older event that arrives late changes nothing.
        revocations.apply(out("alice", NOW - 100), at(NOW));
        assert_eq!(revocations.refuses(&claims("alice", None, None, NOW)), Some(Why::UserSignedOut));
        assert_eq!(revocations.len(), 1);
    }

    #[test]
    fn nothing_is_forgotten_before_its_time_and_everything_after() {
        let revocations = Revocations::new();
        let jti = |n: u64| URL_SAFE_NO_PAD.encode([n.to_be_bytes(), [7; 8]].concat());
        for n in 0..20_000 {
            let until = Timestamp::from_millis((NOW + 10) * 1000 + 1 + (n % 2) * 100_000);
            revocations.apply(Event::TokenRevoked { jti: &jti(n), until }, at(NOW));
        }
        assert_eq!(revocations.len(), 20_000);
        let round = |second| (0..PARTS).for_each(|_| revocations.forget(at(second)));
        round(NOW + 10);
        assert_eq!(revocations.len(), 20_000);
        round(NOW + 11);
        assert_eq!(revocations.len(), 10_000);
        assert_eq!(revocations.refuses(&claims("a", None, Some(&jti(0)), NOW)), None);
        assert_eq!(revocations.refuses(&claims("a", None, Some(&jti(1)), NOW)), Some(Why::TokenRevoked));
        round(NOW + 200);
        assert!(revocations.is_empty());
    }

    #[test]
    fn insertions_alone_keep_the_size_near_what_is_alive() {
        let revocations = Revocations::new();
        for n in 0..200_000_u64 {
            let sid = URL_SAFE_NO_PAD.encode([n.to_be_bytes(), [9; 8]].concat());
            // A thousand are alive at any time.
            revocations.apply(Event::SessionEnded { sid: &sid, until: at(n + 1000) }, at(n));
        }
        assert!(revocations.len() < PARTS * FIRST_SWEEP * 2, "{}", revocations.len());
    }

    #[test]
    fn readers_see_what_another_thread_has_ended() {
        let revocations = Revocations::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let revocations = &revocations;
                scope.spawn(move || {
                    for n in 0..500 {
                        let sid = format!("{thread}-{n}");
                        revocations.apply(Event::SessionEnded { sid: &sid, until: at(NOW + 60) }, at(NOW));
                        assert!(revocations.session_ended(&sid));
                    }
                });
            }
        });
        assert_eq!(revocations.len(), 2000);
    }
}
