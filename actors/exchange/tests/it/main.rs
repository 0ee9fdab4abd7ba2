//! Sessions between nodes in memory, and the actors between real stores.

// Clippy permits unwrap within test functions only; here everything is a test.
#![allow(clippy::unwrap_used)]

mod laws;
mod nodes;
mod races;
mod repairs;
mod sessions;
mod stores;
