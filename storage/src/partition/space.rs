//! Space: when the memory map grows, what happens when it cannot, and the gauges that tell.
//!
//! A map is grown when three quarters of it were used, by doubling, up to the configured maximum.
//! Near the maximum the last part ([`reserve_bytes`]) is kept for deletes and expiries: other
//! writes are refused before they can use it up, and each delete takes three changes off the
//! change log, so that deleting always leaves more room than it takes. The same is done when the disk
//! itself is full. Every batch tries anew, so writing goes on by itself once there is space.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::lmdb::Lmdb;
use crate::partition::durable::Committed;

const RESERVE_MIN: u64 = 512 * 1024;
const RESERVE_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of a map of `map_bytes_max` that are kept for deletes.
pub(crate) fn reserve_bytes(map_bytes_max: u64) -> u64 {
    (map_bytes_max / 8).clamp(RESERVE_MIN, RESERVE_MAX)
}

/// The size a map should have, given how much of it was used; `None` when it is right.
pub(crate) fn grown(map_bytes: u64, high_water_bytes: u64, map_bytes_max: u64) -> Option<u64> {
    let mut target = map_bytes;
    while high_water_bytes > target / 4 * 3 && target < map_bytes_max {
        target = target.saturating_mul(2).min(map_bytes_max);
    }
    (target > map_bytes).then_some(target)
}

/// Figures of a partition, written by its writer and read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) used_bytes: AtomicU64,
    pub(crate) map_bytes: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) memory_rows: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) last_commit_us: AtomicU64,
    pub(crate) last_batch: AtomicU64,
    pub(crate) resizes: AtomicU64,
    pub(crate) clock_skews: AtomicU64,
    pub(crate) full: AtomicBool,
    stopped: Mutex<Option<Arc<str>>>,
}

impl Gauges {
    pub(crate) fn of(lmdb: &Lmdb, committed: &Committed) -> Self {
        let gauges = Self::default();
        gauges.map_bytes.store(lmdb.map_bytes(), Ordering::Relaxed);
        gauges.rows.store(committed.head.root.count, Ordering::Relaxed);
        let used = lmdb.read().and_then(|txn| lmdb.used_bytes(&txn)).unwrap_or(0);
        gauges.used_bytes.store(used, Ordering::Relaxed);
        gauges
    }

    /// Why the partition writes no more, if so.
    pub(crate) fn stopped(&self) -> Option<Arc<str>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn stop(&self, why: &str) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }
}

/// Figures of a partition at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStats {
    /// Its number.
    pub partition: u16,
    /// Objects in durable tables that are not deleted.
    pub rows: u64,
    /// Objects in memory tables that are not deleted.
    pub memory_rows: u64,
    /// Bytes of pages in use.
    pub used_bytes: u64,
    /// Bytes of the memory map.
    pub map_bytes: u64,
    /// Largest map allowed, in bytes.
    pub map_bytes_max: u64,
    /// Last number in the change log of the durable tables.
    pub last_seq: u64,
    /// Last number in the change log of the memory tables.
    pub memory_last_seq: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Writes committed since the start.
    pub writes: u64,
    /// How long the last commit took, in microseconds.
    pub last_commit_us: u64,
    /// Writes in the last commit.
    pub last_batch: u64,
    /// How often the map was made larger since the start.
    pub resizes: u64,
    /// Stamps of peers that were too far ahead of this node's clock, since the start.
    pub clock_skews: u64,
    /// There is no space: writes that need some are refused.
    pub full: bool,
    /// Why the partition writes no more until the store is opened anew; `None` when it writes.
    pub stopped: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_grows_at_three_quarters_by_doubling_up_to_the_maximum() {
        assert_eq!(grown(100, 75, 1000), None);
        assert_eq!(grown(100, 76, 1000), Some(200));
        assert_eq!(grown(100, 400, 1000), Some(800));
        assert_eq!(grown(800, 700, 1000), Some(1000));
        assert_eq!(grown(1000, 1000, 1000), None);
    }
}
