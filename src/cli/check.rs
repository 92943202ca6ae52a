//! `portcullis check`: reads the configuration and says everything that is wrong with it.
//!
//! Prints nothing itself: what to print, where, and the exit status are its result.

mod people;

use std::path::Path;

use super::needed::control_socket;
use crate::access::Rules;
use crate::config::{self, Config, KeySource};
use crate::diag::{Diagnostic, Diagnostics, plain};
use crate::explain::{self, Difference, Differences};
use crate::gateway::control;
use crate::secret::Random;
use crate::token::KeySet;

/// `portcullis check`
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Warnings fail too
    #[arg(long)]
    strict: bool,
    /// How findings are printed: `github` as annotations of a pull request, `sarif` for code scanning
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Print one JSON document: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Judge by this file what the running gateway has judged lately, and say what would come out differently
    #[arg(long)]
    against_recent: bool,
}

impl Args {
    /// The same, as options.
    pub const fn options(self, color: bool, width: Option<usize>) -> Options {
        let format = if self.json { Format::Json } else { self.format };
        Options { format, strict: self.strict, against_recent: self.against_recent, color, width }
    }
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// One document.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
    /// One document in the Static Analysis Results Interchange Format, 2.1.0.
    Sarif,
}

/// How the findings are to be shown and judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How they are printed.
    pub format: Format,
    /// Warnings count as errors.
    pub strict: bool,
    /// Compare with what the running gateway has judged lately; with `strict` a difference counts as an error.
    pub against_recent: bool,
    /// Colour in the text.
    pub color: bool,
    /// How many columns there are for the text, if that is known.
    pub width: Option<usize>,
}

/// What `check` has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output: the document, or that all is well.
    pub stdout: String,
    /// For standard error: the findings as text.
    pub stderr: String,
    /// 0 clean or warnings, 1 errors (with `strict` warnings too) or no file.
    pub exit: u8,
}

/// Checks the file that is named, else the one that `serve` would use.
pub fn check(explicit: Option<&Path>, options: Options, env: config::Env<'_>) -> Outcome {
    let path = match config::find_config_file(explicit) {
        Ok(path) => path,
        Err(message) => return Outcome { stdout: String::new(), stderr: format!("error: {message}\n"), exit: 1 },
    };
    let config::Loaded { config, diagnostics, .. } = explain::load(&path, env);
    let more = config.iter().flat_map(|config| key_problem(config).into_iter().chain(people::findings(config)));
    let found = more.fold(diagnostics, Diagnostics::with);
    let mut outcome = said(&path, &found, options);
    if let Some(config) = config.as_ref().filter(|_| options.against_recent && found.errors() == 0) {
        compare(config, &found, options, &mut outcome);
    }
    outcome
}

/// The findings, and whether they fail.
fn said(path: &Path, found: &Diagnostics, options: Options) -> Outcome {
    let failed = found.errors() > 0 || (options.strict && found.warnings() > 0);
    let (stdout, stderr) = match options.format {
        Format::Json => (format!("{:#}\n", found.json()), String::new()),
        Format::Sarif => (format!("{:#}\n", found.sarif()), String::new()),
        Format::Github => (found.github(), format!("{}: {}\n", path.display(), found.summary())),
        Format::Text if found.is_empty() => (format!("{}: no findings\n", path.display()), String::new()),
        Format::Text => (
            String::new(),
            match options.width {
                Some(width) => found.render_within(options.color, width),
                None => found.render(options.color),
            },
        ),
    };
    Outcome { stdout, stderr, exit: u8::from(failed) }
}

/// Adds what `config` would make of what the running gateway has judged lately.
fn compare(config: &Config, found: &Diagnostics, options: Options, outcome: &mut Outcome) {
    let socket = match control_socket(config.admin.control.as_deref()) {
        Ok(socket) => socket,
        Err(failure) => {
            outcome.stderr += &format!("error: {failure}\n");
            outcome.exit = 1;
            return;
        }
    };
    let pasts = match control::recent(socket) {
        Ok(Some(pasts)) => pasts,
        Ok(None) => {
            outcome.stderr +=
                &format!("error: no gateway runs here to compare with (control socket {})\n", socket.display());
            outcome.exit = 1;
            return;
        }
        Err(error) => {
            outcome.stderr += &format!("error: {}: {error}\n", socket.display());
            outcome.exit = 1;
            return;
        }
    };
    let differences = explain::differing(pasts.into_iter(), config, &Rules::new(&config.routes));
    match options.format {
        Format::Json => {
            let mut document = found.json();
            document["against_recent"] = serde_json::to_value(&differences).unwrap_or_default();
            outcome.stdout = format!("{document:#}\n");
        }
        Format::Text => outcome.stdout += &in_words(&differences),
        // What goes to standard output there is read by a program.
        Format::Github | Format::Sarif => outcome.stderr += &in_words(&differences),
    }
    if options.strict && differences.differ > 0 {
        outcome.exit = 1;
    }
}

