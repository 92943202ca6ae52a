//! Which requests a route is for: its hosts and methods as written.

use http::Method;
use toml::Spanned;

use super::super::reader::{Item, Written};
use super::super::values::Fault;
use crate::diag::{Diagnostic, quoted};
use crate::pattern::{HostPattern, PatternError};

pub(super) fn pattern<T>(parsed: Result<T, PatternError>) -> Result<T, Fault> {
    parsed.map_err(|error| Fault::new(error.message, "not a pattern", error.help))
}

pub(super) fn hosts(item: &Item<'_>) -> Option<Written<Vec<Written<HostPattern>>>> {
    let list = item.list()?;
    refuse_empty(item, list.get_ref().is_empty(), "leave `hosts` out for every host")?;
    let host = |item: &Item<'_>| item.parsed("bad-host", host_pattern);
    let hosts: Vec<Option<_>> = list.get_ref().iter().map(host).collect();
    Some(Spanned::new(list.span(), hosts.into_iter().collect::<Option<_>>()?))
}

fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    let host = pattern(HostPattern::parse(text))?;
    if host.as_str() == text {
        return Ok(host);
    }
    let message = format!("{} is not in normal form", quoted(text));
    Err(Fault::new(message, "not in normal form", format!("write {}", quoted(host.as_str()))))
}

pub(super) fn methods(item: &Item<'_>) -> Option<Written<Vec<Method>>> {
    let list = item.list()?;
    refuse_empty(item, list.get_ref().is_empty(), "leave `methods` out for every method")?;
    let names: Vec<Option<_>> = list.get_ref().iter().map(|item| item.parsed("bad-method", method)).collect();
    let mut methods: Vec<Method> = Vec::new();
    for method in names.into_iter().collect::<Option<Vec<_>>>()? {
        let method = method.into_inner();
        // A HEAD is a GET whose body is left out (RFC 9110 section 9.3.2).
        let with = (method == Method::GET).then_some(Method::HEAD);
        for method in std::iter::once(method).chain(with) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    Some(Spanned::new(list.span(), methods))
}

fn method(text: &str) -> Result<Method, Fault> {
    if matches!(text.to_ascii_uppercase().as_str(), "TRACE" | "CONNECT") {
        let message = format!("{} is never forwarded", quoted(text));
        return Err(Fault::new(message, "answered 405 everywhere", "remove it"));
    }
    if text != text.to_ascii_uppercase() {
        let message = format!("methods are upper-case: {} is another one", quoted(text));
        return Err(Fault::new(message, "not upper-case", format!("write \"{}\"", text.to_ascii_uppercase())));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| {
        Fault::new(
            format!("{} is not a method", quoted(text)),
            "not a method",
            "write a name such as \"GET\" or \"POST\"",
        )
    })
}

fn refuse_empty(item: &Item<'_>, is_empty: bool, way_out: &str) -> Option<()> {
    if is_empty {
        let finding = Diagnostic::error("empty-list", format!("`{}` is empty: this route matches nothing", item.name));
        item.cx.report(finding.at(item.span()).help(way_out));
    }
    (!is_empty).then_some(())
}
