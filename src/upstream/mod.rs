//! Where requests go: named upstreams, their servers, and the connections to them.
//!
//! A [`Pool`] is an upstream and a [`Backend`] one of its servers, both shared by all workers; an [`Upstream`] is a worker's
//! own client of a pool, with a [`Lane`] to each server. `balance` says which server is next, `health` which are well,
//! `check` asks them, `budget` holds back what is sent again, `race` tries the addresses of a name.

mod answer;
mod backend;
mod balance;
mod budget;
mod check;
mod chunks;
mod connect;
mod dns;
mod exchange;
pub mod fetch;
mod flight;
mod health;
mod http1;
mod interim;
mod multiplex;
mod pool;
mod race;
mod send;
mod stream;
mod tls;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::{Authority, InvalidUri, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

pub use backend::{Admission, Backend};
pub use budget::Budget;
pub use check::Checkers;
pub use connect::{ConnectError, Stale};
pub use health::{Checked, Health, Standing};
pub use pool::{Caller, NoTurn, Pool, Turn, order};
pub(crate) use send::{SendError, beneath};
pub use tls::{TlsFault, verify};

use crate::config::ServerAddr;
use crate::message::added::Added;
use crate::message::body::{Body, Cut, Source};
use crate::message::framed::Framed;
use crate::message::survey::Fields;
use answer::Answer;
use exchange::Rest;
use send::Sender;

/// The upstreams of the configuration in force, for whoever looks at them from outside.
#[derive(Debug, Default)]
pub struct Pools(ArcSwap<Vec<Arc<Pool>>>);

impl Pools {
    /// Those in force, in the order of the configuration.
    pub fn load(&self) -> Arc<Vec<Arc<Pool>>> {
        self.0.load_full()
    }

    /// From now on these are in force.
    pub fn replace(&self, pools: Arc<Vec<Arc<Pool>>>) {
        self.0.store(pools);
    }
}

/// One worker's client of an upstream.
#[derive(Debug)]
pub struct Upstream {
    pool: Arc<Pool>,
    lanes: Vec<Arc<Lane>>,
}

/// One worker's connections to one server.
#[derive(Debug)]
pub struct Lane {
    backend: Arc<Backend>,
    sender: Sender,
}

impl Upstream {
    /// A client of `pool` for one of `workers` workers. `former` finds the lanes that it has already.
    pub fn new(pool: Arc<Pool>, workers: usize, former: impl Fn(&Arc<Backend>) -> Option<Arc<Lane>>) -> Self {
        let lane = |backend: &Arc<Backend>| {
            let idle = backend.idle_limit().div_ceil(workers.max(1));
            former(backend).unwrap_or_else(|| Arc::new(Lane::new(Arc::clone(backend), idle)))
        };
        Self { lanes: pool.backends().map(lane).collect(), pool }
    }

    /// The upstream behind it.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The connections to each server, in the order of the configuration.
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }
}

impl Lane {
    /// Connections to `backend`, of which `idle` are kept unused.
    fn new(backend: Arc<Backend>, idle: usize) -> Self {
        let sender = Sender::new(&backend, idle);
        Self { backend, sender }
    }

    /// The server at its end.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Sends `outgoing` over a connection that is there or a new one.
    pub(crate) async fn send(&self, outgoing: Outgoing<'_>) -> Result<Reply, SendError> {
        self.sender.send(outgoing).await
    }
}

/// A request on its way to a server. Its target is in origin form.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a PathAndQuery,
    pub(crate) headers: &'a mut HeaderMap,
    /// What goes with them.
    pub(crate) added: &'a Added,
    /// Whether they ask for another protocol.
    pub(crate) switches: bool,
    /// Whether the fields stay where they are, as they may be sent once more.
    pub(crate) is_kept: bool,
    pub(crate) body: Body,
    /// When it is sent. Connections that wait for a request are judged by it.
    pub(crate) now: &'a Instant,
}

impl Outgoing<'_> {
    /// The same as others have it.
    fn into_request(self) -> Request<Body> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = if self.is_kept { self.headers.clone() } else { std::mem::take(self.headers) };
        self.added.copy_into(request.headers_mut());
        request
    }
}

/// The head of an answer, and its body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: Response<()>,
    /// What its head may have.
    pub(crate) fields: Fields,
    /// What its head says of its body.
    pub(crate) framed: Framed,
    pub(crate) came: Came,
    /// When its head was there.
    pub(crate) back: Instant,
}

/// The body of an answer.
pub(crate) enum Came {
    /// All of it is there.
    Whole(Bytes),
    /// It is read as it comes.
    Coming(Box<dyn Source>),
}

impl Reply {
    fn new(answer: Answer, rest: Rest, back: Instant) -> Self {
        let came = match rest {
            Rest::Whole(body) => Came::Whole(body),
            Rest::Coming(coming) => Came::Coming(Box::new(coming)),
        };
        let Answer { head, fields, framed, .. } = answer;
        Self { head, fields, framed, came, back }
    }

    /// One that hyper has read, whose connection has a task of its own; with its place there, where many share it.
    fn streamed(answer: Response<Incoming>, turn: Option<multiplex::Turn>) -> Self {
        let (head, body) = answer.into_parts();
        let came = Came::Coming(Box::new(Streamed { body, _turn: turn }));
        let (fields, framed) = (Fields::of(&head.headers), Framed::of(&head.headers));
        Self { head: Response::from_parts(head, ()), fields, framed, came, back: Instant::now() }
    }
}

impl fmt::Debug for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Coming(_) => "Coming",
        })
    }
}

/// The body of an answer over a connection that has a task of its own.
struct Streamed {
    body: Incoming,
    _turn: Option<multiplex::Turn>,
}

impl Source for Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why nothing can be sent to a server.
#[derive(Debug)]
pub enum BackendFault {
    /// It can't stand in a URI.
    Address(InvalidUri),
    /// No TLS can come about.
    Tls(TlsFault),
}

impl fmt::Display for BackendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(source) => write!(f, "not an address: {source}"),
            Self::Tls(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for BackendFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(source) => Some(source),
            Self::Tls(source) => Some(source),
        }
    }
}

/// The authority of a server in a URI. A socket has none, and nobody sees the one that stands for it.
pub(crate) fn authority(server: &ServerAddr) -> Result<Authority, InvalidUri> {
    server.host_port().map_or_else(|| "localhost".to_owned(), ToString::to_string).parse()
}

/// What may be buffered of an answer; also the most that its head may have.
const BUFFER: usize = 64 * 1024;

/// The longest that a request waits for its turn, whatever the upstream's timeouts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
