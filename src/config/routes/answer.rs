//! Where a route leads: to an upstream, or to an answer of its own, `respond` or `redirect`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use toml::de::DeValue;

use super::super::reader::{Context, Item, Table, Written};
use super::super::secrets::read_at_most;
use super::super::url;
use super::super::values::Fault;
use super::{Known, scope};
use crate::diag::{Diagnostic, Span, quoted};
use crate::pattern::{PathPattern, check_carry};

/// Where a route leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// To the upstream of this index.
    Upstream(usize),
    /// Nowhere: it answers itself.
    Respond(Respond),
    /// Elsewhere.
    Redirect(Redirect),
}

impl Destination {
    /// The index of the upstream, where there is one.
    pub const fn upstream(&self) -> Option<usize> {
        match self {
            Self::Upstream(index) => Some(*index),
            Self::Respond(_) | Self::Redirect(_) => None,
        }
    }
}

/// An answer that a route gives itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    /// Its status.
    pub status: StatusCode,
    /// What it says; `None`: a problem or a page, as the gateway's own errors are.
    pub body: Option<RespondBody>,
    /// When it may be worth another try.
    pub retry_after: Option<Duration>,
}

/// The body of such an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct RespondBody {
    /// Its bytes.
    pub bytes: Bytes,
    /// What they are.
    pub content_type: HeaderValue,
    /// Where they were read; `None`: they are written in the configuration.
    pub file: Option<PathBuf>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// Its status.
    pub status: StatusCode,
    /// The site, `https://host`; `None`: the one that was asked.
    pub origin: Option<String>,
    /// The path there, with what the route's own wildcards stand for.
    pub path: PathPattern,
}

