//! The pages on which people look after their own account: where they are signed in, a new password, API keys, and the
//! question for the password before anything is ended. Facts in, a document out; what is allowed was decided before.

mod keys;

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use super::html::Html;
use super::html::Value::{Html as Markup, Text};
use super::{Width, csp_for, document, wait};
use crate::clock::Timestamp;
use crate::identity::password::MIN_NEW_CHARS;

pub use keys::{Key, Keys, Lasts, NewKeyPage, made, new_key};

/// What all pages know.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// `login.title`.
    pub title: &'a str,
    /// Who is signed in.
    pub user: &'a str,
    /// `login.logout_path`.
    pub logout_path: &'a str,
    /// Where the page is; its forms go to `/password`, `/sessions` and `/keys` below it.
    pub path: &'a str,
    /// When the page is made.
    pub now: Timestamp,
}

/// What stands on the page of an account.
#[derive(Clone, Copy, Debug)]
pub struct AccountPage<'a> {
    /// What both pages know.
    pub frame: Frame<'a>,
    /// The session in which the page is asked for.
    pub this: Option<&'a Session>,
    /// The others, the latest used first.
    pub others: &'a [Session],
    /// How many others there are, shown or not.
    pub count: u64,
    /// The API keys.
    pub keys: Keys<'a>,
    /// Where the password is changed.
    pub password: Password,
    /// What was just done.
    pub notice: Option<Done>,
    /// Why something was not done.
    pub error: Option<NotDone>,
}

/// Where the password of an account is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Password {
    /// On the page.
    Here,
    /// In the file that the account stands in.
    Elsewhere,
}

/// What stands on the page that asks for the password before something is ended.
#[derive(Clone, Copy, Debug)]
pub struct EndPage<'a> {
    /// What both pages know.
    pub frame: Frame<'a>,
    /// What is to be ended.
    pub end: End<'a>,
    /// Why it was not ended.
    pub error: Option<NotDone>,
}

/// What is to be ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// One session.
    One(&'a Session),
    /// All but the one in which the page is asked for: so many.
    Others(u64),
    /// An API key.
    Key(&'a Key),
}

/// A session in words.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its public id.
    pub id: String,
    /// The browser or program, in words.
    pub browser: String,
    /// The client's address at sign-in.
    pub client: String,
    /// When it began.
    pub since: Timestamp,
    /// When it was last used, to the minute.
    pub last_used: Timestamp,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
    /// How it is kept.
    pub kept: Kept,
}

/// How a session is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// By a browser, until its end.
    Remembered,
    /// By a browser, until it is not used for this time.
    WhileUsed(Duration),
    /// By a program, as tokens.
    Tokens,
}

/// What was just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Done {
    PasswordChanged,
    SessionEnded,
    OthersEnded,
    KeyRevoked,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// The current password is wrong.
    WrongPassword,
    /// Too many attempts; the next one counts after so many seconds.
    TooMany(u64),
    /// The new password has too few characters.
    Short,
    /// The new password has too many bytes.
    Long,
    /// The new password is the account's name.
    UserName,
    /// The account stands in a file, where its password is changed.
    InFile,
    /// The new password was typed in two ways.
    Different,
    /// The new password is the old one.
    Same,
    /// There is no such session of this account.
    NoSuchSession,
    /// There is no such API key of this account.
    NoSuchKey,
    /// No key can have this name.
    KeyName,
    /// There is a key of this name.
    KeyTaken,
    /// There are as many keys as one account may make here.
    KeysFull,
    /// The store does not answer, or too many passwords are waiting.
    Unavailable,
}

