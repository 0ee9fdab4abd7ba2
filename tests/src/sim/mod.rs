//! A cluster in one thread: the pure cores of many nodes, under a network, disks and clocks that misbehave on purpose.
//!
//! - [`plan`]: what goes wrong, drawn from a seed; [`net`]: what becomes of frames; [`queue`]: virtual time.
//! - [`history`]: what clients did and saw; [`invariants`]: what must hold.
//! - [`trace`]: a hash of everything that happened.
//!
//! Guarantees: a run is a function of its seed, bit for bit. There is one source of randomness, no clock but the virtual one,
//! and no map in random order.

mod broadcasting;
mod clients;
mod exchanging;
mod faults;
pub mod history;
pub mod invariants;
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
