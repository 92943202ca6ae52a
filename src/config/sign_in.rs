//! `[sessions]` and `[login]`: the cookie, how long a sign-in lasts, and where it happens.

use std::time::Duration;

use http::StatusCode;
use toml::Spanned;

use super::reader::{Context, Table, Written};
use super::server::positive;
use super::url::is_host;
use super::values::Fault;
use super::{Login, PublicUrl, Sessions, meaning};
use crate::diag::{Diagnostic, quoted};
use crate::pattern::PathPattern;

/// `[sessions]` as written.
#[derive(Default)]
pub(super) struct RawSessions {
    lifetime: Option<Written<Duration>>,
    idle: Option<Written<Duration>>,
    remember: Option<Written<Duration>>,
    cookie: Option<Written<String>>,
    domain: Option<Written<String>>,
}

impl RawSessions {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            lifetime: table.duration("lifetime"),
            idle: table.duration("idle"),
            remember: table.duration("remember"),
            cookie: table.take("cookie").and_then(|item| item.parsed("bad-cookie-name", cookie_name)),
            domain: table.take("domain").and_then(|item| item.parsed("bad-domain", domain)),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>, public_url: &PublicUrl) -> Sessions {
        let idle_place = self.idle.as_ref().map(Spanned::span);
        let lifetime = positive(cx, "lifetime", self.lifetime, Duration::from_secs(12 * 3600));
        let idle = positive(cx, "idle", self.idle, Duration::from_secs(3600).min(lifetime));
        if let Some(span) = idle_place.filter(|_| idle > lifetime) {
            let finding = Diagnostic::error("idle-too-long", "`idle` is longer than the session lives").at(span);
            cx.report(finding.help("make `idle` shorter or `lifetime` longer (it is 12h unless set)"));
        }
        let domain = self.domain.and_then(|domain| {
            if meaning::is_public_suffix(domain.get_ref()) {
                let message =
                    format!("{} belongs to many: no site may set cookies for all of them", quoted(domain.get_ref()));
                let finding = Diagnostic::error("public-suffix", message).at(domain.span());
                cx.report(finding.label("browsers refuse this cookie").help("name your own domain below it"));
                return None;
            }
            let is_ours = is_under(&public_url.host, domain.get_ref());
            if !is_ours {
                let message = format!("{} is not part of {}", quoted(domain.get_ref()), public_url.origin());
                let finding = Diagnostic::error("foreign-domain", message).at(domain.span());
                let finding = finding.label("browsers refuse this cookie");
                cx.report(finding.help("name the end of `public_url`'s host, or leave `domain` out"));
            }
            is_ours.then(|| domain.into_inner())
        });
        let name = self.cookie.map_or_else(|| "portcullis".to_owned(), Spanned::into_inner);
        // RFC 6265bis section 4.1.3: browsers hold cookies of these names to what the prefix says.
        let prefix = match (public_url.https, &domain) {
            (true, None) => "__Host-",
            (true, Some(_)) => "__Secure-",
            (false, _) => "",
        };
        Sessions {
            lifetime,
            idle,
            remember: positive(cx, "remember", self.remember, Duration::from_secs(30 * 86_400)),
            cookie: format!("{prefix}{name}"),
            domain,
        }
    }
}

/// RFC 6265 section 4.1.1: a cookie's name is a token.
fn cookie_name(text: &str) -> Result<String, Fault> {
    let fault = |message: String, help: &str| Err(Fault::new(message, "not a cookie's name", help));
    let folded = text.to_ascii_lowercase();
    if ["__host-", "__secure-", "__http-"].iter().any(|prefix| folded.starts_with(prefix)) {
        return fault(
            "the gateway puts the prefix before the name itself".to_owned(),
            "write the name without `__Host-`, `__Secure-` or `__Http-`",
        );
    }
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(is_token) {
        return fault(format!("{} can't be a cookie's name", quoted(text)), "use letters, digits, `-` and `_`");
    }
    Ok(text.to_owned())
}

