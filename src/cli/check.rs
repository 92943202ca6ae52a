//! `portcullis check`: reads the configuration and says everything that is wrong with it.
//!
//! Prints nothing itself: what to print, where, and the exit status are its result.

use std::path::Path;

use crate::config::{self, Config, KeySource};
use crate::diag::Diagnostic;
use crate::secret::Random;
use crate::token::KeySet;

/// `portcullis check`
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Warnings fail too
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The same, as options.
    pub const fn options(self, color: bool) -> Options {
        Options { json: self.json, strict: self.strict, color }
    }
}

/// How the findings are to be shown and judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// One JSON document instead of text.
    pub json: bool,
    /// Warnings count as errors.
    pub strict: bool,
    /// Colour in the text.
    pub color: bool,
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
pub fn check(explicit: Option<&Path>, options: Options, env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    let path = match config::find_config_file(explicit) {
        Ok(path) => path,
        Err(message) => return Outcome { stdout: String::new(), stderr: format!("error: {message}\n"), exit: 1 },
    };
    let config::Loaded { config, diagnostics, .. } = config::load(&path, env);
    let found = match config.as_ref().and_then(key_problem) {
        Some(problem) => diagnostics.with(problem),
        None => diagnostics,
    };
    let failed = found.errors() > 0 || (options.strict && found.warnings() > 0);
    let (stdout, stderr) = if options.json {
        (format!("{:#}\n", found.json()), String::new())
    } else if found.is_empty() {
        (format!("{}: no findings\n", path.display()), String::new())
    } else {
        (String::new(), found.render(options.color))
    };
    Outcome { stdout, stderr, exit: u8::from(failed) }
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
        let outcome = run(&text, Options { json: true, ..Options::default() });
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
        let outcome = run("[upstreams]\n", Options { json: true, ..Options::default() });
        let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!((outcome.exit, &document["diagnostics"][0]["code"]), (1, &"no-routes".into()));
    }
}
