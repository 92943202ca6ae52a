//! Names and passwords that come with every request (`Authorization: Basic`, RFC 7617), verified once and remembered
//! for a short time.
//!
//! What is kept is a digest under a key that this process made up, never the password. It counts for the network that it
//! was verified from and for the account as it was then: any event on the account, a new password among them, makes
//! it worth nothing. A few wrong guesses from that network do the same, so that nobody who is being slowed down by the
//! throttle can go on guessing against what is remembered.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::{Account, Accounts, Asked, Failure, SignIn};
use crate::identity::UserName;
use crate::secret::{Random, Secret};
use crate::store::Digest;

/// Judges what comes by Basic.
#[derive(Debug)]
pub struct Basic {
    sign_in: Arc<SignIn>,
    accounts: Arc<Accounts>,
    key: hmac::Key,
    remembered: Cache<(UserName, IpAddr), Arc<Remembered>>,
    flights: Mutex<Flights>,
}

/// Questions under way, each with the lock that the same question waits for.
type Flights = HashMap<Digest, Arc<tokio::sync::Mutex<()>>>;

/// A name and password that were verified.
#[derive(Debug)]
pub struct Remembered {
    /// The account as it was then, and is still.
    pub account: Arc<Account>,
    digest: Secret<Digest>,
    until: Instant,
    misses: AtomicU32,
}

/// What a name and password came to.
#[derive(Debug)]
pub struct Verified {
    /// Whose they are.
    pub found: Arc<Remembered>,
    /// Whether the password was hashed for this very request, and not remembered.
    pub is_sign_in: bool,
}

impl Basic {
    /// A judge who asks `sign_in` and remembers under a key of its own.
    pub fn new(sign_in: Arc<SignIn>, accounts: Arc<Accounts>, random: &Random) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random.bytes::<32>());
        Self { sign_in, accounts, key, remembered: Cache::new(MOST), flights: Mutex::default() }
    }

    /// The account behind a name and its password.
    ///
    /// The same question asked by several requests at once is answered by one hashing, if the answer is yes.
    ///
    /// # Errors
    /// As [`SignIn::verify`].
    pub async fn verify(
        &self,
        typed: &str,
        password: &Secret<String>,
        client: IpAddr,
        instant: Instant,
    ) -> Result<Verified, Failure> {
        let name = UserName::parse(typed);
        let place = name.as_ref().map(|name| (name.clone(), network(client)));
        if let Some(found) = self.recall(place.as_ref(), password, instant).await? {
            return Ok(Verified { found, is_sign_in: false });
        }
        let question = self.digest(name.as_ref().map_or(typed, UserName::as_str), password, 0);
        let flight = Flight { flights: &self.flights, question, lock: self.lock_of(question) };
        let _turn = flight.lock.lock().await;
        if let Some(found) = self.recall(place.as_ref(), password, instant).await? {
            return Ok(Verified { found, is_sign_in: false });
        }
        let asked = Asked { typed, password, client, browser: None, browser_from_now: None };
        let user = self.sign_in.verify(asked).await?;
        let account = self.accounts.find(&user.name).await.map_err(Failure::Store)?;
        let as_verified =
            |account: &Arc<Account>| !account.disabled && account.password_version == user.password_version;
        let Some(account) = account.filter(as_verified) else {
            return Err(Failure::Wrong { user: Some(user.name), reason: "the account has changed meanwhile" });
        };
        let digest = Secret::new(self.digest(user.name.as_str(), password, user.password_version));
        let until = instant + REMEMBERED_FOR;
        let entry = Remembered { account, digest, until, misses: AtomicU32::new(0) };
        let entry = Arc::new(entry);
        if let Some(place) = place {
            self.remembered.insert(place, Arc::clone(&entry));
        }
        Ok(Verified { found: entry, is_sign_in: true })
    }

    /// What is remembered of this name and password, if it still counts. Asks nothing of the store for a name that
    /// was not verified from here, so that the time tells nothing of accounts.
    async fn recall(
        &self,
        place: Option<&(UserName, IpAddr)>,
        password: &Secret<String>,
        instant: Instant,
    ) -> Result<Option<Arc<Remembered>>, Failure> {
        let Some((place, entry)) = place.and_then(|place| Some((place, self.remembered.get(place)?))) else {
            return Ok(None);
        };
        if instant >= entry.until {
            return Ok(None);
        }
        if !entry.digest.is(&self.digest(place.0.as_str(), password, entry.account.password_version)) {
            if entry.misses.fetch_add(1, Ordering::SeqCst) + 1 >= MOST_MISSES {
                self.remembered.remove(place);
            }
            return Ok(None);
        }
        // Every event on an account has it read anew, which makes another one in memory.
        let account = self.accounts.find(&place.0).await.map_err(Failure::Store)?;
        let is_as_it_was = account.is_some_and(|account| Arc::ptr_eq(&account, &entry.account) && !account.disabled);
        Ok(is_as_it_was.then_some(entry))
    }

    fn digest(&self, name: &str, password: &Secret<String>, password_version: u64) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&password_version.to_be_bytes());
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password.expose().as_bytes());
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn lock_of(&self, question: Digest) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(flights(&self.flights).entry(question).or_default())
    }
}

/// A question under way; the last one to ask it forgets its lock.
struct Flight<'a> {
    flights: &'a Mutex<Flights>,
    question: Digest,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = flights(self.flights);
        // Held by the table and by this one: nobody else can come by it while the table is locked.
        if Arc::strong_count(&self.lock) == 2 {
            flights.remove(&self.question);
        }
    }
}

fn flights(flights: &Mutex<Flights>) -> MutexGuard<'_, Flights> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The networks that the throttle counts: an IPv4 address, or the /64 around an IPv6 address.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// How long a verified password is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(5 * 60);

/// Wrong passwords after which the right one must be verified anew: as many as cost a network nothing.
const MOST_MISSES: u32 = 10;

/// Passwords remembered: a few megabytes at most.
const MOST: usize = 16 * 1024;

#[cfg(test)]
mod tests;
