//! The `registry` process: names of actors on all nodes, and who holds them.
//!
//! What it is: one actor is the only writer of the names of this node's clients ([`core`]) and of what is known of those of
//! other nodes ([`directory`]); readers take snapshots without asking it. Each node tells its names in rows of its own in a
//! reserved memory table, which broadcast and exchanges carry as any other; the actor follows the changes of that table.
//!
//! ```text
//! register ─► names of this node ─► its row ─► rows of all nodes ─► directory ─► whereis, send
//! ```
//! What it guarantees: on one node a name has one holder at a time; a holder's names are free when its session has ended;
//! the tables outlive a crash of the actor, which then drops the names of sessions that ended meanwhile. Across nodes: a name
//! is known everywhere within milliseconds while links are up, and is refused while another node that answers is known to
//! hold it; of two that registered it without knowing of each other the older keeps it, on every node the same one, and the
//! other is told. What a lost node or incarnation held counts for nothing at once, and the member with the smallest id
//! removes its rows.
//!
//! What it refuses: delivering messages ([`crate::gate`] does), and a name with one holder at every moment: that would take
//! agreement, which a split cluster cannot have.

pub mod actor;
pub mod core;
pub mod directory;
pub mod handle;
mod row;

#[cfg(test)]
mod directory_test;

pub use actor::{Msg, RegistryActor};
pub use handle::{Found, OpenSessions, Parts, RegistryError, RegistryHandle};
