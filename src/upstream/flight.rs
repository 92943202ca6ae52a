//! Something that takes time, done once for all who want it at the same moment.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// At most one under way at a time.
#[derive(Debug)]
pub(super) struct Flight<T> {
    outcome: Mutex<Option<watch::Receiver<Option<T>>>>,
}

/// What the one under way is to end with. Dropped without it, those who wait are told that there is no outcome.
pub(super) struct Pilot<T> {
    flight: Arc<Flight<T>>,
    outcome: watch::Sender<Option<T>>,
}

impl<T: Clone> Flight<T> {
    /// None under way.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { outcome: Mutex::new(None) })
    }

    /// Waits for what the one under way comes to; where there is none, `begin` starts one, which goes on when whoever
    /// waits has left. `None`: it was given up.
    pub(super) async fn join(self: &Arc<Self>, begin: impl FnOnce(Pilot<T>)) -> Option<T> {
        let (mut outcome, pilot) = self.enter();
        if let Some(pilot) = pilot {
            begin(pilot);
        }
        let outcome = outcome.wait_for(Option::is_some).await.ok()?;
        outcome.clone()
    }

    fn enter(self: &Arc<Self>) -> (watch::Receiver<Option<T>>, Option<Pilot<T>>) {
        let mut under_way = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = under_way.as_ref().filter(|outcome| outcome.has_changed().is_ok()) {
            return (outcome.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        *under_way = Some(receiver.clone());
        (receiver, Some(Pilot { flight: Arc::clone(self), outcome: sender }))
    }
}

impl<T> Pilot<T> {
    /// Tells all who wait; who comes later begins another.
    pub(super) fn land(self, outcome: T) {
        *self.flight.outcome.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.outcome.send_replace(Some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn many_who_want_it_at_once_have_it_done_once() {
        let (flight, begun) = (Flight::new(), Arc::new(AtomicUsize::new(0)));
        let (pilots, mut pilot) = tokio::sync::mpsc::unbounded_channel();
        let join = || {
            let (flight, begun, pilots) = (Arc::clone(&flight), Arc::clone(&begun), pilots.clone());
            tokio::spawn(async move {
                let begin = |pilot| {
                    begun.fetch_add(1, SeqCst);
                    pilots.send(pilot).ok().unwrap();
                };
                flight.join(begin).await
            })
        };
        let first: Vec<_> = (0..10).map(|_| join()).collect();
        let one: Pilot<&str> = pilot.recv().await.unwrap();
        while Arc::strong_count(&flight) < 12 {
            tokio::task::yield_now().await;
        }
        one.land("done");
        for waiting in first {
            assert_eq!(waiting.await.unwrap(), Some("done"));
        }
        assert_eq!(begun.load(SeqCst), 1);
        let second = join();
        drop(pilot.recv().await.unwrap());
        assert_eq!(second.await.unwrap(), None, "given up");
        let third = join();
        pilot.recv().await.unwrap().land("again");
        assert_eq!((third.await.unwrap(), begun.load(SeqCst)), (Some("again"), 3));
    }
}
