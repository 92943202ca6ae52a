//! What commands ask for, and how they fail. No command asks when standard input is not a terminal.

use std::fmt;
use std::io::{self, Read, Write};

use crate::identity::password::{self, MIN_NEW_CHARS, Weakness};
use crate::secret::Secret;

/// Where a command reads from and writes to.
pub struct Console<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Whether standard input is a terminal, so that there is someone to ask.
    pub is_terminal: bool,
    /// Shows a text on the terminal and reads a line without echo: `rpassword::prompt_password`.
    pub ask_hidden: &'a mut dyn FnMut(&str) -> io::Result<String>,
}

/// Why a command did not do what it was told, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong.
    pub message: String,
    /// The way out; empty where the message says it.
    pub help: String,
}

impl Failure {
    /// A failure with a way out.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n  help: {}", self.help) }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(format!("can't read or write the terminal: {error}"), "")
    }
}

impl Console<'_> {
    /// A new password for `user`: the first line of standard input, or asked for twice without echo.
    ///
    /// A weak one is refused to a person, who can choose another, and only remarked to a script, which was told to set it.
    ///
    /// # Errors
    /// When there is none, it is longer than any can be, or a person typed a weak one.
    pub fn new_password(&mut self, user: &str, from_stdin: bool) -> Result<Secret<String>, Failure> {
        let password = if from_stdin { self.first_line()? } else { self.asked_twice(user)? };
        let text = password.expose();
        if text.is_empty() {
            return Err(Failure::new("the password is empty", format!("take at least {MIN_NEW_CHARS} characters")));
        }
        if !password::has_possible_length(text) {
            let message = format!("the password is too long: it has more than {} bytes", password::MAX_BYTES);
            return Err(Failure::new(message, ""));
        }
        match weakness(user, text) {
            Some(weakness) if from_stdin => writeln!(self.out, "note: {}", weakness.message)?,
            Some(weakness) => return Err(weakness),
            None => {}
        }
        Ok(password)
    }

    /// Has the person type `name` to confirm that `what` is meant.
    ///
    /// # Errors
    /// When they type something else, or there is nobody to ask.
    pub fn confirm(&mut self, what: &str, name: &str) -> Result<(), Failure> {
        if !self.is_terminal {
            return Err(Failure::new(
                format!("{what} wants to be confirmed, and standard input is no terminal to ask on"),
                "give --yes",
            ));
        }
        write!(self.out, "{what} can't be undone. Type {name} to go on: ")?;
        self.out.flush()?;
        if self.first_line()?.expose() == name { Ok(()) } else { Err(Failure::new("nothing was done", "")) }
    }

    fn asked_twice(&mut self, user: &str) -> Result<Secret<String>, Failure> {
        if !self.is_terminal {
            return Err(Failure::new(
                "standard input is no terminal to ask for a password on",
                "give --password-stdin and the password as the first line of standard input",
            ));
        }
        let first = Secret::new((self.ask_hidden)(&format!("Password for {user}: "))?);
        let second = Secret::new((self.ask_hidden)("Once more: ")?);
        if first.is(second.expose().as_bytes()) {
            Ok(first)
        } else {
            Err(Failure::new("the two passwords differ", "try again"))
        }
    }

    /// Reads byte by byte: what stands behind the line is not ours.
    fn first_line(&mut self) -> Result<Secret<String>, Failure> {
        let mut line = Vec::with_capacity(LONGEST_LINE);
        let mut byte = [0];
        while line.len() < LONGEST_LINE && self.input.read(&mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map(Secret::new).map_err(|error| {
            drop(Secret::new(error.into_bytes()));
            Failure::new("standard input is not UTF-8", "set a password in UTF-8, as browsers send it")
        })
    }
}

/// Why a password is easily guessed.
fn weakness(user: &str, password: &str) -> Option<Failure> {
    password::weakness(user, password).map(|weakness| match weakness {
        Weakness::Short => Failure::new(
            format!("the password is short: it has fewer than {MIN_NEW_CHARS} characters"),
            "a few words in a row are easy to remember and hard to guess",
        ),
        Weakness::UserName => Failure::new("the password is the user's name", "take one that nobody can guess"),
    })
}

/// Enough to tell that a password is too long.
const LONGEST_LINE: usize = password::MAX_BYTES + 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn from_stdin(input: &str) -> Result<String, Failure> {
        let mut hidden = |_: &str| panic!("asks");
        let mut console =
            Console { out: &mut Vec::new(), input: &mut input.as_bytes(), is_terminal: false, ask_hidden: &mut hidden };
        console.new_password("bob", true).map(|password| password.expose().clone())
    }

    fn typed(first: &str, second: &str, is_terminal: bool) -> Result<String, Failure> {
        let mut answers = vec![second.to_owned(), first.to_owned()];
        let mut hidden = |_: &str| Ok(answers.pop().unwrap());
        let mut console =
            Console { out: &mut Vec::new(), input: &mut io::empty(), is_terminal, ask_hidden: &mut hidden };
        console.new_password("bob", false).map(|password| password.expose().clone())
    }

    #[test]
    fn takes_the_first_line_of_standard_input_and_nothing_off_it() {
        let cases = [
            ("correct horse\n", "correct horse"),
            ("correct horse", "correct horse"),
            ("correct horse\r\nanother\n", "correct horse"),
            ("  spaces count  \n", "  spaces count  "),
        ];
        for (input, password) in cases {
            assert_eq!(from_stdin(input).unwrap(), password, "{input:?}");
        }
        assert_eq!(from_stdin(&"x".repeat(1024)).unwrap().len(), 1024);
    }

    #[test]
    fn refuses_impossible_passwords() {
        let long = "x".repeat(1025);
        for (input, message) in [("", "empty"), ("\nsecond line", "empty"), (&long, "too long")] {
            let failure = from_stdin(input).unwrap_err();
            assert!(failure.message.contains(message), "{failure}");
            assert!(input.is_empty() || !failure.to_string().contains(input.trim()), "{failure}");
        }
    }

    #[test]
    fn a_weak_password_is_refused_to_a_person_and_remarked_to_a_script() {
        for weak in ["hunter2", "Bob"] {
            assert!(typed(weak, weak, true).unwrap_err().message.starts_with("the password is"), "{weak}");
            assert_eq!(from_stdin(weak).unwrap(), weak);
        }
    }

    #[test]
    fn asks_twice_and_only_a_terminal() {
        assert_eq!(typed("correct horse", "correct horse", true).unwrap(), "correct horse");
        assert_eq!(typed("correct horse", "correct house", true).unwrap_err().message, "the two passwords differ");
        assert!(typed("correct horse", "correct horse", false).unwrap_err().help.contains("--password-stdin"));
    }
}
