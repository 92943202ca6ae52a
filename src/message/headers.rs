//! Names of header fields that only the gateway may send.
//!
//! Applications behind CGI, WSGI or PHP fold names: `X_Forwarded.User` reaches them as `X-Forwarded-User`. So names of
//! ours are compared after folding: only letters and digits count, in lower case.

use http::{HeaderMap, HeaderName, HeaderValue};

pub use super::hop::{clean_trailer_field, clean_trailers, remove_hop_by_hop, remove_noted_hop_by_hop};
use super::survey::Survey;
pub use super::values::{encode_ascii, encode_claim, encode_groups, encode_utf8, user_value};

/// Names that only the gateway may send: a fixed list, fixed families, and what the configuration adds.
#[derive(Clone, Debug)]
pub struct IdentityNames {
    /// Folded and sorted.
    names: Box<[Box<str>]>,
    /// Which first characters any name or family has: what most names fail at.
    first: u64,
    /// Those of names that the configuration adds.
    configured: u64,
}

impl IdentityNames {
    /// The fixed list and families, and `configured` besides.
    pub fn new<'a>(configured: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let mut names: Vec<Box<str>> = NAMES.iter().map(|&name| name.into()).collect();
        let mut first = initials(NAMES.into_iter().chain(FAMILIES).chain([CGI]));
        let mut added = 0;
        for name in configured {
            let folded: String = folded(name.as_str()).map(char::from).collect();
            // A name without letter and digit folds to nothing, and is nobody's.
            if !folded.is_empty() {
                added |= initials([folded.as_str()]);
                names.push(folded.into());
            }
        }
        first |= added;
        names.sort_unstable();
        names.dedup();
        Self { names: names.into(), first, configured: added }
    }

    /// Whether any name of a head with this `survey` may be one of them.
    pub const fn may_guard(&self, survey: &Survey) -> bool {
        survey.may_oddly_begin(self.first) || survey.may_begin(self.configured)
    }

    /// Whether `name` is one of them after folding. Costs nothing but a look at its first letter for most names that
    /// browsers send, and never allocates.
    pub fn guards(&self, name: &str) -> bool {
        match folded(name).next() {
            Some(first) if self.first & initial(first) != 0 => {}
            _ => return false,
        }
        match fold_into(&mut [0; FOLDED], name) {
            Some(folded) => self.guards_folded(folded),
            None => self.guards_long(name),
        }
    }

    fn guards_long(&self, name: &str) -> bool {
        self.guards_folded(&folded(name).collect::<Vec<u8>>())
    }

    fn guards_folded(&self, folded: &[u8]) -> bool {
        let mut name = folded;
        loop {
            let listed = || self.names.binary_search_by(|listed| listed.as_bytes().cmp(name)).is_ok();
            if FAMILIES.iter().any(|family| name.starts_with(family.as_bytes())) || listed() {
                return true;
            }
            // `HTTP_X_USER` is how CGI spells `X-User`.
            match name.strip_prefix(CGI.as_bytes()) {
                Some(rest) => name = rest,
                None => return false,
            }
        }
    }
}

/// Whether an application may read `name` as `other`: case, punctuation and CGI's `HTTP_` aside.
pub fn reads_as(name: &HeaderName, other: &HeaderName) -> bool {
    let (name, other): (Vec<u8>, Vec<u8>) = (folded(name.as_str()).collect(), folded(other.as_str()).collect());
    let mut name = name.as_slice();
    loop {
        match name.strip_prefix(CGI.as_bytes()) {
            _ if name == other => return true,
            Some(rest) => name = rest,
            None => return false,
        }
    }
}

/// Whether frameworks take `name` for the request's method: `X-HTTP-Method-Override` and its like.
pub fn is_method_override(name: &str) -> bool {
    if folded(name).next().is_none_or(|first| OVERRIDING & initial(first) == 0) {
        return false;
    }
    METHOD_OVERRIDES.iter().any(|prefix| {
        let mut name = folded(name);
        prefix.bytes().all(|byte| name.next() == Some(byte))
    })
}

/// Whether any name of a head with this `survey` may be one of those.
pub const fn may_override_method(survey: &Survey) -> bool {
    survey.may_oddly_begin(OVERRIDING)
}

/// Whether any name of a head with this `survey` may be read as `X-API-Key`.
pub const fn may_show_key(survey: &Survey) -> bool {
    survey.may_oddly_begin(initial(b'x'))
}

