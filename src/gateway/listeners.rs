//! The sockets of `server.listen`, over reloads: one that stays is not touched, one that goes lets its connections finish.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::watch;

use super::StartError;
use crate::config::{Address, Listen};
use crate::listen::socket;
use crate::message::connection::Stop;
use crate::metrics::{self, Metrics};

/// The sockets in use.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Vec<Listener>,
    /// Those that were removed, while connections of theirs are left.
    leaving: Vec<watch::Sender<Stop>>,
}

/// One socket, which only the workers hold, and how all that came through it is told to end.
#[derive(Debug)]
struct Listener {
    /// The address as it is written; port 0 has become another one.
    written: Address,
    bound: SocketAddr,
    /// How clients speak there, which a reload may change.
    manner: watch::Sender<Listen>,
    stop: watch::Sender<Stop>,
}

/// A worker's own handle of a socket.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) listener: TcpListener,
    /// How clients speak there now.
    pub(super) manner: watch::Receiver<Listen>,
    pub(super) stop: watch::Receiver<Stop>,
    /// What is counted of all connections through it.
    pub(super) counts: Arc<metrics::Listener>,
}

/// What is to be listened on: bound already, but nobody accepts there yet.
#[derive(Debug)]
pub(super) struct Planned {
    slots: Vec<Slot>,
    entrances: Vec<Vec<Entrance>>,
}

#[derive(Debug)]
enum Slot {
    /// The one of this number stays, for clients that speak so.
    Stays(usize, Listen),
    New(Listener),
}

impl Listeners {
    /// Binds what of `wanted` is not there yet, with a handle for each of `workers`. Changes nothing.
    ///
    /// # Errors
    /// When an address can't be listened on.
    pub(super) fn plan(&self, wanted: &[Listen], workers: usize, metrics: &Metrics) -> Result<Planned, StartError> {
        let mut left: Vec<usize> = (0..self.open.len()).collect();
        let mut find = |wanted: &Listen| {
            // Of several with port 0 rather the one that is the same.
            let is_same = |&index: &usize| *self.open[index].manner.borrow() == *wanted;
            let is_there = |&index: &usize| self.open[index].written == wanted.address;
            let at = left.iter().position(is_same).or_else(|| left.iter().position(is_there))?;
            Some(left.remove(at))
        };
        let found: Vec<Option<usize>> = wanted.iter().map(&mut find).collect();
        let mut entrances: Vec<Vec<Entrance>> = (0..workers).map(|_| Vec::new()).collect();
        let mut slots = Vec::new();
        for (&listen, found) in wanted.iter().zip(found) {
            if let Some(index) = found {
                slots.push(Slot::Stays(index, listen));
                continue;
            }
            let Address::Tcp(address) = listen.address;
            let refused = |source: io::Error| {
                let mut held = left.iter().filter_map(|&index| self.open[index].written.tcp());
                match held.find(|held| held.port() == address.port()) {
                    Some(held) if source.kind() == io::ErrorKind::AddrInUse => StartError::Overlap { address, held },
                    _ => StartError::Listen { address, source },
                }
            };
            let (listener, handles) = Listener::bind(listen, workers, metrics).map_err(refused)?;
            for (worker, handle) in entrances.iter_mut().zip(handles) {
                worker.push(handle);
            }
            slots.push(Slot::New(listener));
        }
        Ok(Planned { slots, entrances })
    }

    /// Makes it as planned. What the workers are to accept on is the result, by worker; what is not planned any more
    /// accepts no more, and its connections end after the request in progress.
    pub(super) fn take(&mut self, planned: Planned, public_url: &str) -> Vec<Vec<Entrance>> {
        let mut before: Vec<Option<Listener>> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for slot in planned.slots {
            match slot {
                Slot::Stays(index, manner) => {
                    let stays = before[index].take();
                    if let Some(listener) = &stays {
                        listener.manner.send_replace(manner);
                    }
                    self.open.extend(stays);
                }
                Slot::New(listener) => {
                    tracing::info!(address = %listener.bound, public_url, "listening");
                    self.open.push(listener);
                }
            }
        }
        self.leaving.retain(|stop| stop.receiver_count() > 0);
        for gone in before.into_iter().flatten() {
            tracing::info!(address = %gone.bound, "no longer listening");
            gone.stop.send_replace(Stop::Drain);
            self.leaving.push(gone.stop);
        }
        planned.entrances
    }

