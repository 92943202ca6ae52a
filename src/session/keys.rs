//! The keys that the store keeps: made when there are none, read anew when they change or the configuration does, removed when
//! they verify nothing any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, KeySource, Tokens};
use crate::secret::Random;
use crate::store::{KeyRecord, KeyUse, Lives, Store, StoreError};
use crate::token::{
    self, ASSERTION_ALGORITHM, ASSERTION_LIFETIME, Assertions, KeyError, KeySet, Keyring, Signs, StoredKey,
};

/// Fills the [`Keyring`] from configuration and store, and keeps it true.
#[derive(Debug)]
pub struct OwnKeys {
    store: Store,
    clock: Clock,
    random: Random,
    held: ArcSwap<Held>,
}

/// The keys of one configuration, and what it says of them.
#[derive(Debug)]
struct Held {
    tokens: Tokens,
    asserts: bool,
    ring: Arc<Keyring>,
}

/// Keys that are ready for another configuration and not in force yet.
#[derive(Debug)]
pub struct NextKeys {
    held: Arc<Held>,
    are_new: bool,
}

impl NextKeys {
    /// The keys.
    pub fn ring(&self) -> &Arc<Keyring> {
        &self.held.ring
    }
}

impl OwnKeys {
    /// The keys that `config` names, and those that it leaves to the store, which are made where there are none.
    ///
    /// # Errors
    /// When the store gives no answer, or a key is not what its algorithm needs.
    pub async fn open(config: &Config, store: Store, clock: Clock, random: Random) -> Result<Self, KeysError> {
        let asserts = asserts(config);
        let source = Source { store: &store, clock: &clock, random: &random, tokens: &config.tokens };
        let tokens = source.tokens().await?;
        let assertions = if asserts { Some(Assertions::new(source.assertions().await?)) } else { None };
        let ring = Arc::new(Keyring::new(tokens, assertions));
        let held = ArcSwap::from_pointee(Held { tokens: config.tokens.clone(), asserts, ring });
        Ok(Self { store, clock, random, held })
    }

    /// The keys in force.
    pub fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.held.load().ring)
    }

    /// The keys that `config` asks for: those in force where it asks for the same ones.
    ///
    /// # Errors
    /// As [`OwnKeys::open`]; what is in force stays so.
    pub async fn next(&self, config: &Config) -> Result<NextKeys, KeysError> {
        let (held, asserts) = (self.held.load_full(), asserts(config));
        if held.tokens == config.tokens && held.asserts == asserts {
            return Ok(NextKeys { held, are_new: false });
        }
        let (tokens, assertions) = self.read(&config.tokens, asserts).await?;
        let ring = Arc::new(held.ring.succeeded_by(tokens, assertions));
        Ok(NextKeys { held: Arc::new(Held { tokens: config.tokens.clone(), asserts, ring }), are_new: true })
    }

    /// Puts `next` in force; `true`: [`OwnKeys::reload`] is due, since the store's keys may have changed after they were read.
    #[must_use]
    pub fn adopt(&self, next: NextKeys) -> bool {
        let is_due = next.are_new && (next.held.asserts || matches!(next.held.tokens.keys, KeySource::Store));
        self.held.store(next.held);
        is_due
    }

    /// Takes in what has changed in the store. What can't be read leaves everything as it is.
    ///
    /// # Errors
    /// When the store gives no answer: it is to be asked again.
    pub async fn reload(&self) -> Result<(), StoreError> {
        // A ring that is replaced meanwhile takes them in to no effect, and its successor is read anew by whoever replaces it.
        let held = self.held.load_full();
        match self.read(&held.tokens, held.asserts).await {
            Ok((tokens, assertions)) => {
                held.ring.replace(tokens, assertions);
                tracing::info!(signing = held.ring.load().signing_key_id(self.clock.now()), "keys read anew");
                Ok(())
            }
            Err(KeysError::Store(error)) => Err(error),
            Err(KeysError::Key(error)) => {
                tracing::error!(%error, "a key in the store can't be used: the former ones stay in force");
                Ok(())
            }
        }
    }

    /// Removes keys whose last token has expired.
    ///
    /// # Errors
    /// When the store gives no answer.
    pub async fn clean(&self) -> Result<(), StoreError> {
        let held = self.held.load_full();
        let mut gone = self.store.clean_keys(KeyUse::Assertions, ASSERTIONS_LIVE).await?;
        if matches!(held.tokens.keys, KeySource::Store) {
            gone += self.store.clean_keys(KeyUse::Tokens, tokens_live(&held.tokens)).await?;
        }
        if gone > 0 {
            tracing::info!(gone, "retired keys removed: their last tokens have expired");
        }
        Ok(())
    }

    async fn read(&self, tokens: &Tokens, asserts: bool) -> Result<(KeySet, Option<KeySet>), KeysError> {
        let source = Source { store: &self.store, clock: &self.clock, random: &self.random, tokens };
        let assertions = if asserts { Some(source.assertions().await?) } else { None };
        Ok((source.tokens().await?, assertions))
    }
}

