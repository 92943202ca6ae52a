//! Tables for people: columns aligned, nothing a terminal could take for a command.

use std::io::{self, Write};

pub use crate::diag::plain;

/// Writes `rows` under `header`, each column as wide as its widest cell. An empty cell shows as `-`.
///
/// # Errors
/// When `out` can't be written.
pub fn write<const COLUMNS: usize>(
    out: &mut dyn Write,
    header: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> io::Result<()> {
    let rows: Vec<[String; COLUMNS]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(cell) }))
        .collect();
    let header = header.map(str::to_owned);
    let mut widths = [0; COLUMNS];
    for row in std::iter::once(&header).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + GAP));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns_and_shows_what_a_terminal_would_obey() {
        let rows = [
            ["bob".to_owned(), "admin,ops".to_owned(), "x".to_owned()],
            ["alexander".to_owned(), String::new(), "\u{1b}[2Jé\u{202e}".to_owned()],
        ];
        let mut out = Vec::new();
        write(&mut out, ["NAME", "GROUPS", "LAST"], &rows).unwrap();
        let expected = "\
NAME       GROUPS     LAST
bob        admin,ops  x
alexander  -          \\u{1b}[2Jé\\u{202e}
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
