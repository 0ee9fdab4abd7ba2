//! Laws of the pure part of the store, on states that histories can reach.

// Clippy permits unwrap within test functions only; here everything is a test.
#![allow(clippy::unwrap_used)]

mod bytes;
mod differential;
mod examples;
mod history;
mod keys;
mod merge;
mod replicas;
mod replication;
mod tree;