/// Whether any application is sent assertions.
fn asserts(config: &Config) -> bool {
    config.routes.iter().any(|route| route.identity.assertion.is_some())
}

/// How long own tokens are good for.
pub fn tokens_live(tokens: &Tokens) -> Lives {
    Lives { at_most: tokens.max_lifetime, leeway: tokens.leeway }
}

/// How long assertions are good for.
pub const ASSERTIONS_LIVE: Lives = Lives { at_most: ASSERTION_LIFETIME, leeway: Duration::ZERO };

/// Those of `records` that own tokens are signed and verified with, the newest first.
pub fn token_keys(records: Vec<KeyRecord>, tokens: &Tokens) -> Vec<StoredKey> {
    let of_tokens = records.into_iter().rev().filter(|key| key.purpose == KeyUse::Tokens);
    of_tokens.map(|key| stored(key, tokens_live(tokens))).collect()
}

/// The keys of a gateway without a store. It has no accounts, so that no token of its own is good: the one key here is made for
/// this process, signs nothing and is told to nobody.
///
/// # Errors
/// When the cryptographic library can't make one.
pub fn nobodys(tokens: &Tokens, now: Timestamp, random: &Random) -> Result<KeySet, KeyError> {
    let terms = Tokens { algorithm: ASSERTION_ALGORITHM, keys: KeySource::Store, ..tokens.clone() };
    let key = stored(fresh(KeyUse::Tokens, &terms, now, random)?, tokens_live(&terms));
    KeySet::new(&terms, &[key], random.clone())
}

/// A key of `purpose` that is not in the store yet.
///
/// # Errors
/// When the cryptographic library can't make one.
pub fn fresh(purpose: KeyUse, tokens: &Tokens, now: Timestamp, random: &Random) -> Result<KeyRecord, KeyError> {
    let (algorithm, lifetime) = match purpose {
        KeyUse::Tokens => (tokens.algorithm, tokens.lifetime),
        KeyUse::Assertions => (ASSERTION_ALGORITHM, ASSERTION_LIFETIME),
    };
    let made = token::generate(algorithm, random)?;
    Ok(KeyRecord {
        purpose,
        kid: made.kid,
        algorithm,
        private: made.material,
        created_at: now,
        not_before: now,
        retired_at: None,
        lifetime: Some(lifetime),
    })
}

/// Why there are no keys.
#[derive(Debug)]
pub enum KeysError {
    /// The store gives no answer.
    Store(StoreError),
    /// A key is not what its algorithm needs.
    Key(KeyError),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(source) => source.fmt(f),
            Self::Key(source) => source.fmt(f),
        }
    }
}

impl std::error::Error for KeysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(source) => Some(source),
            Self::Key(source) => Some(source),
        }
    }
}

impl From<StoreError> for KeysError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeyError> for KeysError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

/// Where keys are read from.
struct Source<'a> {
    store: &'a Store,
    clock: &'a Clock,
    random: &'a Random,
    tokens: &'a Tokens,
}

