//! Connections over `ractor_cluster`, shared by nodes and clients.
//!
//! What it is: everything between a connected byte stream and a batch of frames. First the handshake ([`hello`]), then the
//! stream is handed to `ractor_cluster` behind a [`filter`]; a [`connection`] actor stands where `ractor_cluster` expects its
//! `NodeServer`, and owns one connection: its `NodeSession`, its link actor and the way to the peer's link actor.
//!
//! ```text
//! socket ── hello ── filter ── NodeSession ── link actor ──► Receive::frame
//!   ▲                  │            └─ proxy of the peer's link actor ◄── Outbound::send
//!   └──────────────────┘ what is not a cast between the two link actors never passes, in either direction
//! ```
//! What it guarantees: a peer can reach one actor, the link actor of its own connection, and learns of no other; what is
//! read ahead, what waits to be written and what a frame may weigh are bounded in bytes ([`Limits`]); a peer that is silent
//! or does not read is cut; the end of a connection is reported once, with its reason.
//!
//! What it refuses: opening sockets, knowing what a frame means, remote calls (requests carry correlation ids in their
//! frames), process groups, transitive connections.

pub mod connection;
pub mod filter;
pub mod hello;
pub mod outbound;
pub mod pki;
pub mod plain;
mod stream;
mod wire;

pub use connection::{Close, Connection, Handle, Receive, Setup};
pub use outbound::{Outbound, SendError};
pub use plain::{Plain, PlainHandle};
pub use stream::{BoxRead, BoxWrite, Halves};

use std::time::Duration;
use weald_proto::frame::HEADER_BYTES;
use weald_proto::limits::FRAME_BYTES_MAX;

/// Frames are gathered into one batch up to this many bytes; a larger frame is a batch of its own.
pub const BATCH_BYTES: usize = 64 << 10;
/// Largest batch: one frame of the largest size.
pub const BATCH_BYTES_MAX: usize = FRAME_BYTES_MAX + HEADER_BYTES;

/// Least time after which silence may mean anything: `ractor_cluster` pings every 1 to 5 s.
pub const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(6);

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes that wait to be written to the peer.
    pub outbound_bytes_max: usize,
    /// Most bytes that were read and not yet taken by the receiver; the batch that goes over it is still read.
    pub inbound_bytes_max: usize,
    /// A peer that sends nothing, or takes nothing of what waits for it, for so long is cut.
    pub idle_timeout: Duration,
    /// Time from the handshake until both link actors know each other.
    pub setup_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outbound_bytes_max: 64 << 20, // the pending limit of a NATS client
            inbound_bytes_max: 1 << 20,
            idle_timeout: Duration::from_secs(20), // four pings at the slowest pace
            setup_timeout: Duration::from_secs(5),
        }
    }
}
