//! What the account's pages say of API keys: the list, the form for a new one, and the one time that a key is shown.

use std::time::Duration;

use super::super::html::Html;
use super::super::html::Value::{Html as Markup, Text};
use super::super::{Width, document};
use super::{AccountPage, Frame, NotDone, STYLE, ago, alert, day};
use crate::clock::Timestamp;

/// An API key in words.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its public id.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// The groups that it may use; `None`: all that its owner is in.
    pub groups: Option<Vec<String>>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The routes that it counts on; `None`: all that accept keys.
    pub routes: Option<Vec<String>>,
    /// When it was made.
    pub since: Timestamp,
    /// When it ends; `None`: when it is revoked.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

/// The API keys of an account.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// All of them, by name.
    pub list: &'a [Key],
    /// Whether another one could be of use.
    pub may_add: bool,
}

/// What stands on the page for a new key.
#[derive(Clone, Copy, Debug)]
pub struct NewKeyPage<'a> {
    /// What all pages know.
    pub frame: Frame<'a>,
    /// The name that was typed.
    pub name: &'a str,
    /// How long the key is to be good for.
    pub lasts: Lasts,
    /// Why none was made.
    pub error: Option<NotDone>,
}

/// How long a key is to be good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Lasts {
    Month,
    #[default]
    Quarter,
    Year,
    UntilRevoked,
}

impl Lasts {
    /// All, in the order of the form.
    pub const ALL: [Self; 4] = [Self::Month, Self::Quarter, Self::Year, Self::UntilRevoked];

    /// Its word in the form.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Month => "30d",
            Self::Quarter => "90d",
            Self::Year => "365d",
            Self::UntilRevoked => "never",
        }
    }

    /// How long that is; `None`: without an end.
    pub const fn span(self) -> Option<Duration> {
        const DAY: u64 = 86_400;
        match self {
            Self::Month => Some(Duration::from_secs(30 * DAY)),
            Self::Quarter => Some(Duration::from_secs(90 * DAY)),
            Self::Year => Some(Duration::from_secs(365 * DAY)),
            Self::UntilRevoked => None,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Month => "in 30 days",
            Self::Quarter => "in 90 days",
            Self::Year => "in a year",
            Self::UntilRevoked => "never, until it is revoked",
        }
    }
}

/// The page on which a new key is named, before it is made.
#[must_use]
pub fn new_key(page: &NewKeyPage<'_>) -> String {
    let Frame { user, path, title, .. } = page.frame;
    let alert = page.error.map(alert).unwrap_or_default();
    // What was typed stays, but for the password: the cursor goes to what is to be typed now.
    let (about_name, about_password) = match page.error {
        None => (" aria-describedby=\"name-hint\" autofocus", ""),
        Some(NotDone::KeyName | NotDone::KeyTaken) => {
            (" aria-invalid=\"true\" aria-describedby=\"error name-hint\" autofocus", "")
        }
        Some(NotDone::WrongPassword) => {
            (" aria-describedby=\"name-hint\"", " aria-invalid=\"true\" aria-describedby=\"error\" autofocus")
        }
        Some(_) => (" aria-describedby=\"name-hint\"", " aria-describedby=\"error\" autofocus"),
    };
    let choices = Lasts::ALL.map(|lasts| {
        let selected = Html::fixed(if lasts == page.lasts { " selected" } else { "" });
        Html::fill(
            "<option value=\"{{word}}\"{{selected}}>{{label}}</option>\n",
            &[("word", Text(lasts.word())), ("selected", Markup(&selected)), ("label", Text(lasts.label()))],
        )
    });
    let keys_path = format!("{path}/keys");
    let content = Html::fill(
        include_str!("../account_new_key.html"),
        &[
            ("alert", Markup(&alert)),
            ("path", Text(&keys_path)),
            ("name", Text(page.name)),
            ("about_name", Markup(&Html::fixed(about_name))),
            ("choices", Markup(&Html::join(choices))),
            ("user", Text(user)),
            ("about_password", Markup(&Html::fixed(about_password))),
            ("back", Text(path)),
        ],
    );
    let tab = if page.error.is_some() { "No key made" } else { "New API key" };
    document(tab, title, Width::Narrow, STYLE, &content)
}

