//! Peers that send forwarded headers and are not trusted: the proxies that an operator has forgotten to name, and clients
//! who try it. Bounded; told once of each network, and to `portcullis doctor`.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;
use ipnet::IpNet;

use crate::message::forwarded::Trust;
use crate::message::survey::Fields;

/// The first such peers since the start, each with how often.
#[derive(Debug, Default)]
pub struct Unbelieved(Mutex<Vec<(IpAddr, u64)>>);

impl Unbelieved {
    /// What says where a request was forwarded from: without it there is nothing to note.
    pub const SAYING: Fields = Fields::X_FORWARDED_FOR.and(Fields::X_FORWARDED_PROTO).and(Fields::FORWARDED);

    /// Notes a request from `peer`, if it says where it was forwarded from and `trust` does not believe it. The log tells of
    /// the first one of each network.
    pub fn note(&self, trust: &Trust, peer: IpAddr, headers: &HeaderMap) {
        if !Fields::of(headers).may_have(Self::SAYING) || trust.trusts_peer(peer.to_canonical()) {
            return;
        }
        let peer = peer.to_canonical();
        if self.is_news(peer) {
            tracing::warn!(%peer, key = "server.trusted_proxies", "forwarded headers of a peer that is not trusted are ignored: if it is your proxy, name it");
        }
    }

    /// Counts a request from `peer`. Whether it is the first of its network, as far as that is remembered.
    fn is_news(&self, peer: IpAddr) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = seen.iter_mut().find(|(known, _)| *known == peer) {
            *count = count.saturating_add(1);
            return false;
        }
        if seen.len() >= MOST {
            return false;
        }
        let is_news = !seen.iter().any(|(known, _)| network(*known) == network(peer));
        seen.push((peer, 1));
        is_news
    }

    /// Those that `trust` does not believe now either: a reload may have named them.
    pub fn all(&self, trust: &Trust) -> Vec<(IpAddr, u64)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(peer, _)| !trust.trusts_peer(*peer)).copied().collect()
    }
}

/// Whose neighbours are told of with it: proxies of one kind come from one network.
fn network(peer: IpAddr) -> IpNet {
    let bits = if peer.is_ipv4() { 24 } else { 64 };
    IpNet::new_assert(peer, bits).trunc()
}

/// Peers that are remembered: more than there are proxies before a gateway, and few enough to look through.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_first_peers_that_are_not_believed_and_no_more() {
        let trust = Trust { proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Trust::default() };
        let (plain, mut forwarded) = (HeaderMap::new(), HeaderMap::new());
        forwarded.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let unbelieved = Unbelieved::default();
        let note = |peer: &str, headers| unbelieved.note(&trust, peer.parse().unwrap(), headers);
        note("192.0.2.7", &plain);
        note("10.0.0.1", &forwarded);
        assert!(unbelieved.all(&trust).is_empty());
        note("::ffff:192.0.2.7", &forwarded);
        note("192.0.2.7", &forwarded);
        assert_eq!(unbelieved.all(&trust), [("192.0.2.7".parse().unwrap(), 2)]);
        (0..100).for_each(|n| note(&format!("198.51.100.{n}"), &forwarded));
        assert_eq!(unbelieved.all(&trust).len(), MOST);
        let now = Trust { proxies: vec!["192.0.2.7/32".parse().unwrap(), "198.51.100.0/24".parse().unwrap()], ..trust };
        assert!(unbelieved.all(&now).is_empty(), "they are named meanwhile");
    }

    #[test]
    fn tells_once_of_each_network_and_not_without_end() {
        let unbelieved = Unbelieved::default();
        let is_news = |peer: &str| unbelieved.is_news(peer.parse().unwrap());
        let news = ["192.0.2.1", "192.0.2.1", "192.0.2.9", "192.0.3.1", "2001:db8::1", "2001:db8::2"].map(is_news);
        assert_eq!(news, [true, false, false, true, true, false]);
        let more = (0..200).filter(|n| is_news(&format!("10.0.{n}.1"))).count();
        assert_eq!(more, MOST - 5);
    }
}
