//! What a run has been through. Faults that never led anywhere interesting have proved nothing: over many seeds each of these
//! has to be more than 0.

use std::collections::BTreeMap;
use std::fmt;

/// Everything that has to happen now and then.
pub const EXPECTED: [&str; 24] = [
    "gossip",
    "graft",
    "prune",
    "ihave",
    "duplicate",
    "behind",
    "exchange",
    "exchange_equal",
    "exchange_failed",
    "tree_walk",
    "adopt",
    "sibling_merge",
    "read_repair",
    "own_event_unknown",
    "sweep",
    "reap",
    "strip",
    "fenced_peer",
    "not_caught_up",
    "merge_failed",
    "replaced_member",
    "self_evicted",
    "rejoined",
    "repaired",
];

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sometimes(BTreeMap<&'static str, u64>);

impl Sometimes {
    /// It has happened.
    pub fn hit(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// It has happened so often.
    pub fn add(&mut self, name: &'static str, times: u64) {
        debug_assert!(EXPECTED.contains(&name), "{name} is not in the list");
        *self.0.entry(name).or_default() += times;
    }

    /// Adds up.
    pub fn merge(&mut self, other: &Self) {
        for (name, times) in &other.0 {
            *self.0.entry(name).or_default() += times;
        }
    }

    /// How often it has happened.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// What has never happened.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        EXPECTED.into_iter().filter(|name| self.get(name) == 0).collect()
    }
}

impl fmt::Display for Sometimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in EXPECTED {
            writeln!(f, "  {name:<18} {:>10}", self.get(name))?;
        }
        Ok(())
    }
}