impl Source<'_> {
    async fn tokens(&self) -> Result<KeySet, KeysError> {
        if self.store.is_none() {
            return Ok(nobodys(self.tokens, self.clock.now(), self.random)?);
        }
        let stored = match self.tokens.keys {
            KeySource::Store => self.stored(KeyUse::Tokens, self.tokens, tokens_live(self.tokens)).await?,
            KeySource::Shared(_) | KeySource::Pem(_) => Vec::new(),
        };
        Ok(KeySet::new(self.tokens, &stored, self.random.clone())?)
    }

    async fn assertions(&self) -> Result<KeySet, KeysError> {
        let terms = Tokens {
            algorithm: ASSERTION_ALGORITHM,
            lifetime: ASSERTION_LIFETIME,
            keys: KeySource::Store,
            ..self.tokens.clone()
        };
        let stored = self.stored(KeyUse::Assertions, &terms, ASSERTIONS_LIVE).await?;
        Ok(KeySet::new(&terms, &stored, self.random.clone())?)
    }

    /// The keys of `purpose`, the newest first. Tokens of a former algorithm's keys verify until those are retired.
    async fn stored(&self, purpose: KeyUse, terms: &Tokens, lives: Lives) -> Result<Vec<StoredKey>, KeysError> {
        let of = |records: Vec<KeyRecord>| records.into_iter().filter(|key| key.purpose == purpose).collect::<Vec<_>>();
        let mut records = of(self.store.signing_keys().await?);
        let can_sign = |key: &KeyRecord| key.algorithm == terms.algorithm && key.retired_at.is_none();
        if !records.iter().any(can_sign) {
            let key = fresh(purpose, terms, self.clock.now(), self.random)?;
            self.store.first_signing_key(key).await?;
            records = of(self.store.signing_keys().await?);
        }
        // Noted before anything is signed that lives so long: a key is gone only when the last of it has expired.
        let now = self.clock.now();
        let is_noted = |key: &KeyRecord| {
            key.retired_at.is_some_and(|retired| retired <= now)
                || key.lifetime.is_none_or(|lifetime| lifetime >= terms.lifetime)
        };
        if !records.iter().all(is_noted) {
            self.store.note_key_lifetime(purpose, terms.lifetime).await?;
        }
        Ok(records.into_iter().rev().map(|key| stored(key, lives)).collect())
    }
}

