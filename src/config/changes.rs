//! What differs between two configurations, by name: what a reload says before it takes effect. Pure.
//!
//! Every type is taken apart field by field, so that a new key can't be forgotten here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::iter::zip;
use std::sync::Arc;

use serde::Serialize;

use super::order::unmoved;
use super::{Admin, Config, Destination, Issuers, Limits, Listen, Log, Login, Route, Server, Sessions, Store, Tokens};

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Routes. One whose place among the others is another has changed.
    pub routes: Names,
    /// Upstreams.
    pub upstreams: Names,
    /// Other issuers.
    pub issuers: Names,
    /// Addresses of `server.listen`.
    pub listeners: Names,
    /// All other keys that have another value.
    pub keys: Vec<&'static str>,
}

/// What came, went, and is another than it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the fields are named after what they hold")]
pub struct Names {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Changes {
    /// What is different in `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        Self {
            routes: routes(old, new),
            upstreams: named(&old.upstreams, &new.upstreams, |upstream| &upstream.name),
            issuers: named(&old.issuers, &new.issuers, |issuer| &issuer.name),
            listeners: listeners(&old.server, &new.server),
            keys: keys(old, new),
        }
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        let Self { routes, upstreams, issuers, listeners, keys } = self;
        routes.is_empty() && upstreams.is_empty() && issuers.is_empty() && listeners.is_empty() && keys.is_empty()
    }

    /// What is said in the log of each part: names without end are cut.
    pub fn brief(&self) -> [String; 5] {
        let Self { routes, upstreams, issuers, listeners, keys } = self;
        let keys = Names { changed: keys.iter().map(|&key| key.to_owned()).collect(), ..Names::default() };
        let [routes, upstreams, issuers, listeners] =
            [routes, upstreams, issuers, listeners].map(|names| names.text(BRIEF));
        [routes, upstreams, issuers, listeners, list(&keys.changed, BRIEF)]
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing has changed");
        }
        let Self { routes, upstreams, issuers, listeners, keys } = self;
        let parts = [("routes", routes), ("upstreams", upstreams), ("issuers", issuers), ("listeners", listeners)];
        for (part, names) in parts {
            if !names.is_empty() {
                writeln!(f, "{part}: {}", names.text(usize::MAX))?;
            }
        }
        if keys.is_empty() { Ok(()) } else { writeln!(f, "keys: {}", keys.join(", ")) }
    }
}

impl Names {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// In words, with at most `most` names of each kind.
    fn text(&self, most: usize) -> String {
        let kinds = [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)];
        let there = kinds.into_iter().filter(|(_, names)| !names.is_empty());
        there.map(|(kind, names)| format!("{kind} {}", list(names, most))).collect::<Vec<_>>().join("; ")
    }
}

fn list(names: &[String], most: usize) -> String {
    match names.len().checked_sub(most) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..most].join(", ")),
    }
}

fn routes(old: &Config, new: &Config) -> Names {
    // Most routes stay where they are: in front of what was put in, or behind it.
    let is_one = |(before, after): &(&Arc<Route>, &Arc<Route>)| before.name == after.name;
    let front = old.routes.iter().zip(&new.routes).take_while(is_one).count();
    let (old_rest, new_rest) = (&old.routes[front..], &new.routes[front..]);
    let back = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(is_one).count();
    let (old_rest, old_back) = old_rest.split_at(old_rest.len() - back);
    let (new_rest, new_back) = new_rest.split_at(new_rest.len() - back);

    let before: HashMap<&str, &Arc<Route>> = old_rest.iter().map(|route| (&*route.name, route)).collect();
    let kept: Vec<(&Arc<Route>, &Arc<Route>)> =
        new_rest.iter().filter_map(|route| Some((*before.get(&*route.name)?, route))).collect();
    let stays = unmoved(&kept.iter().map(|(before, _)| before.index).collect::<Vec<_>>());
    let mut names = Names::default();
    let in_place = |old, new| zip(old, new).map(|(before, after)| (before, after, true));
    let kept = zip(kept, stays).map(|((before, after), stays)| (before, after, stays));
    let kept = in_place(&old.routes[..front], &new.routes[..front]).chain(kept).chain(in_place(old_back, new_back));
    for (before, after, stays) in kept {
        if !stays || !is_same_route((old, before), (new, after)) {
            names.changed.push(after.name.to_string());
        }
    }
    let after: HashSet<&str> = new_rest.iter().map(|route| &*route.name).collect();
    let added = new_rest.iter().filter(|route| !before.contains_key(&*route.name));
    names.added = added.map(|route| route.name.to_string()).collect();
    let removed = old_rest.iter().filter(|route| !after.contains(&*route.name));
    names.removed = removed.map(|route| route.name.to_string()).collect();
    names
}

