//! Connections over real sockets on loopback, byte for byte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod autobahn;
mod common;
mod listener;
mod outbox;
mod raw;
mod websocket;
