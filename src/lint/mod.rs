//! What is wrong in meaning with a routing table, though each route alone is right. Pure.
//!
//! Knows patterns and policies only; where things are written, and how that is said, the caller knows.

mod cover;
mod exposed;
mod falls_through;
mod hidden;
mod meets;
mod overlaps;
mod readings;

use http::Method;

use falls_through::Wide;
use meets::Meets;
pub use overlaps::Overlaps;

use crate::message::path::Reading;
use crate::pattern::{HostPattern, PathPattern};
use crate::policy::Policy;

/// What is looked at of a route.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Which hosts it is for; empty: every one.
    pub hosts: &'a [HostPattern],
    /// Which paths.
    pub path: &'a PathPattern,
    /// Which methods; `None`: every one.
    pub methods: Option<&'a [Method]>,
    /// Who may.
    pub allow: &'a Policy,
    /// Whether it was said that what it leaves goes on to later routes.
    pub fall_through: bool,
}

/// Something wrong with a route; routes are named by their place in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is for the same hosts, paths and methods as an earlier one.
    Duplicate {
        /// The route.
        route: usize,
        /// The earlier one.
        earlier: usize,
    },
    /// Earlier ones take all that it is for.
    NeverMatches {
        /// The route.
        route: usize,
        /// The earlier ones: one that takes all, or several that do so together.
        earlier: Vec<usize>,
    },
    /// It is public, and takes what later ones protect.
    PublicOverProtected {
        /// The route.
        route: usize,
        /// The later ones.
        protected: Vec<usize>,
    },
    /// It protects one page, and what lies below that goes to a public route.
    OpenBelow {
        /// The route.
        route: usize,
        /// The public one.
        public: usize,
    },
    /// What it leaves by its methods or hosts goes on to a later one, which lets in someone whom it excludes.
    FallsThrough {
        /// The route.
        route: usize,
        /// The later one.
        later: usize,
    },
    /// Its pattern and an earlier one's differ, but not to an application that reads paths so.
    DiffersByReading {
        /// The route.
        route: usize,
        /// The earlier one.
        earlier: usize,
        /// The reading that makes them one.
        reading: Reading,
    },
}

/// All that is wrong with `routes`, in their order.
pub fn findings(routes: &[Entry<'_>]) -> Vec<Finding> {
    let index = Meets::new(routes);
    let wide = Wide::new(routes);
    let has_public = routes.iter().any(|route| route.allow.is_public());
    let mut findings = Vec::new();
    for at in 0..routes.len() {
        findings.extend(hidden::judge(routes, at, &index));
        findings.extend(exposed::public_over(routes, at, &index));
        findings.extend(if has_public { exposed::open_below(routes, at, &index) } else { None });
        findings.extend(falls_through::judge(routes, at, &index, &wide));
    }
    findings.extend(readings::judge(routes));
    findings
}

#[cfg(test)]
mod tests;
