//! Certificates of the gateway and lists of revoked ones that expire while it runs: both go on being used, and the log says
//! so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{error, warn};

use crate::clock::Timestamp;
use crate::config::{Dated, DatedFile, Tls};
use crate::message::certificate::{Standing, Term};

/// What was said of each file.
#[derive(Debug, Default)]
pub(super) struct Expiry(HashMap<PathBuf, Said>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    term: Term,
    standing: Standing,
    at: Timestamp,
}

impl Expiry {
    /// Says which of `tls` expire soon or have expired, when that begins and once a day.
    pub(super) fn look(&mut self, tls: &Tls, now: Timestamp) {
        for (Dated { file, what, term }, standing) in self.due(tls.dated(), now) {
            tell(file, what, term, standing);
        }
    }

    /// What is to be said of these files now.
    fn due<'a>(&mut self, dated: impl Iterator<Item = Dated<'a>>, now: Timestamp) -> Vec<(Dated<'a>, Standing)> {
        let before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for one in dated {
            let standing = one.term.standing(now);
            let said = before.get(one.file).filter(|said| (said.term, said.standing) == (one.term, standing));
            let said = said.filter(|said| now.since(said.at) < DAY);
            if said.is_none() && matches!(standing, Standing::EndsSoon | Standing::Over) {
                due.push((one, standing));
            }
            let fresh = Said { term: one.term, standing, at: now };
            self.0.insert(one.file.to_owned(), said.copied().unwrap_or(fresh));
        }
        due
    }
}

fn tell(file: &Path, what: DatedFile, term: Term, standing: Standing) {
    let (file, until) = (file.display(), Timestamp::from_secs(u64::try_from(term.until).unwrap_or(0)));
    match (what, standing) {
        (_, Standing::Holds | Standing::NotYet) => {}
        (DatedFile::Certificate, Standing::EndsSoon) => warn!(%file, %until, "a certificate expires soon: renew it"),
        (DatedFile::Certificate, Standing::Over) => error!(
            %file, %until,
            "a certificate has expired: clients refuse it until it is renewed; the new files are taken in by themselves"
        ),
        (DatedFile::RevocationList, Standing::EndsSoon) => {
            warn!(%file, %until, "a list of revoked certificates is out of date soon: put the next one in its place");
        }
        (DatedFile::RevocationList, Standing::Over) => error!(
            %file, %until,
            "a list of revoked certificates is out of date: no client's certificate is believed until there is the next \
             one; it is taken in by itself"
        ),
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_said_when_it_comes_near_when_it_is_there_and_once_a_day() {
        let (day, ends) = (86_400, 1_800_000_000);
        let (cert, list) = (Path::new("own.pem"), Path::new("ca.crl"));
        let said = |expiry: &mut Expiry, now: i64, until: i64| {
            let dated = [(cert, DatedFile::Certificate, until), (list, DatedFile::RevocationList, ends + 100 * day)];
            let dated = dated.map(|(file, what, until)| Dated { file, what, term: Term { from: 0, until } });
            let due = expiry.due(dated.into_iter(), Timestamp::from_secs(u64::try_from(now).unwrap()));
            due.into_iter().map(|(one, standing)| (one.file, standing)).collect::<Vec<_>>()
        };
        let mut expiry = Expiry::default();
        for (now, until, expected) in [
            (ends - 14 * day, ends, None),
            (ends - 14 * day + 1, ends, Some(Standing::EndsSoon)),
            (ends - 13 * day, ends, None),
            (ends - 13 * day + 1, ends, Some(Standing::EndsSoon)),
            (ends + 1, ends, Some(Standing::Over)),
            (ends + 60, ends, None),
            // Another certificate, which is over too; and one that is not.
            (ends + 61, ends + 60, Some(Standing::Over)),
            (ends + 62, ends + 90 * day, None),
        ] {
            let expected: Vec<_> = expected.map(|standing| (cert, standing)).into_iter().collect();
            assert_eq!(said(&mut expiry, now, until), expected, "{now}");
        }
        assert_eq!(said(&mut expiry, ends + 100 * day + 1, ends + 900 * day), [(list, Standing::Over)]);
        assert_eq!(said(&mut Expiry::default(), ends + 1, ends), [(cert, Standing::Over)], "over at the start");
    }
}
