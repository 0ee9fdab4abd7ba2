//! What goes into the core and what comes out of it.
//!
//! Guarantees: plain, comparable data. Refuses: ports, handles, errors' texts.

use crate::spec::{AutoShutdown, Restart, Strategy};

/// Names a child within one supervisor; ascending in start order.
pub type Key = u64;

/// What the supervisor was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Which siblings share a child's fate.
    pub strategy: Strategy,
    /// Restarts tolerated within the window.
    pub intensity_max: u32,
    /// Length of the window in milliseconds, both ends included.
    pub window_ms: u64,
    /// When to end by itself.
    pub auto_shutdown: AutoShutdown,
    /// Delay between restarts, if any.
    pub backoff: Option<BackoffPolicy>,
}

/// [`crate::Backoff`] in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Delay of the first restart.
    pub initial_ms: u64,
    /// Upper bound of the delay.
    pub max_ms: u64,
    /// Random share of the delay, 0 to 100.
    pub jitter_percent: u8,
    /// Seed of the jitter.
    pub seed: u64,
    /// Time up after which a child's delay starts at `initial_ms` again.
    pub reset_after_ms: u64,
}

/// What the core needs to know of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildPolicy {
    /// When it is restarted.
    pub restart: Restart,
    /// Whether its end counts for auto-shutdown.
    pub significant: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Start the children handed to [`super::Core::new`].
    Boot,
    /// The start in flight succeeded.
    Started(Key),
    /// The start in flight failed.
    StartFailed(Key),
    /// The stop in flight is done (for [`Action::StopAll`] any key of it).
    Stopped(Key),
    /// A running child ended by itself.
    Exited {
        /// Which one.
        key: Key,
        /// Whether the exit was abnormal (panic, error, kill).
        abnormal: bool,
    },
    /// The delay of a [`Action::Schedule`] is over.
    Due {
        /// The child it was for.
        key: Key,
        /// The ticket of the schedule.
        ticket: u64,
    },
    /// Start one more child (dynamic supervisors); its key is [`super::Core::next_key`].
    Add(ChildPolicy),
    /// Stop and forget one child (dynamic supervisors).
    Terminate(Key),
    /// Stop everything in reverse order and close.
    Shutdown,
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start this child and answer.
    Start(Key),
    /// Stop this child and answer.
    Stop(Key),
    /// Stop these children at the same time and answer once all are gone.
    StopAll(Vec<Key>),
    /// Hand in [`Input::Due`] after the delay, behind everything that is queued already.
    Schedule {
        /// The child to retry.
        key: Key,
        /// To be handed back.
        ticket: u64,
        /// Milliseconds; 0 means as soon as what is queued has been handled.
        delay_ms: u64,
    },
    /// This child is no longer part of the supervisor.
    Forget(Key),
    /// Worth a record.
    Note(Note),
    /// All children are stopped: end with this reason.
    Close(Close),
}

/// A decision worth a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// A restart was granted.
    Restarting {
        /// The child that caused it.
        key: Key,
        /// Restarts within the window, this one included.
        in_window: u32,
        /// Delay before the start, milliseconds.
        delay_ms: u64,
    },
    /// Siblings are stopped, too.
    StrategyApplied {
        /// The child that caused it.
        key: Key,
        /// Siblings to stop.
        stops: usize,
    },
    /// One restart too many.
    IntensityExceeded {
        /// The child that caused it.
        key: Key,
        /// Restarts within the window, this one included.
        in_window: u32,
    },
    /// The child ended and stays down.
    GaveUp {
        /// Which one.
        key: Key,
    },
}

/// Why the supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It was told to.
    Shutdown,
    /// Its significant children have ended; a normal exit.
    AutoShutdown(Key),
    /// Too many restarts; an abnormal exit.
    // DEVIATES (OTP exits with `shutdown`, so a transient supervisor that gave up stays down and
    // nobody notices): ours is abnormal, so that the parent always acts on it.
    Intensity(Key),
    /// A child did not start at boot; those before it are stopped again.
    StartFailed(Key),
}
