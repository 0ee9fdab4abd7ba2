//! The commands that talk to a node or look at files.
//!
//! Guarantees: each takes an [`crate::api::Api`] or none, prints through [`crate::out::Out`], and ends with an
//! [`crate::exit::Exit`] of the documented table.

pub(crate) mod aae;
pub(crate) mod bench;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod init;
pub(crate) mod kv;
pub(crate) mod log_level;
pub(crate) mod names;
pub(crate) mod remote;
mod session;
pub(crate) mod status;
pub(crate) mod supervision;
pub(crate) mod table;
pub(crate) mod transfer;
pub(crate) mod watch;
