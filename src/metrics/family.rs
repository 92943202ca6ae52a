//! The table of all metrics: name, kind, labels, and what they say.
//!
//! Names and units are by Prometheus's conventions: counters end in `_total`, times are seconds, sizes are bytes.

/// One metric with all its series.
#[derive(Debug)]
pub struct Family {
    /// Its full name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, until the process starts anew.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How many took how long.
    Histogram,
}

impl Kind {
    /// The word for it in a page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family =
                Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All of them, in the order in which they are written.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    REQUESTS = Counter "portcullis_requests_total" ["route", "outcome"]
        "Requests by the route that decided and by what came of them.";
    RESPONSES = Counter "portcullis_responses_total" ["route", "code"]
        "Answers by the route that decided and by the class of their status.";
    GATEWAY_DURATION = Histogram "portcullis_gateway_duration_seconds" ["route"]
        "Time from a request's head to the answer's head that the gateway spent itself, the upstream's not counted.";
    UPSTREAM_DURATION = Histogram "portcullis_upstream_duration_seconds" ["route"]
        "Time from a request's departure to the head of the upstream's answer.";
    LOGINS = Counter "portcullis_logins_total" ["result"]
        "Names and passwords that were judged, by what came of them.";
    PASSWORDS_WAITING = Gauge "portcullis_passwords_waiting" []
        "Passwords that wait for a thread to hash them.";
    PASSWORDS_REJECTED = Counter "portcullis_passwords_rejected_total" []
        "Passwords that were not hashed because too many waited.";
    TOKEN_CACHE_LOOKUPS = Counter "portcullis_token_cache_lookups_total" ["result"]
        "Access tokens looked for among those that verified lately.";
    TOKEN_CACHE_ENTRIES = Gauge "portcullis_token_cache_entries" []
        "Access tokens that verified lately and are remembered.";
    REVOCATIONS = Gauge "portcullis_revocations" []
        "Ended sessions, revoked tokens and signed-out users that are remembered until their last token has expired.";
    ISSUER_KEYS = Gauge "portcullis_issuer_keys" ["issuer"]
        "Keys of another issuer that are in use.";
    ISSUER_KEYS_AGE = Gauge "portcullis_issuer_keys_age_seconds" ["issuer"]
        "Time since another issuer's keys last came; missing until they do.";
    ISSUER_FETCHES = Counter "portcullis_issuer_fetches_total" ["issuer", "result"]
        "Attempts to get another issuer's keys.";
    ISSUER_FETCH_SUCCESSFUL = Gauge "portcullis_issuer_last_fetch_successful" ["issuer"]
        "Whether the last attempt to get another issuer's keys succeeded.";
    STORE_UP = Gauge "portcullis_store_up" []
        "Whether the store answered when its events were last asked for.";
    STORE_STALENESS = Gauge "portcullis_store_staleness_seconds" []
        "Time since what is known of revocations was last brought up to date.";
    RELOADS = Counter "portcullis_reloads_total" ["result"]
        "Attempts to load the configuration anew.";
    RELOAD_SUCCESSFUL = Gauge "portcullis_reload_last_successful" []
        "Whether the last attempt to load the configuration succeeded.";
    RELOAD_TIMESTAMP = Gauge "portcullis_reload_last_success_timestamp_seconds" []
        "When the configuration in force was loaded, in seconds since 1970.";
    UPSTREAM_CONNECTS = Counter "portcullis_upstream_connects_total" ["upstream", "result"]
        "Attempts to open a connection to an upstream.";
    UPSTREAM_ERRORS = Counter "portcullis_upstream_errors_total" ["upstream", "reason"]
        "Requests that got no answer from their upstream.";
    UPSTREAM_CONNECTIONS = Gauge "portcullis_upstream_connections_open" ["upstream"]
        "Open connections to an upstream, unused ones included.";
    UPSTREAM_WAITING = Gauge "portcullis_upstream_requests_waiting" ["upstream"]
        "Requests that wait for their turn at an upstream whose limit of connections is reached.";
    UPSTREAM_RETRIES = Counter "portcullis_upstream_retries_total" ["upstream", "reason"]
        "Requests that were sent again.";
    UPSTREAM_RETRIES_HELD_BACK = Counter "portcullis_upstream_retries_held_back_total" ["upstream"]
        "Requests that were not sent again because too many were already.";
    BACKEND_UP = Gauge "portcullis_backend_up" ["upstream", "server"]
        "Whether requests go to a server: 0 while it fails its checks or is left out.";
    BACKEND_IN_PROGRESS = Gauge "portcullis_backend_requests_in_progress" ["upstream", "server"]
        "Requests in progress at a server.";
    BACKEND_REQUESTS = Counter "portcullis_backend_requests_total" ["upstream", "server"]
        "Requests that were sent to a server, each time counted.";
    BACKEND_EJECTIONS = Counter "portcullis_backend_ejections_total" ["upstream", "server"]
        "How often a server was left out because it failed requests.";
    CONNECTIONS = Gauge "portcullis_connections_open" ["listener"]
        "Open client connections.";
    CONNECTIONS_ACCEPTED = Counter "portcullis_connections_accepted_total" ["listener"]
        "Client connections that were accepted.";
    CONNECTIONS_REFUSED = Counter "portcullis_connections_refused_total" []
        "Client connections that were one too many for server.limits.connections or the open files.";
    TUNNELS = Gauge "portcullis_tunnels_open" []
        "Open WebSockets.";
    TUNNELS_OPENED = Counter "portcullis_tunnels_opened_total" []
        "WebSockets that were opened.";
    CONNECTIONS_UNINTRODUCED = Counter "portcullis_connections_unintroduced_total" ["listener"]
        "Connections of trusted peers that were closed for want of a PROXY header that can be read.";
    HANDSHAKES_FAILED = Counter "portcullis_tls_handshakes_failed_total" ["listener", "reason"]
        "TLS handshakes with clients that came to nothing.";
    CERTIFICATE_EXPIRY = Gauge "portcullis_tls_certificate_expiry_timestamp_seconds" ["file"]
        "When a certificate of the gateway expires, in seconds since 1970.";
    CRL_EXPIRY = Gauge "portcullis_tls_crl_expiry_timestamp_seconds" ["file"]
        "When a list of revoked client certificates is out of date, in seconds since 1970.";
    LINES_DROPPED = Counter "portcullis_access_log_lines_dropped_total" []
        "Access lines that were dropped because the log is slower than the traffic.";
    SPANS_EXPORTED = Counter "portcullis_trace_spans_exported_total" []
        "Spans that the collector took.";
    SPANS_DROPPED = Counter "portcullis_trace_spans_dropped_total" ["reason"]
        "Spans that no collector has got.";
    BUILD = Gauge "portcullis_build_info" ["version"]
        "Always 1; its label says which version runs.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "Processor time of the process, in user and system mode.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space of the process.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "Open file descriptors, sockets included.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "How many file descriptors may be open.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the gateway started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        assert!(ALL.len() > 20);
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name stands there twice");
        for family in ALL {
            assert!(family.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", family.name);
            assert!(family.name.starts_with("portcullis_") || family.name.starts_with("process_"), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            let other_unit = ["_ms", "milliseconds", "minutes", "kilobytes", "_kb", "percent"];
            assert!(!other_unit.iter().any(|unit| family.name.contains(unit)), "{}", family.name);
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\', '"']), "{}", family.name);
            for label in family.labels {
                assert!(!["le", "quantile", "job", "instance"].contains(label), "{}: {label}", family.name);
            }
            if family.kind == Kind::Histogram {
                assert!(family.name.ends_with("_seconds"), "{}", family.name);
            }
        }
    }
}