/// The page of an account.
#[must_use]
pub fn account(page: &AccountPage<'_>) -> String {
    let Frame { user, logout_path, path, title, .. } = page.frame;
    let error = page.error.map(|error| (error, alert(error)));
    // What is wrong with a session is said above all, what is wrong with a password where it was typed.
    let (above, beside) = match error {
        Some((NotDone::NoSuchSession | NotDone::NoSuchKey, alert)) => (alert, Html::default()),
        Some((_, alert)) => (Html::default(), alert),
        None => (page.notice.map(notice).unwrap_or_default(), Html::default()),
    };
    let then = match page.password {
        Password::Here => "End it, then change your password.",
        Password::Elsewhere => "End it, then ask for another password.",
    };
    let content = Html::fill(
        include_str!("account.html"),
        &[
            ("user", Text(user)),
            ("logout", Text(logout_path)),
            ("notice", Markup(&above)),
            ("sessions", Markup(&sessions(page))),
            ("others", Markup(&end_others(path, page.count))),
            ("then", Text(then)),
            ("password", Markup(&password(page, &beside))),
            ("keys", Markup(&keys::section(page))),
        ],
    );
    let tab = if page.error.is_some() { "Nothing changed" } else { "Your account" };
    document(tab, title, Width::Wide, STYLE, &content)
}

/// The form for a new password, or where it is changed instead; `alert` says what was wrong with the last one.
fn password(page: &AccountPage<'_>, alert: &Html) -> Html {
    if page.password == Password::Elsewhere {
        return Html::fill(include_str!("account_password_elsewhere.html"), &[("alert", Markup(alert))]);
    }
    let password_path = format!("{}/password", page.frame.path);
    let least = MIN_NEW_CHARS.to_string();
    let [about_password, about_new, about_again] = attention(page.error);
    Html::fill(
        include_str!("account_password.html"),
        &[
            ("user", Text(page.frame.user)),
            ("alert", Markup(alert)),
            ("password_path", Text(&password_path)),
            ("least", Text(&least)),
            ("about_password", Markup(&about_password)),
            ("about_new", Markup(&about_new)),
            ("about_again", Markup(&about_again)),
        ],
    )
}

/// The page that asks for the password before something is ended.
#[must_use]
pub fn end(page: &EndPage<'_>) -> String {
    let Frame { user, path, now, title, .. } = page.frame;
    let alert = page.error.map(alert).unwrap_or_default();
    let about = if page.error.is_some() { " aria-invalid=\"true\" aria-describedby=\"error\"" } else { "" };
    let alone = |item: Html| Html::fill("<ul>\n{{item}}\n</ul>", &[("item", Markup(&item))]);
    let (heading, button, (field, id), what) = match page.end {
        End::One(session) => {
            let list = alone(shown(session, false, None, now));
            ("End this session?", "End session", ("end", session.id.as_str()), list)
        }
        End::Others(count) => {
            let count = counted(count);
            let what = Html::fill(
                "<p>{{count}} elsewhere will be signed out at once. In this browser you stay signed in.</p>",
                &[("count", Text(&count))],
            );
            ("End all other sessions?", "End all others", ("end", OTHERS), what)
        }
        End::Key(key) => {
            let list = alone(keys::shown(key, None, now));
            ("Revoke this API key?", "Revoke key", ("revoke", key.id.as_str()), list)
        }
    };
    let target = format!("{path}/{}", if matches!(page.end, End::Key(_)) { "keys" } else { "sessions" });
    let content = Html::fill(
        include_str!("account_end.html"),
        &[
            ("heading", Text(heading)),
            ("alert", Markup(&alert)),
            ("what", Markup(&what)),
            ("path", Text(&target)),
            ("field", Text(field)),
            ("id", Text(id)),
            ("user", Text(user)),
            ("about_password", Markup(&Html::fixed(about))),
            ("button", Text(button)),
            ("back", Text(path)),
        ],
    );
    let tab = if page.error.is_some() { "Nothing ended" } else { heading };
    document(tab, title, Width::Narrow, STYLE, &content)
}

/// The `Content-Security-Policy` of these two pages, whose style is longer than that of the others.
#[must_use]
pub fn csp() -> &'static str {
    static CSP: LazyLock<String> = LazyLock::new(|| csp_for(STYLE));
    &CSP
}

/// What `end` says when all other sessions are meant. No session has this id.
pub const OTHERS: &str = "others";

