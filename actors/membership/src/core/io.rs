//! Inputs and outputs of the membership.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;
use weald_peers::PeerInfo;
use weald_storage::NodeId;

use super::Event;
use crate::messages::Message;

/// Number of a request of an operator, chosen by the caller.
pub type RequestId = u64;
/// Number of an attempt to reach a seed.
pub type DialTicket = u64;

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its incarnation, as told in handshakes.
    pub incarnation: u32,
    /// Where others reach it.
    pub addresses: Vec<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
}

/// Whether a member may be evicted that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// No.
    No,
    /// Yes.
    Yes,
}

/// What happens to the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A message of a connected peer.
    Message {
        /// The peer.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// A peer is connected.
    PeerUp(Arc<PeerInfo>),
    /// The connection to a peer broke.
    PeerDown(NodeId),
    /// What came of an [`Output::DialSeed`].
    Dialled {
        /// Its number.
        ticket: DialTicket,
        /// Who was there, or why not.
        result: Result<Arc<PeerInfo>, String>,
    },
    /// Join a cluster through any of these addresses; also after having left or been evicted.
    Join {
        /// Comes back with the reply.
        request: RequestId,
        /// Addresses of members.
        addresses: Vec<String>,
        /// When to give up.
        deadline_ms: u64,
    },
    /// Leave the cluster.
    Leave {
        /// Comes back with the reply.
        request: RequestId,
        /// When to go without the others having noted it.
        deadline_ms: u64,
    },
    /// Evict a member.
    Forget {
        /// Comes back with the reply.
        request: RequestId,
        /// Its id or name.
        who: String,
        /// Whether it may be up.
        force: Force,
    },
    /// Addresses where members may be. Never removes anybody.
    Discovered {
        /// The addresses.
        addresses: Vec<String>,
    },
    /// This node was fenced and has caught up.
    RejoinDone,
    /// This node has a new incarnation.
    Incarnation(u32),
    /// A member refused this node in the handshake, as evicted.
    EvictedSays {
        /// The member.
        by: NodeId,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message on the control channel.
    Send {
        /// To whom.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Be connected with these, and with nobody else.
    Connect(BTreeMap<NodeId, Vec<String>>),
    /// Connect to whoever is at one of these addresses, and tell with [`Input::Dialled`].
    DialSeed {
        /// Number of the attempt.
        ticket: DialTicket,
        /// The addresses.
        addresses: Vec<String>,
    },
    /// The cluster looks different: see [`super::Membership::cluster`].
    Changed,
    /// Keep these bytes, replacing what was kept.
    Persist(Vec<u8>),
    /// Something worth a line in the log.
    Event(Event),
    /// The answer to a request.
    Reply {
        /// Its number.
        request: RequestId,
        /// The answer.
        result: Result<(), OpError>,
    },
    /// Take an incarnation above this one, and tell with [`Input::Incarnation`]: the present one is evicted.
    RenewIncarnation {
        /// Incarnation that is refused.
        above: u32,
    },
}

/// Why an operator's request failed. Nothing has changed then, but for a join or a leave that ran out of time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpError {
    /// No such member.
    #[error("no member is called {who}; members are: {}", members.join(", "))]
    Unknown {
        /// What was asked for.
        who: String,
        /// Names of all members.
        members: Vec<String>,
    },
    /// Several records have this name.
    #[error("{who} is ambiguous: {}; give the id", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked for.
        who: String,
        /// Their ids.
        ids: Vec<NodeId>,
    },
    /// A node does not evict itself.
    #[error("this is the node itself: use leave")]
    Itself,
    /// The member answers.
    #[error("{name} is up: stop it or let it leave first, or force it")]
    IsUp {
        /// Its name.
        name: String,
    },
    /// No addresses were given.
    #[error("no addresses to join through")]
    NoAddresses,
    /// Nobody could be joined in time; this node keeps what it knows.
    #[error("joined nobody in time: {last}")]
    NotJoined {
        /// The last failure.
        last: String,
    },
    /// It is going already.
    #[error("the node is leaving already")]
    Leaving,
    /// It is not in the cluster.
    #[error("the node is {status}: it is no member")]
    NoMember {
        /// What it is.
        status: weald_peers::Status,
    },
}
