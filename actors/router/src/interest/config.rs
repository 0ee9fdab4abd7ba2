//! Times and bounds of interest.

use std::time::Duration;

/// Settings of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often peers are told what is known, so that what was lost is noticed.
    pub digest_timer: Duration,
    /// How long changes are gathered when the last were told a moment ago.
    pub batch_timer: Duration,
    /// After which time a peer that was asked is asked again.
    pub pull_timeout: Duration,
    /// How long it is remembered what is gone: a peer that was away for less is told only what has changed.
    pub marker_age: Duration,
    /// How long the rows of a node that does not answer are kept, unused.
    pub absence_max: Duration,
    /// For how long nothing more is taken from a node that has more rows than allowed.
    pub refusal: Duration,
    /// Most rows of one node.
    pub rows_max: usize,
    /// Most bytes of peers' frames that wait to be handled.
    pub waiting_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            digest_timer: Duration::from_secs(1), // issue 4: a loss heals well within 2 s
            batch_timer: Duration::from_millis(5), // guess
            pull_timeout: Duration::from_secs(1), // guess
            marker_age: Duration::from_secs(60),  // guess: longer than a reconnect takes
            absence_max: Duration::from_secs(600), // guess: longer than a restart of a machine takes
            refusal: Duration::from_secs(30),      // guess
            rows_max: 2_000_000,                   // guess: about 300 MB
            waiting_bytes_max: 32 << 20,           // guess: dozens of answers to pulls
        }
    }
}

impl Config {
    /// All problems; none when it can be used.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, text: &str| {
            if !ok {
                problems.push(text.to_owned());
            }
        };
        let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
        check(self.digest_timer >= 100 * ms, "the digest timer must be at least 100ms");
        check(self.batch_timer <= second, "the batch timer must be at most 1s");
        check(self.pull_timeout >= 100 * ms, "the pull timeout must be at least 100ms");
        check(self.absence_max >= second, "the longest absence must be at least 1s");
        check(self.rows_max > 0, "at least one row must be allowed");
        problems
    }
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
