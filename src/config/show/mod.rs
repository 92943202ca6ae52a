//! What is in force, defaults included, as a file that comes to the same: for `portcullis config show`.
//!
//! Secrets are not in it: a placeholder stands for each, which no gateway starts with. Every struct is taken apart without
//! `..`, so that a new key can't be forgotten.

mod routes;
mod upstreams;
mod written;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use self::written::{Entries, Shown};
use super::{
    AccessLog, Accounts, Address, Admin, AdminListen, Certificate, Config, Identity, Issuer, IssuerKeys, KeySource,
    Limits, Listen, Log, LogFormat, Login, Server, Sessions, Store, StoreKind, Tokens, Trace, TrustedHeaders,
};
use crate::secret::Secret;

/// What stands for a secret: too short for any algorithm, and no PEM.
pub const HIDDEN: &str = "(hidden)";

/// A configuration to show.
#[derive(Clone, Debug)]
pub struct Show(Entries);

impl Show {
    /// All of `config` but its secrets.
    pub fn of(config: &Config) -> Self {
        let Config {
            file: _,
            files: _,
            secret_files: _,
            server: of_server,
            admin: of_admin,
            log: of_log,
            trace: of_trace,
            store: of_store,
            tokens: of_tokens,
            sessions: of_sessions,
            login: of_login,
            identity: of_identity,
            guarded: _,
            told: _,
            issuers,
            upstreams,
            routes: _,
            route_places: _,
            tests: _,
            mentions: _,
        } = config;
        let file = [
            ("server", Shown::Section(server(of_server))),
            ("admin", Shown::Section(admin(of_admin))),
            ("log", Shown::Section(log(of_log))),
            ("trace", of_trace.as_ref().map_or_else(|| nothing("off"), |trace| Shown::Section(spans(trace)))),
            ("store", Shown::Section(store(of_store))),
            ("tokens", Shown::Section(tokens(of_tokens))),
            ("sessions", Shown::Section(sessions(of_sessions))),
            ("issuers", Shown::Sections(issuers.iter().map(|one| issuer(one)).collect())),
            ("login", Shown::Section(login(of_login))),
            ("identity", Shown::Section(identity(of_identity))),
            ("upstreams", Shown::Section(upstreams.iter().map(|one| upstreams::upstream(one)).collect())),
            ("routes", Shown::Sections(config.routes.iter().map(|route| routes::route(config, route)).collect())),
            ("tests", Shown::Sections(config.tests.iter().map(|test| routes::test(config, test)).collect())),
        ];
        Self(entries(file))
    }

    /// The same, with the log filtered as it is now rather than as the file says.
    #[must_use]
    pub fn with_log_level(mut self, level: &str) -> Self {
        let sections = self.0.iter_mut().filter(|(name, _)| name == "log").map(|(_, shown)| shown);
        for section in sections {
            if let Shown::Section(log) = section {
                log.iter_mut().filter(|(key, _)| key == "level").for_each(|(_, shown)| *shown = text(level));
            }
        }
        self
    }

    /// As `gateway.toml`.
    pub fn toml(&self) -> String {
        written::toml(&self.0)
    }

    /// As one document.
    pub fn json(&self) -> Value {
        written::json(&self.0)
    }
}

fn server(server: &Server) -> Entries {
    let Server {
        listen,
        public_url,
        trusted_proxies,
        trusts_unix,
        trusted_headers,
        workers,
        tls,
        hsts,
        proxy_protocol,
        forward_auth,
        limits,
    } = server;
    let TrustedHeaders { x_forwarded_for, x_forwarded_proto, x_forwarded_host, forwarded } = *trusted_headers;
    let headers = [
        (x_forwarded_for, "X-Forwarded-For"),
        (x_forwarded_proto, "X-Forwarded-Proto"),
        (x_forwarded_host, "X-Forwarded-Host"),
        (forwarded, "Forwarded"),
    ];
    entries([
        ("listen", Shown::List(listen.iter().map(|one| listener(one, !tls.is_empty())).collect())),
        ("public_url", text(public_url.origin())),
        (
            "trusted_proxies",
            texts(trusted_proxies.iter().map(ToString::to_string).chain(trusts_unix.then(|| "unix".to_owned()))),
        ),
        ("trusted_headers", texts(named(headers))),
        ("workers", number(*workers)),
        ("tls", Shown::List(tls.certificates().iter().map(|one| certificate(one)).collect())),
        ("hsts", hsts.map_or_else(|| nothing("off"), duration)),
        ("proxy_protocol", Shown::Plain(Value::Bool(*proxy_protocol))),
        ("forward_auth", text(forward_auth.word())),
        ("limits", Shown::Section(server_limits(limits))),
    ])
}

