//! The addresses of a server's name: looked up anew all the time, one look-up at a time, all addresses in turn.
//!
//! The system's resolver blocks, without a deadline. It runs on a thread of its own, which is left to itself when whoever
//! waits has waited long enough, so that one that hangs costs one thread for each name and not the runtime's.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::flight::Flight;
use crate::config::HostPort;

/// The addresses of one server.
#[derive(Debug)]
pub(super) struct Names {
    host: String,
    port: u16,
    /// Where `host` is an address, it.
    fixed: Option<SocketAddr>,
    resolver: Resolver,
    known: Arc<Mutex<Option<Known>>>,
    flight: Arc<Flight<Found>>,
    /// With which address the next connection begins.
    turn: AtomicUsize,
}

/// Asks for the addresses of a name and a port.
pub(super) type Resolver = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

#[derive(Clone, Debug)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    since: Instant,
}

impl Names {
    /// The addresses of `place`.
    pub(super) fn new(place: &HostPort) -> Self {
        Self::asking(place, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    pub(super) fn asking(place: &HostPort, resolver: Resolver) -> Self {
        let HostPort { host, port } = place.clone();
        Self {
            fixed: host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port)),
            host,
            port,
            resolver,
            known: Arc::default(),
            flight: Flight::new(),
            turn: AtomicUsize::new(0),
        }
    }

    /// All addresses, in the order in which a connection at `now` is to try them: each one begins with the next.
    pub(super) async fn addresses(&self, now: Instant) -> Result<Vec<SocketAddr>, Arc<io::Error>> {
        if let Some(address) = self.fixed {
            return Ok(vec![address]);
        }
        let mut addresses = self.resolved(now).await?.to_vec();
        if addresses.len() > 1 {
            let first = self.turn.fetch_add(1, Relaxed) % addresses.len();
            addresses.rotate_left(first);
            alternate(&mut addresses);
        }
        Ok(addresses)
    }

    async fn resolved(&self, now: Instant) -> Found {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_as_young_as =
            |most| known.as_ref().filter(|known| now.saturating_duration_since(known.since) < most).cloned();
        if let Some(known) = is_as_young_as(FRESH) {
            return Ok(known.addresses);
        }
        let looked_up = self.look_up().await;
        match (looked_up, is_as_young_as(STALE)) {
            (Err(error), Some(known)) => {
                tracing::warn!(host = %self.host, %error, "a name can't be looked up: its last addresses are used");
                Ok(known.addresses)
            }
            (looked_up, _) => looked_up,
        }
    }

    async fn look_up(&self) -> Found {
        let begin = |pilot: super::flight::Pilot<Found>| {
            let (host, port, resolver, known) = (self.host.clone(), self.port, self.resolver, Arc::clone(&self.known));
            let look = move || {
                let found: Found = resolver(&host, port).map(Into::into).map_err(Arc::new);
                if let Ok(addresses) = &found {
                    let fresh = Known { addresses: Arc::clone(addresses), since: Instant::now() };
                    *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
                }
                pilot.land(found);
            };
            // Without a thread nobody lands, and all who wait are told so.
            if let Err(error) = thread::Builder::new().name("lookup".to_owned()).spawn(look) {
                tracing::warn!(%error, "the system gives no thread to look up a name");
            }
        };
        let given_up = || Err(Arc::new(io::Error::other("the look-up was given up")));
        self.flight.join(begin).await.unwrap_or_else(given_up)
    }
}

/// Takes the families in turn, as one of them may lead nowhere (RFC 8305, section 4). The first stays the first.
fn alternate(addresses: &mut Vec<SocketAddr>) {
    let is_like_first =
        |address: &SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4());
    let (like, unlike): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| is_like_first(address));
    let (mut like, mut unlike) = (like.into_iter(), unlike.into_iter());
    let both =
        std::iter::from_fn(|| Some([like.next(), unlike.next()]).filter(|pair| pair.iter().any(Option::is_some)));
    *addresses = both.flatten().flatten().collect();
}

/// How long addresses are used without asking again. Resolvers of clusters hand out new ones at once.
const FRESH: Duration = Duration::from_secs(2);

/// How long they are used while the resolver gives an error in place of others.
const STALE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn place(host: &str) -> HostPort {
        HostPort { host: host.to_owned(), port: 80 }
    }

    fn numbered(numbers: &[u8]) -> Vec<SocketAddr> {
        numbers.iter().map(|number| SocketAddr::from(([10, 0, 0, *number], 80))).collect()
    }

    #[tokio::test]
    async fn connections_begin_with_each_address_in_turn() {
        let names = Names::asking(&place("app"), |_, _| Ok(numbered(&[1, 2, 3])));
        let now = Instant::now();
        for order in [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]] {
            assert_eq!(names.addresses(now).await.unwrap(), numbered(&order));
        }
        let fixed = Names::asking(&place("::1"), |_, _| panic!("an address needs no resolver"));
        assert_eq!(fixed.addresses(now).await.unwrap(), ["[::1]:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn families_take_turns_and_each_address_is_the_first_once() {
        fn mixed() -> [SocketAddr; 4] {
            ["[::1]:80", "[::2]:80", "[::3]:80", "10.0.0.1:80"].map(|text| text.parse().unwrap())
        }
        let names = Names::asking(&place("app"), |_, _| Ok(mixed().to_vec()));
        for order in [[0, 3, 1, 2], [1, 3, 2, 0], [2, 3, 0, 1], [3, 0, 1, 2]] {
            let expected = order.map(|at: usize| mixed()[at]);
            assert_eq!(names.addresses(Instant::now()).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_name_is_asked_for_again_and_its_last_addresses_outlive_an_outage_for_a_while() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let names = Names::asking(&place("app"), |_, _| match CALLS.fetch_add(1, Relaxed) {
            0 => Ok(numbered(&[1])),
            1 => Ok(numbered(&[2])),
            _ => Err(io::Error::other("no answer")),
        });
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(names.addresses(at(0)).await.unwrap(), numbered(&[1]));
        assert_eq!(names.addresses(at(1)).await.unwrap(), numbered(&[1]));
        assert_eq!(CALLS.load(Relaxed), 1, "not asked again at once");
        assert_eq!(names.addresses(at(3)).await.unwrap(), numbered(&[2]), "asked again");
        assert_eq!(names.addresses(at(30)).await.unwrap(), numbered(&[2]), "an outage");
        assert_eq!(names.addresses(at(100)).await.unwrap_err().to_string(), "no answer");
        assert_eq!(CALLS.load(Relaxed), 4);
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once() {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        static GO_ON: AtomicBool = AtomicBool::new(false);
        let names = Arc::new(Names::asking(&place("app"), |_, _| {
            CALLS.fetch_add(1, Relaxed);
            while !GO_ON.load(Relaxed) {
                thread::yield_now();
            }
            Ok(numbered(&[1]))
        }));
        let ask = |names: Arc<Names>| tokio::spawn(async move { names.addresses(Instant::now()).await });
        let impatient = ask(Arc::clone(&names));
        while CALLS.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        impatient.abort();
        assert!(impatient.await.unwrap_err().is_cancelled());
        let waiting: Vec<_> = (0..10).map(|_| ask(Arc::clone(&names))).collect();
        tokio::task::yield_now().await;
        GO_ON.store(true, Relaxed);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap().unwrap(), numbered(&[1]));
        }
        assert_eq!(CALLS.load(Relaxed), 1);
    }
}
