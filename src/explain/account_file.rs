//! What is wrong with the file of accounts that a configuration names, said of the place that names it.

use crate::config::UserFile;
use crate::diag::{Diagnostic, quoted};
use crate::identity::password::account_file;

/// One finding for each line that can't be taken, as many as anyone reads.
pub(super) fn findings(file: &UserFile) -> Vec<Diagnostic> {
    let problems = account_file::parse(file.text.expose()).err().unwrap_or_default();
    let path = quoted(&file.path.to_string_lossy());
    let said = |message: String| {
        let finding = Diagnostic::error("bad-account", message).at(file.place.clone());
        finding
            .label("no account of it counts")
            .help("a line is `name:hash:groups:email:full name`; see docs/sign-in.md")
    };
    let mut findings: Vec<_> =
        problems.iter().take(MOST_LINES).map(|problem| said(format!("{path}, {problem}"))).collect();
    if problems.len() > MOST_LINES {
        findings.push(said(format!("{path}: {} more lines can't be taken", problems.len() - MOST_LINES)));
    }
    findings
}

const MOST_LINES: usize = 20;