/// One listener: its address, and beside it what is not as without a word.
fn listener(listen: &Listen, has_certificates: bool) -> Shown {
    let Listen { address, tls, redirect_to_https, h2c } = listen;
    let usually_tls = has_certificates && !matches!(address, Address::Unix(_));
    let words = [("tls", tls, usually_tls), ("redirect_to_https", redirect_to_https, false), ("h2c", h2c, false)];
    let said = words.into_iter().filter(|(_, is, usually)| **is != *usually);
    let mut said: Vec<_> = said.map(|(word, is, _)| (word.to_owned(), Shown::Plain(Value::Bool(*is)))).collect();
    let address = match address {
        Address::Unix(place) => {
            said.push(("mode".to_owned(), text(format!("{:04o}", place.mode))));
            let owner =
                [place.user, place.group].map(|number| number.map(|number| number.to_string()).unwrap_or_default());
            if place.user.is_some() || place.group.is_some() {
                said.push(("owner".to_owned(), text(owner.join(":"))));
            }
            format!("unix:{}", absolute(&place.path))
        }
        other => other.to_string(),
    };
    if said.is_empty() {
        return text(address);
    }
    Shown::Inline(std::iter::once(("address".to_owned(), text(address))).chain(said).collect())
}

fn certificate(one: &Certificate) -> Shown {
    let mut shown = entries([("cert", text(absolute(&one.cert))), ("key", text(absolute(&one.key)))]);
    if let Some(clients) = &one.clients {
        shown.push(("client_ca".to_owned(), text(absolute(&clients.ca))));
        shown.extend(clients.crl.iter().map(|crl| ("client_crl".to_owned(), text(absolute(&crl.file)))));
    }
    Shown::Inline(shown)
}

fn server_limits(limits: &Limits) -> Entries {
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
    } = limits;
    entries([
        ("header_timeout", duration(*header_timeout)),
        ("idle_timeout", duration(*idle_timeout)),
        ("body_timeout", duration(*body_timeout)),
        ("drain_delay", duration(*drain_delay)),
        ("drain_timeout", duration(*drain_timeout)),
        ("header_bytes", text(size(*header_bytes as u64))),
        ("headers", number(*headers)),
        ("body_bytes", text(body_bytes.map_or_else(|| "unlimited".to_owned(), size))),
        ("connections", number(*connections)),
    ])
}

fn admin(admin: &Admin) -> Entries {
    let Admin { listen, control } = admin;
    let listen = match listen {
        None => nothing("off"),
        Some(AdminListen::Tcp(address)) => text(address),
        Some(AdminListen::Unix(file)) => text(format!("unix:{}", absolute(file))),
    };
    let control = control.as_ref().map_or_else(|| nothing("none"), |control| text(absolute(control)));
    entries([("listen", listen), ("control", control)])
}

fn log(log: &Log) -> Entries {
    let Log { level, format, access } = log;
    let format = match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let access = match access {
        AccessLog::Off => "off".to_owned(),
        AccessLog::Stdout => "stdout".to_owned(),
        AccessLog::Stderr => "stderr".to_owned(),
        AccessLog::File(file) => absolute(file),
    };
    entries([("level", text(level)), ("format", text(format)), ("access", text(access))])
}

