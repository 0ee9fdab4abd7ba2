//! The client against a node in the same process: the real transport and control socket over a fake store.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test ends where it fails"
)]

mod support;

mod attack;
mod calls;
mod examples;
mod names;
mod raw;
mod reconnect;
mod secure;
mod sessions;
mod socket;
