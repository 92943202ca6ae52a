//! Tokens that were verified lately, so that a signature is checked once and not at every request.
//!
//! The key is the whole token, so that no other text finds its entry; it is hashed by its length and its end, which is its signature:
//! whoever has none can't choose where it is looked for. Only what verified is ever kept, so a flood of bad tokens evicts
//! nothing. Whatever can change is judged after each hit:
//! expiry, key, and after a reload issuer and audience by `recheck`; revocation, account and the route's own demands by the
//! caller. So what is kept outlives a reload.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Known;
use crate::identity::{Profile, UserName};
use crate::metrics::Lookups;
use crate::token::{Verified, foreign};

/// The tokens, in bounded memory.
#[derive(Debug)]
pub(super) struct Seen {
    tokens: Cache<Text, Arc<Entry>, ByWeight, ByEnd>,
    lookups: Arc<Lookups>,
}

/// A token that verified, and whom it came to.
#[derive(Debug)]
pub(super) struct Entry {
    verified: AnyVerified,
    known: ArcSwapOption<Known>,
    name: OnceLock<Option<UserName>>,
    noted: AtomicU64,
    weight: u64,
}

/// A token, which is nobody's to see.
#[derive(Clone, PartialEq, Eq)]
struct Text(Zeroizing<String>);

impl Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(…)")
    }
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<Text, Arc<Entry>> for ByWeight {
    fn weight(&self, token: &Text, entry: &Arc<Entry>) -> u64 {
        entry.weight + token.0.len() as u64
    }
}

/// Hashes the end of a text, with a key of this process.
#[derive(Clone, Debug, Default)]
struct ByEnd(RandomState);

struct EndHasher(DefaultHasher);

impl BuildHasher for ByEnd {
    type Hasher = EndHasher;

    fn build_hasher(&self) -> EndHasher {
        EndHasher(self.0.build_hasher())
    }
}

impl Hasher for EndHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(&bytes[bytes.len().saturating_sub(END)..]);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// Proof that a token holds, ours or another's.
#[derive(Debug)]
pub(super) enum AnyVerified {
    Own(Verified),
    Foreign(foreign::Verified),
}

impl Seen {
    /// None yet; what is looked for is counted in `lookups`.
    pub(super) fn new(lookups: Arc<Lookups>) -> Self {
        Self { tokens: Cache::with(MOST, MOST_BYTES, ByWeight, ByEnd::default(), DefaultLifecycle::default()), lookups }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The entry of `token`.
    pub(super) fn find(&self, token: &[u8]) -> Option<Arc<Entry>> {
        let entry = self.tokens.get(token);
        let counter = if entry.is_some() { &self.lookups.hits } else { &self.lookups.misses };
        counter.count();
        entry
    }

    pub(super) fn keep(&self, token: &str, entry: Arc<Entry>) {
        self.tokens.insert(Text(Zeroizing::new(token.to_owned())), entry);
    }

    pub(super) fn forget(&self, token: &[u8]) {
        self.tokens.remove(token);
    }
}

impl AnyVerified {
    /// About how many bytes it keeps, with whom it comes to: a token of 8 KiB can come to a hundred times that of a small one.
    fn weight(&self) -> u64 {
        let (claims, groups): (_, &[String]) = match self {
            Self::Own(verified) => (verified.claims(), &verified.claims().groups),
            Self::Foreign(verified) => (verified.claims(), &verified.profile().groups),
        };
        let lists = claims.aud.iter().chain(groups).map(String::as_str).chain(claims.scopes());
        // Once as text and once, at worst, as the value of a header.
        let lists: usize = lists.map(|text| TEXT + 2 * text.len()).sum();
        (BASE + members(&claims.all) + lists) as u64
    }
}

fn members(map: &Map<String, Value>) -> usize {
    map.iter().map(|(name, value)| TEXT + name.len() + size(value)).sum()
}

fn size(value: &Value) -> usize {
    VALUE
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => HEAP + text.len(),
            Value::Array(list) => HEAP + list.iter().map(size).sum::<usize>(),
            Value::Object(map) => HEAP + members(map),
        }
}