/// Where a route leads, as written.
pub(super) struct Raw {
    upstream: Option<Written<String>>,
    respond: Option<Box<Respond>>,
    redirect: Option<Box<RawRedirect>>,
    /// Which of the three are there.
    ways: Vec<(&'static str, Span)>,
    /// What means nothing without an upstream.
    on_the_way: Vec<(&'static str, Span)>,
}

impl Raw {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let places = |keys: &[&'static str], table: &Table<'_>| -> Vec<_> {
            keys.iter().filter_map(|key| Some((*key, table.place_of(key)?))).collect()
        };
        let (ways, on_the_way) = (places(WAYS, table), places(ON_THE_WAY, table));
        if ways.is_empty() {
            table.require("upstream", "add upstream = \"app\", one of those in [upstreams]");
        }
        Self {
            upstream: table.take("upstream").and_then(|item| item.text()),
            respond: table.table("respond", "routes.respond").and_then(respond).map(Box::new),
            redirect: table.table("redirect", "routes.redirect").map(redirect).map(Box::new),
            ways,
            on_the_way,
        }
    }

    /// The one place that the route leads to; `None`: what is written can't be used.
    pub(super) fn resolve(
        self,
        cx: &Context<'_>,
        path: Option<&Written<PathPattern>>,
        known: &Known<'_>,
    ) -> Option<Destination> {
        let upstream = self.upstream.and_then(|name| known.upstreams.find(cx, &name));
        let redirect = self.redirect.and_then(|redirect| redirect.resolve(cx, path));
        if let [(first, place), others @ ..] = self.ways.as_slice()
            && let Some((other, also)) = others.first()
        {
            let message = format!("`{first}` and `{other}` both say where the route leads");
            let finding = Diagnostic::error("conflicting-keys", message).at(also.clone());
            cx.report(finding.also(place.clone(), "here too").help("keep one of `upstream`, `respond` and `redirect`"));
            return None;
        }
        if let [(way, _)] = self.ways.as_slice()
            && *way != "upstream"
        {
            for (key, place) in &self.on_the_way {
                let message = format!("`{key}` changes nothing: with `{way}` nothing goes on to an application");
                let finding = Diagnostic::error("conflicting-keys", message).at(place.clone());
                cx.report(finding.help(format!("remove `{key}`, or write `upstream` in place of `{way}`")));
            }
        }
        let respond = self.respond.map(|respond| Destination::Respond(*respond));
        upstream.map(Destination::Upstream).or(respond).or(redirect.map(Destination::Redirect))
    }
}

/// The same as written.
struct RawRedirect {
    status: StatusCode,
    to: Option<Written<(Option<String>, PathPattern)>>,
}

/// `respond`; what can't be used is reported.
fn respond(mut table: Table<'_>) -> Option<Respond> {
    let cx = table.cx;
    table.require("status", "add status = 503, or the status that is meant");
    let status = table.take("status").and_then(|item| item.count(200, 599));
    let body = table.take("body");
    let content_type = table.take("content_type").and_then(|item| item.parsed("bad-header", media_type));
    let retry_after = table.duration("retry_after");
    if let (None, Some(content_type)) = (&body, &content_type) {
        let finding = Diagnostic::error("conflicting-keys", "`content_type` without a `body`").at(content_type.span());
        cx.report(
            finding.help("add body = \"…\" or { file = \"path\" }; without one the gateway says it in its own words"),
        );
    }
    table.finish();
    let status = status?;
    // 401 and 407 ask for a credential, which is for `allow` to do; a redirect has a key of its own.
    let is_bodiless = matches!(*status.get_ref(), 204 | 205);
    let is_other = matches!(*status.get_ref(), 300..=399 | 401 | 407);
    if is_other || (is_bodiless && body.is_some()) {
        let message = format!("`respond` can't answer {}", status.get_ref());
        let message = if is_other { message } else { format!("{message} with a body") };
        let finding = Diagnostic::error("out-of-range", message).at(status.span());
        cx.report(
            finding.help("write 200, 404, 410, 503 or another answer; for 3xx write `redirect`, for 401 `allow`"),
        );
        return None;
    }
    let body = match body {
        Some(item) => Some(self::body(&item, content_type.map(Written::into_inner))?),
        None => None,
    };
    let status = u16::try_from(status.into_inner()).ok().and_then(|status| StatusCode::from_u16(status).ok())?;
    Some(Respond { status, body, retry_after: retry_after.map(Written::into_inner) })
}

fn body(item: &Item<'_>, content_type: Option<HeaderValue>) -> Option<RespondBody> {
    let is_file = |table: &toml::de::DeTable<'_>| table.keys().any(|key| key.get_ref() == "file");
    let (bytes, file) = match item.value.get_ref() {
        DeValue::Table(table) if is_file(table) => {
            let mut table: Table<'_> = item.table("secret.*")?;
            let file = table.take("file").and_then(|file| file.text());
            table.finish();
            let (path, bytes) = file_body(item.cx, &file?)?;
            (bytes, Some(path))
        }
        _ => (item.string()?.into_inner().into_bytes(), None),
    };
    let by_name = || {
        let extension = file.as_deref().and_then(Path::extension).and_then(|extension| extension.to_str());
        HeaderValue::from_static(match extension {
            Some("html" | "htm") => "text/html; charset=utf-8",
            Some("json") => "application/json",
            _ => "text/plain; charset=utf-8",
        })
    };
    Some(RespondBody { bytes: bytes.into(), content_type: content_type.unwrap_or_else(by_name), file })
}

fn file_body(cx: &Context<'_>, file: &Written<String>) -> Option<(PathBuf, Vec<u8>)> {
    let path = cx.directory.join(file.get_ref());
    cx.depends_on(path.clone());
    match read_at_most(&path, LONGEST) {
        Ok(bytes) => Some((path, bytes)),
        Err(reason) => {
            let message = format!("the file {} can't be read: {reason}", quoted(&path.to_string_lossy()));
            let finding = Diagnostic::error("unreadable-file", message).at(file.span());
            cx.report(finding.help("a relative path starts at the directory of this configuration"));
            None
        }
    }
}

fn media_type(text: &str) -> Result<HeaderValue, Fault> {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let value = HeaderValue::from_str(text).ok().filter(|_| is_type);
    value.ok_or_else(|| {
        let help = "write \"text/plain; charset=utf-8\", \"text/html; charset=utf-8\" or another";
        Fault::new(format!("{} is not a media type", quoted(text)), "not a media type", help)
    })
}

/// `redirect`; what can't be used is reported.
fn redirect(mut table: Table<'_>) -> RawRedirect {
    table.require("to", "add to = \"https://new.example.com/**\", or a path of the same site such as \"/new/**\"");
    let raw = RawRedirect {
        to: table.take("to").and_then(|item| {
            item.mask_user();
            item.parsed("bad-url", place)
        }),
        status: table.take("status").and_then(|item| status(&item)).unwrap_or(StatusCode::PERMANENT_REDIRECT),
    };
    table.finish();
    raw
}

fn status(item: &Item<'_>) -> Option<StatusCode> {
    let written = item.count(300, 399)?;
    let known = [301, 302, 303, 307, 308].into_iter().find(|status| u64::from(*status) == *written.get_ref());
    if known.is_none() {
        let finding = Diagnostic::error("out-of-range", format!("{} is no redirect", written.get_ref()));
        let help = "write 308 (for good) or 307 (for now), which keep the method; 301, 302 and 303 turn it into GET";
        item.cx.report(finding.at(written.span()).help(help));
    }
    known.and_then(|status| StatusCode::from_u16(status).ok())
}

/// A site with a path, or a path alone.
fn place(text: &str) -> Result<(Option<String>, PathPattern), Fault> {
    let (site, path) = match text.find("://") {
        None => (None, text),
        Some(at) => {
            let end = text[at + 3..].find(['/', '?', '#']).map_or(text.len(), |slash| at + 3 + slash);
            (Some(&text[..end]), &text[end..])
        }
    };
    let path = if path.is_empty() { "/" } else { path };
    // To a browser, `//host` is another site.
    if site.is_none() && path.starts_with("//") {
        let help = format!("write \"https:{path}\" for another site, \"{}\" for a path", &path[1..]);
        return Err(Fault::new(format!("{} has no scheme", quoted(text)), "a site or a path?", help));
    }
    let path = scope::pattern(PathPattern::parse(path))?;
    let Some(site) = site else { return Ok((None, path)) };
    let url::Origin { scheme, host, port } = url::origin(site)?;
    if !matches!(scheme.as_str(), "http" | "https") {
        let message = format!("{} is not a scheme that browsers are redirected to", quoted(&scheme));
        return Err(Fault::new(message, "not http or https", format!("write \"https://{host}\"")));
    }
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Ok((Some(format!("{scheme}://{host}{port}")), path))
}

impl RawRedirect {
    /// Every wildcard of `to` must be one of `path`.
    fn resolve(self, cx: &Context<'_>, path: Option<&Written<PathPattern>>) -> Option<Redirect> {
        let to = self.to?;
        let (origin, target) = to.get_ref().clone();
        if let Err(error) = check_carry(path?.get_ref(), &target) {
            let finding = Diagnostic::error("bad-path", format!("`to`: {}", error.message)).at(to.span());
            cx.report(finding.label("nothing to fill it from").help(error.help));
        }
        Some(Redirect { status: self.status, origin, path: target })
    }
}

/// A page for people, not a download.
const LONGEST: u64 = 1 << 20;

/// Where a route can lead.
const WAYS: &[&str] = &["upstream", "respond", "redirect"];

/// What changes a request on its way to an upstream, or decides how long that may take.
const ON_THE_WAY: &[&str] = &[
    "strip_prefix",
    "rewrite",
    "set_host",
    "request_headers",
    "forward_token",
    "upgrade",
    "timeouts",
    "retries",
    "identity",
    "body_bytes",
];
