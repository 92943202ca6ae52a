//! Words of the configuration that are known and come with a later version, and keys that are easily misplaced.

/// Something that comes later.
pub(super) struct Later {
    /// The key whose value begins so, by its full name.
    key: &'static str,
    begin: &'static str,
    /// The version that has it.
    pub(super) version: &'static str,
}

/// The later word that `value` of `key` begins with.
pub(super) fn word(key: &str, value: &str) -> Option<&'static Later> {
    WORDS.iter().find(|later| later.key == key && value.starts_with(later.begin))
}

/// The table that a key belongs to which was written into `section` by mistake.
pub(super) fn elsewhere(name: &str, section: &str) -> Option<&'static str> {
    let homes = HOMES.iter().filter(|(_, keys)| keys.contains(&name));
    homes.map(|(home, _)| *home).find(|home| *home != section)
}

const fn later(key: &'static str, begin: &'static str, version: &'static str) -> Later {
    Later { key, begin, version }
}

const WORDS: &[Later] = &[later("store.url", "postgres://", "0.6"), later("store.url", "postgresql://", "0.6")];

/// Keys that are easily written into the wrong table.
const HOMES: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "listen",
            "public_url",
            "trusted_proxies",
            "trusted_headers",
            "workers",
            "tls",
            "hsts",
            "proxy_protocol",
            "forward_auth",
        ],
    ),
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
