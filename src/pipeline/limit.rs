//! `rate_limit`: whose request it is that was let pass, and what is said of how many more may come.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::access::{Permit, Proof, Reason};
use crate::config::{Per, RateLimit};
use crate::endpoint::answer::{Asker, Problem};
use crate::message::body::Body;
use crate::observe::{Record, audit};
use crate::state::State;
use crate::throttle::{Quota, Taken};

/// A request that was counted.
#[derive(Debug)]
pub(super) struct Counted {
    limit: RateLimit,
    taken: Taken,
}

/// Of whom a request is counted.
#[derive(Debug, Hash)]
enum Who<'a> {
    /// An account, however its name was spelled.
    Account(&'a str),
    /// Someone whom only another issuer knows.
    Foreign {
        issuer: &'a str,
        name: &'a str,
    },
    /// A session, whichever of its tokens is shown.
    Session(&'a str),
    ApiKey(&'a str),
    /// A token without a session, by its own name.
    Token {
        issuer: &'a str,
        jti: &'a str,
    },
    V4([u8; 4]),
    /// Whoever has an IPv6 address has the /64 around it.
    V6([u8; 8]),
}

/// Counts the request of `permit`, if its route has a limit. What was refused is not counted.
pub(super) fn count(state: &State, permit: &Permit) -> Option<Counted> {
    let (route, head) = (permit.route(), permit.head());
    let limit = route.rate_limit?;
    let user = permit.identity().zip(permit.proof()).map(|(identity, proof)| user(proof, &identity.profile.user));
    let who = match limit.per {
        Per::User => user,
        Per::Key => permit.proof().filter(|_| user.is_some()).and_then(key).or(user),
        Per::Network => None,
    };
    let who = who.unwrap_or_else(|| network(head.client.0));
    let name = (&*route.name, limit.per.word(), limit.rate(), limit.burst);
    let quota = Quota { interval: limit.interval(), burst: limit.burst };
    Some(Counted { limit, taken: state.shared.rates.take(&name, &who, quota, head.now) })
}

impl Counted {
    /// Whether it may come.
    pub(super) const fn may_come(&self) -> bool {
        self.taken.wait.is_none()
    }

    /// Says how many more may come (draft-ietf-httpapi-ratelimit-headers), beside what an application says of its own.
    pub(super) fn announce(&self, headers: &mut HeaderMap) {
        let Taken { wait, left, full_after } = self.taken;
        let window = self.limit.interval().saturating_mul(u32::try_from(self.limit.burst).unwrap_or(u32::MAX));
        let policy = format!("\"{NAME}\";q={};w={}", self.limit.burst, whole_seconds(window));
        // Where nothing is left, the same moment as `Retry-After` says.
        let until = wait.unwrap_or(full_after);
        let state = format!("\"{NAME}\";r={left};t={}", whole_seconds(until));
        for (name, text) in [(POLICY, policy), (LIMIT, state)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.append(name, value);
            }
        }
    }

    /// On a route that is observed it passes all the same, and is told.
    pub(super) fn note(&self, record: &mut Record) {
        let instead = "rate-limited";
        record.because(Reason::RateLimited, None);
        record.observed = Some(instead);
        let (user, client, route) = (record.user(), record.client, record.route.as_deref());
        let reason = &*record.reason;
        audit::Event::WouldDeny { user, client, route, reason, instead }.log(record);
    }

    /// 429.
    pub(super) fn refuse(&self, asker: &Asker<'_>, record: &mut Record) -> Response<Body> {
        record.decision = "rate-limited";
        record.because(Reason::RateLimited, None);
        record.upstream = None;
        let retry_after = self.taken.wait.map(whole_seconds);
        let problem = Problem { detail: "Too many requests", retry_after, ..Problem::default() };
        let mut answer = asker.problem(StatusCode::TOO_MANY_REQUESTS, &problem);
        self.announce(answer.headers_mut());
        answer
    }
}

fn user<'a>(proof: &'a Proof, name: &'a str) -> Who<'a> {
    match (&proof.account, &proof.issuer) {
        (Some(account), _) => Who::Account(account.as_str()),
        (None, Some(issuer)) => Who::Foreign { issuer: &issuer.config().name, name },
        (None, None) => Who::Account(name),
    }
}

/// The credential; `None` for a password, which is no more than the user.
fn key(proof: &Proof) -> Option<Who<'_>> {
    if let Some(key) = &proof.api_key {
        return Some(Who::ApiKey(&key.id));
    }
    if let Some(session) = &proof.session {
        return Some(Who::Session(session));
    }
    let claims = proof.claims.as_ref()?;
    Some(Who::Token { issuer: &claims.iss, jti: claims.jti.as_deref()? })
}

fn network(address: IpAddr) -> Who<'static> {
    match address.to_canonical() {
        IpAddr::V4(address) => Who::V4(address.octets()),
        IpAddr::V6(address) => {
            let mut network = [0; 8];
            network.copy_from_slice(&address.octets()[..8]);
            Who::V6(network)
        }
    }
}

/// Rounded up: who comes then is early no more.
fn whole_seconds(span: std::time::Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

/// What the policy is called in the fields, where an application may have one of its own.
const NAME: &str = "gateway";

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
