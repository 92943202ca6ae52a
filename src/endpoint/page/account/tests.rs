//! The account's pages against stored ones (`UPDATE=1` writes them anew), and what must hold for each of them.

use std::path::Path;

use super::*;

const NASTY: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>";

const NOW: Timestamp = Timestamp::from_secs(1_795_473_960);

fn frame() -> Frame<'static> {
    Frame { title: "Example apps", user: "alice", logout_path: "/logout", path: "/.gateway/account", now: NOW }
}

fn session(id: &str, browser: &str, minutes: u64, kept: Kept) -> Session {
    let since = NOW - Duration::from_secs(minutes * 60);
    let (id, browser) = (id.to_owned(), browser.to_owned());
    let expires_at = since + Duration::from_secs(30 * 86_400);
    Session { id, browser, client: "192.0.2.7".to_owned(), since, last_used: since, expires_at, kept }
}

fn this() -> Session {
    session("this-one", "Firefox on Linux", 3, Kept::WhileUsed(Duration::from_secs(3600)))
}

fn others(count: u64) -> Vec<Session> {
    let kinds = [Kept::Remembered, Kept::Tokens, Kept::WhileUsed(Duration::from_secs(3600))];
    let browsers = ["Safari on iPhone", "curl", "Edge on Windows"];
    let one = |(number, kind): (u64, usize)| session(&format!("s{number}"), browsers[kind], number * 250, kinds[kind]);
    (0..count).zip((0..3).cycle()).map(one).collect()
}

fn page(others: &[Session], count: u64, notice: Option<Done>, error: Option<NotDone>) -> String {
    let this = this();
    let keys = api_keys();
    let keys = Keys { list: &keys, may_add: true };
    account(&AccountPage {
        frame: frame(),
        this: Some(&this),
        others,
        count,
        keys,
        password: Password::Here,
        notice,
        error,
    })
}

fn in_file(error: Option<NotDone>) -> String {
    let (keys, password) = (Keys { list: &[], may_add: false }, Password::Elsewhere);
    account(&AccountPage { frame: frame(), this: None, others: &[], count: 0, keys, password, notice: None, error })
}

fn key(id: &str, name: &str) -> Key {
    Key {
        id: id.to_owned(),
        name: name.to_owned(),
        groups: None,
        scopes: Vec::new(),
        routes: None,
        since: NOW - Duration::from_secs(40 * 86_400),
        expires_at: None,
        last_used: None,
    }
}

fn api_keys() -> [Key; 3] {
    let list = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
    let limited = Key {
        groups: Some(list(&["staff"])),
        scopes: list(&["read", "write"]),
        routes: Some(list(&["api", "files"])),
        expires_at: Some(NOW + Duration::from_secs(50 * 86_400)),
        last_used: Some(NOW - Duration::from_secs(7300)),
        ..key("key1", "backup")
    };
    let ended = Key { expires_at: Some(NOW - Duration::from_secs(86_400)), ..key("key3", "old") };
    [limited, key("key2", "monitor"), ended]
}

fn without_keys(may_add: bool) -> String {
    let keys = Keys { list: &[], may_add };
    account(&AccountPage {
        frame: frame(),
        this: None,
        others: &[],
        count: 0,
        keys,
        password: Password::Here,
        notice: None,
        error: None,
    })
}

fn naming(name: &str, lasts: Lasts, error: Option<NotDone>) -> String {
    new_key(&NewKeyPage { frame: frame(), name, lasts, error })
}

fn shown_once() -> String {
    made(frame(), "backup", TEXT, Some(NOW + Duration::from_secs(90 * 86_400)))
}

const TEXT: &str = "pck_68xZbcfQBZEH_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGaaaaaa";

fn ending(what: End<'_>, error: Option<NotDone>) -> String {
    end(&EndPage { frame: frame(), end: what, error })
}

const ERRORS: [NotDone; 10] = [
    NotDone::WrongPassword,
    NotDone::TooMany(8),
    NotDone::Short,
    NotDone::Long,
    NotDone::UserName,
    NotDone::Different,
    NotDone::Same,
    NotDone::NoSuchSession,
    NotDone::NoSuchKey,
    NotDone::Unavailable,
];

const KEY_ERRORS: [NotDone; 6] = [
    NotDone::WrongPassword,
    NotDone::TooMany(8),
    NotDone::KeyName,
    NotDone::KeyTaken,
    NotDone::KeysFull,
    NotDone::Unavailable,
];

