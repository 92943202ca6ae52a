//! Until when certificates hold: those that clients are shown, and those that the gateway shows to upstreams.

use std::fs::File;
use std::path::Path;

use super::Check;
use crate::clock::Timestamp;
use crate::config::{CertificateFacts, Facts};

/// Each certificate that the gateway shows for itself.
pub(super) fn certificates(facts: &Facts, now: Timestamp) -> Vec<Check> {
    facts.certificates.iter().map(|certificate| judged(certificate, now)).collect()
}

fn judged(certificate: &CertificateFacts, now: Timestamp) -> Check {
    let CertificateFacts { upstream, cert, key, from, until } = certificate;
    let (name, whom) = match upstream {
        Some(upstream) => (format!("certificate for {upstream}"), "the upstream refuses it"),
        None => ("certificate".to_owned(), "browsers refuse it"),
    };
    let renew = "put a new one into the file; the gateway takes it in without a restart";
    let day = |seconds: u64| Timestamp::from_secs(seconds).rfc3339().get(..10).unwrap_or_default().to_owned();
    let (file, now) = (cert.display(), now.as_secs());
    if now > *until {
        return Check::fail(name, format!("{file} expired on {}: {whom}", day(*until)), renew);
    }
    if now < *from {
        return Check::fail(name, format!("{file} does not hold before {}: {whom}", day(*from)), renew);
    }
    for path in [cert, key] {
        if let Err(error) = File::open(path) {
            return unreadable(name, path, &error);
        }
    }
    let left = until - now;
    if left < SOON.min(until.saturating_sub(*from) / 3) {
        return Check::warn(name, format!("{file} expires on {}", day(*until)), renew);
    }
    Check::ok(name, format!("{file} holds until {}", day(*until)))
}

/// What is in force is in memory: only the next reload or start needs the file.
fn unreadable(name: String, path: &Path, error: &std::io::Error) -> Check {
    let found = format!("{} can't be read: {error}", path.display());
    let help = "the next reload or start needs it: put it where it was, and let the gateway's user read it (doctor reads as \
                whoever runs it)";
    Check::warn(name, found, help)
}

/// As `check` has it: within two weeks, or a third of the certificate's life.
const SOON: u64 = 14 * 86_400;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_days_and_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = (directory.path().join("c.pem"), directory.path().join("c.key"));
        std::fs::write(&cert, "").unwrap();
        std::fs::write(&key, "").unwrap();
        let day = 86_400;
        let (from, until) = (20_000 * day, 20_100 * day);
        let facts = CertificateFacts { upstream: Some("api".to_owned()), cert, key: key.clone(), from, until };
        let at = |moment: u64| judged(&facts, Timestamp::from_secs(moment));
        for (moment, verdict, said) in [
            (from - 1, Verdict::Fail, "does not hold before 2024-10-04"),
            (from, Verdict::Ok, "holds until 2025-01-12"),
            (until - SOON, Verdict::Ok, "holds until 2025-01-12"),
            (until - SOON + 1, Verdict::Warn, "expires on 2025-01-12"),
            (until, Verdict::Warn, "expires on 2025-01-12"),
            (until + 1, Verdict::Fail, "expired on 2025-01-12: the upstream refuses it"),
        ] {
            let check = at(moment);
            assert_eq!((check.check.as_str(), check.result), ("certificate for api", verdict), "{check:?}");
            assert!(check.found.contains(said), "{check:?}");
        }
        std::fs::remove_file(&key).unwrap();
        let gone = at(from);
        assert!(gone.result == Verdict::Warn && gone.found.contains("c.key can't be read"), "{gone:?}");
    }
}
