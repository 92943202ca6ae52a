//! Whole pages against stored ones (`UPDATE=1` writes them anew), and what must hold for every page.

use std::path::Path;

use http::StatusCode;

use super::*;

const NASTY: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>";

fn sign_in() -> LoginPage<'static> {
    LoginPage {
        title: "Example apps",
        path: "/login",
        next: "/reports?year=2026&month=5",
        username: "",
        remember: false,
        error: None,
        notice: None,
        again: false,
    }
}

fn refused() -> ErrorPage<'static> {
    ErrorPage {
        title: "Example apps",
        status: StatusCode::FORBIDDEN,
        request_id: "01JA7Z3M9Q",
        signed_in: Some("bob"),
        login_path: Some("/login"),
        here: Some("/admin?tab=1&x=a b"),
        ..ErrorPage::default()
    }
}

/// Every kind of page, by the name of its file.
fn pages() -> Vec<(String, String)> {
    let forms = sign_in_pages().into_iter().chain(other_pages());
    let mut pages: Vec<_> = forms.map(|(name, page)| (name.to_owned(), page)).collect();
    for code in [400, 401, 403, 404, 405, 408, 413, 414, 418, 429, 431, 500, 502, 503, 504, 599] {
        let status = StatusCode::from_u16(code).unwrap();
        let retry_after = [429, 503].contains(&code).then_some(30);
        let page = error(&ErrorPage { status, retry_after, ..refused() });
        pages.push((format!("error-{code}"), page));
    }
    pages
}

fn sign_in_pages() -> Vec<(&'static str, String)> {
    let failed = |error| login(&LoginPage { error: Some(error), username: "alice", remember: true, ..sign_in() });
    let told = |notice, again| login(&LoginPage { notice: Some(notice), again, ..sign_in() });
    vec![
        ("login", login(&sign_in())),
        ("login-refused", failed(LoginError::Refused { detail: "Invalid credentials" })),
        ("login-too-many", failed(LoginError::TooMany { seconds: 8 })),
        ("login-malformed", failed(LoginError::Malformed)),
        ("login-cross-site", failed(LoginError::CrossSite)),
        ("login-unavailable", failed(LoginError::Unavailable)),
        ("login-again", told(Notice::SignedInAs("alice"), true)),
        ("login-signed-out", told(Notice::SignedOut, false)),
    ]
}