/// Every kind of page, by the name of its file.
fn pages() -> Vec<(String, String)> {
    let one = this();
    let mut pages = vec![
        ("account".to_owned(), page(&others(2), 2, None, None)),
        ("account-alone".to_owned(), page(&[], 0, None, None)),
        ("account-many".to_owned(), page(&others(99), 1203, None, None)),
        ("account-changed".to_owned(), page(&[], 0, Some(Done::PasswordChanged), None)),
        ("account-ended".to_owned(), page(&others(1), 1, Some(Done::SessionEnded), None)),
        ("account-others-ended".to_owned(), page(&[], 0, Some(Done::OthersEnded), None)),
        ("account-end".to_owned(), ending(End::One(&one), None)),
        ("account-end-refused".to_owned(), ending(End::One(&one), Some(NotDone::WrongPassword))),
        ("account-end-others".to_owned(), ending(End::Others(4), None)),
        ("account-no-keys".to_owned(), without_keys(true)),
        ("account-key-revoked".to_owned(), page(&[], 0, Some(Done::KeyRevoked), None)),
        ("account-revoke".to_owned(), ending(End::Key(&api_keys()[0]), None)),
        ("account-revoke-refused".to_owned(), ending(End::Key(&api_keys()[0]), Some(NotDone::WrongPassword))),
        ("account-new-key".to_owned(), naming("", Lasts::default(), None)),
        ("account-key-made".to_owned(), shown_once()),
    ];
    for (number, error) in KEY_ERRORS.into_iter().enumerate() {
        pages.push((format!("account-key-error-{number}"), naming("backup", Lasts::Year, Some(error))));
    }
    for (number, error) in ERRORS.into_iter().enumerate() {
        pages.push((format!("account-error-{number}"), page(&others(1), 1, None, Some(error))));
    }
    pages
}

fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages").join(name).with_extension("html");
    let page = format!("{page}\n");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert_eq!(page, stored, "{} differs; UPDATE=1 writes it anew", path.display());
}

#[test]
fn the_account_and_the_question_before_an_end_are_as_stored() {
    compare("account", &page(&others(2), 2, None, None));
    compare("account-end", &ending(End::One(&this()), None));
    compare("account-new-key", &naming("backup", Lasts::Year, Some(NotDone::KeyTaken)));
    compare("account-key-made", &shown_once());
}

#[test]
fn nothing_inserted_becomes_markup() {
    let frame = Frame { title: NASTY, user: NASTY, logout_path: NASTY, path: NASTY, now: NOW };
    let nasty = Session { client: NASTY.to_owned(), ..session(NASTY, NASTY, 1, Kept::Remembered) };
    let list = [nasty.clone()];
    let many = Some(vec![NASTY.to_owned()]);
    let nasty_key = Key { groups: many.clone(), scopes: vec![NASTY.to_owned()], routes: many, ..key(NASTY, NASTY) };
    let keys = Keys { list: std::slice::from_ref(&nasty_key), may_add: true };
    let pages = [
        account(&AccountPage {
            frame,
            this: Some(&nasty),
            others: &list,
            count: 1,
            keys,
            password: Password::Here,
            notice: None,
            error: None,
        }),
        end(&EndPage { frame, end: End::Key(&nasty_key), error: None }),
        new_key(&NewKeyPage { frame, name: NASTY, lasts: Lasts::Month, error: None }),
        made(frame, NASTY, NASTY, None),
        end(&EndPage { frame, end: End::One(&nasty), error: Some(NotDone::WrongPassword) }),
    ];
    for page in pages {
        for bad in ["<script", "<img", "=\"\"'>", "href=\"&quot;", "action=\"&quot;"] {
            assert!(!page.contains(bad), "{bad} in {page}");
        }
    }
}

#[test]
fn every_page_is_whole_and_keeps_its_own_policy() {
    let pages = pages();
    assert!(pages.len() > 15);
    for (name, page) in pages {
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"), "{name}");
        assert!(!page.contains("{{"), "{name}");
        let (_, rest) = page.split_once("<style>").unwrap();
        let (style, rest) = rest.split_once("</style>").unwrap();
        assert_eq!(csp_for(style), csp(), "{name}");
        for other in ["<style", " style=", "<script", " onclick", "src="] {
            assert!(!rest.contains(other), "{other} in {name}");
        }
        for once in ["<title>", "<h1>", "<main"] {
            assert_eq!(page.matches(once).count(), 1, "{once} in {name}");
        }
        assert!(page.matches("autofocus").count() <= 1, "{name}");
    }
    assert!(!STYLE.contains('\r'));
}

#[test]
fn password_managers_find_name_old_and_new() {
    let page = page(&[], 0, None, None);
    assert!(page.contains("name=\"username\" value=\"alice\" autocomplete=\"username\""));
    assert_eq!(page.matches("autocomplete=\"current-password\"").count(), 1);
    assert_eq!(page.matches("autocomplete=\"new-password\"").count(), 2);
    assert!(ending(End::Others(2), None).contains("autocomplete=\"current-password\""));
}

