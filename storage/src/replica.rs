//! What replication asks of a partition, and what it hands in.
//!
//! Guarantees: a [`Delta`] holds an object as one snapshot has it, together with events of its key that the object reflects:
//! a peer that merges the object has processed these events. [`Replicated`] is implemented by the real partitions and by the
//! in-memory replica of simulations, so that the same protocols run on both.

use std::sync::Arc;

use crate::clock::Clock;
use crate::digest::{Bucket, TreeNode, TreePath};
use crate::error::ReadError;
use crate::ids::{Actor, Dot};
use crate::key::{Key, TableName};
use crate::object::Object;
use crate::partition::tree::BucketEntry;
use crate::vector::VersionVector;
use crate::watch::Watch;

/// An object with events of its key that it reflects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// The object; empty when nothing is left of the key.
    pub object: Object,
    /// Events of this key, ascending.
    pub dots: Vec<Dot>,
}

/// A stretch of deltas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deltas {
    /// One for each key.
    pub deltas: Vec<Delta>,
    /// The last event that was looked at: where to go on.
    pub last: Option<Dot>,
    /// Whether there is more after it.
    pub more: bool,
}

/// What a peer with a certain clock lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// The part that fits.
    pub found: Deltas,
    /// Whether the peer lacks events of which this replica no longer knows the keys: only a walk of the trees can help.
    pub needs_walk: bool,
}

/// The objects of a bucket on one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketContent {
    /// The objects that count in the tree, ascending by the hash of the key.
    pub entries: Vec<BucketEntry>,
    /// Whether they add up to the bucket's sum and all could be read, and the bucket is not marked as damaged. If not, the
    /// absence of an object here is no evidence.
    pub sound: bool,
}

/// What is taken for dead when an object of a peer is merged. An event that a side has processed and whose value it does not
/// hold was replaced or deleted there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Evidence {
    /// What this side has processed and does not hold is dead: it is not taken from the peer again. The rule for all traffic.
    #[default]
    Own,
    /// Also, what the peer has processed (by this clock) and does not hold is dead here. For a walk of sound buckets.
    Both(Arc<Clock>),
    /// Nothing: what the peer holds was lost here if it is not here. For a peer that has processed all that this side had in
    /// that era. If the era is over, an object with such values is not merged at all: what was learned meanwhile may have
    /// killed them, and have been forgotten but for the clock.
    Held(Era),
    /// What is not held here and lies in this clock is dead; what lies beyond it was lost here. For a peer that does not
    /// know all that this side does: the clock is that of others who were asked before.
    Beyond(Arc<Clock>),
    /// Nothing: whatever the peer holds is taken. For a record that is damaged.
    Neither,
}

/// A time in which a replica forgets nothing: every event that it learns of since the beginning leaves its context in the
/// object of its key. It ends when contexts or tombstones are swept, and when a clock is taken over.
#[derive(Debug, Clone, Default)]
pub struct Era(Arc<()>);

impl PartialEq for Era {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Era {}

/// The read side of replication: one space of one partition.
pub trait Replicated: Send + Sync {
    /// The actor that issues its dots.
    fn actor(&self) -> Actor;
    /// What was processed.
    ///
    /// # Errors
    /// All methods: the store is damaged or closed.
    fn clock(&self) -> Result<Clock, ReadError>;
    /// Watches what others merge while a walk compares the trees with a peer that has processed `theirs`.
    fn watch(&self, theirs: &Arc<Clock>) -> Result<Arc<Watch>, ReadError>;
    /// The era that goes on. What is read after it was asked for is of this era or of a later one.
    fn era(&self) -> Era;
    /// Up to which counter the keys of an actor's events are no longer known here.
    fn swept(&self) -> Result<VersionVector, ReadError>;
    /// Events of `actor` after counter `after`, of at most about `bytes_max` bytes (at least one).
    fn deltas_after(
        &self,
        actor: &Actor,
        after: u64,
        bytes_max: usize,
    ) -> Result<Deltas, ReadError>;
    /// The deltas of these events, and the events of which nothing is known here.
    fn deltas_of(&self, dots: &[Dot]) -> Result<(Vec<Delta>, Vec<Dot>), ReadError>;
    /// What a peer with clock `theirs` lacks, after the event `after`, of at most about `bytes_max` bytes.
    fn missing(
        &self,
        theirs: &Clock,
        after: Option<Dot>,
        bytes_max: usize,
    ) -> Result<Missing, ReadError>;
    /// The sum of the whole.
    fn tree_root(&self) -> Result<TreeNode, ReadError>;
    /// The sums below a node of the tree.
    fn tree_children(&self, path: TreePath) -> Result<Vec<TreeNode>, ReadError>;
    /// The objects of a bucket, all on one snapshot.
    fn bucket(&self, bucket: Bucket) -> Result<BucketContent, ReadError>;
    /// Buckets that are marked: objects were lost there, and it is not known whether a peer still has them.
    fn damaged(&self) -> Result<Vec<Bucket>, ReadError>;
    /// The object of a key.
    fn object(&self, table: &TableName, key: &Key) -> Result<Option<Object>, ReadError>;
}
