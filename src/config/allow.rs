//! A route's `allow`: who may, in all its forms.

use ipnet::IpNet;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::reader::{Context, Item, Table, Written};
use super::values;
use crate::diag::{Diagnostic, Span, nearest, quoted};
use crate::policy::{Policy, Rule};

/// A user or a group that a rule names.
#[derive(Clone, Debug)]
pub struct Mention {
    /// Which of the two.
    pub kind: Mentioned,
    /// Their name as it is written.
    pub name: String,
    /// The place of the route that names them.
    pub route: usize,
    /// Where the name is written.
    pub place: Span,
}

/// What a rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Mentioned {
    User,
    Group,
}

/// An `allow` that can be used, and where its parts are written.
pub(super) struct Allow {
    pub(super) policy: Policy,
    /// For each of its rules; empty where it is a word.
    pub(super) places: Vec<Places>,
}

/// Where the conditions of one rule are written; `None` is not written.
#[derive(Default)]
pub(super) struct Places {
    pub(super) users: Vec<Written<String>>,
    pub(super) groups: Vec<Written<String>>,
    pub(super) scopes: Option<Span>,
    pub(super) claims: Option<Span>,
    pub(super) from: Option<Span>,
    pub(super) methods: Option<Span>,
    pub(super) within: Option<Span>,
}

/// A word, a table, or a list of tables.
pub(super) fn read(item: &Item<'_>) -> Option<Allow> {
    let rules: Vec<(Rule, Places)> = match item.value.get_ref() {
        DeValue::Table(table) if !table.keys().any(|key| key.get_ref() == "env") => {
            let (rule, places) = rule(item)?;
            return Some(Allow { policy: Policy::AnyOf(vec![rule]), places: vec![places] });
        }
        DeValue::Array(_) => {
            let tables = item.list()?.into_inner();
            if tables.is_empty() {
                let finding = Diagnostic::error("empty-allow", "an empty `allow` lets nobody in").at(item.span());
                item.cx.report(finding.help("say so with allow = \"nobody\", or name who may"));
                return None;
            }
            let rules: Vec<Option<_>> = tables.iter().map(rule).collect();
            rules.into_iter().collect::<Option<_>>()?
        }
        DeValue::String(_) | DeValue::Table(_) => return Some(Allow { policy: word(item)?, places: Vec::new() }),
        _ => {
            let help = "write \"signed-in\", \"anyone\", \"nobody\", or a table such as { groups = [\"admin\"] }";
            return item.wrong_type("a word, a table or a list of tables", Some(help));
        }
    };
    let (rules, places) = rules.into_iter().unzip();
    Some(Allow { policy: Policy::AnyOf(rules), places })
}

fn word(item: &Item<'_>) -> Option<Policy> {
    let text = item.string()?;
    Some(match text.get_ref().as_str() {
        "anyone" => Policy::Anyone,
        "signed-in" => Policy::SignedIn,
        "nobody" => Policy::Nobody,
        other => {
            let finding =
                Diagnostic::error("unknown-value", format!("`allow` can't be {}", quoted(other))).at(item.span());
            item.cx.report(finding.help(match nearest(other, ["anyone", "signed-in", "nobody"]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write \"signed-in\", \"anyone\" or \"nobody\"; a group is {{ groups = [{other:?}] }}"),
            }));
            return None;
        }
    })
}

/// One table of `allow`. `None` where something in it can't be used: half a rule could let in too many.
fn rule(item: &Item<'_>) -> Option<(Rule, Places)> {
    if let DeValue::String(text) = item.value.get_ref() {
        let help = format!("a word stands alone: allow = {text:?}; a list holds tables");
        return item.wrong_type("a table", Some(&help));
    }
    let mut table = item.table("allow")?;
    let is_empty = table.is_done();
    let anyone = table.boolean("anyone");
    let users = table.take("users").map(|item| strings(&item));
    let groups = table.take("groups").map(|item| groups(&item));
    let mut places = Places::default();
    let scopes = noted(&mut table, "scopes", &mut places.scopes).map(|item| strings(&item).map(plain));
    let claims = noted(&mut table, "claims", &mut places.claims).map(|item| claims(&item));
    let from = noted(&mut table, "from", &mut places.from).map(|item| networks(&item));
    let methods = noted(&mut table, "methods_of_sign_in", &mut places.methods).map(|item| methods(&item));
    let within = noted(&mut table, "signed_in_within", &mut places.within).map(|item| within(&item));
    let narrowed = users.is_some()
        || groups.is_some()
        || scopes.is_some()
        || claims.is_some()
        || methods.is_some()
        || within.is_some();
    let has_from = from.is_some();
    table.finish();
    if is_empty || (!narrowed && !has_from && anyone.as_ref().is_some_and(|anyone| !anyone.get_ref())) {
        let finding = Diagnostic::error("empty-allow", "an empty table in `allow` names nobody").at(item.span());
        item.cx.report(finding.help("write allow = \"signed-in\" for everyone who is signed in, or name who may"));
        return None;
    }
    let is_anyone = anyone.as_ref().is_some_and(|anyone| *anyone.get_ref());
    if let Some(anyone) = anyone.filter(|_| is_anyone && narrowed) {
        let finding = Diagnostic::error(
            "anyone-narrowed",
            "`anyone = true` lets in people who are not signed in; only `from` can narrow it",
        );
        item.cx.report(finding.at(anyone.span()).help("remove `anyone`, or all keys beside it but `from`"));
        return None;
    }
    // Of each key: `None` is not written, `Some(None)` is written and can't be used.
    places.users = users.map_or(Some(Vec::new()), |users| users)?;
    places.groups = groups.map_or(Some(Vec::new()), |groups| groups)?;
    let names = |list: &[Written<String>]| list.iter().map(|name| name.get_ref().clone()).collect::<Vec<_>>();
    let rule = Rule {
        anyone: is_anyone,
        users: (!places.users.is_empty())
            .then(|| names(&places.users).iter().map(|user| user.to_lowercase()).collect()),
        groups: (!places.groups.is_empty()).then(|| names(&places.groups)),
        scopes: scopes.map_or(Some(None), |scopes| scopes.map(Some))?,
        claims: claims.map_or(Some(None), |claims| claims.map(Some))?,
        from: from.map_or(Some(None), |from| from.map(Some))?,
        methods_of_sign_in: methods.map_or(Some(None), |methods| methods.map(Some))?,
        signed_in_within: within.map_or(Some(None), |within| within.map(Some))?,
    };
    Some((rule, places))
}

