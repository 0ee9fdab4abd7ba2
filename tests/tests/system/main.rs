//! The real binary under faults.
//!
//! - [`dataset`]: a real data set is imported while actors are killed and the process is shot; nothing acknowledged is lost.
//! - [`actors`]: kills of every actor, of one actor a thousand times, and of one too often.
//! - [`disk`]: a full disk, and damaged files.
//! - [`lost_disk`]: a sync that fails.
//! - [`commands`]: two nodes on one directory, exports under load, an importer that is shot.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and speaks to whoever runs it"
)]

mod actors;
mod commands;
mod dataset;
mod disk;
mod lost_disk;
