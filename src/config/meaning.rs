//! What is odd in meaning though each section is right: what no request reaches, and conditions that hold always or never.
//!
//! What is wrong between routes alone, `lint` finds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::reader::Context;
use super::routes::Places;
use super::{Accept, Issuer, Route, Server, Sessions, Upstream, allow, upstreams};
use crate::diag::{Diagnostic, Span, quoted};
use crate::policy::{Policy, Rule};

/// A configuration whose parts are right, and where they are written.
pub(super) struct Written<'a> {
    pub(super) server: &'a Server,
    /// Where `public_url` is written; `None`: nowhere.
    pub(super) public_url: Option<Span>,
    pub(super) sessions: &'a Sessions,
    pub(super) issuers: &'a [Arc<Issuer>],
    pub(super) upstreams: &'a [Arc<Upstream>],
    pub(super) upstream_places: &'a [upstreams::Places],
    pub(super) routes: &'a [Arc<Route>],
    pub(super) places: &'a [Places],
}

impl Written<'_> {
    pub(super) fn judge(&self, cx: &Context<'_>) {
        self.judge_upstreams(cx);
        self.judge_public_url(cx);
        for (route, places) in self.routes.iter().zip(self.places) {
            self.judge_certificates(cx, route, places);
            let Policy::AnyOf(rules) = &route.allow else { continue };
            for (rule, places) in rules.iter().zip(&places.rules) {
                self.judge_network(cx, rule, places);
                self.judge_age(cx, route, rule, places);
                self.judge_credentials(cx, route, rule, places);
            }
        }
    }

    fn judge_upstreams(&self, cx: &Context<'_>) {
        for (at, (upstream, places)) in self.upstreams.iter().zip(self.upstream_places).enumerate() {
            let is_usable = !self.routes.is_empty() && !upstream.servers.is_empty();
            if is_usable && self.routes.iter().all(|route| route.to.upstream() != Some(at)) {
                let message = format!("no route goes to the upstream {}", quoted(&upstream.name));
                let finding = Diagnostic::warning("unused-upstream", message).at(places.name.clone());
                cx.report(finding.help("remove it, or name it in the `upstream` of a route"));
            }
            for (server, place) in upstream.servers.iter().zip(&places.servers) {
                let is_own = |listens: &std::net::SocketAddr| {
                    let at = server.address.host_port();
                    at.is_some_and(|at| listens.port() == at.port && reaches(&at.host, listens.ip()))
                };
                let mut listeners = self.server.listen.iter().filter_map(|listen| listen.address.tcp());
                if let Some(listens) = listeners.find(is_own) {
                    let message =
                        format!("the gateway itself listens on `{listens}`: requests would go round in a circle");
                    let finding = Diagnostic::error("upstream-is-gateway", message).at(place.clone());
                    cx.report(finding.help("write where the application listens, or give the gateway another port"));
                }
            }
        }
    }

    fn judge_public_url(&self, cx: &Context<'_>) {
        let (url, Some(place)) = (&self.server.public_url, &self.public_url) else { return };
        if !url.https && !is_this_machine(&url.host) {
            let message = "passwords and session cookies cross the network in the clear";
            let finding = Diagnostic::warning("passwords-in-the-clear", message).at(place.clone()).label("not https");
            cx.report(finding.help("put a server that ends TLS before the gateway, and write https:// here"));
        }
        let is_served =
            |route: &Arc<Route>| route.hosts.is_empty() || route.hosts.iter().any(|host| host.matches(&url.host));
        if self.sessions.domain.is_none() && !self.routes.iter().any(is_served) {
            let message =
                format!("no route is for {}: everything there but the sign-in page is 404", quoted(&url.host));
            let finding = Diagnostic::warning("unserved-public-url", message).at(place.clone());
            cx.report(finding.help("add it to the `hosts` of a route, or write the address that people type"));
        }
    }

    /// Behind a proxy that is not trusted every client has the proxy's address.
    fn judge_network(&self, cx: &Context<'_>, rule: &Rule, places: &allow::Places) {
        let (Some(from), Some(place)) = (&rule.from, &places.from) else { return };
        let listeners: Vec<_> = self.server.listen.iter().filter_map(|listen| listen.address.tcp()).collect();
        let is_behind_a_proxy = listeners.iter().all(|listens| listens.ip().is_loopback())
            && !is_this_machine(&self.server.public_url.host)
            && self.server.trusted_proxies.is_empty();
        if is_behind_a_proxy {
            let holds = from.iter().any(|net| listeners.iter().any(|listens| net.contains(&listens.ip())));
            let label = if holds { "holds for everyone" } else { "holds for nobody" };
            let message = "every client seems to be on this machine: the proxy before the gateway is not trusted";
            let finding = Diagnostic::warning("from-behind-proxy", message).at(place.clone()).label(label);
            cx.report(finding.help("name the proxy in server.trusted_proxies, such as [\"127.0.0.1\", \"::1\"]"));
        }
    }

    /// A certificate that no client is asked for is never shown.
    fn judge_certificates(&self, cx: &Context<'_>, route: &Route, places: &Places) {
        let tls = &self.server.tls;
        // Where those of the server can't be used, what else is in them is not known.
        let is_unknown = tls.certificates().is_empty() && self.server.listen.iter().any(|listen| listen.tls);
        if !route.accept.client_cert || tls.asks_clients() || is_unknown {
            return;
        }
        let Some(place) = &places.accept else { return };
        let is_only = route.accept == Accept { client_cert: true, ..Accept::NOTHING };
        let label = match &route.allow {
            Policy::SignedIn | Policy::AnyOf(_) if is_only && !route.allow.may_be_anonymous() => "nobody can come in",
            _ => "counts for nothing",
        };
        let message = "no client is asked for a certificate, so that none is ever shown here";
        let finding = Diagnostic::warning("no-client-ca", message).at(place.clone()).label(label);
        cx.report(finding.help("give a certificate of `server.tls` a `client_ca`, or remove \"client-cert\""));
    }

    fn judge_age(&self, cx: &Context<'_>, route: &Route, rule: &Rule, places: &allow::Places) {
        // How long ago someone signed in with another issuer, that one says.
        if route.accept.bearer && self.takes_others(route) {
            return;
        }
        let longest = self.sessions.lifetime.max(self.sessions.remember);
        if let (Some(within), Some(place)) = (rule.signed_in_within, &places.within)
            && within >= longest
        {
            let finding = Diagnostic::warning("always-satisfied", "no sign-in lasts as long as this").at(place.clone());
            let finding = finding.label("holds for everyone who is signed in");
            let help =
                format!("write less than {} (sessions.lifetime and sessions.remember), or remove it", days(longest));
            cx.report(finding.help(help));
        }
    }

    fn takes_others(&self, route: &Route) -> bool {
        (0..self.issuers.len()).any(|issuer| route.issuers.take(Some(issuer)))
    }

    /// Conditions that no credential can satisfy that the route accepts.
    fn judge_credentials(&self, cx: &Context<'_>, route: &Route, rule: &Rule, places: &allow::Places) {
        let accept = &route.accept;
        let report = |place: &Option<Span>, what: &str, help: &str| {
            let Some(place) = place else { return };
            let finding = Diagnostic::warning("never-satisfied", format!("nobody can satisfy this rule: {what}"));
            cx.report(finding.at(place.clone()).help(help));
        };
        if rule.claims.is_some() && !accept.bearer {
            let what = "only tokens have claims, and this route accepts none";
            report(&places.claims, what, "add \"bearer\" to `accept`, or use `groups`");
        }
        if rule.scopes.is_some() && !accept.bearer && !accept.api_key {
            let what = "only tokens and API keys have scopes, and this route accepts neither";
            report(&places.scopes, what, "add \"bearer\" or \"api-key\" to `accept`, or use `groups`");
        }
        if rule.signed_in_within.is_some() && !(accept.bearer || accept.cookie || accept.basic) {
            let what = "API keys and certificates have no time of a sign-in, and this route accepts nothing else";
            report(&places.within, what, "add \"bearer\" or \"cookie\" to `accept`, or remove `signed_in_within`");
        }
        let impossible = |method: &str| match method {
            "basic" => !accept.basic,
            "api-key" => !accept.api_key,
            "client-cert" => !(accept.client_cert && self.server.tls.asks_clients()),
            "password" => !(accept.cookie || accept.bearer && route.issuers.take(None)),
            "issuer" => !(accept.bearer && self.takes_others(route)),
            _ => false,
        };
        if let Some(methods) = rule.methods_of_sign_in.as_ref().filter(|methods| methods.iter().all(|m| impossible(m)))
        {
            let what = format!(
                "nobody comes to this route by {}",
                methods.iter().map(|m| quoted(m)).collect::<Vec<_>>().join(" or ")
            );
            report(&places.methods, &what, "let `accept` take what brings it, or name another way of signing in");
        }
    }
}

