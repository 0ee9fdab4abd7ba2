//! The words of supervision: restart types, shutdown types, strategies, limits.
//!
//! Guarantees: plain values without behaviour, equal in the core, the shell, the log and the tests.
//! Refuses: to know about actors, clocks or disks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    Permanent,
    /// Only after an abnormal exit: a panic, an `Err`, a kill, a cancelled task.
    Transient,
    /// Never.
    Temporary,
}

/// How a child is stopped by its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed at once, without `post_stop`.
    Brutal,
    /// Asked to stop, and killed when it is still there after this time.
    Timeout(Duration),
    /// Asked to stop, and waited for without a limit. Meant for supervisors.
    Infinity,
}

/// What a node of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An actor or a task that does the work.
    Worker,
    /// A supervisor.
    Supervisor,
}

/// Which siblings share the fate of a child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// None: only the child itself is restarted.
    OneForOne,
    /// All: every child is stopped (reverse start order), then all are started in order.
    OneForAll,
    /// Those started after it, likewise.
    RestForOne,
    /// Children come and go at run time, each on its own (OTP: `simple_one_for_one`).
    Dynamic,
}

/// Whether a supervisor ends by itself when significant children have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// Never.
    #[default]
    Never,
    /// When any significant child ended and is not restarted.
    AnySignificant,
    /// When the last significant child ended and is not restarted.
    AllSignificant,
}

/// At most `max_restarts` restarts within any sliding `window`; one more and the supervisor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are still tolerated within the window.
    pub max_restarts: u32,
    /// Length of the sliding window, both ends included.
    pub window: Duration,
}

impl Default for Intensity {
    /// 5 restarts in 10 s. OTP's own default (1 in 5 s) is meant to be overridden: two independent
    /// faults in five seconds end it. Five rides out a dependency that flaps once, and a child
    /// that cannot start still escalates within milliseconds, since every failed start counts.
    fn default() -> Self {
        Self { max_restarts: 5, window: Duration::from_secs(10) }
    }
}

/// Exponential delay between the restarts of one child. Off unless set; OTP has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the first restart.
    pub initial: Duration,
    /// Upper bound of the delay, however often the child has failed.
    pub max: Duration,
    /// How much of the delay is random, in percent (0 to 100). The delay lies in
    /// `[d * (100 - jitter) / 100, d]`.
    pub jitter_percent: u8,
    /// Seed of the jitter, so that a run can be replayed.
    pub seed: u64,
    /// A child that was up for this long starts again at `initial`.
    pub reset_after: Duration,
}

impl Backoff {
    /// A back-off that doubles from `initial` to `max`, with 20 % jitter from `seed`, and starts
    /// anew once a child stayed up for twice `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration, seed: u64) -> Self {
        Self { initial, max, jitter_percent: 20, seed, reset_after: max.saturating_mul(2) }
    }
}

impl Restart {
    /// Whether an exit of this kind is followed by a restart.
    #[must_use]
    pub const fn wants(self, abnormal: bool) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => abnormal,
            Self::Temporary => false,
        }
    }

    /// The stable name used in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        }
    }
}

impl Strategy {
    /// The stable name used in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
            Self::Dynamic => "dynamic",
        }
    }
}

impl Kind {
    /// The stable name used in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Supervisor => "supervisor",
        }
    }
}