fn domain(text: &str) -> Result<String, Fault> {
    let host = text.to_ascii_lowercase();
    let is_address = host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[');
    if host.starts_with('.') || !is_host(&host) || is_address || !host.contains('.') {
        let help = "write a domain of yours such as \"example.com\", without a dot before it";
        return Err(Fault::new(format!("{} is not a domain for a cookie", quoted(text)), "not a domain", help));
    }
    Ok(host)
}

/// Whether `host` is `domain` or a name below it.
fn is_under(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `[login]` as written.
#[derive(Default)]
pub(super) struct RawLogin {
    path: Option<Written<String>>,
    logout_path: Option<Written<String>>,
    title: Option<Written<String>>,
    failure_status: Option<Written<u64>>,
    failure_detail: Option<Written<String>>,
}

impl RawLogin {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            path: table.take("path").and_then(|item| item.parsed("bad-path", own_path)),
            logout_path: table.take("logout_path").and_then(|item| item.parsed("bad-path", own_path)),
            title: table.take("title").and_then(|item| item.text()),
            failure_status: table.take("failure_status").and_then(|item| item.count(100, 599)),
            failure_detail: table.take("failure_detail").and_then(|item| item.text()),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>) -> Login {
        let place = self.logout_path.as_ref().or(self.path.as_ref()).map(Spanned::span);
        let path = self.path.map_or_else(|| "/login".to_owned(), Spanned::into_inner);
        let logout_path = self.logout_path.map_or_else(|| "/logout".to_owned(), Spanned::into_inner);
        if let Some(span) = place.filter(|_| path.trim_end_matches('/') == logout_path.trim_end_matches('/')) {
            let finding = Diagnostic::error("same-path", "`path` and `logout_path` are the same").at(span);
            cx.report(finding.help("give each its own path, such as \"/login\" and \"/logout\""));
        }
        Login {
            path,
            logout_path,
            title: self.title.map_or_else(|| "Sign in".to_owned(), Spanned::into_inner),
            failure_status: self.failure_status.map_or(StatusCode::FORBIDDEN, |status| failure_status(cx, &status)),
            failure_detail: self.failure_detail.map_or_else(|| "Invalid credentials".to_owned(), Spanned::into_inner),
        }
    }
}

fn failure_status(cx: &Context<'_>, status: &Written<u64>) -> StatusCode {
    match status.get_ref() {
        400 => StatusCode::BAD_REQUEST,
        401 => StatusCode::UNAUTHORIZED,
        403 => StatusCode::FORBIDDEN,
        _ => {
            let finding =
                Diagnostic::error("unknown-value", "`failure_status` must be 400, 401 or 403").at(status.span());
            cx.report(finding.help("403 is the default"));
            StatusCode::FORBIDDEN
        }
    }
}

/// A path of the gateway's own: in normal form, not a pattern, and not where its other paths are.
fn own_path(text: &str) -> Result<String, Fault> {
    normal_path(text)?;
    let folded = text.to_lowercase();
    for reserved in ["/.gateway", "/.well-known"] {
        if folded.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            let message = format!("{} lies under `{reserved}`", quoted(text));
            return Err(Fault::new(message, "taken", "choose a path outside of `/.gateway` and `/.well-known`"));
        }
    }
    if text == "/" {
        return Err(Fault::new("`/` is the application's first page", "taken", "choose a path such as \"/login\""));
    }
    Ok(text.to_owned())
}

/// A path in normal form without wildcards.
pub(super) fn normal_path(text: &str) -> Result<(), Fault> {
    if text.contains('*') {
        return Err(Fault::new(
            format!("{} is a pattern", quoted(text)),
            "has a wildcard",
            "write one path, without `*`",
        ));
    }
    match PathPattern::parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(error.message, "not a path in normal form", error.help)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_domain_ends_the_host_by_whole_labels() {
        assert!(is_under("apps.example.com", "example.com"));
        assert!(is_under("example.com", "example.com"));
        assert!(!is_under("badexample.com", "example.com"));
        assert!(!is_under("example.com", "apps.example.com"));
    }

    #[test]
    fn refuses_names_that_no_cookie_can_have() {
        assert!(cookie_name("portcullis-2").is_ok());
        for bad in ["", "a b", "a=b", "a;b", "a,b", "ä", "__Host-x", "__secure-x", "a\"b"] {
            assert!(cookie_name(bad).is_err(), "{bad}");
        }
    }
}
