//! Decisions over the real parts on a store of their own, by a clock that the test moves.

mod clocks;
mod observe;
mod reload;
mod step_up;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Access, Bad, Current, Decision, Lease, People, Reason, Want};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::config;
use crate::identity::UserName;
use crate::identity::api_key::{self, ApiKeyText};
use crate::identity::password::Hasher;
use crate::message::forwarded::ClientAddr;
use crate::message::head::Head;
use crate::message::host::Host;
use crate::message::path::RequestPath;
use crate::secret::{Random, Secret};
use crate::session::refresh::RefreshKey;
use crate::session::{
    Accounts, ApiKeys, Basic, Carrier, Followed, Follower, NewSession, Opened, OwnKeys, Sessions, SignIn,
};
use crate::store::{ApiKeyRecord, NewUser, Store};
use crate::throttle::Throttle;
use crate::token::{self, NewClaims, Revocations};

const ROUTES: &str = r#"
    [upstreams]
    app = "http://127.0.0.1:1"
    [[routes]]
    path = "/public/**"
    allow = "anyone"
    upstream = "app"
    [[routes]]
    path = "/public-own/**"
    allow = "anyone"
    accept = ["cookie"]
    upstream = "app"
    [[routes]]
    path = "/forward/**"
    allow = "anyone"
    forward_token = true
    upstream = "app"
    [[routes]]
    path = "/admin/**"
    allow = { groups = ["admin"] }
    upstream = "app"
    [[routes]]
    path = "/near/**"
    allow = { from = ["10.0.0.0/8"] }
    upstream = "app"
    [[routes]]
    path = "/closed/**"
    allow = "nobody"
    upstream = "app"
    [[routes]]
    path = "/fresh/**"
    allow = { signed_in_within = "5m" }
    upstream = "app"
    [[routes]]
    path = "/token/**"
    allow = "signed-in"
    accept = ["bearer"]
    upstream = "app"
    [[routes]]
    path = "/cookie/**"
    allow = "signed-in"
    accept = ["cookie"]
    origins = ["http://friend.example"]
    upstream = "app"
    [[routes]]
    path = "/any/**"
    allow = "signed-in"
    upstream = "app"
"#;

/// Everything that decides, and the hand of its clock.
struct Bench {
    hand: ManualClock,
    store: Store,
    own_keys: Arc<OwnKeys>,
    people: People,
    current: Arc<Current>,
    directory: tempfile::TempDir,
}

