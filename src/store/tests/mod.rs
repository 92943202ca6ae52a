//! What the store promises.

mod faults;
mod file_users;
mod rotation;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::config::Algorithm;
use crate::identity::UserName;
use crate::secret::Secret;

struct Fixture {
    directory: TempDir,
    hand: ManualClock,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hand = ManualClock::at(Timestamp::from_secs(1_700_000_000));
        let store = open(&directory.path().join("portcullis.db"), &hand).unwrap();
        Self { directory, hand, store }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("portcullis.db")
    }

    fn again(&self) -> Store {
        open(&self.path(), &self.hand).unwrap()
    }

    async fn sabotage(&self, pragma: &'static str) {
        self.store.database().unwrap().write(move |db, _| db.execute_batch(pragma)).await.unwrap();
    }

    async fn add(&self, name: &str) -> UserRecord {
        self.store.add_user(new_user(name)).await.unwrap().unwrap();
        self.store.user(&user(name)).await.unwrap().unwrap()
    }

    async fn sign_in(&self, account: &UserRecord, id: &str) {
        let session = session(id, &account.name, self.store.database().unwrap().now());
        self.store.create_session(session, account.password_version).await.unwrap().unwrap();
    }
}

fn open(path: &Path, hand: &ManualClock) -> Result<Store, StoreError> {
    let config =
        config::Store { kind: StoreKind::Sqlite(path.to_owned()), users: None, max_staleness: Duration::from_secs(30) };
    Store::open(&config, Clock::manual(hand), Random::system())
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn new_user(name: &str) -> NewUser {
    NewUser {
        name: user(name),
        hash: Some(Secret::from("hash")),
        groups: vec!["staff".to_owned(), "admin".to_owned(), "staff".to_owned()],
        email: Some(format!("{name}@example.com")),
        full_name: None,
    }
}

fn session(id: &str, user: &UserName, now: Timestamp) -> SessionRecord {
    let mut key_hash = [0; 32];
    key_hash[..id.len()].copy_from_slice(id.as_bytes());
    SessionRecord {
        id: id.to_owned(),
        key_hash: Some(key_hash),
        refresh_hash: None,
        refresh_generation: 0,
        user: user.clone(),
        created_at: now,
        auth_time: now,
        last_seen: now,
        remember: false,
        methods: vec!["password".to_owned()],
        client: "192.0.2.1".to_owned(),
        agent: "Firefox".to_owned(),
        expires_at: now + Duration::from_secs(3600),
    }
}

fn kind(error: &StoreError) -> StoreErrorKind {
    error.kind
}

#[tokio::test]
async fn keeps_an_account_and_refuses_its_name_twice() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    assert_eq!(bob.groups, ["staff", "admin"]);
    assert_eq!(bob.email.as_deref(), Some("bob@example.com"));
    assert_eq!(bob.hash.unwrap().expose(), "hash");
    assert!(!bob.disabled && bob.last_sign_in.is_none());
    assert!(here.store.add_user(new_user("bob")).await.unwrap().is_none());
    assert!(here.store.user(&user("alice")).await.unwrap().is_none());
    let taken = here.store.add_users(vec![new_user("alice"), new_user("bob")]).await.unwrap();
    assert_eq!(taken, [user("bob")]);
    let names: Vec<_> = here.again().users().await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, [user("alice"), user("bob")]);
}

#[tokio::test]
async fn changes_of_nobody_are_told_as_such() {
    let here = Fixture::new();
    let (store, nobody) = (&here.store, user("nobody"));
    assert!(store.set_groups(&nobody, vec![]).await.unwrap().is_none());
    assert!(store.set_profile(&nobody, None, None).await.unwrap().is_none());
    assert!(store.set_disabled(&nobody, true).await.unwrap().is_none());
    assert!(store.set_password(&nobody, Secret::from("x")).await.unwrap().is_none());
    assert!(store.delete_user(&nobody).await.unwrap().is_none());
    assert!(store.unlock(&nobody).await.unwrap().is_none());
    assert!(!store.upgrade_hash(&nobody, Secret::from("x"), Secret::from("y")).await.unwrap());
}

