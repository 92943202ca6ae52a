//! Connections on both sides, in raw bytes: framing, slow and vanishing clients, faulty upstreams, streams.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

mod clients;
mod framing;
mod parking;
mod parking_tls;
mod rules;
mod streams;
mod support;
mod upstreams;
