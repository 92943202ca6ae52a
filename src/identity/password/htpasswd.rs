//! Reads the files that Apache's `htpasswd` writes: `name:hash`, one account a line.
//!
//! Only hashes that a sign-in can verify are taken: bcrypt (`htpasswd -B`) and argon2id.

use std::collections::HashMap;
use std::fmt;

use super::HashProblem;
use super::hash::check;
use crate::identity::UserName;
use crate::secret::Secret;

/// One account of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, in lower case.
    pub name: UserName,
    /// Its hash.
    pub hash: Secret<String>,
}

/// A line that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineProblem {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it and what to do.
    pub message: String,
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// All accounts of a file; empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// Every line that can't be taken.
pub fn parse(text: &str) -> Result<Vec<Entry>, Vec<LineProblem>> {
    let read = |content: &str| {
        let (name, hash) = content.split_once(':').ok_or(NO_COLON)?;
        entry(name, hash)
    };
    each_line(text, read, |entry| &entry.name)
}

/// What `read` makes of every line that says something; `name` is what no two of them may share.
pub(super) fn each_line<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
    name: impl Fn(&T) -> &UserName,
) -> Result<Vec<T>, Vec<LineProblem>> {
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    let mut seen = HashMap::new();
    for (line, content) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let entry = read(content).and_then(|entry| match seen.insert(name(&entry).clone(), line) {
            None => Ok(entry),
            Some(first) => {
                Err(format!("{:?} stands on line {first} already; remove one of them", name(&entry).as_str()))
            }
        });
        match entry {
            Ok(entry) => entries.push(entry),
            Err(message) => problems.push(LineProblem { line, message }),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(problems) }
}

/// One account, if its name and its hash can be taken.
pub(super) fn entry(name: &str, hash: &str) -> Result<Entry, String> {
    let name = UserName::parse(name).ok_or_else(|| {
        format!(
            "{name:?} can't be a name here: letters, digits and ._@+-, beginning with a letter or a digit, at most 64"
        )
    })?;
    let again =
        format!("set a new one with `htpasswd -B FILE {name}`, or leave the line out and `portcullis user add {name}`");
    match check(hash) {
        Ok(()) => Ok(Entry { name, hash: Secret::from(hash) }),
        Err(HashProblem::TooCostly) => Err(format!("the hash costs more than a sign-in may take; {again}")),
        Err(HashProblem::Malformed) => Err(format!("the hash is damaged; {again}")),
        Err(HashProblem::UnknownScheme) => {
            Err(format!("{} can't be verified safely, only bcrypt and argon2id; {again}", scheme(hash)))
        }
    }
}

fn scheme(hash: &str) -> &'static str {
    let starts = |prefix| hash.starts_with(prefix);
    match () {
        () if starts("$apr1$") || starts("$1$") => "an MD5 hash",
        () if starts("{SHA}") || starts("{SSHA}") => "a SHA-1 hash",
        () if starts("$5$") || starts("$6$") => "a SHA-2 crypt hash",
        () if starts("$2x$") => "a hash of the broken bcrypt ($2x$)",
        () if starts("$argon2") => "argon2i or argon2d",
        () if hash.is_empty() => "an empty hash",
        () => "a crypt hash or plain password",
    }
}

/// What stands on a line without a colon may be a hash or a password: it is not repeated.
pub(super) const NO_COLON: &str = "no colon; a line is `name:hash`";

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

    #[test]
    fn reads_bcrypt_lines_comments_and_either_line_end() {
        let text = format!("\u{feff}# people\r\n\r\nBob:{BCRYPT}\r\n  carol@example.com:{BCRYPT}\n");
        let entries = parse(&text).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["bob", "carol@example.com"]);
        assert_eq!(entries[0].hash.expose(), BCRYPT);
    }

    #[test]
    fn names_every_line_that_can_not_be_taken() {
        let cases = [
            ("hunter2", "no colon"),
            ("a b:x", "can't be a name"),
            ("sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "a SHA-1 hash"),
            ("md5:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "an MD5 hash"),
            ("crypt:rqXexS6ZhobKA", "crypt hash or plain password"),
            ("none:", "an empty hash"),
            ("cut:$2y$05$abc", "damaged"),
            (&format!("slow:{}", BCRYPT.replace("$05$", "$20$")), "costs more"),
            (&format!("dup:{BCRYPT}\nDup:{BCRYPT}"), "stands on line 9 already"),
        ];
        let text = cases.iter().map(|(line, _)| *line).collect::<Vec<_>>().join("\n");
        let problems = parse(&text).unwrap_err();
        assert_eq!(problems.len(), cases.len());
        for (problem, (_, expected)) in problems.iter().zip(cases) {
            assert!(problem.message.contains(expected), "{problem}");
        }
        assert_eq!(problems[0].line, 1);
        assert!(!problems[0].to_string().contains("hunter2"));
        assert!(problems[2].to_string().starts_with("line 3: "));
        assert!(problems[2].message.contains("htpasswd -B"));
    }
}