#[tokio::test]
async fn a_new_password_a_disabled_and_a_deleted_account_end_every_session() {
    for change in ["password", "disable", "delete", "all"] {
        let here = Fixture::new();
        let (bob, alice) = (here.add("bob").await, here.add("alice").await);
        here.sign_in(&bob, "one").await;
        here.sign_in(&bob, "two").await;
        here.sign_in(&alice, "other").await;
        let before = here.store.latest_seq().await.unwrap();
        let seq = match change {
            "password" => here.store.set_password(&bob.name, Secret::from("new")).await.unwrap().unwrap(),
            "disable" => here.store.set_disabled(&bob.name, true).await.unwrap().unwrap(),
            "delete" => here.store.delete_user(&bob.name).await.unwrap().unwrap(),
            _ => here.store.end_sessions_of(&bob.name).await.unwrap(),
        };
        let (events, latest) = here.store.events_after(before, 100).await.unwrap();
        assert_eq!(latest, seq);
        let mut kinds: Vec<_> = events.into_iter().map(|event| event.kind).collect();
        if change != "all" {
            assert_eq!(kinds.pop().unwrap(), EventKind::UserChanged { user: bob.name.clone() }, "{change}");
        }
        let at = here.store.database().unwrap().now();
        assert_eq!(kinds.pop().unwrap(), EventKind::UserSignedOut { user: bob.name.clone(), at }, "{change}");
        kinds.sort_by_key(|kind| format!("{kind:?}"));
        let ended = ["one", "two"].map(|id| EventKind::SessionEnded { session: id.to_owned() });
        assert_eq!(kinds, ended, "{change}");
        assert!(here.store.session("one").await.unwrap().is_none());
        assert!(here.store.session("other").await.unwrap().is_some(), "{change}");
    }
}

#[tokio::test]
async fn a_password_verified_before_a_change_opens_no_session_after_it() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    let attempt = async |verified: u64| {
        let session = session("late", &bob.name, here.store.database().unwrap().now());
        here.store.create_session(session, verified).await.unwrap()
    };
    here.store.set_password(&bob.name, Secret::from("new")).await.unwrap().unwrap();
    assert!(attempt(bob.password_version).await.is_none());

    let now = here.store.user(&bob.name).await.unwrap().unwrap();
    here.store.set_disabled(&bob.name, true).await.unwrap();
    assert!(attempt(now.password_version).await.is_none());

    here.store.delete_user(&bob.name).await.unwrap();
    assert!(attempt(now.password_version).await.is_none());
    let anew = here.add("bob").await;
    assert_ne!(anew.password_version, now.password_version);
    assert!(attempt(now.password_version).await.is_none());
    assert!(attempt(anew.password_version).await.is_some());
}

#[tokio::test]
async fn an_upgraded_hash_keeps_sessions_and_never_undoes_a_new_password() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    here.sign_in(&bob, "one").await;
    let before = here.store.latest_seq().await.unwrap();
    assert!(here.store.upgrade_hash(&bob.name, Secret::from("hash"), Secret::from("better")).await.unwrap());
    assert!(!here.store.upgrade_hash(&bob.name, Secret::from("hash"), Secret::from("older")).await.unwrap());
    assert_eq!(here.store.latest_seq().await.unwrap(), before);
    let now = here.store.user(&bob.name).await.unwrap().unwrap();
    assert_eq!((now.hash.unwrap().expose().as_str(), now.password_version), ("better", bob.password_version));
    assert!(here.store.session("one").await.unwrap().is_some());
}