impl Entry {
    pub(super) fn new(verified: AnyVerified) -> Arc<Self> {
        let weight = verified.weight();
        Arc::new(Self {
            verified,
            known: ArcSwapOption::empty(),
            name: OnceLock::new(),
            noted: AtomicU64::new(0),
            weight,
        })
    }

    pub(super) const fn verified(&self) -> &AnyVerified {
        &self.verified
    }

    /// The account that its subject may be the name of.
    pub(super) fn name(&self) -> Option<&UserName> {
        let subject = match &self.verified {
            AnyVerified::Own(verified) => &verified.claims().sub,
            AnyVerified::Foreign(verified) => &verified.claims().sub,
        };
        self.name.get_or_init(|| UserName::parse(subject)).as_ref()
    }

    /// When its session's use was last noted, in milliseconds.
    pub(super) const fn noted(&self) -> &AtomicU64 {
        &self.noted
    }

    /// Whom the token came to, made anew by `make` when the account has changed since.
    pub(super) fn known(&self, profile: &Arc<Profile>, make: impl FnOnce() -> Known) -> Arc<Known> {
        if let Some(known) = &*self.known.load()
            && Arc::ptr_eq(&known.identity.profile, profile)
        {
            return Arc::clone(known);
        }
        let known = Arc::new(make());
        self.known.store(Some(Arc::clone(&known)));
        known
    }
}

/// Tokens kept, about.
const MOST: usize = 16 * 1024;

/// Bytes kept, about: small tokens come to less than two kilobytes.
const MOST_BYTES: u64 = 32 << 20;

/// How many bytes of a token are hashed: as many as the shortest signature has.
const END: usize = 43;

/// What every entry takes.
const BASE: usize = 512;

/// A JSON value, a block on the heap, and a piece of text, but for what they hold.
const VALUE: usize = size_of::<Value>();
const HEAP: usize = 16;
const TEXT: usize = size_of::<String>() + HEAP;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;
    use crate::config::{Algorithm, KeySource, Tokens};
    use crate::secret::{Random, Secret};
    use crate::token::{KeySet, NewClaims};

    /// A token of someone in `groups` that verified.
    fn entry(groups: usize) -> Arc<Entry> {
        let tokens = Tokens {
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            algorithm: Algorithm::HS256,
            lifetime: std::time::Duration::from_secs(900),
            leeway: std::time::Duration::ZERO,
            max_lifetime: std::time::Duration::from_secs(900),
            keys: KeySource::Shared(vec![Secret::new(vec![7; 32])]),
        };
        let keys = KeySet::new(&tokens, &[], Random::system()).unwrap();
        let (now, groups): (_, Vec<String>) =
            (Timestamp::from_secs(1_800_000_000), (0..groups).map(|number| format!("{number}")).collect());
        let claims = NewClaims {
            subject: "alice",
            now,
            session: Some("0123456789abcdefghijkl"),
            signed_in_at: Some(now),
            methods: &["password".to_owned()],
            groups: &groups,
            scope: "",
            not_after: None,
        };
        let verified = keys.verify(&keys.sign(&claims).unwrap(), now).unwrap();
        assert_eq!(verified.claims().groups.len(), groups.len());
        Entry::new(AnyVerified::Own(verified))
    }

    #[test]
    fn large_tokens_leave_room_for_fewer() {
        for (groups, kept) in [(0, 10_000..16_001), (600, 50..1000)] {
            let (seen, entry) = (Seen::new(Arc::default()), entry(groups));
            for number in 0..16_000 {
                seen.keep(&number.to_string(), Arc::clone(&entry));
            }
            assert!(seen.tokens.weight() <= MOST_BYTES, "{} bytes", seen.tokens.weight());
            assert!(kept.contains(&seen.len()), "{} of {} bytes each", seen.len(), entry.weight);
        }
    }

    #[test]
    fn counts_what_a_value_keeps() {
        assert_eq!(size(&json!(1)), VALUE);
        assert_eq!(size(&json!("four")), VALUE + HEAP + 4);
        assert_eq!(size(&json!(["a", null])), 3 * VALUE + 2 * HEAP + 1);
        assert_eq!(size(&json!({ "name": { "x": true } })), 3 * VALUE + 2 * HEAP + 2 * TEXT + 5);
    }
}
