//! `/.gateway/account`: people look after their own account, in a browser that is signed in. No answer has a token in it.
//!
//! Every change asks for the current password, which is judged where sign-ins are: throttled alike, in the same time.

mod asked;
mod keys;

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, Response, StatusCode};

use super::agent;
use super::answer::{CHALLENGE, token_challenge};
use super::form::{self, Kind, Malformed};
use super::login::RETRY_SECONDS;
use super::page::account::{
    self as page, AccountPage, Done, End, EndPage, Frame, Kept, Keys, Lasts, NewKeyPage, NotDone, OTHERS, Password,
    Session,
};
use super::{Answered, Call, Problem};
use crate::access::{Bad, Standing};
use crate::identity::UserName;
use crate::message::body::Body;
use crate::observe::{User, audit};
use crate::secret::Secret;
use crate::session::{Asked, Carrier, Failure, NewSession, Opened, sha256};
use crate::store::{Digest, Origin, SessionRecord, StoreError, UserRecord};

pub(super) use keys::change as change_keys;

/// The page; its forms go to `/password`, `/sessions` and `/keys` below it.
const PATH: &str = "/.gateway/account";

/// Whoever is signed in with a cookie, in this session.
#[derive(Debug)]
struct Me {
    name: UserName,
    session: String,
}