impl Bench {
    async fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        let loaded = config::load_text(&file, format!("{more}\n{ROUTES}"), &|_| None);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
        let hand = ManualClock::at(Timestamp::from_secs(1_700_000_000));
        let (clock, random) = (Clock::manual(&hand), Random::system());
        let store = Store::open(&config.store, clock.clone(), random.clone()).unwrap();
        let revocations = Arc::new(Revocations::new());
        let accounts = Arc::new(Accounts::new(store.clone()));
        let refresh = RefreshKey::new(&Secret::new([7; 32]));
        let sessions = Arc::new(Sessions::new(store.clone(), random, refresh, config.sessions.clone()));
        let throttle = Throttle::start(store.clone(), clock.clone()).await.unwrap();
        let own_keys = OwnKeys::open(&config, store.clone(), clock.clone(), Random::system()).await.unwrap();
        let own_keys = Arc::new(own_keys);
        let api_keys = Arc::new(ApiKeys::new(store.clone()));
        let followed = Followed {
            api_keys: api_keys.clone(),
            accounts: accounts.clone(),
            sessions: sessions.clone(),
            revocations: revocations.clone(),
            throttle: throttle.clone(),
            keys: own_keys.clone(),
        };
        let memory = token::memory(&config);
        let follower = Arc::new(Follower::new(store.clone(), clock, followed, memory));
        let hasher = Hasher::start(1).unwrap();
        let sign_in = Arc::new(SignIn::new(store.clone(), hasher, throttle, follower.clone()));
        let basic = Arc::new(Basic::new(sign_in, accounts.clone(), &Random::system()));
        let people = People { accounts, api_keys, basic, sessions, revocations, follower };
        let keys = own_keys.ring();
        let access = Arc::new(Access::new(&Arc::new(config), keys, Arc::default(), people.clone()));
        let current = Arc::new(Current::new(access));
        let bench = Self { hand, store, own_keys, people, current, directory };
        for (name, groups) in [("alice", &["admin"][..]), ("bob", &[])] {
            let groups = groups.iter().map(|&group| group.to_owned()).collect();
            let user = NewUser { name: user(name), hash: None, groups, email: None, full_name: None };
            bench.store.add_user(user).await.unwrap();
        }
        bench.catch_up().await;
        bench
    }

    /// Another configuration of these sections and routes, as a reload puts it in force.
    async fn reload(&self, more: &str, routes: &str) {
        let file = self.directory.path().join("gateway.toml");
        let loaded = config::load_text(&file, format!("{more}\n{routes}"), &|_| None);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)));
        self.people.follower.remember_for(token::memory(&config)).await.unwrap();
        let keys = self.own_keys.next(&config).await.unwrap();
        let config = Arc::new(config);
        let access = self.current.load().succeeded_by(&config, keys.ring().clone(), Arc::default());
        let _is_due = self.own_keys.adopt(keys);
        self.people.sessions.set_terms(config.sessions.clone());
        self.current.replace(Arc::new(access));
        self.people.follower.raise();
    }

    fn now(&self) -> Timestamp {
        Clock::manual(&self.hand).now()
    }

    async fn catch_up(&self) {
        self.people.follower.catch_up().await.unwrap();
    }

    /// Time passes, and the store keeps answering.
    async fn pass(&self, seconds: u64) {
        self.hand.advance(Duration::from_secs(seconds));
        self.catch_up().await;
    }

    async fn open(&self, name: &str, carrier: Carrier) -> Opened {
        let password_version = self.store.user(&user(name)).await.unwrap().unwrap().password_version;
        let client = "127.0.0.1".to_owned();
        let name = user(name);
        let new = NewSession { user: &name, password_version, method: "password", client, agent: "", carrier };
        self.people.sessions.open(new, self.now()).await.unwrap().unwrap()
    }

    /// A session behind a cookie, and the field that shows it.
    async fn cookie(&self, name: &str, remember: bool) -> (String, Opened) {
        let key = self.people.sessions.new_key();
        let opened = self.open(name, Carrier::Cookie { key, remember }).await;
        (format!("cookie: portcullis={}", opened.key.expose()), opened)
    }

    /// A session behind a token, and the field that shows it.
    async fn bearer(&self, name: &str) -> (String, Opened) {
        let opened = self.open(name, Carrier::Tokens).await;
        (format!("authorization: Bearer {}", self.token(name, Some(&opened.id))), opened)
    }

    fn token(&self, name: &str, session: Option<&str>) -> String {
        let now = self.now();
        let (methods, groups) = (["password".to_owned()], []);
        let claims = NewClaims {
            subject: name,
            now,
            session,
            signed_in_at: Some(now),
            methods: &methods,
            groups: &groups,
            scope: "",
            not_after: None,
        };
        self.own_keys.ring().sign(&claims).unwrap()
    }

    /// A password of `name`'s, and the field that shows it by Basic.
    async fn basic(&self, name: &str, password: &str) -> String {
        let hash = Hasher::start(1).unwrap().hash(Secret::from(password)).await.unwrap();
        self.store.set_password(&user(name), hash).await.unwrap();
        self.catch_up().await;
        format!("authorization: Basic {}", STANDARD.encode(format!("{name}:{password}")))
    }

    /// An API key of `name`'s, and the field that shows it.
    async fn api_key(&self, name: &str) -> String {
        let key = api_key::generate(&Random::system());
        let text = ApiKeyText::parse(key.expose()).unwrap();
        let record = ApiKeyRecord {
            id: text.id().to_owned(),
            key_hash: text.digest(),
            name: text.id().to_owned(),
            user: user(name),
            groups: None,
            scopes: Vec::new(),
            routes: None,
            created_at: self.now(),
            expires_at: None,
            last_used: None,
        };
        assert!(self.store.add_api_key(record).await.unwrap());
        format!("x-api-key: {}", key.expose())
    }

    async fn decide(&self, method: Method, path: &str, fields: &[&str]) -> Decision {
        self.decide_at(Instant::now(), method, path, fields).await
    }

    /// What is decided of a request that came at `started`, by the clock that deadlines are counted by.
    async fn decide_at(&self, started: Instant, method: Method, path: &str, fields: &[&str]) -> Decision {
        let head = Head {
            method,
            host: Host::parse(b"apps.example.com").unwrap(),
            path: RequestPath::parse(path).unwrap(),
            query: None,
            client: ClientAddr([127, 0, 0, 1].into()),
            https: false,
            certificate: None,
            now: self.now(),
            started,
        };
        let mut headers = HeaderMap::new();
        for field in fields {
            let (name, value) = field.split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        self.current.load_full().check(&Arc::new(head), &headers, &self.current).await.decision
    }

    /// What is decided of a `GET`, in a few words.
    async fn get(&self, path: &str, fields: &[&str]) -> String {
        say(&self.decide(Method::GET, path, fields).await)
    }

    async fn lease(&self, path: &str, fields: &[&str]) -> Lease {
        match self.decide(Method::GET, path, fields).await {
            Decision::Permit(permit) => permit.lease().clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn say(decision: &Decision) -> String {
    let cleared = |clears| if clears { ", cleared" } else { "" };
    match decision {
        Decision::Permit(permit) => {
            let user = permit.identity().map_or("nobody", |identity| &identity.profile.user);
            let stays = if permit.drops_authorization() { ", kept" } else { "" };
            format!("{user}{stays}{}", cleared(permit.clears_cookie()))
        }
        Decision::Challenge(challenge) => {
            let want = match &challenge.want {
                Want::Credential => "sign in",
                Want::Token(Bad::Expired) => "expired",
                Want::Token(Bad::Invalid(_) | Bad::OtherIssuer) => "invalid",
                Want::Token(Bad::Credentials { .. }) => "wrong",
                Want::StepUp => "sign in again",
            };
            format!("{want}{}", cleared(challenge.clears_cookie))
        }
        Decision::Deny(denial) => {
            let why = if denial.why == Reason::CrossSite { "cross-site" } else { "denied" };
            format!("{why}{}", cleared(denial.clears_cookie))
        }
        Decision::NotFound { .. } => "no route".to_owned(),
        Decision::Malformed(_) => "malformed".to_owned(),
        Decision::Throttled(..) => "throttled".to_owned(),
        Decision::Unavailable(_) => "unavailable".to_owned(),
    }
}

async fn ends_soon(lease: &Lease) -> bool {
    tokio::time::timeout(Duration::from_millis(50), lease.ended()).await.is_ok()
}

#[tokio::test]
async fn every_credential_on_every_kind_of_route() {
    let bench = Bench::new("").await;
    let ((alice, _), (bob, _)) = (bench.bearer("alice").await, bench.bearer("bob").await);
    let ((alice_cookie, _), (bob_cookie, _)) = (bench.cookie("alice", false).await, bench.cookie("bob", false).await);
    let minted = format!("authorization: Bearer {}", bench.token("nobody-here", None));
    let stale = format!("cookie: portcullis={}", "A".repeat(43));
    let paths = ["/public", "/admin", "/near", "/closed", "/token", "/cookie", "/any", "/nowhere"];
    let table: [(&[&str], [&str; 8]); 12] = [
        (&[], ["nobody", "sign in", "denied", "denied", "sign in", "sign in", "sign in", "no route"]),
        (
            &[&alice],
            ["alice, kept", "alice, kept", "denied", "denied", "alice, kept", "sign in", "alice, kept", "no route"],
        ),
        (&[&bob], ["bob, kept", "denied", "denied", "denied", "bob, kept", "sign in", "bob, kept", "no route"]),
        (&[&alice_cookie], ["alice", "alice", "denied", "denied", "sign in", "alice", "alice", "no route"]),
        (&[&bob_cookie], ["bob", "denied", "denied", "denied", "sign in", "bob", "bob", "no route"]),
        (
            &[&stale],
            [
                "nobody, cleared",
                "sign in, cleared",
                "denied, cleared",
                "denied, cleared",
                "sign in",
                "sign in, cleared",
                "sign in, cleared",
                "no route",
            ],
        ),
        (&[&minted], ["nobody, kept", "invalid", "invalid", "invalid", "invalid", "sign in", "invalid", "no route"]),
        (
            &["authorization: Bearer x", &alice_cookie],
            ["nobody, kept", "invalid", "invalid", "invalid", "invalid", "alice", "invalid", "no route"],
        ),
        (
            &["authorization: bEARER", &alice_cookie],
            ["nobody, kept", "invalid", "invalid", "invalid", "invalid", "alice", "invalid", "no route"],
        ),
        (
            &["authorization: Basic eDp5", &alice_cookie],
            ["alice", "alice", "denied", "denied", "sign in", "alice", "alice", "no route"],
        ),
        (
            &["authorization: Bearer \u{e9}", &alice_cookie],
            ["nobody, kept", "invalid", "invalid", "invalid", "invalid", "alice", "invalid", "no route"],
        ),
        (
            &[&alice, "authorization: Basic eDp5"],
            ["malformed", "malformed", "malformed", "malformed", "malformed", "malformed", "malformed", "no route"],
        ),
    ];
    for (fields, expected) in table {
        for (path, expected) in paths.into_iter().zip(expected) {
            assert_eq!(bench.get(path, fields).await, expected, "{path} {fields:?}");
        }
    }
}

#[tokio::test]
async fn times_of_a_session_count_by_the_second() {
    let bench = Bench::new("[sessions]\nidle = \"10m\"\nlifetime = \"30m\"\nremember = \"2d\"").await;
    let (idle, _) = bench.cookie("alice", false).await;
    let (used, _) = bench.cookie("alice", false).await;
    let (remembered, _) = bench.cookie("alice", true).await;
    for _ in 0..2 {
        bench.pass(599).await;
        assert_eq!(bench.get("/any", &[&used]).await, "alice");
    }
    assert_eq!(bench.get("/any", &[&idle]).await, "sign in, cleared");
    bench.pass(599).await;
    assert_eq!(bench.get("/any", &[&used]).await, "alice");
    bench.pass(3).await;
    assert_eq!(bench.get("/any", &[&used]).await, "sign in, cleared");
    assert_eq!(bench.get("/any", &[&remembered]).await, "alice");
    bench.pass(2 * 86_400 - 1801).await;
    assert_eq!(bench.get("/any", &[&remembered]).await, "alice");
    bench.pass(1).await;
    assert_eq!(bench.get("/any", &[&remembered]).await, "sign in, cleared");
}

#[tokio::test]
async fn a_token_expires_at_its_second_and_an_old_sign_in_is_asked_again() {
    let bench = Bench::new("").await;
    let ((bearer, _), (cookie, _)) = (bench.bearer("alice").await, bench.cookie("alice", false).await);
    bench.pass(300).await;
    assert_eq!(bench.get("/fresh", &[&bearer]).await, "alice, kept");
    assert_eq!(bench.get("/fresh", &[&cookie]).await, "alice");
    bench.pass(1).await;
    assert_eq!(bench.get("/fresh", &[&bearer]).await, "sign in again");
    assert_eq!(bench.get("/fresh", &[&cookie]).await, "sign in again");
    bench.pass(598).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "alice, kept");
    bench.pass(1).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "expired");
    assert_eq!(bench.get("/public", &[&bearer]).await, "nobody, kept");
}

#[tokio::test]
async fn events_count_from_the_next_request() {
    let bench = Bench::new("").await;
    let ((bearer, session), (cookie, other)) = (bench.bearer("alice").await, bench.cookie("alice", false).await);
    let minted = format!("authorization: Bearer {}", bench.token("alice", None));
    for field in [&bearer, &cookie, &minted] {
        assert!(bench.get("/admin", &[field]).await.starts_with("alice"));
    }
    bench.store.set_groups(&user("alice"), vec![]).await.unwrap();
    bench.catch_up().await;
    for field in [&bearer, &cookie, &minted] {
        assert_eq!(bench.get("/admin", &[field]).await, "denied");
    }
    bench.store.end_session(&session.id).await.unwrap();
    bench.store.end_session(&other.id).await.unwrap();
    bench.catch_up().await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "invalid");
    assert_eq!(bench.get("/any", &[&cookie]).await, "sign in, cleared");
    assert_eq!(bench.get("/any", &[&minted]).await, "alice, kept");
    bench.store.set_disabled(&user("alice"), true).await.unwrap();
    bench.catch_up().await;
    assert_eq!(bench.get("/any", &[&minted]).await, "invalid");
    bench.store.set_disabled(&user("alice"), false).await.unwrap();
    bench.catch_up().await;
    // A token of the same second is over; one of the next is not.
    assert_eq!(bench.get("/any", &[&minted]).await, "invalid");
    bench.pass(1).await;
    let minted = format!("authorization: Bearer {}", bench.token("alice", None));
    assert_eq!(bench.get("/any", &[&minted]).await, "alice, kept");
}

