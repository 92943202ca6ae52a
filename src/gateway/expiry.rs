//! Certificates of the gateway that expire while it runs: they go on being served, and the log says so.
//!
//! What is wrong with a certificate when it is read, the configuration's findings have said.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{error, warn};

use crate::clock::Timestamp;
use crate::config::Certificate;

/// What was said of each certificate.
#[derive(Debug, Default)]
pub(super) struct Expiry(HashMap<PathBuf, Said>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    not_after: i64,
    stage: Stage,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Holds,
    EndsSoon,
    Over,
}

impl Expiry {
    /// Says which of `certificates` have come closer to their end since the last time, and once a day which are there.
    pub(super) fn look<'a>(&mut self, certificates: impl Iterator<Item = &'a Certificate>, now: Timestamp) {
        let before = std::mem::take(&mut self.0);
        for Certificate { cert, facts, .. } in certificates {
            let stage = stage((facts.not_before, facts.not_after), now);
            let fresh = Said { not_after: facts.not_after, stage, at: now };
            let said = before.get(cert).filter(|said| said.not_after == facts.not_after);
            let is_due = said.is_some_and(|said| said.stage != stage || now.since(said.at) >= DAY);
            if is_due {
                tell(cert, fresh);
            }
            self.0.insert(cert.clone(), said.filter(|_| !is_due).copied().unwrap_or(fresh));
        }
    }
}

fn stage((not_before, not_after): (i64, i64), now: Timestamp) -> Stage {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now > not_after {
        Stage::Over
    } else if not_after - now < SOON.min((not_after - not_before) / 3) {
        Stage::EndsSoon
    } else {
        Stage::Holds
    }
}

fn tell(file: &Path, said: Said) {
    let until = Timestamp::from_secs(u64::try_from(said.not_after).unwrap_or(0));
    match said.stage {
        Stage::Holds => {}
        Stage::EndsSoon => warn!(file = %file.display(), %until, "a certificate expires soon: renew it"),
        Stage::Over => error!(
            file = %file.display(), %until,
            "a certificate has expired: clients refuse it until it is renewed; the new files are taken in by themselves"
        ),
    }
}

/// As `check` has it: within two weeks, or a third of the certificate's life.
const SOON: i64 = 14 * 86_400;

const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_ends_soon_and_then_is_over() {
        let (begins, ends) = (1_767_225_600, 1_775_001_600);
        let at = |seconds: i64| stage((begins, ends), Timestamp::from_secs(u64::try_from(seconds).unwrap()));
        assert_eq!([at(begins), at(ends - SOON)], [Stage::Holds; 2]);
        assert_eq!([at(ends - SOON + 1), at(ends)], [Stage::EndsSoon; 2]);
        assert_eq!(at(ends + 1), Stage::Over);
        let short = |left: i64| stage((0, 86_400), Timestamp::from_secs(u64::try_from(86_400 - left).unwrap()));
        assert_eq!((short(28_800), short(28_799)), (Stage::Holds, Stage::EndsSoon));
    }
}