/// A form that asks for the password, and is shown again where something is wrong with it.
#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    /// That on the account's page.
    Account,
    /// The question before a session is ended, or all others.
    End(&'a str),
    /// The question before an API key is revoked.
    Revoke(&'a str),
    /// The one for a new API key, with its name and how long it lasts.
    NewKey(&'a str, Lasts),
}

/// `GET`: the page; with `end` or `revoke` the question for the password before something is ended, with `add` the form for
/// an API key.
pub(super) async fn show(call: Call<'_>) -> Answered {
    let me = match call.me().await {
        Ok(me) => me,
        Err(refusal) => return call.turn_away(refusal),
    };
    let query = asked::Query::of(call.head.query.as_deref());
    // What is said to be done was done by this page, not by a link from elsewhere.
    let notice = query.done.filter(|_| call.is_of_this_site());
    let page = match (&query.end, &query.revoke) {
        (Some(end), _) => call.page_of(&me, Form::End(end), None).await,
        (None, Some(key)) => call.page_of(&me, Form::Revoke(key), None).await,
        (None, None) if query.add => call.page_of(&me, Form::NewKey("", Lasts::default()), None).await,
        (None, None) => call.account_page(&me, notice, None).await,
    };
    call.shown(StatusCode::OK, None, page)
}

/// `POST` with `password` (the current one), `new_password` and `new_password_again`.
pub(super) async fn change_password(mut call: Call<'_>) -> Answered {
    let (me, body) = match call.form().await {
        Ok(form) => form,
        Err(refusal) => return call.turn_away(refusal),
    };
    let [current, new] = match asked::passwords(&body) {
        Ok(Ok(passwords)) => passwords,
        Ok(Err(not_done)) => return call.not_done(&me, Form::Account, not_done).await,
        Err(malformed) => return call.turn_away(Refusal::Malformed(malformed)),
    };
    if let Some(not_done) = asked::unfit(&me.name, &current, &new) {
        return call.not_done(&me, Form::Account, not_done).await;
    }
    // The cookie of the session that replaces this one.
    let key = call.state.shared.people.sessions.new_key();
    let user = match call.confirmed(&me, &current).await {
        Ok(user) => user,
        Err(failure) => return call.unconfirmed(&me, Form::Account, &failure).await,
    };
    if user.origin == Origin::File {
        return call.not_done(&me, Form::Account, NotDone::InFile).await;
    }
    let remember = call.is_remembered(&me).await;
    let version = match call.state.shared.sign_in.change_password(&user, &new).await {
        Ok(Some(version)) => version,
        Ok(None) => {
            let failure = Failure::Wrong { user: Some(user.name), reason: "the account has changed meanwhile" };
            return call.unconfirmed(&me, Form::Account, &failure).await;
        }
        Err(failure) => return call.unconfirmed(&me, Form::Account, &failure).await,
    };
    let opened = call.go_on(&UserRecord { password_version: version, ..user }, key, remember).await;
    call.changed(&me, opened, remember)
}

/// `POST` with `password` (the current one) and `end`: the id of a session of one's own, or `others`.
pub(super) async fn end_sessions(mut call: Call<'_>) -> Answered {
    let (me, body) = match call.form().await {
        Ok(form) => form,
        Err(refusal) => return call.turn_away(refusal),
    };
    let (current, end) = match form::fields(&body, ["password", "end"]) {
        Ok([Some(password), Some(end)]) => (Secret::new(password), end),
        Ok([None, _]) => return call.turn_away(Refusal::Malformed(Malformed::Field("password"))),
        Ok([_, None]) => return call.turn_away(Refusal::Malformed(Malformed::Field("end"))),
        Err(malformed) => return call.turn_away(Refusal::Malformed(malformed)),
    };
    if let Err(failure) = call.confirmed(&me, &current).await {
        return call.unconfirmed(&me, Form::End(&end), &failure).await;
    }
    match call.ended(&me, &end).await {
        Ok(Some(done)) => call.done(done),
        Ok(None) => call.not_done(&me, Form::Account, NotDone::NoSuchSession).await,
        Err(error) => call.unconfirmed(&me, Form::End(&end), &Failure::Store(error)).await,
    }
}

/// Why there is no page for this client.
#[derive(Debug)]
enum Refusal {
    /// Nobody is signed in.
    SignedOut { clears_cookie: bool },
    /// A token that is not good.
    BadToken(Bad),
    /// A credential that is no browser's.
    NotABrowser,
    /// The store gives no answer.
    Unavailable,
    /// Another site sent the form.
    CrossSite,
    /// The form is none.
    Malformed(Malformed),
    /// The form did not come whole.
    Body(super::read::ReadError),
}

/// Finding out who it is and what they want.
impl Call<'_> {
    /// Whoever is signed in with a cookie. Tokens and keys are for programs, and open no page of ours.
    async fn me(&self) -> Result<Me, Refusal> {
        match self.state.access.who(self.head, self.request.headers()).await {
            Standing::Known(known) => match (&known.proof.account, &known.proof.session, &known.proof.claims) {
                (Some(name), Some(session), None) => {
                    self.note_return(Some(&known));
                    Ok(Me { name: name.clone(), session: session.to_string() })
                }
                _ => Err(Refusal::NotABrowser),
            },
            Standing::Nobody => Err(Refusal::SignedOut { clears_cookie: false }),
            Standing::StaleCookie => Err(Refusal::SignedOut { clears_cookie: true }),
            Standing::Refused(bad) => Err(Refusal::BadToken(bad)),
            Standing::Unavailable | Standing::Throttled(_) => Err(Refusal::Unavailable),
        }
    }

    /// A form of someone who is signed in, sent by this site.
    async fn form(&mut self) -> Result<(Me, Bytes), Refusal> {
        if !self.is_of_this_site() {
            let (client, path) = (self.head.client.0, self.head.path.canonical());
            audit::Event::CrossSite { client, path, user: None }.log(self.record);
            return Err(Refusal::CrossSite);
        }
        let me = self.me().await?;
        self.record.user = User::Named(me.name.to_string());
        if form::kind(self.request.headers()) != Ok(Kind::Form) {
            return Err(Refusal::Malformed(Malformed::MediaType));
        }
        let body = self.body().await.map_err(Refusal::Body)?;
        Ok((me, body))
    }

    /// The account, if `password` is its password. Whoever guesses here is slowed down as at the sign-in.
    async fn confirmed(&self, me: &Me, password: &Secret<String>) -> Result<UserRecord, Failure> {
        let browser = self.shown_cookie();
        let (typed, client) = (me.name.as_str(), self.head.client.0);
        let asked = Asked { typed, password, client, browser, browser_from_now: browser };
        self.state.shared.sign_in.confirm(asked).await
    }

    /// Whether the session is one of someone who asked to stay signed in.
    async fn is_remembered(&self, me: &Me) -> bool {
        let session = self.state.shared.store.session(&me.session).await;
        session.ok().flatten().is_some_and(|session| session.remember)
    }
}

/// Doing it.
impl Call<'_> {
    /// Begins the session that takes the place of those that the new password has ended, and takes in their end.
    async fn go_on(&self, user: &UserRecord, key: [u8; 32], remember: bool) -> Result<Option<Opened>, StoreError> {
        let shared = &self.state.shared;
        let new = NewSession {
            user: &user.name,
            password_version: user.password_version,
            method: "password",
            client: self.head.client.0.to_string(),
            agent: self.agent(),
            carrier: Carrier::Cookie { key, remember },
        };
        let opened = shared.people.sessions.open(new, self.head.now).await;
        shared.people.follower.catch_up().await?;
        let browser: Digest = sha256(&key);
        shared.sign_in.note_familiar(&user.name, self.head.client.0, browser).await;
        opened
    }

    /// Ends what `end` says; `None`: there is no such session of this account.
    async fn ended(&self, me: &Me, end: &str) -> Result<Option<Done>, StoreError> {
        let (shared, user, client) = (&self.state.shared, &me.name, self.head.client.0);
        let done = if end == OTHERS {
            let count = shared.store.end_other_sessions(user, &me.session).await?;
            audit::Event::OtherSessionsEnded { user, client, count }.log(self.record);
            Done::OthersEnded
        } else {
            let Some(session) = self.own(me, end).await? else { return Ok(None) };
            shared.store.end_session(&session.id).await?;
            audit::Event::SessionEnded { user, client, session: &session.id }.log(self.record);
            Done::SessionEnded
        };
        shared.people.follower.catch_up().await?;
        Ok(Some(done))
    }

    /// The session `id`, if it is one of this account's others. This one is ended by signing out.
    async fn own(&self, me: &Me, id: &str) -> Result<Option<SessionRecord>, StoreError> {
        let session = self.state.shared.store.session(id).await?;
        let now = self.head.now;
        Ok(session.filter(|session| session.user == me.name && session.id != me.session && session.expires_at > now))
    }
}

