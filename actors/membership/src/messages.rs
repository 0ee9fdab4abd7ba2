//! What members say to each other.
//!
//! # Shape
//! One frame kind ([`KIND`]) whose body is the postcard of a [`Message`]: a [`Body`] with rumours riding on it.
//!
//! A change of a record goes along the tree of the node at which it was made (`News`), is announced to the others (`IHave`), and
//! is asked for by who does not get it (`Graft`); who gets it twice says so (`Prune`). Comparisons announce, too.
//!
//! # Limits
//! A message has at most [`MESSAGE_BYTES_MAX`] bytes; lists are bounded by that and by their own constants. Whatever a peer sends
//! decodes or is [`weald_peers::Malformed`].

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weald_peers::{Liveness, Malformed, Status, kind};
use weald_storage::NodeId;

use crate::view::{HeadRank, Record, head_rank};

/// Kind of the frames.
pub const KIND: u16 = kind::of(kind::MEMBERSHIP, 1);
/// Most bytes of a message. // guess: a page of some five hundred records
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of records in one message; the rest is left for rumours and the body.
pub const PAGE_BYTES: usize = 48 << 10;
/// Most rumours in one message.
pub const RUMOURS_MAX: usize = 256;
/// Most announced records in one message. // some 60 KiB if all numbers are large
pub const HEADS_MAX: usize = 800;
/// Most nodes that are asked for in one message.
pub const ASKED_MAX: usize = 2_048;
/// Most nodes in one shuffle. // paper: 8; guess: room for other settings
pub const SHUFFLE_NODES_MAX: usize = 64;

/// What is said of a node being alive. Counted by its own `refute`: only the node itself raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rumour {
    /// The node.
    pub node: NodeId,
    /// Its counter.
    pub refute: u32,
    /// What is said.
    pub liveness: Liveness,
}

/// A record on its way, with what its sender thinks of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The record.
    #[serde(serialize_with = "write_record", deserialize_with = "read_record")]
    pub record: Arc<Record>,
    /// How long ago the node left or was evicted, milliseconds.
    pub gone_for_ms: u64,
    /// Counter of `liveness`.
    pub refute: u32,
    /// Whether the node answers.
    pub liveness: Liveness,
}

/// What a record is, without its texts: enough to know whether it is news. With it goes what its sender thinks of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The node.
    pub node: NodeId,
    /// As in the record.
    pub epoch: u32,
    /// As in the record.
    pub incarnation: u32,
    /// As in the record.
    pub version: u64,
    /// As in the record.
    pub status: Status,
    /// Hash of name, addresses and capabilities.
    pub texts: u32,
    /// How long ago the node left or was evicted, milliseconds.
    pub gone_for_ms: u64,
    /// Counter of `liveness`.
    pub refute: u32,
    /// Whether the node answers.
    pub liveness: Liveness,
}

impl Head {
    /// What decides between two records of a node; for equal ones the texts do.
    #[must_use]
    pub const fn rank(&self) -> HeadRank {
        head_rank(self.epoch, self.incarnation, self.version, self.status)
    }
}

impl Entry {
    /// What is announced of it.
    #[must_use]
    pub fn head(&self) -> Head {
        let record = &self.record;
        Head {
            node: record.node,
            epoch: record.epoch,
            incarnation: record.incarnation,
            version: record.version,
            status: record.status,
            texts: record.texts_hash(),
            gone_for_ms: self.gone_for_ms,
            refute: self.refute,
            liveness: self.liveness,
        }
    }
}

/// A record that its sender has, and on which tree it has come; `None` when it came another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Root of the tree.
    pub root: Option<NodeId>,
    /// The record.
    pub head: Head,
}

fn write_record<S: Serializer>(record: &Record, to: S) -> Result<S::Ok, S::Error> {
    record.serialize(to)
}

fn read_record<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Record>, D::Error> {
    Record::deserialize(from).map(Arc::new)
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Records that are news.
    pub records: Vec<Entry>,
    /// News of who is alive.
    pub rumours: Vec<Rumour>,
    /// The message proper.
    pub body: Body,
}

