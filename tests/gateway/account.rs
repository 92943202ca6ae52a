//! The page of one's own account: sessions that are ended from it, a new password, and everyone it is not for.

use crate::common::{Gateway, Recorder, Request, Response, Setup, command, get, password_of, post};

const PAGE: &str = "/.gateway/account";
const SESSIONS: &str = "/.gateway/account/sessions";
const PASSWORD: &str = "/.gateway/account/password";
const NEW: &str = "a brand new pass phrase";
const FIREFOX: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0";

fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &["--groups", "staff"]).start();
    (app, gateway)
}

/// A browser of alice's that says who it is, and whose cookie it keeps.
fn sign_in(gateway: &Gateway, agent: &str, remember: &str) -> String {
    let form = [("username", "alice"), ("password", &*password_of("alice")), ("remember", remember)];
    let answer = gateway.send(&post("/login").header("User-Agent", agent).form(&form));
    answer.assert_status(303, "signing in");
    cookie_of(&answer)
}

fn cookie_of(answer: &Response) -> String {
    let cookie = answer.header("set-cookie").expect("a cookie");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

fn ask(gateway: &Gateway, cookie: &str, target: &str) -> Response {
    gateway.send(&get(target).page_load().cookie(cookie))
}

/// The ids of the other sessions, as the page's buttons have them.
fn others(gateway: &Gateway, cookie: &str) -> Vec<String> {
    let page = ask(gateway, cookie, PAGE);
    page.assert_status(200, "the page");
    let value = |piece: &str| piece.split('"').next().unwrap_or_default().to_owned();
    let ids = page.text().split("name=\"end\" value=\"").skip(1).map(value).collect::<Vec<_>>();
    ids.into_iter().filter(|id| id != "others").collect()
}

fn end(password: &str, end: &str) -> Request {
    post(SESSIONS).page_load().form(&[("username", "alice"), ("password", password), ("end", end)])
}

fn change(old: &str, new: &str, again: &str) -> Request {
    let fields = [("username", "alice"), ("password", old), ("new_password", new), ("new_password_again", again)];
    post(PASSWORD).page_load().form(&fields)
}

fn goes_on(gateway: &Gateway, cookie: &str) -> bool {
    match gateway.send(&get("/x").cookie(cookie)).status {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

#[test]
fn shows_ones_own_sessions_in_words_and_marks_this_one() {
    let (app, gateway) = gateway();
    let (here, _there) = (sign_in(&gateway, FIREFOX, ""), sign_in(&gateway, "curl/8.9.1", "true"));
    let _bob = gateway.cookie("bob");
    gateway.token("alice");
    let answer = ask(&gateway, &here, PAGE);
    answer.assert_status(200, "the page");
    let page = answer.text();
    for words in ["Firefox on Windows", ">curl<", "Remembered until", "Until not used for 1 hour", "as tokens"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert_eq!(page.matches("This browser").count(), 1);
    assert_eq!(others(&gateway, &here).len(), 2, "the other browser and the tokens, and nothing of bob's");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    assert_eq!(answer.header("set-cookie"), None);
    let program = gateway.send(&get(PAGE).cookie(&here));
    program.assert_status(200, "the same page without a page load");
    assert_eq!(program.header("content-type"), Some("text/html; charset=utf-8"));
    app.assert_untouched("the gateway's own page");
}

#[test]
fn ends_another_session_and_this_one_goes_on() {
    let (_app, gateway) = gateway();
    let (here, there) = (sign_in(&gateway, FIREFOX, ""), sign_in(&gateway, "curl/8.9.1", ""));
    let [id] = &others(&gateway, &here)[..] else { panic!("one other session") };
    let question = ask(&gateway, &here, &format!("{PAGE}?end={id}"));
    question.assert_status(200, "the question");
    assert!(question.text().contains("current-password") && question.text().contains("curl"));
    assert!(goes_on(&gateway, &there), "a question ends nothing");
    let done = gateway.send(&end(&password_of("alice"), id).cookie(&here));
    done.assert_status(303, "ended");
    assert_eq!(done.header("location"), Some("/.gateway/account?done=session"));
    assert_eq!(done.header("set-cookie"), None);
    assert!(!goes_on(&gateway, &there), "its next request");
    assert!(goes_on(&gateway, &here), "this one");
    assert!(ask(&gateway, &here, done.header("location").unwrap()).text().contains("The session is ended."));
    let twice = gateway.send(&end(&password_of("alice"), id).cookie(&here));
    twice.assert_status(404, "it is over already");
    gateway.stderr.wait("the audit event", |line| line.contains("session-ended").then_some(()));
}

#[test]
fn ends_all_others_tokens_too() {
    let (_app, gateway) = gateway();
    let here = sign_in(&gateway, FIREFOX, "");
    let there = [sign_in(&gateway, "a", ""), sign_in(&gateway, "b", "true")];
    let (token, bob) = (gateway.token("alice"), gateway.cookie("bob"));
    gateway.send(&end(&password_of("alice"), "others").cookie(&here)).assert_status(303, "ended");
    for cookie in &there {
        assert!(!goes_on(&gateway, cookie));
    }
    gateway.send(&get("/x").bearer(&token)).assert_status(401, "its token");
    assert!(goes_on(&gateway, &here) && goes_on(&gateway, &bob));
    assert!(ask(&gateway, &here, PAGE).text().contains("signed in nowhere else"));
}

#[test]
fn nobody_ends_a_session_of_someone_else() {
    let (_app, gateway) = gateway();
    let (alice, bob) = (sign_in(&gateway, FIREFOX, ""), gateway.cookie("bob"));
    sign_in(&gateway, "curl/8.9.1", "");
    let ids = others(&gateway, &alice);
    assert!(!ids.is_empty());
    for id in ids.iter().map(String::as_str).chain(["", "x", "../others", "' OR 1=1 --"]) {
        let form = [("password", &*password_of("bob")), ("end", id)];
        let answer = gateway.send(&post(SESSIONS).page_load().cookie(&bob).form(&form));
        answer.assert_status(404, id);
        let question = ask(&gateway, &bob, &format!("{PAGE}?end={}", id.replace(' ', "+")));
        assert!(!question.text().contains("curl"), "nothing is shown of it");
    }
    assert_eq!(others(&gateway, &alice), ids, "all of them live");
}

#[test]
fn a_new_password_signs_out_everywhere_else_and_goes_on_here() {
    for remember in ["", "true"] {
        let (_app, gateway) = gateway();
        let (here, there) = (sign_in(&gateway, FIREFOX, remember), sign_in(&gateway, "curl/8.9.1", ""));
        let token = gateway.token("alice");
        let done = gateway.send(&change(&password_of("alice"), NEW, NEW).cookie(&here).header("User-Agent", FIREFOX));
        done.assert_status(303, "changed");
        assert_eq!(done.header("location"), Some("/.gateway/account?done=password"));
        let set = done.header("set-cookie").unwrap();
        assert_eq!(set.contains("Max-Age"), !remember.is_empty(), "remembered as before: {set}");
        let new = cookie_of(&done);
        assert_ne!(new, here);
        assert!(!goes_on(&gateway, &there), "the other browser");
        assert!(!goes_on(&gateway, &here), "the cookie of before");
        assert!(goes_on(&gateway, &new), "this browser");
        gateway.send(&get("/x").bearer(&token)).assert_status(401, "its token");
        gateway.sign_in("alice", &password_of("alice")).assert_status(403, "the old password");
        gateway.sign_in("alice", NEW).assert_status(200, "the new one");
        let shown = gateway.command(&["user", "show", "alice"]).succeeded().stdout;
        let sessions = shown.lines().find(|line| line.starts_with("sessions")).unwrap_or_default();
        assert!(sessions.ends_with(" 2"), "this browser and the sign-in above: {shown}");
        let page = ask(&gateway, &new, done.header("location").unwrap()).text();
        assert!(page.contains("Your password is changed.") && page.contains("Firefox on Windows"), "{page}");
        gateway.stderr.wait("the audit event", |line| line.contains("password-changed").then_some(()));
        let ended = gateway.stop();
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(NEW), "a password in a log");
    }
}

#[test]
fn a_password_that_is_not_fit_changes_nothing_and_is_not_counted() {
    let (_app, gateway) = gateway();
    command(gateway.dir(), &["user", "add", "alexandra", "--password-stdin"], "her own pass phrase\n").succeeded();
    let form = [("username", "alexandra"), ("password", "her own pass phrase")];
    let cookie = cookie_of(&gateway.send(&post("/login").form(&form)));
    let long = "x".repeat(1025);
    for _ in 0..4 {
        for (new, again) in [
            ("short", "short"),
            ("", ""),
            ("Alexandra", "Alexandra"),
            (NEW, "a brand new pass phrasE"),
            (&*long, &*long),
            ("her own pass phrase", "her own pass phrase"),
        ] {
            let answer = gateway.send(&change("her own pass phrase", new, again).cookie(&cookie));
            answer.assert_status(422, new);
            let page = answer.text();
            assert!(page.contains("role=\"alert\"") && page.contains("new-password"), "{page}");
            assert!(!page.contains(NEW) && !page.contains("her own pass phrase"), "a password on a page");
            assert_eq!(answer.header("set-cookie"), None);
        }
    }
    gateway.sign_in("alexandra", "her own pass phrase").assert_status(200, "nothing changed, nothing counted");
    assert!(goes_on(&gateway, &cookie));
}

#[test]
fn a_wrong_old_password_changes_nothing_and_is_counted() {
    let (_app, gateway) = gateway();
    let (here, there) = (sign_in(&gateway, FIREFOX, ""), sign_in(&gateway, "curl/8.9.1", ""));
    let [id] = &others(&gateway, &here)[..] else { panic!("one other session") };
    let mut client = gateway.client();
    let mut refused = 0;
    let throttled = loop {
        let wrong = if refused % 2 == 0 { change("wrong", NEW, NEW) } else { end("wrong", id) };
        let answer = client.send(&wrong.cookie(&here));
        assert_eq!(answer.header("set-cookie"), None);
        assert!(answer.text().contains("role=\"alert\""), "{}", answer.text());
        if answer.status == 429 {
            break answer;
        }
        answer.assert_status(403, "wrong");
        refused += 1;
        assert!(refused < 40, "40 failures and no 429");
    };
    assert!((5..=11).contains(&refused), "{refused} free failures");
    let after: u64 = throttled.header("retry-after").expect("429 says when").parse().unwrap();
    assert!((1..=2).contains(&after), "{after}");
    gateway.sign_in("alice", &password_of("alice")).assert_status(429, "the sign-in shares the counters");
    assert!(goes_on(&gateway, &here) && goes_on(&gateway, &there), "nobody was signed out");
}

#[test]
fn a_password_that_confirms_a_change_is_no_sign_in() {
    let (_app, gateway) = gateway();
    let here = sign_in(&gateway, FIREFOX, "");
    let last = || {
        let ran = gateway.command(&["user", "show", "alice", "--json"]).succeeded();
        let user: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON document");
        user["last_sign_in"].as_str().expect("a time").to_owned()
    };
    let before = last();
    gateway.send(&end(&password_of("alice"), "others").cookie(&here)).assert_status(303, "confirmed");
    assert_eq!(last(), before, "confirming is no sign-in");
    gateway.send(&change(&password_of("alice"), NEW, NEW).cookie(&here)).assert_status(303, "changed");
    assert_eq!(last(), before, "nor is a new password");
    gateway.sign_in("alice", NEW).assert_status(200, "a sign-in");
    assert_ne!(last(), before);
}

#[test]
fn another_site_changes_nothing() {
    let (_app, gateway) = gateway();
    let (here, there) = (sign_in(&gateway, FIREFOX, ""), sign_in(&gateway, "curl/8.9.1", ""));
    let password = password_of("alice");
    let refused: &[(&str, &str)] = &[
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ];
    for (name, value) in refused {
        let fields = [("password", &*password), ("new_password", NEW), ("new_password_again", NEW), ("end", "others")];
        for target in [PASSWORD, SESSIONS] {
            let answer = gateway.send(&post(target).cookie(&here).header(name, value).form(&fields));
            answer.assert_status(403, value);
            assert_eq!(answer.header("set-cookie"), None);
        }
    }
    assert!(goes_on(&gateway, &here) && goes_on(&gateway, &there));
    let linked = get(&format!("{PAGE}?done=password")).cookie(&here).header("Sec-Fetch-Site", "cross-site");
    assert!(!gateway.send(&linked).text().contains("is changed"), "another site says what was done");
}

#[test]
fn only_a_browser_with_its_cookie_may() {
    let (app, gateway) = gateway();
    let (here, token) = (sign_in(&gateway, FIREFOX, ""), gateway.token("alice"));
    let login = format!("/login?next={}", PAGE.replace('/', "%2F"));
    for cookie in ["", "portcullis=wrong"] {
        let page = ask(&gateway, cookie, PAGE);
        page.assert_status(303, cookie);
        assert_eq!(page.header("location"), Some(&*login));
        let answer = gateway.send(&get(PAGE).cookie(cookie));
        answer.assert_status(401, "no page load");
        assert!(answer.header("www-authenticate").is_some());
        gateway.send(&change("x", NEW, NEW).cookie(cookie)).assert_status(401, "a form of nobody's");
    }
    gateway.send(&get(PAGE).bearer(&token)).assert_status(403, "a token");
    gateway.send(&get(PAGE).bearer(&token).cookie(&here)).assert_status(403, "Authorization decides");
    gateway.send(&get(PAGE).bearer("wrong").cookie(&here)).assert_status(401, "a bad token");
    let change = change(&password_of("alice"), NEW, NEW);
    gateway.send(&change.bearer(&token)).assert_status(403, "a form with a token");
    gateway.sign_in("alice", &password_of("alice")).assert_status(200, "nothing changed");
    let form = [("username", "alice"), ("password", &*password_of("alice")), ("next", PAGE)];
    let signed_in = gateway.send(&post("/login").form(&form));
    assert_eq!(signed_in.header("location"), Some(PAGE), "the sign-in leads back");
    app.assert_untouched("the gateway's own page");
}

#[test]
fn signing_out_right_after_is_no_lost_cookie() {
    let (_app, gateway) = gateway();
    let here = sign_in(&gateway, FIREFOX, "");
    let as_firefox = |request: Request| request.page_load().header("User-Agent", FIREFOX);
    gateway.send(&as_firefox(get(PAGE).cookie(&here))).assert_status(200, "the page");
    gateway.send(&as_firefox(post("/logout").cookie(&here).form(&[]))).assert_status(303, "out");
    let page = gateway.send(&as_firefox(get("/login?signed_out=1"))).text();
    assert!(page.contains("You are signed out."), "{page}");
}

#[test]
fn other_methods_types_and_forms_are_refused_clearly() {
    let (_app, gateway) = gateway();
    let here = sign_in(&gateway, FIREFOX, "");
    for (method, target, allow) in [
        ("POST", PAGE, "GET, HEAD"),
        ("DELETE", PAGE, "GET, HEAD"),
        ("GET", PASSWORD, "POST"),
        ("PUT", SESSIONS, "POST"),
    ] {
        let answer = gateway.send(&Request::new(method, target).cookie(&here));
        answer.assert_status(405, target);
        assert_eq!(answer.header("allow"), Some(allow));
    }
    gateway.send(&get("/.gateway/account/none").cookie(&here)).assert_status(404, "an unknown name");
    gateway.send(&Request::new("HEAD", PAGE).cookie(&here)).assert_status(200, "HEAD");
    for target in [PASSWORD, SESSIONS] {
        let json = post(target).cookie(&here).body("application/json", "{\"password\":\"x\"}");
        gateway.send(&json).assert_status(415, "JSON");
        for (body, status) in [
            ("", 422),
            ("password=x", 422),
            ("password=x&password=y&end=others&new_password=a&new_password_again=a", 422),
            ("password=%zz&end=others", 400),
            ("password=%ff&end=others", 400),
        ] {
            let request = post(target).cookie(&here).body("application/x-www-form-urlencoded", body);
            gateway.send(&request).assert_status(status, body);
        }
        let huge = post(target).cookie(&here).form(&[("password", &*"x".repeat(1 << 20))]);
        gateway.send(&huge).assert_status(413, "a megabyte");
    }
    assert!(goes_on(&gateway, &here));
}

#[test]
fn of_very_many_sessions_the_latest_are_shown_and_the_rest_counted() {
    let (_app, gateway) = gateway();
    let here = sign_in(&gateway, FIREFOX, "");
    let mut client = gateway.client();
    let form = [("username", "alice"), ("password", &*password_of("alice"))];
    for _ in 0..103 {
        client.send(&post("/login").form(&form)).assert_status(303, "signing in");
    }
    assert_eq!(others(&gateway, &here).len(), 99);
    let page = ask(&gateway, &here, PAGE).text();
    assert!(page.contains("there are 4 more") && page.contains("This browser"), "{page}");
}
