//! Routing between nodes.

pub mod frames;
