//! What `explain` says, compared whole: each case has its text in `tests/explain/`.
//!
//! `UPDATE=1 cargo test --test explain` writes them anew; read them before you commit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use portcullis::access::{Asker, Rules, Shown};
use portcullis::clock::Timestamp;
use portcullis::config::{Config, Invented, load_text};
use portcullis::explain::{Explanation, Question, Style, examine, failing_tests, invented, preflight, render};
use portcullis::message::line::Target;
use portcullis::policy::Outcome;
use serde_json::json;

fn config(more: &str) -> Config {
    let text = fs::read_to_string("tests/explain/gateway.toml").unwrap() + more;
    let loaded = load_text(Path::new("gateway.toml"), text, &|_| None);
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)))
}

fn question(method: &str, url: &str, from: &str) -> Question {
    Question {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        target: Target::parse(url).unwrap(),
        client: from.parse().unwrap(),
        now: Timestamp::from_secs(1_700_000_000),
    }
}

fn person(user: &str, groups: &[&str]) -> Option<Invented> {
    let groups = groups.iter().map(|&group| group.to_owned()).collect();
    Some(Invented { user: user.to_owned(), groups, ..Invented::default() })
}

fn explained(config: &Config, question: &Question, person: Option<&Invented>) -> Explanation {
    let rules = Rules::new(&config.routes);
    let asker = |head: &_| person.map_or_else(Asker::default, |person| invented(person, config, &rules, head).unwrap());
    examine(config, &rules, question, asker)
}

/// A name for its file, the request, and who asks.
type Case = (&'static str, Question, Option<Invented>);

fn cases() -> Vec<Case> {
    let token = Invented {
        user: "bob".to_owned(),
        scopes: vec!["read".to_owned()],
        claims: json!({ "tenant": "c" }).as_object().unwrap().clone(),
        ..Invented::default()
    };
    let old = Invented { ago: Duration::from_secs(2 * 3600), ..person("root", &[]).unwrap() };
    vec![
        ("permit", question("GET", "/api/users?x=%2F", "10.1.2.3"), person("bob", &["reader"])),
        ("public", question("GET", "/health", "10.1.2.3"), None),
        ("denied", question("GET", "/admin/users", "192.0.2.1"), person("bob", &["admin"])),
        ("denied-by-method", question("DELETE", "/api/users", "10.1.2.3"), person("bob", &["reader"])),
        ("denied-under-a-reading", question("GET", "//ADMIN/users", "10.1.2.3"), person("bob", &["staff"])),
        ("denied-at-once", question("GET", "/open/x", "10.1.2.3"), None),
        ("challenge", question("GET", "/admin/users", "10.1.2.3"), None),
        ("step-up", question("GET", "https://eu.apps.example.com/admin", "192.0.2.1"), Some(old)),
        ("token", question("GET", "/tokens/x", "10.1.2.3"), Some(token)),
        ("falls-through-to-404", question("GET", "http://other.example/admin/x", "10.1.2.3"), person("root", &[])),
        ("no-route-under-a-reading", question("GET", "http://o.example/files/a%2Fb/view", "10.1.2.3"), None),
        ("dot-segment", question("GET", "/public/..%2fadmin", "10.1.2.3"), person("root", &[])),
        ("method", question("trace", "/health", "10.1.2.3"), None),
        ("as-written", question("GET", "/projects/a%2Fb", "10.1.2.3"), person("bob", &[])),
        ("own", question("POST", "/login", "10.1.2.3"), None),
        ("hostile", question("GET", "/health/%E2%80%AE", "10.1.2.3"), person("b\u{202e}ob", &[])),
    ]
}

#[test]
fn every_case_is_explained_as_it_is_written_down() {
    let config = config("");
    let update = std::env::var_os("UPDATE").is_some();
    let mut different = Vec::new();
    for (name, question, person) in cases() {
        let explanation = explained(&config, &question, person.as_ref());
        let text = render(&explanation, Style::default());
        let stored = Path::new("tests/explain").join(name).with_extension("txt");
        if update {
            fs::write(&stored, &text).unwrap();
        } else if fs::read_to_string(&stored).ok().as_ref() != Some(&text) {
            different.push(format!("{name}:\n{text}"));
        }
        let json = serde_json::to_string(&explanation).unwrap();
        assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation, "{name} comes back from JSON");
    }
    assert!(different.is_empty(), "not as written down:\n{}", different.join("\n"));
}

