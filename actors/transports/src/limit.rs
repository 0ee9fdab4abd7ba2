//! A limit for log lines that strangers can cause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lines that may come at once.
const BURST: u64 = 20;
/// Time after which one more may come.
const REFILL: Duration = Duration::from_millis(200);

/// A bucket of lines, refilled over time.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// When the bucket would be full again, in refills since the start.
    full_at: AtomicU64,
    suppressed: AtomicU64,
}

impl LogLimit {
    /// Whether a line may be written at this time since the start; then with the number of those left out before it.
    pub(crate) fn admit(&self, since_start: Duration) -> Option<u64> {
        let now = u64::try_from(since_start.as_millis() / REFILL.as_millis()).unwrap_or(u64::MAX);
        let admitted = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_at| {
            let full_at = full_at.max(now);
            (full_at - now < BURST).then_some(full_at + 1)
        });
        if admitted.is_ok() {
            Some(self.suppressed.swap(0, Ordering::AcqRel))
        } else {
            self.suppressed.fetch_add(1, Ordering::AcqRel);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_admitted_the_rest_counted_and_time_refills() {
        let limit = LogLimit::default();
        let start = Duration::from_secs(5);
        assert_eq!((0..100).filter(|_| limit.admit(start).is_some()).count(), 20);
        assert_eq!(limit.admit(start + REFILL), Some(80));
        assert_eq!(limit.admit(start + REFILL), None);
        assert_eq!(limit.admit(start + 10 * REFILL), Some(1));
    }
}
