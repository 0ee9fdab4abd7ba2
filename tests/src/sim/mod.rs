//! A cluster in one thread: the pure cores of many nodes, under a network, disks and clocks that misbehave on purpose.
//!
//! - [`plan`]: what goes wrong, drawn from a seed; [`net`]: what becomes of frames; [`queue`]: virtual time; [`world`]: a run.
//! - [`process`]: a node, from the cores of membership, broadcast and exchange around replicas in memory.
//! - [`history`]: what clients did and saw; [`invariants`]: what must hold, at any moment and once the faults are over.
//! - [`trace`]: a hash of everything that happened; [`sometimes`]: what a suite must have been through.
//! - [`scale`]: a thousand nodes that only broadcast.
//!
//! What is not simulated: the shells around the cores (actors, sockets, LMDB), and whatever they do on their own.
//!
//! Guarantees: a run is a function of its seed, bit for bit. There is one source of randomness, no clock but the virtual one,
//! and no map in random order.

mod broadcasting;
mod clients;
mod exchanging;
mod faults;
pub mod history;
pub mod invariants;
mod links;
mod membering;
pub mod net;
pub mod plan;
pub mod process;
pub mod queue;
pub mod replicas;
pub mod scale;
pub mod sometimes;
pub mod trace;
pub mod world;

pub use plan::Plan;
pub use sometimes::Sometimes;
pub use world::{Failure, Report, run};
