//! Real nodes under test.
//!
//! - [`artefacts`]: a directory per test, kept when the test fails.
//! - [`wait`]: waiting for a condition with a deadline, and a failure that tells the last state.
//! - [`binary`]: where the programs under test are.
//! - [`node`]: a `weald` process, and commands against it.
//! - [`load`]: writers whose acknowledgements are remembered.

pub mod artefacts;
pub mod binary;
pub mod load;
pub mod node;
pub mod wait;
