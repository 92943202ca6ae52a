//! Whether traffic should come here: a list of checks, each with a word on how it stands.
//!
//! A part of the gateway that can make it useless adds a check ([`Readiness::add`]). One that only may be in trouble says
//! so in its text and stays good: a gateway that is taken out of traffic learns no more of its upstreams, and would come
//! back and go again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::access::Current;
use crate::state::{Shared, State};
use crate::token::Keyring;
use crate::token::foreign::Issuer;
use crate::upstream::{Checked, Pool, Standing};

/// What `/readyz` is judged by.
pub(super) struct Readiness {
    checks: Vec<(&'static str, Check)>,
    is_draining: AtomicBool,
}

/// Asks how things stand.
type Check = Box<dyn Fn() -> Vec<Finding> + Send + Sync>;

/// How one thing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Which thing, where a check is about several: an upstream, an issuer.
    pub(super) subject: Option<String>,
    /// `Err`: not ready, and why.
    pub(super) verdict: Result<String, String>,
}

impl Finding {
    fn about_all(verdict: Result<String, String>) -> Vec<Self> {
        vec![Self { subject: None, verdict }]
    }
}

impl Readiness {
    /// The checks of what a gateway has: the store, its keys, its upstreams, other issuers.
    pub(super) fn new(state: &State) -> Self {
        let mut readiness = Self { checks: Vec::new(), is_draining: AtomicBool::new(false) };
        let shared = Arc::clone(&state.shared);
        readiness.add("store", move || Finding::about_all(store(&shared)));
        let shared = Arc::clone(&state.shared);
        readiness.add("keys", move || Finding::about_all(signs(&shared.own_keys.ring(), &shared.clock)));
        let shared = Arc::clone(&state.shared);
        readiness.add("upstream", move || upstreams(&shared));
        let current = Arc::clone(&state.shared.current);
        readiness.add("issuer", move || issuers(&current));
        readiness
    }

    /// With one more check. It is asked at every probe, so it must not wait.
    pub(super) fn add(&mut self, name: &'static str, check: impl Fn() -> Vec<Finding> + Send + Sync + 'static) {
        self.checks.push((name, Box::new(check)));
    }

    /// From now on traffic should go elsewhere.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    /// Why traffic should go elsewhere, if it should.
    pub(super) fn problem(&self) -> Option<String> {
        self.findings().into_iter().find_map(|(name, finding)| match finding {
            Finding { subject: Some(subject), verdict: Err(why) } => Some(format!("{name} {subject}: {why}")),
            Finding { subject: None, verdict: Err(why) } => Some(why),
            Finding { verdict: Ok(_), .. } => None,
        })
    }

    /// One line for each thing: `[+]` where it is good, `[-]` where not.
    pub(super) fn list(&self) -> String {
        let line = |(name, finding): (&str, Finding)| {
            let subject = finding.subject.map(|subject| format!(" {subject}")).unwrap_or_default();
            let (mark, text) = match finding.verdict {
                Ok(text) => ('+', text),
                Err(text) => ('-', text),
            };
            format!("[{mark}] {name}{subject}: {text}\n")
        };
        self.findings().into_iter().map(line).collect()
    }

    fn findings(&self) -> Vec<(&'static str, Finding)> {
        let draining = self.is_draining.load(Ordering::SeqCst);
        let verdict = if draining { Err("draining".to_owned()) } else { Ok("not draining".to_owned()) };
        let drain = ("drain", Finding { subject: None, verdict });
        let found = |(name, check): &(&'static str, Check)| {
            let name = *name;
            check().into_iter().map(move |finding| (name, finding)).collect::<Vec<_>>()
        };
        std::iter::once(drain).chain(self.checks.iter().flat_map(found)).collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.findings()).finish()
    }
}

fn store(shared: &Shared) -> Result<String, String> {
    if shared.store.is_none() {
        return Ok("there is none".to_owned());
    }
    match shared.people.follower.staleness(Instant::now()) {
        Some(age) if age <= shared.current.load().max_staleness() => Ok(format!("read {:.1} s ago", age.as_secs_f64())),
        _ => Err("the store does not answer".to_owned()),
    }
}

