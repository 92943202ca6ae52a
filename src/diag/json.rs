//! Findings as one JSON document.

use serde_json::{Value, json};

use super::{Diagnostic, Diagnostics, Span, page};

impl Diagnostics {
    /// The findings for a program. Lines and columns count from 1, columns in characters; an end is one past the last
    /// character.
    pub fn json(&self) -> Value {
        let list: Vec<Value> = self.iter().map(|finding| self.entry(finding)).collect();
        json!({
            "file": self.source().name(),
            "diagnostics": list,
            "errors": self.errors(),
            "warnings": self.warnings(),
        })
    }

    fn entry(&self, finding: &Diagnostic) -> Value {
        let place = self.place(finding);
        let own = finding.span.iter().map(|span| self.span(span, &finding.label, true));
        let also = finding.also.iter().map(|(span, label)| self.span(span, label, false));
        json!({
            "severity": finding.severity.name(),
            "code": finding.code,
            "message": finding.message,
            "file": self.file(finding),
            "line": place.map(|(start, _)| start.line),
            "column": place.map(|(start, _)| start.column),
            "end_line": place.map(|(_, end)| end.line),
            "end_column": place.map(|(_, end)| end.column),
            "label": finding.label,
            "spans": own.chain(also).collect::<Vec<_>>(),
            "help": finding.help,
            "page": page(finding.code),
        })
    }

    fn span(&self, span: &Span, label: &str, is_primary: bool) -> Value {
        let (start, end) = (self.source().position(span.start), self.source().position(span.end));
        json!({
            "file": self.source().file(span.start),
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
            "label": label,
            "primary": is_primary,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Source;

    #[test]
    fn counts_characters_from_one_and_names_the_file_of_each_place() {
        let mut source = Source::new("g.toml", "[server]\nwörkers = \"x\"\n".to_owned());
        let base = source.add("r.toml", "a\nbc\n".to_owned());
        let finding = Diagnostic::error("wrong-type", "not a number").at(20..23).label("here").help("write 0");
        let finding = finding.also(base + 2..base + 4, "and here");
        let json = Diagnostics::new(source, vec![finding, Diagnostic::warning("same-path", "odd")]).json();
        assert_eq!((&json["errors"], &json["warnings"], &json["file"]), (&json!(1), &json!(1), &json!("g.toml")));
        let [odd, found] = [0, 1].map(|at| &json["diagnostics"][at]);
        assert_eq!((&odd["line"], &odd["spans"], &odd["file"]), (&Value::Null, &json!([]), &json!("g.toml")));
        assert_eq!((&found["line"], &found["column"]), (&json!(2), &json!(11)));
        assert_eq!((&found["end_line"], &found["end_column"]), (&json!(2), &json!(14)));
        assert_eq!(found["page"], "docs/findings.md#wrong-type");
        let also = json!({ "file": "r.toml", "line": 2, "column": 1, "end_line": 2, "end_column": 3, "label": "and here", "primary": false });
        assert_eq!((found["spans"].as_array().unwrap().len(), &found["spans"][1]), (2, &also));
    }
}