#[test]
fn only_this_session_is_marked_and_only_others_can_be_ended_here() {
    let page = page(&others(2), 2, None, None);
    assert_eq!(page.matches("This browser").count(), 1);
    assert!(!page.contains("value=\"this-one\""));
    assert!(page.contains("value=\"s0\"") && page.contains("value=\"s1\""));
    assert!(page.contains("End<span class=\"unseen\"> session: curl</span>"));
    assert!(!ending(End::Others(1), None).contains("1 sessions"));
}

#[test]
fn keys_are_listed_with_what_they_are_limited_to() {
    let page = page(&[], 0, None, None);
    let limits = "Only routes api, files; group staff; scopes read, write";
    for words in [limits, "All that you may do", "2 hours ago", "Never", "12 Jan 2027", "Ended on 22 Nov 2026"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(page.contains("name=\"revoke\" value=\"key1\"") && page.contains("<span class=\"unseen\"> key: backup"));
    let question = ending(End::Key(&api_keys()[0]), None);
    assert!(question.contains("action=\"/.gateway/account/keys\"") && question.contains("current-password"));
    assert!(without_keys(true).contains("You have no API keys.") && without_keys(true).contains("name=\"add\""));
    assert!(!without_keys(false).contains("API key"), "nobody accepts one");
}

#[test]
fn a_key_is_named_and_shown_once() {
    for (error, field) in [
        (NotDone::KeyName, "name"),
        (NotDone::KeyTaken, "name"),
        (NotDone::WrongPassword, "password"),
        (NotDone::TooMany(8), "password"),
        (NotDone::KeysFull, "password"),
    ] {
        let page = naming("back\"up", Lasts::Year, Some(error));
        let focused = page.lines().find(|line| line.contains("autofocus")).unwrap();
        assert!(focused.contains(&format!("id=\"{field}\"")) && focused.contains("=\"error"), "{error:?}: {focused}");
        assert!(
            page.contains("value=\"back&quot;up\"") && page.contains("value=\"365d\" selected"),
            "what was typed stays"
        );
    }
    let made = shown_once();
    assert_eq!(made.matches(TEXT).count(), 1);
    assert!(made.contains("the only time") && made.contains("21 Feb 2027"), "{made}");
}

#[test]
fn many_sessions_unfold_and_the_rest_is_counted() {
    let many = page(&others(99), 1203, None, None);
    assert!(many.contains("<summary>Show 91 more</summary>"));
    assert!(many.contains("These are the 99 used last, and there are 1104 more."));
    assert!(!page(&others(8), 8, None, None).contains("<summary>"));
    assert!(page(&[], 0, None, None).contains("You are signed in nowhere else."));
}

#[test]
fn an_error_leads_to_the_field_that_matters() {
    let cases = [
        (NotDone::WrongPassword, "password"),
        (NotDone::TooMany(8), "password"),
        (NotDone::Short, "new-password"),
        (NotDone::Same, "new-password"),
        (NotDone::Different, "new-password-again"),
    ];
    for (error, field) in cases {
        let page = page(&[], 0, None, Some(error));
        let marked = page.lines().find(|line| line.contains("=\"error") && line.contains("<input")).unwrap();
        assert!(marked.contains(&format!("id=\"{field}\"")), "{error:?}: {marked}");
        let focused = page.lines().find(|line| line.contains("autofocus")).unwrap();
        assert!(focused.contains("id=\"password\""), "all three are to be typed again: {focused}");
        assert!(page.contains("role=\"alert\"") && page.contains("<title>Nothing changed"), "{error:?}");
    }
}

#[test]
fn times_are_said_as_people_say_them() {
    for (seconds, text) in [
        (0, "Just now"),
        (119, "Just now"),
        (120, "2 minutes ago"),
        (3600, "1 hour ago"),
        (3660, "61 minutes ago"),
        (7200, "2 hours ago"),
        (86_400, "1 day ago"),
        (172_800, "2 days ago"),
    ] {
        assert_eq!(ago(Duration::from_secs(seconds)), text);
    }
    assert_eq!(moment(NOW), "23 Nov 2026, 22:46 UTC");
    assert_eq!(day(NOW), "23 Nov 2026");
}

/// Writes every page to a folder, to look at them: `PAGES=/tmp/pages cargo test --lib page::account -- --ignored`.
#[test]
#[ignore = "writes files for a person to look at"]
fn write_every_page() {
    let folder = std::env::var_os("PAGES").expect("PAGES names a folder");
    for (name, page) in pages() {
        std::fs::write(Path::new(&folder).join(name).with_extension("html"), page).unwrap();
    }
}

#[test]
fn where_the_password_is_kept_elsewhere_there_is_no_form_for_it() {
    let page = in_file(None);
    assert!(page.contains("It is kept elsewhere") && !page.contains("type=\"password\""), "{page}");
    assert!(!page.contains("/password\"") && !page.contains("change your password"), "{page}");
    assert!(in_file(Some(NotDone::InFile)).contains("Your password can’t be changed here"));
}
