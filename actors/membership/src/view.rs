//! The view: a record per node, merged without coordination.
//!
//! What it is: a map from node to its greatest record. Records are totally ordered ([`Record::rank`]), a merge keeps the greater:
//! so merging is commutative, associative and idempotent, and all nodes end with the same view whatever the order of the news.
//!
//! What it guarantees: an eviction beats everything its subject says of itself until an operator lets it join again, a fence
//! until it has caught up; both returns start a new *epoch*. A restart, which takes a new incarnation, is not enough.
//!
//! What it refuses: knowing who is alive, and clocks (ages are handed in).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weald_peers::Status;
use weald_storage::NodeId;
use xxhash_rust::xxh3::Xxh3Default;

use crate::messages::Head;

/// Most records of one view; further nodes are not taken in. // guess: well above the largest cluster tried
pub const RECORDS_MAX: usize = 16_384;
/// Most bytes of a name, an address, or a capability.
pub const TEXT_BYTES_MAX: usize = 255;
/// Most addresses of a node.
pub const ADDRESSES_MAX: usize = 8;
/// Most capabilities of a node.
pub const CAPABILITIES_MAX: usize = 32;

/// What the cluster knows of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Counts the returns of the node from a fence or an eviction. Raised by the node only.
    pub epoch: u32,
    /// Its incarnation. Raised by the node only.
    pub incarnation: u32,
    /// Raised with each change: by the node, and by whoever fences or evicts it.
    pub version: u64,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// What it can do.
    pub capabilities: Vec<String>,
}

/// What decides between two records of a node; the greater wins.
pub type Rank<'a> = (u32, u8, u32, u64, Status, (&'a str, &'a [String], &'a [String]));

/// A [`Rank`] without the texts.
pub type HeadRank = (u32, u8, u32, u64, Status);

/// The numbers of a rank, in their order.
pub(crate) const fn head_rank(
    epoch: u32,
    incarnation: u32,
    version: u64,
    status: Status,
) -> HeadRank {
    let sticks = match status {
        Status::Evicted => 2,
        Status::Fenced => 1,
        Status::Joined | Status::Leaving | Status::Left => 0,
    };
    (epoch, sticks, incarnation, version, status)
}

impl Record {
    /// (epoch, evicted or fenced, incarnation, version), then the status, then the rest.
    #[must_use]
    pub fn rank(&self) -> Rank<'_> {
        let rest = (self.name.as_str(), self.addresses.as_slice(), self.capabilities.as_slice());
        let (epoch, sticks, incarnation, version, status) =
            head_rank(self.epoch, self.incarnation, self.version, self.status);
        (epoch, sticks, incarnation, version, status, rest)
    }

    /// What decides between two records of a node before their texts do.
    #[must_use]
    pub const fn head_rank(&self) -> HeadRank {
        head_rank(self.epoch, self.incarnation, self.version, self.status)
    }

    /// Equal for equal texts.
    #[must_use]
    pub fn texts_hash(&self) -> u32 {
        let mut hash = Xxh3Default::new();
        hash.update(self.name.as_bytes());
        for (list, texts) in [&self.addresses, &self.capabilities].into_iter().enumerate() {
            for text in texts {
                hash.update(&[0, u8::try_from(list).unwrap_or_default()]);
                hash.update(text.as_bytes());
            }
        }
        let [.., a, b, c, d] = hash.digest().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Whether it keeps to the bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let short = |text: &String| text.len() <= TEXT_BYTES_MAX && !text.is_empty();
        short(&self.name)
            && self.addresses.len() <= ADDRESSES_MAX
            && self.capabilities.len() <= CAPABILITIES_MAX
            && self.addresses.iter().all(short)
            && self.capabilities.iter().all(short)
    }

    /// The same with another status and the next version.
    #[must_use]
    pub fn with_status(&self, status: Status) -> Self {
        Self { status, version: self.version.saturating_add(1), ..self.clone() }
    }

    /// About how many bytes it takes on the wire.
    #[must_use]
    pub fn len_hint(&self) -> usize {
        let texts = self.addresses.iter().chain(&self.capabilities).map(|t| t.len() + 2);
        64 + self.name.len() + texts.sum::<usize>()
    }
}

/// A record, and what this node adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The record.
    pub record: Arc<Record>,
    /// Last sign of life, Unix milliseconds by this node's clock. For people only.
    pub seen_ms: u64,
    /// The same in milliseconds that this node had been running, over all its lives; absence is counted in these.
    pub seen_run_ms: u64,
    /// Since when it has left or is evicted, likewise; means nothing for a member.
    pub gone_run_ms: u64,
}

