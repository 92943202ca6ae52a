//! Rules that let everyone in, made of the real parts, so that what is forwarded has a real permit.

use std::sync::Arc;

use portcullis::access::{Access, Current, People};
use portcullis::clock::Clock;
use portcullis::config::{self, Timeouts};
use portcullis::identity::password::Hasher;
use portcullis::message::headers::IdentityNames;
use portcullis::secret::{Random, Secret};
use portcullis::session::refresh::RefreshKey;
use portcullis::session::{Accounts, ApiKeys, Basic, Followed, Follower, OwnKeys, Sessions, SignIn};
use portcullis::store::Store;
use portcullis::throttle::Throttle;
use portcullis::token::{self, KeySet, Revocations};

pub(crate) struct Rules {
    pub(crate) access: Arc<Access>,
    pub(crate) current: Arc<Current>,
    pub(crate) guarded: Arc<IdentityNames>,
    _directory: tempfile::TempDir,
}

impl Rules {
    /// One public route to the first upstream, which may take as long as `timeouts` say.
    pub(crate) async fn everyone(timeouts: &Timeouts) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = "[upstreams]\napp = \"http://127.0.0.1:1\"\n\
                    [[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"app\"\n";
        let loaded = config::load_text(&directory.path().join("gateway.toml"), text.to_owned(), &|_| None);
        let mut config = loaded.config.expect("a good configuration");
        for route in &mut config.routes {
            Arc::make_mut(route).timeouts = timeouts.clone();
        }
        let people = people(&config).await;
        let key = token::generate(config.tokens.algorithm, &Random::system()).unwrap();
        let keys = Arc::new(KeySet::new(&config.tokens, &[key], Random::system()).unwrap().into());
        let config = Arc::new(config);
        let access = Arc::new(Access::new(&config, keys, Arc::default(), people));
        let current = Arc::new(Current::new(access.clone()));
        Self { access, current, guarded: config.guarded.clone(), _directory: directory }
    }
}

async fn people(config: &config::Config) -> People {
    let (clock, random) = (Clock::system(), Random::system());
    let store = Store::open(&config.store, clock.clone(), random.clone()).unwrap();
    let accounts = Arc::new(Accounts::new(store.clone()));
    let api_keys = Arc::new(ApiKeys::new(store.clone()));
    let refresh = RefreshKey::new(&Secret::new([7; 32]));
    let sessions = Arc::new(Sessions::new(store.clone(), random, refresh, config.sessions.clone()));
    let revocations = Arc::new(Revocations::new());
    let throttle = Throttle::start(store.clone(), clock.clone()).await.unwrap();
    let keys = OwnKeys::open(config, store.clone(), clock.clone(), Random::system()).await.unwrap();
    let followed = Followed {
        accounts: accounts.clone(),
        api_keys: api_keys.clone(),
        sessions: sessions.clone(),
        revocations: revocations.clone(),
        throttle: throttle.clone(),
        keys: Arc::new(keys),
    };
    let follower = Arc::new(Follower::new(store.clone(), clock, followed, config.tokens.max_lifetime));
    follower.catch_up().await.unwrap();
    let hasher = Hasher::start(1).unwrap();
    let sign_in = Arc::new(SignIn::new(store, hasher, throttle, follower.clone()));
    let basic = Arc::new(Basic::new(sign_in, accounts.clone(), &Random::system()));
    People { accounts, api_keys, basic, sessions, revocations, follower }
}
