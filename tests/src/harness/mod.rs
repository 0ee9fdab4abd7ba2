//! Real nodes under test.
//!
//! - [`artefacts`]: a directory per test, kept when the test fails.
//! - [`wait`]: waiting for a condition with a deadline, and a failure that tells the last state.
//! - [`binary`]: where the programs under test are.
//! - [`node`]: a `weald` process, and commands against it.
//! - [`load`]: writers whose acknowledgements are remembered.
//! - [`cluster`]: several nodes that are one cluster, joined by [`wires`].
//! - [`traffic`]: sessions on the nodes of a cluster, and the judgement of what they saw.
//! - [`tmpfs`]: a disk that can be full; [`damage`]: one that cannot be trusted.
//! - [`skew`]: a wall clock that is wrong.
//! - [`results`]: what scenarios found, as a table.

pub mod artefacts;
pub mod binary;
pub mod cluster;
pub mod damage;
pub mod load;
pub mod node;
pub mod results;
pub mod skew;
pub mod tmpfs;
pub mod traffic;
pub mod wait;
pub mod wires;
