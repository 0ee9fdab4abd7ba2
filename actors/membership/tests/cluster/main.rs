//! Whole clusters of cores in one process.
//!
//! Method: a seeded scheduler ([`world`]) carries messages and makes connections as the transport would; each test plays one
//! story of operators and faults, and says by when everybody has to agree.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod copies;
mod liveness;
mod operations;
mod overlay;
mod world;
