//! Notices that the files of the configuration have changed.
//!
//! They are looked at twice a second. That sees what notification by the kernel misses or tells in pieces (a symbolic link
//! that is swapped far up the path, as Kubernetes does with a ConfigMap; network file systems; a file that comes back
//! under another inode), needs no handle for each directory, and costs a few system calls.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// The files, and how they looked when they were last read.
#[derive(Debug)]
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    seen: Vec<Look>,
    changing: Option<Vec<Look>>,
    tick: Interval,
}

/// What tells one content of a file from another: device, inode, size, and when content and inode last changed.
/// `None`: it is not there, or not for us.
type Look = Option<[i128; 7]>;

impl Watch {
    /// Watches `paths` from now on.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { seen: paths.iter().map(look).collect(), paths, changing: None, tick }
    }

    /// Resolves when a file is another than when it was last read, and has stayed so for a moment: one that is being
    /// written may be a good configuration by half. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        loop {
            self.tick.tick().await;
            let now = look_at(self.paths.clone()).await;
            if self.judge(now) {
                return;
            }
        }
    }

    /// Whether the files, which look so `now`, have changed and looked the same the last time.
    fn judge(&mut self, now: Vec<Look>) -> bool {
        let is_settled = now != self.seen && self.changing.as_ref() == Some(&now);
        self.changing = (now != self.seen).then_some(now);
        is_settled
    }

    /// The files are about to be read: what is changed after this is a change.
    pub(super) async fn note(&mut self) {
        self.seen = look_at(self.paths.clone()).await;
        self.changing = None;
    }

    /// From now on watches `paths`, which were just read.
    pub(super) fn follow(&mut self, paths: Vec<PathBuf>) {
        let known: std::collections::HashMap<&PathBuf, Look> =
            self.paths.iter().zip(self.seen.iter().copied()).collect();
        let seen = paths.iter().map(|path| known.get(path).copied().unwrap_or_else(|| look(path))).collect();
        (self.paths, self.seen) = (paths, seen);
    }
}

/// Looks at `paths` on a thread that may wait: a file system that hangs must not hold up the control thread.
async fn look_at(paths: Vec<PathBuf>) -> Vec<Look> {
    let count = paths.len();
    let looking = tokio::task::spawn_blocking(move || paths.iter().map(look).collect());
    looking.await.unwrap_or_else(|_| vec![None; count])
}

fn look(path: &PathBuf) -> Look {
    let found = fs::metadata(path).ok()?;
    Some([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        found.mtime().into(),
        found.mtime_nsec().into(),
        found.ctime().into(),
        found.ctime_nsec().into(),
    ])
}

/// How often the files are looked at.
const EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn what_is_written_replaced_swapped_or_removed_has_changed_and_the_same_has_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("gateway.toml"), version).unwrap();
        }
        symlink("one", at("..data")).unwrap();
        symlink("..data/gateway.toml", at("gateway.toml")).unwrap();
        fs::write(at("secret"), "s").unwrap();
        let mut watch = Watch::new(vec![at("gateway.toml"), at("secret"), at("missing")]);
        let steps: [&dyn Fn(); 5] = [
            &|| {
                symlink("two", at("..new")).unwrap();
                fs::rename(at("..new"), at("..data")).unwrap();
            },
            &|| fs::write(at("secret"), "longer").unwrap(),
            &|| {
                fs::write(at("other"), "longer").unwrap();
                fs::rename(at("other"), at("secret")).unwrap();
            },
            &|| fs::remove_file(at("secret")).unwrap(),
            &|| fs::write(at("missing"), "here").unwrap(),
        ];
        let tick = |watch: &mut Watch| watch.judge(watch.paths.iter().map(look).collect());
        for (number, step) in steps.into_iter().enumerate() {
            assert!(!tick(&mut watch) && !tick(&mut watch), "nothing has happened before step {number}");
            step();
            assert!(!tick(&mut watch), "step {number} may not be over yet");
            assert!(tick(&mut watch), "step {number} is not noticed");
            watch.note().await;
        }
    }

    #[tokio::test]
    async fn a_file_that_is_still_being_written_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        fs::write(&path, "").unwrap();
        let mut watch = Watch::new(vec![path.clone()]);
        let tick = |watch: &mut Watch| watch.judge(watch.paths.iter().map(look).collect());
        for length in 1..5 {
            fs::write(&path, "x".repeat(length)).unwrap();
            assert!(!tick(&mut watch));
        }
        assert!(tick(&mut watch));
        watch.note().await;
        let other = directory.path().join("other.toml");
        watch.follow(vec![path.clone(), other.clone()]);
        assert!(!tick(&mut watch) && !tick(&mut watch));
        fs::write(&other, "here").unwrap();
        assert!(!tick(&mut watch) && tick(&mut watch));
    }
}