fn spans(trace: &Trace) -> Entries {
    let Trace { collector, https, ca, sample, service } = trace;
    let otlp = format!("{}://{collector}", if *https { "https" } else { "http" });
    entries([
        ("otlp", text(otlp)),
        ("ca", ca.as_deref().map_or_else(|| nothing("the system's"), |ca| text(absolute(ca)))),
        ("sample", Shown::Plain((*sample).into())),
        ("service", text(service)),
    ])
}

fn store(store: &Store) -> Entries {
    let Store { kind, users, max_staleness } = store;
    let url = match kind {
        StoreKind::Sqlite(file) => format!("sqlite:{}", absolute(file)),
        StoreKind::None => "none".to_owned(),
    };
    // The file by its name only: it holds hashes.
    let users = users
        .as_ref()
        .map_or_else(|| nothing("none"), |users| Shown::Inline(entries([("file", text(absolute(&users.path)))])));
    entries([("url", text(url)), ("users", users), ("max_staleness", duration(*max_staleness))])
}

fn tokens(tokens: &Tokens) -> Entries {
    let Tokens { issuer, audience, algorithm, lifetime, leeway, max_lifetime, keys } = tokens;
    let (none, made) = (nothing("none"), nothing("none; keys are made here and kept in the store"));
    let (secret, key) = match keys {
        KeySource::Store => (none, made),
        KeySource::Shared(secrets) => (hidden(secrets), none),
        KeySource::Pem(keys) => (none, hidden(keys)),
    };
    entries([
        ("issuer", text(issuer)),
        ("audience", text(audience)),
        ("algorithm", text(format!("{algorithm:?}"))),
        ("lifetime", duration(*lifetime)),
        ("leeway", duration(*leeway)),
        ("max_lifetime", duration(*max_lifetime)),
        ("secret", secret),
        ("key", key),
    ])
}

fn sessions(sessions: &Sessions) -> Entries {
    let Sessions { lifetime, idle, remember, cookie, domain } = sessions;
    let prefixes = ["__Host-", "__Secure-"];
    let name = prefixes.iter().find_map(|prefix| cookie.strip_prefix(prefix)).unwrap_or(cookie);
    entries([
        ("lifetime", duration(*lifetime)),
        ("idle", duration(*idle)),
        ("remember", duration(*remember)),
        ("cookie", text(name)),
        ("domain", optional(domain.as_ref(), "none; each host has a sign-in of its own")),
    ])
}

fn issuer(one: &Issuer) -> Entries {
    let Issuer {
        name,
        issuer,
        audience,
        keys,
        algorithms,
        user,
        groups,
        accounts,
        user_prefix,
        group_prefix,
        others_users: _,
        others_groups: _,
        leeway,
        max_lifetime,
    } = one;
    let none = || nothing("none");
    let file = |file: &Path| Shown::Inline(entries([("file", text(absolute(file)))]));
    let authority = |ca: &Option<std::path::PathBuf>| match ca {
        Some(ca) => text(absolute(ca)),
        None => nothing("the system's"),
    };
    let (jwks, ca, secret) = match keys {
        IssuerKeys::Url { url, ca } => (text(url), authority(ca), none()),
        IssuerKeys::Discovery { ca } => (nothing("found by OpenID discovery"), authority(ca), none()),
        IssuerKeys::File(path) => (file(path), none(), none()),
        IssuerKeys::Shared(secrets) => (none(), none(), hidden(secrets)),
    };
    let prefix = |prefix: &String| optional(Some(prefix).filter(|prefix| !prefix.is_empty()), "none");
    let accounts = match accounts {
        Accounts::Separate => "separate",
        Accounts::Shared => "shared",
    };
    entries([
        ("name", text(name)),
        ("issuer", text(issuer)),
        ("audience", texts(audience)),
        ("jwks", jwks),
        ("ca", ca),
        ("secret", secret),
        ("algorithms", texts(algorithms.iter().map(|algorithm| format!("{algorithm:?}")))),
        ("user", text(user)),
        ("groups", text(groups)),
        ("accounts", text(accounts)),
        ("user_prefix", prefix(user_prefix)),
        ("group_prefix", prefix(group_prefix)),
        ("leeway", duration(*leeway)),
        ("max_lifetime", duration(*max_lifetime)),
    ])
}

