//! Limits on what strangers can cause: connections, and log lines. The supervision crate has such a limit of lines, too; this
//! one takes the time as it is told, and keeps this crate without actors.
//!
//! What it guarantees: a place that was taken is given back when it is dropped, whatever became of its connection.
//! What it refuses: to make anybody wait for a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for connections. Clones are the same places.
#[derive(Debug, Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    max: usize,
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _own: OwnedSemaphorePermit,
    _shared: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.max.saturating_sub(self.free.available_permits())
    }

    /// Takes one, and one of the others, too, where there are others. None when either is full.
    pub(crate) fn take(&self, others: Option<&Self>) -> Option<Place> {
        let own = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let shared = match others {
            None => None,
            Some(others) => Some(Arc::clone(&others.free).try_acquire_owned().ok()?),
        };
        Some(Place { _own: own, _shared: shared })
    }
}

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
    fn place_among_others_counts_in_both_and_is_given_back() {
        let (port, all) = (Places::new(2), Places::new(2));
        let elsewhere = all.take(None).unwrap();
        let first = port.take(Some(&all)).unwrap();
        assert!(port.take(Some(&all)).is_none(), "the others are full");
        assert_eq!((port.taken(), all.taken()), (1, 2));
        drop(elsewhere);
        let second = port.take(Some(&all)).unwrap();
        assert!(port.take(None).is_none(), "the port is full");
        drop((first, second));
        assert_eq!((port.taken(), all.taken()), (0, 0));
    }

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
