//! A request that a gateway has judged, as it goes over the control socket; and how it would fare under other rules.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::examine::{allowed, decided};
use super::question::{Question, judge, words};
use crate::access::{Asker, Reason, Rules, Shown, Source};
use crate::clock::Timestamp;
use crate::config::{Accounts, Config};
use crate::identity::{Identity, Profile};
use crate::message::line::Target;
use crate::observe::Kept;
use crate::policy::Outcome;
use crate::token::foreign;

/// A request that was judged: what is needed to judge it again. No secret, no query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of a record")]
pub struct Past {
    pub request_id: String,
    /// Milliseconds since the epoch.
    pub time: u64,
    pub method: String,
    pub host: String,
    pub path: String,
    pub client: IpAddr,
    pub status: u16,
    pub outcome: String,
    pub code: String,
    pub reason: String,
    pub route: Option<String>,
    pub upstream: Option<String>,
    /// What was shown, as `accept` calls it.
    pub shown: String,
    /// The name of the issuer, where it was another one than this gateway.
    pub issuer: Option<String>,
    pub key_routes: Option<Vec<String>>,
    /// The code of why what was shown is not good.
    pub unproven: Option<String>,
    pub person: Option<PastPerson>,
}

/// Who asked, as they were then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of an identity")]
pub struct PastPerson {
    pub user: String,
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    pub claims: Map<String, Value>,
    pub methods: Vec<String>,
    pub signed_in_at: Option<u64>,
}

/// How requests of late would fare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// How many were judged again.
    pub judged: usize,
    /// How many were not, as no rule decided about them.
    pub skipped: usize,
    /// How many were not, as this file names whoever asked otherwise, and only a gateway knows what account that is.
    pub unsure: usize,
    /// How many of those judged showed something that was refused then, and is taken to be refused again.
    pub still_refused: usize,
    /// How many would come out differently.
    pub differ: usize,
    /// Some of them, the latest first.
    pub examples: Vec<Difference>,
}

impl Differences {
    /// How many, in a line; nothing where none was judged.
    pub fn words(&self) -> String {
        let Self { judged, differ, .. } = self;
        let requests = if *judged == 1 { "request" } else { "requests" };
        match (judged, differ) {
            (0, _) => String::new(),
            (_, 0) => format!("none of the last {judged} {requests} would come out differently\n"),
            _ => format!("{differ} of the last {judged} {requests} would come out differently\n"),
        }
    }
}

/// A request that would come out differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its id.
    pub request_id: String,
    /// When it was.
    pub time: String,
    /// Who asked.
    pub who: String,
    /// Method, host and path.
    pub what: String,
    /// What came of it.
    pub before: String,
    /// What would come of it.
    pub after: String,
}

impl Past {
    /// What `kept` says.
    pub fn of(kept: Kept) -> Self {
        let (outcome, asker) = (decided(&kept).word().to_owned(), &kept.asker);
        let person = asker.identity.as_ref().map(|identity| PastPerson {
            user: identity.profile.user.clone(),
            groups: identity.profile.groups.clone(),
            scopes: identity.scopes.clone(),
            claims: Map::clone(&identity.claims),
            methods: identity.methods.clone(),
            signed_in_at: identity.signed_in_at.map(Timestamp::as_millis),
        });
        Self {
            request_id: kept.request_id.to_string(),
            time: kept.time.as_millis(),
            method: kept.method.to_string(),
            host: kept.host,
            path: kept.path,
            client: kept.client,
            status: kept.status.as_u16(),
            outcome,
            code: kept.code.to_owned(),
            reason: kept.reason,
            route: kept.route,
            upstream: kept.upstream,
            shown: asker.shown.word().to_owned(),
            issuer: asker.issuer.as_ref().map(ToString::to_string),
            key_routes: asker.key_routes.as_ref().map(|routes| routes.to_vec()),
            unproven: asker.unproven.map(|reason| reason.code().to_owned()),
            person,
        }
    }

    /// What came of it by the rules; `None`: they were not what decided.
    fn before(&self) -> Option<Outcome> {
        let outcome = Outcome::parse(&self.outcome)?;
        let by_rules = matches!(outcome, Outcome::Allow | Outcome::Deny | Outcome::SignIn | Outcome::NotFound)
            && ![Reason::CrossSite, Reason::Preflight, Reason::ForeignOrigin].iter().any(|by| self.code == by.code())
            && self.unproven.as_deref() != Some(Reason::StoreDown.code());
        by_rules.then_some(outcome)
    }

