//! Everything that decides about a request, put together over a store of its own, as the gateway does it.

use std::sync::Arc;
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use portcullis::access::{Access, Current, Decision, People};
use portcullis::clock::{Clock, Timestamp};
use portcullis::config::{self, Algorithm};
use portcullis::identity::UserName;
use portcullis::identity::password::Hasher;
use portcullis::message::forwarded::ClientAddr;
use portcullis::message::head::Head;
use portcullis::message::host::Host;
use portcullis::message::path::RequestPath;
use portcullis::secret::{Random, Secret};
use portcullis::session::refresh::RefreshKey;
use portcullis::session::{Accounts, ApiKeys, Basic, Followed, Follower, OwnKeys, Sessions, SignIn};
use portcullis::store::{KeyRecord, KeyUse, NewUser, Store};
use portcullis::throttle::Throttle;
use portcullis::token::{self, Keyring, NewClaims, Revocations, StoredKey, algorithm_name};
use tokio::runtime::Runtime;

/// All algorithms of own tokens.
pub(crate) const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The gateway's decisions about `https://apps.example.com/app`, which asks for a sign-in, and alice, who is in staff.
pub(crate) struct Gate {
    runtime: Runtime,
    current: Arc<Current>,
    /// The keys in force.
    pub(crate) keys: Arc<Keyring>,
    /// The key that signs.
    pub(crate) key: StoredKey,
    _people: People,
    _directory: tempfile::TempDir,
}

impl Gate {
    /// With own tokens of `algorithm`.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self::with_routes(algorithm, 0)
    }

    /// The same behind `count` routes: `/service-0/**`, `/service-1/**` and so on, for her group too.
    pub(crate) fn with_routes(algorithm: Algorithm, count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (directory, name) = (tempfile::tempdir().unwrap(), algorithm_name(algorithm));
        let mut text = format!(
            "[server]\npublic_url = \"{ISSUER}\"\n[tokens]\nalgorithm = \"{name}\"\n\
             [upstreams]\napp = \"http://127.0.0.1:1\"\n\
             [[routes]]\npath = \"/app/**\"\nallow = {{ groups = [\"staff\"] }}\nupstream = \"app\"\n"
        );
        for number in 0..count {
            let path = format!("/service-{number}/**");
            text += &format!("[[routes]]\npath = \"{path}\"\nallow = {{ groups = [\"staff\"] }}\nupstream = \"app\"\n");
        }
        text += "[[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
        let config = config::load_text(&directory.path().join("gateway.toml"), text, &|_| None).config.unwrap();
        let key = token::generate(algorithm, &Random::system()).unwrap();
        let (people, keys) = runtime.block_on(open(&config, &key));
        let access = Access::new(&Arc::new(config), Arc::clone(&keys), Arc::default(), people.clone());
        let current = Arc::new(Current::new(Arc::new(access)));
        Self { runtime, current, keys, key, _people: people, _directory: directory }
    }

    /// An access token of alice's that says it was issued at `at`, different from all others.
    pub(crate) fn token(&self, at: Timestamp) -> String {
        let (methods, groups) = (["password".to_owned()], ["staff".to_owned()]);
        let session = Some("AAAAAAAAAAAAAAAAAAAAAA");
        let signed_in_at = Some(at);
        let (subject, scope, not_after) = ("alice", "", None);
        let claims =
            NewClaims { subject, now: at, session, signed_in_at, methods: &methods, groups: &groups, scope, not_after };
        self.keys.sign(&claims).unwrap()
    }

    /// A request that shows `token`.
    pub(crate) fn request(&self, token: &str) -> (Arc<Head>, HeaderMap) {
        self.request_for("/app/page", token)
    }

    /// A request for `path` that shows `token`.
    pub(crate) fn request_for(&self, path: &str, token: &str) -> (Arc<Head>, HeaderMap) {
        let head = Head {
            method: Method::GET,
            host: Host::parse(b"apps.example.com").unwrap(),
            path: RequestPath::parse(path).unwrap(),
            query: None,
            client: ClientAddr([192, 0, 2, 7].into()),
            https: true,
            now: Clock::system().now(),
            certificate: None,
            started: Instant::now(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        (Arc::new(head), headers)
    }

    /// The decisions in force.
    pub(crate) fn access(&self) -> Arc<Access> {
        self.current.load_full()
    }

    /// What comes of `future`.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// What is decided about it: the whole of what stands between a head that was read and its forwarding.
    pub(crate) fn decide(&self, (head, headers): &(Arc<Head>, HeaderMap)) -> Decision {
        self.runtime.block_on(self.current.load_full().check(head, headers, &self.current)).decision
    }
}

async fn open(config: &config::Config, key: &StoredKey) -> (People, Arc<Keyring>) {
    let (clock, random) = (Clock::system(), Random::system());
    let store = Store::open(&config.store, clock.clone(), random.clone()).unwrap();
    let record = KeyRecord {
        purpose: KeyUse::Tokens,
        kid: key.kid.clone(),
        algorithm: key.algorithm,
        private: key.material.clone(),
        created_at: clock.now(),
        not_before: clock.now(),
        retired_at: None,
        lifetime: Some(config.tokens.lifetime),
    };
    store.add_signing_key(record).await.unwrap();
    let own_keys = Arc::new(OwnKeys::open(config, store.clone(), clock.clone(), random.clone()).await.unwrap());
    let throttle = Throttle::start(store.clone(), clock.clone()).await.unwrap();
    let (accounts, api_keys) = (Arc::new(Accounts::new(store.clone())), Arc::new(ApiKeys::new(store.clone())));
    let refresh = RefreshKey::new(&Secret::new([7; 32]));
    let sessions = Arc::new(Sessions::new(store.clone(), random.clone(), refresh, config.sessions.clone()));
    let revocations = Arc::new(Revocations::new());
    let followed = Followed {
        accounts: accounts.clone(),
        api_keys: api_keys.clone(),
        sessions: sessions.clone(),
        revocations: revocations.clone(),
        throttle: throttle.clone(),
        keys: own_keys.clone(),
    };
    let follower = Arc::new(Follower::new(store.clone(), clock, followed, token::memory(config)));
    let sign_in = Arc::new(SignIn::new(store.clone(), Hasher::start(1).unwrap(), throttle, follower.clone()));
    let basic = Arc::new(Basic::new(sign_in, accounts.clone(), &random));
    let name = UserName::parse("alice").unwrap();
    let alice = NewUser { name, hash: None, groups: vec!["staff".to_owned()], email: None, full_name: None };
    store.add_user(alice).await.unwrap();
    follower.catch_up().await.unwrap();
    let keys = own_keys.ring();
    (People { accounts, api_keys, basic, sessions, revocations, follower }, keys)
}

/// The issuer and `public_url`.
pub(crate) const ISSUER: &str = "https://apps.example.com";
