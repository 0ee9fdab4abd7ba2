//! The processes of a Weald node: partitions, hash trees, transport, registry.

pub mod service;