    fn question(&self) -> Option<Question> {
        let target = Target { https: None, authority: Some(self.host.clone()), path: self.path.clone(), query: None };
        let method = Method::from_bytes(self.method.as_bytes()).ok()?;
        Some(Question { method, target, client: self.client, now: Timestamp::from_millis(self.time) })
    }

    /// Who asked, as `config` knows them.
    fn asker(&self, config: &Config) -> Result<Asker, NotJudged> {
        let mut unproven = match self.unproven.as_deref() {
            None => None,
            Some(code) => Some(*UNPROVEN.iter().find(|reason| reason.code() == code).ok_or(NotJudged::Skipped)?),
        };
        let source = Source::named(self.issuer.as_deref(), config);
        let identity = match &self.person {
            None => None,
            Some(person) => match self.profile(person, source, config)? {
                // A token that does not hold on the new terms.
                None => {
                    unproven = unproven.or(Some(Reason::BadCredential));
                    None
                }
                Some(profile) => Some(Arc::new(Identity {
                    profile: Arc::new(profile),
                    scopes: person.scopes.clone(),
                    claims: Arc::new(person.claims.clone()),
                    methods: person.methods.clone(),
                    signed_in_at: person.signed_in_at.map(Timestamp::from_millis),
                    session: None,
                })),
            },
        };
        let key_routes = self.key_routes.as_deref().map(Into::into);
        let issuer = self.issuer.as_deref().map(Into::into);
        let shown = Shown::parse(&self.shown).ok_or(NotJudged::Skipped)?;
        Ok(Asker { identity, shown, source, issuer, key_routes, unproven })
    }

    /// Who `person` is by `config`: of another issuer's people its terms say so, from the token's claims. `Ok(None)`: nobody.
    fn profile(&self, person: &PastPerson, source: Source, config: &Config) -> Result<Option<Profile>, NotJudged> {
        let as_then = || Profile::new(&person.user, &person.groups, None, None).ok_or(NotJudged::Skipped);
        let Source::Issuer(place) = source else { return as_then().map(Some) };
        let Some(issuer) = config.issuers.get(place) else { return as_then().map(Some) };
        let named = foreign::person_of(issuer, &person.claims);
        match (issuer.accounts, named) {
            (_, None) => Ok(None),
            (Accounts::Separate, named) => Ok(named),
            // Their groups may be those of a local account.
            (Accounts::Shared, Some(named)) if named.user == person.user => as_then().map(Some),
            (Accounts::Shared, Some(_)) => Err(NotJudged::Unsure),
        }
    }
}

/// Why a request can't be judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotJudged {
    /// No rule decided about it, or it is not understood.
    Skipped,
    /// Whoever asked is named otherwise, and may have an account.
    Unsure,
}

/// How many of `pasts` would come out differently under `config`: with groups and everything else as they were then.
/// Pure. What comes from the latest is shown first.
pub fn differing(pasts: impl DoubleEndedIterator<Item = Past>, config: &Config, rules: &Rules) -> Differences {
    let mut all = Differences::default();
    for past in pasts.rev() {
        match difference(&past, config, rules) {
            Err(NotJudged::Skipped) => all.skipped += 1,
            Err(NotJudged::Unsure) => all.unsure += 1,
            Ok(difference) => {
                all.judged += 1;
                all.still_refused += usize::from(past.person.is_none() && past.unproven.is_some());
                if let Some(difference) = difference {
                    all.differ += 1;
                    if all.examples.len() < MOST_EXAMPLES {
                        all.examples.push(difference);
                    }
                }
            }
        }
    }
    all
}

/// `Ok(None)`: it would come out the same.
fn difference(past: &Past, config: &Config, rules: &Rules) -> Result<Option<Difference>, NotJudged> {
    let before = past.before().ok_or(NotJudged::Skipped)?;
    let head = past.question().and_then(|question| question.head(config).ok()).ok_or(NotJudged::Skipped)?;
    let asker = past.asker(config)?;
    let after = judge(config, rules, &head, &asker.asking());
    let upstream = |index: usize| config.upstreams.get(index).map(|upstream| upstream.name.as_str());
    let goes_on = after.route.filter(|_| after.outcome == Outcome::Allow).and_then(|route| route.to.upstream());
    let goes_to = goes_on.and_then(upstream);
    let moves = before == Outcome::Allow && after.outcome == before && past.upstream.as_deref() != goes_to;
    if after.outcome == before && !moves {
        return Ok(None);
    }
    let to = |upstream: Option<&str>| upstream.map(|name| format!(", to upstream `{name}`")).unwrap_or_default();
    let moved = |upstream| if moves { to(upstream) } else { String::new() };
    // What was allowed may have failed later, which is not why.
    let reason = match before {
        Outcome::Allow => allowed(past.person.is_some()).to_string(),
        _ => past.reason.clone(),
    };
    Ok(Some(Difference {
        request_id: past.request_id.clone(),
        time: Timestamp::from_millis(past.time).rfc3339(),
        who: match &past.person {
            Some(person) if person.groups.is_empty() => person.user.clone(),
            Some(person) => format!("{} ({})", person.user, person.groups.join(", ")),
            None => "nobody who is signed in".to_owned(),
        },
        what: format!("{} {}{}", past.method, past.host, past.path),
        before: words(before, past.route.as_deref(), &reason) + &moved(past.upstream.as_deref()),
        after: after.words() + &moved(goes_to),
    }))
}

