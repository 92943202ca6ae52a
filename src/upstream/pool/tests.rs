use std::net::Ipv4Addr;

use super::super::health::Checked;
use super::*;
use crate::config::{Check, Ejection, Health, HostPort, ServerAddr, Timeouts, UpstreamLimits, WeightedServer};

const NOBODY: Caller<'static> = Caller { user: None, client: IpAddr::V4(Ipv4Addr::LOCALHOST) };

fn settings(servers: &[u16]) -> Settings {
    let server = |port: &u16| WeightedServer {
        address: ServerAddr::Http(HostPort { host: "::1".into(), port: *port }),
        weight: 1,
    };
    Settings {
        name: "app".into(),
        servers: servers.iter().map(server).collect(),
        tls: Default::default(),
        balance: Balance::LeastRequests,
        health: Health { check: None, ejection: Ejection::default() },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(20),
            between: None,
            total: None,
            idle: Duration::from_secs(90),
        },
        limits: UpstreamLimits { connections: 2, idle: 32, pending: 1 },
    }
}

fn checked(mut settings: Settings) -> Settings {
    settings.health.check = Some(Check {
        path: "/healthz".parse().unwrap(),
        host: None,
        interval: Duration::from_secs(7),
        timeout: Duration::from_secs(2),
        healthy: 2,
        unhealthy: 3,
        status: vec![200..=299],
    });
    settings
}

fn pool(settings: Settings) -> Arc<Pool> {
    Pool::new(&Arc::new(settings), &Metrics::new(0), None).unwrap()
}

async fn places(pool: &Pool, count: usize) -> Vec<usize> {
    let mut places = Vec::new();
    for _ in 0..count {
        places.push(pool.admit(&[], 0, Instant::now()).await.unwrap().at);
    }
    places
}

fn fail(pool: &Pool, at: usize) {
    (0..5).for_each(|_| pool.failed(at));
}

#[tokio::test(start_paused = true)]
async fn one_too_many_waits_and_one_more_is_refused() {
    let pool = pool(settings(&[80]));
    assert_eq!(pool.backend(0).unwrap().authority().as_str(), "[::1]:80");
    let (first, _second) =
        (pool.admit(&[], 0, Instant::now()).await.unwrap(), pool.admit(&[], 0, Instant::now()).await.unwrap());
    let waiting = tokio::spawn({
        let pool = Arc::clone(&pool);
        async move { pool.admit(&[], 0, Instant::now()).await.map(|turn| (turn.at, turn.has_waited)) }
    });
    while pool.backend(0).unwrap().pending() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.admit(&[], 0, Instant::now()).await.unwrap_err(), NoTurn::Busy);
    assert_eq!((pool.counts().waiting.value(), pool.backend(0).unwrap().in_flight()), (1, 2));
    assert!(!first.has_waited);
    drop(first);
    assert_eq!(waiting.await.unwrap(), Ok((0, true)));
    assert_eq!((pool.backend(0).unwrap().pending(), pool.counts().waiting.value()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let pool = pool(settings(&[80]));
    let _held = (pool.admit(&[], 0, Instant::now()).await, pool.admit(&[], 0, Instant::now()).await);
    assert_eq!(pool.admit(&[], 0, Instant::now()).await.unwrap_err(), NoTurn::Busy);
    assert_eq!(pool.backend(0).unwrap().pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_server_gives_way_and_when_all_are_full_the_first_that_is_free_is_taken() {
    let hashed = Settings { balance: Balance::Hash(HashBy::Client), ..settings(&[81, 82]) };
    let pool = pool(hashed);
    let key = pool.key(&HeaderMap::new(), NOBODY);
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(pool.admit(&[], key, Instant::now()).await.unwrap());
    }
    let own = turns[0].at;
    assert_eq!(turns.iter().map(|turn| turn.at).collect::<Vec<_>>(), [own, own, 1 - own, 1 - own]);
    let wait = || {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.admit(&[], key, Instant::now()).await.map(|turn| turn.at) })
    };
    let (one, other) = (wait(), wait());
    while pool.counts().waiting.value() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.admit(&[], key, Instant::now()).await.unwrap_err(), NoTurn::Busy, "one may wait for each server");
    // The other server's: whoever waits for its own takes it too.
    drop(turns.pop());
    assert_eq!((one.await.unwrap(), other.await.unwrap()), (Ok(1 - own), Ok(1 - own)));
}

