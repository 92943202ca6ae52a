//! The `[[tests]]` of a configuration, run. They need no store, no socket and no clock.

use std::path::Path;

use super::account_file;
use super::question::{Judgement, Question, invented, judge};
use crate::access::{Asker, Rules};
use crate::clock::Timestamp;
use crate::config::{self, Config, Env, Loaded, Test};
use crate::diag::{Diagnostic, quoted};
use crate::policy::Outcome;

/// Reads and checks the file `path` as [`config::load`] does, runs its tests, and reads its
/// file of accounts: a test that fails and a line that can't be taken are errors like any other.
pub fn load(path: &Path, env: Env<'_>) -> Loaded {
    let Loaded { config, mut diagnostics, files } = config::load(path, env);
    let Some(config) = config else { return Loaded { config, diagnostics, files } };
    let mut failed = failing_tests(&config);
    failed.extend(config.store.users.iter().flat_map(account_file::findings));
    let config = failed.is_empty().then_some(config);
    for finding in failed {
        diagnostics = diagnostics.with(finding);
    }
    Loaded { config, diagnostics, files }
}

/// What is wrong with the rules of `config` according to its own tests: one finding for each that fails. Pure; what a
/// reload asks before it puts a configuration in force.
pub fn failing_tests(config: &Config) -> Vec<Diagnostic> {
    if config.tests.is_empty() {
        return Vec::new();
    }
    let rules = Rules::new(&config.routes);
    config.tests.iter().filter_map(|test| run(test, config, &rules)).collect()
}

fn run(test: &Test, config: &Config, rules: &Rules) -> Option<Diagnostic> {
    let question =
        Question { method: test.method.clone(), target: test.target.clone(), client: test.from, now: TIME_OF_TESTS };
    let head = question.head(config);
    let judgement = match &head {
        Err(reason) => Judgement::malformed(*reason),
        Ok(head) => {
            let asker = test
                .person
                .as_ref()
                .map_or_else(|| Some(Asker::default()), |person| invented(person, config, rules, head));
            // The name was checked when the file was read.
            judge(config, rules, head, &asker.unwrap_or_default().asking())
        }
    };
    let missed = missed(test, config, &judgement)?;
    let person = test.person.as_ref().map_or("anonymous", |person| &person.user);
    let message = format!("{} as {} {missed}", quoted(&test.request), quoted(person));
    let finding = Diagnostic::error("test-failed", message).at(test.place.clone()).label(judgement.words());
    let decided = judgement.route.and_then(|route| Some((route, config.route_places.get(route.index)?)));
    let finding = match decided {
        Some((_, place)) => finding.also(place.clone(), "this route decided"),
        None => finding,
    };
    Some(finding.help(format!("`{}` shows every step", command(test))))
}

/// What `test` expected and did not get.
fn missed(test: &Test, config: &Config, judgement: &Judgement<'_>) -> Option<String> {
    let expect = &test.expect;
    let (is, outcome) = (judgement.outcome, judgement.outcome.word());
    if let Some(expected) = expect.outcome.filter(|expected| *expected != is) {
        return Some(format!("was expected to be `{}` and is `{outcome}`", expected.word()));
    }
    match expect.allow {
        Some(true) if is != Outcome::Allow => return Some(format!("was expected to be allowed and is `{outcome}`")),
        Some(false) if is == Outcome::Allow => return Some("was expected not to be allowed and is".to_owned()),
        _ => {}
    }
    let name = |index: usize| config.routes.get(index).map_or("", |route| &route.name);
    if let Some(index) = expect.route
        && judgement.route.is_none_or(|route| route.index != index)
    {
        let by =
            judgement.route.map_or_else(|| "by no route".to_owned(), |route| format!("by {}", quoted(&route.name)));
        return Some(format!("was expected to be decided by {} and is decided {by}", quoted(name(index))));
    }
    let upstream = |index: usize| config.upstreams.get(index).map_or("", |upstream| &upstream.name);
    let goes_to = judgement.route.filter(|_| is == Outcome::Allow).and_then(|route| route.to.upstream());
    match expect.upstream {
        Some(expected) if goes_to != Some(expected) => {
            let to = goes_to.map_or_else(|| "nowhere".to_owned(), |index| format!("to {}", quoted(upstream(index))));
            Some(format!("was expected to go to {} and goes {to}", quoted(upstream(expected))))
        }
        _ => None,
    }
}

/// The command line that explains what `test` asks.
fn command(test: &Test) -> String {
    let (method, target) = test.request.split_once(' ').unwrap_or((&test.request, "/"));
    let mut line = format!("portcullis explain {method} {}", shell(target.trim_start_matches(' ')));
    if let Some(person) = &test.person {
        line += &format!(" --as {}", shell(&person.user));
        line += &format!(" --groups {}", shell(&person.groups.join(",")));
        for (option, values) in [("--scopes", person.scopes.join(","))] {
            if !values.is_empty() {
                line += &format!(" {option} {}", shell(&values));
            }
        }
        if !person.claims.is_empty() {
            line += &format!(" --claims {}", shell(&serde_json::Value::Object(person.claims.clone()).to_string()));
        }
        if let Some(method) = &person.method {
            line += &format!(" --method-of-sign-in {}", shell(method));
        }
        if !person.ago.is_zero() {
            line += &format!(" --signed-in-ago {}s", person.ago.as_secs());
        }
    }
    if !test.from.is_loopback() {
        line += &format!(" --from {}", test.from);
    }
    line
}

/// `text` as one word of a shell.
fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@+=%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// When tests are judged: they know only how long ago something was.
const TIME_OF_TESTS: Timestamp = Timestamp::from_secs(4_000_000_000);
