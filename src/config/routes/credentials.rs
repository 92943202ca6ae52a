//! Which credentials count on a route, whose tokens, and which other sites may have them sent.

use std::sync::Arc;

use toml::Spanned;

use super::super::reader::{Context, Item, Written};
use super::super::values::Fault;
use super::super::{Issuer, Issuers, no_store, url};
use super::Accept;
use crate::diag::{Diagnostic, quoted};

pub(super) fn accept(item: &Item<'_>) -> Option<Written<Accept>> {
    const KNOWN: &[(&str, Accept)] = &[
        ("bearer", Accept { bearer: true, ..Accept::NOTHING }),
        ("cookie", Accept { cookie: true, ..Accept::NOTHING }),
        ("basic", Accept { basic: true, ..Accept::NOTHING }),
        ("api-key", Accept { api_key: true, ..Accept::NOTHING }),
        ("client-cert", Accept { client_cert: true, ..Accept::NOTHING }),
    ];
    let list = item.list()?;
    if list.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`accept` is empty: nobody could sign in").at(item.span());
        item.cx.report(finding.help(
            "name \"bearer\", \"cookie\", \"basic\", \"api-key\" or \"client-cert\", or leave it out for the first two",
        ));
        return None;
    }
    let mut accept = Accept::NOTHING;
    for word in list.get_ref().iter().filter_map(|item| item.word("routes.accept", KNOWN)) {
        let word = word.into_inner();
        accept.bearer |= word.bearer;
        accept.cookie |= word.cookie;
        accept.basic |= word.basic;
        accept.api_key |= word.api_key;
        accept.client_cert |= word.client_cert;
    }
    Some(Spanned::new(list.span(), accept))
}

pub(super) fn issuers(item: &Item<'_>) -> Option<Written<Vec<Written<String>>>> {
    let names = item.strings()?;
    if names.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`issuers` is empty: nobody's tokens would count");
        item.cx.report(finding.at(item.span()).help("name \"self\" or one of [[issuers]], or leave it out for all"));
        return None;
    }
    Some(names)
}

pub(super) fn whose(cx: &Context<'_>, names: &Written<Vec<Written<String>>>, known: &[Arc<Issuer>]) -> Option<Issuers> {
    let found: Vec<_> = names.get_ref().iter().map(|name| super::super::issuers::named(cx, name, known)).collect();
    let found: Vec<Option<usize>> = found.into_iter().collect::<Option<_>>()?;
    Some(Issuers::These { own: found.contains(&None), others: found.into_iter().flatten().collect() })
}

/// What a route accepts. Cookies, passwords and API keys are this gateway's own: where its people don't count, only tokens do.
pub(super) fn accepted(
    cx: &Context<'_>,
    written: Option<&Written<Accept>>,
    issuers: &Issuers,
    has_store: bool,
) -> Accept {
    if issuers.take(None) {
        return written.map_or(Accept::DEFAULT, |accept| *accept.get_ref());
    }
    let only_tokens = Accept { bearer: true, ..Accept::NOTHING };
    if let Some(accept) = written.filter(|accept| *accept.get_ref() != only_tokens) {
        let (code, message, help) = if has_store {
            let message = "`accept` names more than \"bearer\", but `issuers` leaves out this gateway";
            ("accept-without-self", message, "add \"self\" to `issuers`, or write accept = [\"bearer\"]")
        } else {
            let message =
                "`accept` names more than \"bearer\", but only the store knows sessions, passwords and API keys";
            (no_store::CODE, message, "leave `accept` out, or name a store in `[store] url`")
        };
        cx.report(Diagnostic::error(code, message).at(accept.span()).help(help));
    }
    only_tokens
}

pub(super) fn origins(item: &Item<'_>) -> Vec<String> {
    let Some(list) = item.list() else { return Vec::new() };
    list.get_ref().iter().filter_map(|item| item.parsed("bad-origin", origin)).map(Spanned::into_inner).collect()
}

/// An origin as browsers serialize it (RFC 6454 section 6.2): without the scheme's own port.
fn origin(text: &str) -> Result<String, Fault> {
    let url::Origin { scheme, host, port } = url::origin(text)?;
    let own = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => {
            return Err(Fault::new(
                format!("{} is not an origin", quoted(text)),
                "not http or https",
                "write \"https://host\"",
            ));
        }
    };
    Ok(match port.filter(|port| *port != own) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}
