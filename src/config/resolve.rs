//! From the file as written to the configuration: every name resolved, what holds between sections checked.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use http::HeaderName;

use super::beside::both;
use super::raw::Raw;
use super::reader::{Context, Written};
use super::routes::{Known, Places, Upstreams};
use super::{Config, Identity, Mention, Mentioned, Route, StoreKind, Upstream, identity, meaning, no_store};
use crate::diag::{Diagnostic, quoted};
use crate::lint::{self, Entry, Finding, Overlaps};
use crate::message::headers::IdentityNames;
use crate::message::path::Reading;
use crate::pattern::PathPattern;

/// The configuration. It may only be used if nothing was reported as an error.
pub(super) fn resolve(cx: &Context<'_>, file: &Path, mut raw: Raw) -> Config {
    let public_url_place = raw.server.public_url_place();
    let server = raw.server.resolve(cx);
    let store = raw.store.resolve(cx);
    raw.admin.judge(cx, &server);
    let login = raw.login.resolve(cx);
    let base = Arc::new(raw.identity.resolve(cx, &identity::defaults()));
    let names: Vec<String> = raw.upstreams.iter().map(|upstream| upstream.name().to_owned()).collect();
    let upstream_places: Vec<_> = raw.upstreams.iter().map(super::upstreams::Raw::places).collect();
    report_upstream_names(cx, &names, &upstream_places);
    let upstreams: Vec<Arc<Upstream>> =
        raw.upstreams.into_iter().map(|upstream| Arc::new(upstream.resolve(cx))).collect();

    let mut places: Vec<Places> = Vec::with_capacity(raw.routes.iter().map(Vec::len).sum());
    places.extend(raw.routes.iter_mut().flatten().map(super::routes::Raw::places));
    let tokens = raw.tokens.resolve(cx, &server.public_url);
    let (issuers, issuer_places) = super::issuers::resolve(cx, raw.issuers, &tokens.issuer);
    let known = Known {
        upstreams: Upstreams { names: &names, checked: &upstreams },
        issuers: &issuers,
        has_store: store.kind != StoreKind::None,
    };
    let mut routes = routes_of(cx, raw.routes, &known, &base);
    let is_whole = routes.len() == places.len();
    report_names(cx, &routes, &places);
    report_reserved(cx, &routes, &places, &login);
    let sessions = raw.sessions.resolve(cx, &server.public_url);
    if is_whole {
        meaning::Written {
            server: &server,
            public_url: public_url_place,
            sessions: &sessions,
            issuers: &issuers,
            upstreams: &upstreams,
            upstream_places: &upstream_places,
            routes: &routes,
            places: &places,
        }
        .judge(cx);
        if store.kind == StoreKind::None {
            no_store::judge(cx, &issuers, &routes, &tokens);
        }
        super::issuers::report_same_names(cx, &issuers, &issuer_places, &routes);
    }
    mark_method_overrides(&mut routes);
    let raw_tests = raw.tests;
    let rest = || {
        // With a route left out, its name would be said to be unknown.
        let tests = raw_tests.into_iter().filter(|_| is_whole).filter_map(|test| test.resolve(cx, &routes, &upstreams));
        let tests = tests.collect();
        let told = told(&routes, &base);
        let guarded = IdentityNames::new(&told);
        for route in &routes {
            let edits = [&route.request_headers, &route.response_headers];
            super::routes::judge_headers(cx, edits, &places[route.index].edits, &guarded, &sessions.cookie);
        }
        (tests, told, guarded)
    };
    // With a route left out, the others would be judged as a table that nobody wrote.
    let (tests, told, guarded) = if is_whole { beside_lints(cx, &routes, &places, rest) } else { rest() };
    Config {
        file: file.to_owned(),
        files: vec![file.to_owned()],
        secret_files: Vec::new(),
        admin: raw.admin.resolve(cx, &store),
        log: raw.log.resolve(cx),
        trace: raw.trace.and_then(|trace| trace.resolve(cx)),
        tokens,
        issuers,
        sessions,
        server,
        store,
        login,
        identity: base,
        guarded: Arc::new(guarded),
        told: told.into(),
        upstreams,
        routes,
        mentions: mentions(&mut places),
        route_places: places.into_iter().map(|places| places.route).collect(),
        tests,
    }
}

