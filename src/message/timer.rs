//! Timers that hardly ever fire: a new deadline costs nothing where an earlier one is set already.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that is moved only when it has fired or must fire earlier than it would.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires; `None`: it has fired and nothing has needed it since.
    set_for: Option<Instant>,
}

impl Timer {
    /// One that is not set.
    pub(crate) const fn new() -> Self {
        Self { sleep: None, set_for: None }
    }

    /// Whether `deadline` has passed. The task is woken then, and perhaps earlier.
    pub(crate) fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if self.set_for.is_none_or(|set_for| deadline < set_for) {
            sleep.as_mut().reset(deadline);
            self.set_for = Some(deadline);
        }
        // Whoever waits now is woken, and not the one before.
        while sleep.as_mut().poll(cx).is_ready() {
            if self.set_for.is_some_and(|set_for| set_for >= deadline) {
                self.set_for = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
            self.set_for = Some(deadline);
        }
        Poll::Pending
    }
}

/// Timers of one worker, for whatever waits for a while.
#[derive(Debug, Default)]
pub(crate) struct Timers(Mutex<Vec<Timer>>);

/// A timer in use.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    timer: Option<Timer>,
    timers: &'a Timers,
}

impl Timers {
    /// One of them.
    pub(crate) fn lend(&self) -> Lent<'_> {
        let timer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { timer: Some(timer.unwrap_or(Timer::new())), timers: self }
    }
}

impl Lent<'_> {
    /// As [`Timer::poll`].
    pub(crate) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert(Timer::new()).poll(Some(deadline), cx)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut kept = self.timers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(timer) = self.timer.take().filter(|_| kept.len() < MOST_KEPT) {
            kept.push(timer);
        }
    }
}

/// How many are kept for later.
const MOST_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_is_kept_with_a_timer_that_fires_earlier() {
        let (start, timers) = (Instant::now(), Timers::default());
        let second = Duration::from_secs(1);
        let mut timer = timers.lend();
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(start + second, cx).is_pending())).await);
        drop(timer);
        let mut timer = timers.lend();
        poll_fn(|cx| timer.poll(start + 3 * second, cx)).await;
        assert_eq!(start.elapsed().as_secs(), 3);
        drop(timer);
        let mut timer = timers.lend();
        poll_fn(|cx| timer.poll(start + 4 * second, cx)).await;
        assert_eq!(start.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_moves_it() {
        let (start, timers) = (Instant::now(), Timers::default());
        let mut timer = timers.lend();
        assert!(poll_fn(|cx| Poll::Ready(timer.poll(start + Duration::from_secs(60), cx).is_pending())).await);
        poll_fn(|cx| timer.poll(start + Duration::from_secs(2), cx)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
