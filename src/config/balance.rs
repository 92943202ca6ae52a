//! How requests are spread over the servers of an upstream: `servers` with weights, `balance` and `hash`.

use http::HeaderName;
use toml::Spanned;
use toml::de::DeValue;

use super::address::ServerAddr;
use super::reader::{Context, Item, Written};
use super::upstreams::server;
use super::values::Fault;
use crate::diag::{Diagnostic, quoted};

/// One server of an upstream and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedServer {
    /// Its place in the network.
    pub address: ServerAddr,
    /// Its share beside the others': one of 2 gets twice what one of 1 gets.
    pub weight: u32,
}

/// Which of an upstream's servers a request goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest requests in progress for its weight.
    #[default]
    LeastRequests,
    /// One after the other.
    RoundRobin,
    /// The less loaded of two that are drawn.
    RandomTwo,
    /// Always the same one for the same key.
    Hash(HashBy),
}

/// What a request's server is chosen by. Where a request has none of it, the client's network counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashBy {
    /// The client's network: an IPv4 address, or the /64 around an IPv6 address.
    #[default]
    Client,
    /// Who is signed in.
    User,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie of the application's.
    Cookie(String),
}

impl Balance {
    /// As it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LeastRequests => "least-requests",
            Self::RoundRobin => "round-robin",
            Self::RandomTwo => "random-two",
            Self::Hash(_) => "hash",
        }
    }
}

impl std::fmt::Display for HashBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::User => f.write_str("user"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// `balance` as written, without what it is hashed by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    LeastRequests,
    RoundRobin,
    RandomTwo,
    Hash,
}

pub(super) const WORDS: &[(&str, Word)] = &[
    ("least-requests", Word::LeastRequests),
    ("round-robin", Word::RoundRobin),
    ("random-two", Word::RandomTwo),
    ("hash", Word::Hash),
];

/// `servers` as written.
pub(super) fn servers(item: &Item<'_>) -> Vec<Written<WeightedServer>> {
    let Some(list) = item.list() else { return Vec::new() };
    if list.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "an upstream needs a server").at(list.span());
        item.cx.report(finding.help("add one, such as \"http://127.0.0.1:3000\""));
    }
    let servers: Vec<Written<WeightedServer>> = list.get_ref().iter().filter_map(weighted).collect();
    for (at, one) in servers.iter().enumerate() {
        let address = &one.get_ref().address;
        if let Some(first) = servers[..at].iter().find(|first| first.get_ref().address == *address) {
            let finding = Diagnostic::error("duplicate-value", "this server is written twice").at(one.span());
            let finding = finding.also(first.span(), "the first time");
            item.cx.report(finding.help("keep one, as { url = \"…\", weight = 2 } if it is to get more than others"));
        }
    }
    servers
}

/// A URL, or a table of it and its weight.
fn weighted(item: &Item<'_>) -> Option<Written<WeightedServer>> {
    let alone = |address: Written<ServerAddr>| {
        Spanned::new(address.span(), WeightedServer { address: address.into_inner(), weight: 1 })
    };
    match item.value.get_ref() {
        DeValue::Table(table) if !table.keys().any(|key| key.get_ref() == "env") => {
            let mut table = item.table("upstreams.servers")?;
            table.require("url", "add url = \"http://127.0.0.1:3000\"");
            let address = table.take("url").and_then(|item| server(&item));
            let weight = table.take("weight").map(|item| item.count(1, MOST_WEIGHT));
            table.finish();
            let mut server = alone(address?);
            if let Some(weight) = weight {
                server.get_mut().weight = u32::try_from(weight?.into_inner()).unwrap_or(1);
            }
            Some(server)
        }
        _ => server(item).map(alone),
    }
}

/// What `balance` and `hash` come to.
pub(super) fn resolve(cx: &Context<'_>, word: Option<Written<Word>>, by: Option<Written<HashBy>>) -> Balance {
    match (word.map(Spanned::into_inner), by) {
        (Some(Word::Hash), by) => Balance::Hash(by.map(Spanned::into_inner).unwrap_or_default()),
        (word, by) => {
            if let Some(by) = by {
                let message = "`hash` says what is hashed, but `balance` is not \"hash\"";
                let finding = Diagnostic::error("conflicting-keys", message).at(by.span());
                cx.report(finding.help("write balance = \"hash\" beside it, or remove it"));
            }
            match word {
                Some(Word::RoundRobin) => Balance::RoundRobin,
                Some(Word::RandomTwo) => Balance::RandomTwo,
                Some(Word::LeastRequests | Word::Hash) | None => Balance::LeastRequests,
            }
        }
    }
}

/// `"client"`, `"user"`, `"header:X-Tenant"`, `"cookie:JSESSIONID"`
pub(super) fn hash_by(text: &str) -> Result<HashBy, Fault> {
    let fault = |message: String| {
        let help = "write \"client\", \"user\", \"header:X-Tenant\" or \"cookie:JSESSIONID\"";
        Fault::new(message, "nothing to hash by", help)
    };
    match (text, text.split_once(':')) {
        ("client", _) => Ok(HashBy::Client),
        ("user", _) => Ok(HashBy::User),
        (_, Some(("header", name))) => {
            let header = name.parse().map_err(|_| fault(format!("{} is not a header's name", quoted(name))))?;
            Ok(HashBy::Header(header))
        }
        (_, Some(("cookie", name))) => {
            // RFC 6265 section 4.1.1: a cookie's name is a token, as a header's is.
            let is_token = HeaderName::from_bytes(name.as_bytes()).is_ok();
            is_token
                .then(|| HashBy::Cookie(name.to_owned()))
                .ok_or_else(|| fault(format!("{} is not a cookie's name", quoted(name))))
        }
        _ => Err(fault(format!("{} is nothing that a request has", quoted(text)))),
    }
}

/// The largest weight of a server.
const MOST_WEIGHT: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_is_written_as_it_is_shown() {
        for text in ["client", "user", "header:x-tenant", "cookie:JSESSIONID"] {
            assert_eq!(hash_by(text).unwrap().to_string(), text);
        }
        for text in ["", "User", "header", "header:", "header:a b", "cookie:", "cookie:a=b", "path"] {
            assert!(hash_by(text).is_err(), "{text}");
        }
    }
}
