//! What `/metrics` says: reads every counter of the process and writes the page.
//!
//! A new metric gets its line here; `metrics` says what else it needs.

use std::sync::Arc;
use std::time::Instant;

use crate::metrics::{Format, Page, family, write_process};
use crate::state::{Shared, State};
use crate::upstream::{Backend, Pool, Standing};

/// Where the numbers are.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    shared: Arc<Shared>,
}

impl Scrape {
    pub(super) fn of(state: &State) -> Self {
        Self { shared: Arc::clone(&state.shared) }
    }

    /// The page. Reads `/proc` and may be long: not for a thread that others wait for.
    pub(super) fn page(&self, format: Format) -> String {
        let mut page = Page::new(format);
        page.routes(&self.shared.metrics.routes);
        self.credentials(&mut page);
        self.issuers(&mut page);
        self.store(&mut page);
        self.reloads(&mut page);
        self.upstreams(&mut page);
        self.backends(&mut page);
        self.listeners(&mut page);
        page.family(&family::LINES_DROPPED).value(&[], self.shared.access_log.load().lost());
        page.family(&family::SPANS_EXPORTED).value(&[], self.shared.metrics.spans_exported.value());
        page.family(&family::SPANS_DROPPED).words(&[], &self.shared.metrics.spans_dropped);
        page.family(&family::BUILD).value(&[env!("CARGO_PKG_VERSION")], 1);
        write_process(&mut page, self.shared.metrics.started);
        page.finish()
    }

    fn credentials(&self, page: &mut Page) {
        let (metrics, sign_in) = (&self.shared.metrics, &self.shared.sign_in);
        page.family(&family::LOGINS).words(&[], sign_in.logins());
        page.family(&family::PASSWORDS_WAITING).value(&[], sign_in.passwords().waiting.value());
        page.family(&family::PASSWORDS_REJECTED).value(&[], sign_in.passwords().rejected.value());
        let mut lookups = page.family(&family::TOKEN_CACHE_LOOKUPS);
        lookups.value(&["hit"], metrics.tokens.hits.value());
        lookups.value(&["miss"], metrics.tokens.misses.value());
        page.family(&family::TOKEN_CACHE_ENTRIES).value(&[], self.shared.current.load().tokens_remembered());
        page.family(&family::REVOCATIONS).value(&[], self.shared.people.revocations.len());
    }

    fn issuers(&self, page: &mut Page) {
        let access = self.shared.current.load();
        let all: Vec<_> = access.issuers().iter().map(|issuer| (&issuer.config().name, issuer.status())).collect();
        let mut samples = page.family(&family::ISSUER_KEYS);
        all.iter().for_each(|(name, status)| samples.value(&[name], status.keys));
        let mut samples = page.family(&family::ISSUER_KEYS_AGE);
        for (name, status) in &all {
            if let Some(age) = status.age {
                samples.value(&[name], age.as_secs_f64());
            }
        }
        let mut samples = page.family(&family::ISSUER_FETCHES);
        for (name, status) in &all {
            samples.value(&[name, "success"], status.succeeded);
            samples.value(&[name, "failure"], status.failed);
        }
        let mut samples = page.family(&family::ISSUER_FETCH_SUCCESSFUL);
        all.iter().for_each(|(name, status)| samples.value(&[name], u8::from(status.error.is_none())));
    }

    fn store(&self, page: &mut Page) {
        page.family(&family::STORE_UP).value(&[], self.shared.metrics.store_up.value());
        let mut staleness = page.family(&family::STORE_STALENESS);
        if let Some(age) = self.shared.people.follower.staleness(Instant::now()) {
            staleness.value(&[], age.as_secs_f64());
        }
    }

    fn reloads(&self, page: &mut Page) {
        let reloads = &self.shared.metrics.reloads;
        page.family(&family::RELOADS).words(&[], reloads.counts());
        page.family(&family::RELOAD_SUCCESSFUL).value(&[], reloads.successful());
        page.family(&family::RELOAD_TIMESTAMP).value(&[], reloads.since());
    }

    fn upstreams(&self, page: &mut Page) {
        let all = self.shared.metrics.upstreams.all();
        let mut samples = page.family(&family::UPSTREAM_CONNECTS);
        all.iter().for_each(|(name, counts)| samples.words(&[name], &counts.connects));
        let mut samples = page.family(&family::UPSTREAM_ERRORS);
        all.iter().for_each(|(name, counts)| samples.words(&[name], &counts.errors));
        let mut samples = page.family(&family::UPSTREAM_CONNECTIONS);
        all.iter().for_each(|(name, counts)| samples.value(&[name], counts.connections.value()));
        let mut samples = page.family(&family::UPSTREAM_WAITING);
        all.iter().for_each(|(name, counts)| samples.value(&[name], counts.waiting.value()));
        let mut samples = page.family(&family::UPSTREAM_RETRIES);
        all.iter().for_each(|(name, counts)| samples.words(&[name], &counts.retries));
        let mut samples = page.family(&family::UPSTREAM_RETRIES_HELD_BACK);
        all.iter().for_each(|(name, counts)| samples.value(&[name], counts.retries_held_back.value()));
    }

    fn backends(&self, page: &mut Page) {
        let pools = self.shared.pools.load();
        let all: Vec<_> =
            pools.iter().flat_map(|pool| pool.backends().enumerate().map(move |one| (pool, one))).collect();
        let each = |page: &mut Page, family, value: &dyn Fn(&Pool, usize, &Backend) -> u64| {
            let mut samples = page.family(family);
            for (pool, (at, backend)) in &all {
                samples.value(&[backend.name(), backend.label()], value(pool, *at, backend));
            }
        };
        each(page, &family::BACKEND_UP, &|pool, at, _| matches!(pool.standing(at), Some(Standing::In(_))).into());
        each(page, &family::BACKEND_IN_PROGRESS, &|_, _, one| u64::try_from(one.in_flight()).unwrap_or(u64::MAX));
        each(page, &family::BACKEND_REQUESTS, &|_, _, one| one.tally().requests.value());
        each(page, &family::BACKEND_EJECTIONS, &|_, _, one| one.tally().ejections.value());
    }

    fn listeners(&self, page: &mut Page) {
        let all = self.shared.metrics.listeners.all();
        let mut samples = page.family(&family::CONNECTIONS);
        all.iter().for_each(|(address, counts)| samples.value(&[address], counts.open.value()));
        let mut samples = page.family(&family::CONNECTIONS_ACCEPTED);
        all.iter().for_each(|(address, counts)| samples.value(&[address], counts.accepted.value()));
        let mut samples = page.family(&family::CONNECTIONS_UNINTRODUCED);
        all.iter().for_each(|(address, counts)| samples.value(&[address], counts.unintroduced.value()));
        let mut samples = page.family(&family::HANDSHAKES_FAILED);
        all.iter().for_each(|(address, counts)| samples.words(&[address], &counts.handshakes_failed));
        let metrics = &self.shared.metrics;
        page.family(&family::CONNECTIONS_REFUSED).value(&[], metrics.connections_refused.value());
        page.family(&family::TUNNELS).value(&[], metrics.tunnels.open.value());
        page.family(&family::TUNNELS_OPENED).value(&[], metrics.tunnels.opened.value());
        let all = metrics.certificates.all();
        let mut samples = page.family(&family::CERTIFICATE_EXPIRY);
        all.iter().for_each(|(file, expiry)| samples.value(&[file], expiry.value()));
        let all = metrics.revocation_lists.all();
        let mut samples = page.family(&family::CRL_EXPIRY);
        all.iter().for_each(|(file, expiry)| samples.value(&[file], expiry.value()));
    }
}
