//! Nodes in one process, over real sockets and real certificates: connections between them, and what may go wrong.

#![allow(clippy::unwrap_used, reason = "a test says what it expected by failing")]

#[path = "peers/support.rs"]
mod support;

#[path = "peers/connect.rs"]
mod connect;
#[path = "peers/far.rs"]
mod far;
#[path = "peers/faults.rs"]
mod faults;
#[path = "peers/refuse.rs"]
mod refuse;