#[tokio::test]
async fn finds_touches_lists_and_ends_sessions() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    here.sign_in(&bob, "one").await;
    here.sign_in(&bob, "two").await;
    let one = here.store.session("one").await.unwrap().unwrap();
    assert_eq!(here.store.session_by_key(one.key_hash.unwrap()).await.unwrap(), Some(one.clone()));
    assert_eq!(here.store.session_by_key([9; 32]).await.unwrap(), None);

    let later = one.last_seen + Duration::from_secs(60);
    here.store.touch_sessions(vec![("one".to_owned(), later), ("gone".to_owned(), later)]).await.unwrap();
    here.store.touch_sessions(vec![("one".to_owned(), one.last_seen)]).await.unwrap();
    let ids = async |who: Option<&str>| -> Vec<String> {
        let sessions = here.store.sessions(who.map(user).as_ref()).await.unwrap();
        sessions.into_iter().map(|session| session.id).collect()
    };
    assert_eq!(ids(Some("bob")).await, ["one", "two"]);
    assert_eq!(here.store.session("one").await.unwrap().unwrap().last_seen, later);
    assert!(ids(Some("alice")).await.is_empty());

    let seq = here.store.end_session("one").await.unwrap();
    assert_eq!(here.store.end_session("one").await.unwrap(), seq, "twice is once");
    assert!(here.store.end_session("cleaned away").await.unwrap() > seq, "its tokens may live");
    assert_eq!(ids(None).await, ["two"]);
    here.hand.advance(Duration::from_secs(3600));
    assert!(ids(None).await.is_empty());
}

#[tokio::test]
async fn cuts_a_long_user_agent_at_a_character() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    let mut long = session("one", &bob.name, bob.created_at);
    long.agent = format!("x{}", "é".repeat(200));
    here.store.create_session(long, bob.password_version).await.unwrap().unwrap();
    assert_eq!(here.store.session("one").await.unwrap().unwrap().agent, format!("x{}", "é".repeat(127)));
}

#[tokio::test]
async fn closing_leaves_everything_in_the_one_file() {
    let here = Fixture::new();
    here.add("bob").await;
    here.store.close().await.unwrap();
    let beside = std::fs::read_dir(here.path().parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "no -wal and no -shm");
    assert!(here.store.user(&user("bob")).await.unwrap().is_some(), "and opens again when asked");
}

#[tokio::test]
async fn events_come_in_order_in_pages_and_in_every_process() {
    let here = Fixture::new();
    let other = here.again();
    let start = other.data_version().await.unwrap();
    assert_eq!(other.data_version().await.unwrap(), start, "nothing was written");
    here.add("bob").await;
    let expiry = Timestamp::from_secs(1_700_001_000);
    let first = here.store.revoke_jti("token", expiry).await.unwrap();
    assert_eq!(here.store.revoke_jti("token", expiry).await.unwrap(), first, "twice is once");
    let unlocked = here.store.unlock(&user("bob")).await.unwrap().unwrap();
    assert_ne!(other.data_version().await.unwrap(), start);

    let (page, latest) = other.events_after(0, 2).await.unwrap();
    assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(page[1].kind, EventKind::TokenRevoked { jti: "token".to_owned() });
    assert_eq!(latest, unlocked);
    let (page, _) = other.events_after(2, 2).await.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].kind, EventKind::Unlocked { user: user("bob") });
}

#[tokio::test]
async fn events_outlive_every_token_they_are_about_and_then_go() {
    let here = Fixture::new();
    let store = here.store.clone().remembering(Duration::from_secs(40 * 3600));
    let now = store.database().unwrap().now();
    store.revoke_jti("short", now + Duration::from_secs(60)).await.unwrap();
    here.store.revoke_jti("long", now + Duration::from_secs(50 * 3600)).await.unwrap();
    let last = here.store.end_session("one").await.unwrap();
    let left = async || -> Vec<Seq> {
        while store.clean(1).await.unwrap() > 0 {}
        store.events_after(0, 100).await.unwrap().0.into_iter().map(|event| event.seq).collect()
    };
    here.hand.advance(MEMORY - Duration::from_secs(1));
    assert_eq!(left().await, [1, 2, 3]);
    here.hand.advance(Duration::from_secs(1));
    assert_eq!(left().await, [1, 2]);
    here.hand.advance(Duration::from_secs(15 * 3600));
    assert_eq!(left().await, [2]);
    here.hand.advance(Duration::from_secs(11 * 3600));
    assert!(left().await.is_empty());
    assert_eq!(store.latest_seq().await.unwrap(), last, "places never come again");
    assert_eq!(here.again().end_session("two").await.unwrap(), last + 1);
}

