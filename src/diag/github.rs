//! Findings as workflow commands, which GitHub shows beside the lines of a pull request.

use std::fmt::Write as _;

use super::{Diagnostic, Diagnostics, page};

impl Diagnostics {
    /// One line for each finding: `::error file=…,line=…,title=CODE::message`. Empty when there are none.
    pub fn github(&self) -> String {
        self.iter().map(|finding| self.command(finding)).collect()
    }

    fn command(&self, finding: &Diagnostic) -> String {
        let mut line = format!("::{} file={}", finding.severity.name(), property(self.file(finding)));
        if let Some((start, end)) = self.place(finding) {
            let _ = write!(line, ",line={},endLine={}", start.line, end.line);
            // Columns are taken only where they are of one line.
            if start.line == end.line {
                let _ = write!(line, ",col={},endColumn={}", start.column, end.column);
            }
        }
        let mut text = finding.message.clone();
        for more in [&finding.label].into_iter().chain(&finding.help).filter(|more| !more.is_empty()) {
            let _ = write!(text, "\n{more}");
        }
        let _ = write!(text, "\n{}", page(finding.code));
        let _ = writeln!(line, ",title={}::{}", property(finding.code), data(&text));
        line
    }
}

/// What stands behind the second `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Source;

    #[test]
    fn one_line_for_each_with_nothing_in_it_that_would_end_it() {
        let source = Source::new("a,b:100%.toml", "x = 1\ny = [\n]\n".to_owned());
        let list = vec![
            Diagnostic::error("wrong-type", "50% of\r\n::error::it, too").at(4..5).help("write \"0\""),
            Diagnostic::warning("empty-list", "empty").at(10..13).label("here"),
            Diagnostic::warning("same-path", "odd"),
        ];
        let expected = "\
::warning file=a%2Cb%3A100%25.toml,title=same-path::odd%0Adocs/findings.md#same-path
::error file=a%2Cb%3A100%25.toml,line=1,endLine=1,col=5,endColumn=6,title=wrong-type::50%25 of%0D%0A::error::it, too%0Awrite \"0\"%0Adocs/findings.md#wrong-type
::warning file=a%2Cb%3A100%25.toml,line=2,endLine=3,title=empty-list::empty%0Ahere%0Adocs/findings.md#empty-list
";
        assert_eq!(Diagnostics::new(source, list).github(), expected);
    }
}
