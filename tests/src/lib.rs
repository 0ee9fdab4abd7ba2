//! What the integration tests of Weald share.
//!
//! - [`harness`]: real `weald` processes in directories of their own, commands against them, waiting, and what is kept when a
//!   test fails.
//! - [`checkers`]: histories of clients, judged afterwards.
//! - [`dataset`]: Debian package records as JSON lines, a data set that nobody here wrote.
//! - [`netns`]: a network of its own for each node.
//! - [`powerloss`]: a recorder of what a process writes to disk, and the data directories a power cut may leave.
//! - [`proxy`]: a network between nodes that does what a test wants.
//! - [`seed`]: randomness that can be repeated.
//! - [`sim`]: a cluster in one thread, from the cores of its nodes.
//! - [`wamp`]: a WAMP client that shares no code with the router.
//!
//! Nothing here ends a process that it did not start itself.
#![allow(
    clippy::print_stderr,
    reason = "tests tell whoever runs them what is skipped, seeds, and the places of artefacts"
)]

pub mod checkers;
pub mod dataset;
pub mod harness;
pub mod netns;
pub mod powerloss;
pub mod proxy;
pub mod seed;
pub mod sim;
pub mod wamp;