#[tokio::test]
async fn on_a_cookie_unsafe_methods_come_from_this_site() {
    let bench = Bench::new("").await;
    let ((cookie, _), (bearer, _)) = (bench.cookie("alice", false).await, bench.bearer("alice").await);
    let evil = "sec-fetch-site: cross-site";
    let socket = "upgrade: WebSocket";
    for (method, fields, expected) in [
        (Method::GET, vec![&*cookie, evil], "alice"),
        (Method::HEAD, vec![&*cookie, evil], "alice"),
        (Method::OPTIONS, vec![&*cookie, evil], "alice"),
        (Method::POST, vec![&*cookie, evil], "cross-site"),
        (Method::DELETE, vec![&*cookie, "origin: https://evil.example"], "cross-site"),
        (Method::POST, vec![&*cookie, "origin: http://apps.example.com"], "alice"),
        (Method::POST, vec![&*cookie, "origin: http://friend.example"], "alice"),
        (Method::GET, vec![&*cookie, evil, socket], "cross-site"),
        (Method::GET, vec![&*cookie, "sec-fetch-site: same-origin", socket], "alice"),
        (Method::POST, vec![evil], "sign in"),
    ] {
        assert_eq!(say(&bench.decide(method, "/cookie", &fields).await), expected, "{fields:?}");
    }
    let by_token = bench.decide(Method::POST, "/any", &[&bearer, evil]).await;
    assert_eq!(say(&by_token), "alice, kept");
}

