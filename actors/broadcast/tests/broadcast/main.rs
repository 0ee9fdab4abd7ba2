//! Tests of the broadcast: tables of outputs, networks of many nodes in memory, and actors over real stores.

mod net;
mod overlay;
mod tables;
