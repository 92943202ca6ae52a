//! Where clients connect: listening sockets and the connections on them. Generic over what answers.

pub mod conn;
mod frames;
pub mod h2;
mod scan;
pub mod socket;
pub mod tls;
mod watch;
