//! What the counters let in, over a real store and a clock that is moved by hand.

use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::config::{self, StoreKind};
use crate::secret::{Random, Secret};
use crate::store::{EventKind, NewUser};

const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.7";

struct Fixture {
    directory: TempDir,
    hand: ManualClock,
    store: Store,
    throttle: Throttle,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hand = ManualClock::at(Timestamp::from_secs(1_700_000_000));
        let path = directory.path().join("portcullis.db");
        let config =
            config::Store { kind: StoreKind::Sqlite(path), users: None, max_staleness: Duration::from_secs(30) };
        let clock = Clock::manual(&hand);
        let store = Store::open(&config, clock.clone(), Random::system()).unwrap();
        for name in ["alice", "bob"] {
            let name = UserName::parse(name).unwrap();
            let user = NewUser { name, hash: Some(Secret::from("x")), groups: vec![], email: None, full_name: None };
            store.add_user(user).await.unwrap().unwrap();
        }
        let throttle = Throttle::start(store.clone(), clock).await.unwrap();
        Self { directory, hand, store, throttle }
    }

    async fn check(&self, name: &str, network: &str) -> Result<Attempt, RetryAfter> {
        self.throttle.check(name, network.parse().unwrap(), None).await
    }

    /// Fails `times` times, which all are let in.
    async fn fail(&self, times: usize, name: &str, network: &str) {
        for _ in 0..times {
            self.check(name, network).await.unwrap().failed();
        }
    }

    async fn wait(&self, name: &str, network: &str) -> u64 {
        match self.check(name, network).await {
            Ok(attempt) => {
                attempt.abandoned();
                0
            }
            Err(wait) => wait.seconds(),
        }
    }

    async fn restarted(&self) -> Throttle {
        // Monotonic time begins anew with a process; wall-clock time goes on.
        let hand = ManualClock::at(self.store_time());
        Throttle::start(self.store.clone(), Clock::manual(&hand)).await.unwrap()
    }

    fn store_time(&self) -> Timestamp {
        Clock::manual(&self.hand).now()
    }
}

#[tokio::test]
async fn an_account_is_slowed_down_from_everywhere_but_never_for_more_than_a_minute() {
    let here = Fixture::new().await;
    here.fail(3, "alice", HOME).await;
    here.fail(3, "ALICE", ELSEWHERE).await;
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(here.wait("alice", "203.0.113.9").await, wait);
        assert_eq!(here.wait("bob", "203.0.113.9").await, 0);
        here.hand.advance(Duration::from_secs(wait) - Duration::from_millis(1));
        assert_eq!(here.wait("alice", HOME).await, 1);
        here.hand.advance(Duration::from_millis(1));
        here.fail(1, "alice", &format!("203.0.113.{wait}")).await;
    }
}

#[tokio::test]
async fn a_network_is_slowed_down_whatever_the_names() {
    let here = Fixture::new().await;
    for number in 0..11 {
        here.fail(1, &format!("spray{number}"), HOME).await;
    }
    assert_eq!(here.wait("bob", HOME).await, 1);
    assert_eq!(here.wait("bob", ELSEWHERE).await, 0);
}

#[tokio::test]
async fn unknown_names_and_names_that_can_not_be_are_counted_like_any_other() {
    let here = Fixture::new().await;
    for (name, same) in [("nobody", "NoBody"), ("no such name!", "No Such Name!"), ("ÅLICE", "ålice"), ("", "")] {
        for number in 0..6 {
            here.fail(1, name, &format!("203.0.113.{number}")).await;
        }
        assert_eq!(here.wait(same, "203.0.113.99").await, 1, "{name:?}");
    }
}

#[tokio::test]
async fn an_ipv6_network_is_a_64_and_a_mapped_address_is_ipv4() {
    let here = Fixture::new().await;
    for number in 0..11 {
        here.fail(1, &format!("a{number}"), &format!("2001:db8:0:1::{number}")).await;
        here.fail(1, &format!("b{number}"), &format!("::ffff:{HOME}")).await;
    }
    assert_eq!(here.wait("x", "2001:db8:0:1:ffff::1").await, 1);
    assert_eq!(here.wait("x", "2001:db8:0:2::1").await, 0);
    assert_eq!(here.wait("x", HOME).await, 1);
}

