//! `portcullis config show`: what is in force, defaults included, secrets hidden.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::complain;
use crate::config::{self, Show};
use crate::gateway::control;

/// `config`
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print what is in force in the running gateway; without one, what the file comes to
    Show(Args),
}

/// `config show`
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Asks the running gateway, whatever has become of its file since; without one the file is read here.
/// Which of the two it is, is said on standard error.
pub(super) fn run(file: Option<&Path>, command: ConfigCommand) -> Result<(), String> {
    let ConfigCommand::Show(Args { json }) = command;
    let path = config::find_config_file(file)?;
    let socket = config::control_socket(&path, &|name| std::env::var(name).ok());
    let ask =
        |socket: &PathBuf| control::config(socket, json).map_err(|error| format!("{}: {error}", socket.display()));
    let running = socket.as_ref().map_or(Ok(None), ask)?;
    let socket = socket.map_or_else(|| "none".to_owned(), |socket| socket.display().to_string());
    let shown = match running {
        Some(shown) => {
            complain(&format!("in force in the running gateway (control socket {socket})"));
            shown
        }
        None => {
            let config = super::load(Some(&path))?;
            let path = path.display();
            complain(&format!("no gateway runs here (control socket {socket}): this is what {path} comes to"));
            let show = Show::of(&config);
            if json { show.json() } else { Value::String(show.toml()) }
        }
    };
    let text = match shown {
        Value::String(toml) => toml,
        document => format!("{document:#}\n"),
    };
    // A reader that has closed the pipe has seen enough.
    let _closed_pipe = io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}
