//! The engine on real files: one test binary, so that it is linked once.
//!
//! A test that has to die (a kill in the middle of a commit) or that may meet damage runs in a
//! child: this binary started again with [`support::CHILD`] set and one test selected.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(clippy::print_stdout, reason = "tests say why they skip")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod changes;
mod child;
mod crash;
mod crud;
mod damage;
mod lives;
mod model;
mod repair;
mod replication;
mod scans;
mod space;
mod support;
