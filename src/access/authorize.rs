//! From a person to a decision: the rules, asked under every reading of the path.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::credential::{hides, is_api_key, is_basic, is_bearer, smuggles_api_key};
use super::{Access, Authorization, Bad, Credential, Current, Known, Lease, Standing};
use crate::config::{Readings, Route};
use crate::identity::{Identity, UserName};
use crate::message::head::Head;
use crate::message::path::Reading;
use crate::policy::{Facts, Refused, Verdict};
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
    drops_authorization: bool,
    clears_cookie: bool,
    instead: Option<Box<Decision>>,
    lease: Lease,
}

impl Permit {
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

    /// Who has just given the right password with this very request.
    pub const fn signs_in(&self) -> Option<&UserName> {
        self.signs_in.as_ref()
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
    /// What the client is told.
    pub want: Want,
    /// Whether a password typed on the sign-in page could satisfy the rule.
    pub by_password: bool,
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
    pub why: Why,
    /// Who is there.
    pub identity: Option<Arc<Identity>>,
    /// Whether a cookie was shown that is not good, which is cleared.
    pub clears_cookie: bool,
}

/// Why a request may not pass.
#[derive(Debug)]
pub enum Why {
    /// The rule says no, under this reading of the path.
    Rule(Refused, Option<Reading>),
    /// The API key is limited to other routes, under this reading of the path.
    KeyElsewhere(Option<Reading>),
    /// Another site made a browser send it.
    CrossSite,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(refused, None) => write!(f, "{refused}"),
            Self::Rule(refused, Some(reading)) => write!(f, "{refused}, read with {}", reading.name()),
            Self::KeyElsewhere(None) => f.write_str("the API key is limited to other routes"),
            Self::KeyElsewhere(Some(reading)) => {
                write!(f, "the API key is limited to other routes than the path read with {}", reading.name())
            }
            Self::CrossSite => f.write_str("sent by another site"),
        }
    }
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

