//! Sessions: from HELLO to the last GOODBYE, and everything a client says in between.
//!
//! What it is: one task for each connection, which reads, decodes and routes by itself ([`serve`]).
//! What it guarantees: a protocol violation ends in ABORT with the reason; whatever ends a session (its client, a kill, a
//! crash of its task), nothing of it stays behind. What it refuses: sockets, and rules of access.

use weald_transports::Flushes;

pub mod core;
pub mod handle;
pub mod ids;
pub(crate) mod reply;
mod run;
pub mod testament;
pub(crate) mod welcome;

pub use handle::{Ending, Handle};
pub use run::serve;

/// What a task has at hand while it routes.
#[derive(Debug)]
pub(crate) struct Work {
    /// Connections that were written to, to be flushed when the batch is done.
    pub(crate) flushes: Flushes,
    /// For ids and random choices.
    pub(crate) rng: fastrand::Rng,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self { flushes: Flushes::default(), rng: fastrand::Rng::new() }
    }
}

/// A client broke the protocol: ABORT, with this explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);
