//! Which buckets are due for verification. Pure.

/// Buckets of one partition's tree.
pub const BUCKETS: u16 = 4096;

/// Spreads the buckets of a partition evenly over the period. The slot of a bucket follows from the wall clock alone, so a
/// restarted actor goes on where its predecessor was; buckets whose slot fell into a downtime have their turn one period later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    ttl_ms: u64,
    last_slot: Option<u64>,
}

impl Schedule {
    /// A schedule that visits every bucket once per `ttl_ms` (at least one millisecond per bucket).
    #[must_use]
    pub fn new(ttl_ms: u64) -> Self {
        Self { ttl_ms: ttl_ms.max(u64::from(BUCKETS)), last_slot: None }
    }

    /// The buckets that have come due since the last call, at most a whole round.
    pub fn due(&mut self, now_ms: u64) -> Vec<u16> {
        // u128: unix milliseconds times the number of buckets leaves 64 bits.
        let slot = u128::from(now_ms) * u128::from(BUCKETS) / u128::from(self.ttl_ms);
        let slot = u64::try_from(slot).unwrap_or(u64::MAX);
        let Some(last) = self.last_slot.replace(slot) else {
            return Vec::new();
        };
        // A clock set back starts the count anew from where it is now.
        let first = (last + 1).max(slot.saturating_sub(u64::from(BUCKETS) - 1));
        (first..=slot).map(|s| u16::try_from(s % u64::from(BUCKETS)).unwrap_or(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_bucket_comes_due_once_per_period() {
        for ttl_ms in [60_000, 604_800_000] {
            let mut schedule = Schedule::new(ttl_ms);
            let start = 1_795_000_000_000;
            assert!(schedule.due(start).is_empty());
            let mut seen = Vec::new();
            for step in 1..=ttl_ms / 10_000 {
                seen.extend(schedule.due(start + step * 10_000));
            }
            let distinct: BTreeSet<u16> = seen.iter().copied().collect();
            assert_eq!(seen.len(), distinct.len(), "none twice");
            assert!(distinct.len() >= usize::from(BUCKETS) - 1, "{} of all", distinct.len());
        }
    }

    #[test]
    fn a_long_pause_is_one_round_and_a_clock_set_back_is_none() {
        let mut schedule = Schedule::new(60_000);
        schedule.due(1_000_000);
        assert_eq!(schedule.due(100_000_000).len(), usize::from(BUCKETS));
        assert!(schedule.due(1_000_000).is_empty());
        assert!(!schedule.due(1_001_000).is_empty());
    }
}
