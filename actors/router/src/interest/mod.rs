//! Interest: what nodes know of each other's routes.
//!
//! What it is: each node tells all others what its sessions want, as rows of (realm, kind, URI, match, policy) with a count,
//! never who they are. [`core`] is the protocol, [`InterestHandle`] what others hold of the actor that runs it, [`Routes`]
//! where rows of other nodes go.
//!
//! ```text
//! registry ─ changed(rows) ─► deltas to all peers, or along a tree, within milliseconds
//! digests each second ─► pulls ─► deltas        whatever was lost
//! rows of peers ─► Routes                        applied in their order, unused while their node is not reached
//! ```
//! What it guarantees: a node knows the rows of all whom it reaches, over any number of others; a row goes where its node
//! goes, without markers that remain; what it costs depends on the distinct rows that change, not on the sessions behind
//! them; queues and frames are bounded; a crash of the actor loses nothing.
//!
//! What it refuses: who the sessions are, messages of clients, and persistence: rows live as long as their sessions.

mod actor;
mod config;
pub mod core;
mod handle;
mod ledger;
mod origin;
mod row;
pub mod wire;

#[cfg(test)]
mod actor_test;
#[cfg(test)]
mod core_test;
#[cfg(test)]
mod ledger_test;
#[cfg(test)]
mod sim_test;

pub use config::Config;
pub use handle::{InterestHandle, Parts, Routes, Stats, Status};
pub use ledger::{Part, Versioned};
pub use row::{Change, REALM_BYTES_MAX, Row, URI_BYTES_MAX, Value, change_for, change_of};
