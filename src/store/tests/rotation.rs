//! Refresh tokens in the store, at times that the test states.

use super::*;

const IDLE: Duration = Duration::from_secs(1800);

fn hash(generation: u32) -> Digest {
    let mut hash = [7; 32];
    hash[..4].copy_from_slice(&generation.to_be_bytes());
    hash
}

impl Fixture {
    async fn family(&self) -> SessionRecord {
        let bob = self.add("bob").await;
        let record = SessionRecord {
            key_hash: None,
            refresh_hash: Some(hash(0)),
            ..session("s", &bob.name, self.store.database().unwrap().now())
        };
        self.store.create_session(record.clone(), bob.password_version).await.unwrap().unwrap();
        record
    }

    async fn use_refresh(&self, generation: u32) -> Rotated {
        let rotation = Rotation {
            session: "s".to_owned(),
            generation,
            hash: hash(generation),
            successor: hash(generation + 1),
            grace: Duration::from_secs(10),
            idle: IDLE,
        };
        self.store.rotate_refresh(rotation).await.unwrap()
    }

    async fn has_ended(&self) -> bool {
        let (events, _) = self.store.events_after(0, 100).await.unwrap();
        let ended = EventKind::SessionEnded { session: "s".to_owned() };
        let told = events.iter().any(|event| event.kind == ended);
        assert_eq!(told, self.store.session("s").await.unwrap().is_none(), "the row and its event go together");
        told
    }
}

#[tokio::test]
async fn a_repeat_is_forgiven_for_ten_seconds_and_no_longer() {
    for (after, forgiven) in [(0, true), (9_999, true), (10_000, false), (60_000, false)] {
        let here = Fixture::new();
        here.family().await;
        assert!(matches!(here.use_refresh(0).await, Rotated::Renewed(_)));
        here.hand.advance(Duration::from_millis(after));
        match here.use_refresh(0).await {
            Rotated::Repeated(session) => assert!(forgiven && session.refresh_hash == Some(hash(1)), "{after} ms"),
            Rotated::Reused(_) => assert!(!forgiven, "{after} ms"),
            other => panic!("{after} ms: {other:?}"),
        }
        assert_eq!(here.has_ended().await, !forgiven);
        assert_eq!(here.use_refresh(1).await == Rotated::Unknown, !forgiven, "the successor, {after} ms");
    }
}

#[tokio::test]
async fn the_ten_seconds_are_counted_from_the_first_use() {
    let here = Fixture::new();
    here.family().await;
    here.use_refresh(0).await;
    for _ in 0..3 {
        here.hand.advance(Duration::from_secs(3));
        assert!(matches!(here.use_refresh(0).await, Rotated::Repeated(_)));
    }
    here.hand.advance(Duration::from_secs(1));
    assert!(matches!(here.use_refresh(0).await, Rotated::Reused(_)));
}

#[tokio::test]
async fn a_clock_that_is_set_back_leaves_no_door_open() {
    let here = Fixture::new();
    here.family().await;
    here.use_refresh(0).await;
    here.hand.set_wall(here.store.database().unwrap().now() - Duration::from_secs(60));
    assert!(matches!(here.use_refresh(1).await, Rotated::Renewed(_)), "the current one is good at any time");
    here.hand.set_wall(here.store.database().unwrap().now() - Duration::from_secs(60));
    assert!(matches!(here.use_refresh(1).await, Rotated::Reused(_)));
    assert!(here.has_ended().await);
}

#[tokio::test]
async fn an_older_generation_ends_the_session_and_a_strange_hash_nothing() {
    let here = Fixture::new();
    here.family().await;
    let strange = Rotation {
        session: "s".to_owned(),
        generation: 0,
        hash: [9; 32],
        successor: hash(1),
        grace: Duration::from_secs(10),
        idle: IDLE,
    };
    assert_eq!(here.store.rotate_refresh(strange).await.unwrap(), Rotated::Unknown);
    assert!(!here.has_ended().await);
    here.use_refresh(0).await;
    here.use_refresh(1).await;
    assert!(matches!(here.use_refresh(0).await, Rotated::Reused(_)));
    assert!(here.has_ended().await);
}

#[tokio::test]
async fn a_family_ends_by_idle_and_by_lifetime() {
    let here = Fixture::new();
    let record = here.family().await;
    here.hand.advance(IDLE - Duration::from_millis(1));
    assert!(matches!(here.use_refresh(0).await, Rotated::Renewed(_)), "a use, so the idle time begins anew");
    here.hand.advance(IDLE - Duration::from_millis(1));
    assert!(matches!(here.use_refresh(1).await, Rotated::Renewed(_)));
    here.hand.set_wall(record.expires_at);
    assert_eq!(here.use_refresh(2).await, Rotated::Over);
    let here = Fixture::new();
    here.family().await;
    here.hand.advance(IDLE);
    assert_eq!(here.use_refresh(0).await, Rotated::Over);
    assert!(here.has_ended().await);
}

#[tokio::test]
async fn a_cookie_has_no_refresh_token_and_a_restored_backup_locks_nobody_out() {
    let here = Fixture::new();
    let bob = here.add("bob").await;
    here.sign_in(&bob, "s").await;
    assert_eq!(here.use_refresh(0).await, Rotated::Unknown);
    let here = Fixture::new();
    here.family().await;
    assert!(matches!(here.use_refresh(5).await, Rotated::Renewed(_)), "issued after the backup");
    assert!(matches!(here.use_refresh(6).await, Rotated::Renewed(_)));
    assert!(matches!(here.use_refresh(0).await, Rotated::Reused(_)));
}
