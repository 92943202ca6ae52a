//! `server.forward_auth`: which kind of proxy asks the gateway about requests that it does not pass on to it.

/// Who asks on `/.gateway/check`, and so which family of headers tells the request that is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardAuth {
    /// Nobody: the path is 404.
    #[default]
    Off,
    /// nginx and its `auth_request`: `X-Original-Method`, `-Host` and `-URI`.
    Nginx,
    /// Traefik, Caddy, HAProxy: `X-Forwarded-Method`, `-Host`, `-Proto` and `-Uri`.
    Traefik,
    /// Envoy's `ext_authz` over HTTP: the request's own method and host, and its path after `/.gateway/check`.
    Envoy,
}

impl ForwardAuth {
    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
        }
    }
}

/// What can be written.
pub(super) const WORDS: &[(&str, ForwardAuth)] = &[
    (ForwardAuth::Off.word(), ForwardAuth::Off),
    (ForwardAuth::Nginx.word(), ForwardAuth::Nginx),
    (ForwardAuth::Traefik.word(), ForwardAuth::Traefik),
    (ForwardAuth::Envoy.word(), ForwardAuth::Envoy),
];