impl Access {
    /// Asks the rules. The only maker of [`Permit`].
    ///
    /// On a route that is observed whoever would be refused goes on: with the name that a good credential gives, else without.
    /// A no of another route, under a reading of the path, is a no all the same.
    pub(super) fn authorize(&self, asked: Authorized<'_>) -> Decision {
        let Authorized { head, headers, route, seen, credential, standing, current } = asked;
        let clears_cookie = matches!(standing, Standing::StaleCookie);
        let mut instead = None;
        let known = match self.known(standing, head, route) {
            Ok(known) => known,
            Err(refused) if route.observe => {
                instead = Some(refused);
                None
            }
            Err(refused) => return refused,
        };
        let by_cookie = known.is_some() && matches!(credential, Credential::Cookies(_));
        let is_foreign = by_cookie && !self.is_of_this_site(head, headers, route);
        let refuse = |no: No<'_>, known: Option<&Known>| {
            no.decision(known.map(|known| Arc::clone(&known.identity)), clears_cookie)
        };
        // What another site has a browser send must not go on in the name of whoever uses it, observed or not.
        let named = if is_foreign && route.observe { None } else { known.as_ref() };
        let Ruling { no, waived } = self.ruling(head, route, named, Shown::of(credential));
        if let Some(no) = no {
            return refuse(no, named);
        }
        if is_foreign {
            let refused = refuse(No::CrossSite { route }, known.as_ref());
            if !route.observe {
                return refused;
            }
            instead = Some(refused);
        }
        let instead = instead.or_else(|| waived.map(|no| refuse(no, named)));
        let known = named.cloned();
        let drops_authorization = self.drops_authorization(headers, route, seen, known.is_some());
        let proof = known.as_ref().map(|known| &known.proof).filter(|proof| proof.is_sign_in);
        Decision::Permit(Permit {
            route: Arc::clone(route),
            head: Arc::clone(head),
            identity: known.as_ref().map(|known| Arc::clone(&known.identity)),
            signs_in: proof.and_then(|proof| proof.account.clone()),
            drops_authorization,
            clears_cookie,
            instead: instead.map(Box::new),
            lease: Lease::new(current, head, known, Shown::of(credential)),
        })
    }

    /// Who it is on `route`; an error is what is decided where that can't be said.
    fn known(&self, standing: Standing, head: &Head, route: &Arc<Route>) -> Result<Option<Known>, Decision> {
        match standing {
            // Someone whose key is for other routes comes to a public one without a name.
            Standing::Known(known) if !known.counts_on(route) && self.is_open_to(head, route) => Ok(None),
            // Nor does such a key give a name where the rule that it fails is only observed.
            Standing::Known(known) if !known.counts_on(route) && route.observe => {
                Err(No::KeyElsewhere { route, reading: None }.decision(Some(known.identity), false))
            }
            Standing::Known(known) => Ok(Some(known)),
            Standing::Nobody | Standing::StaleCookie => Ok(None),
            // On a public route a bad credential is removed and the request goes on without a name.
            Standing::Refused(_) | Standing::Throttled(_) | Standing::Unavailable if self.is_open_to(head, route) => {
                Ok(None)
            }
            Standing::Throttled(wait) => Err(Decision::Throttled(Arc::clone(route), wait)),
            Standing::Unavailable => Err(Decision::Unavailable(Arc::clone(route))),
            Standing::Refused(bad) => Err(refused_token(route, bad)),
        }
    }

    /// Whether the route lets this client in without a sign-in.
    fn is_open_to(&self, head: &Head, route: &Route) -> bool {
        route.allow.evaluate(&Facts { client: head.client.0, now: head.now, person: None }) == Verdict::Allow
    }

    /// What a credential is worth on `route`, whoever else takes it: the route may want another issuer.
    pub(super) fn on_route(&self, standing: Standing, route: &Route) -> Standing {
        match standing {
            Standing::Known(known) if !self.takes(&known, route) => {
                Standing::Refused(Bad::Invalid("the route does not take tokens of this issuer".into()))
            }
            standing => standing,
        }
    }

    /// Whether `route` takes the people of the issuer that `known` comes from.
    fn takes(&self, known: &Known, route: &Route) -> bool {
        match &known.proof.issuer {
            None => route.issuers.take(None),
            // One of a former configuration is none.
            Some(issuer) => self.issuers.place(issuer).is_some_and(|place| route.issuers.take(Some(place))),
        }
    }

    /// Whether the rules would let `known` go on with a request that they let pass before: what a lease asks.
    pub(super) fn still_permits(&self, head: &Head, known: Option<&Known>, shown: Shown) -> bool {
        let Some(route) = self.router.find(head.host.name(), &head.method, head.path.canonical()) else { return false };
        let is_taken = known.is_none_or(|known| self.takes(known, route));
        is_taken && shown.is_accepted_by(route) && self.ruling(head, route, known, shown).no.is_none()
    }

    /// The rules as written and under each reading that could differ; the first no decides, but for those of routes that
    /// are observed.
    fn ruling<'a>(&'a self, head: &Head, route: &'a Arc<Route>, known: Option<&Known>, shown: Shown) -> Ruling<'a> {
        let facts = |route: &Route| Facts {
            client: head.client.0,
            now: head.now,
            person: known
                .filter(|known| shown.is_accepted_by(route) && known.counts_on(route) && self.takes(known, route))
                .map(|known| known.identity.person()),
        };
        let refused = |route: &'a Arc<Route>, reading| match route.allow.evaluate(&facts(route)) {
            Verdict::Allow => None,
            _ if known.is_some_and(|known| !known.counts_on(route)) => Some(No::KeyElsewhere { route, reading }),
            verdict => Some(No::Rule { route, verdict, reading }),
        };
        let mut waived = None;
        match refused(route, None) {
            Some(no) if !route.observe => return Ruling { no: Some(no), waived },
            observed => waived = waived.or(observed),
        }
        if route.readings == Readings::AsWritten {
            return Ruling { no: None, waived };
        }
        for reading in Reading::ALL {
            if !self.router.needs(reading, &head.path) {
                continue;
            }
            let read = head.path.reading(reading);
            let Some(route) = self.router.find_read_as(reading, head.host.name(), &head.method, &read) else {
                return Ruling { no: Some(No::Unrouted(reading)), waived };
            };
            match refused(route, Some(reading)) {
                Some(no) if !route.observe => return Ruling { no: Some(no), waived },
                observed => waived = waived.or(observed),
            }
        }
        Ruling { no: None, waived }
    }

    /// Unsafe methods and WebSockets on a cookie must come from this site (section 3 of the contract).
    fn is_of_this_site(&self, head: &Head, headers: &HeaderMap, route: &Route) -> bool {
        let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_safe && !is_websocket(headers) {
            return true;
        }
        csrf::may_send(headers, Origins { own: &head.origin(), public: &self.public_origin, listed: &route.origins })
    }

    /// What is ours never reaches an application, good or bad, accepted or not; `forward_token` lets a good Bearer through.
    fn drops_authorization(&self, headers: &HeaderMap, route: &Route, seen: Authorization<'_>, is_known: bool) -> bool {
        let value = headers.get(http::header::AUTHORIZATION);
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
                value.is_some_and(|value| smuggles_api_key(value) || hides(value, is_ours))
            }
        }
    }
}

