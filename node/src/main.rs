//! The `weald` binary.
fn main() {}
