//! Tokens that were verified lately, so that a signature is checked once and not at every request.
//!
//! The key is the SHA-256 of the whole token: no token lies in memory, and no other text finds its entry. Only what
//! verified is ever kept, so a flood of bad tokens evicts nothing. Whatever can change is judged after each hit:
//! expiry, key, and after a reload issuer and audience by `recheck`; revocation, account and the route's own demands by the
//! caller. So what is kept outlives a reload.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;

use super::Known;
use crate::identity::Profile;
use crate::metrics::Lookups;
use crate::session::sha256;
use crate::store::Digest;
use crate::token::{Verified, foreign};

/// The tokens, in bounded memory.
#[derive(Debug)]
pub(super) struct Seen {
    tokens: Cache<Digest, Arc<Entry>>,
    lookups: Arc<Lookups>,
}

/// A token that verified, and whom it came to.
#[derive(Debug)]
pub(super) struct Entry {
    verified: AnyVerified,
    known: ArcSwapOption<Known>,
    noted: AtomicU64,
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
        Self { tokens: Cache::new(MOST), lookups }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The entry of `token`, and the digest that it is kept under.
    pub(super) fn find(&self, token: &str) -> (Digest, Option<Arc<Entry>>) {
        let digest = sha256(token.as_bytes());
        let entry = self.tokens.get(&digest);
        let counter = if entry.is_some() { &self.lookups.hits } else { &self.lookups.misses };
        counter.count();
        (digest, entry)
    }

    pub(super) fn keep(&self, digest: Digest, entry: Arc<Entry>) {
        self.tokens.insert(digest, entry);
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.tokens.remove(digest);
    }
}

impl Entry {
    pub(super) fn new(verified: AnyVerified) -> Arc<Self> {
        Arc::new(Self { verified, known: ArcSwapOption::empty(), noted: AtomicU64::new(0) })
    }

    pub(super) const fn verified(&self) -> &AnyVerified {
        &self.verified
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

/// Tokens kept: some thirty megabytes at most.
const MOST: usize = 16 * 1024;