impl Known {
    /// Whether what they showed counts on `route`: an API key may be limited to others.
    fn counts_on(&self, route: &Route) -> bool {
        self.proof.api_key.as_ref().is_none_or(|key| key.counts_on(&route.name))
    }
}

/// Which kind of credential was shown: a route that does not accept it sees nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Bearer,
    Basic,
    ApiKey,
    Cookie,
}

impl Shown {
    const fn of(credential: &Credential<'_>) -> Self {
        match credential {
            Credential::None => Self::Nothing,
            Credential::Bearer(_) => Self::Bearer,
            Credential::Basic(_) => Self::Basic,
            Credential::ApiKey(_) | Credential::TwoApiKeys => Self::ApiKey,
            Credential::Cookies(_) => Self::Cookie,
        }
    }

    const fn is_accepted_by(self, route: &Route) -> bool {
        match self {
            Self::Nothing => true,
            Self::Bearer => route.accept.bearer,
            Self::Basic => route.accept.basic,
            Self::ApiKey => route.accept.api_key,
            Self::Cookie => route.accept.cookie,
        }
    }
}

/// What the rules say.
struct Ruling<'a> {
    /// The first no that counts.
    no: Option<No<'a>>,
    /// The first no of a route that is only observed.
    waived: Option<No<'a>>,
}

enum No<'a> {
    Rule { route: &'a Arc<Route>, verdict: Verdict, reading: Option<Reading> },
    KeyElsewhere { route: &'a Arc<Route>, reading: Option<Reading> },
    CrossSite { route: &'a Arc<Route> },
    Unrouted(Reading),
}

impl No<'_> {
    /// What is decided of a request by `identity` that it stands against.
    fn decision(self, identity: Option<Arc<Identity>>, clears_cookie: bool) -> Decision {
        let (route, why) = match self {
            Self::Unrouted(reading) => return Decision::NotFound { reading: Some(reading) },
            Self::Rule { route, verdict: Verdict::SignIn { by_password }, .. } => {
                let (route, want, identity) = (Arc::clone(route), Want::Credential, None);
                return Decision::Challenge(Challenge { route, want, by_password, clears_cookie, identity });
            }
            Self::Rule { route, verdict: Verdict::StepUp | Verdict::Allow, .. } => {
                let (route, want, by_password) = (Arc::clone(route), Want::StepUp, true);
                return Decision::Challenge(Challenge { route, want, by_password, clears_cookie, identity });
            }
            Self::Rule { route, verdict: Verdict::Deny(refused), reading } => (route, Why::Rule(refused, reading)),
            Self::KeyElsewhere { route, reading } => (route, Why::KeyElsewhere(reading)),
            Self::CrossSite { route } => (route, Why::CrossSite),
        };
        Decision::Deny(Denial { route: Arc::clone(route), why, identity, clears_cookie })
    }
}

/// Whether the request opens a WebSocket (RFC 6455 section 4.1), or could be taken for one that does.
fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(http::header::UPGRADE).iter().any(|value| {
        value
            .as_bytes()
            .split(|&byte| byte == b',')
            .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    })
}

fn refused_token(route: &Arc<Route>, bad: Bad) -> Decision {
    let route = Arc::clone(route);
    Decision::Challenge(Challenge {
        route,
        want: Want::Token(bad),
        by_password: true,
        clears_cookie: false,
        identity: None,
    })
}
