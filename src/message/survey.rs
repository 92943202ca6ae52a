//! Which of the fields that are looked for on the way of a message its head may have, noted in one pass: most heads have few
//! of them, and each search for one that is not there costs a hash of its name.
//!
//! A note says what *may* be there. It stays true for as long as fields are only removed; whoever adds one looks anew.

use http::HeaderMap;

use super::headers::{folded, initial};

/// A set of fields that are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u32);

#[expect(missing_docs, reason = "they are called as the fields are")]
impl Fields {
    // Those that end at this hop come first, in the order that `hop` has them in.
    pub const CONNECTION: Self = Self(1);
    pub const TE: Self = Self(1 << 1);
    pub const TRANSFER_ENCODING: Self = Self(1 << 2);
    pub const UPGRADE: Self = Self(1 << 3);
    pub const PROXY_AUTHENTICATE: Self = Self(1 << 4);
    pub const PROXY_AUTHORIZATION: Self = Self(1 << 5);
    pub const KEEP_ALIVE: Self = Self(1 << 6);
    pub const PROXY_CONNECTION: Self = Self(1 << 7);
    pub const PROXY_AUTHENTICATION_INFO: Self = Self(1 << 8);
    pub const HTTP2_SETTINGS: Self = Self(1 << 9);
    pub const TRAILER: Self = Self(1 << 10);
    pub const EXPECT: Self = Self(1 << 11);
    pub const CONTENT_LENGTH: Self = Self(1 << 12);
    pub const CONTENT_TYPE: Self = Self(1 << 13);
    pub const COOKIE: Self = Self(1 << 14);
    pub const AUTHORIZATION: Self = Self(1 << 15);
    pub const X_API_KEY: Self = Self(1 << 16);
    pub const ACCEPT: Self = Self(1 << 17);
    pub const ORIGIN: Self = Self(1 << 18);
    pub const SEC_FETCH_MODE: Self = Self(1 << 19);
    pub const FORWARDED: Self = Self(1 << 20);
    pub const X_FORWARDED_FOR: Self = Self(1 << 21);
    pub const X_FORWARDED_PROTO: Self = Self(1 << 22);
    pub const SET_COOKIE: Self = Self(1 << 23);
    pub const CACHE_CONTROL: Self = Self(1 << 24);
    pub const SURROGATE_CONTROL: Self = Self(1 << 25);
    pub const CDN_CACHE_CONTROL: Self = Self(1 << 26);
    /// Any that begins with `sec-fetch-`.
    pub const FETCH_METADATA: Self = Self(1 << 27);
    pub const TRACEPARENT: Self = Self(1 << 28);
    /// Any name of which it is known that it is neither a spelling nor the beginning of one that is removed whatever the
    /// configuration says.
    const ORDINARY: Self = Self(1 << 29);
}