/// The names that are removed from every request whatever the configuration says, for people: `*` stands for a family.
pub const ALWAYS_REMOVED: [&str; 18] = [
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-Forwarded-Uri",
    "X-Forwarded-Prefix",
    "X-Envoy-Original-Path",
    "X-Portcullis-Assertion",
    "Remote-*",
    "X-Remote-*",
    "X-Auth-Request-*",
    "X-WEBAUTH-*",
    "X-Authenticated-*",
    "X-SSL-Client-*",
];

/// Removes every name that only the gateway may send; says whether there was any.
pub fn strip_guarded(headers: &mut HeaderMap, names: &IdentityNames) -> bool {
    remove_where(headers, |name| names.guards(name.as_str()))
}

/// Removes what frameworks take for the request's method; says whether there was any.
pub fn strip_method_overrides(headers: &mut HeaderMap) -> bool {
    remove_where(headers, |name| is_method_override(name.as_str()))
}

/// Removes those fields that an application may read as `name` (case and punctuation aside) whose value `gone` says so of.
pub fn strip_values(headers: &mut HeaderMap, name: &str, gone: impl Fn(&HeaderValue) -> bool) {
    let reads_as = |other: &HeaderName| other.as_str().len() >= name.len() && folded(other.as_str()).eq(folded(name));
    let names: Vec<HeaderName> = headers.keys().filter(|other| reads_as(other)).cloned().collect();
    for name in names {
        if headers.get_all(&name).iter().any(&gone) {
            let kept: Vec<HeaderValue> = headers.get_all(&name).iter().filter(|value| !gone(value)).cloned().collect();
            headers.remove(&name);
            for value in kept {
                headers.append(&name, value);
            }
        }
    }
}

/// Removes every field that an application may read as `name`, case and punctuation aside.
pub fn strip_spellings(headers: &mut HeaderMap, name: &HeaderName) {
    remove_where(headers, |other| other == name || folded(other.as_str()).eq(folded(name.as_str())));
}

pub(super) fn remove_where(headers: &mut HeaderMap, gone: impl Fn(&HeaderName) -> bool) -> bool {
    let names: Vec<HeaderName> = headers.keys().filter(|name| gone(name)).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
    !names.is_empty()
}

/// The letters and digits of `name` in lower case.
pub(super) fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
}

/// What `name` folds to, if that fits into `buffer`.
pub(super) fn fold_into<'a>(buffer: &'a mut [u8], name: &str) -> Option<&'a [u8]> {
    let mut length = 0;
    for byte in folded(name) {
        *buffer.get_mut(length)? = byte;
        length += 1;
    }
    buffer.get(..length)
}

/// The bits of what folded names begin with.
fn initials<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    names.into_iter().filter_map(|name| name.bytes().next()).fold(0, |set, byte| set | initial(byte))
}

/// A bit for each lower-case letter and digit.
pub(super) const fn initial(byte: u8) -> u64 {
    match byte {
        b'0'..=b'9' => 1 << (byte - b'0'),
        b'a'..=b'z' => 1 << (byte - b'a' + 10),
        _ => 0,
    }
}

/// Longer folded names are rare enough for an allocation.
const FOLDED: usize = 64;

/// What CGI puts before the name of a header.
const CGI: &str = "http";

/// Folded names that are always the gateway's.
const NAMES: [&str; 12] = [
    "xforwardeduser",
    "xforwardedgroups",
    "xforwardedemail",
    "xforwardedpreferredusername",
    "xforwardedaccesstoken",
    "xoriginalurl",
    "xoriginaluri",
    "xrewriteurl",
    "xforwardeduri",
    "xforwardedprefix",
    "xenvoyoriginalpath",
    "xportcullisassertion",
];

/// What the folded names of whole families begin with: `Remote-*`, `X-Remote-*` and so on.
const FAMILIES: [&str; 6] = ["remote", "xremote", "xauthrequest", "xwebauth", "xauthenticated", "xsslclient"];

/// What names begin with by which a client can override the method.
const OVERRIDING: u64 = initial(b'x') | initial(b'h') | initial(b'm');

