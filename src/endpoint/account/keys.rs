//! API keys on the account's page: one's own listed, made and revoked. A key is shown once, when it is made.
//!
//! A key made here may do all that its owner may, and no more: scopes are given by whoever has the command line.

use bytes::Bytes;
use http::StatusCode;

use super::super::form::{self, Malformed};
use super::super::page::account::{self as page, Done, End, EndPage, Key, Lasts, NotDone};
use super::super::{Answered, Call};
use super::{Form, Me, Refusal};
use crate::clock::Timestamp;
use crate::identity::api_key::{self, ApiKeyText};
use crate::observe::audit;
use crate::secret::Secret;
use crate::session::Failure;
use crate::store::{ApiKeyRecord, StoreError};

/// `POST` with `password` (the current one), and `revoke`: the id of a key of one's own; or `name` and `expires`: a new one.
pub(in super::super) async fn change(mut call: Call<'_>) -> Answered {
    let (me, body) = match call.form().await {
        Ok(form) => form,
        Err(refusal) => return call.turn_away(refusal),
    };
    match asked(&body) {
        Ok((password, Asked::Revoke(id))) => call.revoke_key(&me, &password, &id).await,
        Ok((password, Asked::Add { name, lasts })) => call.add_key(&me, &password, &name, lasts).await,
        Err(malformed) => call.turn_away(Refusal::Malformed(malformed)),
    }
}

/// What a form asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Revoke(String),
    Add { name: String, lasts: Lasts },
}

fn asked(body: &Bytes) -> Result<(Secret<String>, Asked), Malformed> {
    let [password, revoke, name, expires] = form::fields(body, ["password", "revoke", "name", "expires"])?;
    let password = Secret::new(password.ok_or(Malformed::Field("password"))?);
    let asked = match (revoke, name) {
        (Some(id), None) => Asked::Revoke(id),
        (None, Some(name)) => {
            let known = |word: String| Lasts::ALL.into_iter().find(|lasts| lasts.word() == word);
            let lasts = expires.and_then(known).ok_or(Malformed::Field("expires"))?;
            Asked::Add { name: name.trim().to_owned(), lasts }
        }
        (Some(_), Some(_)) | (None, None) => return Err(Malformed::Field("either revoke or name")),
    };
    Ok((password, asked))
}