/// Answers.
impl Call<'_> {
    fn frame<'a>(&'a self, me: &'a Me) -> Frame<'a> {
        let login = &self.state.config.login;
        let (title, logout_path) = (login.title.as_str(), login.logout_path.as_str());
        Frame { title, user: me.name.as_str(), logout_path, path: PATH, now: self.head.now }
    }

    async fn account_page(&self, me: &Me, notice: Option<Done>, error: Option<NotDone>) -> Result<String, StoreError> {
        let store = &self.state.shared.store;
        let this = store.session(&me.session).await?.map(|session| self.in_words(session));
        let idle = self.state.config.sessions.idle + WRITTEN_LATE;
        let (others, count) = store.other_sessions(&me.name, &me.session, idle, MOST_SHOWN).await?;
        let others: Vec<_> = others.into_iter().map(|session| self.in_words(session)).collect();
        let list = self.keys_of(me).await?;
        let account = store.user(&me.name).await?;
        let is_in_file = account.is_some_and(|account| account.origin == Origin::File);
        let password = if is_in_file { Password::Elsewhere } else { Password::Here };
        let (frame, keys) = (self.frame(me), Keys { list: &list, may_add: self.may_add_keys() });
        let this = this.as_ref();
        Ok(page::account(&AccountPage { frame, this, others: &others, count, keys, password, notice, error }))
    }

    async fn page_of(&self, me: &Me, form: Form<'_>, error: Option<NotDone>) -> Result<String, StoreError> {
        match form {
            Form::Account => self.account_page(me, None, error).await,
            Form::End(end) => self.end_page(me, end, error).await,
            Form::Revoke(key) => self.revoke_page(me, key, error).await,
            Form::NewKey(name, lasts) => Ok(page::new_key(&NewKeyPage { frame: self.frame(me), name, lasts, error })),
        }
    }

    /// The question for the password; the account's page where there is nothing to end.
    async fn end_page(&self, me: &Me, end: &str, error: Option<NotDone>) -> Result<String, StoreError> {
        let frame = self.frame(me);
        if end == OTHERS {
            let idle = self.state.config.sessions.idle + WRITTEN_LATE;
            let (_, count) = self.state.shared.store.other_sessions(&me.name, &me.session, idle, 0).await?;
            if count > 0 {
                return Ok(page::end(&EndPage { frame, end: End::Others(count), error }));
            }
            return self.account_page(me, None, error).await;
        }
        match self.own(me, end).await? {
            Some(session) => {
                let session = self.in_words(session);
                Ok(page::end(&EndPage { frame, end: End::One(&session), error }))
            }
            None => self.account_page(me, None, error.or(Some(NotDone::NoSuchSession))).await,
        }
    }

    fn in_words(&self, session: SessionRecord) -> Session {
        let kept = match (session.remember, session.key_hash) {
            (_, None) => Kept::Tokens,
            (true, Some(_)) => Kept::Remembered,
            (false, Some(_)) => Kept::WhileUsed(self.state.config.sessions.idle),
        };
        Session {
            browser: agent::in_words(&session.agent),
            id: session.id,
            client: session.client,
            since: session.created_at,
            last_used: session.last_seen,
            expires_at: session.expires_at,
            kept,
        }
    }

    /// A page, or 503 where the store has none to show.
    fn shown(self, status: StatusCode, retry_after: Option<u64>, page: Result<String, StoreError>) -> Answered {
        match page {
            Ok(html) => {
                let mut response = self.asker().page(status, html);
                own_policy(&mut response);
                if let Some(seconds) = retry_after {
                    response.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                self.unread(response)
            }
            Err(error) => {
                tracing::warn!(%error, "the page of an account can't be shown");
                self.turn_away(Refusal::Unavailable)
            }
        }
    }

    async fn not_done(self, me: &Me, form: Form<'_>, error: NotDone) -> Answered {
        let (status, retry_after) = match error {
            NotDone::WrongPassword => (StatusCode::FORBIDDEN, None),
            NotDone::TooMany(seconds) => (StatusCode::TOO_MANY_REQUESTS, Some(seconds)),
            NotDone::NoSuchSession | NotDone::NoSuchKey => (StatusCode::NOT_FOUND, None),
            NotDone::InFile | NotDone::KeyTaken | NotDone::KeysFull => (StatusCode::CONFLICT, None),
            NotDone::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_SECONDS)),
            NotDone::Short
            | NotDone::Long
            | NotDone::UserName
            | NotDone::Different
            | NotDone::Same
            | NotDone::KeyName => (StatusCode::UNPROCESSABLE_ENTITY, None),
        };
        if self.record.reason.is_empty() {
            self.record.reason = asked::reason(error).into();
        }
        let page = self.page_of(me, form, Some(error)).await;
        self.shown(status, retry_after, page)
    }

    /// The password was not judged, or is not the one.
    async fn unconfirmed(self, me: &Me, form: Form<'_>, failure: &Failure) -> Answered {
        let client = self.head.client.0;
        let error = match failure {
            Failure::Wrong { user, reason } => {
                audit::Event::SignInFailed { user: user.as_ref(), client, method: METHOD, reason }.log(self.record);
                NotDone::WrongPassword
            }
            Failure::TooMany(wait) => {
                let seconds = wait.seconds();
                audit::Event::SignInThrottled { client, method: METHOD, seconds }.log(self.record);
                NotDone::TooMany(seconds)
            }
            // Longer than any can be: not the one, whatever it is.
            Failure::PasswordTooLong => NotDone::WrongPassword,
            Failure::Busy | Failure::Store(_) => NotDone::Unavailable,
        };
        self.record.reason = failure.to_string().into();
        self.not_done(me, form, error).await
    }

    fn done(self, done: Done) -> Answered {
        self.record.reason = asked::reason_done(done).into();
        let response = self.asker().see_other(&format!("{PATH}?done={}", asked::word(done)));
        Answered { response, unread: None }
    }

    /// The password is changed. Where no session could be begun there is the sign-in page, for the new password.
    fn changed(self, me: &Me, opened: Result<Option<Opened>, StoreError>, remember: bool) -> Answered {
        let client = self.head.client.0;
        let opened = opened.unwrap_or_else(|error| {
            tracing::warn!(%error, "no session was begun after a change of the password");
            None
        });
        let session = opened.as_ref().map(|opened| opened.id.as_str());
        audit::Event::PasswordChanged { user: &me.name, client, session }.log(self.record);
        let max_age = remember.then_some(self.state.config.sessions.remember);
        let cookie = opened.and_then(|opened| self.state.cookie.set(opened.key.expose(), max_age).ok());
        let Some(cookie) = cookie else {
            let mut response = self.asker().see_other(&self.login_path());
            self.asker().clear_cookie(response.headers_mut());
            return Answered { response, unread: None };
        };
        let mut answered = self.done(Done::PasswordChanged);
        answered.response.headers_mut().append(SET_COOKIE, cookie);
        answered
    }

    /// The sign-in page, with the way back to the account's.
    fn login_path(&self) -> String {
        let next: String = form_urlencoded::byte_serialize(PATH.as_bytes()).collect();
        format!("{}?next={next}", self.state.config.login.path)
    }

    fn turn_away(self, refusal: Refusal) -> Answered {
        let asker = self.asker();
        let plain = |detail| Problem { detail, ..Problem::default() };
        let (status, problem) = match refusal {
            Refusal::SignedOut { clears_cookie } if asker.is_page_load() && asker.can_come_back() => {
                let mut response = asker.see_other(&asker.login_path(false));
                if clears_cookie {
                    asker.clear_cookie(response.headers_mut());
                }
                self.record.reason = "not authenticated".into();
                return self.unread(response);
            }
            Refusal::SignedOut { clears_cookie } => {
                let challenge = Some(CHALLENGE);
                let problem = Problem { challenge, offers_sign_in: true, clears_cookie, ..plain("Not authenticated") };
                (StatusCode::UNAUTHORIZED, problem)
            }
            Refusal::BadToken(bad) => {
                let (detail, challenge) = token_challenge(&bad);
                (StatusCode::UNAUTHORIZED, Problem { challenge: Some(challenge), ..plain(detail) })
            }
            Refusal::NotABrowser => {
                (StatusCode::FORBIDDEN, plain("Only for a browser that is signed in with its cookie"))
            }
            Refusal::Unavailable => {
                let problem =
                    Problem { retry_after: Some(RETRY_SECONDS), ..plain("The account can't be looked up now") };
                (StatusCode::SERVICE_UNAVAILABLE, problem)
            }
            Refusal::CrossSite => (StatusCode::FORBIDDEN, plain("The request was sent by another site")),
            Refusal::Body(error) => return self.body_failed(error),
            Refusal::Malformed(malformed) => {
                let (status, detail) = match malformed {
                    Malformed::MediaType => {
                        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send application/x-www-form-urlencoded".to_owned())
                    }
                    Malformed::Syntax => (StatusCode::BAD_REQUEST, malformed.to_string()),
                    Malformed::Field(_) => (StatusCode::UNPROCESSABLE_ENTITY, malformed.to_string()),
                };
                return self.refuse(status, &plain(&detail));
            }
        };
        self.refuse(status, &problem)
    }
}

/// These pages have more style than the others, and so a policy of their own.
fn own_policy(response: &mut Response<Body>) {
    if let Ok(policy) = HeaderValue::from_str(page::csp()) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
}

/// What the audit events of this page name as the way in which a password was given.
const METHOD: &str = "account";

/// Other sessions that the page lists.
const MOST_SHOWN: usize = 99;

/// How much later than its use a session's use may stand in the store.
const WRITTEN_LATE: std::time::Duration = std::time::Duration::from_secs(120);