/// The message proper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Nothing but rumours, or the record of who is evicted.
    Gossip,
    /// Changes, in `records`.
    News {
        /// At which node they came into the cluster; `None` when they are of a comparison.
        root: Option<NodeId>,
        /// Whether the receiver has asked for them.
        is_answer: bool,
    },
    /// Records that the sender has, at most [`HEADS_MAX`].
    IHave {
        /// Those that the receiver may lack.
        items: Vec<Announcement>,
    },
    /// Please send these records, and the changes of this root from now on.
    Graft {
        /// Of which tree, if of any.
        root: Option<NodeId>,
        /// Whose records, at most [`ASKED_MAX`]; may be nobody's.
        nodes: Vec<NodeId>,
    },
    /// Please keep the changes of this root.
    Prune {
        /// The root.
        root: NodeId,
    },
    /// Are you there?
    Ping {
        /// Comes back with the answer.
        seq: u64,
        /// Whether the sender takes the receiver for a neighbour of its overlay.
        is_neighbour: bool,
    },
    /// I am here.
    Ack {
        /// Of the ping.
        seq: u64,
    },
    /// Please ping another node for me.
    PingRequest {
        /// Comes back with the answer.
        seq: u64,
        /// The other.
        target: NodeId,
    },
    /// The other node answered.
    PingReached {
        /// Of the request.
        seq: u64,
    },
    /// The other node did not answer; but I do.
    PingFailed {
        /// Of the request.
        seq: u64,
    },
    /// Compare views.
    Sync {
        /// [`crate::view::View::digest`] of the sender.
        digest: u64,
        /// The sender's own record.
        own: Head,
        /// Whether the sender does not know the receiver, whose own record has to come with the answer then.
        is_stranger: bool,
    },
    /// They are equal.
    SyncEqual,
    /// They are not: what the sender has, its own record first.
    SyncHeads {
        /// A page of them, at most [`HEADS_MAX`].
        heads: Vec<Head>,
        /// Whether it is the last.
        is_last: bool,
    },
    /// The sender's own record is in `records`: please note it and say so.
    Announce,
    /// Noted the sender's record of this version.
    Noted {
        /// The version.
        version: u64,
    },
    /// Business of the overlay.
    Overlay(Overlay),
}

/// Messages of `HyParView`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlay {
    /// I am new: be my neighbour, and tell others.
    Join,
    /// A new node is looking for neighbours. Its record is among the news.
    ForwardJoin {
        /// The new node.
        node: NodeId,
        /// Hops left.
        ttl: u8,
    },
    /// Be my neighbour.
    Neighbour {
        /// Whether the sender has no other: not to be refused.
        is_urgent: bool,
    },
    /// Answer to `Neighbour` and `Join`.
    NeighbourReply {
        /// Whether the sender is a neighbour now.
        is_accepted: bool,
    },
    /// We are neighbours no longer.
    Disconnect,
    /// Let us exchange spare nodes.
    Shuffle {
        /// Who began.
        origin: NodeId,
        /// Number of the shuffle at the origin.
        id: u64,
        /// Hops left.
        ttl: u8,
        /// Spare nodes.
        nodes: Vec<NodeId>,
    },
    /// Answer to a shuffle, on its way back.
    ShuffleReply {
        /// Who began.
        origin: NodeId,
        /// Number of the shuffle at the origin.
        id: u64,
        /// Spare nodes.
        nodes: Vec<NodeId>,
    },
}

impl Message {
    /// A message without news.
    #[must_use]
    pub const fn bare(body: Body) -> Self {
        Self { records: Vec::new(), rumours: Vec::new(), body }
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("writing to memory does not fail")
    }

    /// Reads what a peer sent.
    ///
    /// # Errors
    /// [`Malformed`]: too long, not a message, something behind it, or out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = |why: String| Malformed::new("membership message", why);
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(bad(format!("{} bytes", bytes.len())));
        }
        let (message, rest) =
            postcard::take_from_bytes::<Self>(bytes).map_err(|e| bad(e.to_string()))?;
        if !rest.is_empty() {
            return Err(bad(format!("{} bytes behind it", rest.len())));
        }
        if message.rumours.len() > RUMOURS_MAX {
            return Err(bad(format!("{} rumours", message.rumours.len())));
        }
        if let Some(entry) = message.records.iter().find(|entry| !entry.record.is_valid()) {
            return Err(bad(format!("record of {} is out of bounds", entry.record.node)));
        }
        let (what, count, max) = match &message.body {
            Body::IHave { items } => ("announcements", items.len(), HEADS_MAX),
            Body::SyncHeads { heads, .. } => ("heads", heads.len(), HEADS_MAX),
            Body::Graft { nodes, .. } => ("nodes in a graft", nodes.len(), ASKED_MAX),
            Body::Overlay(Overlay::Shuffle { nodes, .. } | Overlay::ShuffleReply { nodes, .. }) => {
                ("nodes in a shuffle", nodes.len(), SHUFFLE_NODES_MAX)
            }
            _ => return Ok(message),
        };
        if count > max {
            return Err(bad(format!("{count} {what}")));
        }
        Ok(message)
    }
}
