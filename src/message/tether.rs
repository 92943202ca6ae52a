//! What a body is held by for as long as it streams: when that ends, so does the stream, in either direction.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

/// What a body is held by for as long as it streams.
pub trait Tether: Send + Sync {
    /// Resolves when the stream must end.
    fn cut(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A body's hold on its tether. It is made when the body counts as a stream, which an ordinary one never does: when it pauses
/// for the first time, or is large.
#[derive(Default)]
pub(crate) struct Hold {
    tether: Option<Arc<dyn Tether>>,
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Bytes that came so far, up to the size from which a body counts as a stream.
    passed: usize,
}

impl Hold {
    pub(crate) fn new(tether: Option<Arc<dyn Tether>>) -> Self {
        Self { tether, cut: None, passed: 0 }
    }

    /// So many bytes came.
    pub(crate) fn pass(&mut self, bytes: usize) {
        self.passed = self.passed.saturating_add(bytes);
        if self.passed >= STREAM_BYTES {
            self.take();
        }
    }

    /// Nothing came for now.
    pub(crate) fn pause(&mut self) {
        self.take();
    }

    /// Whether the stream must end. Asked before its data: one that never pauses ends too.
    pub(crate) fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready())
    }

    fn take(&mut self) {
        if let Some(tether) = self.tether.take() {
            self.cut = Some(tether.cut());
        }
    }
}

/// From this size a body that never pauses counts as a stream.
const STREAM_BYTES: usize = 1024 * 1024;
