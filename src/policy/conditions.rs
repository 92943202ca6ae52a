//! A policy taken apart, for people: each condition of each of its tables, and whether it holds.
//!
//! Every condition is asked by the same [`Rule::holds`] that a verdict is made of.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::{Facts, Person, Policy, Refused, Rule, Verdict, claim};

/// One table of `allow`, or its one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// What it says by itself; that of the policy is the best of all.
    pub verdict: Verdict,
    /// All that must hold.
    pub conditions: Vec<Condition>,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key of `allow`, or `allow` itself for a word; `signed in` for what a table asks of everyone.
    pub key: &'static str,
    /// What is wanted, as it is written.
    pub wanted: String,
    /// What there is; empty where nobody is there to have it.
    pub found: String,
    /// Whether it holds; `None`: nobody is there to ask it of.
    pub holds: Option<bool>,
}

impl Policy {
    /// Every condition of every table, each with its verdict.
    pub fn alternatives(&self, facts: &Facts<'_>) -> Vec<Alternative> {
        let word = |wanted: &str, holds| {
            let condition =
                Condition { key: "allow", wanted: wanted.to_owned(), found: who(facts), holds: Some(holds) };
            vec![Alternative { verdict: self.evaluate(facts), conditions: vec![condition] }]
        };
        match self {
            Self::Anyone => word("anyone", true),
            Self::SignedIn => word("signed-in", facts.person.is_some()),
            Self::Nobody => word("nobody", false),
            Self::AnyOf(rules) => rules.iter().map(|rule| rule.alternative(facts)).collect(),
        }
    }
}

impl Rule {
    fn alternative(&self, facts: &Facts<'_>) -> Alternative {
        let mut conditions = Vec::new();
        if self.anyone {
            conditions.push(Condition {
                key: "anyone",
                wanted: "true".to_owned(),
                found: who(facts),
                holds: Some(true),
            });
        } else {
            let holds = Some(facts.person.is_some());
            conditions.push(Condition { key: SIGNED_IN, wanted: String::new(), found: who(facts), holds });
        }
        for key in KEYS {
            if let Some(wanted) = self.wanted(key) {
                let found = if key == Refused::Network {
                    facts.client.to_string()
                } else {
                    facts.person.as_ref().map(|person| self.found(key, person, facts)).unwrap_or_default()
                };
                conditions.push(Condition { key: key.key(), wanted, found, holds: self.holds(key, facts) });
            }
        }
        Alternative { verdict: self.evaluate(facts), conditions }
    }

    /// What the key `key` names, as text; `None`: it is not written.
    fn wanted(&self, key: Refused) -> Option<String> {
        Some(match key {
            Refused::Nobody => return None,
            Refused::Network => self.from.as_ref()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Refused::User => self.users.as_ref()?.join(", "),
            Refused::Group => self.groups.as_ref()?.join(", "),
            Refused::Scope => self.scopes.as_ref()?.join(" and "),
            Refused::Claim => {
                let claims = self.claims.as_ref()?.iter();
                let values = |values: &[Value]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                claims.map(|(path, wanted)| format!("{path} = {}", values(wanted))).collect::<Vec<_>>().join(", ")
            }
            Refused::Method => self.methods_of_sign_in.as_ref()?.join(", "),
            Refused::Age => span(self.signed_in_within?),
        })
    }

    /// What `person` has of what `key` asks for.
    fn found(&self, key: Refused, person: &Person<'_>, facts: &Facts<'_>) -> String {
        let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        match key {
            Refused::Nobody | Refused::Network => String::new(),
            Refused::User => person.user.to_owned(),
            Refused::Group => list(person.groups),
            Refused::Scope => list(person.scopes),
            Refused::Claim => {
                let paths = self.claims.iter().flatten().map(|(path, _)| path);
                let value = |path: &String| match claim(person.claims, path) {
                    Some(value) => format!("{path} = {value}"),
                    None => format!("no {path}"),
                };
                paths.map(value).collect::<Vec<_>>().join(", ")
            }
            Refused::Method => list(person.methods),
            Refused::Age => match person.signed_in_at {
                Some(at) => format!("{} ago", span(facts.now.since(at))),
                None => "no time of sign-in".to_owned(),
            },
        }
    }
}

fn who(facts: &Facts<'_>) -> String {
    facts.person.map_or("nobody is signed in", |person| person.user).to_owned()
}

