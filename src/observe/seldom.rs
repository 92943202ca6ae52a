//! What would be said once for each request that fails: it is said once a second for each cause, with how often it was kept
//! back, so that an application that is down does not fill the log. The access line of each request is there all the same.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;

/// What was said of late. Bounded.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<HashMap<String, Said>>);

#[derive(Clone, Copy, Debug)]
struct Said {
    second: u64,
    kept_back: u64,
}

impl Seldom {
    /// Whether `what` may be said at `now`, and how often it was kept back since it was said last.
    pub fn may_tell(&self, what: &str, now: Timestamp) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now.as_secs();
        if let Some(known) = said.get_mut(what) {
            if known.second == second {
                known.kept_back = known.kept_back.saturating_add(1);
                return None;
            }
            let kept_back = known.kept_back;
            *known = Said { second, kept_back: 0 };
            return Some(kept_back);
        }
        if said.len() >= MOST {
            said.retain(|_, known| known.second == second);
        }
        if said.len() >= MOST {
            return None;
        }
        said.insert(what.to_owned(), Said { second, kept_back: 0 });
        Some(0)
    }
}

/// Causes that are remembered; of more than that within a second no one hears.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once_a_second_with_what_was_kept_back() {
        let seldom = Seldom::default();
        let at = |second: u64| Timestamp::from_secs(1_800_000_000 + second);
        assert_eq!(seldom.may_tell("refused", at(0)), Some(0));
        assert_eq!([seldom.may_tell("refused", at(0)), seldom.may_tell("refused", at(0))], [None; 2]);
        assert_eq!(seldom.may_tell("timeout", at(0)), Some(0), "another cause");
        assert_eq!(seldom.may_tell("refused", at(1)), Some(2));
        assert_eq!(seldom.may_tell("refused", at(5)), Some(0));
    }

    #[test]
    fn ever_new_causes_fill_neither_memory_nor_the_log() {
        let seldom = Seldom::default();
        let at = |second: u64| Timestamp::from_secs(1_800_000_000 + second);
        for second in 0..2 {
            let told = (0..2 * MOST).filter(|n| seldom.may_tell(&format!("{second} {n}"), at(second)).is_some());
            assert_eq!(told.count(), MOST, "the former are forgotten");
        }
        assert_eq!(seldom.0.lock().unwrap().len(), MOST);
    }
}
