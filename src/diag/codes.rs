//! Every kind of finding that there is: a code is stable, and has a section of its own in `docs/findings.md`.

use super::Severity;

/// A kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Its name, which never changes.
    pub name: &'static str,
    /// How bad its findings are.
    pub severity: Severities,
    /// What it says, without the case at hand.
    pub summary: &'static str,
}

/// How bad findings of one kind are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severities {
    /// Always errors.
    Error,
    /// Always warnings.
    Warning,
    /// It depends on the case.
    Either,
}

impl Severities {
    /// Whether a finding of this kind may be so bad.
    pub fn take(self, severity: Severity) -> bool {
        match self {
            Self::Error => severity == Severity::Error,
            Self::Warning => severity == Severity::Warning,
            Self::Either => true,
        }
    }
}

/// Where the documentation has more about `code`.
pub fn page(code: &str) -> String {
    format!("docs/findings.md#{code}")
}

const fn error(name: &'static str, summary: &'static str) -> Code {
    Code { name, severity: Severities::Error, summary }
}

const fn warning(name: &'static str, summary: &'static str) -> Code {
    Code { name, severity: Severities::Warning, summary }
}

const fn either(name: &'static str, summary: &'static str) -> Code {
    Code { name, severity: Severities::Either, summary }
}

/// All of them, by name.
pub const CODES: &[Code] = &[
    error("accept-without-self", "cookies, passwords or API keys are accepted where only other issuers count"),
    warning("always-satisfied", "a condition that holds for every sign-in"),
    error("anyone-narrowed", "anyone may, but only someone who is signed in"),
    error("bad-account", "a line of the file of accounts can't be taken"),
    error("bad-address", "not an address"),
    error("bad-certificate", "a file of certificates that can't be used"),
    error("bad-claim", "not a path of claims"),
    error("bad-cookie-name", "not a cookie's name"),
    error("bad-domain", "not a domain for a cookie"),
    error("bad-duration", "not a duration"),
    error("bad-expectation", "a test can't expect this"),
    error("bad-filter", "not a filter for the log"),
    error("bad-hash", "nothing that a request's server can be found by"),
    error("bad-header", "not a header that the gateway may set"),
    error("bad-host", "not a pattern of hosts"),
    error("bad-jwks", "not a set of keys"),
    error("bad-key", "not a key that can sign tokens"),
    error("bad-listener", "a listener can't be as it is written"),
    error("bad-method", "not a method that is forwarded"),
    error("bad-mode", "a text is no mode of a file"),
    error("bad-name", "not a name that someone can have"),
    error("bad-network", "not a network"),
    error("bad-origin", "not an origin"),
    error("bad-path", "not a path, or not a pattern of paths"),
    error("bad-prefix", "not a prefix that can be used here"),
    error("bad-private-key", "a file of a private key that can't be used"),
    error("bad-rate", "not a rate of requests"),
    error("bad-request-line", "not a request"),
    error("bad-size", "not a size"),
    error("bad-status", "not a status code that can be named here"),
    error("bad-store", "not a store"),
    error("bad-upstream", "not a server that requests can go to"),
    error("bad-url", "not a URL that can be used here"),
    warning("certificate-expired", "the time of a certificate is over, or soon will be"),
    warning("certificate-names", "the certificate is not for the address that people type"),
    error("conflicting-keys", "two keys of the configuration exclude each other"),
    error("cors-any-site", "every site could act with people's cookies"),
    warning("differs-by-reading", "two routes are one to some applications"),
    error("duplicate-header", "two things would be said under one name"),
    error("duplicate-issuer", "two issuers are one"),
    error("duplicate-key", "a key or table is written twice"),
    error("duplicate-name", "two things have one name"),
    error("duplicate-route", "two routes are for the same requests"),
    error("duplicate-value", "a value is written twice"),
    error("empty-allow", "a rule that lets nobody in"),
    error("empty-file", "there is nothing in the file"),
    error("empty-list", "a list with nothing in it"),
    error("empty-value", "a text with nothing in it"),
    error("falls-through", "what a route leaves goes to one that lets in more people"),
    error("file-too-large", "too large for a configuration"),
    error("foreign-domain", "browsers refuse a cookie for another site"),
    warning("from-behind-proxy", "all clients seem to have the proxy's address"),
    error("idle-too-long", "sessions may lie unused for longer than they live"),
    error("impossible-group", "no group can have this name"),
    error("includes-itself", "a file includes itself"),
    error("issuer-is-self", "another issuer has the gateway's own name"),
    error("key-mismatch", "a private key of another certificate"),
    error("lifetime-too-long", "own tokens would live too long"),
    error("login-without-cookie", "a sign-in page that can't help"),
    error("missing-key", "something is missing"),
    either("needs-restart", "a key that can't change while the gateway runs"),
    error("needs-the-store", "only a store could keep it, and there is none"),
    warning("never-matches", "a route that no request reaches"),
    warning("never-satisfied", "a condition that nobody can satisfy"),
    warning("no-client-ca", "a certificate counts that no client is asked for"),
    error("no-routes", "there are no routes"),
    warning("no-such-group", "nobody is in a group that a rule names"),
    warning("no-such-user", "a rule names someone who has no account"),
    warning("nobody-may-ask", "no peer may ask about requests"),
    error("not-built-yet", "comes with a later version"),
    error("not-for-this-address", "a mode or an owner where there is no file"),
    error("not-in-an-included-file", "only the main file may have this"),
    error("not-possible-now", "a running gateway can't take the configuration in"),
    error("not-utf-8", "the file is not UTF-8"),
    warning("nothing-included", "no file is included"),
    warning("observes", "a route that refuses nobody"),
    warning("open-below", "what lies below a protected page is public"),
    error("out-of-range", "too large or too small"),
    warning("passwords-in-the-clear", "passwords cross a network unencrypted"),
    warning("plain-secret", "a secret is written into the configuration"),
    error("proxy-protocol-untrusted", "PROXY headers are expected of nobody"),
    warning("public-over-protected", "a public route takes what a later one protects"),
    error("public-suffix", "browsers refuse a cookie for a domain that belongs to many"),
    warning("readable-by-all", "everyone on this machine can read a secret"),
    error("reserved-name", "a name that is taken"),
    warning("same-names", "people of two issuers can have one name"),
    error("same-path", "two pages have one path"),
    warning("store-has-user", "the store has an account of the same name, which counts"),
    error("syntax", "the file is not TOML"),
    error("test-failed", "a test of the configuration failed"),
    warning("trusts-everyone", "anyone can say to be another address"),
    warning("two-families", "two kinds of forwarded headers are read"),
    warning("unix-not-trusted", "clients of a unix socket have no address"),
    error("unknown-issuer", "there is no such issuer"),
    error("unknown-key", "there is no such key"),
    error("unknown-name", "there is nothing of this name"),
    error("unknown-owner", "a user or a group that this machine does not know"),
    error("unknown-upstream", "there is no such upstream"),
    error("unknown-value", "this key can't have this value"),
    error("unreadable-file", "a file can't be read"),
    warning("unserved-public-url", "no route is for the address that people type"),
    error("unset-variable", "an environment variable is not set"),
    warning("unused-tls", "settings of TLS where there is none"),
    warning("unused-upstream", "no route goes to an upstream"),
    error("upstream-is-gateway", "requests would go round in a circle"),
    either("weak-secret", "a secret that can be guessed"),
    warning("writable-by-others", "others on this machine can change what the gateway believes"),
    error("wrong-key-kind", "a key of another kind than the algorithm's"),
    error("wrong-type", "a value of another type"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_each_is_there_once() {
        assert!(CODES.iter().map(|code| code.name).is_sorted_by(|one, other| one < other));
    }
}
