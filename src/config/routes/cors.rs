//! `cors`: which other sites' scripts may read a route's answers, as written and checked.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use toml::de::DeValue;

use super::super::reader::{Context, Item, Table, Written};
use super::super::values::Fault;
use super::{Destination, HeaderEdits, credentials, scope};
use crate::diag::{Diagnostic, quoted};

/// Who answers to scripts of other sites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// Nobody here: what the application says goes on as it came, and its preflights are ordinary requests.
    #[default]
    None,
    /// The application: true preflights go on to it without a credential or a name.
    Upstream,
    /// The gateway.
    Listed(Box<CorsRules>),
}

/// What the gateway answers to scripts of other sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsRules {
    /// Which sites.
    pub origins: AllowedOrigins,
    /// Which methods they may use.
    pub methods: Vec<Method>,
    /// Which fields they may send beside those that they always may.
    pub headers: Vec<HeaderName>,
    /// Which fields of an answer they may read beside those that they always may.
    pub expose: Vec<HeaderName>,
    /// Whether cookies go with it.
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Option<Duration>,
}

/// Which sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every one.
    All,
    /// These: serialized, lower-case.
    These(Vec<String>),
}

impl Cors {
    /// The rules, where the gateway answers.
    pub fn rules(&self) -> Option<&CorsRules> {
        match self {
            Self::Listed(rules) => Some(rules),
            Self::None | Self::Upstream => None,
        }
    }

    /// The sites whose scripts may use the cookie: trusted by name for what it does, and so as much as the route's own.
    pub fn trusted_origins(&self) -> &[String] {
        match self.rules() {
            Some(CorsRules { origins: AllowedOrigins::These(origins), credentials: true, .. }) => origins,
            _ => &[],
        }
    }
}

impl CorsRules {
    /// What `Access-Control-Allow-Origin` says to a script of `origin`; `None`: it may not.
    pub fn allow_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            AllowedOrigins::All => Some(HeaderValue::from_static("*")),
            AllowedOrigins::These(list) => {
                list.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
        }
    }
}

/// `cors`; what can't be used is reported.
pub(super) fn read(item: &Item<'_>) -> Option<Written<Cors>> {
    let is_word = |table: &toml::de::DeTable<'_>| table.keys().any(|key| key.get_ref() == "env");
    let cors = match item.value.get_ref() {
        DeValue::Table(table) if !is_word(table) => Cors::Listed(Box::new(rules(item.table("routes.cors")?)?)),
        DeValue::String(_) | DeValue::Table(_) => {
            item.word("routes.cors", &[("upstream", ())]).map(|_| Cors::Upstream)?
        }
        _ => {
            return item
                .wrong_type("a table or \"upstream\"", Some("write { origins = [\"https://app.example.com\"] }"));
        }
    };
    Some(Written::new(item.span(), cors))
}

/// Reports what can't stand beside it.
pub(super) fn judge(cx: &Context<'_>, cors: &Written<Cors>, to: Option<&Destination>, answers: &HeaderEdits) {
    if *cors.get_ref() == Cors::Upstream && to.is_some_and(|to| to.upstream().is_none()) {
        let message = "`cors` leaves preflights to an upstream, and the route has none";
        let finding = Diagnostic::error("conflicting-keys", message).at(cors.span());
        cx.report(finding.help("write cors = { origins = [\"https://app.example.com\"] }, or leave it out"));
    }
    let given = answers.set.iter().chain(&answers.add).map(|(name, _)| name).chain(&answers.remove);
    let both = given.into_iter().find(|name| name.as_str().starts_with("access-control-"));
    if let (Some(name), Cors::Listed(_)) = (both, cors.get_ref()) {
        let message = format!("`response_headers` changes {}, which `cors` writes", quoted(name.as_str()));
        let finding = Diagnostic::error("conflicting-keys", message).at(cors.span());
        cx.report(finding.help("leave it to `cors`, or remove `cors`"));
    }
}

fn rules(mut table: Table<'_>) -> Option<CorsRules> {
    table.require("origins", "add origins = [\"https://app.example.com\"], or [\"*\"] for every site");
    let (cx, place) = (table.cx, table.span.clone());
    let origins = table.take("origins").and_then(|item| origins(&item));
    let methods = table.take("methods").map(|item| methods(&item));
    let headers = table.take("headers").map(|item| names(&item));
    let expose = table.take("expose").map(|item| names(&item));
    let credentials = table.boolean("credentials");
    let max_age = table.duration("max_age");
    table.finish();
    let is_credentialed = credentials.as_ref().is_some_and(|credentials| *credentials.get_ref());
    if origins == Some(AllowedOrigins::All) && is_credentialed {
        let finding = Diagnostic::error(
            "cors-any-site",
            "every site in the world could act with the cookie of whoever visits it",
        );
        let finding = finding.at(credentials.as_ref().map_or(place, Written::span)).label("with origins = [\"*\"]");
        cx.report(finding.help("name the sites in `origins`, or leave `credentials` out"));
        return None;
    }
    let methods = match methods {
        None => vec![Method::GET, Method::HEAD, Method::POST],
        Some(methods) => methods?.into_inner(),
    };
    Some(CorsRules {
        origins: origins?,
        methods,
        headers: headers.unwrap_or_default(),
        expose: expose.unwrap_or_default(),
        credentials: is_credentialed,
        max_age: max_age.map(Written::into_inner),
    })
}

fn origins(item: &Item<'_>) -> Option<AllowedOrigins> {
    let list = item.list()?;
    let is_all = |item: &Item<'_>| matches!(item.value.get_ref(), DeValue::String(text) if text == "*");
    match list.get_ref().as_slice() {
        [] => {
            let finding = Diagnostic::error("empty-list", "`origins` is empty: no site could use it").at(item.span());
            item.cx.report(finding.help("name a site such as \"https://app.example.com\", or leave `cors` out"));
            None
        }
        [one] if is_all(one) => Some(AllowedOrigins::All),
        several => {
            if let Some(all) = several.iter().find(|item| is_all(item)) {
                alone(item.cx, all);
                return None;
            }
            Some(AllowedOrigins::These(credentials::origins(item)))
        }
    }
}

fn methods(item: &Item<'_>) -> Option<Written<Vec<Method>>> {
    if item.list()?.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`methods` is empty: no site could use it").at(item.span());
        item.cx.report(finding.help("leave it out for GET, HEAD and POST, or leave `cors` out"));
        return None;
    }
    scope::methods(item)
}

fn alone(cx: &Context<'_>, all: &Item<'_>) {
    let finding = Diagnostic::error("bad-origin", "\"*\" is every site already").at(all.span());
    cx.report(finding.label("beside others").help("write [\"*\"] alone, or only the sites that are meant"));
}

fn names(item: &Item<'_>) -> Vec<HeaderName> {
    let list = item.list().map(Written::into_inner).unwrap_or_default();
    list.iter().filter_map(|item| item.parsed("bad-header", name)).map(Written::into_inner).collect()
}

fn name(text: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| text != "*").ok_or_else(|| {
        let help = "write each name, such as \"Content-Type\" or \"Authorization\"";
        Fault::new(format!("{} is not a header name", quoted(text)), "not a header name", help)
    })
}