fn sessions(page: &AccountPage<'_>) -> Html {
    let (path, now) = (page.frame.path, page.frame.now);
    let list =
        |sessions: Vec<Html>| Html::fill("<ul>\n{{sessions}}</ul>\n", &[("sessions", Markup(&Html::join(sessions)))]);
    let (first, rest) = page.others.split_at(page.others.len().min(SHOWN_AT_ONCE));
    let item = |session: &Session| shown(session, false, Some(path), now);
    let mut parts = vec![list(
        page.this.map(|this| shown(this, true, None, now)).into_iter().chain(first.iter().map(item)).collect(),
    )];
    if !rest.is_empty() {
        let label = format!("Show {} more", rest.len());
        let rest = list(rest.iter().map(item).collect());
        parts.push(Html::fill(
            "<details>\n<summary>{{label}}</summary>\n{{rest}}</details>\n",
            &[("label", Text(&label)), ("rest", Markup(&rest))],
        ));
    }
    let listed = u64::try_from(page.others.len()).unwrap_or(u64::MAX);
    if let Some(hidden) = page.count.checked_sub(listed).filter(|hidden| *hidden > 0) {
        let more = format!("These are the {listed} used last, and there are {hidden} more.");
        parts.push(Html::fill("<p>{{more}}</p>\n", &[("more", Text(&more))]));
    }
    Html::join(parts)
}

fn end_others(path: &str, count: u64) -> Html {
    if count == 0 {
        return Html::fixed("<p>You are signed in nowhere else.</p>\n");
    }
    let fields = [("path", Text(path)), ("others", Text(OTHERS))];
    Html::fill(
        "<form method=\"get\" action=\"{{path}}\"><input type=\"hidden\" name=\"end\" value=\"{{others}}\">\
         <button class=\"quiet\" type=\"submit\">End all other sessions</button></form>\n",
        &fields,
    )
}

/// One session. With a path it has the button that asks for its end.
fn shown(session: &Session, is_this: bool, path: Option<&str>, now: Timestamp) -> Html {
    let has_button = path.is_some();
    let button = path.map(|path| {
        Html::fill(
            "<form method=\"get\" action=\"{{path}}\"><input type=\"hidden\" name=\"end\" value=\"{{id}}\">\
             <button class=\"quiet\" type=\"submit\">End<span class=\"unseen\"> session: {{browser}}</span></button></form>\n",
            &[("path", Text(path)), ("id", Text(&session.id)), ("browser", Text(&session.browser))],
        )
    });
    let kept = match session.kept {
        Kept::Remembered => format!("Remembered until {}", day(session.expires_at)),
        Kept::WhileUsed(idle) => format!("Until not used for {}", span(idle)),
        Kept::Tokens => "By a program, as tokens".to_owned(),
    };
    // Below the heading of the list; alone on its page below the page's.
    let is_listed = is_this || has_button;
    let since_machine = session.since.rfc3339();
    let client = if session.client.is_empty() { "unknown" } else { &session.client };
    Html::fill(
        include_str!("account_session.html"),
        &[
            ("class", Markup(&Html::fixed(if is_this { " class=\"this\"" } else { "" }))),
            ("level", Text(if is_listed { "3" } else { "2" })),
            ("browser", Text(&session.browser)),
            ("badge", Markup(&Html::fixed(if is_this { " <span class=\"badge\">This browser</span>" } else { "" }))),
            ("last_used", Text(&if is_this { "Now".into() } else { ago(now.since(session.last_used)) })),
            ("since_machine", Text(&since_machine)),
            ("since", Text(&moment(session.since))),
            ("client", Text(client)),
            ("kept", Text(&kept)),
            ("button", Markup(&button.unwrap_or_default())),
        ],
    )
}

/// The attributes that lead eye and ear to the field that matters now: the current password, the new one, the new one
/// once more. The cursor goes to the first of them, as no password comes back and all three are to be typed again.
fn attention(error: Option<NotDone>) -> [Html; 3] {
    let hint = " aria-describedby=\"new-hint\"";
    let (current, new, again) = match error {
        Some(NotDone::WrongPassword) => (" aria-invalid=\"true\" aria-describedby=\"error\" autofocus", hint, ""),
        Some(NotDone::TooMany(_) | NotDone::Unavailable) => (" aria-describedby=\"error\" autofocus", hint, ""),
        Some(NotDone::Short | NotDone::Long | NotDone::UserName | NotDone::Same) => {
            (" autofocus", " aria-invalid=\"true\" aria-describedby=\"error new-hint\"", "")
        }
        Some(NotDone::Different) => (" autofocus", hint, " aria-invalid=\"true\" aria-describedby=\"error\""),
        // Said above all, or on another page.
        Some(
            NotDone::InFile
            | NotDone::NoSuchSession
            | NotDone::NoSuchKey
            | NotDone::KeyName
            | NotDone::KeyTaken
            | NotDone::KeysFull,
        )
        | None => ("", hint, ""),
    };
    [current, new, again].map(Html::fixed)
}

