//! Vocabulary of the cluster: peers, channels, members, and what is sent between nodes.
//!
//! What it is: the types on which transport, membership, broadcast and exchange agree, so that none of them depends on
//! another. [`Network`] sends frames to peers, [`Inbox`] takes what comes from them, [`Cluster`] is the membership as
//! everybody else sees it.
//!
//! What it refuses: I/O, actors, time.

pub mod cluster;
pub mod delivery;
pub mod meter;
pub mod network;
pub mod tree;
pub mod wire;

pub use cluster::{Cluster, ClusterWatch, Liveness, Member, Status};
pub use meter::{Meter, Permit};
pub use network::{Channel, Inbox, Network, PeerEvent, PeerInfo, SendError, kind};
pub use tree::Tree;
pub use wire::{Dots, Malformed, WireDelta};
