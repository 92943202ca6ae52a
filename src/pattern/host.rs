//! Patterns of hosts: a name, or `*.name` for one or more labels before it.

use super::PatternError;
use crate::message::host::Host;

/// A host that a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    text: Box<str>,
}

impl HostPattern {
    /// Reads a pattern; upper case is folded, a trailing dot dropped.
    ///
    /// # Errors
    /// What is no host name, has a port, or has a wildcard elsewhere than as its whole first label.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Err(PatternError::new("`*` is no host", "leave `hosts` out: the route is for every host then"));
        }
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => ("*.", name),
            None => ("", text),
        };
        if name.contains('*') {
            return Err(PatternError::new(
                format!("`{text}` has a `*` that is not its first label"),
                "`*.example.com` stands for one or more labels before `example.com`",
            ));
        }
        if name.contains('/') {
            return Err(PatternError::new(
                format!("`{text}` is no host"),
                "write the host alone, without scheme and path",
            ));
        }
        let host = Host::parse(name.as_bytes()).map_err(|_| {
            PatternError::new(
                format!("`{text}` is no host name or address"),
                "letters, digits, `-` and `.`; other letters in their `xn--` form; an IPv6 address in brackets",
            )
        })?;
        let pattern = format!("{wildcard}{}", host.name());
        if host.port().is_some() {
            return Err(PatternError::new(
                format!("`{text}` has a port"),
                format!("hosts are compared without port: write `{pattern}`"),
            ));
        }
        if !wildcard.is_empty() && name.starts_with('[') {
            return Err(PatternError::new(format!("`{text}` is no host"), "an address has no labels before it"));
        }
        Ok(Self { text: pattern.into() })
    }

    /// The pattern as text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name that one or more labels stand before, if this is a `*.name`.
    pub fn suffix(&self) -> Option<&str> {
        self.text.strip_prefix("*.")
    }

    /// Whether `host`, in normal form, is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self.suffix() {
            None => *self.text == *host,
            Some(suffix) => host
                .strip_suffix(suffix)
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_or_more_labels() {
        let pattern = HostPattern::parse("*.Apps.example.com").unwrap();
        assert_eq!(pattern.as_str(), "*.apps.example.com");
        for host in ["a.apps.example.com", "a.b.apps.example.com"] {
            assert!(pattern.matches(host), "{host}");
        }
        for host in ["apps.example.com", "xapps.example.com", ".apps.example.com", "a.apps.example.com.evil", ""] {
            assert!(!pattern.matches(host), "{host}");
        }
        assert!(HostPattern::parse("h.").unwrap().matches("h"));
        assert!(!HostPattern::parse("h").unwrap().matches("a.h"));
    }

    #[test]
    fn refuses_what_is_no_host_and_says_the_way_out() {
        for bad in [
            "",
            "*",
            "*.",
            "**.h",
            "a.*.h",
            "a*.h",
            "*h",
            "h:80",
            "*.h:80",
            "http://h",
            "h/x",
            "u@h",
            "bücher.example",
            "a b",
            "*.[::1]",
            "a,b",
        ] {
            let error = HostPattern::parse(bad).unwrap_err();
            assert!(!error.message.is_empty() && !error.help.is_empty(), "{bad}");
        }
        assert!(HostPattern::parse("*.h:80").unwrap_err().help.contains("`*.h`"));
    }
}
