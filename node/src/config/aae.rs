//! Configuration of active anti-entropy, and of the verification of hash trees.

use super::keys::{Key, number};
use super::value::{Value, show_duration};
use std::time::Duration;

/// Section `aae`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aae {
    /// Whether exchanges run by themselves.
    pub(crate) enabled: bool,
    /// Time for one exchange.
    pub(crate) data_exchange_timeout: Duration,
    /// Pause between two exchanges.
    pub(crate) exchange_timer: Duration,
    /// Exchanges that this node begins and that run at a time.
    pub(crate) concurrency: u32,
    /// Least age of a deletion that is forgotten.
    pub(crate) tombstone_min_age: Duration,
    /// Pause between two steps of the verification.
    pub(crate) hashtree_timer: Duration,
    /// Time in which each tree is verified once.
    pub(crate) hashtree_ttl: Duration,
}

impl Default for Aae {
    fn default() -> Self {
        Self {
            enabled: true,
            data_exchange_timeout: Duration::from_secs(60),
            exchange_timer: Duration::from_secs(10),
            concurrency: 1,
            tombstone_min_age: Duration::from_secs(60), // guess
            hashtree_timer: Duration::from_secs(10),
            hashtree_ttl: Duration::from_secs(7 * 86_400),
        }
    }
}

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "aae.enabled",
        doc: "Whether nodes compare and exchange what they have by themselves. Without it only\n\
              `weald aae run` repairs what a broadcast has lost.",
        get: |c| Value::Bool(c.aae.enabled),
        set: |c, v| v.bool().map(|truth| c.aae.enabled = truth),
    },
    Key {
        path: "aae.exchange_timer",
        doc: "How often this node begins an exchange with some peer, from 100ms to 1d.",
        get: |c| Value::Text(show_duration(c.aae.exchange_timer)),
        set: |c, v| {
            v.duration(&(Duration::from_millis(100)..=Duration::from_secs(86_400)))
                .map(|d| c.aae.exchange_timer = d)
        },
    },
    Key {
        path: "aae.data_exchange_timeout",
        doc: "Time for one exchange, from 1s to 1d; the next one goes on where it was ended.",
        get: |c| Value::Text(show_duration(c.aae.data_exchange_timeout)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(86_400)))
                .map(|d| c.aae.data_exchange_timeout = d)
        },
    },
    Key {
        path: "aae.concurrency",
        doc: "Exchanges that this node has begun and that run at a time, from 1 to 64.",
        get: |c| number(c.aae.concurrency.into()),
        set: |c, v| {
            let count = v.int(&(1..=64))?;
            c.aae.concurrency = u32::try_from(count).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    Key {
        path: "aae.tombstone_min_age",
        doc: "A deletion that all members have is forgotten once it is as old as this, from 0s to 52w.",
        get: |c| Value::Text(show_duration(c.aae.tombstone_min_age)),
        set: |c, v| {
            v.duration(&(Duration::ZERO..=Duration::from_secs(52 * 7 * 86_400)))
                .map(|d| c.aae.tombstone_min_age = d)
        },
    },
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
