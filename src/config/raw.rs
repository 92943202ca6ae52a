//! The file as written: every section with the places of its values, nothing resolved.

use super::reader::{Context, Table, Written};
use super::{identity, include, issuers, routes, server, service, sign_in, test_cases, tokens, trace, upstreams};
use crate::diag::{Diagnostic, Span, quoted};

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
    /// Those of each file, or half of one, in their order: together they would have to be copied.
    pub(super) routes: Vec<Vec<routes::Raw>>,
    pub(super) tests: Vec<test_cases::Raw>,
    /// Which other files belong to it.
    pub(super) include: Vec<Written<String>>,
    /// Whether anything is written as routes, and where a list of none is.
    routes_written: Wrote,
}

/// Whether `routes` is written.
#[derive(Default)]
enum Wrote {
    #[default]
    No,
    Empty(Span),
    Yes,
}

impl Raw {
    /// Reads every section that is there, and reports every key that is not known.
    pub(super) fn read<'a>(_: &'a Context<'a>, mut file: Table<'a>) -> Self {
        let (routes_written, routes) = routes(&mut file);
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
            routes: vec![routes],
            tests: tests(&mut file),
            include: file.take("include").map(|item| include::read(&item)).unwrap_or_default(),
            routes_written,
        };
        file.finish();
        raw
    }

    /// Reads a file that is included: it has upstreams, routes and tests, and nothing else.
    pub(super) fn read_included<'a>(cx: &'a Context<'a>, mut file: Table<'a>) -> Self {
        let (routes_written, routes) = routes(&mut file);
        let raw = Self {
            upstreams: file.table("upstreams", "upstreams").map(upstreams::read).unwrap_or_default(),
            routes: vec![routes],
            tests: tests(&mut file),
            routes_written,
            ..Self::default()
        };
        for item in OF_THE_MAIN_FILE.iter().filter_map(|section| file.take(section)) {
            let message = format!("an included file can't have {}", quoted(&item.name));
            let finding = Diagnostic::error("not-in-an-included-file", message).at(item.key.clone());
            cx.report(finding.help("it has [[routes]], [[tests]] and [upstreams]; write this into the main file"));
        }
        file.finish();
        raw
    }

    /// Reads the second half of a file, which has no more than lists that the first has begun.
    pub(super) fn read_lists<'a>(_: &'a Context<'a>, mut half: Table<'a>) -> Self {
        let (routes_written, routes) = routes(&mut half);
        let raw = Self { routes: vec![routes], tests: tests(&mut half), routes_written, ..Self::default() };
        half.finish();
        raw
    }

    /// Takes in the second half of the same file.
    pub(super) fn append(&mut self, half: Self) {
        self.routes.extend(half.routes);
        self.tests.extend(half.tests);
        self.routes_written = half.routes_written;
    }

    /// Takes in included files: their routes stand before the file's own.
    pub(super) fn include(&mut self, parts: Vec<Self>) {
        let own = std::mem::take(&mut self.routes);
        for part in parts {
            self.upstreams.extend(part.upstreams);
            self.routes.extend(part.routes);
            self.tests.extend(part.tests);
            if matches!(part.routes_written, Wrote::Yes) {
                self.routes_written = Wrote::Yes;
            }
        }
        self.routes.extend(own);
    }

    /// Reports that there are no routes, unless there are.
    pub(super) fn require_routes(&self, cx: &Context<'_>) {
        let finding = Diagnostic::error("no-routes", "there are no routes: everything would be answered 404");
        let finding = match &self.routes_written {
            Wrote::Yes => return,
            Wrote::No => finding,
            Wrote::Empty(span) => finding.at(span.clone()),
        };
        cx.report(finding.help("add [[routes]] with path = \"/**\", allow = \"signed-in\" and an upstream"));
    }
}

/// What one file decides for all.
const OF_THE_MAIN_FILE: &[&str] =
    &["server", "admin", "log", "trace", "store", "tokens", "issuers", "sessions", "login", "identity", "include"];

fn issuers(file: &mut Table<'_>) -> Vec<issuers::Raw> {
    let Some(item) = file.take("issuers") else { return Vec::new() };
    if item.value.get_ref().is_table() {
        return item.wrong_type("a list of tables", Some("write [[issuers]] with two brackets")).unwrap_or_default();
    }
    let Some(list) = item.list() else { return Vec::new() };
    list.get_ref().iter().filter_map(|issuer| issuer.table("issuers")).map(issuers::Raw::read).collect()
}

fn routes(file: &mut Table<'_>) -> (Wrote, Vec<routes::Raw>) {
    let Some(item) = file.take("routes") else { return (Wrote::No, Vec::new()) };
    if item.value.get_ref().is_table() {
        let _: Option<()> = item.wrong_type("a list of tables", Some("write [[routes]] with two brackets"));
        return (Wrote::Yes, Vec::new());
    }
    let Some(list) = item.list() else { return (Wrote::Yes, Vec::new()) };
    if list.get_ref().is_empty() {
        return (Wrote::Empty(item.span()), Vec::new());
    }
    let mut routes = Vec::with_capacity(list.get_ref().len());
    routes.extend(list.get_ref().iter().filter_map(|route| route.table("routes")).map(routes::Raw::read));
    (Wrote::Yes, routes)
}

fn tests(file: &mut Table<'_>) -> Vec<test_cases::Raw> {
    let Some(item) = file.take("tests") else { return Vec::new() };
    if item.value.get_ref().is_table() {
        return item.wrong_type("a list of tables", Some("write [[tests]] with two brackets")).unwrap_or_default();
    }
    let Some(list) = item.list() else { return Vec::new() };
    list.get_ref().iter().filter_map(|test| test.table("tests")).map(test_cases::Raw::read).collect()
}
