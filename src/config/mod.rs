//! The configuration as the gateway uses it: checked, every name resolved, unable to hold a bad value.
//!
//! `load` reads the file; `parse` makes `raw` from its text, which is the file as written with the places of all
//! values; `resolve` turns that into the types here. Each section has a file of its own with both of its shapes.

mod address;
mod allow;
mod balance;
mod beside;
pub mod changes;
mod clients;
mod facts;
mod forward_auth;
mod halves;
mod health;
mod identity;
mod include;
mod issuers;
mod later;
mod load;
mod meaning;
mod modes;
mod no_store;
mod order;
mod parse;
mod pem;
mod place;
mod raw;
mod reader;
mod resolve;
mod retries;
mod routes;
mod secrets;
mod server;
mod service;
mod show;
mod sign_in;
mod test_cases;
mod tls;
mod tokens;
mod trace;
mod upstream_tls;
mod upstreams;
mod url;
mod users;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::diag::Span;
use crate::message::headers::IdentityNames;
use crate::secret::Secret;

pub use address::{HostPort, ServerAddr};
pub use allow::{Mention, Mentioned};
pub use balance::{Balance, HashBy, WeightedServer};
pub use changes::Changes;
pub use clients::{Clients, Revoked};
pub use facts::{CertificateFacts, DatedFacts, Facts, ServerFacts};
pub use forward_auth::ForwardAuth;
pub use health::{Check, Ejection, Health};
pub use issuers::is_key_url;
pub use load::{Loaded, control_socket, find_config_file, load, load_text};
pub use place::{Address, UnixPlace};
pub use reader::Env;
pub use retries::Retries;
pub use routes::{
    Accept, AllowedOrigins, Cors, CorsRules, Destination, HeaderEdits, PathChange, Per, RateLimit, Readings, Redirect,
    Respond, RespondBody, Route, Unauthenticated,
};
pub use server::{Limits, Listen, PublicUrl, Server, TrustedHeaders};
pub use service::filter_fault as log_filter_fault;
pub use show::{HIDDEN, Show};
pub use test_cases::{Expected, Invented, Test};
pub use tls::{Certificate, Dated, DatedFile, Tls};
pub use upstream_tls::{Certificates, ClientCertificate, UpstreamTls};
pub use upstreams::{Timeouts, Upstream, UpstreamLimits};
pub use users::UserFile;
pub use values::parse_duration;

/// A whole configuration, ready to build a gateway from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from, for messages.
    pub file: PathBuf,
    /// That one and every other that it was made of.
    pub files: Vec<PathBuf>,
    /// Those of them that have secrets, keys or accounts in them.
    pub secret_files: Vec<PathBuf>,
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: Log,
    /// `[trace]`; `None`: no spans.
    pub trace: Option<Trace>,
    /// `[store]`
    pub store: Store,
    /// `[tokens]`
    pub tokens: Tokens,
    /// `[sessions]`
    pub sessions: Sessions,
    /// `[login]`
    pub login: Login,
    /// `[identity]`: what the application is told where a route has no override.
    pub identity: Arc<Identity>,
    /// Every name that only the gateway may send: of `[identity]`, of every route's override, and the fixed list.
    pub guarded: Arc<IdentityNames>,
    /// Every name by which any route tells who is there, or strips.
    pub told: Arc<[HeaderName]>,
    /// `[[issuers]]`: whose tokens are accepted beside own ones.
    pub issuers: Vec<Arc<Issuer>>,
    /// `[upstreams]`, in the order written; a route names one by its index.
    pub upstreams: Vec<Arc<Upstream>>,
    /// `[[routes]]`, in the order in which they are tried.
    pub routes: Vec<Arc<Route>>,
    /// Where each of them is written, for findings about it.
    pub route_places: Vec<Span>,
    /// `[[tests]]`
    pub tests: Vec<Test>,
    /// Whom rules name, and where.
    pub mentions: Vec<Mention>,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub listen: Option<AdminListen>,
    /// The control socket's path; `None`: there is none, as there is no store that it could stand beside.
    pub control: Option<PathBuf>,
}

/// An address of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// `host:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// A `tracing` filter.
    pub level: String,
    /// Text or JSON, for the log and for the access log.
    pub format: LogFormat,
    /// Where access lines go.
    pub access: AccessLog,
}

/// `[trace]`
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Who takes spans as OTLP over HTTP.
    pub collector: HostPort,
    /// Whether over TLS.
    pub https: bool,
    /// Certificates that it is believed by, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Which share of the traces that begin here is recorded, from 0 to 1.
    pub sample: f64,
    /// The name that spans carry.
    pub service: String,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, opened for appending.
    File(PathBuf),
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct Store {
    /// Which store.
    pub kind: StoreKind,
    /// Read-only accounts beside the store's own.
    pub users: Option<UserFile>,
    /// How long verified credentials keep working while revocations can't be read.
    pub max_staleness: Duration,
}

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// None: only tokens of other issuers count.
    None,
}

impl Store {
    /// The file of the store; `None`: there is no store.
    pub fn file(&self) -> Option<&Path> {
        match &self.kind {
            StoreKind::Sqlite(path) => Some(path),
            StoreKind::None => None,
        }
    }
}