/// What the folded names begin with by which a client can override the method.
const METHOD_OVERRIDES: [&str; 5] =
    ["xhttpmethod", "xmethodoverride", "httpmethod", "httpxhttpmethod", "methodoverride"];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn guarded() -> IdentityNames {
        let configured = ["x-tenant", "who", "x-app-user-1", "!"].map(HeaderName::from_static);
        IdentityNames::new(&configured)
    }

    #[test]
    fn guards_every_spelling_that_an_application_may_fold() {
        let guarded = guarded();
        for name in [
            "X-Forwarded-User",
            "x-forwarded-user",
            "X_Forwarded_User",
            "x.forwarded.user",
            "X-user_forwarded-",
            "xforwardeduser",
            "x-forwarded-groups",
            "X-Forwarded-Email",
            "x-forwarded-preferred-username",
            "x-forwarded-access-token",
            "remote-user",
            "REMOTE_USER",
            "remote-groups",
            "x-remote-user",
            "x-remote-extra-anything",
            "x-auth-request-email",
            "X-WEBAUTH-USER",
            "x-webauth-role",
            "x-authenticated-userid",
            "x-ssl-client-cert",
            "x-ssl_client-s-dn",
            "x-original-url",
            "x-original-uri",
            "x-rewrite-url",
            "x-forwarded-uri",
            "x-forwarded-prefix",
            "x-envoy-original-path",
            "X-Tenant",
            "x_tenant",
            "who",
            "w-h-o",
            "X-App-User1",
            "!#$%&'*+-.^_`|~x!tenant~",
            "http_x_tenant",
            "HTTP-HTTP-Remote-User",
        ] {
            let expected = name != "X-user_forwarded-";
            assert_eq!(guarded.guards(name), expected, "{name}");
        }
        assert!(guarded.guards(&format!("x-remote-{}", "a".repeat(200))));
        assert!(guarded.guards(&format!("x{}-tenant", "-".repeat(200))));
    }

    #[test]
    fn leaves_ordinary_names_alone() {
        let guarded = guarded();
        for name in [
            "host",
            "user-agent",
            "accept",
            "cookie",
            "referer",
            "range",
            "x-requested-with",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-request-id",
            "sec-fetch-mode",
            "authorization",
            "x-user",
            "http",
            "x",
            "",
            "-",
            "!",
            "x-tenants",
            "x-tenan",
        ] {
            assert!(!guarded.guards(name), "{name}");
        }
        assert!(!guarded.guards(&format!("x-{}", "a".repeat(200))));
    }

    #[test]
    fn what_is_said_to_be_removed_is_what_is_removed() {
        let folded_of = |name: &str| folded(name).map(char::from).collect::<String>();
        let said: Vec<String> = ALWAYS_REMOVED.iter().map(|name| folded_of(name)).collect();
        assert_eq!(said, NAMES.iter().chain(&FAMILIES).map(|&name| name.to_owned()).collect::<Vec<_>>());
    }

    #[test]
    fn strips_whole_names_with_all_their_values() {
        let mut headers =
            map(&[("x-forwarded-user", "a"), ("x-forwarded-user", "b"), ("x_tenant", "c"), ("accept", "*/*")]);
        assert!(strip_guarded(&mut headers, &guarded()));
        assert_eq!(names(&headers), ["accept"]);
        assert!(!strip_guarded(&mut headers, &guarded()));
    }

    #[test]
    fn other_spellings_read_as_a_name() {
        let name = HeaderName::from_static("x-tenant");
        for other in ["x-tenant", "x_tenant", "x.tenant", "xtenant", "http_x_tenant", "http-http-x-tenant"] {
            assert!(reads_as(&HeaderName::from_static(other), &name), "{other}");
        }
        for other in ["tenant", "x-tenants", "http", "x-http-tenant", "-"] {
            assert!(!reads_as(&HeaderName::from_static(other), &name), "{other}");
        }
    }

    #[test]
    fn knows_method_overrides() {
        for name in ["X-HTTP-Method-Override", "x-http-method", "x_method_override", "http-method-override"] {
            assert!(is_method_override(name), "{name}");
        }
        for name in ["x-http-version", "method", "host", "x-method", ""] {
            assert!(!is_method_override(name), "{name}");
        }
        let mut headers = map(&[("x-http-method", "DELETE"), ("accept", "*/*")]);
        assert!(strip_method_overrides(&mut headers));
        assert_eq!(names(&headers), ["accept"]);
    }
}
