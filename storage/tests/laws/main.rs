//! Laws of the pure part of the store, on states that histories can reach.

// Clippy permits unwrap within test functions only; here the helpers around them are tests as well.
#![allow(clippy::unwrap_used)]

mod bytes;
mod differential;
mod examples;
mod history;
mod keys;
mod merge;
mod tree;
