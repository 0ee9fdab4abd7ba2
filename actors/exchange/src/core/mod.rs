//! The state machines: no clocks, sockets, threads or randomness of their own.
//!
//! [`Session`] is one exchange, from either side.

mod exchange;
mod link;
mod outcome;
mod session;
mod walk;
pub mod wire;

pub use link::{REPAIR_MS_MAX, WINDOW};
pub use outcome::{
    Counters, DIFF_KEYS_MAX, DiffKey, DiffReport, DiffSide, Failed, MergeFailure, Outcome,
};
pub use session::{Input, Limits, Mode, Output, SHARDS_AT_ONCE, SHARDS_MAX, Session, Stores};
pub use walk::{BUCKETS_MAX, ENTRIES_MAX};
pub use wire::Shard;
