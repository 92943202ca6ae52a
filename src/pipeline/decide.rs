//! The decision about a request, asked for and noted down: the same for what is proxied and for what another proxy asks about.

use std::sync::Arc;

use http::HeaderMap;

use super::{finish, refuse};
use crate::access::{Decision, Judged, Reason};
use crate::message::head::Head;
use crate::observe::Record;
use crate::state::State;

/// Decides about a request with this head and these headers, and notes in `record` who asked, and why it may go on.
pub(super) async fn decide(state: &State, head: &Arc<Head>, headers: &HeaderMap, record: &mut Record) -> Decision {
    let Judged { decision, asker } = state.access.check(head, headers, &state.shared.current).await;
    record.asker = asker;
    let identity = match &decision {
        Decision::Permit(permit) => permit.identity(),
        Decision::Challenge(challenge) => challenge.identity.as_ref(),
        Decision::Deny(denial) => denial.identity.as_ref(),
        Decision::NotFound { .. } | Decision::Malformed(_) | Decision::Throttled(..) | Decision::Unavailable(_) => None,
    };
    if let Some(identity) = identity {
        record.user = Some(identity.profile.user.clone());
        state.note_return(identity, head, headers);
    }
    if let Decision::Permit(permit) = &decision {
        record.decision = "permit";
        record.decided_by(permit.route());
        record.because(if permit.identity().is_some() { Reason::SignedIn } else { Reason::Public }, None);
        record.upstream = state.upstream_names.get(permit.route().upstream).cloned();
        if let Some(instead) = permit.instead() {
            refuse::observed(record, instead);
        }
        finish::note_sign_in(permit, &record.request_id);
    }
    decision
}
