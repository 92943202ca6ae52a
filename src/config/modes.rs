//! Who else on this machine can read or change the files that the gateway believes.
//!
//! A symbolic link is followed: what counts is the file that it leads to, and the directories of both.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::diag::{Diagnostic, quoted};

/// What is wrong with a file that holds a secret.
pub(super) fn of_secret(path: &Path) -> Vec<Diagnostic> {
    let mut findings = of_file(path);
    if fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
        let message = format!("every user of this machine can read {}", shown(path));
        let finding = Diagnostic::warning("readable-by-all", message);
        findings.push(finding.help(format!("chmod 600 {}", path.display())));
    }
    findings
}

/// What is wrong with a file that is believed, but not secret.
pub(super) fn of_file(path: &Path) -> Vec<Diagnostic> {
    let Ok(meta) = fs::metadata(path) else { return Vec::new() };
    if let Some(who) = writers(&meta) {
        let message = format!("{who} can change {}", shown(path));
        let finding = Diagnostic::warning("writable-by-others", message);
        return vec![finding.help(format!("chmod go-w {}", path.display()))];
    }
    let open = directories(path).into_iter().find(|directory| fs::metadata(directory).is_ok_and(|meta| is_open(&meta)));
    let finding = |directory: PathBuf| {
        let message = format!("every user of this machine can replace {}: its directory is open to all", shown(path));
        Diagnostic::warning("writable-by-others", message).help(format!("chmod o-w {}", directory.display()))
    };
    open.map(finding).into_iter().collect()
}

/// Who besides the owner may write.
fn writers(meta: &Metadata) -> Option<&'static str> {
    let mode = meta.permissions().mode();
    // Where every user has a group of their own, which has the user's number, it is nobody else.
    let has_others_in_its_group = meta.gid() != meta.uid();
    match (mode & 0o002 != 0, mode & 0o020 != 0 && has_others_in_its_group) {
        (true, _) => Some("every user of this machine"),
        (false, true) => Some("everyone in its group"),
        (false, false) => None,
    }
}

/// Whether everyone may put files in the place of others; with the sticky bit nobody may.
fn is_open(directory: &Metadata) -> bool {
    directory.permissions().mode() & 0o1002 == 0o002
}

/// The directories of `path` and of what it leads to.
fn directories(path: &Path) -> Vec<PathBuf> {
    let beside = |path: &Path| {
        let parent = path.parent()?;
        Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
    };
    [Some(path.to_owned()), path.canonicalize().ok()].iter().flatten().filter_map(|path| beside(path)).collect()
}

fn shown(path: &Path) -> String {
    let own = quoted(&path.to_string_lossy());
    match path.canonicalize() {
        Ok(target) if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) => {
            format!("{own}, which is {}", quoted(&target.to_string_lossy()))
        }
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn codes(path: &Path) -> Vec<(&'static str, String)> {
        of_secret(path).into_iter().map(|finding| (finding.code, finding.message)).collect()
    }

    #[test]
    fn judges_the_file_its_directory_and_where_a_link_leads() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        let (file, link) = (inner.join("key"), directory.path().join("link"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (file_mode, directory_mode, expected) in [
            (0o600, 0o755, vec![]),
            (0o640, 0o1777, vec![]),
            (0o644, 0o755, vec!["readable-by-all"]),
            (0o602, 0o755, vec!["writable-by-others"]),
            (0o666, 0o777, vec!["writable-by-others", "readable-by-all"]),
            (0o600, 0o777, vec!["writable-by-others"]),
        ] {
            set(&file, file_mode);
            set(&inner, directory_mode);
            for path in [&file, &link] {
                let found: Vec<_> = codes(path).into_iter().map(|(code, _)| code).collect();
                assert_eq!(found, expected, "{file_mode:o} {directory_mode:o} {}", path.display());
            }
        }
        assert!(codes(&link)[0].1.contains("which is"), "the file behind the link is named");
        assert!(codes(&directory.path().join("missing")).is_empty());
    }
}