/// How requests of late would fare, for a person.
fn in_words(differences: &Differences) -> String {
    let Differences { judged, skipped, unsure, still_refused, differ, examples } = differences;
    let mut text = match judged {
        0 => "the running gateway remembers no request that rules decided about\n".to_owned(),
        _ => differences.words(),
    };
    for difference in examples {
        let Difference { request_id, time, who, what, before, after } = difference;
        let [who, what, before, after] = [who, what, before, after].map(|part| plain(part));
        text += &format!("\n  {what}\n    {who}, {time}, {request_id}\n    was      {before}\n    would be {after}\n");
    }
    if *differ > examples.len() {
        text += &format!("\n  and {} more\n", differ - examples.len());
    }
    if *skipped > 0 {
        text += &format!("({skipped} more were not judged again: no rule decided about them)\n");
    }
    if *unsure > 0 {
        text += &format!(
            "({unsure} more could not be judged: this file names whoever asked otherwise, and what account that is only a \
             gateway knows)\n"
        );
    }
    if *still_refused > 0 {
        text += &format!(
            "({still_refused} showed a credential that was refused: it is taken to be refused by this file too)\n"
        );
    }
    text
}

/// What is wrong with keys that the configuration names: they are looked into only when the rest is in order.
fn key_problem(config: &Config) -> Option<Diagnostic> {
    let is_named = !matches!(config.tokens.keys, KeySource::Store);
    let keys = is_named.then(|| KeySet::new(&config.tokens, &[], Random::system()))?;
    let help = "`algorithm` and `key` in `[tokens]` have to be of one kind";
    keys.err().map(|error| Diagnostic::error("bad-key", format!("`[tokens]`: {error}")).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, options: Options) -> Outcome {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        check(Some(&path), options, &|_| None)
    }

    const CLEAN: &str =
        "[upstreams]\na = \"http://b\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"a\"\n";

    #[test]
    fn a_clean_file_exits_0_and_says_so() {
        let outcome = run(CLEAN, Options::default());
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (0, ""));
        assert!(outcome.stdout.ends_with("gateway.toml: no findings\n"));
    }

    #[test]
    fn warnings_exit_0_and_with_strict_1() {
        let text = format!("[server]\ntrusted_proxies = [\"0.0.0.0/0\"]\n{CLEAN}");
        assert_eq!(run(&text, Options::default()).exit, 0);
        let strict = run(&text, Options { strict: true, ..Options::default() });
        assert_eq!(strict.exit, 1);
        assert!(strict.stderr.contains("warning[trusts-everyone]"));
    }

    #[test]
    fn a_key_of_another_kind_is_a_finding_like_any_other() {
        let pem = aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem.as_ref());
        let key = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let text = format!("[tokens]\nkey = \"\"\"\n{key}\"\"\"\n{CLEAN}");
        let outcome = run(&text, Options { format: Format::Json, ..Options::default() });
        assert_eq!((outcome.exit, outcome.stderr.as_str()), (1, ""));
        let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        let codes: Vec<_> = document["diagnostics"].as_array().unwrap().iter().map(|found| &found["code"]).collect();
        assert!(codes.contains(&&serde_json::json!("bad-key")), "{document:#}");
        assert_eq!(document["errors"], 1);
    }

    #[test]
    fn errors_exit_1_as_text_on_stderr_or_json_on_stdout() {
        let outcome = run("[upstreams]\n", Options::default());
        assert_eq!((outcome.exit, outcome.stdout.as_str()), (1, ""));
        assert!(outcome.stderr.contains("error[no-routes]"));
        let outcome = run("[upstreams]\n", Options { format: Format::Json, ..Options::default() });
        let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!((outcome.exit, &document["diagnostics"][0]["code"]), (1, &"no-routes".into()));
    }
}
