//! Reading a small request body whole, in bounded time and memory.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// It is larger than `limit`.
    TooLarge,
    /// It did not come in time.
    Stalled,
    /// Its framing is broken, or the client left.
    Broken,
}

/// All of `body`, of at most `limit` bytes, within `patience`.
///
/// # Errors
/// As [`ReadError`] says.
pub(super) async fn read(body: &mut Incoming, limit: usize, patience: Duration) -> Result<Bytes, ReadError> {
    if http_body::Body::size_hint(body).lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    match timeout(patience, Limited::new(body, limit).collect()).await {
        Err(_) => Err(ReadError::Stalled),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
        Ok(Err(_)) => Err(ReadError::Broken),
    }
}
