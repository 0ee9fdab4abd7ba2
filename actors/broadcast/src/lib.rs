//! Broadcast: every event of a node reaches all others along trees, within milliseconds.
//!
//! What it is: Plumtree ([`core`]) over the store. After a commit a node pushes its new events to the peers of its tree; a
//! node that merged something new pushes it on. Along all other links events are only announced, and a node that hears of
//! one and does not get it asks for it.
//!
//! Guarantees: nothing by itself. What is lost, or does not fit a bound, is left to the exchange, which is told of it.
//!
//! Refuses: to keep messages (the store has them) and to wait for a slow peer.

mod actor;
pub mod config;
pub mod core;
pub mod dots;
mod graft;
pub mod handle;
mod jobs;
mod lazy;
pub mod messages;
pub mod source;
mod tree;

pub use config::Config;
pub use core::{Counters, Input, Output, Plumtree};
pub use handle::{BroadcastHandle, Parts, Stats, child_spec};
pub use source::{Behind, Events, MergeFailure, Merging, Sink, Source, StoreSource, stream_of};