/// The moment of a change, by two clocks of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Unix milliseconds.
    pub wall_ms: u64,
    /// Milliseconds that this node has been running, over all its lives.
    pub run_ms: u64,
}

/// What a merge has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Nothing: known already, or older than what is known.
    Nothing,
    /// A node that was not known.
    New,
    /// The record of a known node; this is the one before.
    Changed(Arc<Record>),
    /// Not taken: out of bounds, or the view is full.
    Refused,
}

/// The records of all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    rows: BTreeMap<NodeId, Row>,
}

impl View {
    /// Takes a record in if it is greater than the known one. `gone_for_ms`: how long ago the node left or was evicted.
    pub fn merge(&mut self, record: &Arc<Record>, at: Moment, gone_for_ms: u64) -> Merged {
        if !record.is_valid() {
            return Merged::Refused;
        }
        let gone_run_ms = at.run_ms.saturating_sub(gone_for_ms);
        let is_full = self.rows.len() >= RECORDS_MAX;
        match self.rows.get_mut(&record.node) {
            None if is_full => Merged::Refused,
            None => {
                let row = Row {
                    record: Arc::clone(record),
                    seen_ms: at.wall_ms,
                    seen_run_ms: at.run_ms,
                    gone_run_ms,
                };
                self.rows.insert(record.node, row);
                Merged::New
            }
            Some(row) if record.rank() > row.record.rank() => {
                let before = std::mem::replace(&mut row.record, Arc::clone(record));
                if before.status.is_member() {
                    row.gone_run_ms = gone_run_ms;
                }
                Merged::Changed(before)
            }
            Some(row) => {
                // The oldest age counts, or records of the gone would be passed on for ever.
                if row.record.rank() == record.rank() {
                    row.gone_run_ms = row.gone_run_ms.min(gone_run_ms);
                }
                Merged::Nothing
            }
        }
    }

    /// What is known of a node.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Row> {
        self.rows.get(&node)
    }

    /// Its record.
    #[must_use]
    pub fn record(&self, node: NodeId) -> Option<&Arc<Record>> {
        self.rows.get(&node).map(|row| &row.record)
    }

    /// Whether it belongs to the cluster.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.record(node).is_some_and(|record| record.status.is_member())
    }

    /// All rows by node.
    pub fn rows(&self) -> impl Iterator<Item = (NodeId, &Row)> {
        self.rows.iter().map(|(node, row)| (*node, row))
    }

    /// All that belong to the cluster.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Row)> {
        self.rows().filter(|(_, row)| row.record.status.is_member())
    }

    /// Rows, of members and of the gone.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it knows nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Notes a sign of life.
    pub fn seen(&mut self, node: NodeId, at: Moment) {
        if let Some(row) = self.rows.get_mut(&node) {
            (row.seen_ms, row.seen_run_ms) = (at.wall_ms, at.run_ms);
        }
    }

    /// Notes since when somebody else counts a node as gone. The oldest age counts, as in a merge.
    pub fn gone_for(&mut self, head: &Head, run_ms: u64) {
        if let Some(row) = self.rows.get_mut(&head.node)
            && row.record.head_rank() == head.rank()
        {
            row.gone_run_ms = row.gone_run_ms.min(run_ms.saturating_sub(head.gone_for_ms));
        }
    }

    /// Puts a row back as it was saved.
    pub(crate) fn restore(&mut self, row: Row) {
        if row.record.is_valid() && self.rows.len() < RECORDS_MAX {
            self.rows.insert(row.record.node, row);
        }
    }

    /// Drops records of nodes that are gone for longer than `ttl_ms`. Returns them.
    pub fn drop_gone(&mut self, run_ms: u64, ttl_ms: u64, own: NodeId) -> Vec<NodeId> {
        let is_old = |row: &Row| {
            !row.record.status.is_member() && run_ms.saturating_sub(row.gone_run_ms) > ttl_ms
        };
        let old = self.rows().filter(|(node, row)| *node != own && is_old(row));
        let old: Vec<NodeId> = old.map(|(node, _)| node).collect();
        for node in &old {
            self.rows.remove(node);
        }
        old
    }

    /// Equal for equal views. Covers the records only, not what this node adds.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        for (node, row) in &self.rows {
            let record = &row.record;
            hash.update(&node.0);
            hash.update(&record.epoch.to_be_bytes());
            hash.update(&record.incarnation.to_be_bytes());
            hash.update(&record.version.to_be_bytes());
            hash.update(record.status.to_string().as_bytes());
            hash.update(record.name.as_bytes());
            for text in record.addresses.iter().chain(&record.capabilities) {
                hash.update(&[0]);
                hash.update(text.as_bytes());
            }
        }
        hash.digest()
    }
}