impl Fields {
    /// Those of `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |found, name| found.and(Self::named(name.as_str())))
    }

    /// What `name`, in lower case, is among them.
    pub fn named(name: &str) -> Self {
        // By its length first, which is all that most names need.
        match (name.len(), name) {
            (2, "te") => Self::TE.and(Self::ORDINARY),
            (4, "host") => Self::ORDINARY,
            (5, "range") => Self::ORDINARY,
            (6, "accept") => Self::ACCEPT.and(Self::ORDINARY),
            (6, "cookie") => Self::COOKIE.and(Self::ORDINARY),
            (6, "origin") => Self::ORIGIN.and(Self::ORDINARY),
            (6, "expect") => Self::EXPECT.and(Self::ORDINARY),
            (6, "pragma") => Self::ORDINARY,
            (7, "trailer") => Self::TRAILER.and(Self::ORDINARY),
            (7, "upgrade") => Self::UPGRADE.and(Self::ORDINARY),
            (7, "referer") => Self::ORDINARY,
            (8, "priority") => Self::ORDINARY,
            (9, "x-api-key") => Self::X_API_KEY,
            (9, "forwarded") => Self::FORWARDED,
            (10, "connection") => Self::CONNECTION.and(Self::ORDINARY),
            (10, "keep-alive") => Self::KEEP_ALIVE.and(Self::ORDINARY),
            (10, "set-cookie") => Self::SET_COOKIE.and(Self::ORDINARY),
            (10, "user-agent") => Self::ORDINARY,
            (11, "traceparent") => Self::TRACEPARENT.and(Self::ORDINARY),
            (12, "content-type") => Self::CONTENT_TYPE.and(Self::ORDINARY),
            (13, "authorization") => Self::AUTHORIZATION.and(Self::ORDINARY),
            (13, "cache-control") => Self::CACHE_CONTROL.and(Self::ORDINARY),
            (13, "if-none-match") => Self::ORDINARY,
            (14, "content-length") => Self::CONTENT_LENGTH.and(Self::ORDINARY),
            (14, "sec-fetch-mode") => Self::SEC_FETCH_MODE.and(Self::FETCH_METADATA).and(Self::ORDINARY),
            (14, "http2-settings") => Self::HTTP2_SETTINGS,
            (15, "accept-encoding" | "accept-language") => Self::ORDINARY,
            (15, "x-forwarded-for") => Self::X_FORWARDED_FOR,
            (16, "proxy-connection") => Self::PROXY_CONNECTION.and(Self::ORDINARY),
            (17, "transfer-encoding") => Self::TRANSFER_ENCODING.and(Self::ORDINARY),
            (17, "x-forwarded-proto") => Self::X_FORWARDED_PROTO,
            (17, "surrogate-control") => Self::SURROGATE_CONTROL.and(Self::ORDINARY),
            (17, "cdn-cache-control") => Self::CDN_CACHE_CONTROL.and(Self::ORDINARY),
            (17, "if-modified-since") => Self::ORDINARY,
            (18, "proxy-authenticate") => Self::PROXY_AUTHENTICATE.and(Self::ORDINARY),
            (19, "proxy-authorization") => Self::PROXY_AUTHORIZATION.and(Self::ORDINARY),
            (25, "proxy-authentication-info") => Self::PROXY_AUTHENTICATION_INFO.and(Self::ORDINARY),
            (25, "upgrade-insecure-requests") => Self::ORDINARY,
            _ if name.starts_with("sec-fetch-") => Self::FETCH_METADATA.and(Self::ORDINARY),
            _ => Self::default(),
        }
    }

    /// Both.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether any of `others` may be there.
    pub const fn may_have(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Those that end at this hop, each a bit at its place in `hop`.
    pub(super) const fn of_this_hop(self) -> u32 {
        self.0 & 0x3ff
    }
}

/// What a request's head may have, with what its names begin with after folding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The fields that are looked for.
    pub fields: Fields,
    /// The first letters and digits of all names.
    initials: u64,
    /// Those of the names that may be a spelling of one that is removed whatever the configuration says.
    unusual: u64,
}