/// The value of `key`, if it is there, and `place` where it is written.
fn noted<'a>(table: &mut Table<'a>, key: &'static str, place: &mut Option<Span>) -> Option<Item<'a>> {
    let item = table.take(key);
    *place = item.as_ref().map(|item| item.key.start..item.span().end);
    item
}

fn plain(list: Vec<Written<String>>) -> Vec<String> {
    list.into_iter().map(Spanned::into_inner).collect()
}

/// Strings, at least one.
fn strings(item: &Item<'_>) -> Option<Vec<Written<String>>> {
    let list = item.list()?;
    refuse_empty(item, list.get_ref().is_empty())?;
    list.get_ref().iter().map(Item::text).collect()
}

fn refuse_empty(item: &Item<'_>, is_empty: bool) -> Option<()> {
    if is_empty {
        let finding =
            Diagnostic::error("empty-allow", format!("an empty `{}` lets nobody in", item.name)).at(item.span());
        item.cx.report(finding.help(format!("name at least one, or leave `{}` out", item.name)));
    }
    (!is_empty).then_some(())
}

fn groups(item: &Item<'_>) -> Option<Vec<Written<String>>> {
    let groups = strings(item)?;
    report_impossible(item.cx, &groups);
    Some(groups)
}

/// Reports names that no group can have.
pub(super) fn report_impossible(cx: &Context<'_>, groups: &[Written<String>]) {
    for group in groups {
        let text = group.get_ref();
        if text.trim() != text || text.chars().any(|c| c == ',' || c.is_control()) {
            let finding = Diagnostic::error("impossible-group", format!("no group can be called {}", quoted(text)));
            let finding = finding.at(group.span()).label("has a comma, a control or an outer space");
            cx.report(finding.help("write each group as a string of its own: [\"a\", \"b\"]"));
        }
    }
}

fn networks(item: &Item<'_>) -> Option<Vec<IpNet>> {
    let list = item.list()?;
    refuse_empty(item, list.get_ref().is_empty())?;
    let network = |item: &Item<'_>| item.parsed("bad-network", values::network).map(Spanned::into_inner);
    // All are read, so that every mistake is reported.
    let networks: Vec<Option<IpNet>> = list.get_ref().iter().map(network).collect();
    networks.into_iter().collect()
}

fn methods(item: &Item<'_>) -> Option<Vec<String>> {
    const KNOWN: [&str; 6] = ["password", "basic", "api-key", "client-cert", "issuer", "oidc"];
    let methods = strings(item)?;
    for method in methods.iter().filter(|method| !KNOWN.contains(&method.get_ref().as_str())) {
        if let Some(near) = nearest(method.get_ref(), KNOWN) {
            let finding =
                Diagnostic::error("unknown-value", format!("nobody signs in by {}", quoted(method.get_ref())));
            item.cx.report(finding.at(method.span()).help(format!("did you mean \"{near}\"?")));
        }
    }
    Some(plain(methods))
}

fn within(item: &Item<'_>) -> Option<std::time::Duration> {
    let within = item.duration()?;
    if within.get_ref().is_zero() {
        let finding = Diagnostic::error("out-of-range", "`signed_in_within` can't be zero").at(within.span());
        item.cx.report(finding.help("write how long ago the password may have been given, such as \"1h\""));
    }
    Some(within.into_inner())
}

/// `{ key = value or [values] }`
fn claims(item: &Item<'_>) -> Option<Vec<(String, Vec<Value>)>> {
    let mut table = item.table("claims.*")?;
    let entries = table.take_all();
    refuse_empty(item, entries.is_empty())?;
    let claim = |(key, item): (Written<String>, Item<'_>)| {
        let values = match item.value.get_ref() {
            DeValue::Array(_) => {
                let list = item.list()?;
                refuse_empty(&item, list.get_ref().is_empty())?;
                list.get_ref().iter().map(scalar).collect::<Option<_>>()?
            }
            _ => vec![scalar(&item)?],
        };
        Some((key.into_inner(), values))
    };
    let claims: Vec<_> = entries.into_iter().map(claim).collect();
    claims.into_iter().collect()
}

fn scalar(item: &Item<'_>) -> Option<Value> {
    match item.value.get_ref() {
        DeValue::String(_) | DeValue::Table(_) => item.string().map(|text| Value::String(text.into_inner())),
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(Value::from(number)),
            Err(_) => item.wrong_type("a number of 64 bits", None),
        },
        _ => item.wrong_type("a string, a whole number, `true` or `false`", None),
    }
}
