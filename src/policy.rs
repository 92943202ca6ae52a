//! Who may: the `allow` of a route, judged over plain facts. Pure; knows nothing of HTTP or tokens.

mod conditions;
mod evaluate;
mod outcome;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::clock::Timestamp;

pub use conditions::{Alternative, Condition};
pub use evaluate::claim;
pub use outcome::Outcome;

/// What a route's `allow` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// Everyone, signed in or not.
    Anyone,
    /// Everyone who is signed in.
    SignedIn,
    /// No one.
    Nobody,
    /// Whoever satisfies one of these. Never empty.
    AnyOf(Vec<Rule>),
}

impl Policy {
    /// Whether anyone at `client` could be let in, whoever they are.
    pub fn takes_some_of(&self, client: IpAddr) -> bool {
        let covers = |networks: &Vec<IpNet>| networks.iter().any(|network| network.contains(&client));
        match self {
            Self::Anyone | Self::SignedIn => true,
            Self::Nobody => false,
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.from.as_ref().is_none_or(covers)),
        }
    }
}

/// One table of `allow`: all that it names must hold; within a list one match is enough.
/// `None` means that the key is not written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// `anyone = true`: no sign-in is asked for (only `from` may stand beside it).
    pub anyone: bool,
    /// Names of users, lower-case where local.
    pub users: Option<Vec<String>>,
    /// Groups.
    pub groups: Option<Vec<String>>,
    /// Scopes, all of which are needed.
    pub scopes: Option<Vec<String>>,
    /// Dotted claim path and the values that match.
    pub claims: Option<Vec<(String, Vec<Value>)>>,
    /// Client networks.
    pub from: Option<Vec<IpNet>>,
    /// How the person signed in: `"password"`, `"basic"`, …
    pub methods_of_sign_in: Option<Vec<String>>,
    /// How long ago the password was given, at most.
    pub signed_in_within: Option<Duration>,
}

/// What is known of a request when it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The time.
    pub now: Timestamp,
    /// Who is there; `None`: nobody is signed in.
    pub person: Option<Person<'a>>,
}

/// Who is there.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// Their name.
    pub user: &'a str,
    /// Their groups, as they are now.
    pub groups: &'a [String],
    /// Scopes of the credential.
    pub scopes: &'a [String],
    /// Claims of the token; empty behind a cookie.
    pub claims: &'a Map<String, Value>,
    /// How they signed in.
    pub methods: &'a [String],
    /// When the password was given; `None` where that is not known.
    pub signed_in_at: Option<Timestamp>,
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// Nobody is there, and someone who signs in could satisfy the rule.
    SignIn {
        /// Whether a password on the sign-in page could do.
        by_password: bool,
    },
    /// Someone is there, and only the age or the kind of their sign-in falls short: a new one would do.
    StepUp,
    /// No sign-in of theirs could satisfy the rule.
    Deny(Refused),
}

/// What a rule refused by; where there are several rules, what the first of them refused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The rule lets nobody in.
    Nobody,
    /// The client's address.
    Network,
    /// The user.
    User,
    /// Their groups.
    Group,
    /// The scopes of their credential.
    Scope,
    /// The claims of their token.
    Claim,
    /// How they signed in.
    Method,
    /// How long ago they signed in.
    Age,
}

impl Refused {
    /// A stable word for logs and explanations.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Network => "network",
            Self::User => "user",
            Self::Group => "group",
            Self::Scope => "scope",
            Self::Claim => "claim",
            Self::Method => "method-of-sign-in",
            Self::Age => "age-of-sign-in",
        }
    }

    /// The key of `allow` that asks for it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Nobody => "allow",
            Self::Network => "from",
            Self::User => "users",
            Self::Group => "groups",
            Self::Scope => "scopes",
            Self::Claim => "claims",
            Self::Method => "methods_of_sign_in",
            Self::Age => "signed_in_within",
        }
    }
    /// In words.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Nobody => "the route lets nobody in",
            Self::Network => "the client's address is in none of the networks of `from`",
            Self::User => "the user is none of `users`",
            Self::Group => "the user is in none of `groups`",
            Self::Scope => "the credential lacks one of `scopes`",
            Self::Claim => "the token lacks one of `claims`",
            Self::Method => "the way of signing in is none of `methods_of_sign_in`",
            Self::Age => "the sign-in is older than `signed_in_within`",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}
