//! The command line: one file per command.
//!
//! Exit status 0: done; 1: it could not be done, or the answer is no; 2: a wrong command line.

pub mod apikey;
pub mod check;
pub mod completions;
mod config_show;
mod demo;
pub mod demo_app;
mod doctor;
pub mod explain;
pub mod key;
mod log_level;
mod needed;
pub mod prompt;
mod reload;
pub mod schema;
mod serve;
pub mod session;
pub mod table;
pub mod token;
pub mod user;
pub mod why;

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{self, Config};
use crate::gateway::control;
use prompt::{Console, Failure};

/// A login in front of any web application: signs people in, checks their tokens, and forwards what the rules allow.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    /// The configuration; otherwise gateway.toml here, then /etc/portcullis/gateway.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Try it: a throw-away gateway in front of a small application, with a user to sign in as
    Demo(demo::Args),
    /// Read the configuration and report every problem at once
    Check(check::Args),
    /// Which route decides about a request, why, and what goes on
    Explain(explain::Args),
    /// Why a running gateway let a request pass, or did not
    Why(why::Args),
    /// Have the running gateway read its configuration anew
    Reload(reload::Args),
    /// What is in force, defaults included, secrets hidden
    #[command(subcommand)]
    Config(config_show::ConfigCommand),
    /// Look at the running setup, and say what is wrong or doubtful in it
    Doctor(doctor::Args),
    /// Keys for machines
    #[command(subcommand, name = "apikey")]
    ApiKey(apikey::ApiKeyCommand),
    /// People who may sign in
    #[command(subcommand)]
    User(user::UserCommand),
    /// Who is signed in
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Access tokens: looked at, or made for a test
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// What a running gateway logs
    LogLevel(log_level::Args),
    /// Keys that tokens are signed with
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Write a script that completes commands and options in a shell
    Completions(completions::Completions),
    /// The form of gateway.toml as JSON Schema, for editors
    Schema,
    /// Write the manual for `man`
    Man(completions::Man),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(cli.config.as_deref()),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => return run_check(cli.config.as_deref(), args),
        Command::Why(args) => {
            let color = is_colored(io::stdout().is_terminal());
            run_with(cli.config.as_deref(), |config, console| why::run(&args, config, console, color))
        }
        Command::Explain(args) => return run_explain(cli.config.as_deref(), &args),
        Command::Reload(args) => match reload::run(cli.config.as_deref(), args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(message) => Err(message),
        },
        Command::Doctor(args) => match with_console(|console| doctor::run(args, cli.config.as_deref(), console)) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(message) => Err(message),
        },
        Command::Config(command) => config_show::run(cli.config.as_deref(), command),
        Command::User(command) => {
            run_with(cli.config.as_deref(), |config, console| user::run(command, config, console, &mut tell_gateway))
        }
        Command::Session(command) => {
            run_with(cli.config.as_deref(), |config, console| session::run(command, config, console, &mut tell_gateway))
        }
        Command::Token(command) => {
            match run_with(cli.config.as_deref(), |config, console| token::run(command, config, console)) {
                Ok(token::Answer::No) => return ExitCode::FAILURE,
                Ok(token::Answer::Yes) => Ok(()),
                Err(message) => Err(message),
            }
        }
        Command::LogLevel(args) => {
            run_with(cli.config.as_deref(), |config, console| log_level::run(&args, config, console))
        }
        Command::Key(command) => run_key(cli.config.as_deref(), command),
        Command::ApiKey(command) => {
            run_with(cli.config.as_deref(), |config, console| apikey::run(command, config, console, &mut tell_gateway))
        }
        Command::Schema => write_out(|out| Ok(schema::run(out)?)),
        Command::Completions(args) => write_out(|out| completions::complete(args, command_line(), out)),
        Command::Man(args) => write_out(|out| completions::manual(&args, command_line(), out)),
    };
    ended(result)
}