#[tokio::test(start_paused = true)]
async fn weights_count_where_requests_are_over_at_once() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::RandomTwo] {
        let name = balance.name();
        let mut settings = Settings { balance, ..settings(&[81, 82]) };
        settings.servers[0].weight = 3;
        let taken = places(&pool(settings), 400).await;
        let first = taken.iter().filter(|at| **at == 0).count();
        // Drawn ones are spread by chance.
        let most_off = if name == "random-two" { 30 } else { 0 };
        assert!(first.abs_diff(300) <= most_off, "{name}: {first} of 400");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_gets_no_more_than_the_others_have_in_progress() {
    let pool = pool(settings(&[81, 82, 83]));
    let slow = pool.admit(&[], 0, Instant::now()).await.unwrap();
    assert!(places(&pool, 100).await.iter().all(|at| *at != slow.at));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_requests_is_left_out_but_never_the_last_one() {
    let pool = pool(settings(&[81, 82]));
    fail(&pool, 0);
    assert_eq!(pool.standing(0), Some(Standing::Out));
    assert!(places(&pool, 10).await.iter().all(|at| *at == 1));
    fail(&pool, 1);
    assert_eq!(pool.standing(1), Some(Standing::In(WHOLE)), "it is the last one");
    assert_eq!(pool.backend(0).unwrap().tally().ejections.value(), 1);
    // Both left out, as two workers may do at the same moment: they are better than nothing.
    let own = pool.backend(1).unwrap().health();
    own.failed(Instant::now(), &pool.settings().health.ejection, || false);
    assert_eq!(pool.standing(1), Some(Standing::Out));
    assert!(pool.admit(&[], 0, Instant::now()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_back_gets_a_small_share_first() {
    let pool = pool(Settings { balance: Balance::RoundRobin, ..settings(&[81, 82]) });
    fail(&pool, 0);
    tokio::time::advance(Duration::from_secs(10)).await;
    let share = |taken: Vec<usize>| taken.iter().filter(|at| **at == 0).count();
    let early = share(places(&pool, 110).await);
    assert!((9..=11).contains(&early), "{early} of 110");
    tokio::time::advance(Duration::from_secs(30)).await;
    // Its last small turn counts for ten whole ones.
    places(&pool, 20).await;
    assert_eq!(share(places(&pool, 100).await), 50);
}

#[tokio::test(start_paused = true)]
async fn where_checks_find_no_server_well_the_answer_comes_at_once() {
    let pool = pool(checked(settings(&[81, 82])));
    let set = |at: usize, checked| pool.backend(at).unwrap().health().set_checked(checked, Instant::now());
    set(0, Checked::Down);
    assert_eq!(pool.admit(&[], 0, Instant::now()).await.unwrap().at, 1);
    fail(&pool, 1);
    assert_eq!(pool.admit(&[], 0, Instant::now()).await.unwrap().at, 1, "the last one that checks find well stays");
    set(1, Checked::Down);
    assert_eq!(pool.admit(&[], 0, Instant::now()).await.unwrap_err(), NoTurn::Down(Duration::from_secs(7)));
    assert_eq!(pool.admit(&[1], 0, Instant::now()).await.unwrap_err(), NoTurn::NoOther);
    set(0, Checked::Up);
    assert_eq!(pool.admit(&[], 0, Instant::now()).await.unwrap().at, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_the_same_stays_when_servers_come_and_go() {
    let (metrics, old) = (Metrics::new(0), Arc::new(settings(&[81, 82])));
    let before = Pool::new(&old, &metrics, None).unwrap();
    fail(&before, 0);
    before.backend(1).unwrap().tally().requests.count();
    let after = Pool::new(&Arc::new(settings(&[83, 82, 81])), &metrics, Some(&before)).unwrap();
    assert!(Arc::ptr_eq(after.backend(1).unwrap(), before.backend(1).unwrap()));
    assert!(Arc::ptr_eq(after.backend(2).unwrap(), before.backend(0).unwrap()));
    assert_eq!((after.standing(2), after.standing(0)), (Some(Standing::Out), Some(Standing::In(WHOLE))));
    // Other timeouts need other connections; what is known of the server is kept all the same.
    let mut slower = settings(&[81, 82]);
    slower.timeouts.connect *= 2;
    let slower = Pool::new(&Arc::new(slower), &metrics, Some(&after)).unwrap();
    assert!(!Arc::ptr_eq(slower.backend(1).unwrap(), before.backend(1).unwrap()));
    assert_eq!(slower.standing(0), Some(Standing::Out));
    assert_eq!(slower.backend(1).unwrap().tally().requests.value(), 1);
}

#[test]
fn a_request_is_hashed_by_what_the_configuration_says_or_by_its_network() {
    let key = |by: &HashBy, fields: &[(&'static str, &'static str)], user| {
        let pool = pool(Settings { balance: Balance::Hash(by.clone()), ..settings(&[81]) });
        let field = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        pool.key(&fields.iter().map(field).collect(), Caller { user, ..NOBODY })
    };
    let network = balance::network(NOBODY.client);
    let (tenant, cookie) = (HashBy::Header("x-tenant".parse().unwrap()), HashBy::Cookie("JSESSIONID".to_owned()));
    for by in [&tenant, &cookie, &HashBy::User, &HashBy::Client] {
        assert_eq!(key(by, &[], None), network, "{by}");
    }
    assert_eq!(key(&tenant, &[("x-tenant", "a")], None), balance::hash(b"a"));
    assert_eq!(key(&cookie, &[("cookie", "x=1; JSESSIONID=abc")], None), balance::hash(b"abc"));
    assert_eq!(key(&HashBy::User, &[], Some("alice")), balance::hash(b"alice"));
    assert_eq!(key(&HashBy::Client, &[("x-tenant", "a")], Some("alice")), network);
}
