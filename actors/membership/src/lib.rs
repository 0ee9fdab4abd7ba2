//! Membership of a Weald cluster: who belongs to it, and who is alive.
//!
//! What it is: pure parts and a thin shell. [`view`] is the replicated list of members, [`swim`] the failure detector,
//! [`overlay`] `HyParView`, `plumtree` the way of changes, [`gossip`] that of rumours; [`core::Membership`] puts them together.
//!
//! What it guarantees: membership changes by operators and by the nodes themselves, never by a failure detector, a DNS answer or a
//! stopped process. What is known of members is the same everywhere after the news have gone round.
//!
//! What it refuses: opening connections (see [`Connector`]), and knowing what else the cluster talks about.

pub mod config;
pub mod core;
pub mod gossip;
pub mod messages;
pub mod overlay;
mod plumtree;
pub mod rng;
pub mod saved;
pub mod swim;
pub mod view;

pub mod admission;

pub mod actor;
mod connector;
pub mod discovery;
pub mod file;
pub mod handle;
pub mod srv;
mod trace;

pub use actor::{Setup, child_spec};
pub use admission::Refusal;
pub use connector::{Connector, ConnectorHandle, DialError, Renew, RenewHandle};
pub use core::{Force, OpError, Own};
pub use handle::{MembershipHandle, RequestError, Stats};
