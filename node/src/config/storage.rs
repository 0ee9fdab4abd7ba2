//! Configuration of the store.

use super::keys::{Key, number, word};
use super::value::{Value, show_bytes, show_duration};
use std::time::Duration;

/// Section `storage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// LMDB environments.
    pub(crate) partitions: u16,
    /// What an acknowledgement promises.
    pub(crate) durability: Durability,
    /// First size of a partition's map, in bytes.
    pub(crate) map_size: u64,
    /// Largest size of a partition's map, in bytes.
    pub(crate) map_size_max: u64,
    /// Changes kept per partition.
    pub(crate) changes_retained: u64,
    /// What to do about a damaged partition.
    pub(crate) on_damage: OnDamage,
    /// Time for the check of one partition.
    pub(crate) check_timeout: Duration,
}

/// What an acknowledgement of a write promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It survives a power cut.
    Full,
    /// It survives the end of the process; the last moments may be lost in a power cut.
    Relaxed,
}

/// What to do about a damaged partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// Put it aside and refuse to start.
    Stop,
    /// Put it aside and go on with an empty one.
    Continue,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            partitions: 8,
            durability: Durability::Full,
            map_size: 64 << 20,
            map_size_max: 256 << 30,
            changes_retained: 1_000_000,
            on_damage: OnDamage::Stop,
            check_timeout: Duration::from_secs(600),
        }
    }
}

const DURABILITIES: &[(&str, Durability)] =
    &[("full", Durability::Full), ("relaxed", Durability::Relaxed)];
const ON_DAMAGE: &[(&str, OnDamage)] =
    &[("stop", OnDamage::Stop), ("continue", OnDamage::Continue)];

/// The keys of this section.
pub(super) const KEYS: &[Key] = &[
    Key {
        path: "storage.partitions",
        doc: "Number of partitions, from 1 to 1024, each an LMDB environment with a writer of its own.\n\
              Fixed at the first start of a data directory, and equal on all nodes of a cluster.",
        get: |c| number(c.storage.partitions.into()),
        set: |c, v| {
            let partitions = v.int(&(1..=1024))?;
            c.storage.partitions = u16::try_from(partitions).map_err(|e| e.to_string())?;
            Ok(())
        },
    },
    Key {
        path: "storage.durability",
        doc: "What an acknowledged write has survived: \"full\" (synced to disk before the answer; it\n\
              survives a power cut) or \"relaxed\" (faster; the last moments may be lost in a power cut).",
        get: |c| Value::Text(word(DURABILITIES, c.storage.durability)),
        set: |c, v| v.choice(DURABILITIES).map(|d| c.storage.durability = d),
    },
    Key {
        path: "storage.map_size",
        doc: "First size of each partition's file map, from 4MiB; it grows by itself.",
        get: |c| Value::Text(show_bytes(c.storage.map_size)),
        set: |c, v| v.bytes(&MAP_SIZES).map(|n| c.storage.map_size = n),
    },
    Key {
        path: "storage.map_size_max",
        doc: "Size up to which a partition's map grows; then writes answer `storage full` and reads go on.",
        get: |c| Value::Text(show_bytes(c.storage.map_size_max)),
        set: |c, v| v.bytes(&MAP_SIZES).map(|n| c.storage.map_size_max = n),
    },
    Key {
        path: "storage.changes_retained",
        doc: "Changes that each partition keeps for `weald watch`, from 1000 to 1000000000. A watcher\n\
              that falls further behind is told so.",
        get: |c| number(c.storage.changes_retained),
        set: |c, v| v.int(&(1000..=1_000_000_000)).map(|n| c.storage.changes_retained = n),
    },
    Key {
        path: "storage.on_damage",
        doc: "What to do at boot when a partition is damaged. It is moved to quarantine/ with a report;\n\
              then \"stop\" refuses to start, \"continue\" goes on with an empty partition in its place.",
        get: |c| Value::Text(word(ON_DAMAGE, c.storage.on_damage)),
        set: |c, v| v.choice(ON_DAMAGE).map(|d| c.storage.on_damage = d),
    },
    Key {
        path: "storage.check_timeout",
        doc: "Time for the check of one partition after an unclean stop, from 1s to 1d; it runs in a\n\
              process of its own, which is killed then.",
        get: |c| Value::Text(show_duration(c.storage.check_timeout)),
        set: |c, v| {
            v.duration(&(Duration::from_secs(1)..=Duration::from_secs(86_400)))
                .map(|d| c.storage.check_timeout = d)
        },
    },
];

const MAP_SIZES: std::ops::RangeInclusive<u64> = (4 << 20)..=(16 << 40);
