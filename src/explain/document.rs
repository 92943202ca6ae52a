//! An explanation as data: what `--json` prints, what a running gateway answers, and what the text is made of.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Why a request may pass or may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Explanation {
    pub method: String,
    pub host: String,
    /// As it came, without the query.
    pub path: String,
    /// As it is matched; `None` where it can't be judged.
    pub canonical: Option<String>,
    pub client: IpAddr,
    pub who: Who,
    /// `allow`, `sign-in`, `deny`, `not-found`, `bad-request`, `own` or `error`.
    pub outcome: String,
    pub code: String,
    pub reason: String,
    pub route: Option<String>,
    pub reading: Option<String>,
    /// What the client gets.
    pub answer: String,
    /// The routes that were asked, in their order, up to the one that decides.
    pub routes: Vec<RouteTried>,
    /// How many more were asked whose path does not match.
    pub routes_left_out: usize,
    /// Whether the route of the path as written has its paths judged under every reading.
    pub reads_all: bool,
    /// Every look that was taken at the path.
    pub readings: Vec<ReadingTried>,
    /// What goes on, where it may pass.
    pub sent: Option<Sent>,
    pub notes: Vec<String>,
    /// What a running gateway remembers of the request.
    pub recorded: Option<Recorded>,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Who {
    pub user: Option<String>,
    /// As `accept` calls it, or `none`.
    pub credential: String,
    /// The issuer that they stand on, where it is another one than this gateway.
    pub issuer: Option<String>,
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    pub methods: Vec<String>,
    pub signed_in_at: Option<String>,
    /// Why the credential does not count.
    pub refused: Option<String>,
}

/// A route that was asked whether it is for the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct RouteTried {
    pub name: String,
    pub matches: bool,
    /// Host, path and method.
    pub conditions: Vec<Condition>,
    /// Each table of its `allow`, where it matches.
    pub allow: Vec<Alternative>,
}

/// One look at the path, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct ReadingTried {
    /// `as-written`, or the reading's name.
    pub reading: String,
    pub path: String,
    pub route: Option<String>,
    pub outcome: String,
    pub reason: String,
    /// Each table of the route's `allow`, where it is another route than that of the path as written.
    pub allow: Vec<Alternative>,
}

/// One table of `allow`, or its one word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Alternative {
    pub outcome: String,
    pub conditions: Vec<Condition>,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Condition {
    pub key: String,
    pub wanted: String,
    pub found: String,
    /// `None`: nobody is there to ask it of.
    pub holds: Option<bool>,
}

/// What goes on to the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Sent {
    pub upstream: String,
    pub servers: Vec<String>,
    /// How one of several servers is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    pub target: String,
    pub removed: Vec<String>,
    pub added: Vec<Header>,
}

/// A header that the gateway sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Header {
    pub name: String,
    pub value: String,
}

/// What a running gateway remembers of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are members of a document that docs/explain.md describes")]
pub struct Recorded {
    pub request_id: String,
    pub time: String,
    pub status: u16,
    pub decision: String,
    pub upstream: Option<String>,
    /// The server that was asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u32,
}
