//! Portcullis: a reverse-proxy authentication gateway.
//!
//! # The life of a request
//!
//! A worker thread accepts the connection ([`listen`]) and hyper parses the head. [`pipeline::handle`] brings it into
//! its one form: one host, one path and its readings, the client's address. What belongs to the gateway itself goes to an
//! [`endpoint`]. Everything else is decided by [`access::Access::check`]: which [`route`] it is, whose credential it
//! carries, whether the [`policy`] lets them pass under every reading. A yes is an [`access::Permit`], without which the
//! [`proxy`] forwards nothing; it strips what only the gateway may say, says it, and streams both ways. Whatever came of it
//! is one line in the access log ([`observe`]), and is remembered for those who ask why ([`explain`]).
//!
//! # The order of the modules
//!
//! A module imports only those that stand before it here; `tests/layering.rs` fails on anything else.
//!
//! To run a gateway inside another program, build a [`config::Config`] and give it to [`gateway::Gateway::start`].

pub mod clock;
pub mod secret;

pub mod diag;

pub mod metrics;

pub mod message;
pub mod pattern;
pub mod policy;

pub mod lint;

pub mod config;

pub mod upstream;

pub mod identity;
pub mod token;

pub mod store;
pub mod throttle;

pub mod route;

pub mod session;

pub mod access;

pub mod observe;

pub mod proxy;

pub mod state;

pub mod endpoint;
pub mod pipeline;

pub mod explain;

pub mod listen;

pub mod gateway;

pub mod cli;
