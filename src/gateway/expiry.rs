//! Certificates of the gateway that expire while it runs: they go on being served, and the log says so.
//!
//! What is wrong with a certificate when it is read, the configuration's findings have said.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{error, warn};

use crate::clock::Timestamp;
use crate::config::Certificate;
use crate::message::certificate::{Standing, Term};

/// What was said of each certificate.
#[derive(Debug, Default)]
pub(super) struct Expiry(HashMap<PathBuf, Said>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    term: Term,
    standing: Standing,
    at: Timestamp,
}

impl Expiry {
    /// Says which of `certificates` have come closer to their end since the last time, and once a day which are there.
    pub(super) fn look<'a>(&mut self, certificates: impl Iterator<Item = &'a Certificate>, now: Timestamp) {
        let before = std::mem::take(&mut self.0);
        for Certificate { cert, facts, .. } in certificates {
            let standing = facts.term.standing(now);
            let fresh = Said { term: facts.term, standing, at: now };
            let said = before.get(cert).filter(|said| said.term == facts.term);
            let is_due = said.is_some_and(|said| said.standing != standing || now.since(said.at) >= DAY);
            if is_due {
                tell(cert, fresh);
            }
            self.0.insert(cert.clone(), said.filter(|_| !is_due).copied().unwrap_or(fresh));
        }
    }
}

fn tell(file: &Path, said: Said) {
    let until = Timestamp::from_secs(u64::try_from(said.term.until).unwrap_or(0));
    match said.standing {
        Standing::Holds | Standing::NotYet => {}
        Standing::EndsSoon => warn!(file = %file.display(), %until, "a certificate expires soon: renew it"),
        Standing::Over => error!(
            file = %file.display(), %until,
            "a certificate has expired: clients refuse it until it is renewed; the new files are taken in by themselves"
        ),
    }
}

const DAY: Duration = Duration::from_secs(86_400);
