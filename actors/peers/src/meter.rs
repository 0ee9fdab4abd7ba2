//! A bound on what waits in a mailbox.
//!
//! ractor's mailboxes have no bound. Whoever puts frames of peers into one takes a [`Permit`] for their bytes first and
//! sends it along; the receiver drops it when it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that may wait, and a count of what was refused.
#[derive(Debug)]
pub struct Meter {
    bytes: AtomicUsize,
    bytes_max: usize,
    refused: AtomicU64,
}

/// Bytes taken from a [`Meter`], given back on drop.
#[derive(Debug)]
pub struct Permit {
    meter: Arc<Meter>,
    bytes: usize,
}

impl Meter {
    /// A meter for `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max, refused: AtomicU64::new(0) })
    }

    /// Takes `bytes`; `None` (and counted) when that would go over the bound, unless nothing waits.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let taken = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            let after = waiting.saturating_add(bytes);
            (waiting == 0 || after <= self.bytes_max).then_some(after)
        });
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit { meter: Arc::clone(self), bytes })
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// How often something was refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.meter.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meter_bounds_what_waits_but_takes_one_that_is_too_large_alone() {
        let meter = Meter::new(10);
        let large = meter.take(100);
        assert!(large.is_some() && meter.take(1).is_none());
        drop(large);
        let held = [meter.take(4), meter.take(6)];
        assert!(held.iter().all(Option::is_some));
        assert!(meter.take(1).is_none());
        assert_eq!((meter.waiting(), meter.refused()), (10, 2));
        drop(held);
        assert_eq!(meter.waiting(), 0);
    }
}
