//! Tests of the broadcast: tables of outputs, networks of many nodes in memory, and actors over real stores.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

mod actors;
mod net;
mod overlay;
mod stores;
mod tables;
mod world;
