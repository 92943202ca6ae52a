//! How a policy judges: each rule by itself, and the best of their verdicts.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Facts, Policy, Refused, Rule, Verdict};
use crate::clock::Timestamp;

impl Policy {
    /// Judges `facts`. One rule that lets the request pass is enough; else a sign-in that would do is asked for.
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        match self {
            Self::Anyone => Verdict::Allow,
            Self::SignedIn if facts.person.is_some() => Verdict::Allow,
            Self::SignedIn => Verdict::SignIn { by_password: true },
            Self::Nobody => Verdict::Deny(Refused::Nobody),
            Self::AnyOf(rules) => rules
                .iter()
                .map(|rule| rule.evaluate(facts))
                .reduce(Verdict::or)
                .unwrap_or(Verdict::Deny(Refused::Nobody)),
        }
    }

    /// Whether it lets everyone in, from everywhere.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::SignedIn | Self::Nobody => false,
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.anyone && rule.from.is_none()),
        }
    }

    /// Whether it lets someone in who is not signed in, be it from some networks only.
    pub fn may_be_anonymous(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::SignedIn | Self::Nobody => false,
            Self::AnyOf(rules) => rules.iter().any(|rule| rule.anyone),
        }
    }
}

impl Verdict {
    /// The better of two.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Allow, _) | (_, Self::Allow) => Self::Allow,
            (Self::StepUp, _) | (_, Self::StepUp) => Self::StepUp,
            (Self::SignIn { by_password: one }, Self::SignIn { by_password: two }) => {
                Self::SignIn { by_password: one || two }
            }
            (Self::SignIn { by_password }, Self::Deny(_)) | (Self::Deny(_), Self::SignIn { by_password }) => {
                Self::SignIn { by_password }
            }
            (Self::Deny(first), Self::Deny(_)) => Self::Deny(first),
        }
    }
}

impl Rule {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        if self.fails(Refused::Network, facts) {
            return Verdict::Deny(Refused::Network);
        }
        if self.anyone {
            return Verdict::Allow;
        }
        if facts.person.is_none() {
            return Verdict::SignIn { by_password: self.takes_a_password() };
        }
        // What no new sign-in of the same person changes.
        let fixed = [Refused::User, Refused::Group, Refused::Scope, Refused::Claim];
        if let Some(refused) = fixed.into_iter().find(|&key| self.fails(key, facts)) {
            return Verdict::Deny(refused);
        }
        match [Refused::Method, Refused::Age].into_iter().find(|&key| self.fails(key, facts)) {
            None => Verdict::Allow,
            Some(_) if self.takes_a_password() => Verdict::StepUp,
            Some(refused) => Verdict::Deny(refused),
        }
    }

    /// Whether a password on the sign-in page could satisfy the rule: local accounts have neither claims nor scopes.
    fn takes_a_password(&self) -> bool {
        let by_password =
            self.methods_of_sign_in.as_ref().is_none_or(|methods| methods.iter().any(|m| m == "password"));
        by_password && self.claims.is_none() && self.scopes.is_none()
    }

    fn fails(&self, key: Refused, facts: &Facts<'_>) -> bool {
        self.holds(key, facts) == Some(false)
    }

    /// Whether the one condition that `key` names holds. `None`: it is not written, or nobody is there to ask it of.
    pub(super) fn holds(&self, key: Refused, facts: &Facts<'_>) -> Option<bool> {
        if key == Refused::Network {
            // Whoever has no address is in no network, not even in that of all.
            let is_in = |network: &ipnet::IpNet| network.contains(&facts.client) && !facts.client.is_unspecified();
            return self.from.as_ref().map(|from| from.iter().any(is_in));
        }
        let person = facts.person.as_ref()?;
        Some(match key {
            Refused::Nobody | Refused::Network => return None,
            Refused::User => self.users.as_ref()?.iter().any(|user| user == person.user),
            Refused::Group => self.groups.as_ref()?.iter().any(|group| person.groups.contains(group)),
            Refused::Scope => self.scopes.as_ref()?.iter().all(|scope| person.scopes.contains(scope)),
            Refused::Claim => self.claims.as_ref()?.iter().all(|(path, values)| {
                claim(person.claims, path).is_some_and(|claim| values.iter().any(|value| claim_is(claim, value)))
            }),
            Refused::Method => self.methods_of_sign_in.as_ref()?.iter().any(|method| person.methods.contains(method)),
            Refused::Age => {
                let within = self.signed_in_within?;
                // A sign-in in the future would stay fresh until then.
                let fresh = |at: Timestamp| at <= facts.now + AHEAD && facts.now.since(at) <= within;
                person.signed_in_at.is_some_and(fresh)
            }
        })
    }
}