/// Whether two routes of one name say the same, apart from their places.
fn is_same_route((old, before): (&Config, &Route), (new, after): (&Config, &Route)) -> bool {
    let Route {
        name: _,
        index: _,
        hosts,
        path,
        methods,
        allow,
        to,
        strip_prefix,
        rewrite,
        set_host,
        request_headers,
        response_headers,
        rate_limit,
        websockets,
        accept,
        issuers,
        unauthenticated,
        forward_token,
        identity,
        readings,
        origins,
        cors,
        body_bytes,
        timeouts,
        retries,
        observe,
        fall_through,
        strips_method_overrides,
    } = before;
    *hosts == after.hosts
        && *path == after.path
        && *methods == after.methods
        && *allow == after.allow
        && leads(old, to) == leads(new, &after.to)
        && *strip_prefix == after.strip_prefix
        && *rewrite == after.rewrite
        && *set_host == after.set_host
        && *request_headers == after.request_headers
        && *response_headers == after.response_headers
        && *rate_limit == after.rate_limit
        && *websockets == after.websockets
        && *accept == after.accept
        && taken(old, issuers) == taken(new, &after.issuers)
        && *unauthenticated == after.unauthenticated
        && *forward_token == after.forward_token
        && *identity == after.identity
        && *readings == after.readings
        && *origins == after.origins
        && *cors == after.cors
        && *body_bytes == after.body_bytes
        && *timeouts == after.timeouts
        && *retries == after.retries
        && *observe == after.observe
        && *fall_through == after.fall_through
        && *strips_method_overrides == after.strips_method_overrides
}

/// Where a route leads: to an upstream of this name, or to an answer of its own.
fn leads<'a>(config: &'a Config, to: &'a Destination) -> (Option<&'a str>, Option<&'a Destination>) {
    match to.upstream() {
        Some(at) => (config.upstreams.get(at).map(|upstream| upstream.name.as_str()), None),
        None => (None, Some(to)),
    }
}

/// Whose tokens a route takes, by name; `None`: everybody's.
fn taken<'a>(config: &'a Config, issuers: &Issuers) -> Option<(bool, Vec<&'a str>)> {
    match issuers {
        Issuers::All => None,
        Issuers::These { own, others } => {
            let name = |at: &usize| config.issuers.get(*at).map(|issuer| &*issuer.name);
            Some((*own, others.iter().filter_map(name).collect()))
        }
    }
}

/// What differs between two lists of things that have names.
fn named<T: PartialEq>(old: &[Arc<T>], new: &[Arc<T>], name: impl Fn(&T) -> &str) -> Names {
    let before: HashMap<&str, &Arc<T>> = old.iter().map(|thing| (name(thing), thing)).collect();
    let after: HashSet<&str> = new.iter().map(|thing| name(thing)).collect();
    let mut names = Names::default();
    for thing in new {
        match before.get(name(thing)) {
            None => names.added.push(name(thing).to_owned()),
            Some(before) if *before != thing => names.changed.push(name(thing).to_owned()),
            Some(_) => {}
        }
    }
    let removed = old.iter().map(|thing| name(thing)).filter(|name| !after.contains(name));
    names.removed = removed.map(str::to_owned).collect();
    names
}

