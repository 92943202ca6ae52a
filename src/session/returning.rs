//! Browsers that have just signed in and must come back with their cookie: one that comes back to the sign-in page
//! without it would go round in a loop, and is told so instead.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::sha256;
use crate::clock::Timestamp;
use crate::store::Digest;

/// The sign-ins of the last moments, in bounded memory.
#[derive(Debug, Default)]
pub struct Returning {
    waiting: Mutex<VecDeque<(Digest, Timestamp)>>,
    /// How many there are, so that an ordinary request asks for no lock.
    count: AtomicUsize,
}

impl Returning {
    /// A browser has just been given a cookie.
    pub fn expect(&self, client: IpAddr, agent: &str, now: Timestamp) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back((browser(client, agent), now));
        self.count.store(waiting.len(), Ordering::Relaxed);
    }

    /// Whether someone who signed in at `signed_in_at` may be waited for: asked of every request, so it looks at nothing.
    pub fn waits_for(signed_in_at: Timestamp, now: Timestamp) -> bool {
        now.since(signed_in_at) < MOMENT
    }

    /// The browser has come back with its cookie.
    pub fn came(&self, client: IpAddr, agent: &str) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let browser = browser(client, agent);
        waiting.retain(|(other, _)| *other != browser);
        self.count.store(waiting.len(), Ordering::Relaxed);
    }

    /// Whether the browser, which now comes without a cookie, was given one a moment ago and never came back with it.
    pub fn is_missing(&self, client: IpAddr, agent: &str, now: Timestamp) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, at)| now.since(*at) < MOMENT);
        let browser = browser(client, agent);
        let is_missing = waiting.iter().any(|(other, _)| *other == browser);
        // Once is enough: the next visit shows the form again.
        waiting.retain(|(other, _)| *other != browser);
        self.count.store(waiting.len(), Ordering::Relaxed);
        is_missing
    }
}

fn browser(client: IpAddr, agent: &str) -> Digest {
    sha256(format!("{client} {agent}").as_bytes())
}

/// Sign-ins that are remembered at once.
const MOST: usize = 1024;

/// How long after its sign-in a browser is waited for.
const MOMENT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_browser_without_its_cookie_is_noticed_once() {
        let (returning, now) = (Returning::default(), Timestamp::from_secs(100));
        assert!(!returning.is_missing(CLIENT, "x", now));
        returning.expect(CLIENT, "x", now);
        assert!(!returning.is_missing(CLIENT, "y", now));
        assert!(returning.is_missing(CLIENT, "x", now + Duration::from_secs(5)));
        assert!(!returning.is_missing(CLIENT, "x", now + Duration::from_secs(5)));
    }

    #[test]
    fn a_browser_that_came_back_is_not_missing_nor_one_that_came_late() {
        let (returning, now) = (Returning::default(), Timestamp::from_secs(100));
        returning.expect(CLIENT, "x", now);
        returning.came(CLIENT, "x");
        assert!(!returning.is_missing(CLIENT, "x", now));
        returning.expect(CLIENT, "x", now);
        assert!(!returning.is_missing(CLIENT, "x", now + Duration::from_secs(31)));
        assert_eq!(returning.count.load(Ordering::Relaxed), 0);
        assert!(Returning::waits_for(now, now) && !Returning::waits_for(now, now + Duration::from_secs(30)));
    }
}