fn stored(key: KeyRecord, lives: Lives) -> StoredKey {
    let signs = match () {
        () if !key.ever_signs() => Signs::Never,
        () if key.not_before <= key.created_at => Signs::AtOnce,
        () => Signs::From(key.not_before),
    };
    let until = key.until(lives);
    StoredKey { kid: key.kid, algorithm: key.algorithm, material: key.private, signs, until }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config;
    use crate::config::Algorithm;
    use crate::store::Retired;
    use crate::token::NewClaims;

    struct Fixture {
        time: ManualClock,
        store: Store,
        keys: OwnKeys,
        _directory: TempDir,
    }

    impl Fixture {
        async fn new(more: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let text = format!(
                "{more}\n[upstreams]\napp = \"http://127.0.0.1:1\"\n\
                 [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n"
            );
            let loaded = config::load_text(&directory.path().join("gateway.toml"), text, &|_| None);
            let config = loaded.config.unwrap();
            let time = ManualClock::at(Timestamp::from_secs(1_700_000_000));
            let (clock, random) = (Clock::manual(&time), Random::system());
            let store = Store::open(&config.store, clock.clone(), random.clone()).unwrap();
            let keys = OwnKeys::open(&config, store.clone(), clock, random).await.unwrap();
            Self { time, store, keys, _directory: directory }
        }

        fn now(&self) -> Timestamp {
            self.keys.clock.now()
        }

        async fn rotate(&self, purpose: KeyUse, publish_first: u64) -> String {
            let key = fresh(purpose, &self.keys.held.load().tokens, self.now(), &self.keys.random).unwrap();
            let (key, _) = self.store.rotate_keys(key, Duration::from_secs(publish_first)).await.unwrap();
            self.keys.reload().await.unwrap();
            key.kid
        }

        fn token(&self) -> String {
            let claims = NewClaims {
                subject: "alice",
                now: self.now(),
                session: None,
                signed_in_at: None,
                methods: &[],
                groups: &[],
                scope: "",
                not_after: None,
            };
            self.keys.ring().sign(&claims).unwrap()
        }

        fn signer(&self) -> String {
            self.keys.ring().verify(&self.token(), self.now()).unwrap().key_id().to_string()
        }

        fn published(&self) -> usize {
            self.keys.ring().verification_keys(self.now())["keys"].as_array().unwrap().len()
        }
    }

    #[tokio::test]
    async fn a_rotated_key_goes_when_its_last_token_has_expired() {
        let here = Fixture::new("").await;
        let (first, early) = (here.signer(), here.token());
        let second = here.rotate(KeyUse::Tokens, 600).await;
        assert_eq!((here.signer(), here.published()), (first.clone(), 2));
        here.time.advance(Duration::from_secs(599));
        let late = here.token();
        assert_eq!(here.signer(), first);
        here.time.advance(Duration::from_secs(1));
        assert_eq!(here.signer(), second);
        here.keys.clean().await.unwrap();
        here.time.advance(Duration::from_secs(898));
        assert!(here.keys.ring().verify(&late, here.now()).is_ok());
        assert!(here.keys.ring().verify(&early, here.now()).is_err());
        here.time.advance(Duration::from_secs(3));
        assert_eq!(here.published(), 1, "also before it is cleaned");
        assert_eq!(here.store.signing_keys().await.unwrap().len(), 2);
        here.keys.clean().await.unwrap();
        let left = here.store.signing_keys().await.unwrap();
        assert_eq!(left.iter().map(|key| &key.kid).collect::<Vec<_>>(), [&second]);
        let (events, _) = here.store.events_after(0, 10).await.unwrap();
        assert_eq!(events.len(), 3, "made, rotated, cleaned: {events:?}");
    }

    /// Lets the configuration say another lifetime, as after a restart.
    async fn restarted(here: &mut Fixture, lifetime: u64) {
        let tokens = Tokens { lifetime: Duration::from_secs(lifetime), ..here.keys.held.load().tokens.clone() };
        let (store, clock, random) = (here.store.clone(), here.keys.clock.clone(), Random::system());
        let source = Source { store: &store, clock: &clock, random: &random, tokens: &tokens };
        let ring = Arc::new(Keyring::new(source.tokens().await.unwrap(), None));
        let held = ArcSwap::from_pointee(Held { tokens, asserts: false, ring });
        here.keys = OwnKeys { store, clock: clock.clone(), random: random.clone(), held };
    }

    #[tokio::test]
    async fn a_key_lasts_as_long_as_the_longest_that_it_has_signed_whatever_is_configured_now() {
        let mut here = Fixture::new("").await;
        restarted(&mut here, 3600).await;
        let (first, long) = (here.signer(), here.token());
        restarted(&mut here, 60).await;
        let second = here.rotate(KeyUse::Tokens, 0).await;
        assert_ne!(first, second);
        here.time.advance(Duration::from_secs(3599));
        here.keys.clean().await.unwrap();
        here.keys.reload().await.unwrap();
        assert!(here.keys.ring().verify(&long, here.now()).is_ok(), "to its last second");
        // The second has only ever signed for a minute.
        here.rotate(KeyUse::Tokens, 0).await;
        here.time.advance(Duration::from_secs(61));
        here.keys.clean().await.unwrap();
        let left = here.store.signing_keys().await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[tokio::test]
    async fn of_a_key_that_does_not_say_the_longest_is_believed() {
        let here = Fixture::new("[tokens]\nmax_lifetime = \"2h\"").await;
        let key = fresh(KeyUse::Tokens, &here.keys.held.load().tokens, here.now(), &here.keys.random).unwrap();
        let old = KeyRecord { lifetime: None, ..key };
        here.store.add_signing_key(old.clone()).await.unwrap();
        here.store.note_key_lifetime(KeyUse::Tokens, Duration::from_secs(60)).await.unwrap();
        here.rotate(KeyUse::Tokens, 0).await;
        here.time.advance(Duration::from_secs(7199));
        here.keys.clean().await.unwrap();
        let has = |keys: Vec<KeyRecord>| keys.iter().any(|key| key.kid == old.kid);
        assert!(has(here.store.signing_keys().await.unwrap()));
        here.time.advance(Duration::from_secs(2));
        here.keys.clean().await.unwrap();
        assert!(!has(here.store.signing_keys().await.unwrap()));
    }

    #[tokio::test]
    async fn a_retired_key_is_gone_at_once_and_never_the_one_that_signs() {
        let here = Fixture::new("").await;
        let (first, early) = (here.signer(), here.token());
        let retire = async |kid: &str| here.store.retire_key(kid, Algorithm::ES256).await.unwrap();
        assert_eq!(retire(&first).await, Retired::Signing);
        assert_eq!(retire("nothing").await, Retired::Unknown);
        let waiting = here.rotate(KeyUse::Tokens, 600).await;
        assert_eq!(retire(&first).await, Retired::Signing, "the other one waits");
        assert_eq!(retire(&waiting).await, Retired::Signing, "nobody would sign after its time");
        here.time.advance(Duration::from_secs(600));
        assert!(!here.keys.ring().was_withdrawn(&first, here.now()));
        assert!(matches!(retire(&first).await, Retired::Gone(_)));
        here.keys.reload().await.unwrap();
        assert!(here.keys.ring().verify(&early, here.now()).is_err());
        assert!(here.keys.ring().was_withdrawn(&first, here.now()));
        assert_eq!((here.signer(), here.published()), (waiting.clone(), 1));
        assert_eq!(retire(&waiting).await, Retired::Signing);
        // One that goes in its time was not withdrawn.
        let third = here.rotate(KeyUse::Tokens, 0).await;
        here.time.advance(Duration::from_secs(901));
        here.keys.clean().await.unwrap();
        here.keys.reload().await.unwrap();
        assert_eq!((here.signer(), here.published()), (third, 1));
        assert!(!here.keys.ring().was_withdrawn(&waiting, here.now()));
    }

    #[tokio::test]
    async fn who_waits_for_its_time_and_is_replaced_never_signs() {
        let here = Fixture::new("").await;
        let first = here.signer();
        let skipped = here.rotate(KeyUse::Tokens, 600).await;
        here.time.advance(Duration::from_secs(1));
        let third = here.rotate(KeyUse::Tokens, 300).await;
        assert_eq!(here.signer(), first);
        here.time.advance(Duration::from_secs(300));
        assert_eq!(here.signer(), third);
        here.time.advance(Duration::from_secs(300));
        assert_eq!(here.signer(), third, "and not {skipped}");
        let fourth = here.rotate(KeyUse::Tokens, 0).await;
        assert_eq!(here.signer(), fourth);
        here.time.set_wall(Timestamp::from_secs(1_699_990_000));
        assert_eq!(here.signer(), fourth, "whatever the clock says");
        here.keys.reload().await.unwrap();
        assert_eq!(here.signer(), fourth);
    }

    #[tokio::test]
    async fn keys_of_assertions_are_others_and_only_made_where_they_are_used() {
        let here = Fixture::new("").await;
        assert!(here.keys.ring().assertions().is_none());
        assert_eq!(here.store.signing_keys().await.unwrap().len(), 1);
        let here = Fixture::new("[identity]\nassertion = \"X-Assertion\"").await;
        let keys = here.store.signing_keys().await.unwrap();
        assert_eq!(keys.iter().filter(|key| key.purpose == KeyUse::Assertions).count(), 1);
        let signer = here.signer();
        let next = here.rotate(KeyUse::Assertions, 0).await;
        assert_eq!(here.signer(), signer, "own tokens have nothing to do with it");
        assert_ne!(signer, next);
        assert_eq!(here.published(), 3);
        here.time.advance(Duration::from_secs(301));
        here.keys.clean().await.unwrap();
        here.keys.reload().await.unwrap();
        assert_eq!(here.published(), 2);
    }

    #[tokio::test]
    async fn another_configuration_has_keys_of_its_own_and_the_same_one_those_in_force() {
        let here = Fixture::new("").await;
        let (before, early) = (here.keys.ring(), here.token());
        let config = |more: &str| {
            let text = format!(
                "{more}\n[upstreams]\napp = \"http://127.0.0.1:1\"\n\
                 [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n"
            );
            config::load_text(&here._directory.path().join("gateway.toml"), text, &|_| None).config.unwrap()
        };
        let same = here.keys.next(&config("[login]\ntitle = \"Other\"")).await.unwrap();
        assert!(Arc::ptr_eq(same.ring(), &before) && !here.keys.adopt(same));
        let next = here.keys.next(&config("[tokens]\nalgorithm = \"RS256\"\n[identity]\nassertion = \"X-A\"")).await;
        let next = next.unwrap();
        assert_eq!(here.signer(), before.load().signing_key_id(here.now()), "nothing is in force yet");
        assert!(here.keys.adopt(next), "the store may have changed meanwhile");
        assert!(here.keys.ring().assertions().is_some() && before.assertions().is_none());
        assert_ne!(here.signer(), before.load().signing_key_id(here.now()));
        assert!(here.keys.ring().verify(&early, here.now()).is_ok(), "tokens of the former algorithm's key verify");
        let terms = Tokens { algorithm: Algorithm::RS256, ..here.keys.held.load().tokens.clone() };
        let rotated = fresh(KeyUse::Tokens, &terms, here.now(), &here.keys.random).unwrap();
        let (key, _) = here.store.rotate_keys(rotated, Duration::ZERO).await.unwrap();
        here.keys.reload().await.unwrap();
        assert_eq!(here.signer(), key.kid, "and it is what follows the store");
    }

    #[tokio::test]
    async fn keys_of_the_configuration_are_not_the_store_s() {
        let secret = "a secret of at least thirty-two bytes";
        let text =
            format!("[tokens]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n[identity]\nassertion = \"X-Assertion\"");
        let here = Fixture::new(&text).await;
        assert_eq!(here.published(), 1, "that of assertions");
        let keys = here.store.signing_keys().await.unwrap();
        assert_eq!(keys.iter().map(|key| key.purpose).collect::<Vec<_>>(), [KeyUse::Assertions]);
    }
}
