//! Interim answers over HTTP/1.1 (RFC 9110, section 15.2), counted: hyper reads as many as come, and drops them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::Request;
use tokio::sync::Notify;

/// The interim answers to one request.
#[derive(Debug, Default)]
pub(super) struct Interim {
    came: AtomicU32,
    too_many: Notify,
}

impl Interim {
    /// Counts those to `request` from now on.
    pub(super) fn of<B>(request: &mut Request<B>) -> Arc<Self> {
        let counted = Arc::new(Self::default());
        let counts = Arc::clone(&counted);
        hyper::ext::on_informational(request, move |_| counts.count());
        counted
    }

    /// Resolves when more came than any server has a reason for.
    pub(super) async fn too_many(&self) {
        self.too_many.notified().await;
    }

    /// Whether more came than that.
    pub(super) fn are_too_many(&self) -> bool {
        self.came.load(Relaxed) > MOST
    }

    fn count(&self) {
        if self.came.fetch_add(1, Relaxed) == MOST {
            self.too_many.notify_one();
        }
    }
}

/// How many may come before the answer.
const MOST: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_are_enough() {
        let interim = Interim::default();
        (0..MOST).for_each(|_| interim.count());
        let waited = tokio::time::timeout(std::time::Duration::from_secs(1), interim.too_many()).await;
        assert!(waited.is_err() && !interim.are_too_many());
        interim.count();
        interim.too_many().await;
        assert!(interim.are_too_many());
    }
}
