//! Checkers of histories: what clients did and saw, judged afterwards.
//!
//! - [`history`]: operations as JSON lines.
//! - [`set_full`]: which acknowledged elements were lost, and how long the others took to be seen everywhere.
//! - [`sessions`]: read-your-writes, monotonic reads, monotonic writes, writes-follow-reads.
//! - [`causal`]: causal consistency of registers, by its bad patterns.
//!
//! Guarantees: what they report is a violation if each written value is unique within its key. They do not look into the
//! store: contexts and clocks of the product are not believed.

pub mod causal;
pub mod history;
pub mod sessions;
pub mod set_full;
