//! What is learned about a request along its way, until it is written as one access line.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::id::RequestId;
use super::trace::{Recording, TraceId};
use crate::access::{Asker, Reason};
use crate::clock::Timestamp;
use crate::config::Route;
use crate::message::head::Head;
use crate::message::path::Reading;
use crate::message::rejection::Blame;
use crate::metrics::Outcome;

/// Everything that an access line says.
#[derive(Clone, Debug)]
pub struct Record {
    /// Stands in the answer, the log and behind `portcullis why`.
    pub request_id: RequestId,
    /// When the head was whole.
    pub time: Timestamp,
    /// The same moment, for durations.
    pub started: Instant,
    /// The client, after trusted proxies were looked through.
    pub client: IpAddr,
    /// As it was sent.
    pub method: Method,
    /// What was asked for.
    pub page: Page,
    /// What was answered.
    pub status: StatusCode,
    /// Who was there.
    pub user: User,
    /// The route that decided.
    pub route: Option<Arc<str>>,
    /// Its place in the configuration.
    pub route_index: Option<usize>,
    /// `permit`, `challenge`, `deny`, `rate-limited`, `not-found`, `bad-request`, `own`, `error`.
    pub decision: &'static str,
    /// Whose fault it is that a request that was let through got no answer.
    pub fault: Option<Blame>,
    /// A stable word for why; empty where the gateway's own pages have only a sentence.
    pub code: &'static str,
    /// Why, in the words of the rules.
    pub reason: Cow<'static, str>,
    /// Under which reading of the path it was refused.
    pub reading: Option<Reading>,
    /// Who asked, as the rules saw them. Never written down.
    pub asker: Asker,
    /// What would have been decided, had the route not only been observed.
    pub observed: Option<&'static str>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Until the last byte.
    pub duration: Duration,
    /// From the request's departure to the head of the upstream's answer.
    pub upstream_time: Option<Duration>,
    /// The upstream's name.
    pub upstream: Option<Arc<str>>,
    /// The address of the server that was asked last.
    pub server: Option<Arc<str>>,
    /// How often it was sent there and elsewhere.
    pub tries: u32,
    /// The trace that it is part of.
    pub trace: Option<TraceId>,
    /// Its spans, where it is recorded.
    pub recording: Option<Box<Recording>>,
}

/// Host and path of a request. Those of one that is judged stand in its head, and are shared with it.
#[derive(Clone, Debug)]
pub enum Page {
    /// As its head has them.
    Judged(Arc<Head>),
    /// In other words than a head has, or without one.
    Written {
        /// The one host, or nothing when the request had none.
        host: String,
        /// The path as it came, without the query.
        path: String,
    },
}

/// Who was there.
#[derive(Clone, Debug, Default)]
pub enum User {
    /// Nobody whose name is known.
    #[default]
    Nobody,
    /// Whoever asked.
    Asker,
    /// Someone of this name.
    Named(String),
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Until the last byte.
    pub duration: Duration,
    /// From the request's departure to the head of the upstream's answer.
    pub upstream_time: Option<Duration>,
    /// Whether the answer broke off.
    pub is_cut: bool,
}

impl Ending {
    /// The end of `record`, which is whole.
    pub const fn of(record: &Record) -> Self {
        let Record { bytes_in, bytes_out, duration, upstream_time, .. } = *record;
        Self { bytes_in, bytes_out, duration, upstream_time, is_cut: false }
    }
}

impl Page {
    /// The page of `head`, whose path came as `path`.
    pub fn of(head: &Arc<Head>, path: &str) -> Self {
        if head.path.forwarded() == path {
            return Self::Judged(Arc::clone(head));
        }
        Self::Written { host: head.host.name().to_owned(), path: path.to_owned() }
    }

    /// The one host, or nothing when the request had none.
    pub fn host(&self) -> &str {
        match self {
            Self::Judged(head) => head.host.name(),
            Self::Written { host, .. } => host,
        }
    }

    /// The path as it came, without the query.
    pub fn path(&self) -> &str {
        match self {
            Self::Judged(head) => head.path.forwarded(),
            Self::Written { path, .. } => path,
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::Written { host: String::new(), path: String::new() }
    }
}

impl From<Option<String>> for User {
    fn from(name: Option<String>) -> Self {
        name.map_or(Self::Nobody, Self::Named)
    }
}

impl Record {
    /// The record, in whose place a blank one is left.
    pub fn take(&mut self) -> Self {
        let left = blank(self.request_id, self.client, (self.time, self.started));
        std::mem::replace(self, left)
    }

    /// Who was there.
    pub fn user(&self) -> Option<&str> {
        match &self.user {
            User::Nobody => None,
            User::Asker => self.asker.identity.as_ref().map(|identity| identity.profile.user.as_str()),
            User::Named(name) => Some(name),
        }
    }