/// Whether a connection to `host` comes out at a listener on `listens`.
fn reaches(host: &str, listens: IpAddr) -> bool {
    let host = if host == "localhost" { Ok(IpAddr::from([127, 0, 0, 1])) } else { host.parse() };
    host.is_ok_and(|host: IpAddr| host == listens || (listens.is_unspecified() && host.is_loopback()))
}

/// Whether `host`, as a URL writes it, is the machine on which it is typed.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn days(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        seconds if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds => format!("{seconds}s"),
    }
}

/// Whether `domain` is one under which anybody can have a name. Browsers know some ten thousand
/// (<https://publicsuffix.org>); these are those that people write by mistake.
pub(super) fn is_public_suffix(domain: &str) -> bool {
    let of_country = |(label, country): (&str, &str)| {
        OF_COUNTRIES.iter().any(|(known, labels)| *known == country && labels.contains(&label))
    };
    domain.split_once('.').is_some_and(of_country) || SHARED.contains(&domain)
}

/// What registries of countries put before their own ending.
const OF_COUNTRIES: &[(&str, &[&str])] = &[
    ("uk", &["co", "org", "ac", "gov", "me", "ltd", "plc", "net", "nhs"]),
    ("au", &["com", "net", "org", "edu", "gov"]),
    ("nz", &["co", "org", "net", "ac", "govt"]),
    ("jp", &["co", "ne", "or", "ac", "go"]),
    ("br", &["com", "net", "org", "gov"]),
    ("in", &["co", "org", "net", "ac", "gov"]),
    ("za", &["co", "org"]),
    ("cn", &["com", "net", "org", "gov", "edu"]),
    ("mx", &["com"]),
    ("tr", &["com", "org"]),
    ("ar", &["com"]),
    ("sg", &["com"]),
    ("hk", &["com"]),
    ("tw", &["com", "org"]),
    ("kr", &["co", "or"]),
    ("my", &["com"]),
    ("id", &["co"]),
    ("il", &["co", "org"]),
    ("th", &["co"]),
    ("ph", &["com"]),
    ("vn", &["com"]),
    ("ua", &["com"]),
    ("pl", &["com", "org", "net"]),
    ("es", &["com"]),
    ("at", &["co", "or", "ac", "gv"]),
    ("fr", &["com", "gouv"]),
    ("pt", &["com"]),
    ("gr", &["com"]),
    ("co", &["com"]),
    ("pe", &["com"]),
    ("eg", &["com"]),
    ("sa", &["com"]),
    ("pk", &["com"]),
    ("ke", &["co"]),
    ("ng", &["com"]),
];

