//! Unix sockets to listen on: bound under a name of their own, so that nobody connects before mode and owner are right.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admits {
    /// Mode of the file: to connect takes the right to write.
    pub mode: u32,
    /// User by number; `None`: whoever the gateway runs as.
    pub user: Option<u32>,
    /// Group by number; `None`: that of the gateway.
    pub group: Option<u32>,
}

/// A bound socket's file, which goes when this is dropped, unless another socket has taken its place.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds `path`, in place of a socket that a dead program left behind. The socket does not block.
///
/// # Errors
/// When someone listens there, the path is something else, the directory can't be written, or the owner may not be given.
pub fn bind(path: &Path, admits: &Admits) -> io::Result<(UnixListener, Claim)> {
    if UnixStream::connect(path).is_ok() {
        let message = format!("another program listens on {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    // Connecting to what is no socket is refused as by a socket that nobody listens on: it must not be taken for one.
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let message = format!("{} is in the way and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        _ => {}
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let _left_by_a_dead_namesake = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let ready = || {
        listener.set_nonblocking(true)?;
        admit(&fresh, admits)?;
        let identity = identity(&fresh);
        std::fs::rename(&fresh, path)?;
        io::Result::Ok(identity)
    };
    match ready() {
        Ok(identity) => Ok((listener, Claim { path: path.to_owned(), identity })),
        Err(error) => {
            let _nothing_to_lose = std::fs::remove_file(&fresh);
            Err(error)
        }
    }
}

/// Says who may connect to the socket `path`.
///
/// # Errors
/// When the owner may not be given.
pub fn admit(path: &Path, admits: &Admits) -> io::Result<()> {
    if admits.user.is_some() || admits.group.is_some() {
        chown(path, admits.user, admits.group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(admits.mode))
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMITS: Admits = Admits { mode: 0o660, user: None, group: None };

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_claim() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        let (listener, claim) = bind(&path, &ADMITS).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the socket is left");
        let taken = bind(&path, &ADMITS).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        let (_second, second) = bind(&path, &ADMITS).unwrap();
        drop(claim);
        assert!(path.exists(), "the file is the second socket's by now");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(bind(&path, &ADMITS).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn an_owner_that_may_not_be_given_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        let own = rustix::process::geteuid();
        let admits = Admits { user: Some(if own.is_root() { 12_345 } else { 0 }), ..ADMITS };
        match bind(&path, &admits) {
            Ok(_held) => assert_eq!(std::fs::metadata(&path).unwrap().uid(), 12_345),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            }
        }
    }
}
