//! What makes a node a member: transport, membership, broadcast and exchange, put together over the store.

pub mod sink;

pub use sink::StoreSink;
