//! What a ring keeps, forgets and gives back, within its bounds.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::id::numbered;
use super::super::{Page, blank};
use super::ring::{EACH, PEOPLE_BYTES, TEXT_BYTES};
use super::*;
use crate::access::{Reason, Shown, Source};
use crate::identity::{Identity, Profile};

/// A request of id `id`, and of the second `id`.
fn record(id: usize, decision: &'static str, path: &str) -> Record {
    let now = (Timestamp::from_secs(id as u64), std::time::Instant::now());
    let mut record = blank(numbered(id as u128), [127, 0, 0, 1].into(), now);
    record.decision = decision;
    record.page = Page::Written { host: "apps.example.com".to_owned(), path: path.to_owned() };
    record
}

fn keep(recent: &Recent, id: usize, decision: &'static str, path: &str) {
    recent.keep(&record(id, decision, path));
}

fn find(recent: &Recent, id: usize) -> Option<Kept> {
    recent.find(&numbered(id as u128).digits())
}

/// Someone whose claims take about so many bytes.
fn someone(name: &str, bytes: usize) -> Arc<Identity> {
    let claims: Map<String, Value> = [("x".to_owned(), "x".repeat(bytes).into())].into_iter().collect();
    Arc::new(Identity {
        profile: Arc::new(Profile::new(name, &[], None, None).unwrap()),
        scopes: Vec::new(),
        claims: Arc::new(claims),
        methods: Vec::new(),
        signed_in_at: None,
        session: None,
    })
}

fn keep_of(recent: &Recent, id: usize, identity: &Arc<Identity>) {
    let mut record = record(id, "permit", "/x");
    record.asker.identity = Some(Arc::clone(identity));
    recent.keep(&record);
}

#[test]
fn traffic_that_passes_drives_no_refusal_out() {
    let recent = Recent::default();
    keep(&recent, 7, "deny", "/admin");
    for id in 100..30_100 {
        keep(&recent, id, "permit", "/x");
    }
    assert_eq!(find(&recent, 7).unwrap().path, "/admin");
    assert!(find(&recent, 100).is_none() && find(&recent, 20_099).is_none(), "the oldest that passed");
    assert!(find(&recent, 20_100).is_some() && find(&recent, 30_099).is_some());
    let (refused, passed) = recent.reach();
    assert_eq!(refused, Reach { count: 1, since: Some(Timestamp::from_secs(7)), forgets: false });
    assert_eq!((passed.count, passed.forgets), (MOST, true));
    assert_eq!(passed.since, Some(Timestamp::from_secs(20_100)));
    let all = recent.all();
    assert_eq!(all.len(), MOST + 1);
    assert!(all.is_sorted_by_key(|kept| kept.time));
}

#[test]
fn all_that_is_told_comes_back_as_it_was() {
    let recent = Recent::default();
    let bob = someone("bob", 10);
    let routes: Arc<[String]> = vec!["api".to_owned()].into();
    let mut record = record(3, "permit", "/a/ä");
    record.client = "2001:db8::7".parse().unwrap();
    record.method = Method::from_bytes(b"PROPFIND-AND-MORE-OF-IT").unwrap();
    record.status = StatusCode::IM_A_TEAPOT;
    record.route = Some("rest".into());
    (record.upstream, record.server, record.tries) = (Some("app".into()), Some("10.0.0.1:9000".into()), 3);
    record.because(Reason::Line(crate::message::line::LineError::Target("no path")), Some(Reading::DecodedSlash));
    record.asker = Asker {
        identity: Some(Arc::clone(&bob)),
        shown: Shown::ApiKey,
        source: Source::Issuer(4),
        issuer: Some("corp".into()),
        key_routes: Some(Arc::clone(&routes)),
        unproven: Some(Reason::TokenExpired),
    };
    recent.keep(&record);
    // The same person by another key, and a request of nobody with nothing to say.
    record.request_id = numbered(7);
    record.asker.key_routes = None;
    recent.keep(&record);
    keep(&recent, 11, "not-found", "");
    let kept = find(&recent, 3).unwrap();
    assert_eq!((&*kept.host, &*kept.path, &kept.method), ("apps.example.com", "/a/ä", &record.method));
    assert_eq!((kept.time, kept.client, kept.status), (record.time, record.client, record.status));
    assert_eq!((kept.route.as_deref(), kept.upstream.as_deref()), (Some("rest"), Some("app")));
    assert_eq!((kept.server.as_deref(), kept.tries), (Some("10.0.0.1:9000"), 3));
    assert_eq!((kept.decision, kept.code, &*kept.reason), ("permit", record.code, &*record.reason));
    assert!(kept.reason.ends_with(Reading::DecodedSlash.name()) && kept.reading == Some(Reading::DecodedSlash));
    let asker = kept.asker;
    assert!(Arc::ptr_eq(&asker.identity.unwrap(), &bob) && Arc::ptr_eq(&asker.key_routes.unwrap(), &routes));
    assert_eq!((asker.shown, asker.unproven), (Shown::ApiKey, Some(Reason::TokenExpired)));
    assert_eq!((asker.issuer.as_deref(), asker.source), (Some("corp"), Source::Unknown));
    let other = find(&recent, 7).unwrap().asker;
    assert!(Arc::ptr_eq(&other.identity.unwrap(), &bob) && other.key_routes.is_none());
    let bare = find(&recent, 11).unwrap();
    assert!(bare.route.is_none() && bare.upstream.is_none() && bare.server.is_none() && bare.asker.identity.is_none());
    assert_eq!((bare.path, bare.reason, bare.method), (String::new(), String::new(), Method::GET));
}

