//! The processes of a Weald node: partitions, hash trees, transport, registry.

pub mod control;
pub mod gate;
pub mod hashtree;
pub mod mail;
pub mod node;
pub mod registry;
pub mod replication;
pub mod service;
pub mod session;
pub mod store;
pub mod transport;