/// The claim at a dotted path; a key that has dots itself wins over a path into objects.
pub fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let inner = claims.get(&path[..dot])?.as_object()?;
        claim(inner, &path[dot + 1..])
    })
}

/// A list matches if one of its members does.
fn claim_is(claim: &Value, value: &Value) -> bool {
    claim == value || claim.as_array().is_some_and(|members| members.contains(value))
}

/// How far another machine's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Person;
    use super::*;

    struct Someone {
        groups: Vec<String>,
        scopes: Vec<String>,
        claims: Map<String, Value>,
        methods: Vec<String>,
        at: Option<u64>,
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    fn bob() -> Someone {
        let Value::Object(claims) = json!({
            "tenant": "a", "level": 3, "on": true, "roles": ["x", "y"],
            "realm": {"roles": ["dev"], "deep": {"er": 1}}, "realm.roles": ["literal"], "https://x.y/z": {"k.l": "m"},
        }) else {
            unreachable!()
        };
        Someone {
            groups: list(&["staff", "dev"]),
            scopes: list(&["read", "write"]),
            claims,
            methods: list(&["password"]),
            at: Some(9_000),
        }
    }

    fn judge(policy: &Policy, who: Option<&Someone>, from: &str) -> Verdict {
        let person = who.map(|who| Person {
            user: "bob",
            groups: &who.groups,
            scopes: &who.scopes,
            claims: &who.claims,
            methods: &who.methods,
            signed_in_at: who.at.map(Timestamp::from_secs),
        });
        policy.evaluate(&Facts { client: from.parse().unwrap(), now: Timestamp::from_secs(10_000), person })
    }

    fn users(names: &[&str]) -> Rule {
        Rule { users: Some(list(names)), ..Rule::default() }
    }

    fn groups(names: &[&str]) -> Rule {
        Rule { groups: Some(list(names)), ..Rule::default() }
    }

    fn scopes(names: &[&str]) -> Rule {
        Rule { scopes: Some(list(names)), ..Rule::default() }
    }

    fn from(networks: &[&str]) -> Rule {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        Rule { from: Some(networks), ..Rule::default() }
    }

    fn one(rule: Rule) -> Policy {
        Policy::AnyOf(vec![rule])
    }

    fn claims(path: &str, values: Value) -> Rule {
        let Value::Array(values) = values else { unreachable!() };
        Rule { claims: Some(vec![(path.to_owned(), values)]), ..Rule::default() }
    }

    const SIGN_IN: Verdict = Verdict::SignIn { by_password: true };
    const NO_PASSWORD: Verdict = Verdict::SignIn { by_password: false };

    #[test]
    fn judges_the_plain_words() {
        let bob = bob();
        for (policy, nobody, someone) in [
            (Policy::Anyone, Verdict::Allow, Verdict::Allow),
            (Policy::SignedIn, SIGN_IN, Verdict::Allow),
            (Policy::Nobody, Verdict::Deny(Refused::Nobody), Verdict::Deny(Refused::Nobody)),
            (Policy::AnyOf(vec![]), Verdict::Deny(Refused::Nobody), Verdict::Deny(Refused::Nobody)),
            (one(Rule::default()), SIGN_IN, Verdict::Allow),
        ] {
            assert_eq!(judge(&policy, None, "10.0.0.1"), nobody, "{policy:?}");
            assert_eq!(judge(&policy, Some(&bob), "10.0.0.1"), someone, "{policy:?}");
        }
    }

    #[test]
    fn every_key_of_a_rule_must_hold() {
        use Refused::{Group, Network, Scope, User};
        use Verdict::{Allow, Deny};
        let bob = bob();
        let cases = [
            (users(&["al", "bob"]), SIGN_IN, Allow),
            (users(&["al", "Bob", "bobby"]), SIGN_IN, Deny(User)),
            (users(&[]), SIGN_IN, Deny(User)),
            (groups(&["admin", "dev"]), SIGN_IN, Allow),
            (groups(&["admin", "Dev", "de"]), SIGN_IN, Deny(Group)),
            (scopes(&["read", "write"]), NO_PASSWORD, Allow),
            (scopes(&["read", "admin"]), NO_PASSWORD, Deny(Scope)),
            (from(&["10.0.0.0/8"]), SIGN_IN, Allow),
            (from(&["192.0.2.0/24", "2001:db8::/32"]), Deny(Network), Deny(Network)),
            (Rule { users: users(&["al"]).users, ..groups(&["dev"]) }, SIGN_IN, Deny(User)),
        ];
        for (rule, nobody, someone) in cases {
            let policy = one(rule);
            assert_eq!(judge(&policy, None, "10.1.2.3"), nobody, "{policy:?}");
            assert_eq!(judge(&policy, Some(&bob), "10.1.2.3"), someone, "{policy:?}");
        }
    }

    #[test]
    fn claims_are_found_by_path_and_compared_as_json() {
        let bob = bob();
        for (path, values, holds) in [
            ("tenant", json!(["b", "a"]), true),
            ("tenant", json!(["A"]), false),
            ("level", json!([3]), true),
            ("level", json!(["3"]), false),
            ("on", json!([true]), true),
            ("on", json!(["true", 1]), false),
            ("roles", json!(["y"]), true),
            ("roles", json!(["z"]), false),
            ("realm.deep.er", json!([1]), true),
            ("realm.roles", json!(["literal"]), true),
            ("realm.roles", json!(["dev"]), false),
            ("https://x.y/z.k.l", json!(["m"]), true),
            ("tenant.x", json!(["a"]), false),
            ("missing", json!([null]), false),
        ] {
            let policy = one(claims(path, values));
            let expected = if holds { Verdict::Allow } else { Verdict::Deny(Refused::Claim) };
            assert_eq!(judge(&policy, Some(&bob), "10.1.2.3"), expected, "{policy:?}");
            assert_eq!(judge(&policy, None, "10.1.2.3"), NO_PASSWORD, "{policy:?}");
        }
    }

    #[test]
    fn a_network_may_be_let_in_without_sign_in() {
        let policy = one(Rule { anyone: true, ..from(&["10.0.0.0/8"]) });
        assert_eq!(judge(&policy, None, "10.0.0.1"), Verdict::Allow);
        assert_eq!(judge(&policy, None, "192.0.2.1"), Verdict::Deny(Refused::Network));
        assert_eq!(judge(&policy, Some(&bob()), "192.0.2.1"), Verdict::Deny(Refused::Network));
        assert!(!policy.is_public() && policy.may_be_anonymous());
        assert!(Policy::Anyone.is_public() && !Policy::SignedIn.may_be_anonymous());
    }

    #[test]
    fn asks_for_a_new_sign_in_where_only_that_falls_short() {
        let hour = |rule: Rule| one(Rule { signed_in_within: Some(Duration::from_secs(1000)), ..rule });
        let mut bob = bob();
        for (at, verdict) in [
            (Some(9_000), Verdict::Allow),
            (Some(8_999), Verdict::StepUp),
            (Some(10_030), Verdict::Allow),
            (Some(10_031), Verdict::StepUp),
            (None, Verdict::StepUp),
        ] {
            bob.at = at;
            assert_eq!(judge(&hour(Rule::default()), Some(&bob), "10.0.0.1"), verdict, "{at:?}");
        }
        bob.at = None;
        let admin = groups(&["admin"]);
        assert_eq!(judge(&hour(admin), Some(&bob), "10.0.0.1"), Verdict::Deny(Refused::Group));
        let tenant = hour(claims("tenant", json!(["a"])));
        assert_eq!(judge(&tenant, Some(&bob), "10.0.0.1"), Verdict::Deny(Refused::Age));

        let by = |methods: &[&str]| one(Rule { methods_of_sign_in: Some(list(methods)), ..Rule::default() });
        assert_eq!(judge(&by(&["oidc", "password"]), Some(&bob), "10.0.0.1"), Verdict::Allow);
        assert_eq!(judge(&by(&["oidc"]), Some(&bob), "10.0.0.1"), Verdict::Deny(Refused::Method));
        assert_eq!(judge(&by(&["oidc"]), None, "10.0.0.1"), NO_PASSWORD);
        bob.methods = list(&["basic"]);
        assert_eq!(judge(&by(&["password"]), Some(&bob), "10.0.0.1"), Verdict::StepUp);
    }

    #[test]
    fn one_rule_of_several_is_enough() {
        let bob = bob();
        let far = from(&["192.0.2.0/24"]);
        let admin = groups(&["admin"]);
        let dev = groups(&["dev"]);
        let scoped = scopes(&["read"]);
        let both = Policy::AnyOf(vec![far.clone(), dev]);
        assert_eq!(judge(&both, Some(&bob), "10.0.0.1"), Verdict::Allow);
        assert_eq!(judge(&both, None, "10.0.0.1"), SIGN_IN);
        let neither = Policy::AnyOf(vec![far, admin.clone()]);
        assert_eq!(judge(&neither, Some(&bob), "10.0.0.1"), Verdict::Deny(Refused::Network));
        assert_eq!(judge(&Policy::AnyOf(vec![scoped, admin]), None, "10.0.0.1"), SIGN_IN);
    }
}
