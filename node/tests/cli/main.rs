//! The real binary, end to end: every command against real nodes in temporary directories.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests stop the test")]

mod bench;
mod cluster;
mod config;
mod data;
mod lifecycle;
mod operate;
mod support;
mod transfer;
