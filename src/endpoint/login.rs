//! `login.path`: the sign-in page, and the sign-in itself as a form or as JSON.

use bytes::Bytes;
use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::form::{self, Kind, Malformed, Typed};
use super::page::{self, CookieLost, LoginError, LoginPage, Message, MessagePage, Notice};
use super::read::{self, ReadError};
use super::{Answered, Call, Problem, next};
use crate::access::{Known, Standing};
use crate::observe::{User, audit};
use crate::session::csrf::{self, Origins};
use crate::session::{Asked, Carrier, Failure, NewSession, Opened, cookie_key, sha256};
use crate::store::{Digest, StoreError, UserRecord};
use crate::token::NewClaims;

/// `GET`: the page, or on to where someone who is signed in wanted to go.
pub(super) async fn show(call: Call<'_>) -> Answered {
    let query = Query::of(call.head.query.as_deref());
    let next = next::safe(query.next.as_deref(), &call.own_paths()).to_owned();
    let standing = call.state.access.who(call.head, call.request.headers()).await;
    // Only a browser with its cookie is signed in here: tokens and keys are shown anew with each request.
    let known = match &standing {
        Standing::Known(known) if known.is_by_cookie() => Some(known),
        _ => None,
    };
    call.record.user = known.map(user_of).into();
    call.note_return(known);
    if known.is_some() && !query.again {
        let response = call.asker().see_other(&next);
        return call.unread(response);
    }
    if !query.signed_out
        && let Some(cause) = call.lost_cookie(&standing)
    {
        call.record.reason = "the browser does not return the cookie".into();
        let retry = call.asker_for(&next);
        let message = Message::CookieNotReturned { cause: cause.as_page(), retry: &retry };
        let html = page::message(&MessagePage { title: &call.state.config.login.title, message });
        let response = call.asker().page(StatusCode::OK, html);
        return call.unread(response);
    }
    let user = known.map(user_of);
    let notice = match &user {
        Some(user) => Some(Notice::SignedInAs(user)),
        None => query.signed_out.then_some(Notice::SignedOut),
    };
    let html = call.page(&Filled { next: &next, notice, again: query.again, ..Filled::default() });
    let mut response = call.asker().page(StatusCode::OK, html);
    if matches!(standing, Standing::StaleCookie) {
        call.asker().clear_cookie(response.headers_mut());
    }
    call.unread(response)
}

/// `POST`: a sign-in.
pub(super) async fn submit(mut call: Call<'_>) -> Answered {
    let kind = match form::kind(call.request.headers()) {
        Ok(kind) => kind,
        Err(malformed) => return call.malformed(None, malformed),
    };
    if !call.is_of_this_site() {
        let (client, path) = (call.head.client.0, call.head.path.canonical());
        audit::Event::CrossSite { client, path, user: None }.log(call.record);
        return call.refused(
            kind,
            StatusCode::FORBIDDEN,
            LoginError::CrossSite,
            "The request was sent by another site",
        );
    }
    let typed = match call.typed(kind).await {
        Ok(typed) => typed,
        Err(Unread::Malformed(malformed)) => return call.malformed(Some(kind), malformed),
        Err(Unread::Body(error)) => return call.body_failed(error),
    };
    let carrier = match kind {
        Kind::Form => Carrier::Cookie { key: call.state.shared.people.sessions.new_key(), remember: typed.remember },
        Kind::Json => Carrier::Tokens,
    };
    let asked = Asked {
        typed: &typed.username,
        password: &typed.password,
        client: call.head.client.0,
        // A browser that someone signed in with is not slowed down by a stranger who guesses that account's password.
        browser: call.shown_cookie(),
        browser_from_now: match &carrier {
            Carrier::Cookie { key, .. } => Some(sha256(key)),
            Carrier::Tokens => None,
        },
    };
    match call.state.shared.sign_in.verify(asked).await {
        Ok(user) => match call.opened(&user, carrier).await {
            Ok(Some(opened)) => call.welcome(kind, &typed, &user, &opened),
            Ok(None) => {
                let (user, reason) = (Some(user.name), "the account has changed meanwhile");
                call.failed(kind, &typed, &Failure::Wrong { user, reason })
            }
            Err(error) => call.failed(kind, &typed, &Failure::Store(error)),
        },
        Err(failure) => call.failed(kind, &typed, &failure),
    }
}

