//! `portcullis why`: why a running gateway let a request pass, or did not, as `explain` would say it.

use super::explain;
use super::needed::control_socket;
use super::prompt::{Console, Failure};
use super::user::Format;
use crate::config::Config;
use crate::gateway::control::{self, Memory, Why};

/// `portcullis why`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The request's id: in the answer, on the page, in the access log
    #[arg(value_name = "REQUEST_ID")]
    pub id: String,
    /// How to print.
    #[command(flatten)]
    pub format: Format,
}

/// Asks the running gateway and prints its answer.
///
/// # Errors
/// When none runs, or it does not remember the request.
pub fn run(args: &Args, config: &Config, console: &mut Console<'_>, color: bool) -> Result<(), Failure> {
    let id = args.id.trim();
    let socket = control_socket(config.admin.control.as_deref())?;
    let help = "a gateway remembers its requests until it ends; the access log keeps them";
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Failure::new(
            format!("{id:?} is no request id"),
            "it stands in X-Request-Id and in the access log",
        ));
    }
    let unanswered = |error: std::io::Error| {
        Failure::new(format!("{}: {error}", socket.display()), "the control socket is the gateway's user's alone")
    };
    match control::why(socket, id).map_err(unanswered)? {
        None => Err(Failure::new(format!("no gateway runs here (control socket {})", socket.display()), help)),
        Some(Why::Explained(explanation)) => explain::print(&explanation, args.format, console, color),
        Some(Why::Unknown { refused, passed }) => {
            let (refused, passed) = (reach("refused", &refused), reach("passed", &passed));
            Err(Failure::new(format!("the running gateway remembers no request {id}"), format!("{refused}; {passed}")))
        }
    }
}

fn reach(what: &str, memory: &Memory) -> String {
    match (&memory.since, memory.forgets) {
        (None, _) => format!("it remembers none that was {what}"),
        (Some(since), true) => {
            format!("of those that were {what} it remembers the last {}, since {since}", memory.count)
        }
        (Some(since), false) => {
            format!(
                "of those that were {what} it remembers all {} since it started, the first of {since}",
                memory.count
            )
        }
    }
}
