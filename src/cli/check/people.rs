//! Whom the rules name and nobody is: users and groups that the store does not know.
//!
//! Looked at by `check` alone: a gateway may start before its first user is made.

use std::collections::{BTreeSet, HashSet};

use crate::config::{Config, Mention, Mentioned, StoreKind};
use crate::diag::{Diagnostic, nearest, quoted};
use crate::store::peek;

/// What is odd about the people in `config`. Nothing, where there is no store yet, or nobody in it.
pub(super) fn findings(config: &Config) -> Vec<Diagnostic> {
    let StoreKind::Sqlite(path) = &config.store.kind;
    let Some(users) = peek(path).filter(|users| !users.is_empty()) else { return Vec::new() };
    let names: BTreeSet<&str> = users.iter().map(|user| user.name.as_str()).collect();
    let groups: BTreeSet<&str> = users.iter().flat_map(|user| &user.groups).map(String::as_str).collect();
    let mut said = HashSet::new();
    let unknown = config.mentions.iter().filter(|mention| takes_own_people_only(config, mention));
    unknown
        .filter_map(|mention| match mention.kind {
            Mentioned::User => no_such_user(mention, &names),
            Mentioned::Group => no_such_group(mention, &groups),
        })
        // One finding for a name is enough, however many rules have it.
        .filter(|finding| said.insert(finding.message.clone()))
        .collect()
}

/// Whom other issuers know, nobody can tell.
fn takes_own_people_only(config: &Config, mention: &Mention) -> bool {
    let Some(route) = config.routes.get(mention.route) else { return false };
    !route.accept.bearer || !(0..config.issuers.len()).any(|issuer| route.issuers.take(Some(issuer)))
}

fn no_such_user(mention: &Mention, names: &BTreeSet<&str>) -> Option<Diagnostic> {
    let name = mention.name.to_lowercase();
    if names.contains(name.as_str()) {
        return None;
    }
    let message = format!("there is no user {}", quoted(&mention.name));
    let finding = Diagnostic::warning("no-such-user", message).at(mention.place.clone()).label("has no account");
    Some(finding.help(match nearest(&name, names.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? Otherwise `portcullis user add {name}`"),
        None => format!("`portcullis user add {name}`, or remove the name"),
    }))
}

fn no_such_group(mention: &Mention, groups: &BTreeSet<&str>) -> Option<Diagnostic> {
    if groups.contains(mention.name.as_str()) {
        return None;
    }
    let message = format!("nobody is in the group {}", quoted(&mention.name));
    let finding = Diagnostic::warning("no-such-group", message).at(mention.place.clone());
    let finding = finding.label("lets nobody in");
    let same = groups.iter().find(|group| group.to_lowercase() == mention.name.to_lowercase());
    Some(finding.help(match (same, nearest(&mention.name, groups.iter().copied())) {
        (Some(same), _) => format!("did you mean \"{same}\"? Capitals count in groups"),
        (None, Some(near)) => format!("did you mean \"{near}\"? Otherwise `portcullis user groups NAME …`"),
        (None, None) => "put someone into it with `portcullis user groups NAME …`, or remove it".to_owned(),
    }))
}
