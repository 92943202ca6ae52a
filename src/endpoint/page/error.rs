//! The page for an answer that is not what was asked for: what happened, whether it helps to try again, and where to
//! go from here. It never says the cause, which is in the log under the request's id.

use std::borrow::Cow;

use form_urlencoded::byte_serialize;
use http::StatusCode;

use super::html::Html;
use super::html::Value::{Html as Markup, Text};
use super::{STYLE, Width, document, wait};

/// What stands on an error page. Only the facts: words and links follow from them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorPage<'a> {
    /// `login.title`.
    pub title: &'a str,
    /// Any 4xx or 5xx.
    pub status: StatusCode,
    /// Instead of the usual heading.
    pub heading: Option<&'a str>,
    /// Instead of the usual explanation.
    pub explanation: Option<&'a str>,
    /// What the log knows the request by.
    pub request_id: &'a str,
    /// Who is signed in.
    pub signed_in: Option<&'a str>,
    /// As in `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
    /// `login.path`, where signing in can help.
    pub login_path: Option<&'a str>,
    /// Path and query of the page that was asked for, if it can be asked for again.
    pub here: Option<&'a str>,
}

/// The page for an error.
#[must_use]
pub fn error(page: &ErrorPage<'_>) -> String {
    let (heading, explanation) = words(page);
    let heading = page.heading.unwrap_or(heading);
    let account = match page.signed_in {
        Some(user) if page.status == StatusCode::FORBIDDEN => {
            Html::fill("<p>You are signed in as <b><bdi>{{user}}</bdi></b>.</p>\n", &[("user", Text(user))])
        }
        _ => Html::default(),
    };
    let request = if page.request_id.is_empty() {
        Html::default()
    } else {
        Html::fill(
            "\n<p class=\"request\">For questions, give this request ID: <code>{{id}}</code></p>",
            &[("id", Text(page.request_id))],
        )
    };
    let content = Html::fill(
        include_str!("error.html"),
        &[
            ("status", Text(page.status.as_str())),
            ("heading", Text(heading)),
            ("account", Markup(&account)),
            ("explanation", Text(page.explanation.unwrap_or(&explanation))),
            ("actions", Markup(&actions(page))),
            ("request", Markup(&request)),
        ],
    );
    document(heading, page.title, Width::Narrow, STYLE, &content)
}

/// Heading and explanation.
fn words(page: &ErrorPage<'_>) -> (&'static str, Cow<'static, str>) {
    let status = page.status.as_u16();
    let usual = if page.status.is_client_error() { REFUSED } else { BROKEN };
    let (heading, explanation) = match status {
        403 if page.signed_in.is_some() => NOT_THIS_ACCOUNT,
        _ => WORDS.iter().find(|(known, _)| *known == status).map_or(usual, |(_, words)| *words),
    };
    let explanation = match page.retry_after {
        Some(seconds) => Cow::Owned(format!("{explanation} Try again in {}.", wait(seconds))),
        None => Cow::Borrowed(explanation),
    };
    (heading, explanation)
}

/// The links that help with this status, the likeliest first.
fn actions(page: &ErrorPage<'_>) -> Html {
    let next: String = byte_serialize(page.here.unwrap_or("/").as_bytes()).collect();
    let mut links: Vec<(&str, Cow<'_, str>)> = Vec::new();
    match (page.status.as_u16(), page.login_path, page.here) {
        (401, Some(login), _) => links.push(("Sign in", format!("{login}?next={next}").into())),
        (403, Some(login), _) if page.signed_in.is_some() => {
            links.push(("Sign in with another account", format!("{login}?again=1&next={next}").into()));
        }
        (408 | 429 | 500..=599, _, Some(here)) => links.push(("Try again", here.into())),
        _ => {}
    }
    if page.here != Some("/") && page.status != StatusCode::UNAUTHORIZED {
        links.push(("Go to the start page", "/".into()));
    }
    if links.is_empty() {
        return Html::default();
    }
    let links = Html::join(links.into_iter().map(|(label, to)| {
        Html::fill("<a class=\"action\" href=\"{{to}}\">{{label}}</a>", &[("to", Text(&to)), ("label", Text(label))])
    }));
    Html::fill("<p class=\"actions\">{{links}}</p>", &[("links", Markup(&links))])
}

type Words = (&'static str, &'static str);

const NOT_THIS_ACCOUNT: Words =
    ("Not allowed", "This account may not open this page. Somebody who looks after the gateway can change that.");

const REFUSED: Words = ("This request was refused", "It cannot be answered in the way in which it was asked.");

const BROKEN: Words = ("Something went wrong", "You did nothing wrong, and it may be over in a moment.");

/// What is said about each status that the gateway gives.
const WORDS: [(u16, Words); 14] = [
    (
        400,
        (
            "This request is not clear",
            "The address, or something else in the request, can be read in more than one way, so it was not passed on. Check the address for typing mistakes.",
        ),
    ),
    (401, ("Sign in first", "This page is only for people who are signed in.")),
    (403, ("Not allowed", "This page is not open to you from here.")),
    (404, ("Nothing here", "There is no page at this address. Check it for typing mistakes.")),
    (405, ("Not possible this way", "This address exists, but it does not take this kind of request.")),
    (408, ("That took too long", "The request did not arrive in time.")),
    (413, ("Too large", "What you sent is larger than this page takes. Send something smaller.")),
    (414, ("Too long", "The address is longer than the gateway takes.")),
    (429, ("Too many requests", "More has come from you than is taken at once.")),
    (
        431,
        (
            "Too long",
            "The headers are longer than the gateway takes. It often helps to clear the cookies of this site.",
        ),
    ),
    (500, ("Something went wrong", "The gateway made a mistake, and has noted it in its log. You did nothing wrong.")),
    (
        502,
        (
            "The application does not answer properly",
            "You did nothing wrong. The application behind this address is down, or sent something that cannot be passed on.",
        ),
    ),
    (503, ("Not available at the moment", "You did nothing wrong, and it may be over in a moment.")),
    (
        504,
        (
            "The application takes too long",
            "You did nothing wrong. The application behind this address did not answer in time.",
        ),
    ),
];
