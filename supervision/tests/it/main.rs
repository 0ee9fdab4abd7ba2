//! Tests of the supervision crate from outside.
//!
//! `tree` makes random trees and faults; `otp` is the reference model, written after OTP's
//! supervisor and not after ours; `cores` runs the pure cores as nested trees; `property` compares
//! the two, and `shell` the model with the real thing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of this crate is tests")]

mod cores;
mod log;
mod otp;
mod property;
mod reports;
mod restarts;
mod shell;
mod stops;
mod support;
mod tasks;
mod tree;