/// The routes that can be used, each made where it stays.
fn routes_of(
    cx: &Context<'_>,
    files: Vec<Vec<super::routes::Raw>>,
    known: &Known<'_>,
    base: &Arc<Identity>,
) -> Vec<Arc<Route>> {
    let mut routes = Vec::with_capacity(files.iter().map(Vec::len).sum());
    for (index, route) in files.into_iter().flatten().enumerate() {
        routes.extend(route.resolve(cx, index, known, base).map(Arc::new));
    }
    routes
}

/// What `rest` comes to, done beside the search for what is wrong between routes where there are many of them.
fn beside_lints<T>(cx: &Context<'_>, routes: &[Arc<Route>], places: &[Places], rest: impl FnOnce() -> T) -> T {
    if routes.len() < MANY_ROUTES {
        report_lints(cx, routes, places);
        return rest();
    }
    let (env, directory) = (cx.env, cx.directory);
    let search = || {
        let beside = Context::new(env, directory);
        report_lints(&beside, routes, places);
        beside
    };
    let (found, rest) = both(search, rest);
    cx.take_in(found);
    rest
}

/// Every name by which any route tells who is there, or strips. Most routes share what is said for all.
fn told(routes: &[Arc<Route>], base: &Arc<Identity>) -> Vec<HeaderName> {
    let own = routes.iter().map(|route| &route.identity).filter(|identity| !Arc::ptr_eq(identity, base));
    let mut told: Vec<HeaderName> = own.chain([base]).flat_map(|identity| identity.names()).cloned().collect();
    told.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    told.dedup();
    told
}

/// Whom the rules name. Their places are taken out.
fn mentions(places: &mut [Places]) -> Vec<Mention> {
    let mut mentions = Vec::with_capacity(places.len());
    for (route, places) in places.iter_mut().enumerate() {
        for rule in &mut places.rules {
            for (kind, names) in [(Mentioned::User, &mut rule.users), (Mentioned::Group, &mut rule.groups)] {
                let mention =
                    |name: Written<String>| Mention { kind, route, place: name.span(), name: name.into_inner() };
                mentions.extend(std::mem::take(names).into_iter().map(mention));
            }
        }
    }
    mentions
}

/// Upstreams of one name, which stand in two files: in one, TOML would not have it.
fn report_upstream_names(cx: &Context<'_>, names: &[String], places: &[super::upstreams::Places]) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (at, name) in names.iter().enumerate() {
        if let Some(first) = seen.get(name.as_str()) {
            let message = format!("another upstream is called {} too", quoted(name));
            let finding = Diagnostic::error("duplicate-name", message).at(places[at].name.clone());
            let finding = finding.also(places[*first].name.clone(), "the other one");
            cx.report(finding.help("keep one of them, or give each its own name"));
        } else {
            seen.insert(name, at);
        }
    }
}

fn report_names(cx: &Context<'_>, routes: &[Arc<Route>], places: &[Places]) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for route in routes {
        let Some(first) = seen.get(&*route.name) else {
            seen.insert(&route.name, route.index);
            continue;
        };
        let message = format!("another route is called {} too", quoted(&route.name));
        let finding = Diagnostic::error("duplicate-name", message).at(places[route.index].route.clone());
        let finding = finding.also(places[*first].route.clone(), "the other one");
        cx.report(finding.help("give each route its own name; logs and metrics tell routes by it"));
    }
}

/// Routes for paths that are the gateway's own on every host.
fn report_reserved(cx: &Context<'_>, routes: &[Arc<Route>], places: &[Places], login: &super::Login) {
    for route in routes {
        let path = route.path.as_str();
        let is_own =
            path == login.path || path == login.logout_path || path == "/.gateway" || path.starts_with("/.gateway/");
        if is_own {
            let finding = Diagnostic::warning("never-matches", format!("{} is the gateway's own", quoted(path)));
            let finding = finding.at(places[route.index].route.clone()).label("never asked");
            cx.report(finding.help("remove this route, or move `login.path` and `login.logout_path` out of its way"));
        }
    }
}