#[tokio::test]
async fn a_hundred_guesses_at_once_get_no_further_than_one_after_the_other() {
    let here = Fixture::new().await;
    let mut guesses = Vec::new();
    for number in 0..100 {
        let throttle = here.throttle.clone();
        guesses.push(tokio::spawn(async move {
            let network = IpAddr::from([203, 0, 113, number]);
            match throttle.check("alice", network, None).await {
                Ok(mut attempt) => {
                    attempt.judging();
                    tokio::task::yield_now().await;
                    attempt.failed();
                    true
                }
                Err(_) => false,
            }
        }));
    }
    let mut let_in = 0;
    for guess in guesses {
        let_in += usize::from(guess.await.unwrap());
    }
    assert_eq!(let_in, 6);
}

#[tokio::test]
async fn many_who_know_their_password_wait_for_each_other_and_all_get_in() {
    let here = Fixture::new().await;
    let mut people = Vec::new();
    for number in 0..64 {
        let throttle = here.throttle.clone();
        people.push(tokio::spawn(async move {
            let name = if number % 2 == 0 { "alice".to_owned() } else { format!("user{number}") };
            let mut attempt = throttle.check(&name, HOME.parse().unwrap(), None).await.unwrap();
            attempt.judging();
            tokio::task::yield_now().await;
            attempt.succeeded(None).await;
        }));
    }
    for person in people {
        person.await.unwrap();
    }
}

#[tokio::test]
async fn a_familiar_network_or_browser_is_not_slowed_down_by_strangers() {
    let here = Fixture::new().await;
    let laptop = [7; 32];
    here.check("alice", HOME).await.unwrap().succeeded(Some(laptop)).await;
    for number in 0..6 {
        here.fail(1, "alice", &format!("203.0.113.{number}")).await;
    }
    assert_eq!(here.wait("alice", ELSEWHERE).await, 1);
    assert_eq!(here.wait("alice", HOME).await, 0);
    let from = async |browser| here.throttle.check("alice", ELSEWHERE.parse().unwrap(), browser).await;
    from(Some(laptop)).await.unwrap().abandoned();
    assert!(from(Some([8; 32])).await.is_err());
    // The network's own counter holds there too, and for other accounts nothing is familiar.
    here.fail(11, "alice", HOME).await;
    assert_eq!(here.wait("alice", HOME).await, 1);
}

#[tokio::test]
async fn a_success_forgives_ones_own_failures_and_no_others() {
    let here = Fixture::new().await;
    here.fail(4, "alice", HOME).await;
    here.check("alice", HOME).await.unwrap().succeeded(None).await;
    for number in 0..11 {
        assert_eq!(here.wait("alice", HOME).await, 0);
        here.fail(1, &format!("spray{number}"), HOME).await;
    }
    assert_eq!(here.wait("alice", HOME).await, 1);
}

#[tokio::test]
async fn an_account_of_ones_own_does_not_wipe_the_networks_counter() {
    let here = Fixture::new().await;
    let mut let_in = 0;
    for number in 0..50 {
        if let Ok(attempt) = here.check(&format!("victim{number}"), HOME).await {
            attempt.failed();
            let_in += 1;
        }
        if let Ok(attempt) = here.check("bob", HOME).await {
            attempt.succeeded(None).await;
        }
    }
    assert_eq!(let_in, 11);
}

#[tokio::test]
async fn what_was_not_judged_is_not_counted_but_a_client_that_leaves_is() {
    let here = Fixture::new().await;
    for _ in 0..50 {
        here.check("alice", HOME).await.unwrap().abandoned();
        drop(here.check("alice", HOME).await.unwrap());
    }
    assert_eq!(here.wait("alice", HOME).await, 0);
    for _ in 0..6 {
        let mut attempt = here.check("alice", HOME).await.unwrap();
        attempt.judging();
        drop(attempt);
    }
    assert_eq!(here.wait("alice", HOME).await, 1);
}