impl Call<'_> {
    /// One's own keys, by name.
    pub(super) async fn keys_of(&self, me: &Me) -> Result<Vec<Key>, StoreError> {
        let keys = self.state.shared.store.api_keys(Some(&me.name)).await?;
        Ok(keys.into_iter().map(in_words).collect())
    }

    /// Whether any application accepts keys.
    pub(super) fn may_add_keys(&self) -> bool {
        self.state.config.routes.iter().any(|route| route.accept.api_key)
    }

    /// The question for the password before a key is revoked; the account's page where there is nothing to revoke.
    pub(super) async fn revoke_page(&self, me: &Me, id: &str, error: Option<NotDone>) -> Result<String, StoreError> {
        match self.own_key(me, id).await? {
            Some(key) => Ok(page::end(&EndPage { frame: self.frame(me), end: End::Key(&in_words(key)), error })),
            None => self.account_page(me, None, error.or(Some(NotDone::NoSuchKey))).await,
        }
    }

    async fn own_key(&self, me: &Me, id: &str) -> Result<Option<ApiKeyRecord>, StoreError> {
        Ok(self.state.shared.store.api_key(id).await?.filter(|key| key.user == me.name))
    }

    async fn revoke_key(self, me: &Me, password: &Secret<String>, id: &str) -> Answered {
        if let Err(failure) = self.confirmed(me, password).await {
            return self.unconfirmed(me, Form::Revoke(id), &failure).await;
        }
        match self.revoked(me, id).await {
            Ok(true) => self.done(Done::KeyRevoked),
            Ok(false) => self.not_done(me, Form::Account, NotDone::NoSuchKey).await,
            Err(error) => self.unconfirmed(me, Form::Revoke(id), &Failure::Store(error)).await,
        }
    }

    async fn revoked(&self, me: &Me, id: &str) -> Result<bool, StoreError> {
        let shared = &self.state.shared;
        let Some(key) = self.own_key(me, id).await? else { return Ok(false) };
        if shared.store.revoke_api_key(&key.id).await?.is_none() {
            return Ok(false);
        }
        shared.people.follower.catch_up().await?;
        let (user, client) = (&me.name, self.head.client.0);
        audit::Event::ApiKeyRevoked { user, client, key: &key.id }.log(self.record);
        Ok(true)
    }

    async fn add_key(self, me: &Me, password: &Secret<String>, name: &str, lasts: Lasts) -> Answered {
        let form = Form::NewKey(name, lasts);
        if !api_key::is_name(name) {
            return self.not_done(me, form, NotDone::KeyName).await;
        }
        if let Err(failure) = self.confirmed(me, password).await {
            return self.unconfirmed(me, form, &failure).await;
        }
        let key = api_key::generate(&self.state.shared.random);
        let expires_at = lasts.span().map(|span| self.head.now + span);
        match self.added(me, name, &key, expires_at).await {
            Ok(None) => {
                self.record.reason = "API key added".into();
                let page = page::made(self.frame(me), name, key.expose(), expires_at);
                self.shown(StatusCode::OK, None, Ok(page))
            }
            Ok(Some(not_done)) => self.not_done(me, form, not_done).await,
            Err(error) => self.unconfirmed(me, form, &Failure::Store(error)).await,
        }
    }

    /// Keeps a key; or why not.
    async fn added(
        &self,
        me: &Me,
        name: &str,
        key: &Secret<String>,
        expires_at: Option<Timestamp>,
    ) -> Result<Option<NotDone>, StoreError> {
        let store = &self.state.shared.store;
        if store.api_keys(Some(&me.name)).await?.len() >= MOST_KEYS {
            return Ok(Some(NotDone::KeysFull));
        }
        let Some(text) = ApiKeyText::parse(key.expose()) else { return Ok(Some(NotDone::Unavailable)) };
        let record = ApiKeyRecord {
            id: text.id().to_owned(),
            key_hash: text.digest(),
            name: name.to_owned(),
            user: me.name.clone(),
            groups: None,
            scopes: Vec::new(),
            routes: None,
            created_at: self.head.now,
            expires_at,
            last_used: None,
        };
        if !store.add_api_key(record).await? {
            return Ok(Some(NotDone::KeyTaken));
        }
        let (user, client) = (&me.name, self.head.client.0);
        audit::Event::ApiKeyAdded { user, client, key: text.id() }.log(self.record);
        Ok(None)
    }
}

fn in_words(key: ApiKeyRecord) -> Key {
    Key {
        id: key.id,
        name: key.name,
        groups: key.groups,
        scopes: key.scopes,
        routes: key.routes,
        since: key.created_at,
        expires_at: key.expires_at,
        last_used: key.last_used,
    }
}

/// Keys that one account may have when another is made here.
const MOST_KEYS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_asks_for_one_thing() {
        let read = |body: &'static str| asked(&Bytes::from_static(body.as_bytes())).map(|(_, asked)| asked);
        assert_eq!(read("password=a&revoke=x"), Ok(Asked::Revoke("x".to_owned())));
        let new = Asked::Add { name: "a b".to_owned(), lasts: Lasts::Month };
        assert_eq!(read("password=a&name=+a+b+&expires=30d&username=bob"), Ok(new));
        for bad in [
            "revoke=x",
            "password=a",
            "password=a&name=x",
            "password=a&name=x&expires=31d",
            "password=a&name=x&expires=30d&revoke=y",
            "password=a&name=x&name=y&expires=30d",
            "password=a&revoke=x&revoke=y",
        ] {
            assert!(matches!(read(bad), Err(Malformed::Field(_))), "{bad}");
        }
    }
}
