//! `retries` of a route: which answers are not passed on but asked for once more.

use http::StatusCode;
use toml::Spanned;

use super::reader::{Item, Table, Written};
use super::values::Fault;
use crate::diag::{Diagnostic, quoted};

/// What is tried again beyond what always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often at most, after the first time.
    pub attempts: u32,
    /// Answers that are not passed on while another try is left.
    pub statuses: Vec<StatusCode>,
    /// Whether a connection that ends before an answer is such a cause.
    pub reset: bool,
}

/// One of `on`.
#[derive(Clone, Copy)]
enum Cause {
    Status(StatusCode),
    Reset,
}

/// `retries` as written, where it can be used.
pub(super) fn read(mut table: Table<'_>) -> Option<Retries> {
    table.require("on", "add on = [\"502\", \"503\", \"504\", \"reset\"], or some of these");
    let attempts = table.take("attempts").map(|item| item.count(1, 5));
    let causes = table.take("on").map(|item| causes(&item));
    table.finish();
    let attempts = attempts.map_or(Some(1), |attempts| attempts.and_then(|one| u32::try_from(one.into_inner()).ok()));
    let (attempts, causes) = (attempts?, causes??);
    let status = |cause: &Cause| match cause {
        Cause::Status(status) => Some(*status),
        Cause::Reset => None,
    };
    let reset = causes.iter().any(|cause| matches!(cause, Cause::Reset));
    Some(Retries { attempts, statuses: causes.iter().filter_map(status).collect(), reset })
}

fn causes(item: &Item<'_>) -> Option<Vec<Cause>> {
    let list: Written<Vec<Item<'_>>> = item.list()?;
    if list.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`on` is empty: nothing would be tried again").at(list.span());
        item.cx.report(finding.help("name some of \"502\", \"503\", \"504\" and \"reset\", or leave `retries` out"));
        return None;
    }
    let all = list.get_ref().iter().map(|item| item.parsed("bad-status", cause).map(Spanned::into_inner));
    all.collect::<Vec<Option<_>>>().into_iter().collect()
}

fn cause(text: &str) -> Result<Cause, Fault> {
    const KNOWN: &str = "write \"429\", one from \"500\" to \"599\", or \"reset\"";
    if text == "reset" {
        return Ok(Cause::Reset);
    }
    if text == "timeout" {
        let message = "a request that timed out is never tried again";
        return Err(Fault::new(message, "would make a slow application slower", "remove it, or raise `timeouts`"));
    }
    let code = text.parse::<u16>().ok().filter(|code| text.len() == 3 && (*code == 429 || (500..=599).contains(code)));
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    let fault = || Fault::new(format!("{} is nothing to try again on", quoted(text)), "not a cause", KNOWN);
    status.map(Cause::Status).ok_or_else(fault)
}
