//! `portcullis log-level`: what a running gateway logs, looked at or changed without a restart.

use clap::Args as ClapArgs;

use super::needed::control_socket;
use super::prompt::{Console, Failure};
use crate::config::{self, Config};
use crate::gateway::control;

/// `log-level`
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct Args {
    /// A level, or such as "info,portcullis::token=debug"; without it the one in force is printed
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// Asks the running gateway, and prints the filter in force.
///
/// # Errors
/// When it is no filter, or no gateway runs with this configuration.
pub(super) fn run(args: &Args, config: &Config, console: &mut Console<'_>) -> Result<(), Failure> {
    let question = match &args.filter {
        None => "log-level".to_owned(),
        Some(filter) => match config::log_filter_fault(filter) {
            Some(fault) => return Err(Failure::new("not a filter of the log", fault)),
            None => format!("log-level {filter}"),
        },
    };
    let socket = control_socket(config.admin.control.as_deref())?;
    let in_force = control::ask(socket, &question).map_err(|error| {
        let help = format!("is the gateway running? It is asked over {}", socket.display());
        Failure::new(format!("the log of the gateway is as it was: {error}"), help)
    })?;
    writeln!(console.out, "{in_force}")?;
    Ok(())
}