    /// The addresses, in the order in which they are written.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|listener| listener.bound).collect()
    }

    /// Tells all that came through any of the sockets.
    pub(super) fn tell(&self, stop: Stop) {
        let all = self.open.iter().map(|listener| &listener.stop).chain(&self.leaving);
        all.for_each(|told| {
            told.send_if_modified(|now| std::mem::replace(now, stop.max(*now)) < stop);
        });
    }
}

impl Listener {
    /// The socket is closed when the last of the `workers` has closed its handle.
    fn bind(listen: Listen, workers: usize, metrics: &Metrics) -> io::Result<(Self, Vec<Entrance>)> {
        let Address::Tcp(address) = listen.address;
        let (socket, stop) = (socket::bind(address)?, watch::Sender::new(Stop::Run));
        let manner = watch::Sender::new(listen);
        let bound = socket.local_addr()?;
        let counts = metrics.listeners.find(&bound.to_string());
        let entrance = |_| {
            let (manner, counts) = (manner.subscribe(), Arc::clone(&counts));
            Ok(Entrance { listener: socket.try_clone()?, manner, stop: stop.subscribe(), counts })
        };
        let entrances = (0..workers).map(entrance).collect::<io::Result<_>>()?;
        Ok((Self { written: listen.address, bound, manner, stop }, entrances))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_keeps_its_socket_and_what_goes_is_told() {
        let any = Listen::plain("127.0.0.1:0".parse().unwrap());
        let mut listeners = Listeners::default();
        let planned = listeners.plan(&[any, any], 2, &Metrics::new(0)).unwrap();
        let entrances = listeners.take(planned, "http://h");
        assert_eq!(entrances.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        let before = listeners.addresses();
        let planned = listeners.plan(&[any], 2, &Metrics::new(0)).unwrap();
        assert!(listeners.take(planned, "http://h").iter().all(Vec::is_empty));
        assert_eq!(listeners.addresses(), before[..1]);
        assert_eq!(*entrances[0][0].stop.borrow(), Stop::Run);
        assert_eq!(*entrances[0][1].stop.borrow(), Stop::Drain);
        listeners.tell(Stop::Drain);
        listeners.tell(Stop::Now);
        listeners.tell(Stop::Drain);
        assert_eq!((*entrances[0][0].stop.borrow(), *entrances[0][1].stop.borrow()), (Stop::Now, Stop::Now));
    }

    #[test]
    fn a_plan_that_fails_leaves_everything_as_it_is() {
        let any = Listen::plain("127.0.0.1:0".parse().unwrap());
        let mut listeners = Listeners::default();
        let planned = listeners.plan(&[any], 1, &Metrics::new(0)).unwrap();
        let entrances = listeners.take(planned, "http://h");
        let taken = socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused =
            listeners.plan(&[any, Listen::plain(taken.local_addr().unwrap())], 1, &Metrics::new(0)).unwrap_err();
        assert!(matches!(refused, StartError::Listen { .. }), "{refused}");
        assert_eq!((listeners.addresses().len(), *entrances[0][0].stop.borrow()), (1, Stop::Run));
    }

    #[test]
    fn an_address_that_this_gateway_still_holds_is_said_to_be_so() {
        let free = socket::bind("127.0.0.1:0".parse().unwrap()).and_then(|free| free.local_addr()).unwrap();
        let mut listeners = Listeners::default();
        let planned = listeners.plan(&[Listen::plain(free)], 1, &Metrics::new(0)).unwrap();
        let _held = listeners.take(planned, "http://h");
        let everywhere = SocketAddr::from(([0, 0, 0, 0], free.port()));
        let refused = listeners.plan(&[Listen::plain(everywhere)], 1, &Metrics::new(0)).unwrap_err();
        assert!(matches!(refused, StartError::Overlap { held, .. } if held == free), "{refused}");
    }

    #[test]
    fn how_clients_speak_changes_on_the_socket_that_stays() {
        let any = Listen::plain("127.0.0.1:0".parse().unwrap());
        let mut listeners = Listeners::default();
        let planned = listeners.plan(&[any, Listen { tls: true, ..any }], 1, &Metrics::new(0)).unwrap();
        let entrances = listeners.take(planned, "http://h");
        let before = listeners.addresses();
        let both = [Listen { h2c: true, ..any }, Listen { tls: true, ..any }];
        let planned = listeners.plan(&both, 1, &Metrics::new(0)).unwrap();
        assert!(listeners.take(planned, "http://h").iter().all(Vec::is_empty));
        assert_eq!(listeners.addresses(), before);
        let manners: Vec<Listen> = entrances[0].iter().map(|entrance| *entrance.manner.borrow()).collect();
        assert_eq!(manners, both);
    }
}