/// A span as the configuration writes it: `1h30m`.
fn span(span: Duration) -> String {
    let mut rest = span.as_secs();
    let mut text = String::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            let _infallible = write!(text, "{}{unit}", rest / seconds);
            rest %= seconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// In the order in which they are asked.
const KEYS: [Refused; 7] =
    [Refused::Network, Refused::User, Refused::Group, Refused::Scope, Refused::Claim, Refused::Method, Refused::Age];

/// What every table asks that does not say `anyone = true`.
const SIGNED_IN: &str = "signed in";

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::clock::Timestamp;

    fn shown(policy: &Policy, person: Option<Person<'_>>) -> Vec<String> {
        let facts = Facts { client: [10, 1, 2, 3].into(), now: Timestamp::from_secs(10_000), person };
        let line = |condition: &Condition| {
            let sign = condition.holds.map_or("·", |holds| if holds { "✓" } else { "✗" });
            format!("{sign} {} [{}] {}", condition.key, condition.wanted, condition.found)
        };
        let alternatives = policy.alternatives(&facts);
        let lines = alternatives.iter().flat_map(|alternative| alternative.conditions.iter().map(line));
        lines.collect()
    }

    fn list(items: &[&str]) -> Option<Vec<String>> {
        Some(items.iter().map(|&item| item.to_owned()).collect())
    }

    #[test]
    fn every_key_is_asked_and_none_after_the_first_is_left_out() {
        let rule = Rule {
            users: list(&["alice", "bob"]),
            groups: list(&["admin", "ops"]),
            scopes: list(&["read"]),
            claims: Some(vec![("tenant".to_owned(), vec![json!("a"), json!("b")])]),
            from: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            methods_of_sign_in: list(&["password"]),
            signed_in_within: Some(Duration::from_secs(5400)),
            ..Rule::default()
        };
        let policy = Policy::AnyOf(vec![rule]);
        let claims = json!({ "tenant": "c" });
        let bob = Person {
            user: "bob",
            groups: &["staff".to_owned()],
            scopes: &["read".to_owned()],
            claims: claims.as_object().unwrap(),
            methods: &["basic".to_owned()],
            signed_in_at: Some(Timestamp::from_secs(1000)),
        };
        let expected = [
            "✓ signed in [] bob",
            "✓ from [10.0.0.0/8] 10.1.2.3",
            "✓ users [alice, bob] bob",
            "✗ groups [admin, ops] staff",
            "✓ scopes [read] read",
            "✗ claims [tenant = \"a\" or \"b\"] tenant = \"c\"",
            "✗ methods_of_sign_in [password] basic",
            "✗ signed_in_within [1h30m] 2h30m ago",
        ];
        assert_eq!(shown(&policy, Some(bob)), expected);
        let anonymous = shown(&policy, None);
        assert_eq!(anonymous[0], "✗ signed in [] nobody is signed in");
        assert_eq!(anonymous[1], "✓ from [10.0.0.0/8] 10.1.2.3");
        assert!(anonymous[2..].iter().all(|line| line.starts_with('·') && line.ends_with("] ")), "{anonymous:?}");
    }

    #[test]
    fn words_and_open_networks_have_one_condition_more_or_less() {
        let (empty, none) = (Map::new(), Vec::new());
        let eve =
            Person { user: "eve", groups: &none, scopes: &none, claims: &empty, methods: &none, signed_in_at: None };
        assert_eq!(shown(&Policy::Anyone, None), ["✓ allow [anyone] nobody is signed in"]);
        assert_eq!(shown(&Policy::SignedIn, Some(eve)), ["✓ allow [signed-in] eve"]);
        assert_eq!(shown(&Policy::SignedIn, None), ["✗ allow [signed-in] nobody is signed in"]);
        assert_eq!(shown(&Policy::Nobody, Some(eve)), ["✗ allow [nobody] eve"]);
        let open = Rule { anyone: true, from: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..Rule::default() };
        let both = Policy::AnyOf(vec![open, Rule { groups: list(&["x"]), ..Rule::default() }]);
        let expected =
            ["✓ anyone [true] eve", "✗ from [192.0.2.0/24] 10.1.2.3", "✓ signed in [] eve", "✗ groups [x] none"];
        assert_eq!(shown(&both, Some(eve)), expected);
    }

    #[test]
    fn spans_read_as_they_are_written() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3600, "1h"), (5400, "1h30m"), (90_061, "1d1h1m1s")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
