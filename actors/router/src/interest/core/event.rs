//! What goes into the core of interest, and what comes out.

use std::collections::BTreeMap;

use weald_storage::NodeId;

use crate::interest::row::{Change, Row, Value};
use crate::interest::wire::Message;

/// What happens.
#[derive(Debug)]
pub enum Input<'a> {
    /// A peer is connected.
    Up(NodeId),
    /// A peer is not connected any more.
    Down(NodeId),
    /// The membership, whenever it changes.
    Members {
        /// The other nodes.
        members: BTreeMap<NodeId, Presence>,
        /// Whether each is connected with every other.
        is_full_mesh: bool,
    },
    /// Rows of this node, as they are now.
    Changed(&'a BTreeMap<Row, Value>),
    /// A peer has said something.
    Said {
        /// Which.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Time has passed.
    Tick,
}

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It answers.
    Answers,
    /// It does not.
    Silent,
    /// It is no member any more.
    Gone,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message to peers. One that cannot be sent may be dropped.
    Send {
        /// To whom.
        to: Vec<NodeId>,
        /// What.
        message: Message,
    },
    /// Rows of a node are these now.
    Apply {
        /// Whose.
        node: NodeId,
        /// Those that are different.
        rows: Vec<Change>,
    },
    /// Forget all rows of a node, and what was said of their use.
    Drop(NodeId),
    /// Whether the rows of a node may be used. That they may not is said before the first of them.
    Usable(NodeId, bool),
    /// Something to be logged.
    Trouble(NodeId, Trouble),
}

/// What should not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It has more rows than allowed: they are not used, and not taken for a while.
    #[error("it has more than {0} rows")]
    TooMany(usize),
    /// Its rows are not what it says they are: they are fetched again.
    #[error("its rows are not those it has told")]
    Differs,
    /// Its realm or URI is longer than may be told: other nodes do not know of it.
    #[error("a row is too long to be told")]
    TooLong,
    /// Somebody knows more of this node than it does itself: it goes on as a new incarnation.
    #[error("rows of a past life of this node are known")]
    PastLife,
}

/// How the rows of a node stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its incarnation.
    pub incarnation: u64,
    /// Its version.
    pub version: u64,
    /// Rows.
    pub rows: usize,
    /// Rows that are gone, and remembered for those who do not know.
    pub markers: usize,
    /// Whether they are in use.
    pub is_usable: bool,
}
