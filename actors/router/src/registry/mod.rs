//! The registry of one realm: subscriptions and registrations, of this node's sessions and of other nodes.
//!
//! What it is: a pure state machine with one writer, and immutable snapshots of it that routing
//! reads without locks.
//!
//! What it guarantees: a snapshot never changes; each change tells as data what it did, to clients (meta events) and to
//! other nodes (interest).
//!
//! What it refuses: clocks, randomness, sockets and mail: they are passed in, or somebody else's.

pub mod choice;
pub mod effect;
pub mod id;
pub mod members;
pub mod pattern;