const CORS: &str = r#"
[[routes]]
name = "shared"
hosts = ["shared.example"]
path = "/shared/**"
allow = { groups = ["staff"] }
upstream = "app"
cors = { origins = ["https://app.example"], methods = ["GET", "PUT"], headers = ["x-token"], credentials = true }
fall_through = true

[[routes]]
name = "own-answers"
hosts = ["shared.example"]
path = "/own/**"
allow = "signed-in"
upstream = "app"
cors = "upstream"
fall_through = true
"#;

#[test]
fn a_preflight_is_explained_by_cors_as_it_is_written_down() {
    let config = config(CORS);
    let rules = Rules::new(&config.routes);
    let (shared, own) = ("http://shared.example/shared/x", "http://shared.example/own/x?y=1");
    let explained = |url: &str, headers: &[(&'static str, &'static str)]| {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        preflight(&config, &rules, &question("OPTIONS", url, "10.1.2.3"), &headers)
    };
    let site = ("origin", "https://app.example");
    let asks = |method| ("access-control-request-method", method);
    let sends = |names| ("access-control-request-headers", names);
    let update = std::env::var_os("UPDATE").is_some();
    for (name, url, headers, outcome) in [
        ("preflight", shared, &[site, asks("PUT"), sends("X-Token")][..], "allow"),
        ("preflight-of-another-method", shared, &[site, asks("DELETE")], "allow"),
        ("preflight-with-another-header", shared, &[site, asks("POST"), sends("x-token, x-other")], "allow"),
        ("preflight-of-another-site", shared, &[("origin", "https://evil.example"), asks("GET")], "deny"),
        ("preflight-of-the-application", own, &[site, asks("PUT")], "allow"),
    ] {
        let explanation = explained(url, headers).unwrap();
        assert_eq!(explanation.outcome, outcome, "{name}");
        let text = render(&explanation, Style::default());
        let stored = Path::new("tests/explain").join(name).with_extension("txt");
        if update {
            fs::write(&stored, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&stored).unwrap_or_default(), text, "{name}");
    }
    for (url, headers) in [
        (shared, &[site][..]),
        (shared, &[site, asks("PUT"), ("authorization", "Bearer x")]),
        ("/projects/x", &[site, asks("PUT")]),
        ("/login", &[site, asks("POST")]),
    ] {
        assert!(explained(url, headers).is_none(), "{url} {headers:?}");
    }
}

#[test]
fn colours_change_nothing_but_the_colours() {
    let config = config("");
    for (name, question, person) in cases() {
        let explanation = explained(&config, &question, person.as_ref());
        let mut colored = render(&explanation, Style { color: true });
        assert!(colored.contains("\u{1b}["), "{name}");
        for code in ["0", "1", "2", "4", "31", "32"] {
            colored = colored.replace(&format!("\u{1b}[{code}m"), "");
        }
        // Padding at the end of a line is cut only where no colour follows it.
        let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&colored), lines(&render(&explanation, Style::default())), "{name}");
    }
}

