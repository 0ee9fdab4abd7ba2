//! A limit for log lines that come as often as others wish: strangers, a full disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines that may come at once.
const BURST: u64 = 20;
/// Time after which one more may come.
const REFILL: Duration = Duration::from_millis(200);

/// A token bucket over time: 20 lines at once, then five a second; what is left out is counted.
#[derive(Debug)]
pub struct LogLimit {
    start: Instant,
    /// When the bucket was last full, in refills since the start, counted up by every line.
    spent: AtomicU64,
    suppressed: AtomicU64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimit {
    /// A full bucket.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), spent: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether a line may be written; then with the number of lines left out before it.
    pub fn admit(&self) -> Option<u64> {
        let now = u64::try_from(self.start.elapsed().as_millis() / REFILL.as_millis())
            .unwrap_or(u64::MAX);
        let admitted = self.spent.fetch_update(Ordering::AcqRel, Ordering::Acquire, |spent| {
            let spent = spent.max(now);
            (spent < now + BURST).then_some(spent + 1)
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
    fn burst_is_admitted_and_the_rest_counted() {
        let limit = LogLimit::new();
        let admitted = (0..100).filter(|_| limit.admit().is_some()).count();
        assert!((20..30).contains(&admitted), "{admitted}");
        assert!(limit.suppressed.load(Ordering::Relaxed) >= 70);
    }
}
