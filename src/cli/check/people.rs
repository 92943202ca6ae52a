//! Whom the rules name and nobody is: users and groups that neither the store nor the file of accounts knows; and accounts
//! of the file that do not count, as the store has others of their names.
//!
//! Looked at by `check` alone: a gateway may start before its first user is made.

use std::collections::{BTreeSet, HashSet};

use crate::config::{Config, Mention, Mentioned};
use crate::diag::{Diagnostic, nearest, quoted};
use crate::gateway::taken;
use crate::identity::password::account_file;
use crate::store::{Origin, peek};

/// What is odd about the people in `config`. Nothing, where there is no store yet, or nobody in it.
pub(super) fn findings(config: &Config) -> Vec<Diagnostic> {
    let Some(mut users) = config.store.file().and_then(peek) else { return Vec::new() };
    // What a gateway took in from the file before is what the file says now, or will be.
    users.retain(|user| user.origin == Origin::Store);
    let mut names: BTreeSet<&str> = users.iter().map(|user| user.name.as_str()).collect();
    let mut groups: BTreeSet<&str> = users.iter().flat_map(|user| &user.groups).map(String::as_str).collect();
    let accounts = config.store.users.as_ref().map(|file| account_file::parse(file.text.expose()));
    // Lines that can't be taken have been told.
    let accounts = accounts.and_then(Result::ok).unwrap_or_default();
    let (twice, counting): (Vec<_>, Vec<_>) =
        accounts.iter().partition(|account| names.contains(account.name.as_str()));
    names.extend(counting.iter().map(|account| account.name.as_str()));
    groups.extend(counting.iter().flat_map(|account| &account.groups).map(String::as_str));
    if names.is_empty() {
        return Vec::new();
    }
    let mut said = HashSet::new();
    let unknown = config.mentions.iter().filter(|mention| takes_own_people_only(config, mention));
    let twice = twice.iter().map(|account| taken(&config.store, &account.name));
    let nobody = unknown.filter_map(|mention| match mention.kind {
        Mentioned::User => no_such_user(mention, &names),
        Mentioned::Group => no_such_group(mention, &groups),
    });
    // One finding for a name is enough, however many rules have it.
    twice.chain(nobody).filter(|finding| said.insert(finding.message.clone())).collect()
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
