//! A store that is locked or broken while the gateway runs: nobody is let in, and nobody is told that a good
//! credential is bad.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::Connection;

use crate::common::{Gateway, Recorder, Response, Setup, get, password_of, until};

fn store_of(gateway: &Gateway) -> Connection {
    Connection::open(gateway.dir().join("portcullis.db")).expect("the store")
}

#[track_caller]
fn assert_unavailable(answer: &Response, context: &str) {
    answer.assert_status(503, context);
    let after: u64 = answer.header("retry-after").expect("when to come again").parse().expect("seconds");
    assert!(after >= 1);
    assert_eq!(answer.json()["status"], 503);
    assert_eq!(answer.header("set-cookie"), None);
}

/// Hides every table from the gateway, or shows them again: to each query the store is broken.
fn hide_tables(store: &Connection, hidden: bool) {
    store.busy_timeout(crate::common::DEADLINE).unwrap();
    store.execute_batch("PRAGMA legacy_alter_table = ON; PRAGMA foreign_keys = OFF").unwrap();
    let mut query =
        store.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").unwrap();
    let names: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    drop(query);
    assert!(!names.is_empty());
    let renames: String = names
        .iter()
        .map(|name| {
            let other = if hidden { format!("hidden_{name}") } else { name.trim_start_matches("hidden_").to_owned() };
            format!("ALTER TABLE \"{name}\" RENAME TO \"{other}\";")
        })
        .collect();
    store.execute_batch(&format!("BEGIN IMMEDIATE; {renames} COMMIT;")).unwrap();
}

#[test]
fn a_locked_store_lets_nobody_in_and_comes_back_by_itself() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let token = gateway.token("alice");
    let store = store_of(&gateway);
    store.busy_timeout(crate::common::DEADLINE).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_unavailable(&gateway.sign_in("alice", &password_of("alice")), "signing in");
    let started = std::time::Instant::now();
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "a lock on writing stops no reader");
    gateway.send(&get("/public/x")).assert_status(200, "nor a public route");
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "traffic waits for nothing");
    store.execute_batch("ROLLBACK").unwrap();
    until("a sign-in", || (gateway.sign_in("alice", &password_of("alice")).status == 200).then_some(()));
}

#[test]
fn an_outage_is_no_failed_attempt() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let store = store_of(&gateway);
    hide_tables(&store, true);
    for _ in 0..12 {
        assert_unavailable(&gateway.sign_in("alice", &password_of("alice")), "no store");
    }
    hide_tables(&store, false);
    until("a sign-in", || {
        let answer = gateway.sign_in("alice", &password_of("alice"));
        assert_ne!(answer.status, 429, "outages were counted");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn without_a_store_what_cannot_be_judged_is_503_never_401_and_never_let_in() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("store.max_staleness", "\"1s\"").start();
    let (used, fresh) = (gateway.token("alice"), gateway.token("alice"));
    let (used_cookie, fresh_cookie) = (gateway.cookie("alice"), gateway.cookie("alice"));
    gateway.send(&get("/x").bearer(&used)).assert_status(200, "before");
    gateway.send(&get("/x").cookie(&used_cookie)).assert_status(200, "before");
    let store = store_of(&gateway);
    hide_tables(&store, true);
    app.take();
    assert_unavailable(&gateway.send(&get("/x").bearer(&fresh)), "a token never seen");
    assert_unavailable(&gateway.send(&get("/x").cookie(&fresh_cookie)), "a cookie never seen");
    let unknown = "portcullis=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_unavailable(&gateway.send(&get("/x").cookie(unknown)), "a cookie that may be anyone's");
    app.assert_untouched("what cannot be judged");
    for request in [get("/x").bearer(&used), get("/x").cookie(&used_cookie)] {
        let last = until("revocations to be stale", || {
            let answer = gateway.send(&request);
            (answer.status != 200).then_some(answer)
        });
        assert_unavailable(&last, "verified before, but revocations are not fresh");
    }
    app.take();
    assert_unavailable(&gateway.sign_in("alice", &password_of("alice")), "signing in");
    gateway.send(&get("/public/x")).assert_status(200, "a public route needs no store");
    gateway.send(&get("/x")).assert_status(401, "nor does someone without a credential");
    gateway.send(&get("/x").bearer("rubbish")).assert_status(401, "nor rubbish");
    let page = gateway.send(&get("/x").page_load().cookie(&used_cookie));
    page.assert_status(503, "a page load is not sent to sign in");
    app.take();
    hide_tables(&store, false);
    until("the token to work again", || (gateway.send(&get("/x").bearer(&used)).status == 200).then_some(()));
    until("the cookie to work again", || (gateway.send(&get("/x").cookie(&fresh_cookie)).status == 200).then_some(()));
}

#[test]
fn a_store_that_cannot_be_opened_ends_the_start() {
    let app = Recorder::start();
    let dir = Setup::new(app.address()).without_users().prepare();
    std::fs::write(
        dir.path().join("portcullis.db"),
        "this is no database, and long enough to be looked at: ".repeat(40),
    )
    .unwrap();
    let ran = crate::common::command(dir.path(), &["serve"], "");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("portcullis.db"), "{}", ran.stderr);
    let dir =
        Setup::new(app.address()).without_users().key("store.url", "\"sqlite:missing/dir/portcullis.db\"").prepare();
    assert_eq!(crate::common::command(dir.path(), &["serve"], "").code, Some(1));
}

