//! Why a request came out as it did: one vocabulary for the access log, `[[tests]]`, `explain` and `why`.

use std::borrow::Cow;
use std::fmt;

use crate::message::host::HostError;
use crate::message::line::LineError;
use crate::policy::Refused;

/// Why. Each has a stable code and a sentence, written down here only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It may pass, and the application is told no name.
    Public,
    /// It may pass, and the application is told a name.
    SignedIn,
    /// The rule says no.
    Rule(Refused),
    /// The API key is limited to other routes.
    KeyElsewhere,
    /// Another site made a browser send it.
    CrossSite,
    /// A true preflight, which no rule is asked about.
    Preflight,
    /// A true preflight of a site that `cors` does not name.
    ForeignOrigin,
    /// No credential counts on the route.
    NotAuthenticated,
    /// The token was good once.
    TokenExpired,
    /// A credential that is not good; the log says why.
    BadCredential,
    /// The route does not take tokens of this issuer.
    IssuerElsewhere,
    /// The age or the kind of the sign-in falls short.
    StepUp,
    /// Too many wrong passwords.
    TooManyAttempts,
    /// It could pass, and is one too many.
    RateLimited,
    /// The credential can't be judged.
    StoreDown,
    /// No route matches.
    NoRoute,
    /// Two credentials contradict each other; the text names them.
    Twofold(&'static str),
    /// The request line is none that a route could be asked about.
    Line(LineError),
    /// There is not exactly one host.
    Host(HostError),
    /// The gateway answers this path itself.
    Own,
}

impl Reason {
    /// A stable word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::SignedIn => "signed-in",
            Self::Rule(refused) => refused.code(),
            Self::KeyElsewhere => "key-elsewhere",
            Self::CrossSite => "cross-site",
            Self::Preflight => "preflight",
            Self::ForeignOrigin => "cors-origin",
            Self::NotAuthenticated => "not-authenticated",
            Self::TokenExpired => "token-expired",
            Self::BadCredential => "bad-credential",
            Self::IssuerElsewhere => "issuer",
            Self::StepUp => "step-up",
            Self::TooManyAttempts => "too-many-attempts",
            Self::RateLimited => "rate-limited",
            Self::StoreDown => "store-down",
            Self::NoRoute => "no-route",
            Self::Twofold(_) => "twofold",
            Self::Line(LineError::Method) => "method",
            Self::Line(LineError::Protocol) => "protocol",
            Self::Line(LineError::OptionsOfServer) | Self::Own => "own",
            Self::Line(LineError::Target(_)) => "target",
            Self::Line(LineError::Path(_)) => "path",
            Self::Host(_) => "host",
        }
    }
    /// The sentence.
    pub fn sentence(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Public => "public",
            Self::SignedIn => "signed in",
            Self::Rule(refused) => refused.sentence(),
            Self::KeyElsewhere => "the API key is limited to other routes",
            Self::CrossSite => "sent by another site",
            Self::Preflight => "a preflight of a site that may ask",
            Self::ForeignOrigin => "`cors` does not name the site that asks",
            Self::NotAuthenticated => "not authenticated",
            Self::TokenExpired => "the token has expired",
            Self::BadCredential => "the credential is not good",
            Self::IssuerElsewhere => "the route does not take tokens of this issuer",
            Self::StepUp => "the sign-in is too old or of another kind",
            Self::TooManyAttempts => "too many attempts",
            Self::RateLimited => "more requests than the rate limit of the route allows",
            Self::StoreDown => "the store, or the token's issuer, does not answer",
            Self::NoRoute => "no route matches",
            Self::Twofold(which) => which,
            Self::Line(error) => return error.to_string().into(),
            Self::Host(error) => return error.to_string().into(),
            Self::Own => "the gateway answers it itself",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_told_apart() {
        let reasons = [
            Reason::Public,
            Reason::SignedIn,
            Reason::KeyElsewhere,
            Reason::CrossSite,
            Reason::Preflight,
            Reason::ForeignOrigin,
            Reason::NotAuthenticated,
            Reason::TokenExpired,
            Reason::BadCredential,
            Reason::IssuerElsewhere,
            Reason::StepUp,
            Reason::TooManyAttempts,
            Reason::RateLimited,
            Reason::StoreDown,
            Reason::NoRoute,
            Reason::Twofold("two API keys"),
            Reason::Line(LineError::Method),
            Reason::Line(LineError::Protocol),
            Reason::Line(LineError::Target("x")),
            Reason::Host(HostError::Missing),
            Reason::Own,
            Reason::Rule(Refused::Nobody),
            Reason::Rule(Refused::Network),
            Reason::Rule(Refused::User),
            Reason::Rule(Refused::Group),
            Reason::Rule(Refused::Scope),
            Reason::Rule(Refused::Claim),
            Reason::Rule(Refused::Method),
            Reason::Rule(Refused::Age),
        ];
        let codes: HashSet<&str> = reasons.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), reasons.len());
        assert!(reasons.iter().all(|reason| !reason.to_string().is_empty()));
    }
}
