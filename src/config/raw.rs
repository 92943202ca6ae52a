//! The file as written: every section with the places of its values, nothing resolved.

use super::reader::{Context, Table};
use super::{identity, issuers, routes, server, service, sign_in, test_cases, tokens, trace, upstreams};
use crate::diag::{Diagnostic, Span};

/// The whole file as written.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) server: server::Raw,
    pub(super) admin: service::RawAdmin,
    pub(super) log: service::RawLog,
    pub(super) trace: Option<trace::Raw>,
    pub(super) store: service::RawStore,
    pub(super) tokens: tokens::Raw,
    pub(super) issuers: Vec<issuers::Raw>,
    pub(super) sessions: sign_in::RawSessions,
    pub(super) login: sign_in::RawLogin,
    pub(super) identity: identity::Raw,
    pub(super) upstreams: Vec<upstreams::Raw>,
    pub(super) routes: Vec<routes::Raw>,
    pub(super) tests: Vec<test_cases::Raw>,
}

impl Raw {
    /// Reads every section that is there, and reports every key that is not known.
    pub(super) fn read(cx: &Context<'_>, mut file: Table<'_>) -> Self {
        let raw = Self {
            server: file.table("server", "server").map(server::Raw::read).unwrap_or_default(),
            admin: file.table("admin", "admin").map(service::RawAdmin::read).unwrap_or_default(),
            log: file.table("log", "log").map(service::RawLog::read).unwrap_or_default(),
            trace: file.table("trace", "trace").map(trace::Raw::read),
            store: file.table("store", "store").map(service::RawStore::read).unwrap_or_default(),
            tokens: file.table("tokens", "tokens").map(tokens::Raw::read).unwrap_or_default(),
            issuers: issuers(&mut file),
            sessions: file.table("sessions", "sessions").map(sign_in::RawSessions::read).unwrap_or_default(),
            login: file.table("login", "login").map(sign_in::RawLogin::read).unwrap_or_default(),
            identity: file.table("identity", "identity").map(identity::Raw::read).unwrap_or_default(),
            upstreams: file.table("upstreams", "upstreams").map(upstreams::read).unwrap_or_default(),
            routes: routes(cx, &mut file),
            tests: tests(&mut file),
        };
        file.finish();
        raw
    }
}

fn issuers(file: &mut Table<'_>) -> Vec<issuers::Raw> {
    let Some(item) = file.take("issuers") else { return Vec::new() };
    if item.value.get_ref().is_table() {
        return item.wrong_type("a list of tables", Some("write [[issuers]] with two brackets")).unwrap_or_default();
    }
    let Some(list) = item.list() else { return Vec::new() };
    list.get_ref().iter().filter_map(|issuer| issuer.table("issuers")).map(issuers::Raw::read).collect()
}

fn routes(cx: &Context<'_>, file: &mut Table<'_>) -> Vec<routes::Raw> {
    let no_routes = |place: Option<Span>| {
        let finding = Diagnostic::error("no-routes", "there are no routes: everything would be answered 404");
        let finding = match place {
            Some(span) => finding.at(span),
            None => finding,
        };
        cx.report(finding.help("add [[routes]] with path = \"/**\", allow = \"signed-in\" and an upstream"));
    };
    let Some(item) = file.take("routes") else {
        no_routes(None);
        return Vec::new();
    };
    if item.value.get_ref().is_table() {
        return item.wrong_type("a list of tables", Some("write [[routes]] with two brackets")).unwrap_or_default();
    }
    let Some(list) = item.list() else { return Vec::new() };
    if list.get_ref().is_empty() {
        no_routes(Some(item.span()));
    }
    list.get_ref().iter().filter_map(|route| route.table("routes")).map(routes::Raw::read).collect()
}

fn tests(file: &mut Table<'_>) -> Vec<test_cases::Raw> {
    let Some(item) = file.take("tests") else { return Vec::new() };
    if item.value.get_ref().is_table() {
        return item.wrong_type("a list of tables", Some("write [[tests]] with two brackets")).unwrap_or_default();
    }
    let Some(list) = item.list() else { return Vec::new() };
    list.get_ref().iter().filter_map(|test| test.table("tests")).map(test_cases::Raw::read).collect()
}
