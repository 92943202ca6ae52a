//! Keys and words of the configuration that are known and come with a later version.
//!
//! A file that uses one is refused with the version's number, unless it says what holds anyway.

use toml::de::DeValue;

use self::Harmless::{Empty, False, Nothing, Word};

/// Something that comes later.
pub(super) struct Later {
    /// The table that a key belongs to; for a word, the key's full name.
    place: &'static str,
    name: &'static str,
    /// The version that has it.
    pub(super) version: &'static str,
    harmless: Harmless,
}

/// Which value of a later key says only what holds already.
enum Harmless {
    Nothing,
    False,
    Word(&'static str),
    Empty,
}

impl Later {
    /// Whether `value` says only what holds already.
    pub(super) fn is_harmless(&self, value: &DeValue<'_>) -> bool {
        match self.harmless {
            Nothing => false,
            False => value.as_bool() == Some(false),
            Word(word) => value.as_str() == Some(word),
            Empty => value.as_array().is_some_and(|array| array.is_empty()),
        }
    }
}

/// The later key `name` of the table `section`.
pub(super) fn key(section: &str, name: &str) -> Option<&'static Later> {
    KEYS.iter().find(|later| later.place == section && later.name == name)
}

/// All later keys of the table `section`.
pub(super) fn keys(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |later| later.place == section).map(|later| later.name)
}

/// The later word `name` of the key `place`.
pub(super) fn word(place: &str, name: &str) -> Option<&'static Later> {
    WORDS.iter().find(|later| later.place == place && name.starts_with(later.name))
}

/// The table that a key belongs to which was written into `section` by mistake.
pub(super) fn elsewhere(name: &str, section: &str) -> Option<&'static str> {
    let homes = HOMES.iter().filter(|(_, keys)| keys.contains(&name));
    homes.map(|(home, _)| *home).find(|home| *home != section)
}

const fn later(place: &'static str, name: &'static str, version: &'static str, harmless: Harmless) -> Later {
    Later { place, name, version, harmless }
}

const KEYS: &[Later] = &[
    later("server", "tls", "0.4", Empty),
    later("server", "proxy_protocol", "0.4", False),
    later("server", "forward_auth", "0.4", Word("off")),
    later("server.listen", "tls", "0.4", False),
    later("server.listen", "redirect_to_https", "0.4", False),
    later("upstreams.*", "tls", "0.4", Nothing),
];

const WORDS: &[Later] = &[
    later("server.listen", "unix:", "0.4", Nothing),
    later("server.listen", "fd:", "0.4", Nothing),
    later("server.trusted_proxies", "unix", "0.4", Nothing),
    later("store.url", "postgres://", "0.6", Nothing),
    later("store.url", "postgresql://", "0.6", Nothing),
    later("store.url", "none", "0.2", Nothing),
    later("upstreams", "https://", "0.4", Nothing),
    later("upstreams", "h2c://", "0.4", Nothing),
    later("upstreams", "unix:", "0.4", Nothing),
    later("routes.accept", "client-cert", "0.4", Nothing),
];

/// Keys that are easily written into the wrong table.
const HOMES: &[(&str, &[&str])] = &[
    ("server", &["listen", "public_url", "trusted_proxies", "trusted_headers", "workers"]),
    (
        "server.limits",
        &[
            "header_timeout",
            "idle_timeout",
            "body_timeout",
            "drain_delay",
            "drain_timeout",
            "header_bytes",
            "headers",
            "body_bytes",
            "connections",
        ],
    ),
    ("log", &["level", "format", "access"]),
    ("trace", &["otlp", "sample"]),
    ("store", &["url", "max_staleness"]),
    ("tokens", &["algorithm", "audience", "leeway", "max_lifetime", "secret", "key"]),
    ("sessions", &["cookie", "domain", "remember", "idle"]),
    ("login", &["title", "logout_path", "failure_status", "failure_detail"]),
    ("identity", &["strip", "claims"]),
];
