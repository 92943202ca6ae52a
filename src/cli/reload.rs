//! `portcullis reload`: has the running gateway read its configuration anew, and says what came of it.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::config;
use crate::gateway::control;

/// `portcullis reload`
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Asks the gateway that runs with this configuration; `Ok(false)`: it was refused, and why is said already.
///
/// The file need not be good for that, here least of all: the gateway reads it with an environment of its own.
pub(super) fn run(file: Option<&Path>, args: Args) -> Result<bool, String> {
    let file = config::find_config_file(file)?;
    let socket = config::control_socket(&file, &|name| std::env::var(name).ok());
    let socket = super::needed::control_socket(socket.as_deref()).map_err(|failure| failure.to_string())?;
    let color = io::stderr().is_terminal() && !args.json;
    let reply = control::reload(socket, color).map_err(|error| format!("{}: {error}", socket.display()))?;
    let Some(mut reply) = reply else {
        return Err(format!(
            "no gateway is running with the control socket {}; if `admin.control` or `store.url` has changed, restart it",
            socket.display()
        ));
    };
    let is_applied = reply["result"] == "applied";
    if args.json {
        if let Some(document) = reply.as_object_mut() {
            document.remove("text");
            document.remove("summary");
        }
        let _closed_pipe = writeln!(io::stdout().lock(), "{reply:#}");
        return Ok(is_applied);
    }
    let text = |key: &str| reply.get(key).and_then(Value::as_str).unwrap_or_default();
    let _closed_pipe = io::stderr().lock().write_all(text("text").as_bytes());
    if is_applied {
        let _closed_pipe = write!(io::stdout().lock(), "{}: in force\n{}", text("file"), text("summary"));
    } else {
        let _closed_pipe = writeln!(io::stderr().lock(), "refused: the former configuration stays in force");
    }
    Ok(is_applied)
}
