//! The gateway's two cookies: the session's key, and what a browser is known by at its next sign-in.

use crate::config::Config;
use crate::message::cookie::{InvalidCookie, OurCookie};

/// The gateway's cookies. Neither ever reaches an application.
#[derive(Clone, Debug)]
pub struct Cookies {
    /// The session's key.
    pub session: OurCookie,
    /// Random; tells a browser that someone signed in with from a stranger's, so that a stranger who guesses passwords
    /// does not slow down whose account it is. It lets nobody in.
    pub browser: OurCookie,
}

impl Cookies {
    /// The cookies of `config`.
    ///
    /// # Errors
    /// When `[sessions]` names a cookie that no browser would keep.
    pub fn new(config: &Config) -> Result<Self, InvalidCookie> {
        let (secure, sessions) = (config.server.public_url.https, &config.sessions);
        let make = |name: &str| OurCookie::new(name, secure, sessions.domain.as_deref());
        Ok(Self { session: make(&sessions.cookie)?, browser: make(&format!("{}_browser", sessions.cookie))? })
    }

    /// Their names.
    pub fn names(&self) -> [&str; 2] {
        [self.session.name(), self.browser.name()]
    }
}