#[tokio::test]
async fn a_stream_ends_with_what_allowed_it() {
    let bench = Bench::new("").await;
    let ((cookie, _), (bearer, session)) = (bench.cookie("alice", false).await, bench.bearer("alice").await);
    let (by_cookie, by_token) = (bench.lease("/admin", &[&cookie]).await, bench.lease("/admin", &[&bearer]).await);
    let other = bench.lease("/any", &[&bearer]).await;
    assert!(!ends_soon(&by_cookie).await && !ends_soon(&by_token).await);
    bench.store.set_groups(&user("alice"), vec![]).await.unwrap();
    bench.catch_up().await;
    assert!(ends_soon(&by_cookie).await && ends_soon(&by_token).await && !ends_soon(&other).await);
    bench.store.end_session(&session.id).await.unwrap();
    bench.catch_up().await;
    assert!(ends_soon(&other).await);
}

/// The revocation of a session is remembered as long as a token may live, and a remembered session lives for longer.
#[tokio::test]
async fn a_session_that_was_ended_stays_ended() {
    let bench = Bench::new("[sessions]\nremember = \"30d\"").await;
    let (cookie, opened) = bench.cookie("alice", true).await;
    assert_eq!(bench.get("/any", &[&cookie]).await, "alice");
    bench.store.end_session(&opened.id).await.unwrap();
    bench.catch_up().await;
    assert_eq!(bench.get("/any", &[&cookie]).await, "sign in, cleared");
    for _ in 0..26 {
        bench.pass(3600).await;
        for _ in 0..2000 {
            bench.people.revocations.forget(bench.now());
        }
        assert_eq!(bench.get("/any", &[&cookie]).await, "sign in, cleared");
    }
}

