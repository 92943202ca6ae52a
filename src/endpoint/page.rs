//! The pages that people see: sign in, sign out, messages and (in `error`) refusals. Each function returns a whole
//! document from facts; who asks, and what is allowed, was decided before. The pages need no script and load nothing.

pub mod account;
mod error;
pub(crate) mod html;

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

pub use self::error::{ErrorPage, error};
use self::html::Html;
use self::html::Value::{Address, Html as Markup, Text};

/// What stands on the sign-in page.
#[derive(Clone, Copy, Debug)]
pub struct LoginPage<'a> {
    /// `login.title`.
    pub title: &'a str,
    /// `login.path`, where the form goes.
    pub path: &'a str,
    /// Where to go afterwards: a path on this host, checked again when the form comes back.
    pub next: &'a str,
    /// What the user-name field holds already.
    pub username: &'a str,
    /// Whether "Keep me signed in" is ticked already.
    pub remember: bool,
    /// Why the last attempt did not succeed.
    pub error: Option<LoginError<'a>>,
    /// Something else to know first.
    pub notice: Option<Notice<'a>>,
    /// Whether someone who is signed in is asked anew (`again=1`).
    pub again: bool,
}

/// Why an attempt to sign in did not succeed, as far as the client may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError<'a> {
    /// Wrong name or password: `login.failure_detail`.
    Refused {
        /// What is said about it.
        detail: &'a str,
    },
    /// Too many attempts; the next one counts after this time.
    TooMany {
        /// As in `Retry-After`.
        seconds: u64,
    },
    /// A field is missing, or there twice.
    Malformed,
    /// The form was sent from a page of another site.
    CrossSite,
    /// The store does not answer.
    Unavailable,
}

/// What to know before signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The session has just been ended.
    SignedOut,
    /// There is a session already, of this user.
    SignedInAs(&'a str),
}

/// What stands on the sign-out page.
#[derive(Clone, Copy, Debug)]
pub struct LogoutPage<'a> {
    /// `login.title`.
    pub title: &'a str,
    /// `login.logout_path`, where the form goes.
    pub path: &'a str,
    /// `login.path`.
    pub login_path: &'a str,
    /// Who is signed in.
    pub user: Option<&'a str>,
}

/// What stands on a page that explains something.
#[derive(Clone, Copy, Debug)]
pub struct MessagePage<'a> {
    /// `login.title`.
    pub title: &'a str,
    /// What is explained.
    pub message: Message<'a>,
}

/// Something that is explained on a page of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The password was right, but the browser did not return the cookie that says so.
    CookieNotReturned {
        /// The likely reason.
        cause: CookieLost<'a>,
        /// The link that tries again, such as `/login?next=%2F`.
        retry: &'a str,
    },
}

/// Why a browser did not return the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieLost<'a> {
    /// The page is shown on `http://`, and the cookie is for `https://` only.
    NotSecure {
        /// `server.public_url`.
        public_url: &'a str,
    },
    /// The page is shown at another host than the configured one.
    OtherHost {
        /// `server.public_url`.
        public_url: &'a str,
    },
    /// Neither: cookies are blocked.
    Blocked,
}

/// The sign-in page.
#[must_use]
pub fn login(page: &LoginPage<'_>) -> String {
    let heading = if page.again { "Sign in again" } else { "Sign in" };
    let alert = page.error.map(alert);
    let mut above: Vec<Html> = page.notice.map(notice).into_iter().collect();
    let failed = alert.is_some();
    above.extend(alert);
    let above = Html::join(above);
    let (about_username, about_password) = attention(page);
    let content = Html::fill(
        include_str!("page/login.html"),
        &[
            ("heading", Text(heading)),
            ("above", Markup(&above)),
            ("path", Text(page.path)),
            ("next", Text(page.next)),
            ("username", Text(page.username)),
            ("about_username", Markup(&about_username)),
            ("about_password", Markup(&about_password)),
            ("remember", Markup(&Html::fixed(if page.remember { " checked" } else { "" }))),
        ],
    );
    // A screen reader says the title first.
    let tab = if failed { "Not signed in" } else { heading };
    document(tab, page.title, Width::Narrow, STYLE, &content)
}

/// The sign-out page: a button, so that no link and no image can sign anybody out.
#[must_use]
pub fn logout(page: &LogoutPage<'_>) -> String {
    let content = match page.user {
        Some(user) => Html::fill(include_str!("page/logout.html"), &[("user", Text(user)), ("path", Text(page.path))]),
        None => Html::fill(
            "<h1>Signed out</h1>\n<p>Nobody is signed in with this browser.</p>\n\
             <p class=\"actions\"><a class=\"action\" href=\"{{login}}\">Sign in</a></p>",
            &[("login", Text(page.login_path))],
        ),
    };
    let tab = if page.user.is_some() { "Sign out" } else { "Signed out" };
    document(tab, page.title, Width::Narrow, STYLE, &content)
}

