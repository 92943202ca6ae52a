//! `portcullis completions` and `portcullis man`: what shells and `man` know of the command line, made from the command line itself.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::prompt::Failure;

/// `portcullis completions`
#[derive(Clone, Copy, Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `portcullis man`
#[derive(Clone, Debug, Args)]
pub struct Man {
    /// Write a page for every command into this directory, in place of the first one on standard output
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}

/// Writes the script that completes the words of `command` in a shell.
///
/// # Errors
/// When it can't be written.
pub fn complete(args: Completions, mut command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    let name = command.get_name().to_owned();
    // The generator panics on a writer that fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    out.write_all(&script)?;
    Ok(())
}

/// Writes the manual: one page, or all of them into a directory.
///
/// # Errors
/// When they can't be written.
pub fn manual(args: &Man, mut command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    command.build();
    let Some(dir) = &args.dir else {
        return Ok(out.write_all(&page(&command, None)?)?);
    };
    let cannot = |error: io::Error| {
        Failure::new(format!("can't write into {}: {error}", dir.display()), "name a directory that can be written")
    };
    fs::create_dir_all(dir).map_err(cannot)?;
    let count = pages(&command, None, dir).map_err(cannot)?;
    writeln!(out, "{count} pages in {}", dir.display())?;
    Ok(())
}

/// Writes the page of `command` and those of all commands below it; answers with their number.
fn pages(command: &Command, above: Option<&str>, dir: &Path) -> io::Result<usize> {
    let name = above.map_or_else(|| command.get_name().to_owned(), |above| format!("{above}-{}", command.get_name()));
    fs::write(dir.join(format!("{name}.1")), page(command, Some(&name))?)?;
    let below = command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set());
    below.map(|below| pages(below, Some(&name), dir)).sum::<io::Result<usize>>().map(|count| count + 1)
}

fn page(command: &Command, name: Option<&str>) -> io::Result<Vec<u8>> {
    let command = match name {
        Some(name) => command.clone().display_name(name.to_owned()),
        None => command.clone(),
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;
    use crate::cli::command_line;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            complete(Completions { shell: *shell }, command_line(), &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["serve", "check", "apikey", "password-stdin"] {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let args = Man { dir: Some(dir.path().join("man")) };
        let mut out = Vec::new();
        manual(&args, command_line(), &mut out).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("man").join(name)).unwrap();
        assert!(read("portcullis.1").contains(".TH portcullis 1"));
        let add = read("portcullis-user-add.1");
        assert!(add.contains("portcullis\\-user\\-add") && add.contains("password\\-stdin"), "{add}");
        let count = fs::read_dir(dir.path().join("man")).unwrap().count();
        assert!(count > 25 && String::from_utf8(out).unwrap().starts_with(&format!("{count} pages")));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = manual(&Man { dir: Some(file) }, command_line(), &mut Vec::new()).unwrap_err();
        assert!(failure.to_string().contains("can't write into"), "{failure}");
        let mut page = Vec::new();
        manual(&Man { dir: None }, command_line(), &mut page).unwrap();
        assert!(String::from_utf8(page).unwrap().contains("serve"));
    }
}