/// The command line as it can be typed.
fn command_line() -> clap::Command {
    Cli::command()
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn run_check(file: Option<&Path>, args: check::Args) -> ExitCode {
    let options = args.options(is_colored(io::stderr().is_terminal()), width_of(&io::stderr()));
    let outcome = check::check(file, options, &|name| std::env::var(name).ok());
    // A reader that has closed the pipe has seen enough.
    let _closed_pipe = io::stderr().lock().write_all(outcome.stderr.as_bytes());
    let _closed_pipe = io::stdout().lock().write_all(outcome.stdout.as_bytes());
    ExitCode::from(outcome.exit)
}

fn run_explain(file: Option<&Path>, args: &explain::Args) -> ExitCode {
    let question = match args.question() {
        Ok(question) => question,
        Err(message) => {
            complain(&format!("error: {message}\n\nFor more information, try '--help'."));
            return ExitCode::from(WRONG_COMMAND_LINE);
        }
    };
    let color = is_colored(io::stdout().is_terminal());
    match run_with(file, |config, console| explain::run(args, question, config, console, color)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// How many columns `terminal` has; `None`: it is none, or does not say.
fn width_of(terminal: &impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// Whether what is written to `is_terminal` may be coloured (<https://no-color.org>).
fn is_colored(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn run_with<T>(
    file: Option<&Path>,
    run: impl FnOnce(&Config, &mut Console<'_>) -> Result<T, Failure>,
) -> Result<T, String> {
    let config = load(file)?;
    with_console(|console| run(&config, console))
}

fn with_console<T>(run: impl FnOnce(&mut Console<'_>) -> Result<T, Failure>) -> Result<T, String> {
    let mut console = Console {
        out: &mut io::stdout().lock(),
        input: &mut io::stdin().lock(),
        is_terminal: io::stdin().is_terminal(),
        ask_hidden: &mut |prompt| rpassword::prompt_password(prompt),
    };
    run(&mut console).map_err(|failure| failure.to_string())
}

fn run_key(file: Option<&Path>, command: key::KeyCommand) -> Result<(), String> {
    let config = load(file)?;
    let mut out = io::stdout().lock();
    key::run(command, &config, &mut out, &mut tell_gateway).map_err(|failure| failure.to_string())
}

fn write_out(write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), String> {
    write(&mut io::stdout().lock()).map_err(|failure| failure.to_string())
}

/// Has a running gateway take in what has just changed; it would by itself, within a second.
fn tell_gateway(config: &Config) {
    let Some(socket) = &config.admin.control else { return };
    if let Err(error) = control::catch_up(socket) {
        complain(&format!("note: the running gateway will notice within a second (control socket: {error})"));
    }
}

/// The configuration, with everything that is wrong or doubtful in it said on standard error.
fn load(file: Option<&Path>) -> Result<Config, String> {
    load_by(config::load, file)
}

/// The same for a gateway that is to run: a failing test is an error.
fn load_tested(file: Option<&Path>) -> Result<Config, String> {
    load_by(crate::explain::load, file)
}

fn load_by(load: impl Fn(&Path, config::Env<'_>) -> config::Loaded, file: Option<&Path>) -> Result<Config, String> {
    let path = config::find_config_file(file)?;
    let loaded = load(&path, &|name| std::env::var(name).ok());
    let rendered = loaded.diagnostics.render(io::stderr().is_terminal());
    if !rendered.is_empty() {
        complain(rendered.trim_end());
    }
    loaded.config.ok_or_else(|| format!("{} has errors, see above", path.display()))
}

/// Says `text` on standard error. When even that is closed there is nobody to tell.
fn complain(text: &str) {
    let _nobody_to_tell = writeln!(io::stderr().lock(), "{text}");
}

/// As clap exits.
const WRONG_COMMAND_LINE: u8 = 2;

const AFTER_HELP: &str = "\
Begin with `portcullis demo`. Then write a gateway.toml, `portcullis check` it, add a user with
`portcullis user add NAME`, and run `portcullis serve`.";
