//! The `store` process of each partition: the only way to write to its LMDB environment.
//!
//! What it is: one actor per partition that collects writes while the batch before is being committed, and hands them to
//! the partition's writer thread as one transaction (group commit). [`StoreHandle`] is what everybody else holds.
//!
//! What it guarantees
//! - A write is acknowledged after its transaction is durable as the table promises, never before.
//! - A write is applied at most once per call. When the actor dies with writes in its mailbox, these come back to the handle
//!   untouched ([`core::Ticket`]) and are handed to its successor within the caller's deadline; those that already are with
//!   the writer thread are answered by that thread, which outlives the actor.
//! - Reads never pass through a mailbox: they are transactions on a snapshot, in the caller's own task.
//! - What waits is bounded by [`WAITING_KIB_MAX`] per partition; a caller over it waits for its turn until its deadline and
//!   is then told `Overloaded`, with nothing done.
//!
//! What it refuses: reading, routing, knowing what a value means.

pub mod actor;
pub mod core;
pub mod handle;

pub use actor::{Msg, StoreActor};
pub use handle::{StoreHandle, WriteFailure};

/// Memory that writes waiting in one partition may hold, in KiB (64 MiB); a write counts its value and one KiB more.
pub const WAITING_KIB_MAX: u32 = 64 << 10;
/// Most writes in one transaction. Larger batches make the sync cheaper per write, but hold all of them up longer.
pub const BATCH_OPS_MAX: usize = 2048;
/// Most keys that one tick reaps when their time to live is over.
pub const EXPIRE_PER_TICK_MAX: usize = 256;
