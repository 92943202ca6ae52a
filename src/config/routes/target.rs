//! What becomes of a request's path and host on the way to the upstream, as written.

use super::super::reader::{Context, Written};
use super::super::sign_in;
use super::super::values::Fault;
use crate::diag::{Diagnostic, quoted};
use crate::pattern::{PathPattern, Segment};

pub(super) fn prefix(text: &str) -> Result<String, Fault> {
    let bare = text.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(text);
    sign_in::normal_path(bare).map(|()| bare.to_owned())
}

/// Every path of the route must begin with the prefix, by whole segments.
pub(super) fn judge_prefix(cx: &Context<'_>, prefix: &Written<String>, path: &PathPattern) {
    let Ok(wanted) = PathPattern::parse(prefix.get_ref()) else { return };
    let wanted =
        wanted.segments().iter().filter(|segment| !matches!(segment, Segment::Literal(text) if text.is_empty()));
    let mut segments = path.segments().iter();
    if wanted.into_iter().any(|wanted| segments.next() != Some(wanted)) {
        let message = format!("not every path of {} begins with {}", quoted(path.as_str()), quoted(prefix.get_ref()));
        let finding = Diagnostic::error("bad-prefix", message).at(prefix.span()).label("not a prefix of `path`");
        cx.report(finding.help("write whole segments that `path` begins with: \"/api\" for \"/api/**\""));
    }
}