#[tokio::test]
async fn a_revoked_token_stays_revoked_until_it_expires() {
    let bench = Bench::new("[tokens]\nlifetime = \"15m\"\nmax_lifetime = \"15m\"").await;
    bench.hand.advance(Duration::from_secs(30));
    let token = bench.token("alice", None);
    bench.hand.set_wall(bench.now() - Duration::from_secs(30));
    let claims = bench.own_keys.ring().verify(&token, bench.now()).unwrap();
    let (jti, bearer) = (claims.claims().jti.clone().unwrap(), format!("authorization: Bearer {token}"));
    bench.store.revoke_jti(&jti, Timestamp::from_secs(claims.claims().exp)).await.unwrap();
    bench.catch_up().await;
    bench.pass(15 * 60 + 29).await;
    for _ in 0..2000 {
        bench.people.revocations.forget(bench.now());
    }
    assert_eq!(bench.get("/any", &[&bearer]).await, "invalid");
    bench.pass(1).await;
    assert_eq!(bench.get("/any", &[&bearer]).await, "expired");
}

#[tokio::test]
async fn of_several_cookies_those_that_verify_count() {
    let bench = Bench::new("").await;
    let (one, first) = bench.cookie("alice", false).await;
    let (two, _) = bench.cookie("alice", false).await;
    let both = [one.as_str(), &two];
    assert_eq!(bench.get("/any", &[&one, &one, "cookie: portcullis=x"]).await, "alice");
    assert_eq!(bench.get("/any", &both).await, "sign in, cleared");
    bench.store.end_session(&first.id).await.unwrap();
    bench.catch_up().await;
    assert_eq!(bench.get("/any", &both).await, "alice");
}

