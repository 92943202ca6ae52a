//! Where a listener is: an address of the network, a unix socket, or a socket that is handed over by name.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use super::reader::{Item, Table, Written};
use super::values::{self, Fault};
use crate::diag::quoted;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(Arc<UnixPlace>),
    /// `fd:NAME`: sockets that whoever starts the gateway holds ready.
    Fd(Arc<str>),
}

/// A unix socket, and who may connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixPlace {
    /// Its file.
    pub path: PathBuf,
    /// Mode of that.
    pub mode: u32,
    /// The owner's number; `None`: whoever the gateway runs as.
    pub user: Option<u32>,
    /// The group's number; `None`: that of the gateway.
    pub group: Option<u32>,
}

impl Address {
    /// The address, where it is one of the network.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Fd(_) => None,
        }
    }

    /// Whether each one that is written so is another one: port 0 takes a free port.
    pub fn is_any_port(&self) -> bool {
        self.tcp().is_some_and(|address| address.port() == 0)
    }

    /// The file, where it is a unix socket of our own.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(place) => Some(&place.path),
            Self::Tcp(_) | Self::Fd(_) => None,
        }
    }

    /// The same, with a relative path beginning at `directory`.
    pub(super) fn in_directory(self, directory: &Path) -> Self {
        match self {
            Self::Unix(place) => {
                let path = directory.join(&place.path);
                Self::Unix(Arc::new(UnixPlace { path, ..UnixPlace::clone(&place) }))
            }
            other => other,
        }
    }

    /// Whether both can't be bound at once. `[::]` is for IPv6 alone.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (Self::Tcp(own), Self::Tcp(theirs)) = (self, other) else { return self.is_where(other) };
        let is_all = own.ip().is_unspecified() || theirs.ip().is_unspecified();
        own.port() != 0
            && own.port() == theirs.port()
            && (own.ip() == theirs.ip() || (is_all && own.is_ipv4() == theirs.is_ipv4()))
    }

    /// Whether both are the same place, whoever may connect there.
    pub fn is_where(&self, other: &Self) -> bool {
        match (self.path(), other.path()) {
            (Some(own), Some(other)) => own == other,
            _ => self == other,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(place) => write!(f, "unix:{}", place.path.display()),
            Self::Fd(name) => write!(f, "fd:{name}"),
        }
    }
}

/// Mode and owner of a unix socket as written.
#[derive(Default)]
pub(super) struct RawAccess {
    mode: Option<Written<u32>>,
    owner: Option<Written<(Option<u32>, Option<u32>)>>,
}

impl RawAccess {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            mode: table.take("mode").and_then(|item| item.parsed("bad-mode", mode)),
            owner: table.take("owner").and_then(|item| item.parsed("unknown-owner", owner)),
        }
    }

    /// What is written here for `address`; only a unix socket has either.
    pub(super) fn apply(self, item: &Item<'_>, address: Written<Address>) -> Written<Address> {
        let span = address.span();
        let Address::Unix(place) = address.get_ref() else {
            if self.mode.is_some() || self.owner.is_some() {
                let message = format!(
                    "{} has no file that could have a mode or an owner",
                    quoted(&address.get_ref().to_string())
                );
                let finding = crate::diag::Diagnostic::error("not-for-this-address", message).at(span);
                item.cx.report(finding.help("`mode` and `owner` are for `unix:` addresses: remove them"));
            }
            return address;
        };
        let mut place = UnixPlace::clone(place);
        if let Some(mode) = self.mode {
            place.mode = mode.into_inner();
        }
        if let Some(owner) = self.owner {
            (place.user, place.group) = owner.into_inner();
        }
        Written::new(span, Address::Unix(Arc::new(place)))
    }
}

pub(super) fn address(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err(Fault::new("no path behind `unix:`", "no path", "write \"unix:/run/portcullis.sock\"")),
            // The longest that the system takes, and its end.
            path if path.len() > LONGEST_PATH => {
                let message = format!("the path of a unix socket has at most {LONGEST_PATH} bytes");
                Err(Fault::new(message, "too long", "choose a shorter one, such as \"unix:/run/portcullis.sock\""))
            }
            path => {
                let (path, mode) = (PathBuf::from(path), DEFAULT_MODE);
                Ok(Address::Unix(Arc::new(UnixPlace { path, mode, user: None, group: None })))
            }
        };
    }
    if let Some(name) = text.strip_prefix("fd:") {
        let is_name =
            !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if !is_name {
            let message = format!("{} is no name of a socket", quoted(name));
            return Err(Fault::new(message, "not a name", "write \"fd:http\" for FileDescriptorName=http"));
        }
        return Ok(Address::Fd(name.into()));
    }
    values::socket_address(text).map(Address::Tcp)
}

fn mode(text: &str) -> Result<u32, Fault> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| {
        Fault::new(
            format!("{} is no mode of a file", quoted(text)),
            "not a mode",
            "write four octal digits, such as \"0660\"",
        )
    })
}

/// `"user"`, `"user:group"` or `":group"`, by name or by number.
fn owner(text: &str) -> Result<(Option<u32>, Option<u32>), Fault> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && group.is_empty() {
        return Err(Fault::new("nobody is named", "empty", "write \"user\", \"user:group\" or \":group\""));
    }
    Ok((number(user, "user", "/etc/passwd")?, number(group, "group", "/etc/group")?))
}

/// The number of `name`, which may be one itself. Read from the files of the system, as a static program has nothing else.
fn number(name: &str, kind: &str, file: &str) -> Result<Option<u32>, Fault> {
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let known = fs::read_to_string(file).unwrap_or_default();
    let found = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.map(Some).ok_or_else(|| {
        let message = format!("there is no {kind} {} in {file}", quoted(name));
        Fault::new(message, "unknown here", format!("write the {kind}'s number, or make it first"))
    })
}

/// `sun_path` has 108 bytes with its end; the name under which a socket is bound first has a suffix.
const LONGEST_PATH: usize = 90;

/// A proxy that runs as a member of the gateway's group may connect.
const DEFAULT_MODE: u32 = 0o660;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_a_listener_is() {
        for (text, shown) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/run/portcullis.sock", "unix:/run/portcullis.sock"),
            ("unix:gateway.sock", "unix:gateway.sock"),
            ("fd:http", "fd:http"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), shown);
        }
        for text in ["unix:", "fd:", "fd:a b", "fd:a:b", &format!("unix:/{}", "x".repeat(100))] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_overlap_where_one_is_all_of_a_family() {
        let overlap = |one: &str, other: &str| address(one).unwrap().overlaps(&address(other).unwrap());
        for (one, other) in [("0.0.0.0:80", "127.0.0.1:80"), ("[::1]:80", "[::]:80"), ("10.0.0.1:80", "10.0.0.1:80")] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("0.0.0.0:80", "127.0.0.1:81"),
            ("0.0.0.0:80", "[::1]:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }

    #[test]
    fn reads_modes_and_owners() {
        assert_eq!([mode("0660").ok(), mode("600").ok(), mode("0o666").ok()], [Some(0o660), Some(0o600), Some(0o666)]);
        for text in ["", "66", "0999", "rw-rw----", "1777", "00660", "+660"] {
            assert!(mode(text).is_err(), "{text}");
        }
        assert_eq!(owner("root").ok(), Some((Some(0), None)));
        assert_eq!(owner("root:root").ok(), Some((Some(0), Some(0))));
        assert_eq!(owner(":12").ok(), Some((None, Some(12))));
        for text in ["", ":", "no-such-user", "root:no-such-group"] {
            assert!(owner(text).is_err(), "{text}");
        }
    }
}