fn login(login: &Login) -> Entries {
    let Login { path, logout_path, title, failure_status, failure_detail } = login;
    entries([
        ("path", text(path)),
        ("logout_path", text(logout_path)),
        ("title", text(title)),
        ("failure_status", number(failure_status.as_u16())),
        ("failure_detail", text(failure_detail)),
    ])
}

fn identity(identity: &Identity) -> Entries {
    let Identity { user, groups, email, name, claims, assertion, strip } = identity;
    let header = |name: &Option<http::HeaderName>| name.as_ref().map_or(Shown::Plain(false.into()), text);
    let claims = claims.iter().map(|(name, claim)| (name.as_str().to_owned(), text(claim))).collect();
    entries([
        ("user", header(user)),
        ("groups", header(groups)),
        ("email", header(email)),
        ("name", header(name)),
        ("assertion", header(assertion)),
        ("claims", Shown::Inline(claims)),
        ("strip", texts(strip)),
    ])
}

/// As many placeholders as there are secrets; nothing of a secret, its length neither.
fn hidden<T: zeroize::Zeroize>(secrets: &[Secret<T>]) -> Shown {
    texts(secrets.iter().map(|_| HIDDEN))
}

fn entries<const KEYS: usize>(entries: [(&str, Shown); KEYS]) -> Entries {
    entries.into_iter().map(|(key, shown)| (key.to_owned(), shown)).collect()
}

fn text(text: impl ToString) -> Shown {
    Shown::Plain(Value::String(text.to_string()))
}

fn texts<T: ToString>(list: impl IntoIterator<Item = T>) -> Shown {
    Shown::List(list.into_iter().map(text).collect())
}

fn number(number: impl Into<serde_json::Number>) -> Shown {
    Shown::Plain(Value::Number(number.into()))
}

fn nothing(why: &str) -> Shown {
    Shown::Nothing(why.to_owned())
}

fn optional(value: Option<impl ToString>, otherwise: &str) -> Shown {
    value.map_or_else(|| nothing(otherwise), text)
}

/// The names of what is there.
fn named<const NAMES: usize>(names: [(bool, &'static str); NAMES]) -> impl Iterator<Item = &'static str> {
    names.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name)
}

/// From the root, so that it means the same wherever the file stands.
fn absolute(path: &Path) -> String {
    let path = if path.is_absolute() { path.to_owned() } else { std::path::absolute(path).unwrap_or(path.to_owned()) };
    path.display().to_string()
}

/// The largest unit that leaves no rest: `15m`, `75s`, and `24h` rather than one day.
fn duration(duration: Duration) -> Shown {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let fits = |(unit, length): &(&str, u128)| millis.is_multiple_of(*length) && (*unit != "d" || millis > *length);
    text(match units.into_iter().filter(|_| millis > 0).find(fits) {
        Some((unit, length)) => format!("{}{unit}", millis / length),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    })
}

/// In the unit that leaves no rest and makes the shortest number.
fn size(bytes: u64) -> String {
    let units =
        [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)];
    let fitting = units.into_iter().filter(|(_, length)| bytes > 0 && bytes.is_multiple_of(*length));
    match fitting.min_by_key(|(_, length)| bytes / length) {
        Some((unit, length)) => format!("{}{unit}", bytes / length),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_duration;

    #[test]
    fn durations_and_sizes_are_written_as_a_person_would() {
        for (millis, written) in [
            (0, "0s"),
            (1, "1ms"),
            (1500, "1500ms"),
            (75_000, "75s"),
            (5_400_000, "90m"),
            (86_400_000, "24h"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text(written));
            assert_eq!(parse_duration(written), Ok(Duration::from_millis(millis)));
        }
        let sizes =
            [(0, "0B"), (1500, "1500B"), (3000, "3KB"), (32 << 10, "32KiB"), (2_000_000_000, "2GB"), (1 << 30, "1GiB")];
        for (bytes, written) in sizes {
            assert_eq!(size(bytes), written);
        }
    }
}
