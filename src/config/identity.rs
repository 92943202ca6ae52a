//! `[identity]` and a route's `identity`: under which names the application is told who is there.

use http::HeaderName;
use toml::Spanned;
use toml::de::DeValue;

use super::Identity;
use super::reader::{Context, Item, Table, Written};
use super::values;
use crate::diag::{Diagnostic, Span, quoted};

/// `[identity]` as written, or a route's override of it.
#[derive(Default)]
pub(super) struct Raw {
    user: Name,
    groups: Name,
    email: Name,
    name: Name,
    assertion: Name,
    claims: Option<Vec<(Written<HeaderName>, Written<String>)>>,
    strip: Option<Vec<Written<HeaderName>>>,
}

/// A header's name; the inner `None` is `false`: the application is not told.
type Name = Option<Written<Option<HeaderName>>>;

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            user: table.take("user").and_then(|item| name(&item)),
            groups: table.take("groups").and_then(|item| name(&item)),
            email: table.take("email").and_then(|item| name(&item)),
            name: table.take("name").and_then(|item| name(&item)),
            assertion: table.take("assertion").and_then(|item| name(&item)),
            claims: table.table("claims", "claims.*").map(claims),
            strip: table.take("strip").and_then(|item| strip(&item)),
        };
        table.finish();
        raw
    }

    /// What is written here, over `base` where it is not.
    pub(super) fn resolve(self, cx: &Context<'_>, base: &Identity) -> Identity {
        self.report_twice(cx);
        let over = |name: Name, base: &Option<HeaderName>| name.map_or_else(|| base.clone(), Spanned::into_inner);
        let claim = |(name, claim): (Written<HeaderName>, Written<String>)| (name.into_inner(), claim.into_inner());
        Identity {
            user: over(self.user, &base.user),
            groups: over(self.groups, &base.groups),
            email: over(self.email, &base.email),
            name: over(self.name, &base.name),
            claims: self.claims.map_or_else(|| base.claims.clone(), |claims| claims.into_iter().map(claim).collect()),
            assertion: over(self.assertion, &base.assertion),
            strip: match self.strip {
                Some(strip) => strip.into_iter().map(Spanned::into_inner).collect(),
                None => base.strip.clone(),
            },
        }
    }

    /// Two purposes under one name: applications would see either.
    fn report_twice(&self, cx: &Context<'_>) {
        let fixed = [
            ("user", &self.user),
            ("groups", &self.groups),
            ("email", &self.email),
            ("name", &self.name),
            ("assertion", &self.assertion),
        ];
        let fixed = fixed.into_iter().filter_map(|(purpose, name)| {
            let written = name.as_ref()?;
            Some((purpose.to_owned(), folded(written.get_ref().as_ref()?), written.span()))
        });
        let claims = self.claims.iter().flatten();
        let claims = claims
            .map(|(name, claim)| (format!("claim {}", quoted(claim.get_ref())), folded(name.get_ref()), name.span()));
        let mut seen: Vec<(String, String, Span)> = Vec::new();
        for (purpose, name, span) in fixed.chain(claims) {
            if let Some((other, ..)) = seen.iter().find(|(_, earlier, _)| *earlier == name) {
                let message = format!("one header would carry both the {other} and the {purpose}");
                let finding = Diagnostic::error("duplicate-header", message).at(span.clone());
                cx.report(finding.help("give each a header of its own; `-` and capitals make no difference"));
            }
            seen.push((purpose, name, span));
        }
    }
}

/// What holds where nothing is written.
pub(super) fn defaults() -> Identity {
    Identity {
        user: Some(HeaderName::from_static("x-forwarded-user")),
        groups: Some(HeaderName::from_static("x-forwarded-groups")),
        email: Some(HeaderName::from_static("x-forwarded-email")),
        name: Some(HeaderName::from_static("x-forwarded-preferred-username")),
        claims: Vec::new(),
        assertion: None,
        strip: Vec::new(),
    }
}

/// All names of `identity`: what only the gateway may send.
pub(super) fn names(identity: &Identity) -> impl Iterator<Item = &HeaderName> {
    let fixed = [&identity.user, &identity.groups, &identity.email, &identity.name, &identity.assertion];
    let claims = identity.claims.iter().map(|(name, _)| name);
    fixed.into_iter().flatten().chain(claims).chain(&identity.strip)
}

/// A name as applications behind CGI or WSGI tell it from others.
fn folded(name: &HeaderName) -> String {
    name.as_str().chars().filter(char::is_ascii_alphanumeric).collect()
}

fn name(item: &Item<'_>) -> Name {
    match item.value.get_ref() {
        DeValue::Boolean(false) => Some(Spanned::new(item.span(), None)),
        DeValue::Boolean(true) => item
            .wrong_type("a header's name", Some("write a name such as \"X-Forwarded-User\", or false to leave it out")),
        _ => header(item).map(|name| Spanned::new(name.span(), Some(name.into_inner()))),
    }
}

fn header(item: &Item<'_>) -> Option<Written<HeaderName>> {
    item.parsed("bad-header", values::header_name)
}

fn strip(item: &Item<'_>) -> Option<Vec<Written<HeaderName>>> {
    Some(item.list()?.get_ref().iter().filter_map(header).collect())
}

/// `{ "X-Tenant" = "tenant" }`
fn claims(mut table: Table<'_>) -> Vec<(Written<HeaderName>, Written<String>)> {
    let cx = table.cx;
    let entry = |(key, item): (Written<String>, Item<'_>)| {
        let name = match values::header_name(key.get_ref()) {
            Ok(name) => Some(Spanned::new(key.span(), name)),
            Err(fault) => {
                let finding = Diagnostic::error("bad-header", fault.message).at(key.span());
                cx.report(finding.label(fault.label).help(fault.help));
                None
            }
        };
        let path = item.text()?;
        if path.get_ref().split('.').any(str::is_empty) {
            let finding = Diagnostic::error("bad-claim", format!("{} is not a path of claims", quoted(path.get_ref())));
            cx.report(
                finding.at(path.span()).help("write names with dots between them, such as \"realm_access.roles\""),
            );
        }
        Some((name?, path))
    };
    table.take_all().into_iter().filter_map(entry).collect()
}