/// A page that explains something.
#[must_use]
pub fn message(page: &MessagePage<'_>) -> String {
    let Message::CookieNotReturned { cause, retry } = page.message;
    let heading = "Your browser did not keep the sign-in";
    let advice = match cause {
        CookieLost::NotSecure { public_url } => Html::fill(
            "<p>The likely cause: this page came over <code>http://</code>, and the cookie is made for \
             <code>https://</code> only. Use the secure address instead.</p>\n\
             <p class=\"actions\"><a class=\"action\" href=\"{{url}}\">Open {{text}}</a></p>",
            &[("url", Address(public_url)), ("text", Text(public_url))],
        ),
        CookieLost::OtherHost { public_url } => Html::fill(
            "<p>The likely cause: this is not the address that the sign-in is made for. Use that one instead.</p>\n\
             <p class=\"actions\"><a class=\"action\" href=\"{{url}}\">Open {{text}}</a>\
             <a class=\"action\" href=\"{{retry}}\">Try again here</a></p>",
            &[("url", Address(public_url)), ("text", Text(public_url)), ("retry", Text(retry))],
        ),
        CookieLost::Blocked => Html::fill(
            "<p>The likely cause: cookies are blocked for this site, by a setting of the browser or by an extension. \
             Allow them, then sign in again.</p>\n\
             <p class=\"actions\"><a class=\"action\" href=\"{{retry}}\">Try again</a></p>",
            &[("retry", Text(retry))],
        ),
    };
    let content =
        Html::fill(include_str!("page/message.html"), &[("heading", Text(heading)), ("content", Markup(&advice))]);
    document(heading, page.title, Width::Narrow, STYLE, &content)
}

/// What every page carries: its type, the policy and [`SECURITY_HEADERS`].
pub fn headers() -> HeaderMap {
    let mut headers = security_headers();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers
}

/// The policy and [`SECURITY_HEADERS`], which stand on every answer of the gateway's own.
pub fn security_headers() -> HeaderMap {
    static ALL: LazyLock<HeaderMap> = LazyLock::new(|| {
        let policy = HeaderValue::from_str(csp()).map(|policy| (header::CONTENT_SECURITY_POLICY, policy));
        policy.into_iter().chain(SECURITY_HEADERS.iter().cloned()).collect()
    });
    ALL.clone()
}

/// The `Content-Security-Policy` of the pages: nothing but their own style, and forms to this host.
#[must_use]
pub fn csp() -> &'static str {
    static CSP: LazyLock<String> = LazyLock::new(|| csp_for(STYLE));
    &CSP
}

/// The policy for a page with this `style`.
pub(crate) fn csp_for(style: &str) -> String {
    let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'"
    )
}

/// What every answer of the gateway's own carries, beside the policy.
pub static SECURITY_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

/// The style of all pages.
pub(crate) const STYLE: &str = include_str!("page/style.css");

/// How much room a page takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Width {
    /// A card.
    Narrow,
    /// Room for a table.
    Wide,
}

/// A whole document around `content`. The program's own `style` is a part of it, never text from elsewhere.
pub(crate) fn document(tab: &str, title: &str, width: Width, style: &'static str, content: &Html) -> String {
    let tab =
        if title.is_empty() || title == tab { Cow::Borrowed(tab) } else { Cow::Owned(format!("{tab} · {title}")) };
    Html::fill(
        include_str!("page/layout.html"),
        &[
            ("title", Text(&tab)),
            ("brand", Text(if title.is_empty() { "Portcullis" } else { title })),
            ("style", Markup(&Html::fixed(style))),
            (
                "width",
                Text(match width {
                    Width::Narrow => "narrow",
                    Width::Wide => "wide",
                }),
            ),
            ("content", Markup(content)),
        ],
    )
    .into_string()
}

/// A time to wait, as people say it; never less than it is.
pub(crate) fn wait(seconds: u64) -> String {
    match seconds {
        0 | 1 => "1 second".to_owned(),
        2..=119 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// The attributes that lead eye, ear and cursor to the field that matters now: user name, then password.
fn attention(page: &LoginPage<'_>) -> (Html, Html) {
    let about = match page.error {
        Some(LoginError::Refused { .. }) => " aria-invalid=\"true\" aria-describedby=\"error\"",
        Some(_) => " aria-describedby=\"error\"",
        None => "",
    };
    let (first, second) = if page.username.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
    let attributes = |focus| Html::join([Html::fixed(about), Html::fixed(focus)]);
    (attributes(first), attributes(second))
}

fn alert(error: LoginError<'_>) -> Html {
    let (what, advice) = match error {
        LoginError::Refused { detail } => (detail, Cow::Borrowed("Check the user name and the password.")),
        LoginError::TooMany { seconds } => {
            ("Too many attempts", Cow::Owned(format!("Wait {}, then try again.", wait(seconds))))
        }
        LoginError::Malformed => ("Something is missing", Cow::Borrowed("Fill in the user name and the password.")),
        LoginError::CrossSite => {
            ("Sent from another site", Cow::Borrowed("The form did not come from this page. Fill it in here."))
        }
        LoginError::Unavailable => (
            "Sign-in does not work at the moment",
            Cow::Borrowed("It is not about your password. Try again in a minute."),
        ),
    };
    Html::fill(
        "<div class=\"alert\" id=\"error\" role=\"alert\"><strong>{{what}}</strong> {{advice}}</div>\n",
        &[("what", Text(what)), ("advice", Text(&advice))],
    )
}

fn notice(notice: Notice<'_>) -> Html {
    match notice {
        Notice::SignedOut => Html::fixed("<p class=\"notice\" role=\"status\">You are signed out.</p>\n"),
        Notice::SignedInAs(user) => Html::fill(
            "<p class=\"notice\">You are signed in as <b><bdi>{{user}}</bdi></b>. Confirm your password, or use another \
             account.</p>\n",
            &[("user", Text(user))],
        ),
    }
}

#[cfg(test)]
mod tests;
