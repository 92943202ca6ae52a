//! `store.url = "none"`: what is in a configuration that only a store could keep.

use std::sync::Arc;

use super::reader::Context;
use super::{Accounts, Issuer, KeySource, Route, Tokens};
use crate::diag::{Diagnostic, quoted};
use crate::policy::Policy;

/// Reports what can't be without a store. What a route accepts by name is reported where it is read.
pub(super) fn judge(cx: &Context<'_>, issuers: &[Arc<Issuer>], routes: &[Arc<Route>], tokens: &Tokens) {
    let report = |message: String, help: &str| cx.report(Diagnostic::error(CODE, message).help(help));
    let wants_someone = |route: &&Arc<Route>| !route.allow.is_public() && !matches!(route.allow, Policy::Nobody);
    if issuers.is_empty()
        && let Some(route) = routes.iter().find(wants_someone)
    {
        let message =
            format!("nobody can pass the route {}: without a store only tokens of others count", quoted(&route.name));
        report(message, "add [[issuers]] with whoever signs the tokens, or name a store in `[store] url`");
    }
    if let Some(route) = routes.iter().find(|route| route.identity.assertion.is_some()) {
        let message =
            format!("the keys of assertions are kept in the store, and the route {} sends some", quoted(&route.name));
        report(message, "leave `assertion` out, or name a store in `[store] url`");
    }
    if let Some(issuer) = issuers.iter().find(|issuer| issuer.accounts == Accounts::Shared) {
        let message = format!(
            "there are no accounts to share with the issuer {}: they are kept in the store",
            quoted(&issuer.name)
        );
        report(message, "leave `accounts` out, or name a store in `[store] url`");
    }
    if !matches!(tokens.keys, KeySource::Store) {
        let message =
            "`secret` and `key` in `[tokens]` are for tokens of local accounts, which are kept in the store".to_owned();
        report(
            message,
            "whoever else signs with them is an issuer: `[[issuers]]` with `secret`, `jwks` or a file of keys",
        );
    }
}

/// The code of what only a store could keep.
pub(super) const CODE: &str = "needs-the-store";
