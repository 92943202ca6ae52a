//! From a person to a decision: the rules, asked under every reading of the path.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::credential::{hides, is_api_key, is_basic, is_bearer, smuggles_api_key};
use super::rules::{Asker, Asking, No, Says, Shown, Source};
use super::{Access, Authorization, Bad, Credential, Current, Known, Lease, Proof, Reason, Standing};
use crate::config::Route;
use crate::identity::{Identity, UserName};
use crate::message::head::Head;
use crate::message::path::Reading;
use crate::session::csrf::{self, Origins};
use crate::throttle::RetryAfter;

/// Leave to forward one request. Only [`Access::check`] makes one, and forwarding takes it by value.
///
/// ```compile_fail
/// let forged = portcullis::access::Permit { };
/// ```
#[derive(Debug)]
pub struct Permit {
    route: Arc<Route>,
    head: Arc<Head>,
    identity: Option<Arc<Identity>>,
    signs_in: Option<UserName>,
    set_aside: Option<SetAside>,
    drops_authorization: bool,
    clears_cookie: bool,
    instead: Option<Box<Decision>>,
    is_preflight: bool,
    lease: Lease,
}

impl Permit {
    /// Leave for a true preflight to go on, which carries no credential and is given no name.
    pub(super) fn for_preflight(route: &Arc<Route>, head: &Arc<Head>, current: &Arc<Current>) -> Self {
        Self {
            route: Arc::clone(route),
            head: Arc::clone(head),
            identity: None,
            signs_in: None,
            set_aside: None,
            drops_authorization: true,
            clears_cookie: false,
            instead: None,
            is_preflight: true,
            lease: Lease::new(current, head, None, Shown::Nothing),
        }
    }

    /// Whether it is for a preflight, which the rules were not asked about.
    pub const fn is_preflight(&self) -> bool {
        self.is_preflight
    }

    /// The route that decided.
    pub const fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The request as it was judged.
    pub const fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// Who the application is told; `None` on a public route without a good credential.
    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// What whoever is named was believed for.
    pub fn proof(&self) -> Option<&Proof> {
        self.lease.known().map(|known| &*known.proof)
    }

    /// Who has just given the right password with this very request.
    pub const fn signs_in(&self) -> Option<&UserName> {
        self.signs_in.as_ref()
    }

    /// The name and password that were not good and are not passed on: everyone may go here.
    pub const fn set_aside(&self) -> Option<&SetAside> {
        self.set_aside.as_ref()
    }

    /// Whether `Authorization` stays here: it is ours, or it was not good.
    pub const fn drops_authorization(&self) -> bool {
        self.drops_authorization
    }

    /// Whether a cookie was shown that is not good, which the answer clears.
    pub const fn clears_cookie(&self) -> bool {
        self.clears_cookie
    }

    /// Whether the answer may be kept by a shared cache: nobody was named, everyone may have it, and it clears no cookie.
    pub fn is_public(&self) -> bool {
        self.identity.is_none() && !self.clears_cookie && self.route.allow.is_public()
    }

    /// What would have been decided, had not every route that says no only been observed.
    pub fn instead(&self) -> Option<&Decision> {
        self.instead.as_deref()
    }

