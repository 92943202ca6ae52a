//! `request_headers` and `response_headers`: fields that a route sets, adds and removes, as written and checked.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use toml::de::DeValue;

use super::super::reader::{Context, Item, Table, Written};
use super::super::secrets;
use super::super::values::Fault;
use crate::diag::{Diagnostic, Span, quoted};
use crate::message::cookie;
use crate::message::headers::{IdentityNames, reads_as};

/// What a route changes in the fields of a request, or of an answer. Every name is in it once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// What replaces every field of the name. A value that nobody is to see is marked as sensitive.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// What stands beside those that are there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// What goes.
    pub remove: Vec<HeaderName>,
}

/// Whose fields are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The request's, on its way to the upstream.
    Request,
    /// The answer's.
    Response,
}

/// The same as written, with the place of each name.
#[derive(Default)]
pub(super) struct RawEdits {
    pub(super) edits: HeaderEdits,
    pub(super) places: Vec<(HeaderName, Span)>,
}

impl RawEdits {
    pub(super) fn read(mut table: Table<'_>, way: Way) -> Self {
        let mut raw = Self::default();
        let (set, add, remove) = (table.take("set"), table.take("add"), table.take("remove"));
        let cx = table.cx;
        table.finish();
        if let Some(set) = set {
            raw.edits.set = raw.fields(&set, way);
        }
        if let Some(add) = add {
            raw.edits.add = raw.fields(&add, way);
            if let Some((_, place)) = raw.places.iter().find(|(name, _)| {
                *name == header::AUTHORIZATION && raw.edits.add.iter().any(|(added, _)| added == name)
            }) {
                let finding = Diagnostic::error("bad-header", "a request has one `Authorization`").at(place.clone());
                cx.report(finding.label("can't be added").help("write it in `set`, which replaces the client's"));
            }
        }
        for item in remove.and_then(|remove| remove.list()).map(Written::into_inner).unwrap_or_default() {
            if let Some(name) = item.parsed("bad-header", |text| edited(text, way)) {
                raw.edits.remove.push(name.get_ref().clone());
                raw.note(cx, name.get_ref(), name.span());
            }
        }
        raw
    }

    fn fields(&mut self, item: &Item<'_>, way: Way) -> Vec<(HeaderName, HeaderValue)> {
        let Some(mut table) = item.table("headers.*") else { return Vec::new() };
        let mut fields = Vec::new();
        for (name, item) in table.take_all() {
            let place = name.span();
            match edited(name.get_ref(), way) {
                Ok(name) => {
                    self.note(item.cx, &name, place);
                    fields.extend(value(&name, &item).map(|value| (name, value)));
                }
                Err(Fault { message, label, help }) => {
                    let finding = Diagnostic::error("bad-header", message).at(place).label(label);
                    item.cx.report(finding.help(help));
                }
            }
        }
        fields
    }

    fn note(&mut self, cx: &Context<'_>, name: &HeaderName, place: Span) {
        if let Some((_, first)) = self.places.iter().find(|(known, _)| known == name) {
            let message = format!("the header {} is named twice", quoted(name.as_str()));
            let finding = Diagnostic::error("duplicate-header", message).at(place.clone());
            let finding = finding.also(first.clone(), "the other time");
            cx.report(finding.help("`set` replaces what is there: name it once, in `set`, `add` or `remove`"));
        }
        self.places.push((name.clone(), place));
    }
}

impl HeaderEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// What is set or added under `name`.
    fn given(&self, name: &HeaderName) -> HeaderMap {
        self.set.iter().chain(&self.add).filter(|(given, _)| given == name).cloned().collect()
    }
}

