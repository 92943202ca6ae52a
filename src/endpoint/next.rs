//! Where to go after a sign-in: a path on this host and nothing that any browser could take for another one.

use crate::message::path::{Reading, RequestPath};

/// `wanted`, if it is a path on this host; else `/`.
///
/// Browsers drop tabs and line ends from addresses, take `\` for `/` and `//` for the beginning of a host (WHATWG URL,
/// "special authority slashes state"). None of these passes, plain, encoded or doubly encoded at the front.
/// `not` are paths that would lead round in a circle.
pub fn safe<'a>(wanted: Option<&'a str>, not: &[&str]) -> &'a str {
    wanted.filter(|wanted| is_safe(wanted, not)).unwrap_or("/")
}

fn is_safe(wanted: &str, not: &[&str]) -> bool {
    let is_plain = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'\\');
    if wanted.len() > MOST_BYTES || !is_plain(wanted) || !stays_here(wanted) {
        return false;
    }
    let path = wanted.split(['?', '#']).next().unwrap_or("");
    // What the gateway itself would refuse to judge is no place to go to: dot segments, backslashes, controls.
    let Ok(read) = RequestPath::parse(path) else { return false };
    let twice = read.reading(Reading::DecodedTwice);
    let once = read.reading(Reading::DecodedSlash);
    stays_here(&once) && stays_here(&twice) && !not.contains(&path) && !not.contains(&read.canonical())
}

fn stays_here(text: &str) -> bool {
    text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\")
}

/// Longer than any path that an application would want to come back to.
const MOST_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const NOT: [&str; 2] = ["/login", "/logout"];

    #[test]
    fn keeps_paths_of_this_host() {
        for good in ["/", "/a/b?c=d&e=%2F%2Fevil", "/caf%C3%A9", "/a//b", "/search?q=http://x/", "/a#b", "/login/more"]
        {
            assert_eq!(safe(Some(good), &NOT), good);
        }
    }

    #[test]
    fn leaves_out_what_a_browser_could_read_as_another_origin() {
        for evil in [
            "",
            "evil",
            "//evil",
            "///evil",
            "/\\evil",
            "\\\\evil",
            "\\/evil",
            "/\t/evil",
            "/%09/evil",
            "/%5cevil",
            "/%5Cevil",
            "/%2fevil",
            "/%2F/evil",
            "/%252fevil",
            "/%255cevil",
            "https:evil",
            "https://evil",
            "https://good@evil",
            "http:/evil",
            "javascript:alert(1)",
            "data:text/html,x",
            " /a",
            "/a b",
            "/a\r\nSet-Cookie: x=y",
            "/%0d%0aX: y",
            "/é",
            "?x=//evil",
            "/\u{0}",
            "/%00/evil",
            "//evil%2F..",
            "/%2e%2e//evil\\",
            "/login",
            "/login?next=/login",
            "/logout",
            "/%6cogin",
        ] {
            assert_eq!(safe(Some(evil), &NOT), "/", "{evil:?}");
        }
        assert_eq!(safe(Some(&format!("/{}", "a".repeat(5000))), &NOT), "/");
        assert_eq!(safe(None, &NOT), "/");
    }
}
