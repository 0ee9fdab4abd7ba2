//! The keys under `aae` that are about exchanges.

use std::time::Duration;

use crate::core::Limits;

/// Settings of exchanges, sweeps and session consistency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `aae.enabled`: whether this node begins exchanges by itself. It answers those of others anyway.
    pub enabled: bool,
    /// `aae.data_exchange_timeout`: longest time without progress in a session.
    pub data_exchange_timeout: Duration,
    /// `aae.exchange_timer`: how often there is an exchange with a random neighbour.
    pub exchange_timer: Duration,
    /// `aae.concurrency`: sessions that this node has begun, at a time.
    pub concurrency: usize,
    /// Sessions that others have begun with this node, at a time.
    pub incoming_max: usize,
    /// `aae.min_age`: how old an event has to be before it is forgotten. It also keeps recent events for those that were
    /// away for a moment.
    pub min_age: Duration,
    /// How often stable events are swept.
    pub sweep_timer: Duration,
    /// How often changed clocks are told to the members.
    pub clocks_timer: Duration,
    /// Most bytes of peers' frames that wait to be handled, over all sessions.
    pub waiting_bytes_max: usize,
    /// Longest time of a session.
    pub session_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,                                  // Bondy page
            data_exchange_timeout: Duration::from_secs(60), // Bondy page
            exchange_timer: Duration::from_secs(10),        // Bondy page
            concurrency: 1,                                 // as in plum_db
            incoming_max: 4,                                // guess
            min_age: Duration::from_secs(60),               // guess
            sweep_timer: Duration::from_secs(5),            // guess
            clocks_timer: Duration::from_secs(1),           // guess
            waiting_bytes_max: 64 << 20,                    // guess
            session_max: Duration::from_secs(3600),         // guess
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
        let second = Duration::from_secs(1);
        check(
            self.data_exchange_timeout >= second,
            "aae.data_exchange_timeout must be at least 1s",
        );
        check(
            self.exchange_timer >= Duration::from_millis(100),
            "aae.exchange_timer must be at least 100ms",
        );
        check((1..=64).contains(&self.concurrency), "aae.concurrency must be 1 to 64");
        problems
    }

    /// The limits of a session.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { idle_ms: ms(self.data_exchange_timeout), total_ms: ms(self.session_max) }
    }
}

pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
