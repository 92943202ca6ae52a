//! Listening sockets that whoever started the process holds ready, by name: systemd's socket activation
//! (`sd_listen_fds_with_names(3)`).

use std::io;

use listenfd::ListenFd;

use super::door::Door;

/// What was handed to this process. Nothing is taken out of it, so that a socket can be listened on again after a reload.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, Door)>,
}

impl Inherited {
    /// What the environment names, if it is meant for this process.
    ///
    /// # Errors
    /// When one of the descriptors is no socket that listens for streams.
    pub fn from_env() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            // What has no name has the one that systemd gives it.
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned());
            // A socket of another kind stays where it is, for the second look.
            let socket = match handed.take_unix_listener(index) {
                Ok(socket) => socket.map(Door::Unix),
                Err(_) => handed.take_tcp_listener(index)?.map(Door::Tcp),
            };
            if let Some(socket) = socket {
                if !socket.listens() {
                    let message = format!("the socket `{name}` that was handed over does not listen");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                sockets.push((name, socket));
            }
        }
        Ok(Self { sockets })
    }

    /// All sockets of that name, in the order in which they were handed.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Door> {
        self.sockets.iter().filter(move |(known, _)| known == name).map(|(_, socket)| socket)
    }

    /// The names that there are.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
