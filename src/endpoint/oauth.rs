//! What the OAuth 2.0 endpoints share: parameters read strictly, and errors in the words of RFC 6749 section 5.2.

use http::header::{CONNECTION, PRAGMA, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::form::{self, Kind};
use super::read::{self, ReadError};
use super::{Answered, Call};
use crate::secret::Secret;

/// The parameters of a request, each at most once.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, Secret<String>)>);

impl Params {
    /// Reads a form. RFC 6749 section 3.2: no parameter may stand twice, not even one that nobody knows.
    fn read(body: &[u8]) -> Result<Self, Fault> {
        if !form::has_whole_escapes(body) {
            return Err(Fault::InvalidRequest("The body is not a well-formed form"));
        }
        let mut params: Vec<(String, Secret<String>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            if params.len() >= MOST_PARAMS {
                return Err(Fault::InvalidRequest("There are too many parameters"));
            }
            if params.iter().any(|(other, _)| *other == name) {
                return Err(Fault::InvalidRequest("A parameter stands twice"));
            }
            params.push((name.into_owned(), Secret::new(value.into_owned())));
        }
        Ok(Self(params))
    }

    /// A parameter; one without a value counts as left out.
    pub(super) fn find(&self, name: &str) -> Option<&Secret<String>> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value).filter(|value| !value.expose().is_empty())
    }

    /// A parameter that must be there.
    pub(super) fn need(&self, name: &str, missing: &'static str) -> Result<&Secret<String>, Fault> {
        self.find(name).ok_or(Fault::InvalidRequest(missing))
    }
}

/// Why there is nothing but an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A parameter is missing, there twice or malformed.
    InvalidRequest(&'static str),
    /// The password or the refresh token is not good.
    InvalidGrant(&'static str),
    /// Another kind of grant.
    UnsupportedGrantType,
    /// A token that can't be ended here (RFC 7009 section 2.2.1).
    UnsupportedTokenType,
    /// Another site made a browser send it.
    CrossSite,
    /// Too many attempts; seconds until the next one.
    TooMany(u64),
    /// It can't be judged now.
    Unavailable,
    /// The body can't be read.
    Body(ReadError),
    /// The key can't sign.
    Internal,
}

impl Fault {
    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest(_)
            | Self::InvalidGrant(_)
            | Self::UnsupportedGrantType
            | Self::UnsupportedTokenType => StatusCode::BAD_REQUEST,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body(ReadError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(ReadError::Stalled) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(ReadError::Broken) => StatusCode::BAD_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// RFC 6749 section 5.2, and section 4.1.2.1 for what has no name there.
    const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::CrossSite | Self::Body(_) => "invalid_request",
            Self::InvalidGrant(_) => "invalid_grant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::TooMany(_) | Self::Unavailable => "temporarily_unavailable",
            Self::Internal => "server_error",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest(what) | Self::InvalidGrant(what) => what,
            Self::UnsupportedGrantType => "The grant types are password and refresh_token",
            Self::UnsupportedTokenType => "The token has no jti, and can only be ended by its issuer",
            Self::CrossSite => "The request was sent by another site",
            Self::TooMany(_) => "Too many attempts",
            Self::Unavailable => "This is not possible now",
            Self::Body(ReadError::TooLarge) => "The body is too large",
            Self::Body(ReadError::Stalled) => "The body did not come in time",
            Self::Body(ReadError::Broken) => "The body is malformed or cut",
            Self::Internal => "Internal error",
        }
    }

    const fn retry_after(self) -> Option<u64> {
        match self {
            Self::TooMany(seconds) => Some(seconds),
            Self::Unavailable => Some(RETRY_SECONDS),
            Self::InvalidRequest(_)
            | Self::InvalidGrant(_)
            | Self::UnsupportedGrantType
            | Self::UnsupportedTokenType
            | Self::CrossSite
            | Self::Body(_)
            | Self::Internal => None,
        }
    }
}

impl Call<'_> {
    /// The parameters of the body. What stands in the URL is not looked at: URLs are logged.
    pub(super) async fn params(&mut self) -> Result<Params, Fault> {
        if form::kind(self.request.headers()) != Ok(Kind::Form) {
            return Err(Fault::InvalidRequest("Send application/x-www-form-urlencoded"));
        }
        let patience = self.state.config.server.limits.body_timeout;
        let body = read::read(self.request.body_mut(), MOST_BYTES, patience).await.map_err(Fault::Body)?;
        Params::read(&body)
    }

    /// An error. Its text is the same whoever asks: it says nothing of accounts.
    pub(super) fn fault(self, fault: Fault) -> Answered {
        if self.record.reason.is_empty() {
            self.record.reason = fault.description().into();
        }
        let document = json!({ "error": fault.code(), "error_description": fault.description() });
        let mut answered = self.said(fault.status(), &document);
        let headers = answered.response.headers_mut();
        if let Some(seconds) = fault.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if matches!(fault, Fault::Body(_)) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answered
    }

    /// A document that no cache may keep (RFC 6749 section 5.1).
    pub(super) fn said(self, status: StatusCode, document: &Value) -> Answered {
        let mut response = self.asker().document(status, document);
        response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
        self.unread(response)
    }
}

/// Bytes of a body: a token of the largest size, and room for the rest.
const MOST_BYTES: usize = 16 * 1024;

/// Parameters of a request: more than any client sends.
const MOST_PARAMS: usize = 32;

/// When what could not be judged may be tried again, in seconds.
const RETRY_SECONDS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_parameter_once() {
        let params = Params::read(b"grant_type=password&username=a%20b&password=p%C3%A4+ss&scope=").unwrap();
        let of = |name| params.find(name).map(|value| value.expose().as_str());
        assert_eq!((of("grant_type"), of("username")), (Some("password"), Some("a b")));
        assert_eq!((of("password"), of("scope"), of("other")), (Some("pä ss"), None, None));
    }

    #[test]
    fn refuses_what_stands_twice_or_is_malformed() {
        let many: String = (0..40).map(|n| format!("p{n}=1&")).collect();
        for body in ["a=1&a=1", "a=1&b=2&a=", "x&x", "a=%", "a=%zz", "a=%ff", "a=1&%61=2", &many] {
            assert!(matches!(Params::read(body.as_bytes()), Err(Fault::InvalidRequest(_))), "{body}");
        }
    }
}
