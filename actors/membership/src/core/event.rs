//! What people are told.

use weald_storage::NodeId;

/// Something that happened to the membership, for the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the node and its name, throughout")]
pub enum Event {
    /// A node has joined, or came back after leaving or an eviction.
    Joined { node: NodeId, name: String },
    /// A member answers (again).
    Up { node: NodeId, name: String },
    /// A member does not answer, and may refute.
    Suspect { node: NodeId, name: String },
    /// A member does not answer.
    Down { node: NodeId, name: String },
    /// A member is leaving.
    Leaving { node: NodeId, name: String },
    /// A member has left.
    Left { node: NodeId, name: String },
    /// A member was evicted.
    Evicted { node: NodeId, name: String },
    /// A member was away for too long.
    Fenced { node: NodeId, name: String },
    /// A fenced member is back and has caught up.
    Unfenced { node: NodeId, name: String },
    /// A member listens elsewhere.
    Moved { node: NodeId, name: String, addresses: Vec<String> },
    /// A member has a new incarnation.
    Restarted { node: NodeId, name: String, incarnation: u32 },
    /// Two live nodes have one name.
    NameConflict { name: String, one: NodeId, other: NodeId },
    /// A new node has taken the place of a member of its name that is down.
    Replaced { name: String, old: NodeId, new: NodeId },
    /// This node was evicted: it does nothing in the cluster until it is told to join again.
    SelfEvicted,
    /// This node was away for too long: it has to catch up first.
    SelfFenced,
    /// This node has left, because a live member with a smaller id has its name.
    SelfYielded { name: String, to: NodeId },
    /// A record was not taken in: the view is full.
    Overflow { node: NodeId },
}

impl Event {
    /// Its name in logs; a stable API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "member_joined",
            Self::Up { .. } => "member_up",
            Self::Suspect { .. } => "member_suspect",
            Self::Down { .. } => "member_down",
            Self::Leaving { .. } => "member_leaving",
            Self::Left { .. } => "member_left",
            Self::Evicted { .. } => "member_evicted",
            Self::Fenced { .. } => "member_fenced",
            Self::Unfenced { .. } => "member_unfenced",
            Self::Moved { .. } => "member_moved",
            Self::Restarted { .. } => "member_restarted",
            Self::NameConflict { .. } => "name_conflict",
            Self::Replaced { .. } => "member_replaced",
            Self::SelfEvicted => "self_evicted",
            Self::SelfFenced => "self_fenced",
            Self::SelfYielded { .. } => "self_yielded",
            Self::Overflow { .. } => "members_overflow",
        }
    }
}