    /// What the permission holds by, for what outlives the request.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// A credential that was judged, and counts for nothing where everyone may go.
#[derive(Debug)]
pub enum SetAside {
    /// It is not good.
    Refused(Bad),
    /// Too many wrong passwords: this one was not looked at.
    Throttled(RetryAfter),
}

/// What was decided about a request.
#[derive(Debug)]
pub enum Decision {
    /// It goes on.
    Permit(Permit),
    /// It could, with another credential.
    Challenge(Challenge),
    /// It may not.
    Deny(Denial),
    /// No route matches, as written or under a reading.
    NotFound {
        /// Under which reading nothing matches; `None`: as written.
        reading: Option<Reading>,
    },
    /// It says two things at once.
    Malformed(&'static str),
    /// Too many wrong passwords.
    Throttled(Arc<Route>, RetryAfter),
    /// The store is down and the credential can't be judged.
    Unavailable(Arc<Route>),
}

/// What is missing.
#[derive(Debug)]
pub struct Challenge {
    /// The route that decided.
    pub route: Arc<Route>,
    /// Under which reading of the path; `None`: as written.
    pub reading: Option<Reading>,
    /// What the client is told.
    pub want: Want,
    /// Whether a password typed on the sign-in page could satisfy the rule.
    pub by_password: bool,
    /// Whether a name and password by Basic would do.
    pub takes_basic: bool,
    /// Whether a cookie was shown that is not good, which is cleared.
    pub clears_cookie: bool,
    /// Who is there, when only the age or kind of their sign-in falls short.
    pub identity: Option<Arc<Identity>>,
}

/// What the client of a [`Challenge`] is told.
#[derive(Debug)]
pub enum Want {
    /// A credential.
    Credential,
    /// A better token than this one.
    Token(Bad),
    /// A fresher or stronger sign-in (RFC 9470).
    StepUp,
}

/// Why not, and who was there.
#[derive(Debug)]
pub struct Denial {
    /// The route that decided.
    pub route: Arc<Route>,
    /// For the log only.
    pub why: Reason,
    /// Under which reading of the path; `None`: as written.
    pub reading: Option<Reading>,
    /// Who is there.
    pub identity: Option<Arc<Identity>>,
    /// Whether a cookie was shown that is not good, which is cleared.
    pub clears_cookie: bool,
}

/// All that a decision looks at.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after their types")]
pub struct Authorized<'a> {
    pub head: &'a Arc<Head>,
    pub headers: &'a HeaderMap,
    pub route: &'a Arc<Route>,
    pub seen: Authorization<'a>,
    pub credential: &'a Credential<'a>,
    pub standing: Standing,
    pub current: &'a Arc<Current>,
}

/// What was decided, and about whom.
#[derive(Debug)]
pub struct Judged {
    /// What.
    pub decision: Decision,
    /// Who asked, as the rules saw them.
    pub asker: Asker,
}

impl From<Decision> for Judged {
    /// A decision for which nobody had to be looked at.
    fn from(decision: Decision) -> Self {
        Self { decision, asker: Asker::default() }
    }
}

impl Access {
    /// Asks the rules. The only maker of [`Permit`].
    ///
    /// On a route that is observed whoever would be refused goes on: with the name that a good credential gives, else without.
    /// A no of another route, under a reading of the path, is a no all the same.
    pub(super) fn authorize(&self, asked: Authorized<'_>) -> Judged {
        let asker = self.asker(&asked.standing, Shown::of(asked.credential));
        let decision = self.decide(asked, &asker);
        Judged { decision, asker }
    }