#[tokio::test]
async fn cleans_up_ended_sessions_but_no_other() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    here.sign_in(&bob, "old").await;
    here.hand.advance(Duration::from_secs(1800));
    here.sign_in(&bob, "new").await;
    here.hand.advance(Duration::from_secs(1800));
    assert_eq!(here.store.clean(100).await.unwrap(), 1);
    assert!(here.store.session("old").await.unwrap().is_none());
    assert!(here.store.session("new").await.unwrap().is_some());
}

#[tokio::test]
async fn gateways_agree_on_keys_and_secrets() {
    let here = Fixture::new();
    let other = here.again();
    let key = |kid: &str, algorithm| KeyRecord {
        lifetime: None,
        purpose: KeyUse::Tokens,
        kid: kid.to_owned(),
        algorithm,
        private: Secret::new(vec![1, 2, 3]),
        created_at: Timestamp::from_secs(1),
        not_before: Timestamp::from_secs(2),
        retired_at: None,
    };
    let first = here.store.first_signing_key(key("a", Algorithm::ES256)).await.unwrap();
    let second = other.first_signing_key(key("b", Algorithm::ES256)).await.unwrap();
    assert_eq!((first.kid.as_str(), second.kid.as_str()), ("a", "a"));
    assert_eq!(other.first_signing_key(key("c", Algorithm::EdDSA)).await.unwrap().kid, "c");
    assert!(other.add_signing_key(key("a", Algorithm::RS256)).await.unwrap().is_none());
    let seq = other.add_signing_key(key("d", Algorithm::HS512)).await.unwrap().unwrap();
    assert_eq!(here.store.events_after(seq - 1, 1).await.unwrap().0[0].kind, EventKind::KeysChanged);
    let keys = here.store.signing_keys().await.unwrap();
    assert_eq!(
        keys.iter().map(|key| (key.kid.as_str(), key.algorithm)).collect::<Vec<_>>(),
        [("a", Algorithm::ES256), ("c", Algorithm::EdDSA), ("d", Algorithm::HS512)]
    );
    assert_eq!(keys[0].private.expose(), &[1, 2, 3]);

    let secret = here.store.server_secret("throttle").await.unwrap();
    assert!(other.server_secret("throttle").await.unwrap().is(secret.expose()));
    assert!(!other.server_secret("refresh").await.unwrap().is(secret.expose()));
}

#[tokio::test]
async fn a_network_is_familiar_for_thirty_days_and_to_one_account() {
    let here = Fixture::new();
    here.add("bob").await;
    here.add("alice").await;
    let (bob, home, laptop) = (user("bob"), [1; 32], [2; 32]);
    here.store.note_familiar(&bob, home, Some(laptop)).await.unwrap();
    here.store.note_familiar(&user("nobody"), home, None).await.unwrap();
    let familiar =
        async |user: &UserName, network, browser| here.store.is_familiar(user, network, browser).await.unwrap();
    assert!(familiar(&bob, home, None).await);
    assert!(familiar(&bob, [3; 32], Some(laptop)).await);
    assert!(!familiar(&bob, [3; 32], None).await);
    assert!(!familiar(&bob, laptop, Some(home)).await, "a browser is no network");
    assert!(!familiar(&user("alice"), home, Some(laptop)).await);
    assert!(!familiar(&user("nobody"), home, None).await);
    here.hand.advance(Duration::from_secs(29 * 24 * 3600));
    here.store.note_familiar(&bob, home, None).await.unwrap();
    here.hand.advance(Duration::from_secs(24 * 3600));
    assert!(familiar(&bob, home, None).await);
    assert!(!familiar(&bob, [3; 32], Some(laptop)).await);
    assert!(here.store.clean(100).await.unwrap() > 0);
    here.store.set_password(&bob, Secret::from("new")).await.unwrap();
    assert!(!familiar(&bob, home, None).await);
}

