//! HTML that escapes by construction: a page grows only from templates that are part of the program and from
//! values that are escaped for the place where they stand. There is no way to make [`Html`] from text at run time.

use std::borrow::Cow;

/// Finished HTML, safe to stand in a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Html(Cow<'static, str>);

/// What stands in for a `{{name}}` of a template.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// Text from anywhere. In `href` and `action` it must be a path on this host, else `/` is written.
    Text(&'a str),
    /// An address from the configuration: `http://` or `https://`, else `/` is written.
    Address(&'a str),
    /// HTML made here.
    Html(&'a Html),
}

impl Html {
    /// A piece of the program.
    pub(crate) const fn fixed(html: &'static str) -> Self {
        Self(Cow::Borrowed(html))
    }

    /// The template with each `{{name}}` replaced by its value. A name without a value becomes nothing; tests catch
    /// it, and a value that the template does not ask for.
    pub(crate) fn fill(template: &'static str, values: &[(&str, Value<'_>)]) -> Self {
        debug_assert!(
            values.iter().all(|(name, _)| template.contains(&format!("{{{{{name}}}}}"))),
            "a value that no placeholder asks for"
        );
        let mut page = String::with_capacity(template.len() + 512);
        let mut pieces = template.trim_end_matches('\n').split("{{");
        page.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let (name, rest) = piece.split_once("}}").unwrap_or((piece, ""));
            let value = values.iter().find(|(known, _)| *known == name);
            debug_assert!(value.is_some(), "no value for {name}");
            if let Some((_, value)) = value {
                value.write(&mut page);
            }
            page.push_str(rest);
        }
        Self(Cow::Owned(page))
    }

    /// One after the other.
    pub(crate) fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(Cow::Owned(parts.into_iter().map(|part| part.0).collect()))
    }

    /// The text to send.
    pub(crate) fn into_string(self) -> String {
        self.0.into_owned()
    }
}

impl Value<'_> {
    fn write(self, page: &mut String) {
        let in_link = page.ends_with("href=\"") || page.ends_with("action=\"");
        match self {
            Self::Html(html) => page.push_str(&html.0),
            Self::Text(text) if in_link && !is_local_path(text) => page.push('/'),
            Self::Address(text) if !is_web_address(text) => page.push('/'),
            Self::Text(text) | Self::Address(text) => escape(text, page),
        }
    }
}

/// Whether a browser stays on this host when it follows `link`. It reads a backslash as a slash, and skips tabs and
/// line ends, so that `/\t/host` would leave.
fn is_local_path(link: &str) -> bool {
    link.starts_with('/') && !link.starts_with("//") && !link.contains(|c: char| c == '\\' || c.is_control())
}

fn is_web_address(link: &str) -> bool {
    link.starts_with("https://") || link.starts_with("http://")
}

/// Writes `text` so that it is text in an element and in a quoted attribute alike. Controls that HTML forbids become
/// U+FFFD; a page in which they stay is not well-formed, and they hide what is really there.
fn escape(text: &str, page: &mut String) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            '\t' | '\n' => page.push(character),
            control if control.is_control() => page.push(char::REPLACEMENT_CHARACTER),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_whatever_could_end_text_or_an_attribute() {
        let html =
            Html::fill("<p title=\"{{a}}\">{{a}}</p>\n", &[("a", Value::Text("<script>\"x\" & 'y'\u{0}\r</script>"))]);
        let safe = "&lt;script&gt;&quot;x&quot; &amp; &#39;y&#39;\u{fffd}\u{fffd}&lt;/script&gt;";
        assert_eq!(html.into_string(), format!("<p title=\"{safe}\">{safe}</p>"));
    }

    #[test]
    fn a_value_is_not_read_as_a_template() {
        let html = Html::fill("{{a}}{{b}}", &[("a", Value::Text("{{b}}")), ("b", Value::Text("!"))]);
        assert_eq!(html.into_string(), "{{b}}!");
    }

    #[test]
    fn a_link_stays_on_this_host() {
        let kept = ["/", "/a/b?c=d", "/a//b", "/%2F%2Fevil.example"];
        let refused = [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            " javascript:alert(1)",
            "data:text/html,x",
            "https://evil.example/",
        ];
        for template in ["<a href=\"{{to}}\">", "<form action=\"{{to}}\">"] {
            for link in kept {
                let html = Html::fill(template, &[("to", Value::Text(link))]).into_string();
                assert_eq!(html, template.replace("{{to}}", link));
            }
            for link in refused {
                let html = Html::fill(template, &[("to", Value::Text(link))]).into_string();
                assert_eq!(html, template.replace("{{to}}", "/"), "{link:?}");
            }
        }
    }

    #[test]
    fn an_address_is_a_web_address() {
        let link = |to| Html::fill("<a href=\"{{to}}\">", &[("to", Value::Address(to))]).into_string();
        assert_eq!(link("https://a.example/"), "<a href=\"https://a.example/\">");
        assert_eq!(link("http://a.example/\"x"), "<a href=\"http://a.example/&quot;x\">");
        assert_eq!(link("javascript:alert(1)"), "<a href=\"/\">");
        assert_eq!(link("/path"), "<a href=\"/\">");
    }
}