    fn decide(&self, asked: Authorized<'_>, asker: &Asker) -> Decision {
        let Authorized { head, headers, route, seen, credential, mut standing, current } = asked;
        let clears_cookie = matches!(standing, Standing::StaleCookie);
        let by_cookie = matches!(
            (&standing, credential),
            (Standing::Known(_), Credential::Cookies(_) | Credential::Certificate(_))
        );
        let is_foreign = by_cookie && !self.is_of_this_site(head, headers, route);
        // What another site has a browser send must not go on in the name of whoever uses it, observed or not.
        let asking = if is_foreign && route.observe { Asking::default() } else { asker.asking() };
        let ruling = self.rules.judge_from(Some(route), head, &asking);
        let told = Told { route, head, asker, clears_cookie };
        let Says::Pass { named } = ruling.says else { return told.refusal(ruling.no(), standing) };
        let mut instead = None;
        if let Some(no) = ruling.waived {
            // Who is there is needed again where a name goes on all the same.
            let given = if named { Standing::Nobody } else { std::mem::replace(&mut standing, Standing::Nobody) };
            instead = Some(Box::new(told.refusal(no, given)));
        }
        if is_foreign {
            let why = Reason::CrossSite;
            let (route, identity) = (Arc::clone(route), asker.identity.clone());
            let refused = Decision::Deny(Denial { route, why, reading: None, identity, clears_cookie });
            if !told.route.observe {
                return refused;
            }
            instead = Some(Box::new(refused));
        }
        let (known, set_aside) = match standing {
            Standing::Known(known) if named => (Some(known), None),
            Standing::Refused(bad) => (None, Some(SetAside::Refused(bad))),
            Standing::Throttled(wait) => (None, Some(SetAside::Throttled(wait))),
            Standing::Known(_) | Standing::Nobody | Standing::StaleCookie | Standing::Unavailable => (None, None),
        };
        let drops_authorization = self.drops_authorization(headers, route, seen, known.is_some());
        let proof = known.as_ref().map(|known| &known.proof).filter(|proof| proof.is_sign_in);
        Decision::Permit(Permit {
            route: Arc::clone(route),
            head: Arc::clone(head),
            identity: known.as_ref().map(|known| Arc::clone(&known.identity)),
            signs_in: proof.and_then(|proof| proof.account.clone()),
            set_aside,
            drops_authorization,
            clears_cookie,
            instead,
            is_preflight: false,
            lease: Lease::new(current, head, known, Shown::of(credential)),
        })
    }

    /// Whether the rules would let `known` go on with a request that they let pass before: what a lease asks.
    pub(super) fn still_permits(&self, head: &Head, known: Option<&Known>, shown: Shown) -> bool {
        let Some(route) = self.rules.find(head).filter(|route| shown.is_accepted_by(route)) else { return false };
        let asking = Asking {
            person: known.map(|known| known.identity.person()),
            shown,
            source: known.map_or(Source::Own, |known| self.source(known)),
            key_routes: known.and_then(Known::key_routes),
            unproven: None,
        };
        let is_taken = known.is_none() || asking.source.is_taken_by(route);
        is_taken && matches!(self.rules.judge_from(Some(route), head, &asking).says, Says::Pass { .. })
    }

    /// Who asks, as the rules see them.
    fn asker(&self, standing: &Standing, shown: Shown) -> Asker {
        let asker = Asker { shown, ..Asker::default() };
        match standing {
            Standing::Nobody | Standing::StaleCookie => asker,
            Standing::Known(known) => Asker {
                identity: Some(Arc::clone(&known.identity)),
                source: self.source(known),
                issuer: known.proof.issuer.as_ref().map(|issuer| Arc::clone(&issuer.config().name)),
                key_routes: known.proof.api_key.as_ref().and_then(|key| key.routes().cloned()),
                ..asker
            },
            Standing::Refused(Bad::Expired) => Asker { unproven: Some(Reason::TokenExpired), ..asker },
            Standing::Refused(Bad::OtherIssuer) => Asker { unproven: Some(Reason::IssuerElsewhere), ..asker },
            Standing::Refused(Bad::Invalid(_) | Bad::Credentials { .. }) => {
                Asker { unproven: Some(Reason::BadCredential), ..asker }
            }
            Standing::Throttled(_) => Asker { unproven: Some(Reason::TooManyAttempts), ..asker },
            Standing::Unavailable => Asker { unproven: Some(Reason::StoreDown), ..asker },
        }
    }

    /// Whose word `known` stands on. An issuer of a former configuration is none.
    fn source(&self, known: &Known) -> Source {
        match &known.proof.issuer {
            None => Source::Own,
            Some(issuer) => self.issuers.place(issuer).map_or(Source::Unknown, Source::Issuer),
        }
    }

    /// Unsafe methods and WebSockets on a cookie must come from this site (section 3 of the contract).
    fn is_of_this_site(&self, head: &Head, headers: &HeaderMap, route: &Route) -> bool {
        let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_safe && !is_websocket(headers) {
            return true;
        }
        let own = head.origin();
        let may_send = |listed| csrf::may_send(headers, Origins { own: &own, public: &self.public_origin, listed });
        // A site whose scripts may use the cookie is trusted by name for what they do with it.
        may_send(&route.origins) || may_send(route.cors.trusted_origins())
    }

