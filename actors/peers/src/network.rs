//! Frames between nodes: how they are sent, and who takes them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weald_proto::{Frame, FrameError};
use weald_storage::NodeId;

/// Kinds of frames between nodes. The high byte says which service takes the frame; each service numbers its own.
pub mod kind {
    /// Membership: views, probes, overlay.
    pub const MEMBERSHIP: u8 = 0x11;
    /// Broadcast: gossip, announcements, grafts, prunes.
    pub const BROADCAST: u8 = 0x12;
    /// Exchange: clocks, trees, objects, acknowledged clocks.
    pub const EXCHANGE: u8 = 0x13;
    /// The registry and routing between nodes.
    pub const ROUTING: u8 = 0x14;
    /// Messages for named actors.
    pub const ACTORS: u8 = 0x15;

    /// The kind of message `number` of a service.
    #[must_use]
    pub const fn of(service: u8, number: u8) -> u16 {
        (service as u16) << 8 | number as u16
    }

    /// The service that takes a kind.
    #[must_use]
    pub const fn service(kind: u16) -> u8 {
        kind.to_be_bytes()[0]
    }
}

/// A class of traffic, with connections of its own: a large transfer never delays control traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// Membership, probes, broadcast control. Small and urgent.
    Control,
    /// Objects: broadcast and exchanges.
    Data,
    /// Calls and events of clients between nodes.
    Relay,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Relay];
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Data => "data",
            Self::Relay => "relay",
        })
    }
}

/// Why a frame was not taken. It was not sent then, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no connection to that peer on that channel.
    #[error("not connected")]
    NotConnected,
    /// Too much waits for the peer. The overflow is counted by the network; the sender falls back to an exchange.
    #[error("{waiting} bytes wait for the peer already")]
    Full {
        /// Bytes waiting.
        waiting: usize,
    },
    /// The frame is larger than any may be.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Sends frames to peers.
pub trait Network: Send + Sync + 'static {
    /// Queues a frame and never waits. In a partial mesh a frame on [`Channel::Relay`] for a member without a connection waits
    /// for one to be dialled, and comes back by [`Inbox::unsent`] if that fails. Frames of one (peer, channel, lane) arrive in
    /// order while the connection lasts; `lane` is any number (a hash of a key), equal numbers share a lane, also after a
    /// reconnect.
    ///
    /// # Errors
    /// [`SendError`]; `Ok` means queued, nothing more.
    fn send(&self, to: NodeId, channel: Channel, lane: u64, frame: &Frame)
    -> Result<(), SendError>;

    /// Whether less than half of the peer's queue on this channel is taken. False when it is not connected.
    fn has_room(&self, to: NodeId, channel: Channel) -> bool;
}

/// Who a connected peer is, by its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its id.
    pub node: NodeId,
    /// Its name, proved by its certificate.
    pub name: String,
    /// Its incarnation.
    pub incarnation: u32,
    /// Where it says it listens.
    pub addresses: Vec<String>,
    /// What it can do, by name.
    pub capabilities: Vec<String>,
}

/// What happens to connections with peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerEvent {
    /// All channels to the peer are connected.
    Up(Arc<PeerInfo>),
    /// The first of its connections is gone; the others follow.
    Down {
        /// The peer.
        node: NodeId,
        /// Why.
        why: String,
        /// Whether both ends had no use for it (see [`Inbox::needs`]), so nothing is lost. Frames that were sent meanwhile wait
        /// for the next connection.
        is_agreed: bool,
    },
}

/// Takes what comes from peers, for one service. Called from connection actors: it must not block.
pub trait Inbox: Send + Sync + 'static {
    /// A frame, in order within its (peer, channel, lane). Its kind is one of the service.
    fn frame(&self, from: NodeId, channel: Channel, frame: Frame);
    /// The frames of one batch, as it came from the peer on this channel, were handed in; some of them may have been for other
    /// services. Whoever gathers what frames cause, to write it out at once, does so now.
    fn batch_end(&self, from: NodeId, channel: Channel) {
        let _nothing_was_gathered = (from, channel);
    }
    /// A peer has come or gone. For one peer `Up` and `Down` alternate.
    fn peer(&self, event: &PeerEvent);
    /// Whether something between this node and a peer is under way that would be lost with the connection. Asked before one
    /// that nobody has used for a while is closed.
    fn needs(&self, peer: NodeId) -> bool {
        let _nothing_is_under_way = peer;
        false
    }
    /// A frame that waited for a connection with a node, which could not be made. It was not sent, and will not be.
    fn unsent(&self, to: NodeId, frame: Frame) {
        let _nobody_misses_it = (to, frame);
    }
}
