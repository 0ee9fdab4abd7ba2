//! The `hashtree` process of each partition: answers questions about digests, and scrubs.
//!
//! What it is: the tree itself is rows in the partition's environment, updated by the same transaction as the objects, so
//! there is nothing to build at boot. This actor reads it on MVCC snapshots, and verifies it in the background: within
//! `aae.hashtree_ttl` every bucket's digest is computed anew from the objects and compared.
//!
//! What it guarantees: a bucket that does not match its objects is reported (log, supervision log, status), and rebuilt from
//! the objects; writers never wait for a scrub longer than for one bucket's rebuild.
//!
//! What it refuses: writing objects. It restarts alone with its state in the schedule only, which follows the clock.

pub mod actor;
pub mod core;

pub use actor::{HashtreeActor, Msg, ScrubTotals};
pub use core::Schedule;
