//! Who is there, once it is believed.

pub mod api_key;
pub mod password;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::config;
use crate::message::headers;
use crate::policy::{self, Person};

/// The name of a local account: `[a-z0-9][a-z0-9._@+-]{0,63}`, matched without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

impl UserName {
    /// `text` folded to lower case, if it is a name that an account can have.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        let first = *name.as_bytes().first()?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let rest = |byte: u8| plain(byte) || b"._@+-".contains(&byte);
        (name.len() <= 64 && plain(first) && name.bytes().all(rest)).then(|| Self(name.into()))
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for UserName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `group` is a name that a group can have: not empty, no comma, no control, no outer space.
pub fn is_group_name(group: &str) -> bool {
    !group.is_empty() && group.trim() == group && !group.chars().any(|c| c == ',' || c.is_control())
}

/// Whether `text` can be an e-mail address or a full name: at most 256 bytes without control or outer space.
pub fn is_line(text: &str) -> bool {
    text.len() <= 256 && text.trim() == text && !text.chars().any(char::is_control)
}

/// An account as it is now: what the rules judge and the application is told. Made once per change of the account.
#[derive(Debug)]
pub struct Profile {
    /// Their name as the application is told it.
    pub user: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// Their e-mail address.
    pub email: Option<String>,
    /// Their full name.
    pub name: Option<String>,
    values: ProfileValues,
}

/// The header values of a [`Profile`], encoded as section 2 of the contract says under Names.
#[derive(Debug)]
struct ProfileValues {
    user: HeaderValue,
    groups: Option<HeaderValue>,
    email: Option<HeaderValue>,
    name: Option<HeaderValue>,
}

impl Profile {
    /// The profile of `user`; `None` when the name is one that no application may be told:
    /// empty, not NFC, over 256 bytes, or with a control or an outer space.
    pub fn new(user: &str, groups: &[String], email: Option<&str>, name: Option<&str>) -> Option<Self> {
        let values = ProfileValues {
            user: headers::user_value(user)?,
            groups: headers::encode_groups(groups.iter().map(String::as_str)),
            email: email.and_then(headers::encode_ascii),
            name: name.and_then(headers::encode_utf8),
        };
        Some(Self {
            user: user.to_owned(),
            groups: groups.iter().filter(|group| is_group_name(group)).cloned().collect(),
            email: email.map(str::to_owned),
            name: name.map(str::to_owned),
            values,
        })
    }

    /// The headers that tell an application who is there, under the names that `told` gives.
    pub fn headers<'a>(
        &'a self,
        told: &'a config::Identity,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let ProfileValues { user, groups, email, name } = &self.values;
        [
            (told.user.as_ref(), Some(user)),
            (told.groups.as_ref(), groups.as_ref()),
            (told.email.as_ref(), email.as_ref()),
            (told.name.as_ref(), name.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name?, value?)))
    }
}

/// Who is there, believed: what a credential of theirs came to.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The account behind it, as it is now.
    pub profile: Arc<Profile>,
    /// Scopes of the credential.
    pub scopes: Vec<String>,
    /// Claims of the token; empty behind a cookie.
    pub claims: Arc<Map<String, Value>>,
    /// How they signed in (`amr`): `"password"`.
    pub methods: Vec<String>,
    /// When the password was given.
    pub signed_in_at: Option<Timestamp>,
    /// The session behind the credential, if there is one.
    pub session: Option<Arc<str>>,
}

impl Identity {
    /// What a [`crate::policy::Policy`] judges.
    pub fn person(&self) -> Person<'_> {
        Person {
            user: &self.profile.user,
            groups: &self.profile.groups,
            scopes: &self.scopes,
            claims: &self.claims,
            methods: &self.methods,
            signed_in_at: self.signed_in_at,
        }
    }

    /// The headers that tell an application who is there.
    pub fn headers(&self, told: &config::Identity) -> Vec<(HeaderName, HeaderValue)> {
        let profile = self.profile.headers(told).map(|(name, value)| (name.clone(), value.clone()));
        profile.chain(self.claim_headers(told)).collect()
    }

    /// Those of them that are claims of the token.
    pub fn claim_headers(&self, told: &config::Identity) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        told.claims.iter().filter_map(|(name, path)| {
            let value = policy::claim(&self.claims, path)?;
            Some((name.clone(), headers::encode_claim(value)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_names_and_refuses_what_no_account_can_have() {
        assert_eq!(UserName::parse("Alice").unwrap().as_str(), "alice");
        for bad in ["", ".alice", "al ice", "ålice", "alice\n", &"a".repeat(65)] {
            assert!(UserName::parse(bad).is_none(), "{bad:?}");
        }
    }
}