fn signs(keys: &Keyring, clock: &crate::clock::Clock) -> Result<String, String> {
    let keys = keys.load();
    match keys.key_ids().count() {
        0 => Err("there is no key to sign with".to_owned()),
        1 => Ok(format!("signs with {}", keys.signing_key_id(clock.now()))),
        count => Ok(format!("signs with {}, one of {count}", keys.signing_key_id(clock.now()))),
    }
}

/// An issuer without keys is one whose people get 503. Once they have come they stay good for a day, so that one that is
/// down makes nobody go.
pub(super) fn issuers(current: &Current) -> Vec<Finding> {
    let access = current.load();
    let stands = |issuer: &Arc<Issuer>| {
        let status = issuer.status();
        let verdict = match (status.keys, status.error) {
            (0, Some(error)) => Err(format!("has no keys: {error}")),
            (0, None) => Err("its keys have not come yet".to_owned()),
            (keys, Some(error)) => Ok(format!("{keys} keys, though it was asked in vain: {error}")),
            (keys, None) => Ok(format!("{keys} keys")),
        };
        Finding { subject: Some(issuer.config().name.to_string()), verdict }
    };
    access.issuers().iter().map(stands).collect()
}

/// An upstream is as good as its best server. Only checks say that none is well: without them an upstream counts as up,
/// whatever was seen of it, as the module says why.
fn upstreams(shared: &Shared) -> Vec<Finding> {
    shared.pools.load().iter().flat_map(|pool| upstream(pool)).collect()
}

fn upstream(pool: &Pool) -> Vec<Finding> {
    let settings = pool.settings();
    let mut servers = Vec::new();
    let mut well = 0;
    for (at, backend) in pool.backends().enumerate() {
        let (checked, standing) = (backend.health().checked(), pool.standing(at));
        well += usize::from(checked != Checked::Down);
        let text = match (standing, checked) {
            (Some(Standing::Down) | None, _) => "down: it fails its checks",
            (Some(Standing::Out), _) => "left out for a while: it failed requests",
            (Some(Standing::In(_)), Checked::Up) => "up",
            (Some(Standing::In(_)), Checked::Not | Checked::Down) if settings.health.check.is_some() => {
                "not checked yet, counts as up"
            }
            (Some(Standing::In(_)), Checked::Not | Checked::Down) => "counts as up",
        };
        let text = format!("{text}; {} requests in progress", backend.in_flight());
        // One server of several in trouble is no reason to go elsewhere.
        servers.push(Finding { subject: Some(format!("{} {}", settings.name, backend.label())), verdict: Ok(text) });
    }
    let (mut opened, mut failed) = (0, 0);
    for (result, count) in pool.counts().connects.values() {
        if result == "success" {
            opened += count;
        } else {
            failed += count;
        }
    }
    let verdict = match (&settings.health.check, well) {
        (None, _) => Ok(format!("has no health check and counts as up; {opened} connections opened, {failed} failed")),
        (Some(_), 0) => Err("none of its servers is well".to_owned()),
        (Some(_), well) => Ok(format!("{well} of {} servers are well", servers.len())),
    };
    let all = Finding { subject: Some(settings.name.clone()), verdict };
    if servers.len() > 1 || settings.health.check.is_some() { [vec![all], servers].concat() } else { vec![all] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_fails_is_enough_and_all_are_listed() {
        let mut readiness = Readiness { checks: Vec::new(), is_draining: AtomicBool::new(false) };
        readiness.add("store", || Finding::about_all(Ok("fine".to_owned())));
        assert_eq!(readiness.problem(), None);
        readiness.add("issuer", || {
            let about = |subject: &str, verdict| Finding { subject: Some(subject.to_owned()), verdict };
            vec![about("corp", Ok("keys read".to_owned())), about("other", Err("no keys yet".to_owned()))]
        });
        assert_eq!(readiness.problem().as_deref(), Some("issuer other: no keys yet"));
        let list =
            "[+] drain: not draining\n[+] store: fine\n[+] issuer corp: keys read\n[-] issuer other: no keys yet\n";
        assert_eq!(readiness.list(), list);
        readiness.drain();
        assert_eq!(readiness.problem().as_deref(), Some("draining"));
        assert!(readiness.list().starts_with("[-] drain: draining\n"));
    }
}