#[test]
fn another_file_in_the_place_of_the_store_is_read_anew() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let cookie = gateway.cookie("alice");
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "before");
    // The same accounts by as many events, and nobody is signed in.
    let other = Setup::new(app.address()).prepare();
    for beside in ["-wal", "-shm"] {
        std::fs::remove_file(gateway.dir().join(format!("portcullis.db{beside}"))).unwrap();
    }
    std::fs::rename(other.path().join("portcullis.db"), gateway.dir().join("portcullis.db")).unwrap();
    until("the session to be gone", || (gateway.send(&get("/x").cookie(&cookie)).status == 401).then_some(()));
    assert_eq!(gateway.sign_in("alice", &password_of("alice")).status, 200, "and the accounts are there");
}

#[test]
fn basic_and_api_keys_are_503_while_the_store_is_down() {
    let app = Recorder::start();
    let routes = "[[routes]]\npath = \"/public/**\"\nallow = \"anyone\"\nupstream = \"app\"\naccept = [\"basic\", \"api-key\"]\n\
                  [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\naccept = [\"basic\", \"api-key\"]\n";
    let gateway = Setup::new(app.address()).routes(routes).key("store.max_staleness", "\"1s\"").start();
    let key = |name: &str| {
        let ran = gateway.command(&["apikey", "add", name, "--user", "alice"]).succeeded();
        ran.stdout.lines().next().expect("the key").to_owned()
    };
    let (used, fresh) = (key("used"), key("fresh"));
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("alice:{password}")));
    let (right, wrong) = (basic(&password_of("alice")), basic("wrong"));
    let by_key = |key: &str| get("/x").header("X-API-Key", key);
    let by_basic = |basic: &str| get("/x").header("Authorization", basic);
    gateway.send(&by_key(&used)).assert_status(200, "before");
    let store = store_of(&gateway);
    hide_tables(&store, true);
    app.take();
    assert_unavailable(&gateway.send(&by_key(&fresh)), "a key never seen");
    let unknown = format!("pck_000000000000{}", &fresh[16..]);
    gateway.send(&by_key(&unknown)).assert_status(401, "its checksum is wrong, which no store says");
    for (field, what) in [(&right, "a password never seen"), (&wrong, "a wrong one, which nobody can know")] {
        assert_unavailable(&gateway.send(&by_basic(field)), what);
    }
    until("revocations to be stale", || (gateway.send(&by_key(&used)).status == 503).then_some(()));
    app.take();
    for request in [by_key(&used), by_key(&fresh), by_basic(&right)] {
        assert_unavailable(&gateway.send(&request.header("Accept", "text/plain")), "stale");
    }
    app.assert_untouched("what cannot be judged");
    gateway.send(&get("/public/x").header("Authorization", &right)).assert_status(200, "a public route needs none");
    assert_eq!(app.only("public").header("x-forwarded-user"), None, "and names nobody");
    hide_tables(&store, false);
    for request in [by_key(&used), by_key(&fresh), by_basic(&right)] {
        until("it to work again", || (gateway.send(&request).status == 200).then_some(()));
    }
    gateway.send(&by_basic(&wrong)).assert_status(401, "and no outage was counted");
}
