//! The decision about a request, asked for and noted down: the same for what is proxied and for what another proxy asks about.

use std::sync::Arc;

use http::HeaderMap;

use super::{finish, refuse};
use crate::access::{Decision, Judged, Permit, Reason};
use crate::message::head::Head;
use crate::observe::{Record, User};
use crate::state::State;

/// Decides about a request with this head and these headers, and notes in `record` who asked.
pub(super) async fn ask(state: &State, head: &Arc<Head>, headers: &HeaderMap, record: &mut Record) -> Decision {
    let Judged { decision, asker } = state.access.check(head, headers, &state.shared.current).await;
    record.asker = asker;
    let identity = match &decision {
        Decision::Permit(permit) => permit.identity(),
        Decision::Challenge(challenge) => challenge.identity.as_ref(),
        Decision::Deny(denial) => denial.identity.as_ref(),
        Decision::NotFound { .. } | Decision::Malformed(_) | Decision::Throttled(..) | Decision::Unavailable(_) => None,
    };
    if let Some(identity) = identity {
        // The same that is noted as the asker, where the decision knows of anybody.
        record.user = User::Asker;
        state.note_return(identity, head, headers);
    }
    decision
}

/// Notes that a request may go on, and why.
pub(super) fn note_permit(state: &State, permit: &Permit, record: &mut Record) {
    let route = permit.route();
    record.decision = "permit";
    record.decided_by(route);
    let reason = match permit.identity() {
        _ if permit.is_preflight() => Reason::Preflight,
        Some(_) => Reason::SignedIn,
        None => Reason::Public,
    };
    record.because(reason, None);
    record.upstream = route.to.upstream().and_then(|upstream| state.upstream_names.get(upstream)).cloned();
    if let Some(instead) = permit.instead() {
        refuse::observed(record, instead);
    }
    finish::note_sign_in(permit, record);
}