/// Port 0 may stand there several times: as often as it does, there is a listener of its own.
fn listeners(old: &Server, new: &Server) -> Names {
    let missing_in = |these: &Server, those: &Server| {
        let mut left = those.listen.clone();
        let is_missing = |listen: &&Listen| {
            let at = left.iter().position(|known| known == *listen);
            at.map(|at| left.swap_remove(at)).is_none()
        };
        these.listen.iter().filter(is_missing).map(|listen| listen.address.to_string()).collect::<Vec<_>>()
    };
    Names { added: missing_in(new, old), removed: missing_in(old, new), changed: Vec::new() }
}

/// The names of all other keys whose values differ.
fn keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let Config {
        file: _,
        files: _,
        secret_files: _,
        server,
        admin,
        log,
        trace,
        store,
        tokens,
        sessions,
        login,
        identity,
        guarded: _,
        told: _,
        issuers: _,
        upstreams: _,
        routes: _,
        route_places: _,
        tests: _,
        mentions: _,
    } = old;
    let all = [
        of_server(server, &new.server),
        of_limits(&server.limits, &new.server.limits),
        of_services((admin, &new.admin), (log, &new.log), (store, &new.store)),
        of_tokens(tokens, &new.tokens),
        of_sign_in((sessions, &new.sessions), (login, &new.login)),
        vec![("trace", *trace != new.trace)],
        vec![("identity", *identity != new.identity)],
    ];
    all.into_iter().flatten().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// A key and whether it differs.
