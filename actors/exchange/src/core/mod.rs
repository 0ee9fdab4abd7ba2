//! The state machines: no clocks, sockets, threads or randomness of their own.
//!
//! [`Session`] is one exchange from either side, [`Scheduler`] says when there is one with whom, [`Stability`] knows what
//! members have acknowledged, [`Relay`] what to ask neighbours about those that are not connected, [`Repairs`] with whom
//! damaged buckets were compared, [`Waiters`] keeps requests until the clocks cover them.

mod exchange;
mod link;
mod outcome;
mod relay;
mod repairs;
mod scheduler;
mod session;
mod stability;
mod waiters;
mod walk;
pub mod wire;

pub use link::WINDOW;
pub use outcome::{
    Compared, Counters, DIFF_KEYS_MAX, DiffKey, DiffReport, DiffSide, Failed, MergeFailure,
    Outcome, Verdict,
};
pub use relay::{ANSWER_BYTES, Known, QUESTION_MAX, Relay, clock_bytes};
pub use repairs::{Repaired, Repairs, Resort};
pub use scheduler::{BEHIND_MS_MIN, PeerStatus, Scheduler, Settings};
pub use session::{Input, Limits, Mode, Output, SHARDS_AT_ONCE, SHARDS_MAX, Session, Stores};
pub use stability::Stability;
pub use waiters::{Ended, PULL_AFTER_MS, WAITERS_MAX, Waiters};
pub use walk::{BUCKETS_MAX, ENTRIES_MAX};
pub use wire::Shard;