#[tokio::test]
async fn counters_survive_a_restart_and_a_clock_that_is_set() {
    let here = Fixture::new().await;
    here.fail(1, "alice", HOME).await;
    here.fail(5, "alice", ELSEWHERE).await;
    here.hand.set_wall(Timestamp::from_secs(1_700_000_000 + 86_400));
    assert_eq!(here.wait("alice", HOME).await, 1, "no wait ends because the clock was set");
    here.throttle.save().await.unwrap();
    let again = here.restarted().await;
    assert!(again.check("alice", "203.0.113.1".parse().unwrap(), None).await.is_err());
    assert!(again.check("bob", HOME.parse().unwrap(), None).await.is_ok());
    here.hand.advance(Duration::from_secs(1));
    let later = here.restarted().await;
    later.check("alice", HOME.parse().unwrap(), None).await.unwrap().failed();
    let wait = later.check("alice", HOME.parse().unwrap(), None).await.unwrap_err();
    assert_eq!(wait.seconds(), 2, "the next wait is the second");
}

#[tokio::test]
async fn unlock_clears_the_account_and_what_it_has_cost_its_networks() {
    let here = Fixture::new().await;
    let alice = UserName::parse("alice").unwrap();
    here.fail(2, "bob", HOME).await;
    for _ in 0..15 {
        match here.check("alice", HOME).await {
            Ok(attempt) => attempt.failed(),
            Err(wait) => here.hand.advance(Duration::from_secs(wait.seconds())),
        }
    }
    assert_eq!((here.wait("alice", ELSEWHERE).await, here.wait("carol", HOME).await), (16, 2));
    let seq = here.store.unlock(&alice).await.unwrap().unwrap();
    let event = here.store.events_after(seq - 1, 1).await.unwrap().0.remove(0);
    assert_eq!(event.kind, EventKind::Unlocked { user: alice.clone() });
    here.throttle.unlock(&alice, event.at);
    assert_eq!((here.wait("alice", HOME).await, here.wait("carol", HOME).await), (0, 0));

    here.hand.advance(Duration::from_secs(1));
    here.fail(6, "alice", ELSEWHERE).await;
    here.throttle.unlock(&alice, event.at);
    assert_eq!(here.wait("alice", ELSEWHERE).await, 1, "an old event forgives nothing that came after it");
}

#[tokio::test]
async fn a_store_that_is_down_counts_on_and_saves_later() {
    let here = Fixture::new().await;
    here.fail(6, "alice", HOME).await;
    let away = here.directory.path().with_extension("away");
    std::fs::rename(here.directory.path(), &away).unwrap();
    assert_eq!(here.wait("alice", HOME).await, 1);
    assert!(here.throttle.save().await.is_err());
    std::fs::rename(&away, here.directory.path()).unwrap();
    here.throttle.save().await.unwrap();
    assert_eq!(here.store.throttle_rows().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_clock_that_is_set_back_lengthens_no_wait_and_shortens_none() {
    let here = Fixture::new().await;
    here.fail(6, "alice", HOME).await;
    assert_eq!(here.wait("alice", ELSEWHERE).await, 1);
    for wall in [1_700_000_000 - 3600, 0, 1_700_000_000 + 3600] {
        here.hand.set_wall(Timestamp::from_secs(wall));
        assert_eq!(here.wait("alice", ELSEWHERE).await, 1, "{wall}");
    }
    here.hand.set_wall(Timestamp::from_secs(1_700_000_000 - 3600));
    here.throttle.save().await.unwrap();
    let again = here.restarted().await;
    let wait = match again.check("alice", ELSEWHERE.parse().unwrap(), None).await {
        Ok(_) => 0,
        Err(wait) => wait.seconds(),
    };
    assert!(wait <= 60, "{wait}");
}