/// Why a credential does not count.
const UNPROVEN: [Reason; 5] =
    [Reason::IssuerElsewhere, Reason::TokenExpired, Reason::BadCredential, Reason::TooManyAttempts, Reason::StoreDown];

/// More examples than these are counted only.
const MOST_EXAMPLES: usize = 20;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::load_text;

    fn config(admin: &str, rest: &str) -> Config {
        let text = format!(
            "[upstreams]\napp = \"http://a\"\nother = \"http://b\"\n\
             [[routes]]\nname = \"admin\"\npath = \"/admin/**\"\nupstream = \"app\"\nallow = {admin}\n\
             [[routes]]\nname = \"rest\"\npath = \"/**\"\n{rest}\n"
        );
        let loaded = load_text(Path::new("gateway.toml"), text, &|_| None);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)))
    }

    fn past(path: &str, outcome: &str, code: &str, groups: Option<&[&str]>) -> Past {
        let person = groups.map(|groups| {
            json!({
                "user": "bob", "groups": groups, "scopes": [], "claims": {}, "methods": ["password"],
                "signed_in_at": 1_000_000,
            })
        });
        let unproven = (code == "bad-credential").then_some(code);
        let past = json!({
            "request_id": path, "time": 1_600_000, "method": "GET", "host": "h", "path": path, "client": "10.0.0.1",
            "status": 0, "outcome": outcome, "code": code, "reason": code, "route": null,
            "upstream": (outcome == "allow").then_some("app"), "shown": if person.is_some() { "cookie" } else { "none" },
            "issuer": null, "key_routes": null, "unproven": unproven, "person": person,
        });
        serde_json::from_value(past).unwrap()
    }

    /// All that can be remembered; as the first of the rules below would have it.
    fn pasts() -> Vec<Past> {
        vec![
            past("/admin/a", "allow", "signed-in", Some(&["admin"])),
            past("/admin/b", "deny", "group", Some(&["staff"])),
            past("//ADMIN/c", "deny", "group", Some(&["staff"])),
            past("/d", "allow", "signed-in", Some(&["staff"])),
            past("/e", "sign-in", "not-authenticated", None),
            past("/f", "sign-in", "bad-credential", None),
            past("/g", "allow", "connect", Some(&["staff"])),
            past("/h", "deny", "cross-site", Some(&["staff"])),
            past("/login", "own", "own", None),
            past("/..;/i", "bad-request", "path", None),
            past("/j", "error", "store-down", None),
        ]
    }

    #[test]
    fn only_what_would_come_out_differently_counts() {
        let (admins, signed_in) = ("{ groups = [\"admin\"] }", "allow = \"signed-in\"\nupstream = \"app\"");
        for (admin, rest, expected) in [
            (admins, signed_in, &[][..]),
            ("{ groups = [\"staff\"] }", signed_in, &["//ADMIN/c", "/admin/b", "/admin/a"]),
            (admins, "allow = \"anyone\"\nupstream = \"app\"", &["/f", "/e"]),
            (admins, "allow = \"signed-in\"\nupstream = \"other\"", &["/g", "/d"]),
            // Ten minutes had passed since the sign-in, and no time since then counts.
            (admins, "allow = { signed_in_within = \"10m\" }\nupstream = \"app\"", &[]),
            (admins, "allow = { signed_in_within = \"9m\" }\nupstream = \"app\"", &["/g", "/d", "//ADMIN/c"]),
            (
                admins,
                "allow = \"signed-in\"\nupstream = \"app\"\nhosts = [\"else\"]",
                &["/g", "/f", "/e", "/d", "//ADMIN/c"],
            ),
        ] {
            let config = config(admin, rest);
            let found = differing(pasts().into_iter(), &config, &Rules::new(&config.routes));
            let paths: Vec<_> = found.examples.iter().map(|example| example.request_id.as_str()).collect();
            assert_eq!(paths, expected, "{admin} {rest}: {found:#?}");
            assert_eq!((found.judged, found.skipped, found.differ), (7, 4, expected.len()), "{rest}");
        }
    }

    #[test]
    fn more_than_a_screenful_is_counted_only() {
        let config = config("\"nobody\"", "allow = \"nobody\"\nupstream = \"app\"");
        let many = (0..50).map(|at| past(&format!("/{at}"), "allow", "signed-in", Some(&["x"])));
        let found = differing(many, &config, &Rules::new(&config.routes));
        assert_eq!((found.differ, found.examples.len(), &*found.examples[0].request_id), (50, MOST_EXAMPLES, "/49"));
        assert_eq!(found.examples[0].before, "allowed: signed in");
        assert_eq!(found.examples[0].after, "denied by route `rest`: the route lets nobody in");
    }

    #[test]
    fn a_past_that_nobody_can_be_judged_by_is_skipped() {
        let config = config("\"nobody\"", "allow = \"nobody\"\nupstream = \"app\"");
        let good = past("/x", "allow", "signed-in", Some(&["x"]));
        let strange = [
            Past { shown: "smoke-signal".to_owned(), ..good.clone() },
            Past { host: "not a host".to_owned(), ..good.clone() },
            Past { unproven: Some("tired".to_owned()), ..good.clone() },
            Past { outcome: "perhaps".to_owned(), ..good },
        ];
        let found = differing(strange.into_iter(), &config, &Rules::new(&config.routes));
        assert_eq!((found.judged, found.skipped), (0, 4));
    }

    const OF_CORP: &str = "[[issuers]]\nname = \"corp\"\nissuer = \"https://corp.example\"\naudience = [\"apps\"]\n\
                           secret = \"a secret of at least thirty-two bytes\"\nalgorithms = [\"HS256\"]\nuser_prefix = \"corp:\"\n";

    fn with_issuer(more: &str) -> Config {
        let text = format!(
            "[upstreams]\napp = \"http://a\"\n[[routes]]\nname = \"rest\"\npath = \"/**\"\nupstream = \"app\"\n\
             allow = {{ groups = [\"staff\"] }}\n{OF_CORP}{more}"
        );
        let loaded = load_text(Path::new("gateway.toml"), text, &|_| None);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false)))
    }

    fn of_corp() -> Past {
        let mut past = past("/x", "allow", "signed-in", Some(&["staff"]));
        let claims = json!({
            "iss": "https://corp.example", "aud": "apps", "sub": "bob", "exp": 2_000, "iat": 1_000,
            "groups": ["staff"], "roles": ["guest"],
        });
        let person = past.person.as_mut().unwrap();
        person.user = "corp:bob".to_owned();
        person.claims = serde_json::from_value(claims).unwrap();
        past.shown = "bearer".to_owned();
        past.issuer = Some("corp".to_owned());
        past
    }

    #[test]
    fn other_terms_of_an_issuer_name_its_people_anew() {
        let judged = |more: &str| {
            let config = with_issuer(more);
            differing([of_corp()].into_iter(), &config, &Rules::new(&config.routes))
        };
        assert_eq!((judged("").judged, judged("").differ), (1, 0), "on the same terms");
        let prefixed = judged("group_prefix = \"corp:\"\n");
        assert_eq!(
            (prefixed.differ, prefixed.examples[0].after.as_str()),
            (1, "denied by route `rest`: the user is in none of `groups`")
        );
        assert_eq!(judged("groups = \"roles\"\n").differ, 1, "another claim");
        let elsewhere = judged("max_lifetime = \"1s\"\n");
        assert_eq!((elsewhere.judged, elsewhere.differ), (1, 1), "{elsewhere:#?}");
    }

    #[test]
    fn whom_only_an_account_can_tell_is_not_judged_and_what_was_refused_is_counted() {
        let config = with_issuer("accounts = \"shared\"\n");
        let rules = Rules::new(&config.routes);
        let mut renamed = of_corp();
        renamed.person.as_mut().unwrap().user = "bob".to_owned();
        let mut refused = past("/x", "sign-in", "bad-credential", None);
        refused.shown = "bearer".to_owned();
        let found = differing([renamed, of_corp(), refused].into_iter(), &config, &rules);
        assert_eq!((found.judged, found.unsure, found.still_refused, found.differ), (2, 1, 1, 0), "{found:#?}");
    }
}