fn report_lints(cx: &Context<'_>, routes: &[Arc<Route>], places: &[Places]) {
    let entries: Vec<Entry<'_>> = routes.iter().map(|route| entry(route, places)).collect();
    let name = |index: usize| quoted(&routes[index].name);
    for finding in lint::findings(&entries) {
        cx.report(match finding {
            Finding::Duplicate { route, earlier } => {
                let message = format!("{} has the same hosts, path and methods as {}", name(route), name(earlier));
                let finding = Diagnostic::error("duplicate-route", message).at(places[route].route.clone());
                let finding = finding.label("never asked").also(places[earlier].route.clone(), "takes every request");
                finding.help("the first that matches decides: keep one of the two")
            }
            Finding::NeverMatches { route, earlier } => {
                let (who, takes) = match earlier.as_slice() {
                    [one] => (name(*one), "takes"),
                    several => (listed(several, &name), "together take"),
                };
                let message = format!("{} never matches: {who} {takes} all that it is for", name(route));
                let finding = Diagnostic::warning("never-matches", message).at(places[route].route.clone());
                let hiding = earlier.iter().take(MOST_PLACES);
                hiding
                    .fold(finding.label("never asked"), |finding, other| {
                        finding.also(places[*other].route.clone(), "asked before it")
                    })
                    .help("the first that matches decides: put the narrower route before the wider one")
            }
            Finding::PublicOverProtected { route, protected } => {
                let verb = if protected.len() == 1 { "protects" } else { "protect" };
                let message = format!("{} is public, and takes paths that {} {verb}", name(route), listed(&protected, &name));
                let finding = Diagnostic::warning("public-over-protected", message).at(places[route].route.clone());
                let opened = protected.iter().take(MOST_PLACES);
                opened
                    .fold(finding.label("lets everyone in"), |finding, other| {
                        finding.also(places[*other].route.clone(), "asked only afterwards")
                    })
                    .help(format!("put {} behind what protects parts of it", name(route)))
            }
            Finding::OpenBelow { route, public } => {
                let path = routes[route].path.as_str();
                let message = format!("{} protects {} only: all below it is public", name(route), quoted(path));
                let finding = Diagnostic::warning("open-below", message).at(places[route].route.clone());
                let finding = finding.label("one page, and no more").also(places[public].route.clone(), "takes what lies below");
                finding.help(format!(
                    "write path = \"{path}/**\" if all of it is meant; else add a route of that path with allow = \"anyone\" behind it"
                ))
            }
            Finding::DiffersByReading { route, earlier, reading } => {
                let (path, other) = (quoted(routes[route].path.as_str()), quoted(routes[earlier].path.as_str()));
                let message = format!("{path} and {other} are one to an application that {}", does(reading));
                let finding = Diagnostic::warning("differs-by-reading", message).at(places[route].route.clone());
                let finding = finding.also(places[earlier].route.clone(), format!("has {other}"));
                finding.help("requests pass only if both routes let them; write one route, or choose other paths")
            }
            Finding::FallsThrough { route, later } => falls_through(route, later, routes, places),
        });
    }
}