/// The token's own expiry does not cut a stream, but the end of the session behind it does.
#[tokio::test]
async fn a_stream_on_a_token_ends_with_its_session() {
    let bench = Bench::new("[sessions]\nlifetime = \"1s\"\nidle = \"1s\"").await;
    let (bearer, _) = bench.bearer("alice").await;
    let lease = bench.lease("/any", &[&bearer]).await;
    assert!(!ends_soon(&lease).await);
    tokio::time::timeout(Duration::from_secs(5), lease.ended()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_known_to_be_fresh_lets_nobody_in() {
    let bench = Bench::new("[store]\nmax_staleness = \"30s\"").await;
    let ((cookie, _), (bearer, _)) = (bench.cookie("alice", false).await, bench.bearer("alice").await);
    let public = bench.lease("/public", &[]).await;
    let named = bench.lease("/any", &[&bearer]).await;
    for (seconds, expected) in [(30, ["alice", "alice, kept"]), (1, ["unavailable"; 2])] {
        bench.hand.advance(Duration::from_secs(seconds));
        for (field, expected) in [&cookie, &bearer].into_iter().zip(expected) {
            assert_eq!(bench.get("/any", &[field]).await, expected);
        }
    }
    assert_eq!(bench.get("/any", &[]).await, "sign in");
    assert_eq!(bench.get("/public", &[&cookie]).await, "nobody");
    assert!(ends_soon(&named).await);
    // Nobody's sign-in holds it.
    assert!(!ends_soon(&public).await);
}

#[tokio::test]
async fn what_is_ours_never_goes_on() {
    let bench = Bench::new("").await;
    let (bearer, _) = bench.bearer("alice").await;
    let token = bench.token("alice", None);
    let basic = |text: String| format!("authorization: Basic {}", STANDARD.encode(text));
    let hidden = [
        bearer.clone(),
        format!("authorization: Token token=\"{token}\""),
        format!("authorization: \u{e9} {token}"),
        format!("authorization: Bearer\t{token}"),
        basic(format!("alice:{token}")),
        basic(format!("{token}:")),
    ];
    for field in &hidden {
        assert_eq!(bench.get("/public-own", &[field]).await, "nobody, kept", "{field}");
    }
    for field in ["authorization: Bearer x.y.z", "authorization: Basic eDp5", "authorization: Digest \u{e9}"] {
        assert_eq!(bench.get("/public-own", &[field]).await, "nobody", "{field}");
    }
    // Only a good one is passed on.
    assert_eq!(bench.get("/forward", &[&bearer]).await, "alice");
    assert_eq!(bench.get("/forward", &["authorization: Bearer x"]).await, "nobody, kept");
    assert_eq!(bench.get("/any", &[&bearer.replace("Bearer ", "Bearer   ")]).await, "alice, kept");
}