impl Call<'_> {
    /// Begins the session, taking in all events so far so that it works at once.
    pub(super) async fn opened(&self, user: &UserRecord, carrier: Carrier) -> Result<Option<Opened>, StoreError> {
        let new = NewSession {
            user: &user.name,
            password_version: user.password_version,
            method: "password",
            client: self.head.client.0.to_string(),
            agent: self.agent(),
            carrier,
        };
        let people = &self.state.shared.people;
        let opened = people.sessions.open(new, self.head.now).await?;
        if opened.is_some() && matches!(carrier, Carrier::Cookie { .. }) {
            self.end_shown(None).await?;
        }
        people.follower.catch_up().await?;
        Ok(opened)
    }

    fn welcome(self, kind: Kind, typed: &Typed, user: &UserRecord, opened: &Opened) -> Answered {
        let (client, session) = (self.head.client.0, opened.id.as_str());
        audit::Event::SignedIn { user: &user.name, client, method: "password", session }.log(self.record);
        self.record.user = User::Named(user.name.to_string());
        self.record.reason = "signed in".into();
        match kind {
            Kind::Form => self.with_cookie(typed, opened),
            Kind::Json => self.with_tokens(user, opened),
        }
    }

    /// 303 with the session's cookie, and no token.
    fn with_cookie(self, typed: &Typed, opened: &Opened) -> Answered {
        let (config, shared) = (&self.state.config, &self.state.shared);
        let next = next::safe(typed.next.as_deref(), &self.own_paths());
        let mut response = self.asker().see_other(next);
        let max_age = typed.remember.then_some(config.sessions.remember);
        if let Ok(cookie) = self.state.cookie.set(opened.key.expose(), max_age) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        shared.returning.expect(self.head.client.0, self.agent(), self.head.now);
        Answered { response, unread: None }
    }

    /// The answer of the service that this gateway grew out of, and no cookie.
    fn with_tokens(self, user: &UserRecord, opened: &Opened) -> Answered {
        let methods = ["password".to_owned()];
        let access = self.access_token(&NewClaims {
            subject: user.name.as_str(),
            now: self.head.now,
            session: Some(&opened.id),
            signed_in_at: Some(self.head.now),
            methods: &methods,
            groups: &user.groups,
            scope: "",
            not_after: Some(opened.expires_at),
        });
        let Ok(access) = access else {
            let problem = Problem { detail: "Internal error", ..Problem::default() };
            return self.refuse(StatusCode::INTERNAL_SERVER_ERROR, &problem);
        };
        let response = self.asker().document(
            StatusCode::OK,
            &json!({
                "message": "Login successful",
                "username": user.name.as_str(),
                "access_token": access.token,
                "token_type": "Bearer",
                "expires_in": access.expires_in,
                "refresh_token": opened.key.expose(),
            }),
        );
        Answered { response, unread: None }
    }

    fn failed(self, kind: Kind, typed: &Typed, failure: &Failure) -> Answered {
        let login = &self.state.config.login;
        let client = self.head.client.0;
        let (status, error, detail, retry_after) = match failure {
            Failure::Wrong { user, reason } => {
                let user = user.as_ref();
                audit::Event::SignInFailed { user, client, method: "password", reason }.log(self.record);
                let detail = login.failure_detail.as_str();
                (login.failure_status, LoginError::Refused { detail }, detail, None)
            }
            Failure::TooMany(wait) => {
                let seconds = wait.seconds();
                audit::Event::SignInThrottled { client, method: "password", seconds }.log(self.record);
                (StatusCode::TOO_MANY_REQUESTS, LoginError::TooMany { seconds }, "Too many attempts", Some(seconds))
            }
            Failure::PasswordTooLong => {
                (StatusCode::BAD_REQUEST, LoginError::Malformed, "The password is longer than 1024 bytes", None)
            }
            Failure::Busy | Failure::Store(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                LoginError::Unavailable,
                "Sign-in is not possible now",
                Some(RETRY_SECONDS),
            ),
        };
        self.record.reason = failure.to_string().into();
        if kind == Kind::Json {
            let asker = self.asker();
            let response = match failure {
                // The same in every byte whether the user exists or not: no request id in the body.
                Failure::Wrong { .. } => asker.bare_problem(status, &json!({ "detail": detail })),
                _ => asker.problem(status, &Problem { detail, retry_after, ..Problem::default() }),
            };
            return Answered { response, unread: None };
        }
        let next = next::safe(typed.next.as_deref(), &self.own_paths());
        let filled = Filled {
            next,
            username: &typed.username,
            remember: typed.remember,
            error: Some(error),
            ..Filled::default()
        };
        let mut response = self.asker().page(status, self.page(&filled));
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
        }
        Answered { response, unread: None }
    }

    fn malformed(self, kind: Option<Kind>, malformed: Malformed) -> Answered {
        let status = match malformed {
            Malformed::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Malformed::Syntax => StatusCode::BAD_REQUEST,
            Malformed::Field(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let detail = malformed.to_string();
        self.refused(kind.unwrap_or(Kind::Json), status, LoginError::Malformed, &detail)
    }

    fn refused(self, kind: Kind, status: StatusCode, error: LoginError<'_>, detail: &str) -> Answered {
        if kind == Kind::Json || !self.asker().is_page_load() {
            return self.refuse(status, &Problem { detail, ..Problem::default() });
        }
        self.record.reason = detail.to_owned().into();
        let html = self.page(&Filled { error: Some(error), ..Filled::default() });
        let response = self.asker().page(status, html);
        self.unread(response)
    }

    pub(super) fn body_failed(self, error: ReadError) -> Answered {
        let (status, detail) = match error {
            ReadError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
            ReadError::Stalled => (StatusCode::REQUEST_TIMEOUT, "The body did not come in time"),
            ReadError::Broken => (StatusCode::BAD_REQUEST, "The body is malformed or cut"),
        };
        self.refuse(status, &Problem { detail, closes: true, ..Problem::default() })
    }

    async fn typed(&mut self, kind: Kind) -> Result<Typed, Unread> {
        let bytes = self.body().await.map_err(Unread::Body)?;
        form::read(kind, &bytes).map_err(Unread::Malformed)
    }

    /// The body of a form with passwords in it.
    pub(super) async fn body(&mut self) -> Result<Bytes, ReadError> {
        let patience = self.state.config.server.limits.body_timeout;
        read::read(self.request.body_mut(), MOST_BYTES, patience).await
    }

    pub(super) fn is_of_this_site(&self) -> bool {
        let own = self.head.origin();
        let public = self.state.config.server.public_url.origin();
        csrf::may_send(self.request.headers(), Origins { own: &own, public: &public, listed: &[] })
    }

    fn own_paths(&self) -> [&str; 2] {
        let login = &self.state.config.login;
        [login.path.as_str(), login.logout_path.as_str()]
    }

    pub(super) fn agent(&self) -> &str {
        agent(self.request.headers())
    }

    /// Ends the sessions of the cookies that are replaced or cleared, so that nobody who knows one of them goes on with it.
    pub(super) async fn end_shown(&self, ended: Option<&str>) -> Result<(), StoreError> {
        let shared = &self.state.shared;
        let shown: Vec<_> =
            self.state.cookie.values(self.request.headers()).filter_map(cookie_key).take(MOST_ENDED).collect();
        for key in shown {
            let found = shared.people.sessions.find(&key, self.head.now).await?;
            if let Some(live) = found.filter(|live| ended != Some(&*live.id)) {
                shared.store.end_session(&live.id).await?;
            }
        }
        Ok(())
    }

    /// The digest of the cookie that the browser shows, whether its session lives or not.
    pub(super) fn shown_cookie(&self) -> Option<Digest> {
        self.state.cookie.values(self.request.headers()).find_map(cookie_key).map(|key| sha256(&key))
    }

    fn page(&self, filled: &Filled<'_>) -> String {
        let login = &self.state.config.login;
        page::login(&LoginPage {
            title: &login.title,
            path: &login.path,
            next: if filled.next.is_empty() { "/" } else { filled.next },
            username: filled.username,
            remember: filled.remember,
            error: filled.error,
            notice: filled.notice,
            again: filled.again,
        })
    }

    fn asker_for(&self, next: &str) -> String {
        let encoded: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        format!("{}?next={encoded}", self.state.config.login.path)
    }

    /// Why the browser that has just signed in here comes back without its cookie, if that is so.
    fn lost_cookie(&self, standing: &Standing) -> Option<Lost> {
        let has_cookie = self.state.cookie.values(self.request.headers()).next().is_some();
        let is_lost = matches!(standing, Standing::Nobody)
            && !has_cookie
            && self.state.shared.returning.is_missing(self.head.client.0, self.agent(), self.head.now);
        let public_url = &self.state.config.server.public_url;
        is_lost.then(|| {
            if public_url.https && !self.head.https {
                Lost::NotSecure(public_url.origin())
            } else if public_url.host != self.head.host.name() {
                Lost::OtherHost(public_url.origin())
            } else {
                Lost::Blocked
            }
        })
    }
}

enum Unread {
    Malformed(Malformed),
    Body(ReadError),
}

enum Lost {
    NotSecure(String),
    OtherHost(String),
    Blocked,
}

impl Lost {
    fn as_page(&self) -> CookieLost<'_> {
        match self {
            Self::NotSecure(public_url) => CookieLost::NotSecure { public_url },
            Self::OtherHost(public_url) => CookieLost::OtherHost { public_url },
            Self::Blocked => CookieLost::Blocked,
        }
    }
}