impl Survey {
    /// That of `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self::default();
        for name in headers.keys() {
            let name = name.as_str();
            let (fields, initial) = (Fields::named(name), folded(name).next().map_or(0, initial));
            survey.fields = survey.fields.and(fields);
            survey.initials |= initial;
            if !fields.may_have(Fields::ORDINARY) {
                survey.unusual |= initial;
            }
        }
        survey
    }

    /// Whether any name may begin, after folding, with one of `initials`.
    pub(super) const fn may_begin(&self, initials: u64) -> bool {
        self.initials & initials != 0
    }

    /// The same of names that may be a spelling of one that is removed whatever the configuration says.
    pub(super) const fn may_oddly_begin(&self, initials: u64) -> bool {
        self.unusual & initials != 0
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::super::forwarded::is_forwarded_name;
    use super::super::headers::{IdentityNames, is_method_override};
    use super::*;

    /// Every name that is looked for, and what it is.
    const NAMED: [(&str, Fields); 28] = [
        ("connection", Fields::CONNECTION),
        ("te", Fields::TE),
        ("transfer-encoding", Fields::TRANSFER_ENCODING),
        ("upgrade", Fields::UPGRADE),
        ("proxy-authenticate", Fields::PROXY_AUTHENTICATE),
        ("proxy-authorization", Fields::PROXY_AUTHORIZATION),
        ("keep-alive", Fields::KEEP_ALIVE),
        ("proxy-connection", Fields::PROXY_CONNECTION),
        ("proxy-authentication-info", Fields::PROXY_AUTHENTICATION_INFO),
        ("http2-settings", Fields::HTTP2_SETTINGS),
        ("trailer", Fields::TRAILER),
        ("expect", Fields::EXPECT),
        ("content-length", Fields::CONTENT_LENGTH),
        ("content-type", Fields::CONTENT_TYPE),
        ("cookie", Fields::COOKIE),
        ("authorization", Fields::AUTHORIZATION),
        ("x-api-key", Fields::X_API_KEY),
        ("accept", Fields::ACCEPT),
        ("origin", Fields::ORIGIN),
        ("sec-fetch-mode", Fields::SEC_FETCH_MODE),
        ("forwarded", Fields::FORWARDED),
        ("x-forwarded-for", Fields::X_FORWARDED_FOR),
        ("x-forwarded-proto", Fields::X_FORWARDED_PROTO),
        ("set-cookie", Fields::SET_COOKIE),
        ("cache-control", Fields::CACHE_CONTROL),
        ("surrogate-control", Fields::SURROGATE_CONTROL),
        ("cdn-cache-control", Fields::CDN_CACHE_CONTROL),
        ("traceparent", Fields::TRACEPARENT),
    ];

    /// What else is known to be ordinary.
    const PLAIN: [&str; 12] = [
        "host",
        "range",
        "pragma",
        "referer",
        "priority",
        "user-agent",
        "if-none-match",
        "accept-encoding",
        "accept-language",
        "if-modified-since",
        "upgrade-insecure-requests",
        "sec-fetch-site",
    ];

    fn map(names: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_static("1"));
        }
        headers
    }

    /// Names as clients may spell them, of those that anyone looks for and others.
    fn name() -> impl Strategy<Value = String> {
        let known: Vec<&str> = NAMED.map(|(name, _)| name).into_iter().chain(PLAIN).chain(SUSPECT).collect();
        let spelt = (proptest::sample::select(known), "[-_.!]?", any::<bool>(), "(|http_|HTTP-HTTP-|_|x)", "(|s|-)")
            .prop_map(|(name, dash, is_upper, before, after)| {
                let name = if dash.is_empty() { name.to_owned() } else { name.replace('-', &dash) };
                let name = if is_upper { name.to_uppercase() } else { name };
                format!("{before}{name}{after}")
            });
        prop_oneof![3 => spelt, 1 => "[a-zA-Z0-9_.!-]{1,12}"]
    }

    const SUSPECT: [&str; 14] = [
        "x-forwarded-user",
        "x-forwarded-host",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "client-ip",
        "remote-user",
        "x-webauth-user",
        "x-http-method-override",
        "http-method",
        "method-override",
        "x-tenant",
        "who",
        "7days",
    ];

    #[test]
    fn every_name_is_known_as_what_it_is_and_as_no_other() {
        for (name, fields) in NAMED {
            let found = Fields::named(name);
            assert!(found.may_have(fields), "{name}");
            for (other, others) in NAMED.iter().filter(|(other, _)| *other != name) {
                assert!(!found.may_have(*others), "{name} as {other}");
            }
        }
        assert!(Fields::named("sec-fetch-mode").may_have(Fields::FETCH_METADATA));
        assert!(Fields::named("sec-fetch-x").may_have(Fields::FETCH_METADATA));
        for name in PLAIN.iter().filter(|name| !name.starts_with("sec-")) {
            assert_eq!(Fields::named(name), Fields::ORDINARY, "{name}");
        }
    }

    #[test]
    fn what_is_ordinary_is_never_removed_for_its_name() {
        let fixed = IdentityNames::new([]);
        let all = NAMED.map(|(name, _)| name).into_iter().chain(PLAIN).chain(SUSPECT);
        let ordinary: Vec<&str> = all.filter(|name| Fields::named(name).may_have(Fields::ORDINARY)).collect();
        assert_eq!(ordinary.len(), NAMED.len() + PLAIN.len() - 5);
        for name in ordinary {
            let is_removed = fixed.guards(name) || is_method_override(name) || is_forwarded_name(name);
            assert!(!is_removed && name != "x-api-key", "{name}");
        }
    }

    proptest! {
        /// The plain formulation of what a survey may leave out: nothing that is there.
        #[test]
        fn nothing_that_is_there_is_missed(names in prop::collection::vec(name(), 0..8)) {
            let headers = map(&names);
            let survey = Survey::of(&headers);
            prop_assert_eq!(survey.fields, Fields::of(&headers));
            for (name, fields) in NAMED {
                prop_assert_eq!(survey.fields.may_have(fields), headers.contains_key(name), "{}", name);
            }
            let fetch = headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"));
            prop_assert_eq!(survey.fields.may_have(Fields::FETCH_METADATA), fetch);
            let mut fewer = headers.clone();
            if let Some(name) = headers.keys().next() {
                fewer.remove(name);
            }
            prop_assert_eq!(Fields::of(&fewer).and(survey.fields), survey.fields, "a note stays true");
        }
    }
}
