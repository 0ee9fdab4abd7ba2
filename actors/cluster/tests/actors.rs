//! The processes of a node under a real supervision tree: writes while actors die, the change feed, names, roles, scrubs.

#![allow(clippy::unwrap_used, reason = "a test says what it expected by failing")]

mod support;

mod gate;
mod kills;
mod names;
mod scrub;
mod sessions;