    /// Notes why the request came out as it did.
    pub fn because(&mut self, reason: Reason, reading: Option<Reading>) {
        self.code = reason.code();
        self.reading = reading;
        self.reason = match reading {
            None => reason.sentence(),
            Some(reading) => format!("{reason}, read with {}", reading.name()).into(),
        };
    }

    /// `route` has decided.
    pub fn decided_by(&mut self, route: &Route) {
        self.route = Some(Arc::clone(&route.name));
        self.route_index = Some(route.index);
    }

    /// What came of the request, for metrics and spans.
    pub fn outcome(&self) -> Outcome {
        match (self.fault, self.decision) {
            (None, "permit") => Outcome::Permit,
            (Some(Blame::Upstream), _) => Outcome::UpstreamError,
            (Some(Blame::Client), _) | (_, "bad-request") => Outcome::BadRequest,
            (Some(Blame::Gateway), _) => Outcome::Error,
            (None, "challenge") => Outcome::Challenge,
            (None, "deny") => Outcome::Deny,
            (None, "rate-limited") => Outcome::RateLimited,
            (None, "not-found") => Outcome::NotFound,
            (None, "own") => Outcome::Own,
            (None, _) => Outcome::Error,
        }
    }
}

/// The record of a request of which nothing is known but when and where it came from.
pub fn blank(request_id: RequestId, client: IpAddr, (time, started): (Timestamp, Instant)) -> Record {
    Record {
        request_id,
        time,
        started,
        client,
        method: Method::default(),
        page: Page::default(),
        status: StatusCode::OK,
        user: User::Nobody,
        route: None,
        route_index: None,
        decision: "error",
        fault: None,
        code: "",
        reason: Cow::Borrowed(""),
        reading: None,
        asker: Asker::default(),
        observed: None,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::ZERO,
        upstream_time: None,
        upstream: None,
        server: None,
        tries: 0,
        trace: None,
        recording: None,
    }
}

/// A record for tests.
#[cfg(test)]
pub(super) fn blank_for_tests() -> Record {
    Record {
        request_id: super::id::numbered(0x0123),
        time: Timestamp::from_millis(1_700_000_000_123),
        started: Instant::now(),
        client: [127, 0, 0, 1].into(),
        method: Method::GET,
        page: Page::Written { host: "apps.example.com".to_owned(), path: "/a".to_owned() },
        status: StatusCode::OK,
        user: User::Named("alice".to_owned()),
        route: Some("rest".into()),
        route_index: Some(2),
        decision: "permit",
        fault: None,
        code: "signed-in",
        reason: "signed in".into(),
        reading: None,
        asker: Asker::default(),
        observed: None,
        bytes_in: 0,
        bytes_out: 12,
        duration: Duration::from_micros(1500),
        upstream_time: Some(Duration::from_micros(1200)),
        upstream: Some("app".into()),
        server: Some("10.0.0.1:9000".into()),
        tries: 2,
        trace: None,
        recording: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, Profile};
    use crate::message::forwarded::ClientAddr;
    use crate::message::host::Host;
    use crate::message::path::RequestPath;

    #[test]
    fn a_path_is_told_as_it_came_whatever_goes_on() {
        for (path, goes_on) in [("/a/b", "/a/b"), ("/%61|", "/a%7C"), ("/%2F", "/%2F")] {
            let head = Arc::new(Head {
                method: Method::GET,
                host: Host::parse(b"Apps.Example.com:80").unwrap(),
                path: RequestPath::parse(path).unwrap(),
                query: Some("secret".to_owned()),
                client: ClientAddr([127, 0, 0, 1].into()),
                https: false,
                certificate: None,
                now: Timestamp::default(),
                started: Instant::now(),
            });
            let page = Page::of(&head, path);
            assert_eq!((page.host(), page.path(), head.path.forwarded()), ("apps.example.com", path, goes_on));
            assert_eq!(matches!(page, Page::Judged(_)), path == goes_on, "{path}");
        }
    }

    #[test]
    fn whoever_asked_is_named_only_where_they_were_let_be_someone() {
        let identity = Identity {
            profile: Arc::new(Profile::new("bob", &[], None, None).unwrap()),
            scopes: Vec::new(),
            claims: Arc::default(),
            methods: Vec::new(),
            signed_in_at: None,
            session: None,
        };
        let mut record = Record { user: User::Nobody, ..blank_for_tests() };
        record.asker.identity = Some(Arc::new(identity));
        assert_eq!(record.user(), None);
        record.user = User::Asker;
        assert_eq!(record.user(), Some("bob"));
        record.user = Some("eve".to_owned()).into();
        assert_eq!(record.user(), Some("eve"));
    }
}
