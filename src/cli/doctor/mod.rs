//! `portcullis doctor`: looks at the running setup, and says what is wrong or doubtful in it and what to do.
//!
//! What is in force a running gateway says; without one it is what the file comes to. Changes nothing. Each check is a sentence with a verdict; what they are made of stands in `checks` and `network`.

mod certificates;
mod checks;
mod network;

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::prompt::{Console, Failure};
use super::table;
use crate::clock::Clock;
use crate::config::{self, Facts};
use crate::gateway::control::{self, Running};

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
/// When there is neither a gateway nor a file to look at, or it can't be printed.
pub(super) fn run(args: Args, file: Option<&Path>, console: &mut Console<'_>) -> Result<bool, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let path = config::find_config_file(file).map_err(|message| Failure::new(message, ""))?;
    let socket = config::control_socket(&path, &env);
    let (asked, loaded) = (socket.as_deref().map_or(Ok(None), control::facts), config::load(&path, &env));
    let (errors, of_file) = (loaded.diagnostics.errors(), loaded.config.as_ref().map(Facts::of));
    let in_force = asked.as_ref().ok().and_then(Option::as_ref).map(|running| running.facts.clone());
    let Some(facts) = in_force.or_else(|| of_file.clone()) else {
        let errors = loaded.diagnostics.render(false);
        let message = format!("{errors}no gateway runs here, and {} has errors", path.display());
        return Err(Failure::new(message, "correct the file, or start the gateway"));
    };
    let mut found = vec![gateway(socket.as_deref(), &asked), written(&path, &facts, of_file.as_ref(), errors, &asked)];
    found.extend(all(&facts, asked.ok().flatten().as_ref(), &Clock::system()));
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

fn all(facts: &Facts, running: Option<&Running>, clock: &Clock) -> Vec<Check> {
    let mut found = vec![checks::clock(clock.now(), &checks::touched(facts))];
    found.extend(checks::keys(facts, clock));
    found.extend(checks::modes(facts));
    found.extend(checks::dated(facts, clock.now()));
    found.extend(certificates::certificates(facts, clock.now()));
    found.push(checks::cookies(facts));
    let socket = facts.control.as_deref().filter(|_| running.is_some());
    let seen = socket.map_or(Ok(Vec::new()), control::unbelieved);
    found.push(match seen {
        Ok(seen) => checks::proxies(facts, &seen),
        Err(error) => Check::warn(
            "proxies",
            format!("the running gateway does not say who forwards: {error}"),
            "restart it, if it is of an older version",
        ),
    });
    if let Some(running) = running {
        if let Some(Ok(Some(pasts))) = socket.map(control::recent) {
            let clients: Vec<_> = pasts.iter().map(|past| past.client).collect();
            found.push(checks::clients(facts, &clients));
        }
        found.extend(network::listeners(facts, &running.listeners));
    }
    found.extend(network::upstreams(facts));
    found.extend(checks::issuers(facts, running.map(|running| running.issuers.as_slice())));
    if running.is_none() {
        found.push(Check::warn(
            "clients",
            "nobody can be asked who came of late, and whether the listeners answer",
            "start the gateway, and run this again",
        ));
    }
    found
}

fn gateway(socket: Option<&Path>, asked: &io::Result<Option<Running>>) -> Check {
    let Some(socket) = socket else {
        let help = "write where it is to be into `[admin] control`, and restart the gateway";
        return Check::warn("gateway", "it has no control socket, so that it can't be asked", help);
    };
    let socket = socket.display();
    match asked {
        Ok(Some(_)) => {
            Check::ok("gateway", format!("one runs and answers on {socket}: this is what is in force there"))
        }
        Ok(None) => Check::warn(
            "gateway",
            format!("none runs with the control socket {socket}: this is what the file comes to"),
            "start it with `portcullis serve`; if it runs, name its own file with --config",
        ),
        Err(error) => Check::fail(
            "gateway",
            format!("it can't be asked on {socket}: {error}; this is what the file comes to"),
            "run this as the gateway's user or as root, and look into its log",
        ),
    }
}

/// Whether the file says what is in force.
fn written(
    path: &Path,
    in_force: &Facts,
    of_file: Option<&Facts>,
    errors: usize,
    asked: &io::Result<Option<Running>>,
) -> Check {
    let path = path.display();
    match (of_file, asked) {
        (None, _) => Check::fail(
            "file",
            format!("{path} has {errors} errors, and what was in force goes on"),
            "`portcullis check` shows them: with this file the gateway does not start again",
        ),
        (Some(of_file), Ok(Some(_))) if of_file.digest != in_force.digest => Check::warn(
            "file",
            format!("{path} comes to something else than what is in force"),
            "`portcullis reload` takes it in, or says why not",
        ),
        (Some(_), Ok(Some(_))) => Check::ok("file", format!("{path} is what is in force")),
        (Some(_), _) => Check::ok("file", format!("{path} has no errors")),
    }
}