/// `[tokens]`
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// The `iss` of own tokens.
    pub issuer: String,
    /// The `aud` of own tokens.
    pub audience: String,
    /// What own tokens are signed with.
    pub algorithm: Algorithm,
    /// How long an access token lives.
    pub lifetime: Duration,
    /// Slack for `exp`.
    pub leeway: Duration,
    /// A token that claims to live longer is refused.
    pub max_lifetime: Duration,
    /// Where the keys come from.
    pub keys: KeySource,
}

/// A JWS algorithm of RFC 7518 or RFC 8037 that own tokens may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the registered ones")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Where signing keys come from. In a list the first signs and all verify.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// Made on first start and kept in the store.
    Store,
    /// Shared secrets (HS*), each at least as long as the hash.
    Shared(Vec<Secret<Vec<u8>>>),
    /// PEM private keys, each already known to be of the algorithm's kind.
    Pem(Vec<Secret<Vec<u8>>>),
}

/// One of `[[issuers]]`: someone else whose tokens are accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    /// Its name in the file.
    pub name: Arc<str>,
    /// What its tokens say in `iss`, to the letter.
    pub issuer: String,
    /// What they say in `aud`: one of these, at least one.
    pub audience: Vec<String>,
    /// Where its keys come from.
    pub keys: IssuerKeys,
    /// What they may be signed with: shared secrets only with `HS*`, public keys only with the others.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the person, as a dotted path.
    pub user: String,
    /// The claim with their groups, as a dotted path.
    pub groups: String,
    /// What a local account of the same name means.
    pub accounts: Accounts,
    /// Put before the person's name.
    pub user_prefix: String,
    /// Put before each group.
    pub group_prefix: String,
    /// How names of other issuers' people begin that begin as these do: nobody of this one has such a name.
    pub others_users: Vec<String>,
    /// The same of groups.
    pub others_groups: Vec<String>,
    /// Slack for `exp`.
    pub leeway: Duration,
    /// A token that claims to live longer is refused.
    pub max_lifetime: Duration,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq)]
pub enum IssuerKeys {
    /// A JWK Set (RFC 7517) at this URL.
    Url {
        /// `https`, or `http` to this machine.
        url: String,
        /// Certificates that its server is believed by, in place of the system's.
        ca: Option<PathBuf>,
    },
    /// What its discovery document names (OpenID Connect Discovery 1.0 section 4).
    Discovery {
        /// As above.
        ca: Option<PathBuf>,
    },
    /// A file with a JWK Set, read anew when it changes.
    File(PathBuf),
    /// Secrets that it shares with the gateway; all verify.
    Shared(Vec<Secret<Vec<u8>>>),
}

/// What a local account means that has the name of someone whom another issuer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// Another person: their token is refused.
    Separate,
    /// The same person: the account's state and groups count.
    Shared,
}

/// Whose tokens a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuers {
    /// This gateway's and those of every issuer.
    All,
    /// Only these.
    These {
        /// Whether this gateway is one of them.
        own: bool,
        /// Indices of `[[issuers]]`.
        others: Vec<usize>,
    },
}

impl Issuers {
    /// The same without this gateway, where `count` others are known.
    fn without_own(self, count: usize) -> Self {
        match self {
            Self::All => Self::These { own: false, others: (0..count).collect() },
            Self::These { others, .. } => Self::These { own: false, others },
        }
    }

    /// Whether tokens of `issuer` are taken; `None` is this gateway.
    pub fn take(&self, issuer: Option<usize>) -> bool {
        match (self, issuer) {
            (Self::All, _) => true,
            (Self::These { own, .. }, None) => *own,
            (Self::These { others, .. }, Some(index)) => others.contains(&index),
        }
    }
}

/// `[sessions]`
#[derive(Clone, Debug)]
pub struct Sessions {
    /// How long a session lives at most.
    pub lifetime: Duration,
    /// How long it lives unused.
    pub idle: Duration,
    /// What replaces both for someone who asked to be remembered.
    pub remember: Duration,
    /// The cookie's full name, prefix included.
    pub cookie: String,
    /// The `Domain` attribute.
    pub domain: Option<String>,
}

/// `[login]`
#[derive(Clone, Debug)]
pub struct Login {
    /// In normal form, beginning with `/`.
    pub path: String,
    /// In normal form, beginning with `/`.
    pub logout_path: String,
    /// What the sign-in page is headed.
    pub title: String,
    /// The status for wrong credentials: 400, 401 or 403.
    pub failure_status: http::StatusCode,
    /// The text for wrong credentials.
    pub failure_detail: String,
}

/// `[identity]`: under which names the application is told who is there. `None`: not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: Option<HeaderName>,
    /// Their groups, joined by commas.
    pub groups: Option<HeaderName>,
    /// Their e-mail address.
    pub email: Option<HeaderName>,
    /// Their full name.
    pub name: Option<HeaderName>,
    /// Header name and dotted path of the claim.
    pub claims: Vec<(HeaderName, String)>,
    /// A signed token that says all of it; `None`: no application is sent one.
    pub assertion: Option<HeaderName>,
    /// More names that only the gateway may send.
    pub strip: Vec<HeaderName>,
}

impl Identity {
    /// All of its names: what only the gateway may send.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        identity::names(self)
    }
}
