//! `portcullis doctor`: looks at the running setup, and says what is wrong or doubtful in it and what to do.
//!
//! Changes nothing. Each check is a sentence with a verdict; what they are made of stands in `checks` and `network`.

mod checks;
mod network;

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::prompt::{Console, Failure};
use super::table;
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::control;

/// `doctor`
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// What was looked at.
    check: String,
    result: Verdict,
    /// What was seen, in one sentence.
    found: String,
    /// The way out; empty where there is nothing to do.
    help: String,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Check {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), result: Verdict::Ok, found: found.into(), help: String::new() }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), result: Verdict::Warn, found: found.into(), help: help.into() }
    }

    fn fail(check: impl Into<String>, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.into(), result: Verdict::Fail, found: found.into(), help: help.into() }
    }
}

/// Looks at everything; `Ok(false)`: something fails.
///
/// # Errors
/// When it can't be printed.
pub(super) fn run(args: Args, config: &Config, console: &mut Console<'_>) -> Result<bool, Failure> {
    let clock = Clock::system();
    let found = all(config, &clock);
    let of = |verdict| found.iter().filter(|check| check.result == verdict).count();
    let (fails, warnings) = (of(Verdict::Fail), of(Verdict::Warn));
    if args.json {
        let document = json!({ "checks": found, "fail": fails, "warn": warnings });
        writeln!(console.out, "{document:#}")?;
        return Ok(fails == 0);
    }
    let row = |check: &Check| [check.result.name().to_owned(), check.check.clone(), check.found.clone()];
    table::write(console.out, ["RESULT", "CHECK", "FOUND"], &found.iter().map(row).collect::<Vec<_>>())?;
    for check in found.iter().filter(|check| !check.help.is_empty()) {
        let (name, help) = (table::plain(&check.check), table::plain(&check.help));
        writeln!(console.out, "\n{} {name}: {help}", check.result.name())?;
    }
    writeln!(console.out, "\n{} checks: {fails} fail, {warnings} warn", found.len())?;
    Ok(fails == 0)
}

fn all(config: &Config, clock: &Clock) -> Vec<Check> {
    let socket = config.admin.control.as_deref();
    let recent = socket.map_or(Ok(None), control::recent);
    let is_running = matches!(&recent, Ok(Some(_)));
    let mut found = vec![gateway(socket, &recent), checks::clock(clock.now(), &checks::touched(config))];
    found.extend(checks::keys(config, clock));
    found.extend(checks::modes(config));
    found.push(checks::cookies(config));
    let seen = socket.filter(|_| is_running).map_or(Ok(Vec::new()), control::unbelieved);
    found.push(match seen {
        Ok(seen) => checks::proxies(config, &seen),
        Err(error) => Check::warn(
            "proxies",
            format!("the running gateway does not say who forwards: {error}"),
            "restart it, if it is of an older version",
        ),
    });
    if let Ok(Some(pasts)) = &recent {
        let clients: Vec<_> = pasts.iter().map(|past| past.client).collect();
        found.push(checks::clients(config, &clients));
        found.extend(network::listeners(config));
    }
    found.extend(network::upstreams(config));
    if !is_running {
        found.push(Check::warn(
            "clients",
            "nobody can be asked who came of late, and whether the listeners answer",
            "start the gateway, and run this again",
        ));
    }
    found
}

fn gateway<T>(socket: Option<&Path>, recent: &std::io::Result<Option<T>>) -> Check {
    let Some(socket) = socket else {
        let help = "write where it is to be into `[admin] control`, and restart the gateway";
        return Check::warn("gateway", "it has no control socket, so that it can't be asked", help);
    };
    let socket = socket.display();
    match recent {
        Ok(Some(_)) => Check::ok("gateway", format!("one runs and answers on {socket}")),
        Ok(None) => Check::warn(
            "gateway",
            format!("none runs with the control socket {socket}"),
            "start it with `portcullis serve`; if it runs, name its own file with --config",
        ),
        Err(error) => Check::fail(
            "gateway",
            format!("it can't be asked on {socket}: {error}"),
            "run this as the gateway's user or as root, and look into its log",
        ),
    }
}