#[tokio::test]
async fn counters_survive_and_are_deleted_when_empty() {
    let here = Fixture::new();
    let at = here.store.database().unwrap().now();
    let mut row = ThrottleRecord {
        scope: ThrottleScope::Network,
        key: [7; 16],
        failures: vec![(at, [1; 16]), (at, [2; 16])],
        level: 3,
        blocked_until: Some(at + Duration::from_secs(4)),
    };
    here.store.save_throttle(vec![row.clone()]).await.unwrap();
    assert_eq!(here.again().throttle_rows().await.unwrap(), [row.clone()]);
    row.failures.clear();
    row.level = 0;
    here.store.save_throttle(vec![row]).await.unwrap();
    assert!(here.again().throttle_rows().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_password_is_changed_only_while_the_verified_one_is_in_force() {
    let fixture = Fixture::new();
    let alice = fixture.add("alice").await;
    fixture.sign_in(&alice, "one").await;
    let store = &fixture.store;
    let version = alice.password_version;
    let changed = store.change_password(&alice.name, version, Secret::from("new")).await.unwrap().unwrap();
    let now = store.user(&alice.name).await.unwrap().unwrap();
    assert_eq!((now.password_version, now.hash.unwrap().expose().as_str()), (changed, "new"));
    assert!(store.session("one").await.unwrap().is_none());
    assert_eq!(store.change_password(&alice.name, version, Secret::from("late")).await.unwrap(), None);
    store.set_disabled(&alice.name, true).await.unwrap();
    assert_eq!(store.change_password(&alice.name, changed, Secret::from("late")).await.unwrap(), None);
    assert_eq!(store.change_password(&user("nobody"), changed, Secret::from("late")).await.unwrap(), None);
    assert_eq!(store.user(&alice.name).await.unwrap().unwrap().hash.unwrap().expose(), "new");
}

#[tokio::test]
async fn other_sessions_are_those_of_the_same_user_that_are_not_over() {
    let fixture = Fixture::new();
    let (alice, bob) = (fixture.add("alice").await, fixture.add("bob").await);
    for id in ["idle", "this"] {
        fixture.sign_in(&alice, id).await;
    }
    fixture.hand.advance(Duration::from_secs(600));
    for id in ["second", "third"] {
        fixture.sign_in(&alice, id).await;
    }
    fixture.sign_in(&bob, "bobs").await;
    let store = &fixture.store;
    let listed = |idle, limit| async move {
        let (sessions, count) =
            store.other_sessions(&user("alice"), "this", Duration::from_secs(idle), limit).await.unwrap();
        (sessions.into_iter().map(|session| session.id).collect::<Vec<_>>(), count)
    };
    assert_eq!(listed(3600, 9).await, (vec!["second".into(), "third".into(), "idle".into()], 3));
    assert_eq!(listed(300, 9).await, (vec!["second".into(), "third".into()], 2));
    assert_eq!(listed(3600, 1).await, (vec!["second".into()], 3));
    assert_eq!(store.end_other_sessions(&alice.name, "this").await.unwrap(), 3);
    assert_eq!(store.end_other_sessions(&alice.name, "this").await.unwrap(), 0);
    let left: Vec<_> = store.sessions(None).await.unwrap().into_iter().map(|session| session.id).collect();
    assert!(left.len() == 2 && left.contains(&"this".to_owned()) && left.contains(&"bobs".to_owned()), "{left:?}");
    let (events, _) = store.events_after(0, 100).await.unwrap();
    let ended = events.iter().filter(|event| matches!(event.kind, EventKind::SessionEnded { .. })).count();
    assert_eq!(ended, 3, "each with an event");
}

fn api_key(id: &str, user: &UserName, now: Timestamp) -> ApiKeyRecord {
    ApiKeyRecord {
        id: id.to_owned(),
        key_hash: [7; 32],
        name: format!("name of {id}"),
        user: user.clone(),
        groups: Some(vec!["staff".to_owned()]),
        scopes: vec!["introspect".to_owned()],
        routes: None,
        created_at: now,
        expires_at: None,
        last_used: None,
    }
}

#[tokio::test]
async fn an_api_key_is_kept_until_it_is_revoked_and_its_end_is_an_event() {
    let here = Fixture::new();
    let (bob, now) = (here.add("bob").await, here.store.database().unwrap().now());
    let key = api_key("one", &bob.name, now);
    assert!(here.store.add_api_key(key.clone()).await.unwrap());
    assert!(!here.store.add_api_key(ApiKeyRecord { id: "two".to_owned(), ..key.clone() }).await.unwrap(), "its name");
    assert!(!here.store.add_api_key(api_key("three", &user("nobody"), now)).await.unwrap());
    assert_eq!(here.again().api_key("one").await.unwrap(), Some(key.clone()));
    here.store.touch_api_keys(vec![("one".to_owned(), now), ("gone".to_owned(), now)]).await.unwrap();
    assert_eq!(here.store.api_keys(Some(&bob.name)).await.unwrap()[0].last_used, Some(now));
    let seq = here.store.revoke_api_key("one").await.unwrap().unwrap();
    assert_eq!(here.store.revoke_api_key("one").await.unwrap(), None);
    assert_eq!(here.store.api_key("one").await.unwrap(), None);
    let (events, _) = here.store.events_after(seq - 1, 10).await.unwrap();
    assert_eq!(events[0].kind, EventKind::ApiKeyRevoked { id: "one".to_owned() });
}

#[tokio::test]
async fn the_keys_of_a_deleted_user_end_each_with_an_event() {
    let here = Fixture::new();
    let (bob, now) = (here.add("bob").await, here.store.database().unwrap().now());
    assert!(here.store.add_api_key(api_key("one", &bob.name, now)).await.unwrap());
    here.store.delete_user(&bob.name).await.unwrap().unwrap();
    here.add("bob").await;
    assert!(here.store.api_keys(None).await.unwrap().is_empty());
    let (events, _) = here.store.events_after(0, 100).await.unwrap();
    assert!(events.iter().any(|event| event.kind == EventKind::ApiKeyRevoked { id: "one".to_owned() }));
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date_with_all_that_is_in_it() {
    let here = Fixture::new();
    here.add("bob").await;
    // What version 1 had not.
    here.sabotage(
        "DROP INDEX users_of_the_file; ALTER TABLE users DROP COLUMN file_hash;
         DROP TABLE api_keys; ALTER TABLE events DROP COLUMN api_key; ALTER TABLE sessions DROP COLUMN refreshed_at;
         ALTER TABLE keys DROP COLUMN lifetime; ALTER TABLE keys DROP COLUMN purpose; PRAGMA user_version = 1",
    )
    .await;
    let later = here.again();
    assert!(later.user(&user("bob")).await.unwrap().is_some());
    let now = later.database().unwrap().now();
    assert!(later.add_api_key(api_key("one", &user("bob"), now)).await.unwrap());
    later.revoke_api_key("one").await.unwrap().unwrap();
    let (events, _) = later.events_after(0, 100).await.unwrap();
    assert_eq!(events.len(), 2, "bob was made, the key revoked");
}