fn other_pages() -> Vec<(&'static str, String)> {
    let (title, public_url) = ("Example apps", "https://apps.example.com");
    let leave = LogoutPage { title, path: "/logout", login_path: "/login", user: Some("alice") };
    let lost = |cause| {
        let message = Message::CookieNotReturned { cause, retry: "/login?next=%2F" };
        super::message(&MessagePage { title, message })
    };
    vec![
        ("logout", logout(&leave)),
        ("logout-nobody", logout(&LogoutPage { user: None, ..leave })),
        ("cookie-not-secure", lost(CookieLost::NotSecure { public_url })),
        ("cookie-other-host", lost(CookieLost::OtherHost { public_url })),
        ("cookie-blocked", lost(CookieLost::Blocked)),
    ]
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
fn the_sign_in_page_is_as_stored() {
    compare("login", &login(&sign_in()));
}

#[test]
fn the_refusal_is_as_stored() {
    compare("error-403", &error(&refused()));
}

#[test]
fn nothing_inserted_becomes_markup() {
    let nasty = [
        login(&LoginPage {
            title: NASTY,
            path: NASTY,
            next: NASTY,
            username: NASTY,
            remember: true,
            error: Some(LoginError::Refused { detail: NASTY }),
            notice: Some(Notice::SignedInAs(NASTY)),
            again: true,
        }),
        logout(&LogoutPage { title: NASTY, path: NASTY, login_path: NASTY, user: Some(NASTY) }),
        logout(&LogoutPage { title: NASTY, path: NASTY, login_path: NASTY, user: None }),
        error(&ErrorPage {
            title: NASTY,
            status: StatusCode::FORBIDDEN,
            heading: Some(NASTY),
            explanation: Some(NASTY),
            request_id: NASTY,
            signed_in: Some(NASTY),
            retry_after: None,
            login_path: Some(NASTY),
            here: Some(NASTY),
        }),
        error(&ErrorPage { status: StatusCode::BAD_GATEWAY, here: Some("//evil.example"), ..refused() }),
        message(&MessagePage {
            title: NASTY,
            message: Message::CookieNotReturned { cause: CookieLost::OtherHost { public_url: NASTY }, retry: NASTY },
        }),
    ];
    for page in nasty {
        for bad in ["<script", "<img", "=\"\"'>", "href=\"//", "href=\"&quot;", "action=\"&quot;"] {
            assert!(!page.contains(bad), "{bad} in {page}");
        }
    }
}

#[test]
fn the_policy_names_the_hash_of_the_style_that_is_sent() {
    for (name, page) in pages() {
        let (_, rest) = page.split_once("<style>").unwrap();
        let (style, rest) = rest.split_once("</style>").unwrap();
        assert_eq!(csp_for(style), csp(), "{name}");
        for other in ["<style", " style=", "<script", " onclick", "<link rel=\"stylesheet\"", "src="] {
            assert!(!rest.contains(other), "{other} in {name}");
        }
    }
    // A parser turns CR LF into LF before it hashes.
    assert!(!STYLE.contains('\r'));
    assert!(csp().starts_with("default-src 'none'; style-src 'sha256-"), "{}", csp());
    assert!(!csp().contains("unsafe"));
}

#[test]
fn every_page_is_whole_and_for_people() {
    let pages = pages();
    assert!(pages.len() > 20);
    for (name, page) in pages {
        assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{name}");
        assert!(page.ends_with("</html>"), "{name}");
        assert!(!page.contains("{{"), "{name}");
        for once in ["<title>", "<h1>", "<main", "name=\"robots\" content=\"noindex\"", "name=\"color-scheme\""] {
            assert_eq!(page.matches(once).count(), 1, "{once} in {name}");
        }
    }
}

#[test]
fn an_error_leads_to_the_field_that_matters() {
    let error = Some(LoginError::Refused { detail: "Invalid credentials" });
    let page = login(&LoginPage { error, username: "alice", ..sign_in() });
    assert!(page.contains("role=\"alert\"><strong>Invalid credentials</strong>"));
    assert!(page.contains("<title>Not signed in · Example apps</title>"));
    let password = page.lines().find(|line| line.contains("id=\"password\"")).unwrap();
    assert!(password.ends_with("aria-invalid=\"true\" aria-describedby=\"error\" autofocus>"), "{password}");
    let plain = login(&sign_in());
    assert_eq!(plain.matches("autofocus").count(), 1);
    assert!(!plain.contains("aria-invalid=\"") && !plain.contains("role=\"alert\""));
}

#[test]
fn a_refusal_offers_what_can_help() {
    let with = |status| error(&ErrorPage { status, retry_after: Some(30), ..refused() });
    let other = "href=\"/login?again=1&amp;next=%2Fadmin%3Ftab%3D1%26x%3Da+b\"";
    assert!(with(StatusCode::FORBIDDEN).contains(other));
    assert!(with(StatusCode::FORBIDDEN).contains("<bdi>bob</bdi>"));
    assert!(with(StatusCode::UNAUTHORIZED).contains("href=\"/login?next=%2Fadmin%3Ftab%3D1%26x%3Da+b\""));
    assert!(with(StatusCode::TOO_MANY_REQUESTS).contains("Try again in 30 seconds."));
    assert!(with(StatusCode::BAD_GATEWAY).contains("href=\"/admin?tab=1&amp;x=a b\">Try again"));
    assert!(!with(StatusCode::NOT_FOUND).contains("/login"));
    let nobody = error(&ErrorPage { signed_in: None, ..refused() });
    assert!(!nobody.contains("/login") && !nobody.contains("signed in as"));
    let no_store = error(&ErrorPage { login_path: None, ..refused() });
    assert!(!no_store.contains("/login"));
}

#[test]
fn a_wait_is_never_said_too_short() {
    let cases = [
        (0, "1 second"),
        (1, "1 second"),
        (2, "2 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (121, "3 minutes"),
        (900, "15 minutes"),
    ];
    for (seconds, text) in cases {
        assert_eq!(wait(seconds), text);
    }
}

#[test]
fn a_page_says_once_what_it_is_and_what_may_be_done_with_it() {
    let headers = headers();
    assert_eq!(headers.get_all(header::CACHE_CONTROL).iter().collect::<Vec<_>>(), ["no-store"]);
    assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(headers[header::CONTENT_SECURITY_POLICY], csp());
    assert_eq!(headers[header::REFERRER_POLICY], "same-origin");
    assert_eq!((headers.len(), headers.keys_len()), (8, 8));
    assert_eq!(security_headers().len(), 7, "all but the type");
}

/// Writes every page to a folder, to look at them: `PAGES=/tmp/pages cargo test --lib page:: -- --ignored`.
#[test]
#[ignore = "writes files for a person to look at"]
fn write_every_page() {
    let folder = std::env::var_os("PAGES").expect("PAGES names a folder");
    for (name, page) in pages() {
        std::fs::write(Path::new(&folder).join(name).with_extension("html"), page).unwrap();
    }
}