/// Names of routes, not without end.
fn listed(routes: &[usize], name: &dyn Fn(usize) -> String) -> String {
    let shown: Vec<String> = routes.iter().take(MOST_PLACES).map(|route| name(*route)).collect();
    match (shown.as_slice(), routes.len().saturating_sub(MOST_PLACES)) {
        ([], _) => String::new(),
        ([one], _) => one.clone(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (shown, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

fn entry<'a>(route: &'a Route, places: &[Places]) -> Entry<'a> {
    Entry {
        hosts: &route.hosts,
        path: &route.path,
        methods: route.methods.as_deref(),
        allow: &route.allow,
        fall_through: places[route.index].falls_through,
    }
}

fn falls_through(route: usize, later: usize, routes: &[Arc<Route>], all: &[Places]) -> Diagnostic {
    let places = &all[route];
    let (limit, key) = if places.limited_by_method { ("other methods", "methods") } else { ("other hosts", "hosts") };
    let (first, second) = (quoted(&routes[route].name), quoted(&routes[later].name));
    let path = quoted(routes[route].path.as_str());
    let message =
        format!("{limit} than those of {first} go on to {second}, which lets in someone whom {first} excludes");
    let finding = Diagnostic::error("falls-through", message).at(places.limit.clone().unwrap_or(places.route.clone()));
    let finding = finding.label(format!("does not close {path} to {limit}"));
    finding.also(all[later].route.clone(), "decides about them").help(format!(
        "remove `{key}`, add a route for the {limit} of {path} right behind it, or say fall_through = true in {first}"
    ))
}

/// What an application does that reads paths so.
const fn does(reading: Reading) -> &'static str {
    match reading {
        Reading::MergedSlashes => "merges slashes",
        Reading::DecodedSlash => "decodes `%2F`",
        Reading::CutParameters => "cuts off what stands behind `;`",
        Reading::DecodedTwice => "decodes twice",
        Reading::Reparsed => "decodes twice, and takes `?` and `#` for an end in between",
        Reading::FoldedCase => "takes capitals for small letters",
        Reading::Together | Reading::TogetherReparsed => {
            "decodes twice, merges slashes and takes capitals for small letters"
        }
    }
}

/// A method override would get past a route that names methods, whichever route of that path takes the request.
fn mark_method_overrides(routes: &mut [Arc<Route>]) {
    let limited = routes.iter().filter(|route| route.methods.is_some()).map(|route| &route.path);
    let paths: HashSet<&PathPattern> = limited.collect();
    if paths.is_empty() {
        return;
    }
    let marked = Overlaps::new(routes.iter().map(|route| &route.path)).of_all(paths);
    for at in marked {
        // Nobody else has it yet.
        if let Some(route) = Arc::get_mut(&mut routes[at]) {
            route.strips_method_overrides = true;
        }
    }
}

/// So many that a thread of its own for what is wrong between them is worth it.
const MANY_ROUTES: usize = 1_000;

/// More places than this in one finding help nobody.
const MOST_PLACES: usize = 5;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::config::{AccessLog, AdminListen, KeySource, StoreKind, load_text};

    const UPSTREAM: &str = "[upstreams]\napp = \"http://127.0.0.1:3000\"\n";
    const ROUTE: &str = "[[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";

    fn config(text: &str) -> Config {
        let loaded = load_text(Path::new("/etc/gate/gateway.toml"), text.to_owned(), &|_| None);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)))
    }

    /// The configuration of a file with `section` before one upstream and one route.
    fn with(section: &str) -> Config {
        config(&format!("{section}\n{UPSTREAM}{ROUTE}"))
    }

    #[test]
    fn all_but_upstreams_and_routes_has_a_default() {
        let config = with("");
        assert_eq!(config.server.listen, [crate::config::Listen::plain("127.0.0.1:8080".parse().unwrap())]);
        assert_eq!(config.server.public_url.origin(), "http://127.0.0.1:8080");
        assert!(config.server.workers > 0 && config.server.trusted_proxies.is_empty());
        assert_eq!((config.server.limits.header_bytes, config.server.limits.body_bytes), (32 << 10, None));
        assert_eq!(config.tokens.issuer, "http://127.0.0.1:8080");
        assert!(matches!(config.tokens.keys, KeySource::Store));
        assert_eq!(config.sessions.cookie, "portcullis");
        assert_eq!(config.identity.user.as_ref().unwrap(), "x-forwarded-user");
        assert_eq!((&*config.routes[0].name, config.routes[0].to.upstream()), ("route-1", Some(0)));
        assert_eq!(config.routes[0].timeouts.response, Duration::from_secs(60));
    }

    #[test]
    fn relative_paths_start_at_the_file() {
        let config = with("[store]\nurl = \"sqlite:data/users.db\"\n[log]\naccess = \"./access.log\"");
        assert_eq!(config.store.kind, StoreKind::Sqlite("/etc/gate/data/users.db".into()));
        assert_eq!(config.admin.control.as_deref(), Some(Path::new("/etc/gate/data/portcullis.sock")));
        assert_eq!(config.log.access, AccessLog::File("/etc/gate/./access.log".into()));
        let config =
            with("[store]\nurl = \"sqlite:/var/x.db\"\n[admin]\nlisten = \"unix:/run/a.sock\"\ncontrol = \"c.sock\"");
        assert_eq!(config.store.kind, StoreKind::Sqlite("/var/x.db".into()));
        assert_eq!(config.admin.listen, Some(AdminListen::Unix("/run/a.sock".into())));
        assert_eq!(config.admin.control.as_deref(), Some(Path::new("/etc/gate/c.sock")));
    }

    #[test]
    fn the_cookie_has_the_prefix_that_its_scheme_and_domain_allow() {
        for (url, domain, expected) in [
            ("http://a.example.com", "", "portcullis"),
            ("http://a.example.com", "domain = \"example.com\"", "portcullis"),
            ("https://a.example.com", "", "__Host-portcullis"),
            ("https://a.example.com", "domain = \"example.com\"", "__Secure-portcullis"),
        ] {
            let config = with(&format!("[server]\npublic_url = \"{url}\"\n[sessions]\n{domain}\n"));
            assert_eq!(config.sessions.cookie, expected, "{url} {domain}");
        }
    }

    #[test]
    fn shorter_bounds_pull_defaults_along() {
        let config = with("[sessions]\nlifetime = \"30m\"\n[tokens]\nmax_lifetime = \"5m\"");
        assert_eq!(config.sessions.idle, Duration::from_secs(30 * 60));
        assert_eq!(config.tokens.lifetime, Duration::from_secs(300));
    }

    #[test]
    fn a_route_overrides_only_what_it_names() {
        let route = "identity = { user = \"X-WEBAUTH-USER\", email = false }\ntimeouts = { response = \"5m\" }\n\
                     body_bytes = \"unlimited\"\nmethods = [\"GET\", \"POST\"]\nstrip_prefix = \"/\"";
        let config =
            config(&format!("[identity]\nclaims = {{ \"X-Tenant\" = \"tenant\" }}\n{UPSTREAM}{ROUTE}{route}\n"));
        let route = &config.routes[0];
        assert_eq!(route.identity.user.as_ref().unwrap(), "x-webauth-user");
        assert_eq!((&route.identity.email, route.identity.claims.len()), (&None, 1));
        assert_eq!(route.identity.groups, config.identity.groups);
        assert_eq!(
            (route.timeouts.response, route.timeouts.connect),
            (Duration::from_secs(300), Duration::from_secs(5))
        );
        assert_eq!((route.body_bytes, &route.strip_prefix), (Some(u64::MAX), &None));
        assert_eq!(route.methods.as_deref().unwrap(), [Method::GET, Method::HEAD, Method::POST]);
    }

    #[test]
    fn upstreams_keep_their_order_and_routes_find_them() {
        let text = "[upstreams]\nzeta = \"http://z\"\nalpha = \"http://[::1]:90\"\n\n[[routes]]\npath = \"/**\"\n\
                    allow = \"anyone\"\nupstream = \"alpha\"\n";
        let config = config(text);
        let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        assert_eq!((names.as_slice(), config.routes[0].to.upstream()), (["zeta", "alpha"].as_slice(), Some(1)));
        let server = |index: usize| config.upstreams[index].servers[0].address.to_string();
        assert_eq!((server(0), server(1)), ("http://z:80".to_owned(), "http://[::1]:90".to_owned()));
    }

    #[test]
    fn method_overrides_go_wherever_a_route_of_that_path_names_methods() {
        let route =
            |path, rest| format!("[[routes]]\npath = \"{path}\"\nallow = \"anyone\"\nupstream = \"app\"\n{rest}\n");
        let routes = [route("/data/**", "methods = [\"GET\"]"), route("/other", ""), route("/**", "")].concat();
        let marked: Vec<bool> =
            config(&format!("{UPSTREAM}{routes}")).routes.iter().map(|route| route.strips_method_overrides).collect();
        assert_eq!(marked, [true, false, true]);
    }

    #[test]
    fn ten_thousand_routes_are_checked_without_looking_at_all_pairs() {
        let route = |n| {
            let hosts = format!("hosts = [\"h{n}.example.com\"]\nmethods = [\"GET\"]");
            format!(
                "[[routes]]\npath = \"/a/b{n}/**\"\nallow = {{ groups = [\"g{n}\"] }}\nupstream = \"app\"\n{hosts}\n"
            )
        };
        let routes: String = (0..10_000).map(route).collect();
        assert_eq!(config(&format!("{UPSTREAM}{routes}")).routes.len(), 10_000);
        let site = |n| {
            let hosts = format!("hosts = [\"h{n}.example.com\"]");
            format!("[[routes]]\npath = \"/**\"\nallow = {{ groups = [\"g{n}\"] }}\nupstream = \"app\"\n{hosts}\n")
        };
        let sites: String = (0..10_000).map(site).collect();
        assert_eq!(config(&format!("{UPSTREAM}{sites}")).routes.len(), 10_000);
    }
}