#[test]
fn long_paths_take_no_more_memory_than_there_is() {
    let recent = Recent::default();
    let long = format!("/{}", "x".repeat(30_000));
    for id in 0..2_000 {
        keep(&recent, id, "deny", &long);
    }
    let (refused, _) = recent.reach();
    assert!(refused.count * long.len() <= MOST_BYTES && refused.count > 100, "{refused:?}");
    assert!(recent.find("nothing").is_none() && recent.find("").is_none());
    assert!(recent.all().iter().all(|kept| kept.path == long));
}

#[test]
fn texts_of_all_sizes_stay_whole_until_they_are_forgotten() {
    let recent = Recent::default();
    // A step that is prime to the sizes, so that they come in no order.
    // Every other one is short.
    let path = |id: usize| match (id / SHARDS).is_multiple_of(2) {
        true => format!("/{id}/{}", "x".repeat(id * 7_919 % 60_000)),
        false => format!("/{id}"),
    };
    for id in (0..6_000).map(|nth| nth * SHARDS) {
        keep(&recent, id, "permit", &path(id));
    }
    let (_, passed) = recent.reach();
    let all = recent.all();
    assert_eq!(all.len(), passed.count);
    assert!(all.iter().map(|kept| kept.path.len()).sum::<usize>() <= TEXT_BYTES);
    let first = 6_000 - all.len();
    for (nth, kept) in all.iter().enumerate() {
        let id = (first + nth) * SHARDS;
        assert_eq!(kept.request_id, numbered(id as u128), "none between two is missing");
        assert_eq!(kept.path, path(id));
    }
    // As much as fits at least, but for what stays empty at the end and what the next one takes.
    assert!(all.iter().map(|kept| kept.path.len()).sum::<usize>() > TEXT_BYTES - 3 * 60_000);
    assert!(find(&recent, (first - 1) * SHARDS).is_none());
}

#[test]
fn what_is_larger_than_all_room_is_not_kept_and_drives_nothing_out() {
    let recent = Recent::default();
    keep(&recent, 0, "permit", "/x");
    assert!(!recent.reach().1.forgets);
    keep(&recent, 4, "permit", &"x".repeat(TEXT_BYTES));
    keep_of(&recent, 8, &someone("bob", PEOPLE_BYTES));
    assert!(find(&recent, 4).is_none() && find(&recent, 8).is_none());
    assert_eq!(find(&recent, 0).unwrap().path, "/x");
    assert_eq!((recent.reach().1.count, recent.reach().1.forgets), (1, true));
    keep(&recent, 12, "permit", "/y");
    assert_eq!(find(&recent, 12).unwrap().path, "/y");
}

#[test]
fn people_are_kept_once_and_no_longer_than_their_requests() {
    let recent = Recent::default();
    // Those who fall on one place would weigh more.
    let many: Vec<_> = (0..20).map(|number| someone(&format!("user-{number}"), PEOPLE_BYTES / 4)).collect();
    let mut places = std::collections::HashSet::new();
    let people: Vec<_> = many.iter().filter(|one| places.insert(people::place(one))).take(3).collect();
    assert_eq!(people.len(), 3);
    for nth in 0..EACH {
        keep_of(&recent, nth * SHARDS, people[nth % 3]);
    }
    assert_eq!(recent.reach().1.count, EACH, "three weigh as three, however often they come");
    assert!(people.iter().all(|one| Arc::strong_count(one) == 2));
    assert!(Arc::ptr_eq(&find(&recent, SHARDS).unwrap().asker.identity.unwrap(), people[1]));
    for nth in EACH..2 * EACH {
        keep(&recent, nth * SHARDS, "permit", "/x");
    }
    assert!(people.iter().all(|one| Arc::strong_count(one) == 1));
}

#[test]
fn many_people_with_large_claims_take_no_more_memory_than_there_is() {
    let recent = Recent::default();
    let weak: Vec<_> = (0..EACH)
        .map(|nth| {
            let identity = someone(&format!("user-{nth}"), 3_000);
            keep_of(&recent, nth * SHARDS, &identity);
            Arc::downgrade(&identity)
        })
        .collect();
    let alive = weak.iter().filter(|identity| identity.strong_count() > 0).count();
    assert_eq!(alive, recent.reach().1.count);
    assert!(alive * 3_000 <= PEOPLE_BYTES && alive * 4_000 > PEOPLE_BYTES, "{alive}");
    assert!(weak.iter().rev().take(alive).all(|identity| identity.strong_count() > 0), "the latest");
}

#[test]
fn workers_write_and_read_at_once() {
    let recent = Recent::default();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let recent = &recent;
            let one = someone(&format!("user-{worker}"), 10);
            scope.spawn(move || {
                for nth in 0..20_000 {
                    let id = 2 * nth + worker;
                    let mut record = record(id, if nth % 5 == 0 { "deny" } else { "permit" }, &format!("/{id}"));
                    record.asker.identity = Some(Arc::clone(&one));
                    recent.keep(&record);
                }
            });
        }
        for _ in 0..5 {
            for kept in recent.all() {
                assert_eq!(kept.request_id, numbered(kept.path[1..].parse().unwrap()));
                let last = kept.path.as_bytes()[kept.path.len() - 1] % 2;
                assert_eq!(kept.asker.identity.unwrap().profile.user, format!("user-{last}"));
            }
        }
    });
    let (refused, passed) = recent.reach();
    assert_eq!((refused.count, passed.count), (8_000, MOST));
    assert_eq!(recent.all().len(), 18_000);
}