/// Where hosters give names to everyone.
const SHARED: &[&str] = &[
    "appspot.com",
    "azurewebsites.net",
    "blogspot.com",
    "cloudfront.net",
    "duckdns.org",
    "dyndns.org",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "run.app",
    "up.railway.app",
    "vercel.app",
    "web.app",
    "workers.dev",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_domains_that_belong_to_many() {
        for domain in ["co.uk", "com.au", "or.jp", "github.io", "vercel.app"] {
            assert!(is_public_suffix(domain), "{domain}");
        }
        for domain in ["example.com", "example.co.uk", "co.com", "me.github.io", "ac.example"] {
            assert!(!is_public_suffix(domain), "{domain}");
        }
    }

    #[test]
    fn knows_what_is_this_machine() {
        assert!(["localhost", "a.localhost", "127.0.0.1", "[::1]", "127.8.8.8"].into_iter().all(is_this_machine));
        assert!(!["example.com", "10.0.0.1", "[fd00::1]", "localhost.example"].into_iter().any(is_this_machine));
        let every = IpAddr::from([0, 0, 0, 0]);
        assert!(reaches("localhost", every) && reaches("127.0.0.1", [127, 0, 0, 1].into()));
        assert!(!reaches("app", every) && !reaches("10.0.0.1", every) && !reaches("::1", [127, 0, 0, 1].into()));
    }
}
