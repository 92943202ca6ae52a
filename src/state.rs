//! One generation of the configuration, built; and what outlives it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::USER_AGENT;

use crate::access::{Access, Current, People};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::identity::Identity;
use crate::message::cookie::{InvalidCookie, OurCookie};
use crate::message::forwarded::Trust;
use crate::message::head::Head;
use crate::metrics::{self, Metrics};
use crate::observe::access::AccessLog;
use crate::observe::trace::Tracer;
use crate::observe::{Recent, RequestIds, Seldom, Unbelieved};
use crate::secret::Random;
use crate::session::{OwnKeys, Returning, SignIn};
use crate::store::Store;
use crate::throttle::{Rates, Throttle};
use crate::token::Keyring;
use crate::token::foreign::Issuers;
use crate::upstream::Pools;

/// What one configuration comes to. A reload makes a whole new one or changes nothing.
#[derive(Debug)]
pub struct State {
    /// The configuration.
    pub config: Arc<Config>,
    /// Keys of own tokens and of assertions.
    pub keys: Arc<Keyring>,
    /// Whose tokens are accepted beside own ones.
    pub issuers: Arc<Issuers>,
    /// The decisions.
    pub access: Arc<Access>,
    /// Whose forwarded headers are believed.
    pub trust: Trust,
    /// Names of the upstreams, for the log.
    pub upstream_names: Vec<Arc<str>>,
    /// What is counted by route, in the order of the configuration.
    pub route_counts: Vec<Arc<metrics::Route>>,
    /// When the certificates and the lists of revoked ones expire.
    pub certificate_expiries: Vec<Arc<metrics::Gauge>>,
    /// Our cookie.
    pub cookie: OurCookie,
    /// Where a program finds the sign-in.
    pub login_url: String,
    /// Where access lines go.
    pub access_log: AccessLog,
    /// Where spans go; `None`: there are none.
    pub tracer: Option<Tracer>,
    /// What outlives a configuration.
    pub shared: Arc<Shared>,
}

/// What outlives a configuration.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct Shared {
    pub clock: Clock,
    pub random: Random,
    pub store: Store,
    pub own_keys: Arc<OwnKeys>,
    pub people: People,
    pub sign_in: Arc<SignIn>,
    pub throttle: Throttle,
    pub rates: Rates,
    pub returning: Returning,
    /// Where leases find the decisions of later.
    pub current: Arc<Current>,
    /// The access log in force, for whoever opens it anew or counts what it lost.
    pub access_log: Arc<ArcSwap<AccessLog>>,
    pub request_ids: RequestIds,
    pub metrics: Arc<Metrics>,
    /// The upstreams in force, for whoever looks at them.
    pub pools: Pools,
    pub recent: Recent,
    pub unbelieved: Unbelieved,
    pub seldom: Seldom,
}

/// What a [`State`] is built of, beside the configuration and what outlives it.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct Parts {
    pub keys: Arc<Keyring>,
    pub issuers: Arc<Issuers>,
    pub access: Arc<Access>,
    pub access_log: AccessLog,
    pub tracer: Option<Tracer>,
}

impl State {
    /// Builds the state of `config`.
    ///
    /// # Errors
    /// When `[sessions]` names a cookie that no browser would keep.
    pub fn new(config: Arc<Config>, parts: Parts, shared: Arc<Shared>) -> Result<Self, InvalidCookie> {
        let Parts { keys, issuers, access, access_log, tracer } = parts;
        let (sessions, secure) = (&config.sessions, config.server.public_url.https);
        let cookie = OurCookie::new(&sessions.cookie, secure, sessions.domain.as_deref())?;
        let trust = trust(&config.server);
        let login_url = config.server.public_url.origin() + &config.login.path;
        let upstream_names = config.upstreams.iter().map(|upstream| upstream.name.as_str().into()).collect();
        let route_counts = config.routes.iter().map(|route| shared.metrics.routes.find(&route.name)).collect();
        let certificate_expiries = certificate_expiries(&config.server, &shared.metrics);
        Ok(Self {
            config,
            keys,
            issuers,
            access,
            trust,
            upstream_names,
            route_counts,
            certificate_expiries,
            cookie,
            login_url,
            access_log,
            tracer,
            shared,
        })
    }
}

impl State {
    /// A browser has come back with the cookie that it was given a moment ago, and is not waited for any more.
    pub fn note_return(&self, identity: &Identity, head: &Head, headers: &HeaderMap) {
        if identity.signed_in_at.is_some_and(|at| Returning::waits_for(at, head.now)) {
            let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
            self.shared.returning.came(head.client.0, agent);
        }
    }
}

fn certificate_expiries(server: &config::Server, metrics: &Metrics) -> Vec<Arc<metrics::Gauge>> {
    let expiry = |one: config::Dated<'_>| {
        let named = match one.what {
            config::DatedFile::Certificate => &metrics.certificates,
            config::DatedFile::RevocationList => &metrics.revocation_lists,
        };
        let expiry = named.find(&one.file.to_string_lossy());
        expiry.set(one.term.until);
        expiry
    };
    server.tls.dated().map(expiry).collect()
}

fn trust(server: &config::Server) -> Trust {
    let read = server.trusted_headers;
    Trust {
        proxies: server.trusted_proxies.clone(),
        unix: server.trusts_unix,
        x_forwarded_for: read.x_forwarded_for,
        x_forwarded_proto: read.x_forwarded_proto,
        x_forwarded_host: read.x_forwarded_host,
        forwarded: read.forwarded,
    }
}