fn notice(done: Done) -> Html {
    Html::fixed(match done {
        Done::PasswordChanged => {
            "<p class=\"notice\" role=\"status\"><strong>Your password is changed.</strong> \
             You are signed out everywhere else.</p>\n"
        }
        Done::SessionEnded => "<p class=\"notice\" role=\"status\">The session is ended.</p>\n",
        Done::OthersEnded => "<p class=\"notice\" role=\"status\">All other sessions are ended.</p>\n",
        Done::KeyRevoked => "<p class=\"notice\" role=\"status\">The API key is revoked.</p>\n",
    })
}

fn alert(error: NotDone) -> Html {
    let (what, advice): (_, Cow<'_, str>) = match error {
        NotDone::WrongPassword => ("That is not your current password", "Nothing has changed. Try again.".into()),
        NotDone::TooMany(seconds) => ("Too many attempts", format!("Wait {}, then try again.", wait(seconds)).into()),
        NotDone::Short => ("The new password is short", format!("Take at least {MIN_NEW_CHARS} characters.").into()),
        NotDone::Long => ("The new password is too long", "Take fewer than 1024 characters.".into()),
        NotDone::UserName => ("The new password is your user name", "Take one that nobody can guess.".into()),
        NotDone::Different => ("The two new passwords differ", "Type the same one twice.".into()),
        NotDone::Same => ("The new password is the old one", "Take another one.".into()),
        NotDone::InFile => (
            "Your password can’t be changed here",
            "It is kept in a file. Ask whoever looks after this site for a new one.".into(),
        ),
        NotDone::NoSuchSession => ("There is no such session", "It may be over already.".into()),
        NotDone::NoSuchKey => ("There is no such API key", "It may be revoked already.".into()),
        NotDone::KeyName => ("A key can’t have this name", "Take 1 to 64 letters, digits and signs.".into()),
        NotDone::KeyTaken => ("You have a key of this name already", "Take another name, or revoke that one.".into()),
        NotDone::KeysFull => ("You have very many API keys", "Revoke one that is not used any more first.".into()),
        NotDone::Unavailable => (
            "This does not work at the moment",
            "Nothing has changed, and it is not about your password. Try again in a minute.".into(),
        ),
    };
    Html::fill(
        "<div class=\"alert\" id=\"error\" role=\"alert\"><strong>{{what}}</strong> {{advice}}</div>\n",
        &[("what", Text(what)), ("advice", Text(&advice))],
    )
}

fn counted(sessions: u64) -> String {
    match sessions {
        1 => "One session".to_owned(),
        count => format!("{count} sessions"),
    }
}

/// How long ago something was that is known to the minute.
fn ago(past: Duration) -> String {
    match past.as_secs() / 60 {
        0 | 1 => "Just now".to_owned(),
        minutes => format!("{} ago", span(Duration::from_secs(minutes * 60))),
    }
}

/// A span as people say it, rounded down.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    // "60 minutes" is what an hour is called between one and two of them.
    match (count, unit) {
        (60, "minute") => "1 hour".to_owned(),
        (24, "hour") => "1 day".to_owned(),
        (1, unit) => format!("1 {unit}"),
        (count, unit) => format!("{count} {unit}s"),
    }
}

fn moment(at: Timestamp) -> String {
    written(at, format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC"))
}

fn day(at: Timestamp) -> String {
    written(at, format_description!("[day padding:none] [month repr:short] [year]"))
}

fn written(at: Timestamp, format: StaticFormatDescription) -> String {
    i64::try_from(at.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| at.rfc3339())
}

const STYLE: &str = concat!(include_str!("style.css"), include_str!("account.css"));

/// Other sessions that stand open on the page; the rest unfolds.
const SHOWN_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests;