type Compared = Vec<(&'static str, bool)>;

fn of_server(old: &Server, new: &Server) -> Compared {
    let Server {
        listen: _,
        public_url,
        trusted_proxies,
        trusts_unix,
        trusted_headers,
        workers,
        tls,
        hsts,
        proxy_protocol,
        forward_auth,
        limits: _,
    } = old;
    vec![
        ("server.public_url", *public_url != new.public_url),
        ("server.proxy_protocol", *proxy_protocol != new.proxy_protocol),
        ("server.trusted_proxies", (trusted_proxies, trusts_unix) != (&new.trusted_proxies, &new.trusts_unix)),
        ("server.trusted_headers", *trusted_headers != new.trusted_headers),
        (WORKERS, *workers != new.workers),
        ("server.tls", *tls != new.tls),
        ("server.hsts", *hsts != new.hsts),
        ("server.forward_auth", *forward_auth != new.forward_auth),
    ]
}

fn of_limits(old: &Limits, new: &Limits) -> Compared {
    let Limits {
        header_timeout,
        idle_timeout,
        body_timeout,
        drain_delay,
        drain_timeout,
        header_bytes,
        headers,
        body_bytes,
        connections,
    } = old;
    vec![
        ("server.limits.header_timeout", *header_timeout != new.header_timeout),
        ("server.limits.idle_timeout", *idle_timeout != new.idle_timeout),
        ("server.limits.body_timeout", *body_timeout != new.body_timeout),
        ("server.limits.drain_delay", *drain_delay != new.drain_delay),
        ("server.limits.drain_timeout", *drain_timeout != new.drain_timeout),
        ("server.limits.header_bytes", *header_bytes != new.header_bytes),
        ("server.limits.headers", *headers != new.headers),
        ("server.limits.body_bytes", *body_bytes != new.body_bytes),
        ("server.limits.connections", *connections != new.connections),
    ]
}

fn of_services(admins: (&Admin, &Admin), logs: (&Log, &Log), stores: (&Store, &Store)) -> Compared {
    let Admin { listen, control } = admins.0;
    let Log { level, format, access } = logs.0;
    let Store { kind, users, max_staleness } = stores.0;
    vec![
        ("admin.listen", *listen != admins.1.listen),
        (CONTROL, *control != admins.1.control),
        ("log.level", *level != logs.1.level),
        ("log.format", *format != logs.1.format),
        ("log.access", *access != logs.1.access),
        (STORE, *kind != stores.1.kind),
        ("store.users", *users != stores.1.users),
        ("store.max_staleness", *max_staleness != stores.1.max_staleness),
    ]
}

fn of_tokens(old: &Tokens, new: &Tokens) -> Compared {
    let Tokens { issuer, audience, algorithm, lifetime, leeway, max_lifetime, keys } = old;
    vec![
        ("tokens.issuer", *issuer != new.issuer),
        ("tokens.audience", *audience != new.audience),
        ("tokens.algorithm", *algorithm != new.algorithm),
        ("tokens.lifetime", *lifetime != new.lifetime),
        ("tokens.leeway", *leeway != new.leeway),
        ("tokens.max_lifetime", *max_lifetime != new.max_lifetime),
        ("tokens.secret or tokens.key", *keys != new.keys),
    ]
}

fn of_sign_in(sessions: (&Sessions, &Sessions), logins: (&Login, &Login)) -> Compared {
    let Sessions { lifetime, idle, remember, cookie, domain } = sessions.0;
    let Login { path, logout_path, title, failure_status, failure_detail } = logins.0;
    vec![
        ("sessions.lifetime", *lifetime != sessions.1.lifetime),
        ("sessions.idle", *idle != sessions.1.idle),
        ("sessions.remember", *remember != sessions.1.remember),
        ("sessions.cookie", *cookie != sessions.1.cookie),
        ("sessions.domain", *domain != sessions.1.domain),
        ("login.path", *path != logins.1.path),
        ("login.logout_path", *logout_path != logins.1.logout_path),
        ("login.title", *title != logins.1.title),
        ("login.failure_status", *failure_status != logins.1.failure_status),
        ("login.failure_detail", *failure_detail != logins.1.failure_detail),
    ]
}

/// The key of the store, which a running gateway can't change.
pub const STORE: &str = "store.url";

/// The key of the control socket, which a running gateway can't change.
pub const CONTROL: &str = "admin.control";

/// The key of the number of workers, which counts from the next start.
pub const WORKERS: &str = "server.workers";

/// Names of one kind in a log line.
const BRIEF: usize = 20;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load_text;
    use super::*;

    fn config(text: &str) -> Config {
        let loaded = load_text(Path::new("/etc/gate/gateway.toml"), text.to_owned(), &|_| None);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)))
    }

    fn route(name: &str, path: &str, allow: &str) -> String {
        format!("[[routes]]\nname = \"{name}\"\npath = \"{path}\"\nallow = \"{allow}\"\nupstream = \"app\"\n")
    }

    /// A file with `sections` and routes before the one that takes the rest.
    fn file(sections: &str, routes: &[String]) -> Config {
        let rest = route("rest", "/**", "signed-in");
        config(&format!("{sections}\n[upstreams]\napp = \"http://127.0.0.1:1\"\n{}{rest}", routes.concat()))
    }

    fn changed(names: &[&str]) -> Names {
        Names { changed: names.iter().map(|&name| name.to_owned()).collect(), ..Names::default() }
    }

    #[test]
    fn the_same_file_differs_in_nothing() {
        let sections = "[server]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n[tokens]\nalgorithm = \"HS256\"\n\
                        secret = \"a secret of at least thirty-two bytes\"";
        let one = file(sections, &[route("a", "/a", "anyone")]);
        let changes = Changes::between(&one, &file(sections, &[route("a", "/a", "anyone")]));
        assert!(changes.is_empty(), "{changes}");
        assert_eq!(changes.to_string(), "nothing has changed\n");
    }

    #[test]
    fn routes_are_told_by_name_and_one_that_moved_has_changed() {
        let [a, b, c] = ["a", "b", "c"].map(|name| route(name, &format!("/{name}"), "anyone"));
        let old = file("", &[a.clone(), b.clone(), c.clone()]);
        let between = |routes: &[String]| Changes::between(&old, &file("", routes)).routes;
        assert_eq!(between(&[b.clone(), c.clone(), a.clone()]), changed(&["a"]));
        assert_eq!(between(&[a.clone(), route("b", "/b", "nobody"), c.clone()]), changed(&["b"]));
        let added = between(&[route("new", "/new", "anyone"), a, c]);
        assert_eq!((added.added, added.removed), (vec!["new".to_owned()], vec!["b".to_owned()]));
        assert!(added.changed.is_empty(), "a new one before the others moves none of them");
    }

    /// Whatever came, went, or was put elsewhere, what is said is what looking each name up says.
    #[test]
    fn routes_that_stay_at_either_end_hide_nothing() {
        let route = |name: &char| route(&name.to_string(), &format!("/{name}"), "anyone");
        let old = ['a', 'b', 'c', 'd'];
        let mut orders = vec![Vec::new()];
        for _ in 0..5 {
            let longer = |order: &Vec<char>| {
                let left = ['a', 'b', 'c', 'd', 'e'].into_iter().filter(|name| !order.contains(name));
                left.map(|name| [&order[..], &[name]].concat()).collect::<Vec<_>>()
            };
            let longer: Vec<_> = orders.iter().flat_map(longer).collect();
            orders.extend(longer);
            orders.sort();
            orders.dedup();
        }
        assert_eq!(orders.len(), 326);
        let before = file("", &old.iter().map(route).collect::<Vec<_>>());
        for new in orders {
            let names = Changes::between(&before, &file("", &new.iter().map(route).collect::<Vec<_>>())).routes;
            let text = |names: Vec<&char>| names.into_iter().map(char::to_string).collect::<Vec<_>>();
            assert_eq!(names.added, text(new.iter().filter(|name| !old.contains(name)).collect()), "{new:?}");
            assert_eq!(names.removed, text(old.iter().filter(|name| !new.contains(name)).collect()), "{new:?}");
            let places: Vec<usize> =
                new.iter().filter_map(|name| old.iter().position(|before| before == name)).collect();
            let moved = places.len() - unmoved(&places).iter().filter(|stays| **stays).count();
            assert_eq!(names.changed.len(), moved, "{new:?}");
        }
    }

    #[test]
    fn upstreams_listeners_and_keys_are_named() {
        let old = file("[server]\nlisten = [\"127.0.0.1:80\", \"127.0.0.1:81\"]", &[]);
        let text = "[server]\nlisten = [\"127.0.0.1:81\", \"127.0.0.1:82\"]\n[server.limits]\nheaders = 7\n\
                    [log]\nlevel = \"warn\"\n[tokens]\nalgorithm = \"HS256\"\n\
                    secret = \"a secret of at least thirty-two bytes\"\n[upstreams]\napp = \"http://127.0.0.1:2\"\n\
                    b = \"http://b\"\n";
        let changes = Changes::between(&old, &config(&(text.to_owned() + &route("rest", "/**", "signed-in"))));
        assert_eq!(
            changes.to_string(),
            "upstreams: added b; changed app\nlisteners: added 127.0.0.1:82; removed 127.0.0.1:80\n\
             keys: server.limits.headers, log.level, tokens.algorithm, tokens.secret or tokens.key\n"
        );
        let other = text.replace("at least", "at most");
        let other = config(&(other + &route("rest", "/**", "signed-in")));
        let again = Changes::between(&config(&(text.to_owned() + &route("rest", "/**", "signed-in"))), &other);
        assert_eq!(again.keys, ["tokens.secret or tokens.key"]);
    }

    #[test]
    fn a_log_line_has_an_end() {
        let names: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
        let text = Names { added: names, ..Names::default() }.text(BRIEF);
        assert!(text.ends_with("r19 and 80 more"), "{text}");
    }
}
