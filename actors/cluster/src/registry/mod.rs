//! The `registry` process: names of actors, and who holds them.
//!
//! What it is: one actor is the only writer of the table of names; readers take a snapshot without asking it.
//!
//! What it guarantees: a name has one holder at a time; a holder's names are free when its session has ended; the table
//! outlives a crash of the actor, which then drops the names of sessions that ended meanwhile.
//!
//! What it refuses: delivering messages ([`crate::gate`] does), and names of other nodes, which come with the cluster.

pub mod actor;
pub mod core;
pub mod handle;

pub use actor::{Msg, RegistryActor};
pub use handle::{OpenSessions, RegistryError, RegistryHandle};
