//! Configuration of active anti-entropy; in a single node, of the verification of hash trees.

use super::keys::Key;
use super::value::{Value, show_duration};
use std::time::Duration;

/// Section `aae`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aae {
    /// Pause between two steps of the verification.
    pub(crate) hashtree_timer: Duration,
    /// Time in which each tree is verified once.
    pub(crate) hashtree_ttl: Duration,
}

impl Default for Aae {
    fn default() -> Self {
        Self {
            hashtree_timer: Duration::from_secs(10),
            hashtree_ttl: Duration::from_secs(7 * 86_400),
        }
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "aae.hashtree_timer",
        doc: "Pause between two steps of the background verification of hash trees, from 10ms to 1h.",
        get: |c| Value::Text(show_duration(c.aae.hashtree_timer)),
        set: |c, v| {
            v.duration(&(Duration::from_millis(10)..=Duration::from_secs(3600)))
                .map(|d| c.aae.hashtree_timer = d)
        },
    },
    Key {
        path: "aae.hashtree_ttl",
        doc: "Time in which each hash tree is verified against its data once, from 1s to 52w.",
        get: |c| Value::Text(show_duration(c.aae.hashtree_ttl)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(52 * 7 * 86_400)))
                .map(|d| c.aae.hashtree_ttl = d)
        },
    },
];