/// What is shown of the steps has to lead to what is said of the whole.
#[test]
fn the_steps_lead_to_the_outcome() {
    let config = config("");
    let (mut allowed, mut refused) = (0, 0);
    let people =
        [None, person("bob", &["reader"]), person("root", &[]), person("eve", &["admin"]), person("w", &["writer"])];
    for path in [
        "/health",
        "/admin/x",
        "/ADMIN/x",
        "//api/x",
        "/api/x",
        "/open/x",
        "/tokens/x",
        "/x",
        "/a%2Fb;c",
        "/projects//x",
    ] {
        for (method, from, person) in ["GET", "PUT"]
            .iter()
            .flat_map(|method| people.iter().flat_map(move |p| ["10.1.1.1", "192.0.2.7"].map(|from| (method, from, p))))
        {
            let explanation = explained(&config, &question(method, path, from), person.as_ref());
            let place = format!("{method} {path} from {from} as {person:?}: {explanation:#?}");
            let passes = explanation.outcome == Outcome::Allow.word();
            assert_eq!(explanation.readings.iter().all(|reading| reading.outcome == "allow"), passes, "{place}");
            let first = explanation.readings.iter().find(|reading| reading.outcome != "allow");
            if let Some(first) = first {
                assert_eq!((&first.outcome, &first.route), (&explanation.outcome, &explanation.route), "{place}");
            }
            let decides: Vec<_> = explanation.routes.iter().filter(|route| route.matches).collect();
            for route in &explanation.routes {
                let holds = route.conditions.iter().all(|condition| condition.holds == Some(true));
                assert_eq!(holds, route.matches, "{place}");
            }
            for route in decides {
                assert_eq!(explanation.readings[0].route.as_ref(), Some(&route.name), "{place}");
                let best = route.allow.iter().any(|alternative| alternative.outcome == "allow");
                assert_eq!(best, explanation.readings[0].outcome == "allow", "{place}");
            }
            assert_eq!(explanation.sent.is_some(), passes, "{place}");
            *if passes { &mut allowed } else { &mut refused } += 1;
        }
    }
    assert!(allowed > 30 && refused > 30, "{allowed} allowed, {refused} refused");
}

/// A test that says what `explain` says passes, and one that says anything else fails.
#[test]
fn tests_and_explanations_agree() {
    let base = config("");
    let mut count = 0;
    for (name, question, person) in cases() {
        let explanation = explained(&base, &question, person.as_ref());
        let Some(request) = as_test(&question, person.as_ref()) else { continue };
        let words = ["allow", "deny", "sign-in", "not-found", "bad-request"];
        for expect in words {
            let failed = failing_tests(&config(&format!("\n[[tests]]\n{request}expect = \"{expect}\"\n")));
            assert_eq!(failed.is_empty(), explanation.outcome == expect, "{name} {expect}: {failed:?}");
        }
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

fn as_test(question: &Question, person: Option<&Invented>) -> Option<String> {
    let Target { https, authority, path, .. } = &question.target;
    let scheme = https.map_or("", |https| if https { "https://" } else { "http://" });
    let url = format!("{scheme}{}{path}", authority.as_deref().unwrap_or_default());
    let from = question.client;
    let asked = match person {
        None => format!("{{ from = \"{from}\" }}"),
        Some(person) if person.claims.is_empty() => {
            let (user, groups, ago) = (&person.user, &person.groups, person.ago.as_secs());
            format!("{{ user = {user:?}, groups = {groups:?}, signed_in_ago = \"{ago}s\", from = \"{from}\" }}")
        }
        Some(_) => return None,
    };
    (!asked.contains("\\u{")).then(|| format!("request = \"{} {url}\"\nas = {asked}\n", question.method))
}

#[test]
fn a_key_for_other_routes_is_told_from_a_bad_one() {
    let config = config("");
    let rules = Rules::new(&config.routes);
    let asked = question("GET", "/api/x", "10.1.2.3");
    let known = |routes: &[&str]| {
        let explanation = examine(&config, &rules, &asked, |head| {
            let asker = invented(&person("bot", &["reader"]).unwrap(), &config, &rules, head).unwrap();
            let routes: Vec<String> = routes.iter().map(|&route| route.to_owned()).collect();
            Asker { shown: Shown::Bearer, key_routes: Some(routes.into()), ..asker }
        });
        (explanation.outcome, explanation.code)
    };
    assert_eq!(known(&["read"]), ("allow".to_owned(), "signed-in".to_owned()));
    assert_eq!(known(&["write"]), ("deny".to_owned(), "key-elsewhere".to_owned()));
}