    /// What is ours never reaches an application, good or bad, accepted or not; `forward_token` lets a good Bearer through.
    fn drops_authorization(&self, headers: &HeaderMap, route: &Route, seen: Authorization<'_>, is_known: bool) -> bool {
        match seen {
            Authorization::Absent => false,
            Authorization::Several => true,
            Authorization::One { scheme, rest } if route.accept.bearer && is_bearer(scheme) => {
                !(route.forward_token && is_known) || is_api_key(scheme, rest)
            }
            Authorization::One { scheme, .. } if route.accept.basic && is_basic(scheme) => true,
            Authorization::One { .. } => {
                let is_ours =
                    |piece: &str| self.keys.is_ours(piece) || route.accept.bearer && self.issuers.is_theirs(piece);
                let value = headers.get(http::header::AUTHORIZATION);
                value.is_some_and(|value| smuggles_api_key(value) || hides(value, is_ours))
            }
        }
    }
}

impl Known {
    /// The only routes on which what they showed counts, where it is an API key with a limit.
    fn key_routes(&self) -> Option<&[String]> {
        self.proof.api_key.as_ref()?.routes().map(|routes| &**routes)
    }
}

/// What a refusal is made of, beside the no itself.
struct Told<'a> {
    route: &'a Arc<Route>,
    head: &'a Head,
    asker: &'a Asker,
    clears_cookie: bool,
}

impl Told<'_> {
    /// What is decided where the rules say `no`.
    fn refusal(&self, no: No<'_>, standing: Standing) -> Decision {
        let Self { route, head, asker, clears_cookie } = *self;
        let No { route: judged, reading, says } = no;
        let judged = Arc::clone(judged.unwrap_or(route));
        // Someone whose key is for other routes comes to an open one without a name, whatever a reading says then.
        let counts = |asking: Asking<'_>| asking.on(route, head).is_ok_and(|asking| asking.person.is_some());
        let is_there = (asker.key_routes.is_none() && asker.source == Source::Own) || counts(asker.asking());
        let identity = asker.identity.clone().filter(|_| is_there);
        let challenge = |want, (by_password, takes_basic), identity| {
            let route = Arc::clone(&judged);
            Decision::Challenge(Challenge { route, reading, want, by_password, takes_basic, clears_cookie, identity })
        };
        let takes_basic = judged.accept.basic;
        match says {
            Says::NoRoute => Decision::NotFound { reading },
            Says::Refuse(_) | Says::KeyElsewhere | Says::Pass { .. } => {
                Decision::Deny(Denial { route: judged, why: says.reason(), reading, identity, clears_cookie })
            }
            Says::SignIn { by_password } => challenge(Want::Credential, (by_password, takes_basic), None),
            Says::StepUp(ways) => challenge(Want::StepUp, (ways.by_password, ways.by_basic), identity),
            Says::Unproven(_) => match standing {
                Standing::Throttled(wait) => Decision::Throttled(judged, wait),
                Standing::Refused(bad) => challenge(Want::Token(bad), (true, takes_basic), None),
                Standing::Unavailable => Decision::Unavailable(judged),
                // Someone whom another issuer knows than the route wants.
                Standing::Known(_) | Standing::Nobody | Standing::StaleCookie => {
                    challenge(Want::Token(Bad::OtherIssuer), (true, takes_basic), None)
                }
            },
        }
    }
}

/// Whether the request opens a WebSocket (RFC 6455 section 4.1), or could be taken for one that does. Proxies that ask about
/// a request leave `Upgrade` out of the question, but no other field of it.
fn is_websocket(headers: &HeaderMap) -> bool {
    let has_key = headers.contains_key(http::header::SEC_WEBSOCKET_KEY);
    has_key || names_websocket(headers)
}

fn names_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(http::header::UPGRADE).iter().any(|value| {
        value
            .as_bytes()
            .split(|&byte| byte == b',')
            .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    })
}