/// What the page is filled with.
#[derive(Default)]
struct Filled<'a> {
    next: &'a str,
    username: &'a str,
    remember: bool,
    error: Option<LoginError<'a>>,
    notice: Option<Notice<'a>>,
    again: bool,
}

/// The query of the sign-in page. A `next` that stands twice counts as none.
#[derive(Default)]
struct Query {
    next: Option<String>,
    again: bool,
    signed_out: bool,
}

impl Query {
    fn of(query: Option<&str>) -> Self {
        let mut read = Self::default();
        let mut nexts = 0;
        for (name, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            match &*name {
                "next" => {
                    nexts += 1;
                    read.next = (nexts == 1).then(|| value.into_owned());
                }
                "again" => read.again = value == "1",
                "signed_out" => read.signed_out = value == "1",
                _ => {}
            }
        }
        read
    }
}

fn user_of(known: &Known) -> String {
    known.identity.profile.user.clone()
}

fn agent(headers: &HeaderMap) -> &str {
    headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("")
}

/// Cookies whose sessions a sign-in ends: more than any browser sends by accident.
const MOST_ENDED: usize = 8;

/// Bytes of a sign-in's body.
const MOST_BYTES: usize = 16 * 1024;

/// When a sign-in that could not be judged may be tried again, in seconds.
pub(super) const RETRY_SECONDS: u64 = 2;
