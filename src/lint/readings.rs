//! Patterns that are two to the gateway and one to an application that merges slashes, decodes twice, folds case, …

use std::collections::{HashMap, HashSet};

use super::cover::hosts_are_disjoint;
use super::{Entry, Finding};
use crate::message::path::Reading;
use crate::pattern::PathPattern;

/// For each route the first earlier one whose pattern differs from its own only by a reading.
pub(super) fn judge(routes: &[Entry<'_>]) -> Vec<Finding> {
    if routes.iter().all(|entry| entry.path.is_plain()) {
        return Vec::new();
    }
    let mut findings: Vec<Option<Finding>> = vec![None; routes.len()];
    for reading in Reading::ALL {
        let read: Vec<Option<PathPattern>> = routes.iter().map(|entry| entry.path.read_otherwise(reading)).collect();
        // Patterns that are the same as read and as written differ by nothing: only what a changed one comes to can.
        let changed: HashSet<&PathPattern> = read.iter().flatten().collect();
        if changed.is_empty() {
            continue;
        }
        // For each pattern as read, the first route of each pattern as written.
        let mut seen: HashMap<&PathPattern, Vec<usize>> = HashMap::new();
        for (route, (entry, read)) in routes.iter().zip(&read).enumerate() {
            let Some(read) = changed.get(read.as_ref().unwrap_or(entry.path)) else { continue };
            let alike = seen.entry(read).or_default();
            let differs = |earlier: &&usize| {
                let earlier = &routes[**earlier];
                earlier.path != entry.path && !hosts_are_disjoint(earlier.hosts, entry.hosts)
            };
            if let Some(earlier) = alike.iter().find(differs).filter(|_| findings[route].is_none()) {
                findings[route] = Some(Finding::DiffersByReading { route, earlier: *earlier, reading });
            }
            if alike.iter().all(|earlier| routes[*earlier].path != entry.path) {
                alike.push(route);
            }
        }
    }
    findings.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn judge_paths(paths: &[&str]) -> Vec<Finding> {
        let paths: Vec<PathPattern> = paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect();
        let entry = |path| Entry { hosts: &[], path, methods: None, allow: &Policy::SignedIn, fall_through: false };
        judge(&paths.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn finds_patterns_that_are_one_to_some_applications() {
        for (one, other, reading) in [
            ("/Admin/**", "/admin/**", Reading::FoldedCase),
            ("/a%2Fb", "/a/b", Reading::DecodedSlash),
            ("/a;x", "/a", Reading::CutParameters),
        ] {
            assert_eq!(
                judge_paths(&[one, other]),
                [Finding::DiffersByReading { route: 1, earlier: 0, reading }],
                "{one}"
            );
        }
    }

    #[test]
    fn keeps_quiet_on_the_same_pattern_and_on_different_ones() {
        assert_eq!(judge_paths(&["/a", "/a", "/b", "/a/**", "/**", "/*", "/a/b"]), []);
    }
}
