//! Anti-entropy of a Weald cluster: exchanges between nodes, causal stability, session consistency.
//!
//! What it is: a pure core ([`core`]) and the actors around it. Nodes compare all their shards (a space of a partition each)
//! in one message; of those that differ they send each other what the other's clock lacks, and walk their trees only if the
//! clocks cannot help. From the clocks that members acknowledge follows what is stable and may be swept; a request with a
//! [`SessionToken`] waits until this node's clocks cover it.
//!
//! What it guarantees: an exchange holds no locks, is bounded in memory and time, and may be cut at any point; the next one
//! goes on from the clocks. Nothing is swept that a member may still lack.
//!
//! What it refuses: sockets and the store's writers; it is given a network and a sink.

pub mod config;
pub mod core;
pub mod token;

mod actor;
mod frames;
mod handle;
mod running;
mod seams;
mod sweeper;

pub use config::Config;
pub use core::MergeFailure;
pub use handle::{ExchangeHandle, NotCaughtUp, PeerReport, Report, RunError, Status};
pub use seams::{Deps, Lives, Partitions, Sink, Upkeep};
pub use token::{SessionToken, TokenError};
