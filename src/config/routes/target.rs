//! What becomes of a request's path and host on the way to the upstream, as written.

use http::HeaderValue;
use toml::de::DeValue;

use super::super::reader::{Context, Item, Written};
use super::super::values::Fault;
use super::super::{Upstream, sign_in, url};
use super::Route;
use crate::diag::{Diagnostic, quoted};
use crate::pattern::{PathPattern, Segment, check_carry};

/// How a route changes the path that goes on.
#[derive(Clone, Copy, Debug)]
pub enum PathChange<'a> {
    /// Not at all.
    None,
    /// This is cut from its front, by whole segments.
    Cut(&'a str),
    /// What `from` covers becomes what `to` says.
    Rewritten {
        /// The route's own pattern.
        from: &'a PathPattern,
        /// Its `rewrite`.
        to: &'a PathPattern,
    },
}

impl Route {
    /// How the path changes that goes on.
    pub fn path_change(&self) -> PathChange<'_> {
        match (&self.rewrite, &self.strip_prefix) {
            (Some(to), _) => PathChange::Rewritten { from: &self.path, to },
            (None, Some(prefix)) => PathChange::Cut(prefix),
            (None, None) => PathChange::None,
        }
    }
}

/// `set_host` as written.
#[derive(Clone, Debug)]
pub(super) enum RawHost {
    /// The upstream's own.
    Upstream,
    /// The client's, as without the key.
    Client,
    /// This.
    Named(HeaderValue),
}

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

/// Every wildcard of `rewrite` must be one of `path`, and only one of the two keys can decide about the path.
pub(super) fn judge_rewrite(
    cx: &Context<'_>,
    rewrite: &Written<PathPattern>,
    prefix: Option<&Written<String>>,
    path: Option<&Written<PathPattern>>,
) {
    if let Some(prefix) = prefix {
        let message = "`rewrite` and `strip_prefix` both say what becomes of the path";
        let finding = Diagnostic::error("conflicting-keys", message).at(rewrite.span());
        cx.report(finding.also(prefix.span(), "here too").help("keep `rewrite`: it can leave out a prefix as well"));
    }
    if let Some(Err(error)) = path.map(|path| check_carry(path.get_ref(), rewrite.get_ref())) {
        let finding = Diagnostic::error("bad-path", format!("`rewrite`: {}", error.message)).at(rewrite.span());
        cx.report(finding.label("nothing to fill it from").help(error.help));
    }
}

pub(super) fn host(item: &Item<'_>) -> Option<Written<RawHost>> {
    match item.value.get_ref() {
        DeValue::Boolean(own) => {
            let host = if *own { RawHost::Upstream } else { RawHost::Client };
            Some(Written::new(item.span(), host))
        }
        DeValue::String(_) | DeValue::Table(_) => item.parsed("bad-host", |text| named(text).map(RawHost::Named)),
        _ => item.wrong_type("a host or `true`", Some("write \"app.internal\", or true for the upstream's own")),
    }
}

/// A host, and a port where it is not the scheme's own.
fn named(text: &str) -> Result<HeaderValue, Fault> {
    let fault = || {
        let help = "write a host name, with a port if it is part of it: \"app.internal\" or \"app.internal:8080\"";
        Fault::new(format!("{} is not a host", quoted(text)), "not a host", help)
    };
    if text.contains(['/', '@']) {
        return Err(fault());
    }
    let url::Origin { host, port, .. } = url::origin(&format!("http://{text}")).map_err(|_| fault())?;
    let host = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    HeaderValue::try_from(host).map_err(|_| fault())
}

/// The host that is sent; `None`: the client's.
pub(super) fn sent_host(cx: &Context<'_>, host: &Written<RawHost>, upstream: &Upstream) -> Option<HeaderValue> {
    let own = match host.get_ref() {
        RawHost::Client => return None,
        RawHost::Named(host) => return Some(host.clone()),
        RawHost::Upstream => upstream.servers.iter().map(|server| super::super::upstreams::host_of(&server.address)),
    };
    let mut own: Vec<String> = own.collect();
    own.dedup();
    let [host_of_all] = own.as_slice() else {
        if !own.is_empty() {
            let message = format!("the servers of {} have different hosts", quoted(&upstream.name));
            let finding = Diagnostic::error("bad-host", message).at(host.span()).label("which of them?");
            cx.report(finding.help(format!("write the one that is meant: set_host = \"{}\"", own[0])));
        }
        return None;
    };
    HeaderValue::try_from(host_of_all.as_str()).ok()
}