/// The page on which a new key is shown, once.
#[must_use]
pub fn made(frame: Frame<'_>, name: &str, key: &str, expires_at: Option<Timestamp>) -> String {
    let end = expires_at
        .map_or_else(|| "It is good until you revoke it.".to_owned(), |end| format!("It is good until {}.", day(end)));
    let content = Html::fill(
        include_str!("../account_key_made.html"),
        &[("name", Text(name)), ("key", Text(key)), ("end", Text(&end)), ("back", Text(frame.path))],
    );
    document("Your new API key", frame.title, Width::Narrow, STYLE, &content)
}

/// The list of keys on the account's page; nothing where there are none and none could be of use.
pub(super) fn section(page: &AccountPage<'_>) -> Html {
    let Keys { list, may_add } = page.keys;
    let Frame { path, now, .. } = page.frame;
    if list.is_empty() && !may_add {
        return Html::default();
    }
    let items = list.iter().map(|key| shown(key, Some(path), now));
    let list = match list {
        [] => Html::fixed("<p>You have no API keys.</p>\n"),
        _ => Html::fill("<ul>\n{{keys}}</ul>\n", &[("keys", Markup(&Html::join(items)))]),
    };
    let add = if may_add {
        Html::fill(
            "<form method=\"get\" action=\"{{path}}\"><input type=\"hidden\" name=\"add\" value=\"key\">\
             <button class=\"quiet\" type=\"submit\">Make an API key</button></form>\n",
            &[("path", Text(path))],
        )
    } else {
        Html::default()
    };
    Html::fill(
        "<section aria-labelledby=\"keys\">\n<h2 id=\"keys\">API keys</h2>\n\
         <p class=\"aside\">With one of these a script or another program acts in your name, without your password.</p>\n\
         {{list}}\n{{add}}</section>",
        &[("list", Markup(&list)), ("add", Markup(&add))],
    )
}

/// One key. With a path it has the button that asks for its end.
pub(super) fn shown(key: &Key, path: Option<&str>, now: Timestamp) -> Html {
    let button = path.map(|path| {
        Html::fill(
            "<form method=\"get\" action=\"{{path}}\"><input type=\"hidden\" name=\"revoke\" value=\"{{id}}\">\
             <button class=\"quiet\" type=\"submit\">Revoke<span class=\"unseen\"> key: {{name}}</span></button></form>\n",
            &[("path", Text(path)), ("id", Text(&key.id)), ("name", Text(&key.name))],
        )
    });
    let ends = match key.expires_at {
        None => "When you revoke it".to_owned(),
        Some(end) if now >= end => format!("Ended on {}", day(end)),
        Some(end) => day(end),
    };
    let last_used = key.last_used.map_or_else(|| "Never".to_owned(), |at| ago(now.since(at)));
    Html::fill(
        include_str!("../account_key.html"),
        &[
            ("level", Text(if path.is_some() { "3" } else { "2" })),
            ("name", Text(&key.name)),
            ("last_used", Text(&last_used)),
            ("since", Text(&day(key.since))),
            ("ends", Text(&ends)),
            ("limits", Text(&limits(key))),
            ("button", Markup(&button.unwrap_or_default())),
        ],
    )
}

/// What a key may do, in one line.
fn limits(key: &Key) -> String {
    let listed = |what: &str, list: &[String]| match list {
        [] => format!("no {what}s"),
        [one] => format!("{what} {one}"),
        several => format!("{what}s {}", several.join(", ")),
    };
    let mut parts = Vec::new();
    parts.extend(key.routes.as_deref().map(|routes| listed("route", routes)));
    parts.extend(key.groups.as_deref().map(|groups| listed("group", groups)));
    if !key.scopes.is_empty() {
        parts.push(listed("scope", &key.scopes));
    }
    if parts.is_empty() { "All that you may do".to_owned() } else { format!("Only {}", parts.join("; ")) }
}