/// Reports what only the gateway itself may say: names that tell who is there, and its cookie.
pub(in crate::config) fn judge(
    cx: &Context<'_>,
    edits: [&HeaderEdits; 2],
    places: &[(HeaderName, Span)],
    guarded: &IdentityNames,
    our_cookie: &str,
) {
    if places.is_empty() {
        return;
    }
    for (name, place) in places.iter().filter(|(name, _)| guarded.guards(name.as_str())) {
        let message = format!("{} tells applications who is there", quoted(name.as_str()));
        let finding = Diagnostic::error("bad-header", message).at(place.clone()).label("only the gateway says it");
        cx.report(finding.help("it is removed from every request; `identity` decides under which names it is said"));
    }
    let [request, response] = edits;
    let sends = cookie::remove(&mut request.given(&header::COOKIE), &[our_cookie]);
    let sets = cookie::remove_set_cookie(&mut response.given(&header::SET_COOKIE), &[our_cookie]);
    for (name, is_ours) in [(header::COOKIE, sends), (header::SET_COOKIE, sets)] {
        let places = places.iter().filter(|(written, _)| is_ours && *written == name);
        for (_, place) in places.take(1) {
            let message = format!("the cookie {} is the gateway's own", quoted(our_cookie));
            let finding = Diagnostic::error("bad-header", message).at(place.clone()).label("never passed on");
            cx.report(finding.help("give the application's cookie another name"));
        }
    }
}

fn value(name: &HeaderName, item: &Item<'_>) -> Option<HeaderValue> {
    let is_credential = [header::AUTHORIZATION, header::COOKIE].contains(name);
    let is_table = item.value.get_ref().is_table();
    let is_file =
        matches!(item.value.get_ref(), DeValue::Table(table) if table.keys().any(|key| key.get_ref() == "file"));
    let bytes = if is_credential || is_file {
        secrets::secret(item)?.get_ref().expose().clone()
    } else {
        item.text()?.into_inner().into_bytes()
    };
    let value = HeaderValue::from_bytes(&bytes).ok().filter(|value| is_plain(value.as_bytes()));
    let Some(mut value) = value else {
        let message = format!("the value of {} can't stand in a header", quoted(name.as_str()));
        let finding = Diagnostic::error("bad-header", message).at(item.span());
        item.cx.report(finding.help("write one line of visible characters, without blanks around it"));
        return None;
    };
    if value.as_bytes() == super::super::HIDDEN.as_bytes() {
        let message = format!("the value of {} is the placeholder of `config show`", quoted(name.as_str()));
        let finding = Diagnostic::error("bad-header", message).at(item.span());
        item.cx.report(finding.help("write the value, { env = \"NAME\" } or { file = \"path\" }"));
        return None;
    }
    value.set_sensitive(is_credential || is_table);
    Some(value)
}

/// One line without controls, and without blanks that a parser would cut off.
fn is_plain(value: &[u8]) -> bool {
    !value.is_empty() && value.trim_ascii() == value && !value.iter().any(u8::is_ascii_control)
}

/// A name whose field a route may change.
fn edited(text: &str, way: Way) -> Result<HeaderName, Fault> {
    let fault = |message: String, help: &str| Err(Fault::new(message, "can't be changed here", help));
    if text.contains('_') {
        let help = format!("write `{}`: applications read both alike", text.replace('_', "-"));
        return fault(format!("the header name {} contains `_`, which many servers drop", quoted(text)), &help);
    }
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        return fault(format!("{} is not a header name", quoted(text)), "use letters, digits and `-`");
    };
    let is_of_the_connection = CONNECTION.contains(&name.as_str())
        || ["proxy-", "sec-websocket-"].iter().any(|family| name.as_str().starts_with(family));
    if is_of_the_connection {
        let message = format!("the header {} belongs to the connection", quoted(text));
        return fault(message, "remove it: each side of the gateway has its own");
    }
    let is_of_the_way = OF_THE_WAY.iter().any(|known| reads_as(&name, &HeaderName::from_static(known)));
    match way {
        Way::Request if name == header::HOST => fault("`Host` is not set here".to_owned(), "write `set_host`"),
        Way::Request if is_of_the_way => {
            let message = format!("the gateway itself writes {}", quoted(text));
            fault(message, "remove it: it says how the request came, and is in order already")
        }
        Way::Response if name == header::HOST => {
            fault("an answer has no `Host`".to_owned(), "write it into `set_host` if the request's is meant")
        }
        Way::Request | Way::Response => Ok(name),
    }
}

/// What the gateway writes of how a request came.
const OF_THE_WAY: [&str; 5] =
    ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"];

/// What frames a message, or says something of one connection only.
const CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
