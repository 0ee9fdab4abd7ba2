//! What time it is, passed in: tests set their own.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The clocks of a node.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall_ms: fn() -> u64,
}

impl Clock {
    /// Clocks whose monotonic one reads 0 at `started`.
    #[must_use]
    pub const fn new(started: Instant, wall_ms: fn() -> u64) -> Self {
        Self { started, wall_ms }
    }

    /// The clocks of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Instant::now(), || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    /// Milliseconds since the process started. Never goes back.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of a reading of [`Self::now_ms`].
    #[must_use]
    pub fn instant(&self, at_ms: u64) -> Instant {
        self.started + std::time::Duration::from_millis(at_ms)
    }

    /// Unix milliseconds, as the machine has them.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        (self.wall_ms)()
    }
}
