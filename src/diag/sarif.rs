//! Findings in the Static Analysis Results Interchange Format (SARIF 2.1.0, OASIS), for code scanning.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::{CODES, Code, Diagnostic, Diagnostics, Severities, Span, page};

impl Diagnostics {
    /// A log with one run. Its rules are the kinds of findings that it has.
    pub fn sarif(&self) -> Value {
        let mut codes: Vec<&str> = self.iter().map(|finding| finding.code).collect();
        codes.sort_unstable();
        codes.dedup();
        let results: Vec<Value> = self.iter().map(|finding| self.result(finding, &codes)).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "Portcullis",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": codes.iter().map(|code| rule(code)).collect::<Vec<_>>(),
                } },
                "columnKind": "unicodeCodePoints",
                "results": results,
            }],
        })
    }

    fn result(&self, finding: &Diagnostic, codes: &[&str]) -> Value {
        let text = match &finding.help {
            Some(help) => format!("{} ({help})", finding.message),
            None => finding.message.clone(),
        };
        let place = match &finding.span {
            Some(span) => self.location(span, &finding.label),
            None => json!({ "physicalLocation": { "artifactLocation": { "uri": uri(self.source().name()) } } }),
        };
        let also: Vec<Value> = finding.also.iter().map(|(span, label)| self.location(span, label)).collect();
        json!({
            "ruleId": finding.code,
            "ruleIndex": codes.binary_search(&finding.code).ok(),
            "level": finding.severity.name(),
            "message": { "text": escaped(&text) },
            "locations": [place],
            "relatedLocations": also,
        })
    }

    fn location(&self, span: &Span, label: &str) -> Value {
        let (start, end) = (self.source().position(span.start), self.source().position(span.end));
        let mut location = json!({ "physicalLocation": {
            "artifactLocation": { "uri": uri(self.source().file(span.start)) },
            "region": {
                "startLine": start.line,
                "startColumn": start.column,
                "endLine": end.line,
                "endColumn": end.column,
            },
        } });
        if !label.is_empty() {
            location["message"] = json!({ "text": escaped(label) });
        }
        location
    }
}

fn rule(name: &str) -> Value {
    let known = CODES.iter().find(|code| code.name == name);
    let level = match known.map(|code| code.severity) {
        Some(Severities::Warning) => "warning",
        Some(Severities::Error | Severities::Either) | None => "error",
    };
    json!({
        "id": name,
        "shortDescription": { "text": known.map_or(name, |Code { summary, .. }| summary) },
        "help": { "text": format!("See {}", page(name)) },
        "defaultConfiguration": { "level": level },
    })
}

/// Braces stand for placeholders in messages, and are doubled where they are meant (section 3.11.5).
fn escaped(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// A path as a reference that is a URI (RFC 3986): an absolute one names this machine's files.
fn uri(path: &str) -> String {
    let encoded = utf8_percent_encode(path, NOT_IN_A_PATH);
    if path.starts_with('/') { format!("file://{encoded}") } else { encoded.to_string() }
}

/// A colon too, which would make a scheme of what stands before it.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b':')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_uri() {
        assert_eq!(uri("/etc/a b/gate#1.toml"), "file:///etc/a%20b/gate%231.toml");
        assert_eq!(uri("routes.d/ä:50%.toml"), "routes.d/%C3%A4%3A50%25.toml");
    }
}
