//! Where clients connect: listening sockets and the connections on them. Generic over what answers.

pub mod conn;
pub mod door;
mod frames;
pub mod full;
pub mod h2;
pub mod inherited;
pub mod proxy_protocol;
mod scan;
pub mod socket;
pub mod tls;
pub mod unix;
mod watch;
